"""The simulation: what it foresees is what the engine does, to the instant; and what it says of it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from engine.foresight import Forecast, Question, World
from engine.jobs import Job, Overlap
from engine.plugin import Outcome, Timer
from engine.runs import Run
from engine.store.base import RunFilter
from engine.testing.clock import START
from engine.triggers import Trigger
from plugins.timers.cron import Cron
from plugins.timers.interval import Interval
from tests.organs import job, trigger
from tests.ticking import Every, at, ticking

DAY_S = 86_400.0


def world(jobs: Sequence[Job], triggers: Sequence[Trigger], **more: Any) -> World:
    given = {"concurrency": 4, "ageing_s": 60.0, "shutdown_grace_s": 30.0, "timezone": "UTC", **more}
    return World(
        triggers={each.name: each for each in triggers}, jobs={each.name: each for each in jobs}, **given
    )  # fmt: skip


def timed(name: str = "nightly", on: Timer | None = None, **fields: Any) -> Trigger:
    return trigger(name, **{"source": f"timer:{name}", "on": on or Every(), **fields})


def foresee(
    known: World, seconds: float, *, durations: Mapping[str, float] = {}, most: int = 100_000, **asked: Any
) -> tuple[dict[str, Any], list[dict[str, Any]]]:  # fmt: skip
    """Return the answer and every item, for the time after the clock's start."""
    items: list[dict[str, Any]] = []
    question = Question(**{"start": START, "end": at(seconds), "durations": durations, **asked})
    forecast = Forecast(question, known, {}, most=most, see=items.append)
    while not forecast.go_on(50):
        pass
    return forecast.view(), items


def rows(items: Sequence[Mapping[str, Any]], *fields: str) -> list[tuple[Any, ...]]:
    return [tuple(item[field] for field in fields) for item in items]


def stamp(seconds: float) -> str:
    return at(seconds).isoformat().replace("+00:00", "Z")


# As the engine does it


def random_world(seed: int) -> tuple[World, dict[str, float]]:
    """Make up jobs that last, triggers that crowd, and limits that are too small for them at times."""
    draw = random.Random(seed)
    jobs = [
        job(
            f"job-{number}",
            concurrency=draw.choice([None, 1, 1, 2]),
            overlap=draw.choice(list(Overlap)),
            timeout_s=draw.choice([3600.0, 1200.0]) + 0.3 + 0.01 * number,
        )
        for number in range(4)
    ]
    # No two ends, and no end and due instant, are in the same instant: what is first then is nobody's promise.
    durations = {each.name: round(draw.uniform(20, 2500)) + 0.101 + 0.01 * place for place, each in enumerate(jobs)}
    zone = draw.choice(["UTC", "Europe/Berlin", "Asia/Kolkata"])
    crons = ["*/20 * * * *", "7,37 * * * *", "0 * * * *", "*/10 13-18 * * *", "30 14 * * *", "5 */3 * * *"]
    triggers = [
        timed(
            f"trigger-{number}",
            Interval(every=draw.choice([600.0, 901.0, 1800.0, 3600.0]))
            if draw.random() < 0.4
            else Cron(expression=draw.choice(crons), timezone=zone),
            job=draw.choice(jobs).name,
            priority=draw.randint(0, 9),
        )
        for number in range(7)
    ]
    return world(jobs, triggers, concurrency=draw.randint(1, 4), ageing_s=draw.choice([60.0, 600.0])), durations


@pytest.mark.parametrize("seed", range(16))
async def test_the_same_runs_start_and_end_at_the_same_instants_as_in_the_engine(tmp_path: Path, seed: int) -> None:
    known, durations = random_world(seed)

    async with ticking(
        tmp_path / "s.db", *known.triggers.values(), jobs=list(known.jobs.values()), concurrency=known.concurrency,
        ageing_s=known.ageing_s,
    ) as desk:  # fmt: skip

        async def act(run: Run, job: Job) -> Outcome:
            await desk.clock.sleep(durations[job.name])
            return Outcome.succeeded("done")

        desk.script.act = act
        await desk.advance(DAY_S - 1)
        runs = await desk.store.runs(RunFilter(), limit=10_000)
    done = sorted((run.trigger, run.scheduled_for, run.started_at, run.finished_at, run.state.value) for run in runs)
    # The engine begins with what is due after its start; the question includes its own.
    _, items = foresee(known, DAY_S - 1, start=at(1), durations=durations)
    states = {"waiting": "queued", "replaced": "cancelled"}
    foreseen = sorted(
        (item["trigger"], instant(item["due_at"]), instant(item["started_at"]), instant(item["finished_at"]),
         states.get(item["state"], item["state"]))
        for item in items
    )  # fmt: skip
    assert [row[:2] for row in foreseen] == [row[:2] for row in done]
    assert len(done) > 100
    for mine, theirs in zip(foreseen, done, strict=True):
        assert mine[4] == theirs[4], (mine, theirs)
        for foreseen_at, done_at in zip(mine[2:4], theirs[2:4], strict=True):
            # The virtual clock counts in floats: after a day they are some microseconds off.
            assert apart(foreseen_at, done_at) < timedelta(milliseconds=1), (mine, theirs)


def apart(one: datetime | None, other: datetime | None) -> timedelta:
    if one is None or other is None:
        return timedelta(0) if one is other else timedelta.max
    return abs(one - other)


def instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
