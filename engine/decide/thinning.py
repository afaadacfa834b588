"""What bounds and thins out a timer: from when to when, each nth instant, and the days that calendars leave.

In this order: `start` and `end` bound the timer's instants, `every_nth` takes each nth of those, and of these the ones
on a day that the calendars do not leave are taken away. So a calendar moves nothing: a holiday in it, also one that
is added later, takes its own instants away and shifts no others, as EXDATE does beside INTERVAL in RFC 5545.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from engine.decide.calendars import Days
from engine.plugin import Timer
from engine.plugin.moments import shown_first, shown_last

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""Instants are counted from here on where no start is given."""

MOST_TRIES = 500
"""A schedule of which so many instants in a row fall on days that its calendars do not leave has no further one."""

MOST_STEPPED = 32
"""So many instants are stepped over one by one; over more the way is found by counting."""

TICK = timedelta(microseconds=1)
_DAY = timedelta(days=1)


class Thinned:
    """The instants of a timer that are left. Pure: what it keeps is the place to count on from."""

    __slots__ = ("_mark", "days", "end", "nth", "start", "zone")

    def __init__(
        self, *, start: datetime | None, end: datetime | None, nth: int | None, days: Days | None, zone: ZoneInfo
    ) -> None:
        self.start = EPOCH if start is None and nth is not None else start
        self.end = end
        self.nth = nth
        self.days = days
        self.zone = zone
        self._mark: tuple[datetime, int] | None = None if self.start is None else (self.start - TICK, -1)

    def next(self, timer: Timer, after: datetime) -> datetime | None:
        """Return the first instant later than `after` that is left, or None."""
        due = self.next_counted(timer, after)
        if self.days is None:
            return due
        for _ in range(MOST_TRIES):
            if due is None or self.days.leave(self.day(due)):
                return due
            day = self.days.next(self.day(due))
            if day is None:
                return None
            due = self.next_counted(timer, max(due, self._first_of(day) - TICK))
        return None

    def previous(self, timer: Timer, before: datetime) -> datetime | None:
        """Return the last instant earlier than `before` that is left, or None."""
        due = self._previous_counted(timer, before)
        if self.days is None:
            return due
        for _ in range(MOST_TRIES):
            if due is None or self.days.leave(self.day(due)):
                return due
            day = self.days.previous(self.day(due))
            if day is None:
                return None
            due = self._previous_counted(timer, min(due, self._end_of(day)))
        return None

    def excluded(self, timer: Timer, after: datetime, before: datetime) -> Iterator[tuple[datetime, str]]:
        """Yield the instants between two others that calendars take away, each with the reason."""
        days = self.days
        due = None if days is None else self.next_counted(timer, after)
        while days is not None and due is not None and due < before:
            day = self.day(due)
            after = due
            if not days.leave(day):
                yield due, days.why_not(day)
            else:
                following = days.next(day, left=False)
                if following is None:
                    return
                after = max(due, self._first_of(following) - TICK)
            due = self.next_counted(timer, after)

    def next_counted(self, timer: Timer, after: datetime) -> datetime | None:
        """Return the first instant later than `after`, whatever the calendars leave."""
        if self.start is not None and after < self.start:
            after = self.start - TICK
        due = timer.next(after)
        if due is not None and self.nth is not None:
            index = self._index(timer, due)
            steps = -index % self.nth
            due = self._forward(timer, due, steps)
            if due is not None:
                self._mark = (due, index + steps)
        return None if due is None or (self.end is not None and due > self.end) else due

    def _previous_counted(self, timer: Timer, before: datetime) -> datetime | None:
        if self.end is not None and before > self.end:
            before = self.end + TICK
        due = timer.previous(before)
        if due is None or (self.start is not None and due < self.start):
            return None
        return due if self.nth is None else self._backward(timer, due, self._index(timer, due) % self.nth)

    def day(self, due: datetime) -> int:
        """Return the day of an instant, in the timer's zone. Days follow each other: none has come again since 2010."""
        return due.astimezone(self.zone).toordinal()

    def _index(self, timer: Timer, due: datetime) -> int:
        """Return the place of an instant among all from the start on, the first of which has 0."""
        at, index = self._mark or (EPOCH - TICK, -1)
        if due > at:
            index += 1 if timer.next(at) == due else timer.count(at, due)
        elif due < at:
            index -= timer.count(due, at)
        self._mark = (due, index)
        return index

    def _forward(self, timer: Timer, due: datetime, steps: int) -> datetime | None:
        """Return the instant so many steps after one that is due."""
        span = _DAY
        while steps > MOST_STEPPED:
            try:
                counted = timer.count(due, due + span)
            except OverflowError:
                return None
            if counted > steps:
                span /= 2
                continue
            last = timer.previous(due + span + TICK)
            if counted and last is not None:
                due, steps = last, steps - counted
            span *= 2
        found: datetime | None = due
        for _ in range(steps):
            found = None if found is None else timer.next(found)
        return found

    def _backward(self, timer: Timer, due: datetime, steps: int) -> datetime | None:
        """Return the instant so many steps before one that is due."""
        span, earliest = _DAY, self.start or EPOCH
        while steps > MOST_STEPPED:
            before = due - min(span, due - earliest) - TICK
            counted = timer.count(before, due - TICK)
            if counted > steps:
                span /= 2
                continue
            first = timer.next(before)
            if counted and first is not None:
                due, steps = first, steps - counted
            span *= 2
        found: datetime | None = due
        for _ in range(steps):
            found = None if found is None else timer.previous(found)
        return found

    def _first_of(self, day: int) -> datetime:
        return shown_first(datetime.fromordinal(day), self.zone)

    def _end_of(self, day: int) -> datetime:
        return shown_last(datetime.fromordinal(day + 1), self.zone)
