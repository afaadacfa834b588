"""Whether and when a failed attempt is tried again."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.decide.attempts import after_end
from engine.decide.retry import delay_s
from engine.jobs import RetryOn, RetryPolicy
from engine.plugin import Outcome
from engine.runs import RunState
from engine.testing.store_contract.material import a_run, an_event

POLICIES = st.builds(
    RetryPolicy,
    attempts=st.integers(1, 1000),
    delay_s=st.floats(0, 1e6),
    factor=st.floats(1, 100),
    max_delay_s=st.floats(0, 1e6),
    jitter=st.floats(0, 1),
)


def test_without_a_policy_there_is_one_attempt() -> None:
    assert delay_s(RetryPolicy(), 1, "run") is None


@pytest.mark.parametrize(("attempt", "again"), [(1, True), (2, True), (3, False), (4, False)])
def test_there_are_as_many_attempts_in_all_as_the_policy_says(attempt: int, again: bool) -> None:
    assert (delay_s(RetryPolicy(attempts=3), attempt, "run") is not None) == again


def test_delays_grow_by_the_factor_up_to_the_longest() -> None:
    policy = RetryPolicy(attempts=10, delay_s=5, factor=2, max_delay_s=60, jitter=0)
    assert [delay_s(policy, attempt, "run") for attempt in range(1, 10)] == [5, 10, 20, 40, 60, 60, 60, 60, 60]


def test_a_factor_of_one_keeps_the_delay() -> None:
    policy = RetryPolicy(attempts=4, delay_s=7, factor=1, jitter=0)
    assert [delay_s(policy, attempt, "run") for attempt in (1, 2, 3)] == [7, 7, 7]


@given(POLICIES, st.integers(1, 1000), st.text())
def test_every_delay_is_finite_and_within_the_jitter_of_its_bound(policy: RetryPolicy, attempt: int, seed: str) -> None:
    delay = delay_s(policy, attempt, seed)
    if attempt >= policy.attempts:
        assert delay is None
        return
    assert delay is not None
    assert math.isfinite(delay)
    assert 0 <= delay <= policy.max_delay_s * (1 + policy.jitter) * 1.000001


@given(POLICIES, st.integers(1, 1000), st.text())
def test_deciding_twice_decides_the_same(policy: RetryPolicy, attempt: int, seed: str) -> None:
    assert delay_s(policy, attempt, seed) == delay_s(policy, attempt, seed)


def test_jitter_spreads_runs_that_failed_together_over_the_whole_band() -> None:
    policy = RetryPolicy(attempts=2, delay_s=100, jitter=0.1)
    delays = [delay_s(policy, 1, f"run-{n}") or 0.0 for n in range(1000)]
    assert 90 <= min(delays) < 91
    assert 109 < max(delays) <= 110
    assert 99 < sum(delays) / len(delays) < 101
    assert len(set(delays)) > 990


def test_the_attempts_of_one_run_do_not_share_their_jitter() -> None:
    policy = RetryPolicy(attempts=100, delay_s=100, factor=1, jitter=0.5)
    assert len({delay_s(policy, attempt, "run") for attempt in range(1, 100)}) > 90


def test_what_a_server_asks_for_is_waited_for_also_beyond_the_longest_delay() -> None:
    policy = RetryPolicy(attempts=3, delay_s=5, max_delay_s=60, jitter=0)
    assert delay_s(policy, 1, "run", 120) == 120
    assert delay_s(policy, 1, "run", 2) == 5
    assert delay_s(policy, 3, "run", 120) is None


@given(POLICIES, st.integers(1, 1000), st.text(), st.floats(0, 1e300))
def test_what_is_asked_for_is_the_least_and_bounded_by_a_day(
    policy: RetryPolicy, attempt: int, seed: str, asked_s: float
) -> None:
    alone, delay = delay_s(policy, attempt, seed), delay_s(policy, attempt, seed, asked_s)
    assert (alone is None) == (delay is None)
    if alone is not None and delay is not None:
        assert delay >= max(alone, min(asked_s, 86_400))
        assert delay <= max(alone, 86_400 * (1 + policy.jitter))


def test_only_attempts_that_the_policy_names_are_tried_again_and_the_reason_says_so() -> None:
    policy = RetryPolicy(attempts=3, on=RetryOn(exit_codes=frozenset({75}), codes=frozenset({"timed_out"})))
    now = datetime(2026, 11, 21, tzinfo=UTC)
    run = a_run(an_event(), attempt=1, state=RunState.RUNNING)

    def follows(outcome: Outcome) -> tuple[RunState, str]:
        step = after_end(run, outcome, policy, now, now).step
        return step.state, step.reason

    busy = Outcome.failed("exit_code", "exited with 75", exit_code=75)
    late = Outcome(state=RunState.TIMED_OUT, code="timed_out", reason="timed out after 1s")
    wrong = Outcome.failed("exit_code", "exited with 2", exit_code=2)
    assert follows(busy)[0] is follows(late)[0] is RunState.RETRYING
    assert follows(wrong) == (RunState.FAILED, "exited with 2; not tried again, as `retry.on` does not name it")
    assert follows(Outcome.failed("signal", "ended by SIGKILL"))[0] is RunState.FAILED
    # The last attempt ends as it always did.
    last = replace(run, attempt=3)
    assert after_end(last, wrong, policy, now, now).step.reason == "exited with 2"
