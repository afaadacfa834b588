"""Firings: what a timer hands to the door when its trigger comes due."""

from __future__ import annotations

from msgspec import Struct

from engine.events import Event
from engine.runs import Run


class Firing(Struct, frozen=True, kw_only=True):
    """One trigger's due instant: its event, the timer's cursor after it, and the runs of instants that were missed.

    `event` is None where all that was due is missed; `reason` says why it is late, where it is. It is made durable
    whole or not at all. `caught_up`: it makes up for a missed one, and waits its turn whatever `overlap` says.
    """

    source: str
    event: Event | None
    cursor: str
    missed: tuple[Run, ...] = ()
    reason: str = ""
    caught_up: bool = False
