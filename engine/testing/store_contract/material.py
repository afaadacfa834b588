"""Events, runs and changes for the cases, each different from all others."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from engine.errors import EngineError
from engine.events import Accepted, Event, EventOutcome, Outcome
from engine.ids import new_id
from engine.payload import encode_json
from engine.runs import ENDED, Attempt, Origin, Run, RunState, Step
from engine.store.base import Result, Store
from engine.store.changes import (
    Accept,
    Change,
    Cursor,
    End,
    Enqueue,
    Entry,
    Finish,
    Hold,
    Join,
    Memory,
    SetPriority,
    Start,
)

NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
BOOT = "0198f0aa-0000-7000-8000-00000000b007"


def at(seconds: float) -> datetime:
    """Return the instant so many seconds after noon."""
    return NOON + timedelta(seconds=seconds)


def an_event(source: str = "mill", key: str | None = None, *, type: str = "grain.ground", data: Any = None) -> Event:
    """Make an event with a new id."""
    return Event(
        id=new_id(), source=source, type=type, subject="sack/7", data=data, key=key, priority=6,
        time=at(-1.25), received_at=NOON,
    )  # fmt: skip


def a_run(event: Event, *, state: RunState = RunState.QUEUED, trigger: str = "bake", **fields: Any) -> Run:
    """Make a new run for an event; a pending one is due ten seconds after noon."""
    if state is RunState.PENDING:
        fields = {"due_at": at(10), **fields}
    step = Step(at=NOON, state=state, code="made", reason=f"{state}: made by a case")
    given: dict[str, Any] = {
        "id": new_id(), "job": "oven", "trigger": trigger, "origin": Origin.EVENT,
        "key": event.key or event.id, "event": event.id, "state": state, "code": step.code,
        "reason": step.reason, "priority": 5, "rank": 100, "created_at": NOON, "trace": (step,), **fields,
    }  # fmt: skip
    return Run(**given)


def a_missed_run(key: str, *, trigger: str = "bake") -> Run:
    """Make the run of a due instant that was not run: it has no event."""
    step = Step(at=NOON, state=RunState.MISSED, code="missed", reason="missed: the engine was away")
    return Run(
        id=new_id(), job="oven", trigger=trigger, origin=Origin.EVENT, key=key, event="", event_count=0,
        state=RunState.MISSED, code=step.code, reason=step.reason, priority=5, rank=0, created_at=NOON,
        scheduled_for=at(-60), finished_at=NOON, trace=(step,),
    )  # fmt: skip


def an_entry(event: Event, *runs: Run, outcomes: Sequence[Outcome] = (), joins: Sequence[Join] = ()) -> Entry:
    """Make an entry in which each run and join has its outcome; without any, the event is unmatched."""
    found = [
        Outcome(trigger=run.trigger, outcome=EventOutcome.RUN, run=run.id, code="run", reason="it matched")
        for run in runs
    ]
    found += [
        Outcome(trigger="bake", outcome=EventOutcome.JOINED, run=join.run, code="joined", reason=join.reason)
        for join in joins
    ]
    found += outcomes
    if not found:
        found = [Outcome(trigger=None, outcome=EventOutcome.UNMATCHED, code="unmatched", reason="no trigger")]
    return Entry(event=event, data=encode_json(event.data), outcomes=tuple(found), runs=runs, joins=tuple(joins))


def a_join(event: Event, run: Run, *, due_at: datetime | None = None, priority: int = 5) -> Join:
    """Let an event join a pending run."""
    return Join(
        run=run.id,
        event=event.id,
        due_at=due_at or at(20),
        priority=priority,
        reason="joined: its window is open",
    )


def accept(
    *entries: Entry, missed: Sequence[Run] = (), cursor: Cursor | None = None, memory: Memory | None = None
) -> Accept:
    """Make an `Accept` of entries."""
    return Accept(entries=entries, missed=tuple(missed), cursor=cursor, memory=memory)


def accept_run(**fields: Any) -> tuple[Event, Run, Accept]:
    """Make a new event with a run, and their `Accept`."""
    event = an_event()
    run = a_run(event, **fields)
    return event, run, accept(an_entry(event, run))


def step(state: RunState, seconds: float = 1.0) -> Step:
    """Make a step of a trace."""
    return Step(at=at(seconds), state=state, code=f"case_{state}", reason=f"{state}: a case says so")


def enqueue(run: Run, rank: int = 200) -> Enqueue:
    """Make a run ready."""
    return Enqueue(run=run.id, step=step(RunState.QUEUED), rank=rank)


def hold(run: Run, until: datetime | None = None) -> Hold:
    """Hold a run."""
    return Hold(run=run.id, step=step(RunState.HELD), until=until)


def set_priority(run: Run, priority: int, *, ageing_us: int = 60_000_000) -> SetPriority:
    """Give a run another priority."""
    return SetPriority(run=run.id, step=step(run.state), priority=priority, ageing_us=ageing_us)


def start(run: Run, attempt: int = 1, seconds: float = 1.0) -> Start:
    """Start a run."""
    return Start(run=run.id, step=step(RunState.RUNNING, seconds), attempt=attempt, boot=BOOT)


def finish(
    run: Run, state: RunState = RunState.SUCCEEDED, *, seconds: float = 3.0, number: int = 1, **fields: Any
) -> Finish:
    """Finish an attempt that began one second after noon."""
    if state is RunState.RETRYING:
        fields = {"due_at": at(seconds + 5), **fields}
    how = state if state in ENDED else RunState.FAILED
    attempt = Attempt(
        number=number,
        started_at=at(1),
        finished_at=at(seconds),
        state=how,
        code="exit",
        reason="it ended",
        exit_code=0,
    )
    return Finish(run=run.id, step=step(state, seconds), attempt=attempt, attempt_count=number, **fields)


def end(run: Run, state: RunState = RunState.CANCELLED) -> End:
    """End a waiting run."""
    return End(run=run.id, step=step(state))


async def make(store: Store, *changes: Change) -> list[Result]:
    """Apply changes, all of which must succeed."""
    results = await store.apply(changes)
    for change, result in zip(changes, results, strict=True):
        if isinstance(result, EngineError):
            raise AssertionError(f"{type(change).__name__} has the result {result!r}")
    return results


def answers(result: Result) -> list[Accepted]:
    """Return the answers of an `Accept`."""
    if not isinstance(result, list):
        raise AssertionError(f"an Accept has the result {result!r}")
    return result
