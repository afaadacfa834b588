"""Pauses of the engine, of tags, of triggers: what holds, what becomes of what comes and what waits, how they end."""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.errors import StoreUnavailable
from engine.pauses import PAUSES_SOURCE, Pauses
from engine.plugin import Outcome
from engine.runs import Run, RunState
from engine.store.changes import Accept, Memory
from engine.testing import VirtualClock
from engine.triggers import PauseScope, merged
from tests.organs import Bench, bench, event, job, trigger

ENGINE, TAG, TRIGGER = PauseScope.ENGINE, PauseScope.TAG, PauseScope.TRIGGER

JOBS = [job(tags=("oven",)), job("sweep")]
RULES = [
    trigger("a", source="a", tags=("night", "import")),
    trigger("b", source="b", tags=("night",)),
    trigger("c", source="c", job="sweep"),
]


class Paused:
    """A small engine with pauses, connected as the runtime connects them."""

    def __init__(self, desk: Bench) -> None:
        self.desk = desk
        self.changes: list[Collection[str] | None] = []
        self.pauses = Pauses(desk.clock, desk.journal, desk.intake._rules)
        self.pauses.on_change = self._changed
        desk.intake._drafting._pauses = self.pauses

    def _changed(self, names: Collection[str] | None) -> None:
        self.changes.append(names)
        self.desk.dispatch.hold(self.pauses.engine is not None)

    async def pause(self, scope: PauseScope, name: str = "", *, reason: str = "", seconds: float | None = None) -> None:
        until = None if seconds is None else self.desk.clock.now() + timedelta(seconds=seconds)
        await self.pauses.pause(scope, name, reason=reason, until=until, who="ann")

    async def outcome(self, source: str) -> tuple[str, str, str]:
        (accepted,) = await self.desk.emit(event(), source=source)
        await self.desk.settle()
        (outcome,) = accepted.outcomes
        return outcome.outcome.value, outcome.code, outcome.reason


async def test_a_tag_pauses_the_triggers_that_have_it_and_those_whose_job_has(tmp_path: Path) -> None:
    async with bench(tmp_path / "e.db", jobs=JOBS, triggers=RULES) as desk:
        engine = Paused(desk)
        await engine.pause(TAG, "import", reason="stock-taking")
        assert await engine.outcome("a") == ("paused", "tag_paused", "paused: tag import is paused: stock-taking")
        assert (await engine.outcome("b"))[0] == "run"
        await engine.pause(TAG, "oven")
        assert (await engine.outcome("b"))[2] == "paused: tag oven is paused"
        assert (await engine.outcome("c"))[0] == "run"
        assert engine.pauses.held_by(TAG, "oven") == ["a", "b"]
        assert engine.changes == [["a"], ["a", "b"]]


async def test_where_several_pauses_hold_each_is_named_and_ending_one_leaves_the_others(tmp_path: Path) -> None:
    async with bench(tmp_path / "e.db", jobs=JOBS, triggers=RULES) as desk:
        engine = Paused(desk)
        await engine.pause(TRIGGER, "a", reason="late")
        await engine.pause(TAG, "night", reason="power cut", seconds=60)
        await engine.pause(ENGINE, reason="move", seconds=30)
        said = (await engine.outcome("a"))[2]
        assert said == (
            "paused: the engine is paused until 2026-01-05 12:00:30 UTC: move; tag night is paused until "
            "2026-01-05 12:01:00 UTC: power cut; trigger a is paused: late"
        )
        assert [pause.scope for pause in engine.pauses.of("a")] == [ENGINE, TAG, TRIGGER]
        both = engine.pauses.now("b")
        assert both is not None
        assert (both.until, both.parts) == (desk.clock.now() + timedelta(seconds=60), engine.pauses.of("b"))
        assert await engine.pauses.resume(TAG, "night", who="ann")
        assert [pause.scope for pause in engine.pauses.of("a")] == [ENGINE, TRIGGER]
        assert await engine.pauses.resume(ENGINE, "", who="ann")
        assert not await engine.pauses.resume(ENGINE, "", who="ann")
        assert (await engine.outcome("a"))[1] == "trigger_paused"
        assert (await engine.outcome("b"))[0] == "run"


def test_nothing_is_merged_of_nothing() -> None:
    assert merged(()) is None


async def test_a_paused_engine_starts_nothing_and_lets_run_what_runs(tmp_path: Path) -> None:
    gate = anyio.Event()

    async def act(run: Run, job: Any) -> Outcome:
        await gate.wait()
        return Outcome.succeeded("done")

    async with bench(
        tmp_path / "e.db", jobs=[job(concurrency=1)], triggers=[trigger("a", source="a")], act=act
    ) as desk:
        engine = Paused(desk)
        first, second = [(await desk.emit_one(event(), source="a")).runs[0] for _ in range(2)]
        await engine.pause(ENGINE)
        gate.set()
        await desk.settle()
        assert (await desk.run_of(first)).state is RunState.SUCCEEDED
        assert (await desk.run_of(second)).state is RunState.QUEUED
        await engine.pauses.resume(ENGINE, "", who="ann")
        await desk.settle()
        assert (await desk.run_of(second)).state is RunState.SUCCEEDED


async def test_a_fire_that_bypasses_the_pause_starts_though_the_engine_is_paused(tmp_path: Path) -> None:
    gate = anyio.Event()

    async def act(run: Run, job: Any) -> Outcome:
        await gate.wait()
        return Outcome.succeeded("done")

    async with bench(
        tmp_path / "e.db", jobs=[job(concurrency=1)], triggers=[trigger("a", source="a")], act=act
    ) as desk:
        engine = Paused(desk)
        running, waiting = [(await desk.emit_one(event(), source="a")).runs[0] for _ in range(2)]
        await engine.pause(ENGINE, reason="move")
        assert (await desk.intake.fire("a")).outcomes[0].code == "engine_paused"
        fired = (await desk.intake.fire("a", bypass=frozenset({"pause"}))).runs[0]
        assert (await desk.run_of(fired)).state is RunState.QUEUED
        gate.set()
        await desk.settle()
        states = [(await desk.run_of(one)).state for one in (running, waiting, fired)]
        assert states == [RunState.SUCCEEDED, RunState.QUEUED, RunState.SUCCEEDED]
        at_once = (await desk.intake.fire("a", bypass=frozenset({"pause"}))).runs[0]
        await desk.settle()
        assert (await desk.run_of(at_once)).state is RunState.SUCCEEDED


async def test_a_pause_ends_by_itself_and_that_is_told_and_forgotten(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "engine.pauses")
    async with bench(tmp_path / "e.db", jobs=JOBS, triggers=RULES) as desk, anyio.create_task_group() as group:
        engine = Paused(desk)
        group.start_soon(engine.pauses.run)
        await engine.pause(ENGINE, reason="move", seconds=100)
        waits = (await desk.intake.fire("a", bypass=frozenset({"pause"}))).runs[0]
        await desk.settle()
        assert (await desk.run_of(waits)).state is RunState.SUCCEEDED
        await engine.pause(TRIGGER, "b", seconds=40)
        engine.changes.clear()
        await desk.advance(50)
        assert engine.changes == [["b"]]
        await desk.advance(50)
        assert engine.changes == [["b"], None]
        assert "The pause of the engine ended at 2026-01-05T12:01:40Z, as it was to" in caplog.text
        assert await desk.store.memory(PAUSES_SOURCE, after=None, limit=10) == {}
        assert engine.pauses.all() == []
        group.cancel_scope.cancel()


async def test_a_pause_whose_end_the_store_can_not_take_ends_all_the_same(tmp_path: Path) -> None:
    async with bench(tmp_path / "e.db", jobs=JOBS, triggers=RULES) as desk, anyio.create_task_group() as group:
        engine = Paused(desk)
        group.start_soon(engine.pauses.run)
        await engine.pause(ENGINE, seconds=10)
        engine.changes.clear()
        desk.store.write_error = StoreUnavailable("away")
        await desk.advance(11)
        assert (engine.changes, desk.dispatch._paused) == ([None], False)
        desk.store.write_error = None
        await desk.advance(20)
        assert engine.changes == [None]
        assert await desk.store.memory(PAUSES_SOURCE, after=None, limit=10) == {}
        group.cancel_scope.cancel()


async def test_pauses_outlive_the_engine_and_those_that_ended_meanwhile_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "engine.pauses")
    clock = VirtualClock()
    async with bench(tmp_path / "e.db", jobs=JOBS, triggers=RULES, clock=clock) as desk:
        engine = Paused(desk)
        await engine.pause(TAG, "night", reason="power cut", seconds=60)
        await engine.pause(ENGINE, reason="move", seconds=3600)
        # As engines before this one stored it.
        old = {"reason": "old", "since": "2026-01-01T00:00:00Z", "until": None}
        await desk.journal.submit(Accept(entries=(), memory=Memory(source=PAUSES_SOURCE, values={"c": old})))
    clock._pass(100)
    async with bench(tmp_path / "e.db", jobs=JOBS, triggers=RULES, clock=clock) as desk:
        engine = Paused(desk)
        await engine.pauses.load(desk.store)
        async with anyio.create_task_group() as group:
            group.start_soon(engine.pauses.run)
            await desk.settle()
            assert "The pause of tag night ended at 2026-01-05T12:01:00Z, as it was to" in caplog.text
            (whole, one) = engine.pauses.all()
            assert (whole.scope, whole.reason, whole.who) == (ENGINE, "move", "ann")
            assert (one.scope, one.name, one.reason) == (TRIGGER, "c", "old")
            group.cancel_scope.cancel()


async def test_a_pause_that_is_renewed_keeps_since_when_it_holds(tmp_path: Path) -> None:
    async with bench(tmp_path / "e.db", jobs=JOBS, triggers=RULES) as desk:
        engine = Paused(desk)
        begun = desk.clock.now()
        await engine.pause(ENGINE, seconds=60)
        await desk.advance(30)
        await engine.pause(ENGINE, reason="longer")
        (pause,) = engine.pauses.all()
        assert (pause.since, pause.until, pause.reason) == (begun, None, "longer")
