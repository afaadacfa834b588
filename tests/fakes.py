"""What tests of sources run them with: a context in memory, and a clock that the test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio

from engine.plugin import (
    Accepted,
    Clock,
    Event,
    Source,
    SystemClock,
)
from engine.runs import RunState
from engine.testing import MemoryContext, MemoryStore

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


class FakeSourceContext(MemoryContext):
    """The context of `engine.testing`, in which rounds of `every` begin when the test says so.

    - `emitted`, `batches`, `rejected`, `memory`: what the store has; `beat()`: starts the next round of all loops.
    """

    def __init__(
        self, base: Path = Path("/nonexistent"), *, clock: Clock | None = None, store: MemoryStore | None = None
    ) -> None:
        super().__init__(base=base, clock=clock or SystemClock(), store=store)
        self._beat = anyio.Event()

    @property
    def emitted(self) -> list[Event]:
        return self.store.events

    @property
    def rejected(self) -> list[tuple[Event, str]]:
        return self.store.rejected

    @property
    def batches(self) -> list[int]:
        return self.store.commits

    @property
    def memory(self) -> dict[str, Any]:
        return self.store.values

    @property
    def warning(self) -> str | None:
        """What it says is wrong now."""
        return self.warnings[-1] if self.warnings else None

    async def every(self, seconds: float) -> AsyncIterator[None]:
        while True:
            beat = self._beat
            yield
            await beat.wait()

    def beat(self) -> None:
        self._beat.set()
        self._beat = anyio.Event()

    def settle(self, accepted: Accepted, *states: RunState) -> None:
        """Let the runs of an event end in these states."""
        self.store.settle(accepted, *states)

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
        context = FakeSourceContext(self.base, clock=self.clock, store=self.store)
        context.max_data = self.max_data
        return context
