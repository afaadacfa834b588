"""What tests of sources run them with: a context in memory, and a clock that the test moves."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio

from engine.payload import encode_json, survey
from engine.plugin import (
    RESERVED_PREFIX,
    Accepted,
    Clock,
    Event,
    Handler,
    InvalidEvent,
    Settled,
    Source,
    StoreUnavailable,
    SystemClock,
)
from engine.runs import RunState

_BEAT = 0.002


async def until(condition: Callable[[], object], *, within_s: float = 10.0) -> None:
    """Wait until `condition()` is true, however long that takes below `within_s`; then fail."""
    with anyio.fail_after(within_s):
        while not condition():  # noqa: ASYNC110 - conditions here are files, which tell nobody
            await anyio.sleep(_BEAT)


class SteppedClock:
    """A clock that stands still until the test calls `advance`."""

    def __init__(self, at: datetime = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)) -> None:
        self._at = at
        self._passed_s = 0.0
        self._moved = anyio.Event()
        self.sleepers = 0

    def now(self) -> datetime:
        return self._at + timedelta(seconds=self._passed_s)

    def monotonic(self) -> float:
        return self._passed_s

    async def sleep(self, seconds: float) -> None:
        due_s = self._passed_s + seconds
        await anyio.lowlevel.checkpoint()
        self.sleepers += 1
        try:
            while self._passed_s < due_s:
                await self._moved.wait()
        finally:
            self.sleepers -= 1

    def advance(self, seconds: float) -> None:
        """Let time pass, and wake who is due."""
        self._passed_s += seconds
        self._moved.set()
        self._moved = anyio.Event()


class FakeSourceContext:
    """A source's context in memory: the door's checks, one identity per key, and faults on demand.

    - `emitted`: what was stored, in order, without duplicates; `batches`: the sizes of the calls.
    - `failures`: how many calls of emit and reject from now on raise StoreUnavailable.
    - `memory`: what it was told to remember; `settle(accepted, *states)`: ends the runs of an event.
    - `warnings`: what it said is wrong, in order; None is "all is well again".
    - `beat()`: starts the next round of all `every` loops.
    - `before_answer`: awaited between the commit and the answer of emit: the place where crashes hurt.
    """

    def __init__(self, base: Path = Path("/nonexistent"), *, clock: Clock | None = None) -> None:
        self.name = "test:source"
        self.clock: Clock = clock or SystemClock()
        self.log = logging.LoggerAdapter(logging.getLogger("test.source"), {"source": self.name})
        self.max_data = 1024 * 1024
        self.base = base
        self.emitted: list[Event] = []
        self.rejected: list[tuple[Event, str]] = []
        self.batches: list[int] = []
        self.refused_calls = 0
        self.failures = 0
        self.routes: dict[tuple[str, str], Handler] = {}
        self.is_ready = anyio.Event()
        self.warnings: list[str | None] = []
        self.before_answer: Callable[[], Awaitable[None]] | None = None
        self._answers: dict[str, Accepted] = {}
        self._cursor: Any = None
        self.memory: dict[str, Any] = {}
        self.ends: dict[str, tuple[Settled, ...]] = {}
        self._settled = anyio.Event()
        self._beat = anyio.Event()

    async def emit(
        self, *events: Event, cursor: Any = None, remember: Mapping[str, Any] | None = None
    ) -> list[Accepted]:
        self._fail_where_told()
        for event in events:
            self._check(event)
        answers = [self._accept(event, self.emitted.append) for event in events]
        self.batches.append(len(events))
        if cursor is not None:
            self._cursor = cursor
        for key, value in (remember or {}).items():
            survey([key, value])
            self.memory[key] = value
            if value is None:
                del self.memory[key]
        if self.before_answer is not None:
            await self.before_answer()
        await anyio.lowlevel.checkpoint()
        return answers

    async def reject(self, event: Event, reason: str) -> Accepted:
        self._fail_where_told()
        answer = self._accept(event, lambda taken: self.rejected.append((taken, reason)))
        await anyio.lowlevel.checkpoint()
        return answer

    async def cursor(self) -> Any:
        return self._cursor

    async def remembered(self) -> dict[str, Any]:
        return dict(sorted(self.memory.items()))

    async def settled(self, accepted: Accepted) -> tuple[Settled, ...]:
        while (ends := self.ends.get(accepted.event)) is None:
            changed = self._settled
            await changed.wait()
        return ends

    def settle(self, accepted: Accepted, *states: RunState) -> None:
        """Let the runs of an event end in these states."""
        self.ends[accepted.event] = tuple(
            Settled(run=run, job="job", trigger="trigger", state=state, code=state.value, reason=f"{state}: it said so")
            for run, state in zip(accepted.runs, states, strict=True)
        )
        self._settled.set()
        self._settled = anyio.Event()

    def ready(self) -> None:
        self.is_ready.set()

    @property
    def warning(self) -> str | None:
        """What it says is wrong now."""
        return self.warnings[-1] if self.warnings else None

    def warn(self, text: str | None) -> None:
        self.warnings.append(text)

    async def every(self, seconds: float) -> AsyncIterator[None]:
        while True:
            beat = self._beat
            yield
            await beat.wait()

    def route(self, method: str, path: str, handler: Handler) -> None:
        self.routes[method, path] = handler

    def beat(self) -> None:
        self._beat.set()
        self._beat = anyio.Event()

    @asynccontextmanager
    async def running(self, source: Source) -> AsyncIterator[None]:
        """Run `source` until the block ends; enter it when the source is ready."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(source.run, self)
            with anyio.fail_after(10):
                await self.is_ready.wait()
            yield
            tasks.cancel_scope.cancel()

    def restarted(self) -> FakeSourceContext:
        """Return the context that a new process would get: the same store, nothing else."""
        context = FakeSourceContext(self.base, clock=self.clock)
        context.emitted, context.rejected, context._answers = self.emitted, self.rejected, self._answers
        context._cursor, context.memory, context.ends = self._cursor, self.memory, self.ends
        context.max_data = self.max_data
        return context

    def _fail_where_told(self) -> None:
        if self.failures > 0:
            self.failures -= 1
            self.refused_calls += 1
            raise StoreUnavailable("the disk is full")

    def _check(self, event: Event) -> None:
        if event.type.startswith(RESERVED_PREFIX):
            raise InvalidEvent(f"the type {event.type!r} is reserved")
        survey(event.data)
        if len(encode_json(event.data)) > self.max_data:
            raise InvalidEvent("the data is too large", status=413)
        if event.time is not None and event.time.tzinfo is None:
            raise InvalidEvent("the time is naive", status=422)
        encode_json([event.subject, event.key])

    def _accept(self, event: Event, store: Callable[[Event], None]) -> Accepted:
        if event.key is not None and event.key in self._answers:
            first = self._answers[event.key]
            return Accepted(event=first.event, runs=first.runs, duplicate=True)
        number = len(self.emitted) + len(self.rejected) + 1
        answer = Accepted(event=f"event-{number}", runs=(f"run-{number}",))
        store(event)
        if event.key is not None:
            self._answers[event.key] = answer
        return answer
