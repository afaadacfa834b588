"""Counting the due instants of a cron expression by arithmetic, beside counting them one by one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.plugin import Timer
from plugins.timers.at import At
from plugins.timers.cron import Cron
from plugins.timers.interval import Interval

ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/St_Johns", "Africa/Casablanca",
    "Asia/Beirut", "America/Havana", "Africa/Cairo", "Atlantic/Azores", "Pacific/Apia",
)  # fmt: skip
EXPRESSIONS = (
    "30 2 * * *", "15 1,2,3 * * *", "0 0 * * 1-5", "30 0 * * *", "0 0,1,2,3 * * *", "0-59/13 2 * * *", "59 23 L * *",
    "0 */2 * * *", "*/7 * * * *", "*/20 30 2 * * *",
)  # fmt: skip


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# Around the changes of the clock in 2026, where the two ways could come apart.
CHANGES = (
    "2026-03-29T01:00", "2026-10-25T01:00", "2026-03-08T07:00", "2026-11-01T06:00", "2026-04-04T15:00",
    "2026-10-03T15:30", "2026-03-28T22:00", "2026-10-24T21:00", "2026-04-23T22:00", "2026-10-29T21:00",
    "2026-02-15T02:00", "2026-03-22T02:00", "2010-11-07T02:31", "2011-12-30T10:00",
)  # fmt: skip

near_changes = st.builds(
    lambda text, seconds: instant(text) + timedelta(seconds=seconds),
    st.sampled_from(CHANGES),
    st.sampled_from([-7200, -3600, -1800, -60, -1, 0, 1, 60, 1800, 3600, 5400]) | st.integers(-9000, 9000),
)
anywhere = st.integers(0, 366 * 86400).map(lambda seconds: instant("2026-01-01") + timedelta(seconds=seconds))
lengths = st.sampled_from([0, 1, 60, 1800, 3600, 7200, 86_400, 3 * 86_400]).map(lambda s: timedelta(seconds=s))


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(ZONES), st.sampled_from(EXPRESSIONS), near_changes | anywhere, lengths, st.booleans())
def test_it_counts_as_one_counts_by_steps(
    zone: str, expression: str, after: datetime, span: timedelta, later: bool
) -> None:
    timer = Cron(expression=expression, timezone=zone)
    upto = after + span
    if later:
        after += timedelta(microseconds=1)
    assert timer.count(after, upto) == Timer.count(timer, after, upto)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(ZONES), near_changes | anywhere, near_changes | anywhere, near_changes | anywhere)
def test_what_is_counted_in_parts_adds_up(zone: str, one: datetime, two: datetime, three: datetime) -> None:
    timer = Cron(expression="*/5 0-3 * * *", timezone=zone)
    first, middle, last = sorted([one, two, three])
    assert timer.count(first, middle) + timer.count(middle, last) == timer.count(first, last)


def test_fifty_years_of_minutes_are_a_sum() -> None:
    before = instant("1970-01-01") - timedelta(seconds=1)
    minutes = Cron(expression="* * * * *", timezone="America/New_York").count(before, instant("2026-01-01"))
    assert minutes == (instant("2026-01-01") - instant("1970-01-01")) // timedelta(minutes=1) + 1
    nights = Cron(expression="30 2 * * *", timezone="America/New_York").count(before, instant("2026-01-01"))
    assert nights == (instant("2026-01-01") - instant("1970-01-01")).days


@pytest.mark.parametrize("timer", [Cron(expression="* * * * *"), Interval(every=60.0)])
def test_nothing_is_due_before_it_began(timer: Timer) -> None:
    assert timer.count(instant("2026-01-02"), instant("2026-01-01")) == 0


@given(st.integers(1, 200_000), st.integers(0, 10_000), anywhere, lengths)
def test_an_interval_counts_as_one_counts_by_steps(every: int, start: int, after: datetime, span: timedelta) -> None:
    timer = Interval(every=float(every), start=instant("2026-01-01") + timedelta(seconds=start))
    assert timer.count(after, after + span / 10) == Timer.count(timer, after, after + span / 10)


@given(st.lists(anywhere, min_size=1, max_size=8), anywhere, lengths)
def test_single_instants_are_counted_too(times: list[datetime], after: datetime, span: timedelta) -> None:
    timer = At(times=tuple(times))
    assert timer.count(after, after + span) == Timer.count(timer, after, after + span)
