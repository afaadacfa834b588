"""Deadlines: from when on a trigger has to have succeeded, and by when."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from msgspec import Struct

from engine.decide.schedule import Schedule
from engine.plugin import instant_of
from engine.triggers import Deadline

_DAY = timedelta(days=1)
_TICK = timedelta(microseconds=1)


class Promise(Struct, frozen=True, kw_only=True):
    """That a run succeeds between two instants."""

    since: datetime
    by: datetime


def promise_of(deadline: Deadline, schedule: Schedule | None, zone: str, now: datetime) -> Promise | None:
    """Return the latest promise whose deadline has passed; None where there was none on that day.

    After a due instant: the last one that was so long ago. At a time of the day, of a trigger on a timer: the last one
    in the day before; of one on a source: that day. `zone` is where that time is meant. Raises what the timer does.
    """
    if deadline.after_s is not None:
        after = timedelta(seconds=deadline.after_s)
        due_at = None if schedule is None else schedule.previous(now - after + _TICK)
        return None if due_at is None else Promise(since=due_at, by=due_at + after)
    assert deadline.at is not None  # noqa: S101 - it has one of the two
    day = now.astimezone(ZoneInfo(zone)).date()
    by = instant_of(datetime.combine(day, deadline.at), zone)
    if by > now:
        day -= _DAY
        by = instant_of(datetime.combine(day, deadline.at), zone)
    before = instant_of(datetime.combine(day - _DAY, deadline.at), zone)
    if schedule is None:
        return Promise(since=before, by=by)
    due_at = schedule.previous(by)
    return None if due_at is None or due_at < before else Promise(since=due_at, by=by)
