"""Attempts that an earlier engine process began: they hold their slots, keep their deadlines, and end like others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import anyio
from msgspec.structs import replace

from engine.attending import Attendant
from engine.events import Event
from engine.jobs import Job, OnCrash
from engine.plugin import Outcome
from engine.runs import Run, RunState
from engine.testing.clock import START
from engine.testing.store_contract.material import accept_run, make, start
from tests.organs import Bench, bench, event, job


class Keeping:
    """Takes up attempts as the test says."""

    def __init__(self, act: Callable[[Attendant], Awaitable[Outcome]]) -> None:
        self.act = act
        self.taken: list[str] = []
        self.ended: list[str] = []
        self.forgotten: list[str] = []

    async def take_up(self, run: Run, job: Job, events: tuple[Event, ...], attendant: Attendant) -> Outcome:
        self.taken.append(run.id)
        return await self.act(attendant)

    async def end(self, run: Run) -> None:
        self.ended.append(run.id)

    def forget(self, run_id: str) -> None:
        self.forgotten.append(run_id)


ADOPTS = job("bake", on_crash=OnCrash.ADOPT, timeout_s=60.0)


async def forever(attendant: Attendant) -> Outcome:
    await anyio.sleep_forever()
    raise AssertionError("it never ends")


async def left_running(path: Path, began_s: float = 0.0) -> Run:
    """Return a run that an earlier engine process began so many seconds before this one starts."""
    async with bench(path, dispatching=False) as desk:
        _, run, change = accept_run(job="bake", trigger="on-grain")
        await make(desk.store, change, start(run))
        found = await desk.run_of(run.id)
    return replace(found, started_at=START - timedelta(seconds=began_s))


async def states(desk: Bench, *ids: str) -> list[RunState]:
    return [(await desk.run_of(run_id)).state for run_id in ids]


async def test_an_adopted_run_has_its_slot_before_anything_else_is_started(tmp_path: Path) -> None:
    run = await left_running(tmp_path / "s.db")
    over = anyio.Event()

    async def act(attendant: Attendant) -> Outcome:
        await over.wait()
        attendant.used(1.5, 4096, ended_at=START + timedelta(seconds=2))
        return Outcome.succeeded("done", outputs={"n": 1})

    keeping = Keeping(act)
    async with bench(tmp_path / "s.db", jobs=[ADOPTS], concurrency=1, keeping=keeping, adopted=[run]) as desk:
        assert desk.dispatch.running == 1
        (other,) = (await desk.emit_one(event())).runs
        await desk.advance(5)
        assert await states(desk, run.id, other) == [RunState.RUNNING, RunState.QUEUED]
        over.set()
        await desk.settle()
        assert await states(desk, run.id, other) == [RunState.SUCCEEDED, RunState.SUCCEEDED]
        found = await desk.run_of(run.id)
    assert (found.attempt, found.outputs) == (1, {"n": 1})
    (attempt,) = found.attempts
    assert (attempt.cpu_s, attempt.peak_bytes) == (1.5, 4096)
    assert attempt.finished_at == START + timedelta(seconds=2)
    assert keeping.taken == [run.id]
    # The other one's attempt could have been taken up, too.
    assert keeping.forgotten == [run.id, other]


async def test_what_is_left_of_its_time_is_counted_from_its_start(tmp_path: Path) -> None:
    run = await left_running(tmp_path / "s.db", began_s=50.0)
    async with bench(tmp_path / "s.db", jobs=[ADOPTS], keeping=Keeping(forever), adopted=[run]) as desk:
        await desk.advance(9)
        assert await states(desk, run.id) == [RunState.RUNNING]
        await desk.advance(2)
        assert await states(desk, run.id) == [RunState.TIMED_OUT]
        found = await desk.run_of(run.id)
        assert found.reason == "timed out after 1m"


async def test_one_whose_time_is_over_long_ago_is_ended_at_once(tmp_path: Path) -> None:
    run = await left_running(tmp_path / "s.db", began_s=500.0)
    keeping = Keeping(forever)
    async with bench(tmp_path / "s.db", jobs=[ADOPTS], keeping=keeping, adopted=[run]) as desk:
        await desk.advance(0.1)
        assert await states(desk, run.id) == [RunState.TIMED_OUT]
    assert keeping.ended == [run.id]


async def test_one_that_is_cut_off_before_it_was_taken_up_is_ended_all_the_same(tmp_path: Path) -> None:
    run = await left_running(tmp_path / "s.db")
    keeping = Keeping(forever)
    async with bench(
        tmp_path / "s.db", jobs=[ADOPTS], keeping=keeping, adopted=[run], dispatching=False
    ) as desk, anyio.create_task_group() as group:  # fmt: skip
        await group.start(desk.dispatch.run)
        assert desk.dispatch.hands.cut_off(run.id, "by somebody")
        await desk.settle()
        assert await states(desk, run.id) == [RunState.CANCELLED]
        group.cancel_scope.cancel()
    assert (keeping.taken, keeping.ended) == ([], [run.id])


async def test_an_orderly_stop_lets_it_go_without_a_word_and_at_once(tmp_path: Path) -> None:
    run = await left_running(tmp_path / "s.db")
    let_go: list[bool] = []

    async def act(attendant: Attendant) -> Outcome:
        try:
            await anyio.sleep_forever()
        finally:
            let_go.append(attendant.let_go)
        raise AssertionError("it never ends")

    keeping = Keeping(act)
    async with bench(tmp_path / "s.db", jobs=[ADOPTS], keeping=keeping, adopted=[run]) as desk:
        await desk.dispatch.drain(30.0)
        assert desk.clock.now() == START
        assert desk.dispatch.running == 0
        assert await states(desk, run.id) == [RunState.RUNNING]
    assert (let_go, keeping.ended, keeping.forgotten) == ([True], [], [])


async def test_processes_that_outlive_the_engine_are_not_killed_with_it(tmp_path: Path) -> None:
    run = await left_running(tmp_path / "s.db")

    async def act(attendant: Attendant) -> Outcome:
        attendant.process(4711)
        await anyio.sleep_forever()
        raise AssertionError("it never ends")

    async with bench(tmp_path / "s.db", jobs=[ADOPTS], keeping=Keeping(act), adopted=[run]) as desk:
        assert desk.dispatch.has(run.id)
        assert desk.dispatch.processes() == []
