"""What follows an attempt: decided from what is known of it, without asking the world."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from engine.decide.attempts import MOST_CRASHES, TOLD_LATE_S, after_crash, after_end, after_interruption, timed_out
from engine.decide.priority import rank
from engine.jobs import OnCrash, RetryPolicy
from engine.plugin import Outcome
from engine.runs import Attempt, Run, RunState
from engine.testing.clock import START
from engine.testing.store_contract.material import a_run, an_event

THREE = RetryPolicy(attempts=3, delay_s=10.0, jitter=0.0)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def died(number: int) -> Attempt:
    return Attempt(
        number=1, started_at=at(0), finished_at=at(number), state=RunState.CANCELLED, code="engine_died",
        reason="queued again", counted=False,
    )  # fmt: skip


def running(number: int = 1, **fields: Any) -> Run:
    return a_run(an_event(), state=RunState.RUNNING, attempt=number, started_at=at(0), **fields)


def test_a_run_that_a_crash_cut_off_is_queued_again_where_it_stood_and_keeps_its_attempt() -> None:
    run = running(priority=8)
    end = after_crash(run, OnCrash.RETRY, at(60), 2, 60.0)
    assert (end.step.state, end.step.code, end.attempt_count) == (RunState.QUEUED, "engine_died", 0)
    assert end.rank == rank(run.created_at, 8, 60.0)
    assert "2 of its processes ended" in end.step.reason
    assert not end.attempt.counted
    assert (end.attempt.started_at, end.attempt.finished_at) == (at(0), at(60))


def test_a_run_that_is_not_to_be_repeated_fails_and_is_not_retried() -> None:
    end = after_crash(running(), OnCrash.FAIL, at(60), 0, 60.0)
    assert (end.step.state, end.step.code, end.attempt_count) == (RunState.FAILED, "engine_died", 1)
    assert end.attempt.counted
    assert end.due_at is None


def test_a_run_that_was_there_at_too_many_crashes_fails() -> None:
    last = after_crash(
        running(attempts=tuple(died(n) for n in range(MOST_CRASHES - 1))), OnCrash.RETRY, at(60), 0, 60.0
    )
    assert last.step.state is RunState.QUEUED
    over = after_crash(running(attempts=tuple(died(n) for n in range(MOST_CRASHES))), OnCrash.RETRY, at(60), 0, 60.0)
    assert (over.step.state, over.step.code) == (RunState.FAILED, "crash_loop")
    assert f"{MOST_CRASHES + 1} times" in over.step.reason


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Outcome.failed("exit", "exit code 1", exit_code=1, outputs={"n": 1}), RunState.FAILED),
        (timed_out(5.0, 0.0), RunState.TIMED_OUT),
    ],
)
def test_what_failed_is_tried_again_while_attempts_are_left(outcome: Outcome, state: RunState) -> None:
    again = after_end(running(), outcome, THREE, at(0), at(60))
    assert (again.step.state, again.step.code, again.due_at) == (RunState.RETRYING, outcome.code, at(70))
    assert again.step.reason == f"attempt 1 of 3 {outcome.reason}; next in 10s"
    assert (again.attempt.state, again.attempt.reason, again.attempt_count) == (state, outcome.reason, 1)
    over = after_end(running(number=3), outcome, THREE, at(0), at(60))
    assert (over.step.state, over.step.reason, over.due_at) == (state, outcome.reason, None)
    assert (over.attempt.exit_code, over.outputs) == (outcome.exit_code, outcome.outputs)


def test_who_asks_to_be_left_alone_for_longer_is() -> None:
    outcome = Outcome.failed("http_status", "answered 503", retry_after_s=100.0)
    assert after_end(running(), outcome, THREE, at(0), at(60)).due_at == at(160)


@pytest.mark.parametrize("outcome", [Outcome.succeeded("done"), Outcome(state=RunState.SKIPPED, code="x", reason="x")])
def test_what_did_not_fail_is_not_tried_again(outcome: Outcome) -> None:
    end = after_end(running(), outcome, THREE, at(0), at(60))
    assert (end.step.state, end.due_at, end.rank) == (outcome.state, None, None)


def test_an_attempt_that_ends_long_after_its_time_out_says_so() -> None:
    assert timed_out(5.0, TOLD_LATE_S - 0.1).reason == "timed out after 5s"
    assert timed_out(5.0, 7.2).reason == "timed out after 5s, and ended 7s later"


def test_an_interrupted_attempt_does_not_count_and_its_run_is_queued_where_it_stood() -> None:
    run = running(number=2, priority=8)
    end = after_interruption(run, at(0), at(60), 60.0)
    assert (end.step.state, end.step.code, end.attempt_count) == (RunState.QUEUED, "interrupted", 1)
    assert end.rank == rank(run.created_at, 8, 60.0)
    assert not end.attempt.counted
