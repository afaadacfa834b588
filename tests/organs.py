"""What tests of the organs run them with: a store without threads, time that the test moves, and a small engine.

Under a virtual clock nothing may happen behind the test's back: the store works on the event loop itself, and
`Bench.settle` returns when all that can go on without time has gone on.
"""

from __future__ import annotations

import asyncio
import heapq
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import anyio

from engine.attending import Attendant
from engine.audits import Audit
from engine.backlog import DEFAULT_HIGH, Backlog
from engine.causing import Causes
from engine.decide.attempts import AttemptEnd
from engine.decide.gates import Gate
from engine.decide.joins import windows_of
from engine.decide.rules import Rule
from engine.decide.shaping import Windows
from engine.dispatch import Dispatch, Execute
from engine.dispatch.attendance import Keeping
from engine.events import Accepted, Event
from engine.following import Followers
from engine.gates import Gates
from engine.guards import Guards
from engine.intake import Intake
from engine.jobs import Job
from engine.journal import Journal
from engine.marks import MarkKeeper
from engine.plugin import Outcome, RunContext, Runner, Source, SourceContext
from engine.redaction import Redaction
from engine.runs import Lane, Run, Step
from engine.shaping import Shaper
from engine.store.base import Result
from engine.store.changes import Change, Memory
from engine.store.connection import Connection, translate
from engine.store.sqlite import SqliteStore
from engine.testing import VirtualClock
from engine.triggers import MAX_HOPS, Trigger

T = TypeVar("T")

QUIET_TURNS = 25
MOST_TURNS = 20_000

AGEING_S = 60.0


class InlineStore(SqliteStore):
    """The SQLite store without its threads and without waiting for the disk, and with faults on demand.

    - `write_error`, `read_error`: raised by all writes or reads while set.
    - `hold`: while set, writes wait for it before they are made; `hold_answers`: after they were made.
    - `batches`: what was made durable, batch by batch.
    """

    def __init__(self, path: Path, clock: VirtualClock) -> None:
        super().__init__(path, clock=clock)
        self.write_error: Exception | None = None
        self.read_error: Exception | None = None
        self.hold: anyio.Event | None = None
        self.hold_answers: anyio.Event | None = None
        self.batches: list[list[Change]] = []

    async def open(self) -> None:
        await super().open()
        for connection in (self._writer, *self._readers):
            if connection is not None:
                await connection.execute("pragma synchronous = off")
                _work_inline(connection)

    async def apply(self, changes: Sequence[Change], notes: Mapping[int, Audit] | None = None) -> list[Result]:
        if self.hold is not None:
            await self.hold.wait()
        if self.write_error is not None:
            raise self.write_error
        results = await super().apply(changes, notes)
        self.batches.append(list(changes))
        if self.hold_answers is not None:
            await self.hold_answers.wait()
        return results

    async def _read(self, function: Callable[[sqlite3.Connection], T], *, slow: bool = False) -> T:
        await asyncio.sleep(0)
        if self.read_error is not None:
            raise self.read_error
        return await super()._read(function, slow=slow)

    @property
    def changes(self) -> list[Change]:
        """All that was made durable, in order."""
        return [change for batch in self.batches for change in batch]


def _work_inline(connection: Connection) -> None:
    raw = connection._conn

    def begin(function: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        try:
            future.set_result(function(raw))
        except sqlite3.Error as error:
            future.set_exception(translate(error))
        except Exception as error:
            future.set_exception(error)
        return future

    setattr(connection, "begin", begin)  # noqa: B010 - a method can't be assigned


class Listed(Source, frozen=True, kw_only=True):
    """A source that never emits by itself; tests call the door for it."""

    path: str = "here"

    async def run(self, context: SourceContext) -> None:
        context.ready()
        await anyio.sleep_forever()


class Heard(Source, frozen=True, kw_only=True):
    """A source that listens to events of one type."""

    hears = True
    type: str = "order.created"

    def accepts(self, event: Event) -> bool:
        return event.type == self.type

    async def run(self, context: SourceContext) -> None:
        context.ready()
        await anyio.sleep_forever()


class Works(Runner, frozen=True, kw_only=True):
    """A runner that succeeds at once."""

    async def run(self, context: RunContext) -> Outcome:
        return Outcome.succeeded("done")


def job(name: str = "bake", **fields: Any) -> Job:
    """Make a job."""
    return Job(name=name, runner=Works(), **fields)


def trigger(name: str = "on-grain", **fields: Any) -> Trigger:
    """Make a trigger of the job `bake` on the source `mill`."""
    return Trigger(**{"job": "bake", "source": "mill", "on": Listed(), **fields, "name": name})


def event(type: str = "grain.ground", **fields: Any) -> Event:
    """Make an event as a source does."""
    return Event(type=type, **fields)


class Script:
    """Executes attempts as a test says, and counts what is going on.

    `act` is called for each attempt; what it returns or raises is its outcome. `begun` lists (run id, attempt, time)
    in order; `events` holds what each run was given.
    """

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.begun: list[tuple[str, int, datetime]] = []
        self.ended: list[str] = []
        self.events: dict[str, tuple[Event, ...]] = {}
        self.going: dict[str, str] = {}
        self.most = 0
        self.most_of: dict[str, int] = {}
        self.interrupted = 0
        self.act: Callable[[Run, Job], Awaitable[Outcome]] = self.succeed

    async def succeed(self, run: Run, job: Job) -> Outcome:
        return Outcome.succeeded("done")

    async def execute(self, run: Run, job: Job, events: tuple[Event, ...], attendant: Attendant) -> Outcome:
        if run.id in self.going:
            raise AssertionError(f"run {run.id} runs twice at once")
        self.begun.append((run.id, run.attempt, self.clock.now()))
        self.events[run.id] = events
        self.going[run.id] = run.job
        self.most = max(self.most, len(self.going))
        mine = sum(1 for name in self.going.values() if name == run.job)
        self.most_of[run.job] = max(self.most_of.get(run.job, 0), mine)
        try:
            return await self.act(run, job)
        except anyio.get_cancelled_exc_class():
            self.interrupted += 1
            raise
        finally:
            del self.going[run.id]
            self.ended.append(run.id)


class Bench:
    """A small engine: store, journal, dispatch and intake, as the runtime connects them, with a scripted executor."""

    def __init__(self, *, clock: VirtualClock, store: InlineStore, script: Script) -> None:
        self.clock = clock
        self.store = store
        self.script = script
        self.journal: Journal
        self.windows: Windows
        self.backlog: Backlog
        self.gates: Gates
        self.dispatch: Dispatch
        self.shaper: Shaper
        self.intake: Intake
        self.guards: Guards
        self.changed: list[str] = []
        self.ends: list[tuple[str, Step]] = []
        self.hears_ends: Callable[[Run, AttemptEnd], None] | None = None

    def note_end(self, run: Run, end: AttemptEnd) -> None:
        self.ends.append((run.id, end.step))
        if self.hears_ends is not None:
            self.hears_ends(run, end)

    async def emit(self, *events: Event, source: str = "mill", **more: Any) -> list[Accepted]:
        """Emit events and return the answers."""
        with anyio.fail_after(10):
            return await self.intake.accept(source, events, **more)

    async def emit_one(self, one: Event, *, source: str = "mill") -> Accepted:
        return (await self.emit(one, source=source))[0]

    async def run_of(self, run_id: str) -> Run:
        """Return a run as it is stored."""
        run = await self.store.run(run_id)
        if run is None:
            raise AssertionError(f"there is no run {run_id}")
        return run

    async def settle(self) -> None:
        """Return when nothing can go on without time."""
        journal, quiet, before = self.journal, 0, None
        for _ in range(MOST_TURNS):
            await asyncio.sleep(0)
            busy = journal._gathering or (journal._writing is not None and self.store.hold is self.store.hold_answers)
            now = (len(self.clock._sleepers), journal.commits, len(self.script.begun), len(self.script.ended))
            quiet = 0 if busy or now != before else quiet + 1
            before = now
            if quiet >= QUIET_TURNS:
                return
        raise AssertionError("it never came to rest")

    async def advance(self, seconds: float) -> None:
        """Let time pass: everybody wakes at his time, and all that follows from it happens at that time."""
        clock = self.clock
        end = clock.monotonic() + seconds
        await self.settle()
        while clock._sleepers and clock._sleepers[0][0] <= end:
            clock._pass(max(clock._sleepers[0][0] - clock.monotonic(), 0.0))
            while clock._sleepers and clock._sleepers[0][0] <= clock.monotonic():
                heapq.heappop(clock._sleepers)[2].set()
            await self.settle()
        clock._pass(max(end - clock.monotonic(), 0.0))
        await self.settle()


@asynccontextmanager
async def bench(
    path: Path,
    *,
    jobs: Sequence[Job] = (),
    triggers: Sequence[Trigger] = (),
    hearing: Collection[tuple[str, Source]] = (),
    following: Collection[tuple[str, Source]] = (),
    concurrency: int = 4,
    ageing_s: float = AGEING_S,
    reserve: Mapping[Lane, int] | None = None,
    pools: Mapping[str, int] | None = None,
    high: int = DEFAULT_HIGH,
    low: int | None = None,
    max_data_bytes: int = 1024 * 1024,
    own_sources: frozenset[str] = frozenset({"timer", "manual", "webhook"}),
    clock: VirtualClock | None = None,
    dispatching: bool = True,
    execute: Execute | None = None,
    act: Callable[[Run, Job], Awaitable[Outcome]] | None = None,
    boot: str = "boot-1",
    most_marks: int = 1000,
    gates: Sequence[Gate] = (),
    keeping: Keeping | None = None,
    adopted: Sequence[Run] = (),
    redaction: Redaction | None = None,
    held: Callable[[str], bool] = lambda name: False,
    max_hops: int = MAX_HOPS,
) -> AsyncIterator[Bench]:
    """Run a small engine on the store at `path`, which may hold what an earlier one left; it adopts `adopted`."""
    clock = clock or VirtualClock()
    store, script = InlineStore(path, clock), Script(clock)
    if act is not None:
        script.act = act
    await store.open()
    known: Mapping[str, Job] = {each.name: each for each in (jobs or (job(),))}
    given = triggers or (trigger(),)
    rules = {each.name: Rule(each, known[each.job]) for each in given}
    made = Bench(clock=clock, store=store, script=script)
    made.journal = Journal(store, clock)
    joins = {name: rule.joining for name, rule in rules.items() if rule.joining is not None and rule.joining.waits}
    made.windows = windows_of(await store.open_windows(), await store.filled(), joins)
    marks = MarkKeeper(store, most=most_marks)
    made.shaper = Shaper(clock=clock, store=store, journal=made.journal, marks=marks, rule_of=rules.get)
    made.backlog = Backlog(high=high, low=low)
    made.backlog.load(await store.waiting())
    made.gates = Gates(
        clock=clock, journal=made.journal, store=store, rule_of=rules.get, gates=gates, on_change=made.changed.append
    )  # fmt: skip
    made.dispatch = made.shaper.dispatch = Dispatch(
        boot=boot, clock=clock, journal=made.journal, store=store, windows=made.windows, jobs=known,
        execute=execute or script.execute, finish=lambda run, end: made.intake.finish(run, end),
        concurrency=concurrency, ageing_s=ageing_s, on_change=made.changed.append,
        on_end=made.note_end, on_backfilled=lambda run, step: None,
        limited=lambda name, job: rules[name].limited(job) if name in rules else job, gates=made.gates,
        reserve=reserve, pools=pools, backlog=made.backlog, shaper=made.shaper, keeping=keeping,
    )  # fmt: skip
    for run in adopted:
        made.dispatch.adopt(run)

    async def announce(event: Event, *, memory: Memory | None = None) -> Accepted:
        return await made.intake.announce(event, memory=memory)

    made.guards = Guards(
        clock=clock, journal=made.journal, store=store, rules=rules, max_hops=max_hops, announce=announce, held=held
    )  # fmt: skip
    made.intake = Intake(
        clock=clock, journal=made.journal, starter=made.dispatch, windows=made.windows, marks=marks, rules=rules,
        hearing=list(hearing), followers=Followers(list(following), rules, made.dispatch.jobs),
        max_data_bytes=max_data_bytes, ageing_s=ageing_s, own_sources=own_sources, backlog=made.backlog,
        redaction=redaction,
        guarding=made.guards.guarding, causes=Causes(store),
    )  # fmt: skip

    async def write() -> None:
        with anyio.CancelScope(shield=True):
            await made.journal.run()
            written.set()

    written = anyio.Event()
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(write)
            try:
                await made.shaper.catch_up()
                await marks.load()
                await made.guards.load()
                if dispatching:
                    group.start_soon(made.guards.run)
                    await group.start(made.dispatch.run)
                    group.start_soon(made.shaper.run)
                await made.settle()
                yield made
            finally:
                store.write_error = store.read_error = None
                for gate in (store.hold, store.hold_answers):
                    if gate is not None:
                        gate.set()
                group.cancel_scope.cancel()
                made.journal.close()
                with anyio.CancelScope(shield=True):
                    for _ in range(2 * QUIET_TURNS):
                        await asyncio.sleep(0)
                    while not written.is_set():
                        await clock.advance(1)
    finally:
        with anyio.CancelScope(shield=True):
            await store.close()
