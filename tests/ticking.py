"""A small engine with timers on virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio

from engine.decide.rules import Rule
from engine.pauses import Pauses
from engine.plugin import Timer
from engine.runs import RunState
from engine.store.base import RunFilter
from engine.store.changes import Accept, Cursor
from engine.testing import VirtualClock
from engine.testing.clock import START
from engine.timers import Timers
from engine.triggers import Trigger
from tests.organs import Bench, bench, job, trigger

DONE, MISSED = RunState.SUCCEEDED, RunState.MISSED


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


class Every(Timer, frozen=True, kw_only=True):
    """Due every so many seconds."""

    seconds: float = 60.0

    def next(self, after: datetime) -> datetime | None:
        period = timedelta(seconds=self.seconds)
        return START + ((after - START) // period + 1) * period

    def previous(self, before: datetime) -> datetime | None:
        period = timedelta(seconds=self.seconds)
        return START - ((START - before) // period + 1) * period


class Once(Timer, frozen=True, kw_only=True):
    """Due once."""

    moment: datetime

    def next(self, after: datetime) -> datetime | None:
        return self.moment if after < self.moment else None

    def previous(self, before: datetime) -> datetime | None:
        return self.moment if before > self.moment else None


def timed(name: str = "nightly", on: Timer | None = None, **fields: Any) -> Trigger:
    return trigger(name, source=f"timer:{name}", on=on or Every(), **fields)


class Clockwork(Bench):
    """A small engine with timers."""

    timers: Timers
    pauses: Pauses
    slept_s: float


@asynccontextmanager
async def ticking(
    path: Path, *triggers: Trigger, clock: VirtualClock | None = None, **more: Any
) -> AsyncIterator[Clockwork]:
    given = triggers or (timed(),)
    async with bench(path, triggers=given, clock=clock, **more) as desk:
        work = Clockwork.__new__(Clockwork)
        work.__dict__.update(desk.__dict__)

        async def begin(cursors: Sequence[Cursor]) -> Any:
            return await desk.journal.submit(Accept(entries=(), cursors=tuple(cursors)))

        work.pauses = Pauses(desk.clock, desk.journal, {each.name: Rule(each, job(each.job)) for each in given})
        await work.pauses.load(desk.store)
        work.slept_s = 0.0
        work.timers = Timers(
            clock=desk.clock, triggers=given, emit=desk.intake.accept_due, begin=begin, look=desk.store.cursor,
            paused=work.pauses.now, slept=lambda: work.slept_s,
        )  # fmt: skip
        async with anyio.create_task_group() as group:
            await group.start(work.timers.run, await desk.store.cursors("timer:"))
            yield work
            group.cancel_scope.cancel()


async def due_runs(desk: Bench, name: str = "nightly") -> dict[datetime, RunState]:
    """Return the runs of a trigger by their due instants; each has one."""
    runs = await desk.store.runs(RunFilter(triggers=frozenset({name})), limit=10_000)
    found = {run.scheduled_for: run.state for run in runs if run.scheduled_for is not None}
    assert len(found) == len(runs)
    return dict(sorted(found.items()))
