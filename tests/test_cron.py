"""The cron timer, against changes of clocks worked out by hand and a slow reading of the rule."""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine.plugin import BadSetting
from plugins.timers.cron import Cron

SECOND, MINUTE, HOUR, DAY = (timedelta(seconds=each) for each in (1, 60, 3600, 86400))
ZONES = (
    "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Asia/Beirut",
    "Africa/Cairo", "Africa/Casablanca", "America/Nuuk", "Antarctica/Troll", "Europe/Dublin",
)  # fmt: skip

Meant = Callable[[datetime], bool]
Shown = list[tuple[datetime, datetime]]
"""Instants of a window, a minute or a second apart, each with the naive local time that the clock shows."""


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def due(timer: Cron, after: datetime, count: int) -> list[datetime]:
    found: list[datetime] = []
    while len(found) < count and (at := timer.next(found[-1] if found else after)):
        found.append(at)
    return found


# ---- by hand

BY_HAND = [
    # Berlin skips from 02:00 to 03:00 at 01:00Z, and shows 02:00 to 03:00 twice around 01:00Z
    ("Europe/Berlin", "30 2 * * *", "2026-03-28T12:00", ["2026-03-29T01:00", "2026-03-30T00:30"]),
    ("Europe/Berlin", "0,30 2 * * *", "2026-03-28T12:00", ["2026-03-29T01:00", "2026-03-30T00:00"]),
    ("Europe/Berlin", "0 2,3 * * *", "2026-03-28T12:00", ["2026-03-29T01:00", "2026-03-30T00:00"]),
    ("Europe/Berlin", "*/30 2 * * *", "2026-03-28T12:00", ["2026-03-30T00:00", "2026-03-30T00:30"]),
    ("Europe/Berlin", "30 * * * *", "2026-03-29T00:00", ["2026-03-29T00:30", "2026-03-29T01:30"]),
    ("Europe/Berlin", "@daily", "2026-03-28T12:00", ["2026-03-28T23:00", "2026-03-29T22:00"]),
    ("Europe/Berlin", "0 30 2 * * *", "2026-03-28T12:00", ["2026-03-30T00:30"]),
    ("Europe/Berlin", "30 2 * * *", "2026-10-24T12:00", ["2026-10-25T00:30", "2026-10-26T01:30"]),
    ("Europe/Berlin", "30 2 * * *", "2026-10-25T01:10", ["2026-10-26T01:30"]),
    ("Europe/Berlin", "*/30 2 * * *", "2026-10-25T00:15", ["2026-10-25T00:30", "2026-10-25T01:00"]),
    ("Europe/Berlin", "30 * * * *", "2026-10-25T00:00", ["2026-10-25T00:30", "2026-10-25T01:30"]),
    ("Europe/Berlin", "0 30 2 * * *", "2026-10-24T12:00", ["2026-10-25T00:30", "2026-10-25T01:30"]),
    # New York: at 07:00Z in March, 06:00Z in November
    ("America/New_York", "15 2 * * *", "2026-03-08T00:00", ["2026-03-08T07:00", "2026-03-09T06:15"]),
    ("America/New_York", "30 1 * * *", "2026-10-31T12:00", ["2026-11-01T05:30", "2026-11-02T06:30"]),
    ("America/New_York", "@hourly", "2026-11-01T04:30", ["2026-11-01T05:00", "2026-11-01T06:00"]),
    # half an hour: 01:30 to 02:00 twice around 15:00Z; from 02:00 to 02:30 at 15:30Z
    ("Australia/Lord_Howe", "45 1 * * *", "2026-04-04T00:00", ["2026-04-04T14:45", "2026-04-05T15:15"]),
    ("Australia/Lord_Howe", "45 * * * *", "2026-04-04T14:30", ["2026-04-04T14:45", "2026-04-04T15:15"]),
    ("Australia/Lord_Howe", "15 2 * * *", "2026-10-03T00:00", ["2026-10-03T15:30", "2026-10-04T15:15"]),
    # the 30th of December 2011 was left out, at 10:00Z
    ("Pacific/Apia", "0 2 * * *", "2011-12-29T13:00", ["2011-12-30T10:00", "2011-12-30T12:00"]),
    ("Pacific/Apia", "0 * * * *", "2011-12-30T09:30", ["2011-12-30T10:00", "2011-12-30T11:00"]),
    ("Pacific/Apia", "0 0 30 12 *", "2011-12-01T00:00", ["2011-12-30T10:00", "2012-12-29T10:00"]),
    # at midnight: to 01:00, and back to 23:00 of the day before
    ("America/Santiago", "0 0 * * *", "2026-09-05T12:00", ["2026-09-06T04:00", "2026-09-07T03:00"]),
    ("America/Santiago", "*/30 0 * * *", "2026-09-05T12:00", ["2026-09-07T03:00"]),
    ("America/Santiago", "30 23 * * *", "2026-04-04T12:00", ["2026-04-05T02:30", "2026-04-06T03:30"]),
    ("America/Santiago", "0 0 * * *", "2026-04-04T12:00", ["2026-04-05T04:00", "2026-04-06T04:00"]),
    ("Asia/Beirut", "0 0 * * *", "2026-03-28T12:00", ["2026-03-28T22:00", "2026-03-29T21:00"]),
    ("Africa/Cairo", "30 0 * * *", "2026-04-23T12:00", ["2026-04-23T22:00", "2026-04-24T21:30"]),
    ("Africa/Cairo", "30 23 * * *", "2026-10-29T12:00", ["2026-10-29T20:30", "2026-10-30T21:30"]),
    # Monrovia's gap of 1972 ended at 00:44:30: the first minute after it is 00:45
    ("Africa/Monrovia", "20 0 * * *", "1972-01-06T12:00", ["1972-01-07T00:45", "1972-01-08T00:20"]),
]


@pytest.mark.parametrize(("zone", "expression", "after", "expected"), BY_HAND)
def test_a_change_of_the_clock_is_met_as_debians_cron_does(
    zone: str, expression: str, after: str, expected: list[str]
) -> None:
    timer = Cron(expression=expression, timezone=zone)
    found = due(timer, instant(after), len(expected))
    assert found == [instant(each) for each in expected]
    for earlier, later in pairwise(found):
        assert timer.previous(later) == earlier


# ---- the slow, obvious reading of the rule


def shown_between(zone: str, start: datetime, end: datetime, step: timedelta) -> Shown:
    place = ZoneInfo(zone)
    count = (end - start) // step
    instants = (start + step * i for i in range(count + 1))
    return [(at, at.astimezone(place).replace(tzinfo=None, fold=0)) for at in instants]


def by_wall_clock(meant: Meant, shown: Shown) -> list[datetime]:
    """Every instant at which the clock shows a time that is meant."""
    return [at for at, wall in shown[1:] if meant(wall)]


def by_fixed_time(meant: Meant, shown: Shown) -> list[datetime]:
    """Each minute of the clock once, when it is first reached or jumped over."""
    found, reached = [], shown[0][1]
    for at, wall in shown[1:]:
        passed = [reached + MINUTE * i for i in range(1, (wall - reached) // MINUTE + 1)]
        if any(meant(each) for each in passed):
            found.append(at)
        reached = max(reached, wall)
    return found


def assert_as_read(timer: Cron, expected: list[datetime], shown: Shown) -> None:
    start, end = shown[0][0], shown[-1][0]
    forward: list[datetime] = []
    while (at := timer.next(forward[-1] if forward else start)) and at <= end:
        forward.append(at)
    assert forward == expected, timer
    backward: list[datetime] = []
    while (at := timer.previous(backward[-1] if backward else end + SECOND)) and at > start:
        backward.append(at)
    assert backward[::-1] == expected, timer
    for at, _ in shown[:: max(1, len(shown) // 300)]:
        place = bisect_left(expected, at)
        if place:
            assert timer.previous(at) == expected[place - 1], (timer, at)
        place = bisect_right(expected, at)
        if place < len(expected):
            assert timer.next(at) == expected[place], (timer, at)


READINGS: list[tuple[str, Callable[[Meant, Shown], list[datetime]], Meant, timedelta]] = [
    ("* * * * *", by_wall_clock, lambda t: True, 4 * HOUR),
    ("*/5 * * * *", by_wall_clock, lambda t: t.minute % 5 == 0, 30 * HOUR),
    ("30 * * * *", by_wall_clock, lambda t: t.minute == 30, 3 * DAY),
    ("*/20 0-3 * * *", by_wall_clock, lambda t: t.minute % 20 == 0 and t.hour < 4, 3 * DAY),
    ("7 */2 * * *", by_wall_clock, lambda t: t.minute == 7 and t.hour % 2 == 0, 3 * DAY),
    (
        "*/15 23 * * sat,sun",
        by_wall_clock,
        lambda t: not t.minute % 15 and t.hour == 23 and t.weekday() > 4,
        3 * DAY,
    ),
    ("0 2 * * *", by_fixed_time, lambda t: (t.hour, t.minute) == (2, 0), 3 * DAY),
    ("30 2 * * *", by_fixed_time, lambda t: (t.hour, t.minute) == (2, 30), 3 * DAY),
    ("0 0 * * *", by_fixed_time, lambda t: (t.hour, t.minute) == (0, 0), 3 * DAY),
    (
        "15,45 22-2 * * *",
        by_fixed_time,
        lambda t: t.minute in (15, 45) and t.hour in (22, 23, 0, 1, 2),
        3 * DAY,
    ),
    ("0-59/10 0-23 * * *", by_fixed_time, lambda t: t.minute % 10 == 0, 3 * DAY),
    ("59 1 1-31/2 * *", by_fixed_time, lambda t: (t.minute, t.hour, t.day % 2) == (59, 1, 1), 3 * DAY),
    (
        "30 1-3 * * 0",
        by_fixed_time,
        lambda t: t.minute == 30 and t.hour in (1, 2, 3) and t.weekday() == 6,
        3 * DAY,
    ),
]


@cache
def clock_changes(zone: str, first_year: int, last_year: int) -> tuple[datetime, ...]:
    """Return the instants at which the clock of a zone is set, found by looking at each day."""
    place, found = ZoneInfo(zone), []
    day = datetime(first_year, 1, 1, tzinfo=UTC)
    while day.year <= last_year:
        low, high = day, day + DAY
        before = low.astimezone(place).utcoffset()
        if high.astimezone(place).utcoffset() != before:
            while high - low > SECOND:
                middle = low + (high - low) // SECOND // 2 * SECOND
                low, high = (middle, high) if middle.astimezone(place).utcoffset() == before else (low, middle)
            found.append(high)
        day += DAY
    return tuple(found)


def assert_all_readings(zone: str, change: datetime) -> None:
    whole = shown_between(zone, change - 3 * DAY, change + 3 * DAY, MINUTE)
    for expression, rule, meant, distance in READINGS:
        shown = [each for each in whole if abs(each[0] - change) <= distance] if distance < 3 * DAY else whole
        assert_as_read(Cron(expression=expression, timezone=zone), rule(meant, shown), shown)
    seconds = shown_between(zone, change - 70 * MINUTE, change + 70 * MINUTE, SECOND)
    before = (change - SECOND).astimezone(ZoneInfo(zone)).hour
    hours = (before, (before + 1) % 24)
    timer = Cron(expression=f"*/25 0,29-30,59 {hours[0]},{hours[1]} * * *", timezone=zone)
    expected = by_wall_clock(lambda t: t.second % 25 == 0 and t.minute in (0, 29, 30, 59) and t.hour in hours, seconds)
    assert_as_read(timer, expected, seconds)


@pytest.mark.parametrize("zone", ZONES)
def test_next_and_previous_agree_with_the_slow_reading_around_changes_of_the_clock(zone: str) -> None:
    changes = clock_changes(zone, 2026, 2026)
    assert changes
    for change in changes:
        assert_all_readings(zone, change)


def test_a_day_that_was_left_out_agrees_with_the_slow_reading() -> None:
    assert_all_readings("Pacific/Apia", instant("2011-12-30T10:00"))
    assert_all_readings("Pacific/Kwajalein", instant("1993-08-21T12:00"))


def test_a_day_that_was_shown_twice_agrees_with_the_slow_reading() -> None:
    (change,) = clock_changes("Pacific/Kwajalein", 1969, 1969)
    assert_all_readings("Pacific/Kwajalein", change)


# ---- by Hypothesis


@st.composite
def fields(draw: st.DrawFn, low: int, high: int) -> tuple[str, frozenset[int]]:
    """Draw a field's text and the values that it means."""
    kind = draw(st.sampled_from(("all", "step", "list", "range")))
    if kind == "all":
        return "*", frozenset(range(low, high + 1))
    step = draw(st.integers(1, high))
    if kind == "step":
        return f"*/{step}", frozenset(range(low, high + 1, step))
    if kind == "list":
        values = draw(st.sets(st.integers(low, high), min_size=1, max_size=4))
        return ",".join(map(str, values)), frozenset(values)
    first, last = draw(st.integers(low, high)), draw(st.integers(low, high))
    size = high - low + 1
    reach = range(first, (last if last >= first else last + size) + 1, step)
    return f"{first}-{last}/{step}", frozenset((value - low) % size + low for value in reach)


@st.composite
def expressions(draw: st.DrawFn) -> tuple[str, Meant, Callable[[date], bool]]:
    """Draw an expression, with what it means of local minutes and of dates."""
    drawn = [draw(fields(*bounds)) for bounds in ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))]
    (_, minutes), (_, hours), (day, days), (_, months), (weekday, weekdays) = drawn
    either = day[0] != "*" and weekday[0] != "*"

    def on(when: date) -> bool:
        pair = (when.day in days, when.isoweekday() % 7 in weekdays)
        return when.month in months and (any(pair) if either else all(pair))

    def meant(wall: datetime) -> bool:
        return wall.minute in minutes and wall.hour in hours and on(wall)

    return " ".join(text for text, _ in drawn), meant, on


@given(expressions(), st.sampled_from((*ZONES, "UTC")), st.integers(0, 59), st.integers(0, 47))
@settings(max_examples=150, deadline=None)
def test_any_expression_agrees_with_the_slow_reading_around_a_change(
    drawn: tuple[str, Meant, Callable[[date], bool]], zone: str, which: int, lead: int
) -> None:
    expression, meant, on = drawn
    every_kind_of_year = (date(2000, 1, 1) + timedelta(days=i) for i in range(28 * 366))
    if not any(map(on, every_kind_of_year)):
        with pytest.raises(BadSetting, match="never comes"):
            Cron(expression=expression, timezone=zone)
        return
    changes = clock_changes(zone, 2025, 2027) or (instant("2026-02-28T23:00"),)
    start = changes[which % len(changes)] - lead * HOUR
    # The slow reading must not begin within a repeat, where it can't know what was reached before.
    assume(all(not 0 <= (start - change) / HOUR <= 3 for change in changes))
    shown = shown_between(zone, start, start + 2 * DAY, MINUTE)
    rule = by_wall_clock if expression[0] == "*" or expression.split()[1][0] == "*" else by_fixed_time
    assert_as_read(Cron(expression=expression, timezone=zone), rule(meant, shown), shown)


INSTANTS = st.datetimes(datetime(1975, 1, 1), datetime(2120, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(expressions(), st.booleans(), st.sampled_from((*ZONES, "UTC")), INSTANTS)
@settings(max_examples=300, deadline=None)
def test_next_and_previous_are_strict_and_inverse(
    drawn: tuple[str, Meant, Callable[[date], bool]], with_seconds: bool, zone: str, at: datetime
) -> None:
    try:
        timer = Cron(expression=f"*/7 {drawn[0]}" if with_seconds else drawn[0], timezone=zone)
    except BadSetting:
        assume(False)
    later, earlier = timer.next(at), timer.previous(at)
    if later is not None:
        assert later > at
        assert later.tzinfo is UTC
        assert timer.next(later - timedelta(microseconds=1)) == later
        assert timer.previous(later + timedelta(microseconds=1)) == later
        before = timer.previous(later)
        assert before is None or (before <= at and timer.next(before) == later)
    if earlier is not None:
        assert earlier < at
        after = timer.next(earlier)
        assert after is None or (after >= at and timer.previous(after) == earlier)


# ---- the edges


def test_an_unknown_zone_is_refused_with_a_near_miss() -> None:
    with pytest.raises(BadSetting, match="Europe/Berln") as caught:
        Cron(expression="0 2 * * *", timezone="Europe/Berln")
    assert (caught.value.field, caught.value.hint) == ("timezone", 'did you mean "Europe/Berlin"?')


def test_a_naive_instant_is_refused() -> None:
    with pytest.raises(ValueError, match="has no time zone"):
        Cron(expression="0 2 * * *").next(datetime(2026, 1, 1))  # noqa: DTZ001


def test_an_instant_in_another_zone_is_answered_in_utc() -> None:
    after = datetime(2026, 1, 1, 3, 0, tzinfo=ZoneInfo("Asia/Tokyo"))
    assert Cron(expression="0 2 * * *").next(after) == instant("2026-01-01T02:00")


@pytest.mark.parametrize(
    "expression", ["*/30 2 * 3 L0", "0 30 2 * 3 L0", "0 0 29 2 */7", "0 0 29 2 *", "*/31 */23 */31 12 */6"]
)
def test_the_search_is_bounded_even_where_a_gap_removes_every_time(expression: str) -> None:
    timer, at = Cron(expression=expression, timezone="Europe/Berlin"), instant("2026-06-01")
    took_s = []
    for _ in range(3):
        begun = time.perf_counter()
        found = timer.next(at)
        timer.previous(at)
        took_s.append(time.perf_counter() - begun)
    assert (found is None) == ("L0" in expression)
    assert min(took_s) < 0.05


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/New_York"])
def test_where_the_calendar_ends_there_is_none(zone: str) -> None:
    timer = Cron(expression="0 0 29 2 *", timezone=zone)
    assert timer.next(datetime.max.replace(tzinfo=UTC)) is None
    assert timer.next(instant("9997-01-01")) is None
    assert timer.next(datetime.min.replace(tzinfo=UTC)) == timer.next(instant("0002-01-01"))
    assert str(timer.next(datetime.min.replace(tzinfo=UTC))).startswith("0004-02-2")
    assert timer.previous(datetime.min.replace(tzinfo=UTC)) is None
    assert timer.previous(instant("0003-12-31")) is None


def test_equal_settings_are_equal_timers_and_nothing_else_is_a_setting() -> None:
    timer, other = (Cron(expression="0 2 * * *", timezone="Europe/Berlin") for _ in range(2))
    timer.next(instant("2026-01-01"))
    assert timer == other
    assert hash(timer) == hash(other)
    assert msgspec.to_builtins(timer) == {"expression": "0 2 * * *", "timezone": "Europe/Berlin"}


SKIPS = "the clock skips from"
NOTES = [
    (
        "Europe/Berlin",
        "30 2 * * *",
        "2026-03-29T01:00",
        f"scheduled for 02:30, runs at 03:00: {SKIPS} 02:00 to 03:00",
    ),
    (
        "Europe/Berlin",
        "0,20,40 2 * * *",
        "2026-03-29T01:00",
        f"scheduled for 02:00 to 02:40, runs at 03:00: {SKIPS} 02:00 to 03:00",
    ),
    (
        "Pacific/Apia",
        "0 2 * * *",
        "2011-12-30T10:00",
        f"scheduled for 2011-12-30 02:00, runs at 2011-12-31 00:00: {SKIPS} 2011-12-30 00:00 to 2011-12-31 00:00",
    ),
    (
        "Europe/Berlin",
        "30 2 * * *",
        "2026-10-25T00:30",
        "the clock shows 02:30 twice as it is set back: runs the first time only",
    ),
    (
        "Europe/Berlin",
        "30 * * * *",
        "2026-10-25T01:30",
        "the second of two times that the clock shows 02:30, as it is set back",
    ),
    (
        "Europe/Berlin",
        "*/10 2 * * *",
        "2026-03-30T00:00",
        f"nothing runs on 2026-03-29 at 02:00 to 02:50: {SKIPS} 02:00 to 03:00",
    ),
    ("Europe/Berlin", "*/10 2 * * *", "2026-03-30T00:10", None),
    ("Europe/Berlin", "0 3 * * *", "2026-03-29T01:00", None),
    ("Europe/Berlin", "0 * * * *", "2026-03-29T01:00", f"nothing runs at 02:00: {SKIPS} 02:00 to 03:00"),
    ("Europe/Berlin", "0 * * * *", "2026-03-29T02:00", None),
    ("Europe/Berlin", "30 * * * *", "2026-03-29T00:30", None),
    (
        "Europe/Berlin",
        "10 30 2 * * *",
        "2026-10-25T00:30:10",
        "the first of two times that the clock shows 02:30:10, as it is set back",
    ),
]


@pytest.mark.parametrize(("zone", "expression", "at", "expected"), NOTES)
def test_a_note_says_what_a_change_of_the_clock_does_to_a_due_instant(
    zone: str, expression: str, at: str, expected: str | None
) -> None:
    timer = Cron(expression=expression, timezone=zone)
    assert timer.next(instant(at) - SECOND) == instant(at)
    assert timer.note(instant(at)) == expected
