"""Calendars: sets of days, and which days they leave to a schedule.

A day is a date's ordinal. The days of a year are the bits of a number, the first of January the lowest: so to look for
the next day that is left takes no longer where it is years away.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import MAXYEAR, date
from functools import lru_cache
from typing import Protocol

YEARS_AHEAD = 100
"""So far is a day looked for."""

_EACH_SEVENTH = sum(1 << 7 * week for week in range(53))

MonthDay = tuple[int, int]
"""A month and a day, in any year."""


class Series(Protocol):
    """Days that are worked out year by year, such as those of recurring events; equal where the days are."""

    @property
    def years(self) -> range:
        """The years in which there may be some."""
        ...

    def days(self, year: int) -> Iterable[int]:
        """Return those of a year."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Calendar:
    """A set of days with a name.

    - `spans`: first and last days, in order, without overlap.
    - `yearly`: days of every year, first and last; they go over the end of the year where the last is before the
      first. The 29th of February is a day of leap years alone.
    - `weekdays`: 0 is Monday.
    - `series`: further days.
    """

    name: str
    spans: tuple[tuple[int, int], ...] = ()
    yearly: tuple[tuple[MonthDay, MonthDay], ...] = ()
    weekdays: frozenset[int] = frozenset()
    series: Series | None = None
    description: str = ""
    tags: tuple[str, ...] = ()
    enabled: bool = True
    defined_in: str = ""
    _years: dict[int, int] = field(default_factory=dict, repr=False, compare=False)

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def years(self) -> range:
        """The years in which it may hold a day."""
        if self.yearly or self.weekdays:
            return range(1, MAXYEAR + 1)
        spans = [date.fromordinal(day).year for span in self.spans[:1] + self.spans[-1:] for day in span]
        found = [range(min(spans), max(spans) + 1)] if spans else []
        return _around([*found, self.series.years] if self.series is not None else found)

    def year(self, year: int) -> int:
        """Return its days in a year, as bits."""
        bits = self._years.get(year)
        if bits is None:
            bits = self._years[year] = self._worked_out(year)
        return bits

    def _worked_out(self, year: int) -> int:
        first = date(year, 1, 1).toordinal()
        last = date(year, 12, 31).toordinal()
        bits = 0
        for weekday in self.weekdays:
            bits |= _EACH_SEVENTH << (weekday - first - 6) % 7  # the ordinal 1 is a Monday
        for low, high in self.spans:
            if low <= last and high >= first:
                bits |= _bits(max(low, first) - first, min(high, last) - first)
        for begin, end in self.yearly:
            low, high = _of_year(year, begin, 1) - first, _of_year(year, end, 0) - first
            bits |= _bits(low, high) if begin <= end else _bits(low, last - first) | _bits(0, high)
        if self.series is not None and year in self.series.years:
            for day in self.series.days(year):
                if first <= day <= last:
                    bits |= 1 << day - first
        return bits & ((2 << last - first) - 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Days:
    """The days that calendars leave: in one of `only`, where there are any, and in none of `excepted`."""

    excepted: tuple[Calendar, ...]
    only: tuple[Calendar, ...]
    _years: dict[int, tuple[int, int]] = field(default_factory=dict, repr=False, compare=False)

    def leave(self, day: int) -> bool:
        """Tell whether a day is left."""
        first, bits = self._year(date.fromordinal(day).year)
        return bool(bits >> day - first & 1)

    def next(self, day: int, *, left: bool = True) -> int | None:
        """Return the first day after `day` that is left (or is not), None where there is none in a hundred years."""
        year = date.fromordinal(day).year
        years = range(year, MAXYEAR + 1)
        if left and self.only:
            within = _around([one.years for one in self.only])
            years = range(max(year, within.start), within.stop)
        for at in years[: YEARS_AHEAD + 1]:
            first, bits = self._year(at)
            if not left:
                bits ^= _bits(0, _length(at) - 1)
            skipped = max(day + 1 - first, 0)
            rest = bits >> skipped
            if rest:
                return first + skipped + (rest & -rest).bit_length() - 1
        return None

    def previous(self, day: int) -> int | None:
        """Return the last day before `day` that is left, None where there is none in a hundred years."""
        year = date.fromordinal(day).year
        years = range(1, year + 1)
        if self.only:
            within = _around([one.years for one in self.only])
            years = range(within.start, min(year + 1, within.stop))
        for at in reversed(years[-YEARS_AHEAD - 1 :]):
            first, bits = self._year(at)
            rest = bits & (_bits(0, day - first - 1) if day > first else 0)
            if rest:
                return first + rest.bit_length() - 1
        return None

    def why_not(self, day: int) -> str:
        """Say, of a day that is not left, which calendar is the reason."""
        at = date.fromordinal(day)
        place = day - date(at.year, 1, 1).toordinal()
        for one in self.excepted:
            if one.year(at.year) >> place & 1:
                return f"excluded by calendar {one.name}"
        names = " or ".join(one.name for one in self.only)
        return f"excluded: {at.isoformat()} is no day of calendar {names}"

    def _year(self, year: int) -> tuple[int, int]:
        """Return the ordinal of the year's first day, and the days that are left as bits."""
        known = self._years.get(year)
        if known is None:
            bits = _bits(0, _length(year) - 1)
            if self.only:
                wanted = 0
                for one in self.only:
                    wanted |= one.year(year)
                bits &= wanted
            for one in self.excepted:
                bits &= ~one.year(year)
            known = self._years[year] = (date(year, 1, 1).toordinal(), bits)
        return known


@lru_cache(maxsize=4096)
def days_left(excepted: tuple[Calendar, ...], only: tuple[Calendar, ...]) -> Days:
    """Return the days that calendars leave; schedules with the same ones share what was worked out."""
    return Days(excepted=excepted, only=only)


def said_of(days: Days) -> str:
    """Name the calendars that leave some days and not others, in a sentence."""
    names = [f"only {one.name}" for one in days.only] + [f"except {one.name}" for one in days.excepted]
    return f"its calendars ({', '.join(names)})"


def _around(found: Sequence[range]) -> range:
    found = [years for years in found if years]
    return range(min(each.start for each in found), max(each.stop for each in found)) if found else range(1, 1)


def _bits(low: int, high: int) -> int:
    """Return the bits from `low` to `high`, both included; none where they are the wrong way round."""
    return (1 << high + 1) - (1 << low) if low <= high else 0


def _length(year: int) -> int:
    return 366 if calendar.isleap(year) else 365


def _of_year(year: int, day: MonthDay, onward: int) -> int:
    """Return a day of a year; where it has no 29th of February the 28th, or with `onward` 1 the day after that."""
    if day == (2, 29) and not calendar.isleap(year):
        return date(year, 2, 28).toordinal() + onward
    return date(year, *day).toordinal()
