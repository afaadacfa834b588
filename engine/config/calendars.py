"""Calendars as the configuration has them: dates, weekdays, and files of iCalendar."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Annotated, Literal, get_args

from msgspec import Meta, Struct

from engine.config.ical import read_ical
from engine.decide.calendars import Calendar, MonthDay
from engine.errors import EngineError
from engine.plugin.settings import BadSetting

Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]

_DATE = r"(\d{4})-(\d\d)-(\d\d)"
_MONTH_DAY = r"(\d\d)-(\d\d)"
_DATES = re.compile(rf"{_DATE}(?:/{_DATE})?", re.ASCII)
_YEARLY = re.compile(rf"{_MONTH_DAY}(?:/{_MONTH_DAY})?", re.ASCII)
_HINT = 'write "2026-12-25", "2026-12-24/2027-01-01" for a range, or "12-25" for every year'
_LEAP_YEAR = 2000

Span = tuple[int, int]


class CalendarTable(Struct, frozen=True, kw_only=True):
    """A set of days, which timers name in `except` and `only`. All that it says counts together."""

    dates: Annotated[
        tuple[str | date, ...],
        Meta(
            description='Dates `"2026-12-25"`, ranges `"2026-12-24/2027-01-01"` with both ends, '
            'and days of every year `"12-25"`, `"12-24/01-01"`.'
        ),
    ] = ()
    weekdays: Annotated[tuple[Weekday, ...], Meta(description='Such as `["saturday", "sunday"]`.')] = ()
    ical: Annotated[
        Path | None, Meta(description="A file of iCalendar (`.ics`): the days of its events. It is read at the start.")
    ] = None
    description: Annotated[str, Meta(description="For people.")] = ""
    tags: Annotated[tuple[str, ...], Meta(description="Words to find and group it by.")] = ()
    enabled: Annotated[bool, Meta(description="Where false, timers go as if they did not name it.")] = True

    def __post_init__(self) -> None:
        if not self.dates and not self.weekdays and self.ical is None:
            raise BadSetting("dates", "the calendar holds no day: it has neither dates nor weekdays nor ical", _HINT)
        self._days()

    def calendar(self, name: str, defined_in: str) -> Calendar:
        """Return the calendar, with the days of its file; raise BadSetting where that can't be read."""
        spans, yearly = self._days()
        series = None
        if self.ical is not None:
            try:
                single, series = read_ical(self.ical)
            except EngineError as error:
                raise BadSetting("ical", f"the file {self.ical} {error}") from None
            spans += single
        weekdays = get_args(Weekday)
        return Calendar(
            name=name,
            spans=_merged(spans),
            yearly=tuple(sorted(set(yearly))),
            weekdays=frozenset(weekdays.index(weekday) for weekday in self.weekdays),
            series=series,
            description=self.description,
            tags=self.tags,
            enabled=self.enabled,
            defined_in=defined_in,
        )

    def _days(self) -> tuple[list[Span], list[tuple[MonthDay, MonthDay]]]:
        spans: list[Span] = []
        yearly: list[tuple[MonthDay, MonthDay]] = []
        for place, written in enumerate(self.dates):
            try:
                if isinstance(written, date):
                    spans.append((written.toordinal(), written.toordinal()))
                elif match := _DATES.fullmatch(written):
                    spans.append(_span(*match.groups()))
                elif match := _YEARLY.fullmatch(written):
                    yearly.append(_every_year(*match.groups()))
                else:
                    raise ValueError("is no date")
            except ValueError as error:
                raise BadSetting(f"dates[{place}]", f'found "{written}", which {error}', _HINT) from None
        return spans, yearly


def _span(*parts: str) -> Span:
    first = _date(*parts[:3])
    last = _date(*parts[3:]) if parts[3] else first
    if last < first:
        raise ValueError("ends before it begins")
    return first.toordinal(), last.toordinal()


def _every_year(*parts: str) -> tuple[MonthDay, MonthDay]:
    first = _date(str(_LEAP_YEAR), *parts[:2])
    last = _date(str(_LEAP_YEAR), *parts[2:]) if parts[2] else first
    return (first.month, first.day), (last.month, last.day)


def _date(year: str, month: str, day: str) -> date:
    try:
        return date(int(year), int(month), int(day))
    except ValueError:
        raise ValueError(f"names a date that there is not: {year}-{month}-{day}") from None


def _merged(spans: list[Span]) -> tuple[Span, ...]:
    """Return spans in order, those that overlap or follow each other as one."""
    merged: list[Span] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return tuple(merged)
