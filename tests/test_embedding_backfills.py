"""Backfills in a program of one's own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest

from engine import BackfillRequest, BackfillState, Conflict, Engine, InvalidRequest, NotFound, RunContext
from tests.embedded import works

START = datetime(2026, 1, 5, 10, 0, tzinfo=UTC)


def an_engine(tmp_path: Path) -> tuple[Engine, list[RunContext]]:
    engine = Engine(tmp_path / "data")
    seen = works(engine)
    engine.add_trigger("hourly", job="work", cron={"expression": "0 * * * *", "timezone": "Europe/Berlin"})
    engine.add_trigger("asked", job="work", event="wanted")
    return engine, seen


async def test_a_program_runs_what_should_have_run_and_waits_for_its_end(tmp_path: Path) -> None:
    engine, seen = an_engine(tmp_path)
    async with engine:
        begun = await engine.backfill("hourly", START, START + timedelta(hours=3), reason="it was down")
        ended = await engine.backfills.ended(begun.backfill.id)
        assert (ended.backfill.state, ended.done) == (BackfillState.COMPLETED, 3)
        assert ended.backfill.timezone == "Europe/Berlin"
        assert [run.scheduled_for for run in seen] == [START + timedelta(hours=hour) for hour in range(3)]
        assert await engine.backfills.ended(begun.backfill.id) == ended
        again = await engine.backfill("hourly", START, START + timedelta(hours=5), only_missing=True, order="newest")
        assert (await engine.backfills.ended(again.backfill.id)).backfill.skipped == 3
        assert [run.scheduled_for for run in seen[3:]] == [START + timedelta(hours=hour) for hour in (4, 3)]
        found = [run async for run in engine.runs(trigger="hourly")]
        assert {run.origin for run in found} == {"backfill"}


async def test_times_without_a_zone_are_those_of_the_timers_clock(tmp_path: Path) -> None:
    engine, _ = an_engine(tmp_path)
    async with engine:
        day = datetime(2026, 1, 5)  # noqa: DTZ001
        request = BackfillRequest(trigger="hourly", start=day, end=day + timedelta(days=1))
        plan = await engine.backfills.plan(request)
        assert (len(plan.instants), plan.instants[0]) == (24, datetime(2026, 1, 4, 23, 0, tzinfo=UTC))


async def test_what_can_not_be_backfilled_is_refused(tmp_path: Path) -> None:
    engine, _ = an_engine(tmp_path)
    with pytest.raises(Conflict):
        _ = engine.backfills
    async with engine:
        with pytest.raises(NotFound, match="hourly"):
            await engine.backfill("hourli", START, START + timedelta(hours=1))
        with pytest.raises(InvalidRequest, match="oldest"):
            await engine.backfill("hourly", START, START + timedelta(hours=1), order="oldst")
        with pytest.raises(InvalidRequest, match="which has no due instants"):
            await engine.backfill("asked", START, START + timedelta(hours=1))


async def test_a_backfill_goes_on_in_the_next_life_of_the_program(tmp_path: Path) -> None:
    engine, _ = an_engine(tmp_path)
    async with engine:
        await engine.pause("hourly")
        begun = await engine.backfill("hourly", START, START + timedelta(hours=3))
    engine, seen = an_engine(tmp_path)
    async with engine:
        held = await engine.backfills.get(begun.backfill.id)
        assert held.done == 0
        await engine.resume("hourly")
        engine.backfills.look_again()
        assert (await engine.backfills.ended(begun.backfill.id)).done == len(seen) == 3


async def test_who_waits_for_its_end_is_told_where_the_engine_stops_before(tmp_path: Path) -> None:
    engine, _ = an_engine(tmp_path)
    said: list[str] = []

    async def wait(backfill: str) -> None:
        try:
            await engine.backfills.ended(backfill)
        except Conflict as error:
            said.append(str(error))

    async with anyio.create_task_group() as group:
        async with engine:
            await engine.pause("hourly")
            begun = await engine.backfill("hourly", START, START + timedelta(hours=3))
            group.start_soon(wait, begun.backfill.id)
            await anyio.wait_all_tasks_blocked()
    assert said == [f"the engine stopped before backfill {begun.backfill.id} had ended"]
