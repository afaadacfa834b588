"""How changes are put together into statements never changes what comes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count, pairwise
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from engine.errors import EngineError
from engine.events import Event
from engine.runs import ENDED, TRANSITIONS, Origin, Run, RunState
from engine.store.base import Result, Store
from engine.store.changes import Accept, AskCancel, Change, Cursor, Entry, NoteProcess, accept_of
from engine.store.sqlite import SqliteStore
from engine.store.writes import MOST_ROWS, plan
from engine.testing.clock import VirtualClock
from engine.testing.store_contract.material import (
    a_join,
    a_missed_run,
    a_run,
    accept,
    an_entry,
    an_event,
    at,
    end,
    enqueue,
    finish,
    hold,
    set_priority,
    start,
    step,
)

FINISHES = sorted(TRANSITIONS[RunState.RUNNING])
ENDS = sorted(ENDED)
_examples = count()


class Script(Struct):
    """Changes for one example, and all that must be looked at afterwards."""

    changes: list[Change]
    events: list[Event]
    runs: list[Run]
    sources: list[str]
    splits: list[int]

    def __repr__(self) -> str:
        known = {run.id: f"run{place}" for place, run in enumerate(self.runs)}
        lines = []
        for place, change in enumerate(self.changes):
            split = "--- " if place in self.splits else ""
            name = (
                type(change).__name__ if isinstance(change, Accept) else f"{type(change).__name__} {known[change.run]}"
            )
            accepted = accept_of(change)
            if accepted is not None:
                parts = [
                    f"{entry.event.source}/{entry.event.key} makes {[known[run.id] for run in entry.runs]} "
                    f"joins {[known[join.run] for join in entry.joins]}"
                    for entry in accepted.entries
                ]
                name = f"{name} {parts} missed {[run.key for run in accepted.missed]}"
            lines.append(f"{split}{name}")
        return "\n".join(lines)


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    """Draw changes on a few runs and keys, so that they get in each other's way."""
    example = next(_examples)
    sources = [f"mill-{example}", f"farm-{example}"]
    events: list[Event] = []
    runs: list[Run] = []

    def event() -> Event:
        made = an_event(draw(st.sampled_from(sources)), draw(st.sampled_from([None, None, None, "a", "b"])))
        events.append(made)
        return made

    def run_for(event: Event) -> Run:
        key = draw(st.sampled_from([event.id, event.id, event.id, "k", "l"]))
        state = draw(st.sampled_from([RunState.QUEUED, RunState.PENDING, RunState.PENDING, RunState.HELD]))
        origin = draw(st.sampled_from([Origin.EVENT, Origin.EVENT, Origin.MANUAL]))
        trigger = f"{draw(st.sampled_from(['bake', 'cool']))}-{example}"
        return a_run(event, state=state, trigger=trigger, origin=origin, key=key)

    # All runs are known from the start, so that changes may come before what they change is there.
    planned = []
    for _ in range(draw(st.integers(1, 5))):
        made = event()
        planned.append((made, run_for(made)))
    runs += [run for _, run in planned]

    def entry() -> Entry:
        kind = draw(st.integers(0, 3))
        if kind == 0 and planned:
            made, run = planned.pop(0)
            return an_entry(made, run)
        made = event()
        if kind == 1:
            return an_entry(made)
        run = draw(st.sampled_from(runs))
        due_at = at(draw(st.integers(0, 60)))
        return an_entry(made, joins=[a_join(made, run, due_at=due_at, priority=draw(st.integers(0, 9)))])

    def an_accept() -> Accept:
        # What joins a run of the same Accept stands behind it, as intake puts it.
        entries = sorted((entry() for _ in range(draw(st.integers(1, 3)))), key=lambda each: not each.runs)
        missed = []
        if draw(st.integers(0, 4)) == 0:
            trigger = f"bake-{example}"
            missed = [a_missed_run(draw(st.sampled_from(["k", "l", "m"])), trigger=trigger)]
            runs.extend(missed)
        cursor = None
        if draw(st.booleans()):
            cursor = Cursor(source=draw(st.sampled_from(sources)), value=draw(st.integers(0, 99)))
        return accept(*entries, missed=missed, cursor=cursor)

    def a_change() -> Change:
        kind = draw(st.integers(0, 9))
        if kind < 2:
            return an_accept()
        run = draw(st.sampled_from(runs))
        if kind == 2:
            return enqueue(run, draw(st.integers(-5, 5)))
        if kind == 3:
            return start(run, draw(st.integers(1, 3)))
        if kind == 7:
            return hold(run)
        if kind == 8:
            return set_priority(run, draw(st.integers(0, 9)), ageing_us=3)
        if kind == 9:
            return AskCancel(run=run.id, step=step(RunState.RUNNING))
        if kind == 4:
            return NoteProcess(run=run.id, pid=draw(st.integers(1, 9)), started=1)
        then = an_accept() if draw(st.integers(0, 2)) == 0 else None
        if kind == 5:
            return finish(run, draw(st.sampled_from(FINISHES)), then=then)
        return replace(end(run, draw(st.sampled_from(ENDS))), then=then)

    changes = [a_change() for _ in range(draw(st.integers(1, 25)))]
    while planned:
        changes.insert(draw(st.integers(0, len(changes))), accept(an_entry(*planned.pop(0))))
    splits = sorted(draw(st.sets(st.integers(1, len(changes)), max_size=3)))
    return Script(changes=changes, events=events, runs=runs, sources=sources, splits=splits)


async def apply_in(store: Store, batches: Sequence[Sequence[Change]]) -> list[Result]:
    results: list[Result] = []
    for batch in batches:
        results += await store.apply(batch)
    return results


def readable(results: Sequence[Result]) -> list[Any]:
    return [str(result) if isinstance(result, EngineError) else result for result in results]


async def state_of(store: Store, script: Script) -> list[Any]:
    """Return all that the store holds of a script."""
    return [
        [await store.event(event.id) for event in script.events],
        [await store.run(run.id) for run in script.runs],
        [await store.run_events(run.id) for run in script.runs],
        [await store.cursor(source) for source in script.sources],
        [await store.find_event(source, key) for source in script.sources for key in ("a", "b")],
    ]


@contextmanager
def two_stores(folder: Path) -> Iterator[tuple[asyncio.Runner, Store, Store]]:
    together, singly = (SqliteStore(folder / name, clock=VirtualClock()) for name in ("together", "singly"))
    with asyncio.Runner() as runner:
        runner.run(together.open())
        runner.run(singly.open())
        try:
            yield runner, together, singly
        finally:
            runner.run(together.close())
            runner.run(singly.close())


def test_changes_in_any_batches_come_to_the_same_as_one_by_one(tmp_path: Path) -> None:
    with two_stores(tmp_path) as (runner, together, singly):

        async def check(script: Script) -> None:
            bounds = [0, *script.splits, len(script.changes)]
            batches = [script.changes[a:b] for a, b in pairwise(bounds) if a < b]
            one_by_one = await apply_in(singly, [[change] for change in script.changes])
            in_batches = await apply_in(together, batches)
            assert readable(in_batches) == readable(one_by_one)
            assert await state_of(together, script) == await state_of(singly, script)

        @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
        @given(script=scripts())
        def compare(script: Script) -> None:
            runner.run(check(script))

        compare()
        for store in (together, singly):
            assert runner.run(store.ledger()).missing == ()
            assert runner.run(store.check()) == []
        assert runner.run(together.counts()) == runner.run(singly.counts())


def test_a_batch_without_quarrels_is_a_handful_of_statements() -> None:
    changes: list[Change] = []
    for _ in range(50):
        event = an_event()
        run = a_run(event)
        changes += [accept(an_entry(event, run)), start(run), finish(run)]
    (wave,) = plan(changes, 0)
    assert [rows for _, rows, _, _ in wave.statements()] == [50] * 5


def test_large_waves_are_cut_into_statements_of_bounded_size() -> None:
    entries = []
    for _ in range(3 * MOST_ROWS + 1):
        event = an_event()
        entries.append(an_entry(event, a_run(event)))
    (wave,) = plan([accept(*entries)], 0)
    counts = [rows for _, rows, _, _ in wave.statements()]
    assert max(counts) == MOST_ROWS
    assert sum(counts) == 3 * len(entries)
