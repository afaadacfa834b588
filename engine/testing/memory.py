"""What the store would hold for one source, in memory; and a source's context at it, with the engine's own door."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import anyio

from engine.clock import Clock
from engine.decide.shaping import Windows
from engine.errors import StoreUnavailable
from engine.events import Accepted, Event, EventOutcome
from engine.following import Followers
from engine.intake import Intake, Starter
from engine.journal import Journal
from engine.marks import MarkKeeper
from engine.plugin import Handler, Settled, Source
from engine.runs import RunState
from engine.sources import Context, Routes, SourceState
from engine.sources.state import Phase
from engine.store.base import Store
from engine.store.changes import Accept, Entry
from engine.testing.clock import VirtualClock

MAX_DATA_BYTES = 1024 * 1024
_REJECTED = "rejected: "


class MemoryStore:
    """What one source made durable: it outlives the source's crashes.

    - `events`, in order, without duplicates; `rejected`: events with the reason.
    - `cursor`, `memory`: what was given to `emit` last.
    - `commits`: how many events each call of emit brought.
    - `makes_runs`: whether a run comes of each event.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.rejected: list[tuple[Event, str]] = []
        self.position: Any = None
        self.values: dict[str, Any] = {}
        self.commits: list[int] = []
        self.makes_runs = True
        self._answers: dict[str, Accepted] = {}
        self._ends: dict[str, Settled] = {}
        self._changed = anyio.Event()

    def submit(self, change: Accept) -> asyncio.Future[list[Accepted]]:
        """Take a change at once, as the journal does in a moment."""
        answers = [self._accept(entry) for entry in change.entries]
        if not _is_rejection(change.entries):
            self.commits.append(len(answers))
        if change.cursor is not None:
            self.position = change.cursor.value
        if change.memory is not None:
            self.values.update(change.memory.values)
            self.values = {key: value for key, value in self.values.items() if value is not None}
        future: asyncio.Future[list[Accepted]] = asyncio.get_running_loop().create_future()
        future.set_result(answers)
        return future

    async def cursor(self, source: str) -> Any:
        return self.position

    async def memory(self, source: str, *, after: str | None, limit: int) -> dict[str, Any]:
        found = [item for item in sorted(self.values.items()) if after is None or item[0] > after]
        return dict(found[:limit])

    async def settled(self, run_ids: Sequence[str], within_s: float | None = None) -> tuple[Settled, ...]:
        with anyio.move_on_after(within_s):
            while not self._ends.keys() >= set(run_ids):
                await self._changed.wait()
        return tuple(self._ends.get(run_id) or _settled(run_id, RunState.RUNNING) for run_id in run_ids)

    async def event(self, event_id: str) -> Event | None:
        return next((event for event in self.events if event.id == event_id), None)

    def settle(self, accepted: Accepted, *states: RunState) -> None:
        """Let the runs of an event end in these states; each event has one run."""
        for run, state in zip(accepted.runs, states, strict=True):
            self._ends[run] = _settled(run, state)
        self._changed.set()
        self._changed = anyio.Event()

    def clear(self) -> None:
        """Forget the events, as if they had never been committed."""
        self.events.clear()
        self._answers.clear()

    def answer(self, key: str) -> Accepted:
        """Return what was answered for the event of this key; raise KeyError where there is none."""
        return self._answers[key]

    def _accept(self, entry: Entry) -> Accepted:
        event = entry.event
        if event.key is not None and (first := self._answers.get(event.key)) is not None:
            return Accepted(event=first.event, runs=first.runs, duplicate=True, outcomes=first.outcomes)
        if _is_rejection((entry,)):
            self.rejected.append((event, entry.outcomes[0].reason.removeprefix(_REJECTED)))
            answer = Accepted(event=event.id, outcomes=entry.outcomes)
        else:
            self.events.append(event)
            runs = (f"run-{len(self.events)}",) if self.makes_runs else ()
            answer = Accepted(event=event.id, runs=runs, outcomes=entry.outcomes)
        if event.key is not None:
            self._answers[event.key] = answer
        return answer


def _settled(run: str, state: RunState) -> Settled:
    return Settled(
        run=run, job="job", trigger="trigger", state=state, code=state.value, reason=f"{state}: it said so"
    )  # fmt: skip


def _is_rejection(entries: Sequence[Entry]) -> bool:
    return bool(entries) and entries[0].outcomes[0].outcome is EventOutcome.REJECTED


class MemoryContext(Context):
    """A source's context at a store in memory: what the engine checks is checked, by the engine's own code.

    - `failures`: how many calls of emit and reject from now on raise StoreUnavailable; `refused_calls` did.
    - `refuse`: called with each event; it may raise InvalidEvent for one that the engine would take.
    - `before_answer`: awaited between the commit and the answer of emit: the place where crashes hurt.
    - `warnings`: what it said is wrong, in order; None is "all is well again".
    - `routes`: the handlers by method and path; `is_ready`: set once it says so.
    """

    def __init__(
        self, source: Source | None = None, *, base: Path = Path("/nonexistent"), clock: Clock | None = None,
        store: MemoryStore | None = None, max_data: int = MAX_DATA_BYTES, name: str = "test:source",
    ) -> None:  # fmt: skip
        self.store = store or MemoryStore()
        self.failures = 0
        self.refused_calls = 0
        self.before_answer: Callable[[], Awaitable[None]] | None = None
        self.refuse: Callable[[Event], None] | None = None
        self.warnings: list[str | None] = []
        self.routes: dict[tuple[str, str], Handler] = {}
        self.is_ready = anyio.Event()
        super().__init__(
            SourceState(id=name, source=cast("Source", source)), door=_Door(self), memory=self.store,
            clock=clock or VirtualClock(), base=base, files=base / "files", max_data=max_data, routes=Routes(),
            on_ready=self.is_ready.set,
        )  # fmt: skip

    @property
    def state(self) -> SourceState:
        """How the engine would show the source."""
        return self._state

    def warn(self, text: str | None) -> None:
        self.warnings.append(text)
        super().warn(text)

    def route(self, method: str, path: str, handler: Handler, *, encodings: Collection[str] = ()) -> None:
        super().route(method, path, handler, encodings=encodings)
        self.routes[method, path] = handler

    def close(self) -> None:
        super().close()
        self._state.state = Phase.STOPPED

    @property
    def intake(self) -> Intake:
        """The engine's door, without any trigger, before the store in memory."""
        return Intake(
            clock=self.clock, journal=cast("Journal", self.store), starter=cast("Starter", None), windows=Windows(),
            marks=MarkKeeper(cast("Store", self.store)), rules={}, hearing=[], followers=Followers((), {}, {}),
            max_data_bytes=self.max_data, ageing_s=60.0,
        )  # fmt: skip


class _Door:
    """The way from a context to the store in memory, with faults on demand."""

    def __init__(self, context: MemoryContext) -> None:
        self._context = context

    async def accept(
        self, source: str, events: Sequence[Event], *, cursor: Any = None, remember: Mapping[str, Any] | None = None
    ) -> list[Accepted]:
        self._fail_where_told()
        if (refuse := self._context.refuse) is not None:
            for event in events:
                refuse(event)
        answers = await self._context.intake.accept(source, events, cursor=cursor, remember=remember)
        if self._context.before_answer is not None:
            await self._context.before_answer()
        await anyio.lowlevel.checkpoint()
        return answers

    async def reject(self, source: str, event: Event, reason: str) -> Accepted:
        self._fail_where_told()
        answer = await self._context.intake.reject(source, event, reason)
        await anyio.lowlevel.checkpoint()
        return answer

    def as_stored(self, source: str, event: Event) -> Event:
        return self._context.intake.as_stored(source, event)

    def _fail_where_told(self) -> None:
        if self._context.failures > 0:
            self._context.failures -= 1
            self._context.refused_calls += 1
            raise StoreUnavailable("the store can't take it now")
