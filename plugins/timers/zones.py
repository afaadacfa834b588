"""Walls (naive local datetimes: what a clock on the wall shows) and the instants at which a zone's clock shows them.

A change of the clock is a *gap* where it is set forward and a *repeat* where it is set back.
"""

from __future__ import annotations

import difflib
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from msgspec import Struct

from engine.plugin import BadSetting

SECOND = timedelta(seconds=1)
_NO_SHIFT = timedelta(0)

_STEADY_DAYS = 2
"""So long before and after a steady day no clock is set: longer than any clock was ever set back (24 hours)."""

_DAYS_KNOWN = 8192
"""A zone forgets what it knows of days when it knows so many."""


class Change(Struct, frozen=True, kw_only=True):
    """A change of a zone's clock: at the instant `at` it goes from showing `before` to showing `after`."""

    at: datetime
    before: datetime
    after: datetime

    def skips(self) -> str:
        """Say, of a gap, what the clock skips."""
        return f"the clock skips from {shown_text(self.before, self)} to {shown_text(self.after, self)}"


class Zone:
    """The clock of a time zone. It remembers which days are far from any change: there, arithmetic is enough."""

    __slots__ = ("_midnights", "_steady", "info")

    def __init__(self, info: ZoneInfo) -> None:
        self.info = info
        self._steady: dict[int, timedelta | None] = {}
        self._midnights: dict[int, timedelta] = {}

    def steady(self, shown: datetime) -> timedelta | None:
        """Return the offset from UTC that holds on a day of UTC, and for two days around it; None where none does.

        `shown` is a naive datetime in UTC, in the years 2 to 9998.
        """
        day = shown.toordinal()
        try:
            return self._steady[day]
        except KeyError:
            return self._look(day)

    def _look(self, day: int) -> timedelta | None:
        """Look at the midnights of UTC around: of all changes that a zone ever had, the closest lie four days apart."""
        found = {self._at_midnight(each) for each in range(day - _STEADY_DAYS, day + _STEADY_DAYS + 2)}
        offset = found.pop() if len(found) == 1 else None
        if len(self._steady) >= _DAYS_KNOWN:
            self._steady.clear()
        self._steady[day] = offset
        return offset

    def _at_midnight(self, day: int) -> timedelta:
        offset = self._midnights.get(day)
        if offset is None:
            at = datetime.fromordinal(day).replace(tzinfo=UTC)
            offset = at.astimezone(self.info).utcoffset() or _NO_SHIFT
            if len(self._midnights) >= _DAYS_KNOWN:
                self._midnights.clear()
            self._midnights[day] = offset
        return offset

    def wall(self, at: datetime) -> datetime:
        """Return what the clock shows at an instant."""
        return at.astimezone(self.info).replace(tzinfo=None, fold=0)

    def offsets(self, wall: datetime) -> tuple[timedelta, timedelta]:
        """Return a wall's offsets from UTC: mostly equal, falling in a repeat, rising in a gap (PEP 495)."""
        shown = wall.replace(tzinfo=self.info)
        return shown.utcoffset() or _NO_SHIFT, shown.replace(fold=1).utcoffset() or _NO_SHIFT

    def first(self, wall: datetime) -> datetime:
        """Return the first instant at which the clock shows `wall`, or the first minute after its gap.

        That is Debian cron's rule for fixed times. Raises OverflowError where UTC has no such date.
        """
        first, second = self.offsets(wall)
        if first >= second:
            return instant(wall, first)
        change = self.change(wall)
        return change.at + timedelta(seconds=-change.after.second % 60)

    def change(self, wall: datetime) -> Change:
        """Return the change in whose gap or repeat `wall` is."""
        first, second = self.offsets(wall)
        low, high = sorted((instant(wall, first), instant(wall, second)))
        while high - low > SECOND:  # low stays before the change, high at it or after
            middle = low + (high - low) // SECOND // 2 * SECOND
            if middle.astimezone(self.info).utcoffset() == first:
                low = middle
            else:
                high = middle
        # A wall with a fraction of a second leaves one here; changes are at whole seconds.
        high = high.replace(microsecond=0)
        shown = high.replace(tzinfo=None)
        return Change(at=high, before=shown + first, after=shown + second)


@lru_cache(maxsize=1024)
def find_zone(name: str) -> Zone:
    """Return the zone of an IANA name; raise BadSetting for the field `timezone` where there is none."""
    try:
        return Zone(ZoneInfo(name))
    except (KeyError, ValueError, OSError):
        near = difflib.get_close_matches(name, available_timezones(), 1)
        hint = f'did you mean "{near[0]}"?' if near else 'use an IANA name, such as "Europe/Berlin"'
        raise BadSetting("timezone", f'"{name}" is no known time zone', hint) from None


def shown_text(wall: datetime, change: Change | None = None) -> str:
    """Return a wall as text; with its date beside a change that skips midnight or was on another day."""
    on_one_day = change is None or change.before.date() == change.after.date() == wall.date()
    return f"{wall:{'' if on_one_day else '%Y-%m-%d '}%H:%M{':%S' if wall.second else ''}}"


def instant(wall: datetime, offset: timedelta) -> datetime:
    """Return the instant at which a clock so far ahead of UTC shows `wall`."""
    return (wall - offset).replace(tzinfo=UTC)
