"""What the log tells of ends of runs: each while there are few, a sum while there are many, and failures always."""

from __future__ import annotations

import logging
from datetime import timedelta

import anyio
import pytest
from msgspec.structs import replace

from engine.outcomes import MORE_EACH_S, MOST_AT_ONCE, SUM_UP_S, Outcomes
from engine.runs import Run, RunState, Step
from engine.testing import VirtualClock
from engine.testing.store_contract.material import a_run, an_event

STARTED_AT = VirtualClock().now()


@pytest.fixture(autouse=True)
def _told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="engine.run")


def ended(state: RunState = RunState.SUCCEEDED, reason: str = "exited with 0") -> tuple[Run, Step]:
    step = Step(at=STARTED_AT + timedelta(seconds=1.5), state=state, code=f"code_{state}", reason=reason)
    return replace(a_run(an_event()), started_at=STARTED_AT), step


async def test_an_end_is_one_line_with_the_ids(caplog: pytest.LogCaptureFixture) -> None:
    run, step = ended()
    Outcomes(VirtualClock())(run, step)
    [record] = caplog.records
    assert record.getMessage() == "Run of oven succeeded after 1s500ms: exited with 0"
    assert vars(record)["run"] == run.id
    assert vars(record)["action"] == "run_ended"
    assert record.levelno == logging.INFO


@pytest.mark.parametrize(
    ("state", "level"),
    [
        (RunState.RETRYING, logging.WARNING),
        (RunState.FAILED, logging.ERROR),
        (RunState.TIMED_OUT, logging.ERROR),
        (RunState.SKIPPED, logging.INFO),
    ],
)
async def test_what_went_wrong_is_told_louder(caplog: pytest.LogCaptureFixture, state: RunState, level: int) -> None:
    Outcomes(VirtualClock())(*ended(state))
    assert [record.levelno for record in caplog.records] == [level]


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
    assert caplog.records[-1].getMessage() == "1 more attempts ended: failed 1"
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
