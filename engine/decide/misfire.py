"""What becomes of due instants that passed while nobody looked: which are run, in order, and which are missed.

The answer is bounded whatever the gap: at most `MOST_ROWS` missed instants are named one by one, what lies before
them is told of together, and counting stops at `MOST_COUNTED` where a timer can't count faster than by stepping.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Protocol

from msgspec import Struct

from engine.triggers import MISFIRE, CatchUp, Misfire

MOST_ROWS = 100
MOST_COUNTED = 10_000

ON_TIME_S = 60.0
"""What fires at most so much late is on time, for a trigger that catches up on nothing and has no `grace`."""

_TICK = timedelta(microseconds=1)


class Dates(Protocol):
    """When something comes due: see `engine.decide.schedule.Schedule`."""

    def next(self, after: datetime) -> datetime | None: ...

    def previous(self, before: datetime) -> datetime | None: ...

    def fires_at(self, due: datetime) -> datetime: ...

    def count(self, first: datetime, last: datetime) -> int | None: ...


class Gap(Struct, frozen=True, kw_only=True):
    """Missed instants that are told of together: the first and the last, and how many (`more`: at least)."""

    first: datetime
    last: datetime
    count: int
    more: bool


class Due(Struct, frozen=True, kw_only=True):
    """What is due at a look: the instants to run, in order, those missed one by one, and what lies before them.

    The missed ones are older than those to run.
    """

    runs: tuple[datetime, ...]
    missed: tuple[datetime, ...] = ()
    gap: Gap | None = None

    @property
    def first(self) -> datetime:
        """The instant that has been dealt with once the missed ones are told of and the first run is made."""
        return self.runs[0] if self.runs else self.missed[-1]


def late_limit_s(rule: Misfire) -> float | None:
    """Return how late an instant may fire and still be run; None: without limit."""
    if rule.grace_s is None and rule.catch_up is CatchUp.NONE:
        return ON_TIME_S
    return rule.grace_s


def due(dates: Dates, since: datetime, now: datetime, rule: Misfire = MISFIRE) -> Due | None:
    """Return what is due after `since` and has fired by `now`, or None.

    `since` is the last instant that was dealt with. Of `catch_up = "all"` the newest `max` are run. Else only the
    latest is: where several came due between two looks, the older ones would be late by more than one step.
    """
    instant = dates.previous(now + _TICK)
    if instant is not None and instant > since and dates.fires_at(instant) > now:
        # Each fires before the next one is due, so that only the latest can be ahead.
        instant = dates.previous(instant)
    if instant is None or instant <= since:
        return None
    runs: list[datetime] = []
    limit_s, most = late_limit_s(rule), rule.max if rule.catch_up is CatchUp.ALL else 1
    while instant is not None and instant > since and len(runs) < most:
        if limit_s is not None and (now - dates.fires_at(instant)).total_seconds() > limit_s:
            break
        runs.append(instant)
        instant = dates.previous(instant)
    missed: list[datetime] = []
    while instant is not None and instant > since and len(missed) < MOST_ROWS:
        missed.append(instant)
        instant = dates.previous(instant)
    gap = _gap(dates, since, instant) if instant is not None and instant > since else None
    return Due(runs=tuple(reversed(runs)), missed=tuple(reversed(missed)), gap=gap)


def _gap(dates: Dates, since: datetime, last: datetime) -> Gap:
    """Count what is due after `since`, up to `last`, which is."""
    first = dates.next(since) or last
    count, more = counted(dates, first, last)
    return Gap(first=first, last=last, count=count, more=more)


def counted(dates: Dates, first: datetime, last: datetime) -> tuple[int, bool]:
    """Return how many instants are due from one to another, both of which are, and whether there are more.

    There are where the timer can't count, and stepping stops at `MOST_COUNTED`.
    """
    whole = dates.count(first, last)
    if whole is not None:
        return whole, False
    step: datetime | None = first
    steps = 0
    while step is not None and step <= last and steps < MOST_COUNTED:
        steps += 1
        step = dates.next(step)
    return steps, step is not None and step <= last
