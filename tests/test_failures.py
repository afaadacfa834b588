"""Failures in a row: counted durably, a trigger pauses itself, tells of it, and counts anew when it is resumed."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.errors import StoreUnavailable
from engine.events import Event
from engine.failures import EVENT_SOURCE, EVENT_TYPE, FAILURES_SOURCE, Failures
from engine.jobs import Job
from engine.pauses import Pauses
from engine.plugin import Outcome
from engine.runs import Run, RunState
from engine.store.base import EventFilter
from engine.triggers import PauseScope
from tests.organs import Bench, Heard, bench, event, job, trigger

NAME = "on-grain"


class Kitchen:
    """A small engine with pauses and failures, whose runs fail as told."""

    def __init__(self, desk: Bench, pauses: Pauses, failures: Failures) -> None:
        self.desk = desk
        self.pauses = pauses
        self.failures = failures
        self.outcome = Outcome.failed("exit_code", "exited with 3", exit_code=3)
        desk.script.act = self.act

    async def act(self, run: Run, job: Job) -> Outcome:
        return self.outcome

    async def run(self, count: int = 1, *, succeeds: bool = False) -> None:
        self.outcome = Outcome.succeeded("done") if succeeds else Outcome.failed("exit_code", "exited", exit_code=3)
        for _ in range(count):
            await self.desk.emit_one(event())
            await self.desk.settle()

    def paused(self) -> str | None:
        held = self.pauses.of(NAME)
        return held[0].reason if held else None

    async def told(self) -> list[Event]:
        found = await self.desk.store.events(EventFilter(type=EVENT_TYPE), limit=10)
        return [one.event for one in found]


@asynccontextmanager
async def kitchen(path: Path, *, pause_after: int | None = 3, working: bool = True) -> AsyncIterator[Kitchen]:
    triggers = [
        trigger(NAME, pause_after=pause_after),
        trigger("alarm", source="event:alarm", on=Heard(type=EVENT_TYPE), job="ring"),
    ]
    async with bench(
        path / "e.db", jobs=[job(), job("ring")], triggers=triggers, hearing=[("event:alarm", Heard(type=EVENT_TYPE))]
    ) as desk:
        rules = desk.intake._rules
        pauses = Pauses(desk.clock, desk.journal, rules)
        await pauses.load(desk.store)
        failures = Failures(desk.clock, desk.journal, rules, pauses, lambda one: desk.intake.announce(one))
        pauses.on_change = failures.pauses_changed
        await failures.load(desk.store)
        desk.dispatch._finish = lambda run, end: desk.intake.finish(run, failures.noting(run, end))
        async with anyio.create_task_group() as group:
            if working:
                group.start_soon(failures.run)
            await desk.settle()
            yield Kitchen(desk, pauses, failures)
            group.cancel_scope.cancel()


async def stored(desk: Bench) -> dict[str, Any]:
    return await desk.store.memory(FAILURES_SOURCE, after=None, limit=10)


async def test_a_trigger_that_fails_so_often_in_a_row_pauses_itself_and_tells_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with kitchen(tmp_path) as made:
        await made.run(2)
        await made.run(succeeds=True)
        assert (made.failures.count(NAME), await stored(made.desk)) == (0, {})
        await made.run(2)
        assert made.paused() is None
        await made.run()
        assert (made.paused() or "").startswith("3 runs failed in a row (pause_after = 3), the last: run ")
        # People asked for no pause: it has to be seen where only warnings are.
        (warned,) = [record for record in caplog.records if getattr(record, "action", "") == "paused"]
        assert warned.levelno == logging.WARNING
        (told,) = await made.told()
        assert (told.source, told.subject, told.data["failures"]) == (EVENT_SOURCE, NAME, 3)
        # A trigger that listens for it runs: that is what an alert hangs on.
        runs = [run for run, _, _ in made.desk.script.begun]
        assert (await made.desk.run_of(runs[-1])).job == "ring"


async def test_what_is_cancelled_or_skipped_says_nothing_and_time_outs_count(tmp_path: Path) -> None:
    async with kitchen(tmp_path) as made:
        await made.run(2)
        made.outcome = Outcome(state=RunState.SKIPPED, code="nothing_to_do", reason="skipped: nothing to do")
        await made.desk.emit_one(event())
        await made.desk.settle()
        assert made.failures.count(NAME) == 2
        made.outcome = Outcome(state=RunState.TIMED_OUT, code="timed_out", reason="timed out after 1s")
        await made.desk.emit_one(event())
        await made.desk.settle()
        assert made.paused() is not None


async def test_the_count_survives_restarts_and_resume_begins_anew(tmp_path: Path) -> None:
    async with kitchen(tmp_path) as made:
        await made.run(2)
    async with kitchen(tmp_path) as made:
        assert made.failures.count(NAME) == 2
        await made.run()
        assert made.paused() is not None
    async with kitchen(tmp_path) as made:
        assert made.paused() is not None
        assert len(await made.told()) == 1
        assert await made.pauses.resume(PauseScope.TRIGGER, NAME, who="anna")
        await made.desk.settle()
        assert (made.failures.count(NAME), await stored(made.desk)) == (0, {})
        await made.run(2)
        assert made.paused() is None
        await made.run()
        assert made.paused() is not None
        assert len(await made.told()) == 2


async def test_an_engine_that_dies_before_it_has_paused_does_so_at_the_next_start(tmp_path: Path) -> None:
    async with kitchen(tmp_path, working=False) as made:
        await made.run(3)
        assert made.paused() is None
    async with kitchen(tmp_path) as made:
        assert made.paused() is not None
        assert len(await made.told()) == 1


async def test_one_that_dies_between_the_pause_and_its_event_tells_of_it_at_the_next_start(tmp_path: Path) -> None:
    async with kitchen(tmp_path) as made:

        async def away(one: Event) -> None:
            raise StoreUnavailable("away")

        made.failures._announce = away
        await made.run(3)
        assert made.paused() is not None
        assert await made.told() == []
    async with kitchen(tmp_path) as made:
        assert len(await made.told()) == 1
        assert (await stored(made.desk))[NAME]["paused"] is True


async def test_one_that_was_resumed_when_the_engine_died_counts_anew(tmp_path: Path) -> None:
    async with kitchen(tmp_path) as made:
        await made.run(3)
        made.pauses.on_change = lambda names: None
        await made.pauses.resume(PauseScope.TRIGGER, NAME, who="anna")
        assert made.failures.count(NAME) == 3
    async with kitchen(tmp_path) as made:
        assert made.failures.count(NAME) == 0
        assert made.paused() is None


async def test_without_pause_after_nothing_is_counted_or_stored(tmp_path: Path) -> None:
    async with kitchen(tmp_path, pause_after=None) as made:
        await made.run(9)
        assert (made.failures.count(NAME), await stored(made.desk), made.paused()) == (0, {}, None)
