"""The order of the queue: what is more urgent first, and nothing waits for ever."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decide.priority import DEFAULT_AGEING_S, effective, rank
from engine.triggers import HIGHEST_PRIORITY, LOWEST_PRIORITY

NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
PRIORITIES = st.integers(LOWEST_PRIORITY, HIGHEST_PRIORITY)
READY = st.floats(0, 100_000).map(lambda seconds: NOON + timedelta(seconds=seconds))


def test_of_what_is_ready_at_once_the_more_urgent_comes_first() -> None:
    ranks = [rank(NOON, priority) for priority in range(10)]
    assert ranks == sorted(ranks, reverse=True)
    assert len(set(ranks)) == 10


@given(READY, READY, PRIORITIES)
def test_of_equal_priority_the_one_that_was_ready_first_comes_first(one: datetime, two: datetime, level: int) -> None:
    assert (rank(one, level) < rank(two, level)) == (one < two)


@given(READY, READY, PRIORITIES, PRIORITIES)
def test_a_run_is_overtaken_only_within_its_bound(early: datetime, late: datetime, low: int, high: int) -> None:
    overtaken = early < late and rank(late, high) < rank(early, low)
    if overtaken:
        assert (late - early).total_seconds() < (HIGHEST_PRIORITY - low) * DEFAULT_AGEING_S


@given(READY, PRIORITIES)
def test_beyond_the_bound_even_the_lowest_is_ahead_of_the_most_urgent(ready: datetime, low: int) -> None:
    later = ready + timedelta(seconds=(HIGHEST_PRIORITY - low) * DEFAULT_AGEING_S, microseconds=1)
    assert rank(ready, low) < rank(later, HIGHEST_PRIORITY)


def test_ageing_is_what_one_step_of_priority_is_worth() -> None:
    assert rank(NOON, 6, 10.0) == rank(NOON - timedelta(seconds=10), 5, 10.0)
    assert rank(NOON, 6) == rank(NOON - timedelta(seconds=DEFAULT_AGEING_S), 5)


@pytest.mark.parametrize("at", [datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)])
def test_a_rank_fits_a_64_bit_integer_at_all_times(at: datetime) -> None:
    assert all(-(2**63) <= rank(at, priority) < 2**63 for priority in range(10))


@given(PRIORITIES, st.none() | st.integers(-100, 100), PRIORITIES)
def test_nobody_asks_for_more_than_the_trigger_allows(own: int, asked: int | None, highest: int) -> None:
    found = effective(own, asked, highest)
    assert LOWEST_PRIORITY <= found <= max(highest, own)
    if asked is None:
        assert found == own
    elif 0 <= asked <= highest:
        assert found == asked
    assert found <= max(own, highest, 0)
