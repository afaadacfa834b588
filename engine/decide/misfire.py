"""What becomes of due instants that passed while nobody looked: the latest is run, the others are missed.

The answer is bounded whatever the gap: at most `MOST_ROWS` instants are named one by one, what lies before
them is one row with a count, and the count itself stops at `MOST_COUNTED`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from msgspec import Struct

MOST_ROWS = 100
MOST_COUNTED = 10_000

_TICK = timedelta(microseconds=1)
_Step = Callable[[datetime], datetime | None]


class Gap(Struct, frozen=True, kw_only=True):
    """Missed instants that are told of together: the first and the last, and how many (`more`: at least)."""

    first: datetime
    last: datetime
    count: int
    more: bool


class Due(Struct, frozen=True, kw_only=True):
    """What is due at a look: the instant to run, those missed one by one, and what lies before them."""

    run: datetime
    missed: tuple[datetime, ...] = ()
    gap: Gap | None = None


def due(following: _Step, preceding: _Step, since: datetime, now: datetime) -> Due | None:
    """Return what is due in (`since`, `now`], or None.

    `following` and `preceding` are a timer's `next` and `previous`; `since` is the last instant that was
    dealt with.
    """
    latest = preceding(now + _TICK)
    if latest is None or latest <= since:
        return None
    missed: list[datetime] = []
    instant = preceding(latest)
    while instant is not None and instant > since and len(missed) < MOST_ROWS:
        missed.append(instant)
        instant = preceding(instant)
    missed.reverse()
    if instant is None or instant <= since:
        return Due(run=latest, missed=tuple(missed))
    first, count, last = following(since), 0, instant
    step = first
    while step is not None and step <= last and count < MOST_COUNTED:
        count += 1
        step = following(step)
    more = step is not None and step <= last
    gap = Gap(first=first or last, last=last, count=count, more=more)
    return Due(run=latest, missed=tuple(missed), gap=gap)
