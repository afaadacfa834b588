"""What the log tells of ends of runs: each while there are few, a sum while there are many, and failures always."""

from __future__ import annotations

import logging
from datetime import timedelta

import anyio
import pytest
from msgspec.structs import replace

from engine.decide.attempts import AttemptEnd, after_end, after_interruption, timed_out
from engine.jobs import RetryPolicy
from engine.outcomes import MORE_EACH_S, MOST_AT_ONCE, SUM_UP_S, Outcomes
from engine.plugin import Outcome
from engine.runs import Run, RunState
from engine.testing import VirtualClock
from engine.testing.store_contract.material import a_run, an_event

STARTED_AT = VirtualClock().now()


@pytest.fixture(autouse=True)
def _told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="engine.run")


def ended(
    state: RunState = RunState.SUCCEEDED, reason: str = "exited with 0", outcome: Outcome | None = None
) -> tuple[Run, AttemptEnd]:
    run = replace(a_run(an_event()), started_at=STARTED_AT, attempt=1)
    outcome = outcome or Outcome(state=state, code=f"code_{state}", reason=reason)
    return run, after_end(run, outcome, RetryPolicy(), STARTED_AT, STARTED_AT + timedelta(seconds=1.5))


def tried_again(outcome: Outcome) -> tuple[Run, AttemptEnd]:
    run, _ = ended()
    policy = RetryPolicy(attempts=3, delay_s=1.1, jitter=0)
    return run, after_end(run, outcome, policy, STARTED_AT, STARTED_AT + timedelta(seconds=0.0094))


FAILED = Outcome.failed("exit_code", "exited with 1")


async def test_an_end_is_one_line_with_the_ids(caplog: pytest.LogCaptureFixture) -> None:
    run, step = ended()
    Outcomes(VirtualClock())(run, step)
    [record] = caplog.records
    assert record.getMessage() == "Run of oven succeeded after 1.5s: exited with 0"
    assert vars(record)["run"] == run.id
    assert vars(record)["action"] == "run_ended"
    assert record.levelno == logging.INFO


@pytest.mark.parametrize(
    ("state", "level"),
    [
        (RunState.FAILED, logging.ERROR),
        (RunState.TIMED_OUT, logging.ERROR),
        (RunState.SKIPPED, logging.INFO),
    ],
)
async def test_what_went_wrong_is_told_louder(caplog: pytest.LogCaptureFixture, state: RunState, level: int) -> None:
    Outcomes(VirtualClock())(*ended(state))
    assert [record.levelno for record in caplog.records] == [level]


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (FAILED, "Attempt 1 of a run of oven failed after 9ms: exited with 1; next in 1.1s"),
        (timed_out(5.0, 7.2), "Attempt 1 of a run of oven timed out after 5s, and ended 7s later; next in 1.1s"),
    ],
)
async def test_an_attempt_that_is_followed_by_another_is_told_as_such(
    caplog: pytest.LogCaptureFixture, outcome: Outcome, told: str
) -> None:
    Outcomes(VirtualClock())(*tried_again(outcome))
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [(logging.WARNING, told)]


async def test_an_attempt_that_a_stop_cut_off_is_told_as_such(caplog: pytest.LogCaptureFixture) -> None:
    run, _ = ended()
    end = after_interruption(run, STARTED_AT, STARTED_AT + timedelta(seconds=14.977), 60.0)
    Outcomes(VirtualClock())(run, end)
    told = "Attempt 1 of a run of oven was cut off after 15s, and the run is queued again: the engine was stopped"
    assert caplog.messages == [f"{told}; the attempt does not count"]


@pytest.mark.parametrize(("failed", "level"), [(False, logging.INFO), (True, logging.ERROR)])
async def test_a_sum_is_loud_only_where_a_run_failed_for_good(
    caplog: pytest.LogCaptureFixture, failed: bool, level: int
) -> None:
    outcomes = Outcomes(VirtualClock())
    async with anyio.create_task_group() as group:
        group.start_soon(outcomes.run)
        await anyio.wait_all_tasks_blocked()
        for _ in range(MOST_AT_ONCE + 2):
            outcomes(*tried_again(FAILED))
        if failed:
            outcomes(*ended(outcome=FAILED))
        outcomes.close()
    assert caplog.records[-1].levelno == level
    assert "retrying 2" in caplog.messages[-1]


async def test_many_ends_are_summed_up_and_failures_still_told_one_by_one(caplog: pytest.LogCaptureFixture) -> None:
    clock = VirtualClock()
    outcomes = Outcomes(clock)
    async with anyio.create_task_group() as group:
        group.start_soon(outcomes.run)
        for _ in range(MOST_AT_ONCE + 7):
            outcomes(*ended())
        outcomes(*ended(RunState.FAILED, "exited with 3"))
        assert len(caplog.records) == MOST_AT_ONCE + 1
        assert "exited with 3" in caplog.text
        await clock.advance(SUM_UP_S)
        assert caplog.records[-1].getMessage() == "7 more attempts ended: succeeded 7"
        await clock.advance(10 * SUM_UP_S)
        assert len(caplog.records) == MOST_AT_ONCE + 2
        outcomes.close()


async def test_what_is_untold_is_summed_up_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    outcomes = Outcomes(VirtualClock())
    async with anyio.create_task_group() as group:
        group.start_soon(outcomes.run)
        await anyio.wait_all_tasks_blocked()
        for _ in range(MOST_AT_ONCE + 1):
            outcomes(*ended(RunState.FAILED))
        outcomes.close()
    assert caplog.records[-1].getMessage() == "1 more attempt ended: failed 1"
    assert caplog.records[-1].levelno == logging.ERROR


async def test_after_a_quiet_time_ends_are_told_again(caplog: pytest.LogCaptureFixture) -> None:
    clock = VirtualClock()
    outcomes = Outcomes(clock)
    for _ in range(MOST_AT_ONCE + 1):
        outcomes(*ended())
    await clock.advance(MORE_EACH_S)
    outcomes(*ended())
    outcomes(*ended())
    assert len(caplog.records) == MOST_AT_ONCE + 1
