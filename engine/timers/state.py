"""One timer as the heap holds it, and what may be said of it."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from msgspec import Struct

from engine.clock import rfc3339
from engine.decide.misfire import Due, due
from engine.decide.schedule import Schedule
from engine.errors import PluginError
from engine.triggers import Pause, Trigger

log = logging.getLogger("engine.timers")

SOURCE_PREFIX = "timer:"
RETRY_S, LONGEST_RETRY_S = 1.0, 30.0
"""When the store refuses something, it is tried again after the first, and at the latest after the second."""

ASK_AGAIN_S = 60.0
"""After so long a timer that raised is asked again."""

HANDED_ON = -1
"""The ticket of a timer whose due instant is on its way to the store."""


class State(Struct):
    """One timer: its trigger, when that comes due, the last instant dealt with, and the next one.

    - `ticket`: the number of the one entry in a heap that is valid; 0 while there is none, and `HANDED_ON`.
    - `backlog`: the instants that are still to be caught up on one by one, the newest first.
    - `pause`: the pause in which an instant came due, until that is dealt with.
    - `tries`: how often in a row the store refused what was due.
    - `following`: the schedule from the next instant on, where another interval came while one was dealt with.
    - `completed`: whether the timer has said that no further instant is due.
    """

    trigger: Trigger
    schedule: Schedule
    since: datetime
    next_at: datetime | None = None
    ticket: int = 0
    backlog: list[datetime] | None = None
    pause: Pause | None = None
    problem: str | None = None
    tries: int = 0
    following: Schedule | None = None
    completed: bool = False

    @property
    def source(self) -> str:
        """The id under which the timer's events and its cursor are kept."""
        return SOURCE_PREFIX + self.trigger.name

    def is_dealing(self, now: datetime) -> bool:
        """Tell whether an instant is due, on its way to the store, or to be caught up on."""
        if self.ticket == HANDED_ON or self.backlog or self.pause is not None:
            return True
        return self.next_at is not None and self.next_at <= now

    def due(self, now: datetime) -> Due | None:
        """Return what is due now, or None; raise what the timer does, and PluginError where its answers don't fit."""
        rule = self.trigger.misfire
        if self.backlog:
            late_s = (now - self.schedule.fires_at(self.backlog[-1])).total_seconds()
            if rule.grace_s is None or late_s <= rule.grace_s:
                return Due(runs=(self.backlog[-1],))
            self.backlog = None
        found = due(self.schedule, self.since, now, rule)
        if found is None and self.next_at is not None and self.schedule.fires_at(self.next_at) <= now:
            raise PluginError(f"{rfc3339(self.next_at)} is its next instant, but none of its previous ones")
        return found

    def go_on(self) -> datetime | None:
        """Take up the next instant and return when it fires, or None where none is due any more; raise as `due`."""
        if self.following is not None:
            self.schedule, self.following = self.following, None
        next_at = self.schedule.next(self.since)
        fires_at = None
        if next_at is not None:
            if next_at <= self.since:
                raise PluginError(f"the next instant after {rfc3339(self.since)} can't be {rfc3339(next_at)}")
            fires_at = self.schedule.fires_at(next_at)
        self.next_at, self.problem, self.completed = next_at, None, next_at is None
        return fires_at


def said_of_end(schedule: Schedule, since: datetime) -> str:
    """Say that nothing of a timer comes due after `since`, which is when it ran last, or was first seen."""
    said = "its timer has no further due instant"
    try:
        said = schedule.why_over(since)
        last = schedule.previous(since + timedelta(microseconds=1))
    except Exception:  # plugin code; what it says is of use and not needed
        log.exception(
            "The timer %s raised when asked for its last instant", schedule.timer.name, extra={"action": "timer_raised"}
        )
        return said
    if last is None or last >= since:
        return said
    return f"{said}: its last instant was {rfc3339(last)}, before this trigger was first seen"
