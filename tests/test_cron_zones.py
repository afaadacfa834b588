"""The cron timer in every zone, around every change of its clock from 2020 to 2035, against the rule read in words.

The reading shares nothing with the timer: it walks through the minutes of UTC, looks at the clock of each by zoneinfo,
and asks what the contract says of it. An expression is read by a predicate on what the clock shows, written by hand.
"""

from __future__ import annotations

import calendar
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

import pytest
from msgspec import Struct

from plugins.timers.cron import Cron

SECOND, MINUTE, HOUR, DAY = (timedelta(seconds=each) for each in (1, 60, 3600, 86400))
FIRST_YEAR, LAST_YEAR = 2020, 2035
AROUND = 26 * HOUR
CLOSE = 150 * MINUTE
AN_EVENING = datetime(2026, 2, 28, 23, 30, tzinfo=UTC)

SPREAD = (
    "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Asia/Beirut", "Africa/Cairo",
    "Africa/Casablanca", "America/Nuuk", "Antarctica/Troll", "Europe/Dublin", "Pacific/Chatham", "America/Havana",
    "Asia/Gaza", "America/St_Johns", "Atlantic/Azores", "America/Asuncion",
)  # fmt: skip
"""Gaps at midnight and before it, of half an hour and of two hours; quarters of an hour; zones that move in winter."""

# ---- what the expressions mean


class Entry(Struct, frozen=True):
    """An expression, whether its minute or hour begins with `*` or it has seconds, and the times that it means."""

    expression: str
    follows_clock: bool
    means: Callable[[datetime], bool]


def sunday_is_0(day: date) -> int:
    return day.isoweekday() % 7


def month_length(day: date) -> int:
    return calendar.monthrange(day.year, day.month)[1]


def nearest_weekday(of: int, day: date) -> int:
    """Return the date of the weekday from Monday to Friday that is nearest to a date, in the same month."""
    meant = min(of, month_length(day))
    candidates = [n for n in range(1, month_length(day) + 1) if day.replace(day=n).weekday() < 5]
    return min(candidates, key=lambda n: abs(n - meant))


def entries_for(shown: datetime) -> list[Entry]:
    """Return entries of all kinds, some of which name the date on which a clock is set: `shown` is what it showed."""
    day, weekday, nth = shown.day, sunday_is_0(shown), (shown.day + 6) // 7
    tomorrow, night = sunday_is_0(shown + DAY), (23, 0, 1, 2, 3)
    return [
        Entry("* * * * *", True, lambda t: True),
        Entry("*/7 * * * *", True, lambda t: t.minute % 7 == 0),
        Entry("@hourly", True, lambda t: t.minute == 0),
        Entry("*/20 0-3,23 * * *", True, lambda t: t.minute % 20 == 0 and t.hour in night),
        Entry("45 */2 * * *", True, lambda t: t.minute == 45 and t.hour % 2 == 0),
        Entry("0 30 1-3 * * *", True, lambda t: t.minute == 30 and t.hour in (1, 2, 3)),
        Entry("@daily", False, lambda t: (t.hour, t.minute) == (0, 0)),
        Entry("30 2 * * *", False, lambda t: (t.hour, t.minute) == (2, 30)),
        Entry("0 0,1,2,3,23 * * *", False, lambda t: t.minute == 0 and t.hour in night),
        Entry("1,31,59 22-3 * * *", False, lambda t: t.minute in (1, 31, 59) and t.hour in (22, 23, 0, 1, 2, 3)),
        Entry("0-59/15 0-23 * * *", False, lambda t: t.minute % 15 == 0),
        Entry("50-10/10 1-23/2 * * *", False, lambda t: t.minute in (50, 0, 10) and t.hour % 2 == 1),
        Entry(
            "15 0-4 L * *", False, lambda t: t.minute == 15 and t.hour <= 4 and t.day == month_length(t)
        ),
        Entry(
            f"40 0-3,23 * * {weekday}#{nth}", False,
            lambda t: t.minute == 40 and t.hour in night and sunday_is_0(t) == weekday and (t.day + 6) // 7 == nth,
        ),
        Entry(
            f"5 0-3,23 * * L{weekday}", False,
            lambda t: (
                t.minute == 5 and t.hour in night and sunday_is_0(t) == weekday and t.day + 7 > month_length(t)
            ),
        ),
        Entry(
            f"20 0-3,23 {day}W * *", False,
            lambda t: t.minute == 20 and t.hour in night and t.day == nearest_weekday(day, t),
        ),
        Entry(  # both restricted: OR
            f"30 0-3 {day} * {tomorrow}", False,
            lambda t: t.minute == 30 and t.hour <= 3 and (t.day == day or sunday_is_0(t) == tomorrow),
        ),
        Entry(  # one begins with a star: AND
            f"30 0-3 */2 * {weekday},{tomorrow}", False,
            lambda t: t.minute == 30 and t.hour <= 3 and t.day % 2 == 1 and sunday_is_0(t) in (weekday, tomorrow),
        ),
        Entry(
            "10 0-3 * mar-apr,sep,oct,nov sun,mon-fri", False,
            lambda t: t.minute == 10 and t.hour <= 3 and t.month in (3, 4, 9, 10, 11) and t.weekday() != 5,
        ),
    ]  # fmt: skip


def entries_with_seconds(shown: datetime) -> list[Entry]:
    hours = (shown - MINUTE).hour, shown.hour, (shown + HOUR).hour
    return [
        Entry("*/25 0,29-31,59 * * * *", True, lambda t: t.second % 25 == 0 and t.minute in (0, 29, 30, 31, 59)),
        Entry(
            f"59 30,59 {','.join(map(str, hours))} * * *", True,
            lambda t: t.second == 59 and t.minute in (30, 59) and t.hour in hours,
        ),
    ]  # fmt: skip


# ---- the rule, in words

Clock = list[tuple[datetime, datetime]]
"""Instants, a minute or a second apart, each with what the clock on the wall shows."""


def look_at_the_clock(zone: str, start: datetime, end: datetime, step: timedelta) -> Clock:
    place, clock, at = ZoneInfo(zone), [], start
    while at <= end:
        clock.append((at, at.astimezone(place).replace(tzinfo=None, fold=0)))
        at += step
    return clock


def read(entry: Entry, clock: Clock) -> list[datetime]:
    """Return the due instants after the first of the clock's."""
    shown = [wall for _, wall in clock]
    # The clock is set at most once: before `turn` it goes evenly, and from there on again.
    step = clock[1][0] - clock[0][0]
    turns = [i for i in range(1, len(shown)) if shown[i] - shown[i - 1] != step]
    assert len(turns) <= 1
    turn = turns[0] if turns else len(shown)
    latest_before = shown[turn - 1]
    due = []
    for i, (at, wall) in enumerate(clock):
        if i == 0:
            continue
        if entry.follows_clock:
            # What the clock shows is all that counts.
            is_due = entry.means(wall)
        elif i == turn and wall > latest_before:
            # The first minute after the gap: its own time, and each one that fell into the gap, come to one.
            skipped = (wall - latest_before) // step
            is_due = any(entry.means(latest_before + step * n) for n in range(1, skipped + 1))
        elif i >= turn and wall <= latest_before:
            # The repeated hour: that time was shown before.
            is_due = False
        else:
            is_due = entry.means(wall)
        if is_due:
            due.append(at)
    return due


# ---- the changes of the clocks


@cache
def changes_of(zone: str) -> tuple[tuple[datetime, timedelta, timedelta], ...]:
    """Return when a zone's clock is set, and its offsets before and after, found by looking at it twice a day."""
    place, found = ZoneInfo(zone), []
    low = datetime(FIRST_YEAR, 1, 1, tzinfo=UTC)
    before = low.astimezone(place).utcoffset()
    while low.year <= LAST_YEAR:
        high = low + DAY / 2
        after = high.astimezone(place).utcoffset()
        if before != after:
            assert before is not None
            assert after is not None
            early, late = low, high
            while late - early > MINUTE:
                middle = early + (late - early) // MINUTE // 2 * MINUTE
                early, late = (middle, late) if middle.astimezone(place).utcoffset() == before else (early, middle)
            found.append((late, before, after))
        low, before = high, after
    return tuple(found)


@cache
def groups() -> tuple[str, ...]:
    """Return one zone of each group whose clocks go alike and are set alike, or never."""
    alike: dict[object, str] = {}
    for zone in sorted(available_timezones()):
        offset = datetime(FIRST_YEAR, 1, 1, tzinfo=UTC).astimezone(ZoneInfo(zone)).utcoffset()
        alike.setdefault((offset, changes_of(zone)), zone)
    return tuple(alike.values())


# ---- the comparison


def assert_read_so(
    timer: Cron, expected: list[datetime], window: tuple[datetime, datetime], asked: Iterable[datetime]
) -> None:
    """Compare the due instants within a window, walking forward and back, and the neighbours of all instants asked."""
    start, end = window
    forward: list[datetime] = []
    while (at := timer.next(forward[-1] if forward else start)) and at <= end:
        forward.append(at)
    assert forward == expected, timer
    assert timer.count(start, end) == len(expected), timer
    backward: list[datetime] = []
    while (at := timer.previous(backward[-1] if backward else end + SECOND)) and at > start:
        backward.append(at)
    assert backward[::-1] == expected, timer
    for at in asked:
        place = bisect_left(expected, at)
        if place:
            assert timer.previous(at) == expected[place - 1], (timer, at)
        place = bisect_right(expected, at)
        if place < len(expected):
            assert timer.next(at) == expected[place], (timer, at)


def noted(entry: Entry, clock: Clock, due: Iterable[datetime]) -> list[datetime]:
    """Return the due instants that a change of the clock moves, repeats or comes before with others removed."""
    shown = dict(clock)
    walls = [wall for _, wall in clock]
    turn = next(i for i in range(1, len(walls)) if walls[i] - walls[i - 1] != MINUTE)
    leaves, enters = walls[turn - 1], walls[turn]
    if enters <= leaves:
        return [at for at in due if enters <= shown[at] <= leaves]
    removed = [leaves + MINUTE * n for n in range(1, (enters - leaves) // MINUTE)]
    if not any(entry.means(wall) for wall in removed):
        return []
    return [at for at in due if at >= clock[turn][0]][:1]


def compare(zone: str, change: datetime, before: timedelta) -> None:
    clock = look_at_the_clock(zone, change - AROUND, change + AROUND, MINUTE)
    shown = (change + before).replace(tzinfo=None)
    close = [at for at, _ in clock if abs(at - change) <= CLOSE]
    for entry in entries_for(shown):
        timer = Cron(expression=entry.expression, timezone=zone)
        assert_read_so(timer, read(entry, clock), (clock[0][0], clock[-1][0]), close)
    seconds = look_at_the_clock(zone, change - 65 * MINUTE, change + 125 * MINUTE, SECOND)
    asked = [at for at, _ in seconds[::41]]
    for entry in entries_with_seconds(shown):
        timer = Cron(expression=entry.expression, timezone=zone)
        assert_read_so(timer, read(entry, seconds), (seconds[0][0], seconds[-1][0]), asked)


@pytest.mark.parametrize("zone", SPREAD)
def test_due_instants_around_a_change_of_the_clock_are_those_that_the_rule_means(zone: str) -> None:
    changes = [each for each in changes_of(zone) if each[0].year in (2024, 2026)][-2:]  # in Paraguay the last in 2024
    assert changes
    for change, before, _ in changes:
        compare(zone, change, before)


@pytest.mark.parametrize("zone", SPREAD)
def test_notes_stand_on_the_due_instants_that_a_change_of_the_clock_touches_and_on_no_other(zone: str) -> None:
    changes = [each for each in changes_of(zone) if each[0].year in (2024, 2026)][-2:]
    for change, before, _ in changes:
        clock = look_at_the_clock(zone, change - 5 * HOUR, change + AROUND, MINUTE)
        for entry in entries_for((change + before).replace(tzinfo=None)):
            timer, due = Cron(expression=entry.expression, timezone=zone), read(entry, clock)
            assert [at for at in due if timer.note(at) is not None] == noted(entry, clock, due), timer


def test_where_clocks_are_never_set_every_minute_is_like_any_other() -> None:
    for zone in ("UTC", "Asia/Kathmandu", "Pacific/Kiritimati", "Etc/GMT+12"):
        compare(zone, AN_EVENING, timedelta(0))


SLICES = 48


@pytest.mark.full
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("which", range(SLICES))
def test_due_instants_around_every_change_in_every_zone_to_2035_are_those_that_the_rule_means(which: int) -> None:
    for zone in groups()[which::SLICES]:
        changes = [(change, before) for change, before, _ in changes_of(zone)]
        for change, before in changes or [(AN_EVENING, timedelta(0))]:
            compare(zone, change, before)
