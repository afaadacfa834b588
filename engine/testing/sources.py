"""A harness for sources: what they emit is checked as the engine checks it, and they can be killed at will."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import anyio
from anyio.abc import TaskGroup

from engine.clock import Clock
from engine.events import Accepted, Event
from engine.plugin import Handler, Refusal, Request, Response, Source
from engine.runs import RunState
from engine.testing.clock import VirtualClock
from engine.testing.memory import MAX_DATA_BYTES, MemoryContext, MemoryStore

_PAUSE_S = 0.001
_FOR_EVER = 1_000_000_000
END_S = 10.0


class SourceHarness:
    """Runs a source at a store in memory, as `async with SourceHarness(source, base=folder) as harness`.

    The block is entered when the source is ready. What the source raises is raised by what the test waits with, and at
    the end of the block. `clock` is a `VirtualClock` unless another one is given; `base` is what relative paths are
    relative to.
    """

    def __init__(
        self, source: Source, *, base: Path = Path("/nonexistent"), clock: Clock | None = None,
        store: MemoryStore | None = None, max_data: int = MAX_DATA_BYTES,
    ) -> None:  # fmt: skip
        self.source = source
        self.clock: Clock = clock or VirtualClock()
        self.store = store or MemoryStore()
        self.context: MemoryContext
        self._base = base
        self._max_data = max_data
        self._tasks: TaskGroup
        self._scope: anyio.CancelScope
        self._ended: anyio.Event
        self._error: BaseException | None = None

    # What came of it

    @property
    def events(self) -> list[Event]:
        """What was stored, in order, without duplicates; over crashes."""
        return self.store.events

    @property
    def rejected(self) -> list[tuple[Event, str]]:
        """What the source rejected, with its reasons."""
        return self.store.rejected

    @property
    def cursor(self) -> Any:
        """The cursor that was last made durable."""
        return self.store.position

    @property
    def memory(self) -> dict[str, Any]:
        """What the source was told to remember."""
        return self.store.values

    @property
    def warnings(self) -> list[str | None]:
        """What the source said is wrong, since its last start; None is "all is well again"."""
        return self.context.warnings

    # Time, and waiting

    async def advance(self, seconds: float) -> None:
        """Let virtual time pass, and raise what the source raised meanwhile."""
        if not isinstance(self.clock, VirtualClock):
            raise TypeError("only a VirtualClock can be advanced")
        await self.clock.advance(seconds)
        self._raise_error()

    async def until(self, condition: Callable[[], object], *, step_s: float = 0.1, within_s: float = END_S) -> None:
        """Return once `condition()` is true; virtual time passes meanwhile, in steps, and threads may work.

        Raises what the source raises, and TimeoutError after `within_s` seconds of real time.
        """
        with anyio.fail_after(within_s):
            while not condition():
                if isinstance(self.clock, VirtualClock):
                    await self.clock.advance(step_s)
                await anyio.sleep(_PAUSE_S)
                self._raise_error()

    async def failure(self, *, within_s: float = END_S) -> BaseException:
        """Wait until the source raises, and return what; it is not raised any more. `restart` starts it again."""
        with anyio.fail_after(within_s):
            while self._error is None:
                if isinstance(self.clock, VirtualClock):
                    await self.clock.advance(0.1)
                await anyio.sleep(_PAUSE_S)
        error, self._error = self._error, None
        return error

    # Faults

    async def crash(self) -> None:
        """Kill the source wherever it is, as `kill -9` does, and start it again on what the store has.

        Nothing that it still says comes in. Return when it is ready again.
        """
        self.context.close()
        await self._end()
        self._error = None  # who is dead says nothing
        await self._start()

    async def crash_before_answer(self) -> None:
        """Wait until the source has emitted something, kill it before it learns of that, and start it again."""
        committed = anyio.Event()

        async def never_answer() -> None:
            committed.set()
            await anyio.sleep_forever()

        self.context.before_answer = never_answer
        await self.until(committed.is_set)
        await self.crash()

    async def restart(self) -> None:
        """Stop the source in order, as the engine does, and start it again. Return when it is ready again."""
        await self._end()
        await self._start()

    @contextmanager
    def store_away(self) -> Iterator[None]:
        """Let emit and reject raise StoreUnavailable while the block lasts."""
        self.context.failures = _FOR_EVER
        try:
            yield
        finally:
            self.context.failures = 0

    # The rest of the world

    async def request(
        self, method: str, path: str, body: bytes = b"", *, headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None, remote: str = "192.0.2.1",
    ) -> Response:  # fmt: skip
        """Send a request to one of the source's routes; a Refusal is answered as by the engine. KeyError: no route."""
        handler: Handler = self.context.routes[method, path]
        request = Request(
            method=method, path=path, query=query or {}, headers=headers or {}, remote=remote, body=body
        )  # fmt: skip
        try:
            return await handler(request)
        except Refusal as refusal:
            problem = {"title": refusal.title, "status": refusal.status, "detail": str(refusal)}
            return Response(status=refusal.status, body=problem, headers=refusal.headers)

    def settle(self, event: Accepted | str, *states: RunState) -> None:
        """Let the run of an event (by its answer or its key) end, for sources that wait with `settled`."""
        answer = self.store.answer(event) if isinstance(event, str) else event
        self.store.settle(answer, *states or (RunState.SUCCEEDED,))

    # Life

    async def __aenter__(self) -> SourceHarness:
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        try:
            await self._start()
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await self._end()
        await self._tasks.__aexit__(None, None, None)
        if error is None:
            self._raise_error()

    async def _start(self) -> None:
        self.context = MemoryContext(
            self.source, base=self._base, clock=self.clock, store=self.store, max_data=self._max_data
        )  # fmt: skip
        self._scope, self._ended = anyio.CancelScope(), anyio.Event()
        self._tasks.start_soon(self._run, self.context, self._scope, self._ended, name="source under test")
        await self.until(self.context.is_ready.is_set, step_s=0.0)

    async def _run(self, context: MemoryContext, scope: anyio.CancelScope, ended: anyio.Event) -> None:
        try:
            with scope:
                await self.source.run(context)
                self._error = AssertionError("the source ended by itself, which none should")
        except Exception as error:
            self._error = error
        finally:
            context.close()
            ended.set()

    async def _end(self) -> None:
        self._scope.cancel()
        with anyio.fail_after(END_S):
            await self._ended.wait()

    def _raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error
