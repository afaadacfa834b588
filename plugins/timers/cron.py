"""The cron timer: due instants from a cron expression in a time zone.

`cron_calendar` says which walls (naive local datetimes) an expression means; here they are put on the time
line of a zone, whose clock `zones` knows.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import ClassVar

from msgspec import Struct

from engine.plugin import Timer
from plugins.timers.cron_calendar import LAST_YEAR, Calendar, read_expression
from plugins.timers.cron_count import count_due
from plugins.timers.zones import SECOND, Change, Zone, find_zone, instant, shown_text

_MINUTE = timedelta(minutes=1)
_SCHEDULES_KNOWN = 131_072
"""So many pairs of expression and zone are kept; timers that are equal share one, and hold nothing themselves."""

_EARLIEST = datetime(2, 1, 1, tzinfo=UTC) - SECOND
"""Instants of the first year can't be shown in every zone."""

_GAPS_TRIED = 100
"""A time that as many gaps in a row removed (each year's last Sunday of March, 02:30) does not come."""


class Cron(Timer, frozen=True, kw_only=True):
    """Due at the times of a cron expression, as the clock of `timezone` shows them.

    - `expression`: five fields (minute, hour, day of month, month, day of week), due at second 0; or six,
      with seconds first; or `@hourly @daily @midnight @weekly @monthly @yearly @annually`. A field holds `*`,
      values, names (`jan`, `mon`), ranges, steps and lists. Ranges may wrap: `22-4` is 22, 23, 0, 1, 2, 3, 4,
      and steps count on across the end; `5/15` is `5-59/15`. `7` is Sunday, as `0` is. `L` is the last day of
      the month, `15W` the day from Monday to Friday that is nearest to the 15th, `mon#2` the second Monday, `L5`
      the last Friday.

    A day of month and a day of week that are both restricted are OR, unless one begins with `*`: then AND.

    When clocks change, Debian's cron is followed. An entry whose minute or hour begins with `*`, and one with
    seconds, follows the wall clock: what a gap removes is not due, what a repeat brings again is due again.
    Any other entry is a fixed time: one in a gap is due once, at the first minute after it; one in a repeat
    is due the first time only. In short, it is due when the clock first shows that time or a later one.
    """

    name: ClassVar[str] = "cron"
    main: ClassVar[str | None] = "expression"

    expression: str

    def __post_init__(self) -> None:
        _compile(self.expression, self.timezone or "UTC")

    def next(self, after: datetime) -> datetime | None:
        """Return the first due instant later than `after`, in UTC.

        It is in the year 2 or later. None where there is none before the year 9999, and for an entry that follows
        the wall clock and whose times are always in a gap. Raises ValueError when `after` is naive.
        """
        if _aware(after).year > LAST_YEAR:
            return None
        return _compile(self.expression, self.timezone or "UTC").next(max(after, _EARLIEST))

    def previous(self, before: datetime) -> datetime | None:
        """Return the last due instant earlier than `before`, in UTC, or None where there is none.

        Raises ValueError when `before` is naive.
        """
        return _compile(self.expression, self.timezone or "UTC").previous(before) if _aware(before).year > 2 else None

    def count(self, after: datetime, upto: datetime) -> int:
        """Return how many instants are due later than `after`, up to and including `upto`.

        Raises ValueError when one of them is naive.
        """
        due = _compile(self.expression, self.timezone or "UTC")
        return count_due(due.walls, due.zone, due.follows_clock, _aware(after), _aware(upto))

    def note(self, at: datetime) -> str | None:
        """Say, of a due instant, what a change of the clock does to it; None where there is nothing to say.

        Raises ValueError when `at` is naive.
        """
        return _compile(self.expression, self.timezone or "UTC").note(_aware(at))


def _aware(at: datetime) -> datetime:
    if at.tzinfo is None:
        raise ValueError(f"cron: {at.isoformat()} has no time zone; give an aware datetime, such as one in UTC")
    return at


def _utc(at: datetime) -> datetime:
    """Return the whole second of an instant, naive, in UTC."""
    return (at if at.tzinfo is UTC else at.astimezone(UTC)).replace(tzinfo=None, microsecond=0)


@lru_cache(maxsize=_SCHEDULES_KNOWN)
def _compile(expression: str, timezone: str) -> _Schedule:
    zone = find_zone(timezone)
    walls, follows_clock = read_expression(expression)
    return _Schedule(walls=walls, zone=zone, follows_clock=follows_clock)


class _Schedule(Struct, frozen=True, kw_only=True):
    """Walls in a zone; `follows_clock` tells which of the two rules of daylight saving holds."""

    walls: Calendar
    zone: Zone
    follows_clock: bool

    def next(self, after: datetime) -> datetime | None:
        shown = _utc(after)
        offset = self.zone.steady(shown)
        if offset is not None:
            wall = self.walls.first_from(shown + offset + SECOND)
            if wall is None:
                return None
            # Changes of the clock between two steady days only touch walls between, and none of those is meant.
            then = self.zone.steady(wall - offset)
            if then is not None:
                return (wall - then).replace(tzinfo=UTC)
        return self._next_by_rule(shown.replace(tzinfo=UTC))

    def previous(self, before: datetime) -> datetime | None:
        shown = _utc(before) if before.microsecond else _utc(before) - SECOND
        offset = self.zone.steady(shown)
        if offset is not None:
            wall = self.walls.last_to(shown + offset)
            if wall is None:
                return None
            then = self.zone.steady(wall - offset)
            if then is not None:
                return (wall - then).replace(tzinfo=UTC)
        return self._previous_by_rule(shown.replace(tzinfo=UTC))

    def _next_by_rule(self, start: datetime) -> datetime | None:
        if self.follows_clock:
            return self._shown_from(start + SECOND)
        wall = self.walls.first_from(self.zone.wall(start) + SECOND)
        while wall is not None:
            due = self.zone.first(wall)
            if due > start:
                return due
            wall = self.walls.first_from(wall + SECOND)
        return None

    def _previous_by_rule(self, end: datetime) -> datetime | None:
        if self.follows_clock:
            return self._shown_to(end)
        here = self.zone.wall(end)
        first, second = self.zone.offsets(here)
        # In a repeat the clock may have shown that much more already; what is yet to come is passed over.
        wall = self.walls.last_to(here + (first - second))
        while wall is not None:
            due = self.zone.first(wall)
            if due <= end:
                return due
            wall = self.walls.last_to(wall - SECOND)
        return None

    def note(self, at: datetime) -> str | None:
        here = self.zone.wall(at)
        first, second = self.zone.offsets(here)
        if first > second:
            if not self.follows_clock:
                return f"the clock shows {shown_text(here)} twice as it is set back: runs the first time only"
            which = "first" if at == instant(here, first) else "second"
            return f"the {which} of two times that the clock shows {shown_text(here)}, as it is set back"
        return self._note_of_removed(at, here) if self.follows_clock else self._note_of_moved(at, here)

    def _note_of_moved(self, at: datetime, here: datetime) -> str | None:
        """Say which times in a gap come to a due instant of a fixed time."""
        removed = self.zone.wall(at - _MINUTE) + _MINUTE
        first, second = self.zone.offsets(removed)
        if first >= second:
            return None
        change = self.zone.change(removed)
        meant = self._meant_in(change)
        return meant and f"scheduled for {meant}, runs at {shown_text(here, change)}: {change.skips()}"

    def _note_of_removed(self, at: datetime, here: datetime) -> str | None:
        """Say which times a gap has removed since the due instant before, of an entry that follows the clock."""
        latest = self.walls.last_to(here - SECOND)
        if latest is None:
            return None
        first, second = self.zone.offsets(latest)
        if first >= second:
            return None
        change = self.zone.change(latest)
        if change.at > at:
            return None
        on = "" if change.before.date() == here.date() else f"on {change.before:%Y-%m-%d} "
        return f"nothing runs {on}at {self._meant_in(change)}: {change.skips()}"

    def _meant_in(self, change: Change) -> str | None:
        """Return the times in a gap that are meant, in words; None where there are none."""
        earliest = self.walls.first_from(change.before)
        latest = self.walls.last_to(change.after - SECOND)
        if earliest is None or latest is None or earliest > latest:
            return None
        return (
            shown_text(earliest, change)
            if earliest == latest
            else f"{shown_text(earliest, change)} to {shown_text(latest, change)}"
        )

    def _shown_from(self, start: datetime) -> datetime | None:
        """Return the first instant, `start` or later, at which the clock shows a wall that is meant."""
        here = self.zone.wall(start)
        wall = self.walls.first_from(here)
        first, second = self.zone.offsets(here)
        if first > second and start == instant(here, first):  # it will show `here` again
            change = self.zone.change(here)
            if wall is None or wall >= change.before:
                wall = self.walls.first_from(change.after)
        for _ in range(_GAPS_TRIED):
            if wall is None:
                return None
            first, second = self.zone.offsets(wall)
            if first >= second:
                due = instant(wall, first)
                return due if due >= start else instant(wall, second)
            wall = self.walls.first_from(self.zone.change(wall).after)
        return None

    def _shown_to(self, end: datetime) -> datetime | None:
        """Return the last instant, `end` or earlier, at which the clock shows a wall that is meant."""
        here = self.zone.wall(end)
        wall = self.walls.last_to(here)
        first, second = self.zone.offsets(here)
        if first > second and end == instant(here, second):  # it has shown `here` before
            change = self.zone.change(here)
            if wall is None or wall < change.after:
                wall = self.walls.last_to(change.before - SECOND)
        for _ in range(_GAPS_TRIED):
            if wall is None:
                return None
            first, second = self.zone.offsets(wall)
            if first >= second:
                due = instant(wall, second)
                return due if due <= end else instant(wall, first)
            wall = self.walls.last_to(self.zone.change(wall).before - SECOND)
        return None
