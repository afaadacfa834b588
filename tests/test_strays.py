"""What ended runs left running is found by its mark and ended; nothing else is."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

from engine.clock import SystemClock
from engine.errors import StoreUnavailable
from engine.ids import new_id
from engine.runs import RunState
from engine.strays import Strays
from tests.exec_runs import lives, until

MARK = f"ENGINE_RUN_ID_OF_TEST_{os.getpid()}"


class Known:
    """A store that knows how runs stand."""

    def __init__(self, states: dict[str, RunState] | None = None, *, away: bool = False) -> None:
        self.states = states or {}
        self.away = away

    async def run(self, run_id: str) -> Any:
        if self.away:
            raise StoreUnavailable("it is away")
        state = self.states.get(run_id)
        return None if state is None else type("Run", (), {"state": state})


@pytest.fixture
def start() -> Iterator[Callable[[str], int]]:
    """Start processes in sessions of their own that carry the mark of a run."""
    made: list[subprocess.Popen[bytes]] = []

    def begin(run_id: str) -> int:
        made.append(subprocess.Popen(["sleep", "300"], env={MARK: run_id}, start_new_session=True))
        return made[-1].pid

    yield begin
    for popen in made:
        with suppress(ProcessLookupError):
            os.kill(popen.pid, signal.SIGKILL)
        popen.wait(10)


@asynccontextmanager
async def sweeping(store: Known, active: set[str]) -> Any:
    strays = Strays(clock=SystemClock(), mark=MARK, is_active=active.__contains__)
    async with anyio.create_task_group() as group:
        group.start_soon(strays.run, cast("Any", store))
        yield strays
        group.cancel_scope.cancel()


async def test_what_an_ended_run_left_is_ended_and_told_and_what_runs_is_left(
    start: Callable[[str], int], caplog: pytest.LogCaptureFixture
) -> None:
    over, again, other = new_id(), new_id(), new_id()
    left, running, unknown = start(over), start(again), start(other)
    async with sweeping(Known(), {again}) as strays:
        strays.ended(over)
        strays.ended(again)  # its next attempt has begun
        await until(lambda: not lives(left))
        await until(lambda: "strays_ended" in {record.__dict__.get("action") for record in caplog.records})
    assert lives(running)
    assert lives(unknown)
    assert f"is ended: {left}" in caplog.text


async def test_what_an_earlier_engine_process_did_not_come_to_is_ended_at_the_start(
    start: Callable[[str], int],
) -> None:
    over, running, others = new_id(), new_id(), new_id()
    pids = {run_id: start(run_id) for run_id in (over, running, others)}
    async with sweeping(Known({over: RunState.FAILED, running: RunState.RUNNING}), {running}):
        await until(lambda: not lives(pids[over]))
    assert lives(pids[running])
    assert lives(pids[others])  # of another engine on this machine


async def test_a_store_that_is_away_at_the_start_keeps_nothing_from_being_found_later(
    start: Callable[[str], int],
) -> None:
    over = new_id()
    left = start(over)
    async with sweeping(Known(away=True), set()) as strays:
        strays.ended(over)
        await until(lambda: not lives(left))


def test_a_process_without_the_mark_is_nobodys(tmp_path: Path) -> None:
    from engine.processes import find_marked

    assert find_marked(MARK, None) == {}
