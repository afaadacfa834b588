"""Makes a store in which many runs wait."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec

from engine.clock import SystemClock
from engine.decide.priority import rank
from engine.events import Event, EventOutcome, Outcome
from engine.ids import new_id
from engine.runs import Origin, Run, RunState, Step
from engine.store.changes import Accept, Entry
from engine.store.sqlite import SqliteStore
from engine.triggers import NORMAL_PRIORITY
from tests.bench.material import order_json

BATCH = 2_000
APART = timedelta(milliseconds=1)
_REASON = "matched; waits for a slot"


async def preload(database: Path, count: int, *, source: str, kind: str, trigger: str, job: str) -> None:
    """Put `count` queued runs of one job into a new store, in the way in which intake would, in large batches."""
    clock = SystemClock()
    store = SqliteStore(database, clock=clock)
    await store.open()
    try:
        received_at = clock.now() - APART * count
        writing: asyncio.Task[Any] | None = None
        for first in range(0, count, BATCH):
            entries = []
            for number in range(first, min(first + BATCH, count)):
                received_at += APART
                event = Event(
                    id=new_id(), source=source, type=kind, subject="bench", time=received_at, received_at=received_at,
                    data=msgspec.Raw(order_json(number)),
                )  # fmt: skip
                entries.append(_entry(event, order_json(number), trigger, job))
            change = Accept(entries=tuple(entries))
            if writing is not None:
                await writing
            writing = asyncio.create_task(store.apply([change]))
        if writing is not None:
            await writing
    finally:
        await store.close()


def _entry(event: Event, data: bytes, trigger: str, job: str) -> Entry:
    now = event.received_at
    run = Run(
        id=new_id(), job=job, trigger=trigger, origin=Origin.EVENT, key=event.id, event=event.id,
        state=RunState.QUEUED, code="matched", reason=_REASON, priority=NORMAL_PRIORITY,
        rank=rank(now, NORMAL_PRIORITY), created_at=now,
        trace=(Step(at=now, state=RunState.QUEUED, code="matched", reason=_REASON),),
    )  # fmt: skip
    outcome = Outcome(trigger=trigger, outcome=EventOutcome.RUN, run=run.id, code="matched", reason=_REASON)
    return Entry(event=event, data=data, outcomes=(outcome,), runs=(run,))
