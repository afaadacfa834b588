"""The interval timer: a grid of instants that nothing shifts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.plugin import BadSetting
from plugins.timers.interval import Interval

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def wall(text: str) -> datetime:
    """Return a local time."""
    return datetime.fromisoformat(text)


instants = st.datetimes(wall("1900-01-01"), wall("2200-01-01"), timezones=st.just(UTC))
steps = st.integers(1_000_000, 10 * 365 * 86_400 * 1_000_000)
"""In microseconds."""


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@st.composite
def intervals(draw: st.DrawFn) -> tuple[Interval, int, int]:
    step = draw(steps)
    offset = draw(st.integers(0, step - 1))
    return Interval(every=step / 1_000_000, offset=offset / 1_000_000), step, offset


@pytest.mark.parametrize(
    ("every", "offset", "after", "due"),
    [
        (3600.0, 0.0, "2026-11-21T12:00:00", "2026-11-21T13:00:00"),
        (3600.0, 0.0, "2026-11-21T11:59:59.999999", "2026-11-21T12:00:00"),
        (3600.0, 900.0, "2026-11-21T12:00:00", "2026-11-21T12:15:00"),
        (86400.0, 0.0, "2026-11-21T00:00:00", "2026-11-22T00:00:00"),
        (7 * 86400.0, 0.0, "2026-11-21T00:00:00", "2026-11-26T00:00:00"),
        (1.5, 0.0, "1970-01-01T00:00:00", "1970-01-01T00:00:01.500000"),
        (60.0, 0.0, "1969-12-31T23:58:30", "1969-12-31T23:59:00"),
    ],
)
def test_the_next_instant_stands_on_the_grid(every: float, offset: float, after: str, due: str) -> None:
    assert Interval(every=every, offset=offset).next(instant(after)) == instant(due)


@given(intervals(), instants)
def test_next_and_previous_enclose_an_instant_and_stand_one_step_apart(
    made: tuple[Interval, int, int], at: datetime
) -> None:
    interval, step, offset = made
    following, preceding = interval.next(at), interval.previous(at)
    assert following is not None
    assert preceding is not None
    assert preceding < at < following
    on_grid = ((at - EPOCH) // MICROSECOND - offset) % step == 0
    assert following - preceding == timedelta(microseconds=step) * (2 if on_grid else 1)
    for due in (following, preceding):
        assert ((due - EPOCH) // MICROSECOND - offset) % step == 0
    assert interval.previous(following) == (at if on_grid else preceding)
    assert interval.next(preceding) == (at if on_grid else following)


@given(intervals(), instants, instants)
def test_where_one_begins_to_count_changes_nothing(
    made: tuple[Interval, int, int], at: datetime, other: datetime
) -> None:
    """Two engines, or one before and after a restart, agree: an instant that one names is one for the other too."""
    interval, step, _ = made
    due, again = interval.next(at), interval.next(other)
    assert due is not None
    assert again is not None
    assert (due - again) % timedelta(microseconds=step) == timedelta(0)


def test_a_million_steps_do_not_drift() -> None:
    interval = Interval(every=1.1)
    start = instant("2026-01-01T00:00:00")
    first = interval.next(start)
    assert first is not None
    at = first
    for _ in range(1000):
        following = interval.next(at)
        assert following is not None
        at = following
    assert at - first == timedelta(seconds=1100)
    far = interval.next(first + 1_000_000 * timedelta(seconds=1.1) - MICROSECOND)
    assert far == first + timedelta(seconds=1_100_000)


def test_other_time_zones_are_the_same_instants() -> None:
    interval = Interval(every=3600.0)
    berlin = datetime(2026, 11, 21, 13, 30, tzinfo=timezone(timedelta(hours=1)))
    assert interval.next(berlin) == instant("2026-11-21T13:00:00")
    assert interval.previous(berlin) == instant("2026-11-21T12:00:00")


def test_beyond_the_calendar_there_is_none() -> None:
    interval = Interval(every=86400.0)
    assert interval.next(datetime.max.replace(tzinfo=UTC)) is None
    assert interval.previous(datetime.min.replace(tzinfo=UTC)) is None


def test_naive_times_are_refused() -> None:
    interval = Interval(every=60.0)
    with pytest.raises(ValueError, match="no time zone"):
        interval.next(wall("2026-01-01"))
    with pytest.raises(ValueError, match="no time zone"):
        interval.previous(wall("2026-01-01"))


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"every": 0.999}, "every"),
        ({"every": 0.0}, "every"),
        ({"every": 60.0, "offset": 60.0}, "offset"),
        ({"every": 60.0, "offset": 61.0}, "offset"),
    ],
)
def test_settings_that_make_no_grid_are_refused(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(BadSetting) as refused:
        Interval(**settings)
    assert refused.value.field == field
