"""Files of iCalendar (RFC 5545): the days that their events cover."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from engine.errors import EngineError

LARGEST_FILE_BYTES = 1024 * 1024
MOST_RECURRING = 500
"""So many recurring events may be in a file: each year they are worked out anew."""

LAST_YEAR = 2100
"""So far are recurring events followed."""

_RECURRING = ("RRULE", "RDATE", "RECURRENCE-ID")
_TIMES = frozenset({"DTSTART", "DTEND", "DURATION", "RRULE", "RDATE", "EXDATE", "RECURRENCE-ID"})
_TIMES_OF_DAY = ("BYHOUR", "BYMINUTE", "BYSECOND")
_FINER_THAN_DAYS = frozenset({"SECONDLY", "MINUTELY", "HOURLY"})

Span = tuple[int, int]


def read_ical(file: Path) -> tuple[list[Span], RecurringDays | None]:
    """Return the days of a file's events: first and last days of single ones, and what tells those of recurring ones.

    An event covers each date that it touches, in the zone in which the file has it. Cancelled ones do not count. Raises
    EngineError, which goes on from the file's name, where the file can't be read or one of its events is wrong.
    """
    # The library is costly to import, and few configurations need it.
    from icalendar import Calendar
    from x_wr_timezone import to_standard

    content = _read(file)
    try:
        parts = [to_standard(part) for part in Calendar.from_ical(content, multiple=True)]
    except Exception as error:  # whatever the library meets in somebody's file
        raise EngineError(f"is no iCalendar: {_first_line(error)}") from None
    events = [event for part in parts for event in part.walk("VEVENT")]
    if not events:
        raise EngineError("holds no event (VEVENT)")
    for number, event in enumerate(events):
        if "UID" not in event:  # it should have one; those that have none are not one event
            event.add("UID", f"event {number + 1} of the file")
        _check(event)
    again = {str(event.get("UID")) for event in events if any(key in event for key in _RECURRING)}
    single = [event for event in events if str(event.get("UID")) not in again]
    spans = [_span_of(event) for event in single if not _is_cancelled(event)]
    if len(single) == len(events):
        return spans, None
    if len(events) - len(single) > MOST_RECURRING:
        raise EngineError(f"has {len(events) - len(single)} recurring events, more than {MOST_RECURRING}")
    return spans, RecurringDays(content, parts, again)


class RecurringDays:
    """The days of recurring events, worked out year by year; equal where the files are."""

    def __init__(self, content: bytes, parts: list[Any], which: set[str]) -> None:
        from icalendar import Timezone

        self._content = content
        first = LAST_YEAR
        for part in parts:
            part.subcomponents = [
                each
                for each in part.subcomponents
                if isinstance(each, Timezone) or (each.name == "VEVENT" and str(each.get("UID")) in which)
            ]
            starts = [_span_of(event)[0] for event in part.walk("VEVENT")]
            first = min([first, *(date.fromordinal(start).year for start in starts)])
        self._years = range(max(first, 2) - 1, LAST_YEAR + 1)
        self._queries = self._followed(parts)

    def _followed(self, parts: list[Any]) -> list[Any]:
        from recurring_ical_events import of

        try:
            queries = [of(part) for part in parts]
            year = date(self._years[1], 1, 1)
            for query in queries:
                query.between(year, year.replace(month=12))
        except Exception as error:  # as above: a rule that can't be followed
            raise EngineError(f"has an event that can't be followed: {_first_line(error)}") from None
        return queries

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RecurringDays) and other._content == self._content

    def __hash__(self) -> int:
        return hash(self._content)

    @property
    def years(self) -> range:
        """The years in which there may be some."""
        return self._years

    def days(self, year: int) -> Iterator[int]:
        """Yield the days of a year, as ordinals; some that are next to it may be among them."""
        return self._of(year)

    def _of(self, year: int) -> Iterator[int]:
        # A day more at both ends: a date of the event's own zone may be another one in UTC.
        begin, end = date(year, 1, 1) - timedelta(days=1), date(year, 12, 31) + timedelta(days=2)
        for query in self._queries:
            for event in query.between(begin, end):
                if not _is_cancelled(event):
                    first, last = _span_of(event)
                    yield from range(max(first, begin.toordinal()), min(last, end.toordinal()) + 1)


def _check(event: Any) -> None:
    """Raise EngineError for an event that is wrong, or recurs within a day."""
    title = f"the event {str(event.get('SUMMARY') or event.get('UID') or '')[:60]!r}"
    for key, message in event.errors:
        if key is None or key in _TIMES:
            raise EngineError(f"is wrong: {title} has a bad {key}: {str(message)[:200]}")
    if "DTSTART" not in event:
        raise EngineError(f"is wrong: {title} has no DTSTART")
    rules = event.get("RRULE", [])
    for rule in rules if isinstance(rules, list) else [rules]:
        _check_rule(rule, title)
    _span_of(event)


def _check_rule(rule: Any, title: str) -> None:
    """Raise EngineError for a rule that has no step (it would go on for ever), or one within a day."""
    finer = _FINER_THAN_DAYS & {str(text).upper() for text in rule.get("FREQ", [])}
    if finer or any(len(rule.get(part, [])) > 1 for part in _TIMES_OF_DAY):
        raise EngineError(f"is wrong: {title} recurs within a day; a calendar holds days")
    if any(interval < 1 for interval in rule.get("INTERVAL", [])):
        raise EngineError(f"is wrong: {title} recurs with INTERVAL=0")


def _is_cancelled(event: Any) -> bool:
    return str(event.get("STATUS", "")).upper() == "CANCELLED"


def _span_of(event: Any) -> Span:
    """Return the first and the last day that an event covers; its end does not belong to it."""
    try:
        start, end = event.start, event.end
    except Exception as error:  # whatever the library meets in somebody's file
        raise EngineError(f"is wrong: {_first_line(error)}") from None
    first = start.toordinal()
    if end <= start:
        return first, first
    # An end at midnight belongs to the day before.
    last = end - (timedelta(microseconds=1) if isinstance(end, datetime) else timedelta(days=1))
    return first, max(first, last.toordinal())


def _read(file: Path) -> bytes:
    try:
        # O_NONBLOCK: a FIFO with nobody at its other end must not hold the start.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise EngineError("is no regular file")
            content = stream.read(LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise EngineError(f"can't be read: {error.strerror}") from None
    if len(content) > LARGEST_FILE_BYTES:
        raise EngineError(f"is larger than {LARGEST_FILE_BYTES} bytes")
    return content


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).split("\n", 1)[0][:200]
