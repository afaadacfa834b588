"""What follows a try to deliver a message, and what tallies add up to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decide.delivering import JITTER, LONGEST_ASKED_S, OLDEST, after_try, given_up
from engine.deliveries import Delivery, DeliveryState
from engine.ids import new_id
from engine.plugin import Receipt
from engine.runs import RunState
from engine.tallies import Tally, Width, bin_of, middle_of, percentile, sum_up

AT = datetime(2026, 3, 1, 2, 30, tzinfo=UTC)
PAUSES = (5.0, 60.0)


def a_delivery(attempts: int = 0) -> Delivery:
    return Delivery(
        id=new_id(), target="callback:oven", run=new_id(), job="oven", event="failed", created_at=AT, message={},
        attempts=attempts,
    )  # fmt: skip


def test_what_is_taken_is_over() -> None:
    tried = after_try(a_delivery(), Receipt.taken("200 OK"), PAUSES, AT)
    assert (tried.state, tried.code, tried.attempts, tried.due_at) == (DeliveryState.DELIVERED, "delivered", 1, None)


def test_who_is_gone_gets_no_further_try() -> None:
    tried = after_try(a_delivery(), Receipt.gone("410 Gone"), PAUSES, AT)
    assert (tried.state, tried.code, tried.due_at) == (DeliveryState.FAILED, "gone", None)


def test_pauses_grow_and_vary_and_then_it_is_given_up() -> None:
    for attempts, pause_s in enumerate(PAUSES):
        tried = after_try(a_delivery(attempts), Receipt.not_now("503"), PAUSES, AT)
        assert tried.state is DeliveryState.WAITING
        assert tried.due_at is not None
        assert abs((tried.due_at - AT).total_seconds() - pause_s) <= JITTER * pause_s
    tried = after_try(a_delivery(len(PAUSES)), Receipt.not_now("503"), PAUSES, AT)
    assert (tried.state, tried.code, tried.attempts) == (DeliveryState.FAILED, "given_up", 3)
    assert tried.reason == "given up after 3 tries: 503"


def test_deciding_twice_decides_the_same() -> None:
    delivery = a_delivery()
    first = after_try(delivery, Receipt.not_now("503"), PAUSES, AT)
    assert first == after_try(delivery, Receipt.not_now("503"), PAUSES, AT)


@given(st.floats(0, 1e9))
def test_what_a_receiver_asks_for_is_waited_for_within_a_bound(asked_s: float) -> None:
    tried = after_try(a_delivery(), Receipt.not_now("503", retry_after_s=asked_s), PAUSES, AT)
    assert tried.due_at is not None
    pause_s = (tried.due_at - AT).total_seconds()
    assert min(asked_s, LONGEST_ASKED_S) - 1e-3 <= pause_s <= LONGEST_ASKED_S * (1 + JITTER)


def test_what_is_too_old_is_given_up_however_few_tries_it_had() -> None:
    tried = after_try(a_delivery(), Receipt.not_now("503"), PAUSES, AT + OLDEST)
    assert tried.code == "given_up"


def test_what_nobody_can_take_is_given_up_without_a_try() -> None:
    tried = given_up(a_delivery(2), "no_receiver", "there is none", AT)
    assert (tried.state, tried.code, tried.attempts, tried.reason) == (
        DeliveryState.FAILED, "no_receiver", 2, "given up: there is none",
    )  # fmt: skip


# Tallies


@given(st.floats(0.001, 1e6))
def test_a_bin_stands_for_its_times_to_a_twentieth(seconds: float) -> None:
    assert middle_of(bin_of(seconds)) == pytest.approx(seconds, rel=0.051)


@given(st.lists(st.floats(0.01, 1e5), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 1.0]))
def test_percentiles_are_those_of_the_nearest_rank(times: list[float], part: float) -> None:
    tally = Tally()
    for seconds in times:
        tally.add(RunState.SUCCEEDED, seconds)
    rank = max(-(-int(part * 100) * len(times) // 100), 1)
    found = percentile(tally.bins, part)
    assert found == pytest.approx(sorted(times)[rank - 1], rel=0.051)


def test_tallies_add_up() -> None:
    one, other = Tally(), Tally()
    one.add(RunState.SUCCEEDED, 1.0)
    one.add(RunState.MISSED, None, 40)
    other.add(RunState.TIMED_OUT, 3.0)
    other.add(RunState.SKIPPED, None)
    whole = sum_up([one, other], AT, AT)
    assert (whole.total, whole.success_rate, whole.duration_mean_s) == (43, 0.5, 2.0)
    empty = sum_up([], AT, AT)
    assert (empty.total, empty.success_rate, empty.duration_mean_s, empty.duration_p95_s) == (0, None, None, None)


def test_hours_and_days_are_those_of_utc() -> None:
    at = AT.astimezone(datetime(2026, 1, 1).astimezone().tzinfo)
    assert Width.HOUR.start_of(at) == AT - timedelta(minutes=30)
    assert Width.DAY.start_of(at) == AT.replace(hour=0, minute=0)
