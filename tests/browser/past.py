"""A past for a store: events and runs as they would have been made, begun and ended in the days before."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from msgspec import Struct

from engine.clock import SystemClock
from engine.decide.priority import rank
from engine.events import Event, EventOutcome, Outcome, Seen
from engine.ids import first_id_at
from engine.runs import Attempt, Origin, Run, RunState, Step
from engine.store.changes import Accept, Change, Entry, Finish, Memory, Start
from engine.store.sqlite import SqliteStore

BATCH = 500


class Habit(Struct, frozen=True):
    """How a trigger ran in the past: every so many seconds, for how long, and how many in a hundred failed."""

    trigger: str
    job: str
    every_s: float
    took_s: float
    failed: int
    reason: str = "exited with 1"


KINDS = {"price-lists": "file.created", "uploads": "webhook.uploads", "orders": "order.placed"}


def _id(at: datetime, dice: random.Random) -> str:
    return f"{first_id_at(at)}-7{dice.randrange(4096):03x}-8{dice.randrange(4096):03x}-{dice.randrange(2**48):012x}"


def _past(habit: Habit, at: datetime, dice: random.Random) -> tuple[Entry, list[Change]]:
    """Return one run of the past: its event, and how it began and ended."""
    kind = KINDS.get(habit.trigger, "engine.timer")
    timed = kind == "engine.timer"
    at = at + timedelta(milliseconds=dice.randrange(1, 900))
    event = Event(
        id=_id(at, dice), source=f"timer:{habit.trigger}" if timed else f"event:{habit.trigger}", type=kind,
        subject=habit.trigger, time=at, received_at=at, data={"total": dice.randrange(500), "who": "Ada"},
        key=at.isoformat(),
    )  # fmt: skip
    state = RunState.FAILED if dice.randrange(100) < habit.failed else RunState.SUCCEEDED
    if state is RunState.FAILED and habit.reason.startswith("timed out"):
        state = RunState.TIMED_OUT
    took = timedelta(seconds=habit.took_s * dice.lognormvariate(0, 0.35))
    queued = Step(
        at=at, state=RunState.QUEUED, code="due" if timed else "matched", reason="due" if timed else "matched"
    )
    run = Run(
        id=_id(at, dice), job=habit.job, trigger=habit.trigger, origin=Origin.SCHEDULE if timed else Origin.EVENT,
        key=at.isoformat(), event=event.id, state=RunState.QUEUED, code=queued.code, reason=queued.reason, priority=5,
        rank=rank(at, 5), created_at=at, scheduled_for=at.replace(microsecond=0) if timed else None, trace=(queued,),
    )  # fmt: skip
    good = state is RunState.SUCCEEDED
    end = Step(at=at + took, state=state, code=state.value, reason="exited with 0" if good else habit.reason)
    attempt = Attempt(
        number=1, started_at=at, finished_at=at + took, state=state, code=end.code, reason=end.reason,
        exit_code=0 if good else 1, cpu_s=habit.took_s / 3, peak_bytes=dice.randrange(20, 700) * 2**20,
    )  # fmt: skip
    outcome = Outcome(
        trigger=habit.trigger, outcome=EventOutcome.RUN, run=run.id, code=queued.code, reason=queued.reason
    )
    started = Step(at=at, state=RunState.RUNNING, code="started", reason="started: a slot was free")
    changes: list[Change] = [
        Start(run=run.id, step=started, attempt=1, boot=event.id),
        Finish(
            run=run.id, step=end, attempt=attempt, attempt_count=1,
            outputs={"rows": dice.randrange(90_000), "file": f"part-{dice.randrange(400)}.parquet"} if good else None,
        ),
    ]  # fmt: skip
    return Entry(event=event, data=msgspec.json.encode(event.data), outcomes=(outcome,), runs=(run,)), changes


def _filtered(at: datetime, dice: random.Random) -> Entry:
    """Return an event that a filter kept out."""
    total = dice.randrange(50)
    event = Event(
        id=_id(at, dice), source="event:orders", type="order.placed", subject=f"order-{dice.randrange(9999)}", time=at,
        received_at=at, data={"total": total}, key=at.isoformat() + "f",
    )  # fmt: skip
    outcome = Outcome(
        trigger="orders", outcome=EventOutcome.FILTERED, run=None, code="filter_false",
        reason="filtered: data.total > 50 is false",
        gates=(Seen(gate="filter", verdict="drop", saw={"data.total": total}),),
    )  # fmt: skip
    return Entry(event=event, data=msgspec.json.encode(event.data), outcomes=(outcome,))


async def fill(
    database: Path, habits: Sequence[Habit], *, days: float, scale: float = 1, filtered: int = 0,
    memory: Memory | None = None,
) -> None:  # fmt: skip
    """Put a past into a new store; `filtered` events were kept out by a filter, 17 minutes apart."""
    dice = random.Random(7)
    now = datetime.now(UTC)
    past: list[tuple[datetime, Habit | None]] = []
    for habit in habits:
        at = now - timedelta(days=days)
        while at < now - timedelta(seconds=habit.took_s * 3 + 60):
            past.append((at, habit))
            at += timedelta(seconds=habit.every_s / scale * dice.uniform(0.8, 1.2))
    past += [(now - timedelta(minutes=17 * number), None) for number in range(1, filtered + 1)]
    past.sort(key=lambda one: one[0])
    store = SqliteStore(database, clock=SystemClock())
    await store.open()
    try:
        for first in range(0, len(past), BATCH):
            entries: list[Entry] = []
            changes: list[Change] = []
            for at, one in past[first : first + BATCH]:
                if one is None:
                    entries.append(_filtered(at, dice))
                else:
                    entry, more = _past(one, at, dice)
                    entries.append(entry)
                    changes += more
            refused = [one for one in await store.apply([Accept(entries=tuple(entries)), *changes]) if
                       isinstance(one, Exception)]  # fmt: skip
            assert not refused, refused[:3]
        if memory is not None:
            await store.apply([Accept(entries=(), memory=memory)])
    finally:
        await store.close()
