"""One trigger in the simulation: what is known of it, and how far it has come."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from engine.decide.rules import Rule
from engine.decide.schedule import Schedule
from engine.foresight.agenda import Act
from engine.foresight.durations import Length
from engine.jobs import Job
from engine.triggers import Pause, Trigger


def _nothing(at_us: int) -> None:
    """Do nothing."""


class Course(Struct, kw_only=True):
    """One trigger: its fixed parts, and where it stands.

    - `schedule`: None for one that comes due by no timer.
    - `length_us`: how long its runs last, their time-out counted in; `times_out` tells whether that cuts them off.
    - `since`: the last due instant that was dealt with; `due` the next one.
    - `fires_us`: when that fires, in microseconds since 1970.
    - `backlog`: the instants that are yet to be caught up on, the newest first; `exempt`: whether their runs are exempt
      from what overlap says.
    - `act`: what is to be done when it comes due.
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
    fires_us: int = 0
    backlog: list[datetime] = []
    exempt: bool = False
    unforeseen: str | None = None
    act: Act = _nothing
