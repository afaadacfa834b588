"""Schedules: a timer with what bounds and thins it out; the one answer to when a trigger comes due.

A *due instant* is what the timer means, whatever happens to it: events, runs and cursors name it. It *fires* then, or
a little later where the trigger spreads its load.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from engine.plugin import Timer
from engine.triggers import Trigger


class Schedule(Struct, frozen=True, kw_only=True):
    """When one trigger comes due. All methods are pure, take and return aware datetimes, and raise what the timer does.

    `trigger` is the name of the trigger.
    """

    trigger: str
    timer: Timer

    def next(self, after: datetime) -> datetime | None:
        """Return the first due instant later than `after`, or None where there is none."""
        return self.timer.next(after)

    def previous(self, before: datetime) -> datetime | None:
        """Return the last due instant earlier than `before`, or None where there is none."""
        return self.timer.previous(before)

    def note(self, due: datetime) -> str | None:
        """Say what is special about a due instant, such as that a change of the clock moves it; None: nothing."""
        return self.timer.note(due)

    def fires_at(self, due: datetime) -> datetime:
        """Return when a due instant fires: then, or later by less than the distance to the next one."""
        return due


def schedule_of(trigger: Trigger) -> Schedule | None:
    """Return the schedule of a trigger that is on a timer, else None."""
    if trigger.schedule is not None:
        schedule: Schedule = trigger.schedule
        return schedule
    return Schedule(trigger=trigger.name, timer=trigger.on) if isinstance(trigger.on, Timer) else None
