"""Cron expressions: which local times they mean, without any time zone.

A *wall* is a naive local datetime, to the second: what the clock on the wall shows.
"""

from __future__ import annotations

import calendar
import difflib
import re
from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from typing import Any

from croniter import CroniterError, croniter
from msgspec import Struct

from engine.plugin import BadSetting

LAST_YEAR = 9998
"""The search ends here: instants near the end of datetime's range can't be shown in every zone."""

_LONGEST_TEXT = 1000
_FIELDS = ("minute", "hour", "day-of-month", "month", "day-of-week")  # in croniter's order
_LOWEST = (0, 0, 1, 1, 0)
_HIGHEST = (59, 23, 31, 12, 6)
_LENGTHS = ((31,), (28, 29), (31,), (30,), (31,), (30,), (31,), (31,), (30,), (31,), (30,), (31,))
_NAMES: tuple[dict[str, int], ...] = (
    {}, {}, {},
    {"jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6,
     "jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11, "dec": 12},
    {"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6},
)  # fmt: skip
_EXPECTED = (
    "*, or 0 to 59",
    "*, or 0 to 23",
    "*, 1 to 31, L for the last day, or 15W for the weekday nearest to the 15th",
    "*, 1 to 12, or jan to dec",
    "*, 0 to 7 (0 and 7 are Sunday), sun to sat, mon#2 for the second Monday, or L5 for the last Friday",
)
_ALIASES = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}  # fmt: skip
_OTHER_WAYS = {
    "@every": "for a fixed distance use on.interval",
    "@reboot": "what is to run when the machine starts is started there: "
    'let a systemd unit or cron run "python -m engine fire NAME"',
}
_LONG_STEP = "a step counts on within its field, and begins anew with it; for a fixed distance use on.interval"
_STEP = re.compile(r".*/(\d+)(#\d)?", re.ASCII)
_RANGE = re.compile(r"(\w+)-(\w+)(?:/(\d+))?(#\d)?", re.ASCII)
_NEAREST_WEEKDAY = re.compile(r"(\d{1,2})w|w(\d{1,2})", re.ASCII)


class Values(Struct, frozen=True, kw_only=True):
    """The allowed values of a field; `up[i]` is the first from i on, `down[i]` the last up to i, or -1."""

    first: int
    last: int
    up: tuple[int, ...]
    down: tuple[int, ...]

    @staticmethod
    def of(values: Iterable[int]) -> Values:
        """Return the tables for some values between 0 and 59."""
        ordered = sorted(set(values))
        return Values(
            first=ordered[0],
            last=ordered[-1],
            up=tuple(next((value for value in ordered if value >= i), -1) for i in range(61)),
            down=tuple(next((value for value in reversed(ordered) if value <= i), -1) for i in range(60)),
        )


class Calendar(Struct, frozen=True, kw_only=True):
    """The walls that an expression means; `days` holds the days of a month as bits, for each `sheet_of`."""

    seconds: Values
    minutes: Values
    hours: Values
    months: Values
    days: tuple[int, ...]

    def first_from(self, wall: datetime) -> datetime | None:
        """Return the first wall that is meant, `wall` itself or later; None where the years end."""
        year, month, day, hour, minute = wall.year, wall.month, wall.day, wall.hour, wall.minute
        if self.months.up[month] == month and self.days[sheet_of(year, month)] >> day & 1:
            if self.hours.up[hour] == hour:
                if self.minutes.up[minute] == minute:
                    second = self.seconds.up[wall.second]
                    if second >= 0:
                        return wall.replace(second=second)
                minute = self.minutes.up[minute + 1]
                if minute >= 0:
                    return wall.replace(minute=minute, second=self.seconds.first)
            hour = self.hours.up[hour + 1]
            if hour >= 0:
                return wall.replace(hour=hour, minute=self.minutes.first, second=self.seconds.first)
        day += 1
        while year <= LAST_YEAR:
            if self.months.up[month] == month:
                left = self.days[sheet_of(year, month)] >> day
                if left:
                    day += (left & -left).bit_length() - 1
                    hour, minute, second = self.hours.first, self.minutes.first, self.seconds.first
                    return datetime(year, month, day, hour, minute, second)  # noqa: DTZ001 - a wall
            day, month = 1, self.months.up[month + 1]
            if month < 0:
                year, month = year + 1, self.months.first
        return None

    def last_to(self, wall: datetime) -> datetime | None:
        """Return the last wall that is meant, `wall` itself or earlier; None where the years begin."""
        year, month, day, hour, minute = wall.year, wall.month, wall.day, wall.hour, wall.minute
        if self.months.up[month] == month and self.days[sheet_of(year, month)] >> day & 1:
            if self.hours.up[hour] == hour:
                if self.minutes.up[minute] == minute:
                    second = self.seconds.down[wall.second]
                    if second >= 0:
                        return wall.replace(second=second)
                minute = self.minutes.down[minute - 1] if minute else -1
                if minute >= 0:
                    return wall.replace(minute=minute, second=self.seconds.last)
            hour = self.hours.down[hour - 1] if hour else -1
            if hour >= 0:
                return wall.replace(hour=hour, minute=self.minutes.last, second=self.seconds.last)
        day -= 1
        while year > 1:
            if self.months.up[month] == month:
                left = self.days[sheet_of(year, month)] & ((2 << day) - 1)
                if left:
                    day = left.bit_length() - 1
                    hour, minute, second = self.hours.last, self.minutes.last, self.seconds.last
                    return datetime(year, month, day, hour, minute, second)  # noqa: DTZ001 - a wall
            day, month = 31, self.months.down[month - 1]
            if month < 0:
                year, month = year - 1, self.months.last
        return None


@lru_cache(maxsize=8192)
def sheet_of(year: int, month: int) -> int:
    """Return which of 28 calendar sheets a month is: by the weekday of its first day, and its length."""
    monday_is_0, length = calendar.monthrange(year, month)
    return (monday_is_0 + 1) % 7 * 4 + length - 28


def read_expression(expression: str) -> tuple[Calendar, bool]:
    """Return the walls that an expression means, and whether it follows the wall clock when clocks change.

    It does where its minute or hour begins with `*`, and where it has seconds. The syntax is that of
    croniter, but for H, R and years, and but for `5-5`, which is 5, as in cron.

    Raises BadSetting for what can't be read, and for an expression that no date fulfils.
    """
    texts = _split(expression)
    seconds, (minute, hour, day, month, weekday) = texts[:-5], texts[-5:]
    walls = Calendar(
        seconds=_values(0, seconds[0] if seconds else "0", "second"),
        minutes=_values(0, minute, _FIELDS[0]),
        hours=_values(1, hour, _FIELDS[1]),
        months=_values(3, month, _FIELDS[3]),
        days=_days(day, weekday),
    )
    # Within 400 years each month begins on each weekday, also February with 29 days.
    months = [number for number in range(1, 13) if walls.months.up[number] == number]
    lengths = {length for number in months for length in _LENGTHS[number - 1]}
    if not any(walls.days[first * 4 + length - 28] for length in lengths for first in range(7)):
        found = f'no date has day-of-month "{day}", month "{month}" and day-of-week "{weekday}"'
        hint = 'name a day that the month has; "L" as day-of-month is its last one'
        raise BadSetting("expression", f'"{expression}" never comes: {found}', hint)
    return walls, bool(seconds) or minute[0] == "*" or hour[0] == "*"


def _split(expression: str) -> list[str]:
    """Return the five or six fields, in lower case, with aliases replaced."""
    if len(expression) > _LONGEST_TEXT:
        found = f"the expression has {len(expression)} characters"
        raise BadSetting("expression", found, f"expected at most {_LONGEST_TEXT}; write lists as ranges")
    text = expression.strip(" \t\r\n").lower()
    if text.startswith("@"):
        if text not in _ALIASES:
            near = difflib.get_close_matches(text, _ALIASES, 1)
            hint = f'did you mean "{near[0]}"?' if near else f"expected one of {' '.join(_ALIASES)}"
            hint = next((way for word, way in _OTHER_WAYS.items() if text.startswith(word)), hint)
            raise BadSetting("expression", f'"{expression}" names no times', hint)
        text = _ALIASES[text]
    if re.match(r"(cron_)?tz\s*=", text):
        raise BadSetting("expression", f'"{expression}" names a zone', 'the zone is the setting "timezone"')
    texts = re.findall(r"\S+", text, re.ASCII)
    if len(texts) not in (5, 6):
        hint = "expected five (minute, hour, day of month, month, day of week), or six with seconds first"
        if len(texts) == 7:
            hint += "; years are not known"
        raise BadSetting("expression", f'"{expression}" has {len(texts)} fields', hint)
    return texts


@lru_cache(maxsize=4096)
def _values(index: int, text: str, name: str) -> Values:
    return Values.of(value for element in text.split(",") for value in _element(index, element, name)[0])


@lru_cache(maxsize=4096)
def _days(day: str, weekday: str) -> tuple[int, ...]:
    """Return the days that the two fields of days allow together, as bits, for each `sheet_of`."""
    month_days, week_days = _month_days(day), _week_days(weekday)
    either = day[0] not in "*?" and weekday[0] not in "*?"
    sheets = []
    for first in range(7):
        for length in range(28, 32):
            by_month = {_date_of(each, first, length) for each in month_days}
            by_week = {
                date
                for date in range(1, length + 1)
                for nth in week_days.get((first + date - 1) % 7, ())
                if nth == 0 or nth == (date + 6) // 7 or (nth == -1 and date + 7 > length)
            }
            dates = by_month | by_week if either else by_month & by_week
            sheets.append(sum(1 << date for date in dates if date <= length))
    return tuple(sheets)


def _month_days(text: str) -> set[int | str]:
    """Return dates, `l` for the last day, and as text the dates of which the nearest weekday is meant."""
    days: set[int | str] = set()
    for element in text.split(","):
        nearest = _NEAREST_WEEKDAY.fullmatch(element)
        if element == "l":
            days.add(element)
        elif nearest:
            days.update(map(str, _element(2, nearest[1] or nearest[2], _FIELDS[2])[0]))
        else:
            days.update(_element(2, element, _FIELDS[2])[0])
    return days


def _date_of(day: int | str, first: int, length: int) -> int:
    """Return the date that is meant in a month of `length` days whose first is the weekday `first`."""
    if isinstance(day, int):
        return day
    if day == "l":
        return length
    date = min(int(day), length)
    weekday = (first + date - 1) % 7
    if weekday == 6:  # Saturday: the Friday before, but never in another month
        return date - 1 if date > 1 else 3
    if weekday == 0:
        return date + 1 if date < length else date - 2
    return date


def _week_days(text: str) -> dict[int, set[int]]:
    """Return by weekday (0 is Sunday) which ones of a month: 1 to 5, -1 for the last, 0 for all."""
    days: dict[int, set[int]] = {}
    for element in text.split(","):
        values, nth = _element(4, element, _FIELDS[4])
        for value in values:
            days.setdefault(value, set()).update(nth.get(value, {0}))
    return days


@lru_cache(maxsize=4096)
def _element(index: int, text: str, name: str) -> tuple[tuple[int, ...], dict[int, set[int]]]:
    """Return the values of one element of a field, and for weekdays which ones of a month (-1: the last)."""
    fields = ["*"] * 5
    fields[index] = _written_out(index, text)
    try:
        if not text or text[0] in "hr":  # H and R are drawn, not read
            raise CroniterError
        step = _STEP.fullmatch(text)
        if step is not None and int(step[1]) > (size := _HIGHEST[index] - _LOWEST[index] + 1):
            raise BadSetting("expression", f'the {name} field has "{text}": it has {size} values', _LONG_STEP)
        expanded, by_weekday = croniter.expand(" ".join(fields))
    except CroniterError:
        raise BadSetting("expression", f'the {name} field has "{text}"', _hint(index, text)) from None
    nth: dict[Any, Any] = dict(by_weekday)  # holds "l" too, whatever its annotation says
    values = expanded[index]
    if "*" in values:
        return tuple(range(_LOWEST[index], _HIGHEST[index] + 1)), {}
    return tuple(map(int, values)), {day: {-1 if n == "l" else n for n in which} for day, which in nth.items()}


def _written_out(index: int, text: str) -> str:
    """Write a range that wraps, or that ends where it begins, as a list.

    Croniter 7 counts the steps of the first wrongly across the end, and takes the second (`5-5`) for all.
    """
    match = _RANGE.fullmatch(text)
    if match is None:
        return text
    low, high = (_NAMES[index].get(end, int(end) if end.isdigit() else -1) for end in match.group(1, 2))
    step, suffix = int(match[3] or 1), match[4] or ""
    lowest, size = _LOWEST[index], _HIGHEST[index] - _LOWEST[index] + 1
    highest = 7 if index == 4 else _HIGHEST[index]
    if step == 0 or low < high or high < lowest or low > highest:
        return text
    end = low if (low - high) % size == 0 else high + size
    return ",".join(f"{(value - lowest) % size + lowest}{suffix}" for value in range(low, end + 1, step))


def _hint(index: int, text: str) -> str:
    if index == 4 and re.fullmatch(r"l|l[a-z]+|\w+l|\w+#l", text):
        return 'the last one of a month is written with L first and a number: "L5" is the last Friday'
    if text == "h" or text.startswith("h(") or "~" in text:
        return 'nothing is drawn by chance: give a number; "jitter" spreads the load'
    for word in re.findall(r"[a-z]{2,}", text):
        near = difflib.get_close_matches(word, _NAMES[index], 1)
        if near and word not in _NAMES[index]:
            return f'did you mean "{near[0]}"?'
    if index == 2 and text.startswith("l-"):
        return "days counted from the end are not known; L is the last day of the month"
    if index == 2 and text in ("lw", "wl"):
        return "the last day from Monday to Friday is 31W: the one nearest to the end of the month"
    if index == 4 and re.fullmatch(r"(19|20)\d\d", text):
        return "years are not known; of six fields the first holds seconds"
    return f'expected {_EXPECTED[index]}; also ranges "a-b", steps "*/n" or "a-b/n", and lists "a,b"'
