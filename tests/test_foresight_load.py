"""The load over time: hours of the local clock, and the quietest windows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from engine.clock import to_microseconds
from engine.foresight import Load

SECOND_US = 1_000_000


def load(start: datetime, hours: float) -> Load:
    return Load(to_microseconds(start), to_microseconds(start + timedelta(hours=hours)))


def test_a_busy_slot_counts_in_each_hour_that_it_is_busy_in() -> None:
    start = datetime(2026, 1, 5, 12, tzinfo=UTC)
    counted = load(start, 3)
    at = to_microseconds(start)
    counted.busy(at + 3590 * SECOND_US, at + 3610 * SECOND_US)
    counted.busy(at + 10 * SECOND_US, at + 20 * SECOND_US)
    counted.busy(at, at + 3 * 3600 * SECOND_US)
    counted.came(at + 3599 * SECOND_US)
    found = counted.hours("UTC")
    assert [hour.busy_s for hour in found] == [3620.0, 3610.0, 3600.0]
    assert [hour.due for hour in found] == [1, 0, 0]
    assert [hour.part for hour in found] == [1.0, 1.0, 1.0]


def test_hours_are_those_of_the_local_clock_also_where_it_is_set() -> None:
    spring = load(datetime(2026, 3, 28, 23, tzinfo=UTC), 23).hours("Europe/Berlin")
    assert [hour.at.hour for hour in spring] == [0, 1, *range(3, 24)]
    autumn = load(datetime(2026, 10, 24, 22, tzinfo=UTC), 25).hours("Europe/Berlin")
    assert [hour.at.hour for hour in autumn] == [0, 1, 2, 2, *range(3, 24)]
    half = load(datetime(2026, 10, 3, 13, 30, tzinfo=UTC), 5).hours("Australia/Lord_Howe")
    assert [(f"{hour.at:%H:%M}", hour.part) for hour in half] == [
        ("00:00", 1.0), ("01:00", 1.0), ("02:30", 0.5), ("03:00", 1.0), ("04:00", 1.0), ("05:00", 0.5),
    ]  # fmt: skip


def test_the_first_and_the_last_hour_may_be_parts() -> None:
    found = load(datetime(2026, 1, 5, 12, 45, 30, tzinfo=UTC), 1.0).hours("UTC")
    assert [(hour.at.minute, round(hour.part, 4)) for hour in found] == [(0, 0.2417), (0, 0.7583)]


@given(
    spans=st.lists(st.tuples(st.integers(0, 10_799), st.integers(1, 4_000)), max_size=12),
    due=st.lists(st.integers(0, 10_799), max_size=12),
    minutes=st.integers(1, 90),
    late_s=st.integers(0, 59),
)
def test_the_quietest_window_is_what_trying_all_of_them_finds(
    spans: list[tuple[int, int]], due: list[int], minutes: int, late_s: int
) -> None:
    start = datetime(2026, 1, 5, 12, 0, late_s, tzinfo=UTC)
    first_us = to_microseconds(start)
    counted = load(start, 3)
    busy = [0] * 10_800
    for begins, lasts in spans:
        ends = min(begins + lasts, 10_800)
        counted.busy(first_us + begins * SECOND_US, first_us + ends * SECOND_US)
        for second in range(begins, ends):
            busy[second] += 1
    for second in due:
        counted.came(first_us + second * SECOND_US)
    offset = -late_s % 60
    tried = [
        (sum(busy[at : at + 60 * minutes]), sum(at <= second < at + 60 * minutes for second in due), at)
        for at in range(offset, 10_800 - 60 * minutes + 1, 60)
    ]
    found = counted.quietest(60.0 * minutes, 3)
    assert bool(found) == bool(tried)
    both = [[one[part] for one in tried] for part in (0, 1)]
    alike = len(tried) > 1 and all((max(values) - min(values)) * 20 <= max(values) for values in both)
    assert counted.are_alike(60.0 * minutes) == alike
    if found:
        best = min(tried)
        assert (found[0].busy_s, found[0].due, found[0].start) == (*best[:2], start + timedelta(seconds=best[2]))
        assert all(one.end - one.start == timedelta(minutes=minutes) for one in found)
        ordered = sorted(found, key=lambda one: one.start)
        assert all(one.end <= other.start for one, other in pairwise(ordered))
        assert [one.busy_s for one in found] == sorted(one.busy_s for one in found)


def test_windows_of_an_even_load_are_alike_and_one_busy_minute_makes_a_difference() -> None:
    start = datetime(2026, 1, 5, 12, 0, 30, tzinfo=UTC)
    counted, first_us = load(start, 6), to_microseconds(start)
    for at in range(0, 6 * 3600, 600):
        counted.came(first_us + at * SECOND_US)
        counted.busy(first_us + at * SECOND_US, first_us + (at + 20) * SECOND_US)
    assert counted.are_alike(3600.0)
    assert not counted.are_alike(300.0)
    counted.busy(first_us + 7200 * SECOND_US, first_us + 7260 * SECOND_US)
    assert not counted.are_alike(3600.0)
    assert not load(start, 1).are_alike(3600.0), "there is no other one"
