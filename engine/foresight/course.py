"""One trigger in the simulation: what is known of it, and how far it has come."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from engine.decide.rules import Rule
from engine.decide.schedule import Schedule
from engine.foresight.durations import Length
from engine.jobs import Job
from engine.triggers import Pause, Trigger


class Course(Struct, kw_only=True):
    """One trigger: its fixed parts, and where it stands.

    - `schedule`: None for one that comes due by no timer.
    - `length_us`: how long its runs last, their time-out counted in; `times_out` tells whether that cuts them off.
    - `since`: the last due instant that was dealt with; `due` the next one.
    - `unforeseen`: why nothing of it can be foreseen; None where it can.
    """

    rule: Rule
    trigger: Trigger
    job: Job
    schedule: Schedule | None
    length: Length
    length_us: int
    times_out: bool
    pause: Pause | None
    since: datetime
    due: datetime | None = None
    unforeseen: str | None = None
    order: int = 0
