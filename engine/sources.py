"""Sources: a supervisor that runs each, starts it again when it raises, and knows how it is."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import anyio
from anyio.abc import TaskGroup
from msgspec import Struct, field

from engine import cancellation
from engine.clock import Clock, rfc3339
from engine.errors import Conflict, InvalidEvent, PluginError, StoreDamaged
from engine.events import RESERVED_PREFIX, Accepted, Event
from engine.payload import survey
from engine.plugin import Handler, Settled, Source

log = logging.getLogger("engine.sources")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
STOP_S = 20.0
"""A source that is removed is waited for so long."""

MEMORY_PAGE = 5_000
LONGEST_KEY = 1024
STEADY_S = 60.0
"""A source that ran so long before it raised is started again after the first pause."""


class Door(Protocol):
    """What a source needs of intake and store."""

    async def accept(
        self, source: str, events: Sequence[Event], *, cursor: Any = None, remember: Mapping[str, Any] | None = None
    ) -> list[Accepted]: ...

    async def reject(self, source: str, event: Event, reason: str) -> Accepted: ...


class Memory(Protocol):
    """What a source needs to read of what was stored for it."""

    async def cursor(self, source: str) -> Any: ...

    async def memory(self, source: str, *, after: str | None, limit: int) -> dict[str, Any]: ...

    async def settled(self, run_id: str) -> Settled | None:
        """Wait until a run has ended, and return how; None where there is no such run any more."""
        ...


class Routes:
    """The routes below `/hooks/` that running sources answer."""

    def __init__(self) -> None:
        self._handlers: dict[str, dict[str, Handler]] = {}

    def add(self, method: str, path: str, handler: Handler) -> None:
        """Add a route; raise PluginError where it is taken or not below `/hooks/`."""
        if not path.startswith("/hooks/"):
            raise PluginError(f"a source's route begins with /hooks/, {path!r} does not")
        methods = self._handlers.setdefault(path, {})
        if method in methods:
            raise PluginError(f"the route {method} {path} is taken")
        methods[method] = handler

    def remove(self, method: str, path: str) -> None:
        """Remove a route."""
        methods = self._handlers.get(path, {})
        methods.pop(method, None)
        if not methods:
            self._handlers.pop(path, None)

    def find(self, method: str, path: str) -> Handler | tuple[str, ...] | None:
        """Return the handler, or the methods that the path allows, or None."""
        methods = self._handlers.get(path)
        if methods is None:
            return None
        return methods.get(method) or tuple(sorted(methods))


class SourceState(Struct):
    """How a source is: `starting`, `running`, `failed` (and starts again at some time), `stopped`.

    `scope` cancels it; `ended` is set once it has ended for good.
    """

    id: str
    source: Source
    state: str = "starting"
    error: str | None = None
    restarts: int = 0
    events: int = 0
    last_event_at: datetime | None = None
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    ended: anyio.Event = field(default_factory=anyio.Event)

    def view(self) -> dict[str, Any]:
        """Return it as the API shows it."""
        return {
            "name": self.id,
            "plugin": self.source.name,
            "state": self.state,
            "error": self.error,
            "restarts": self.restarts,
            "events": self.events,
            "last_event_at": None if self.last_event_at is None else rfc3339(self.last_event_at),
        }


class Context:
    """What a running source gets; see `engine.plugin.SourceContext`."""

    def __init__(
        self, state: SourceState, *, door: Door, memory: Memory, clock: Clock, base: Path, max_data: int, routes:
        Routes, on_ready: Callable[[], None],
    ) -> None:  # fmt: skip
        self.name = state.id
        self.clock = clock
        self.base = base
        self.max_data = max_data
        self.log = logging.LoggerAdapter(logging.getLogger("plugins"), {"source": state.id})
        self._state = state
        self._door = door
        self._memory = memory
        self._routes = routes
        self._on_ready = on_ready
        self._mine: list[tuple[str, str]] = []

    async def emit(
        self, *events: Event, cursor: Any = None, remember: Mapping[str, Any] | None = None
    ) -> list[Accepted]:
        for event in events:
            if str(event.type).startswith(RESERVED_PREFIX):
                raise InvalidEvent(f"types that begin with {RESERVED_PREFIX!r} are the engine's own", status=422)
        if cursor is not None:
            survey(cursor)
        if remember:
            _check_memory(remember)
        answers = await self._door.accept(self.name, events, cursor=cursor, remember=remember)
        state = self._state
        if answers:
            state.events += len(answers)
            state.last_event_at = self.clock.now()
        return answers

    async def reject(self, event: Event, reason: str) -> Accepted:
        return await self._door.reject(self.name, event, reason)

    async def cursor(self) -> Any:
        return await self._memory.cursor(self.name)

    async def remembered(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        after: str | None = None
        while page := await self._memory.memory(self.name, after=after, limit=MEMORY_PAGE):
            found |= page
            after = next(reversed(page))
        return found

    async def settled(self, accepted: Accepted) -> tuple[Settled, ...]:
        ends = [await self._memory.settled(run_id) for run_id in dict.fromkeys(accepted.runs)]
        return tuple(end for end in ends if end is not None)

    def ready(self) -> None:
        self._state.state = "running"
        self._state.error = None
        self._on_ready()

    async def every(self, seconds: float) -> AsyncIterator[None]:
        start = self.clock.monotonic()
        beat = 0
        while True:
            yield
            beat = max(beat + 1, int((self.clock.monotonic() - start) / seconds))
            await self.clock.sleep(start + beat * seconds - self.clock.monotonic())

    def route(self, method: str, path: str, handler: Handler) -> None:
        self._routes.add(method, path, handler)
        self._mine.append((method, path))

    def close(self) -> None:
        """Take back what the source registered."""
        for method, path in self._mine:
            self._routes.remove(method, path)
        self._mine.clear()


class Sources:
    """Runs all sources side by side; one that raises or ends harms no other."""

    def __init__(
        self, *, clock: Clock, sources: Sequence[tuple[str, Source]], door: Door, memory: Memory, base: Path,
        max_data: int, routes: Routes, on_ready: Callable[[], None],
    ) -> None:  # fmt: skip
        self._clock = clock
        self._states = {source_id: SourceState(id=source_id, source=source) for source_id, source in sources}
        self._leaving: dict[str, SourceState] = {}
        self._group: TaskGroup | None = None
        self._door = door
        self._memory = memory
        self._base = base
        self._max_data = max_data
        self._routes = routes
        self._on_ready = on_ready
        self._random = random.Random()  # noqa: S311 - spreads restarts, no secret

    @property
    def states(self) -> Sequence[SourceState]:
        """How each source is."""
        return list(self._states.values())

    def not_ready(self) -> list[str]:
        """Return the sources that do not receive, in words."""
        return [
            f"source {state.id} is {state.state}" + (f": {state.error}" if state.error else "")
            for state in self._states.values()
            if state.state != "running"
        ]

    async def run(self) -> None:
        """Run all sources until cancelled."""
        try:
            async with anyio.create_task_group() as group:
                self._group = group
                for state in self._states.values():
                    group.start_soon(self._be, state, None, name=f"source {state.id}")
                await anyio.sleep_forever()
        finally:
            self._group = None

    def add(self, source_id: str, source: Source) -> None:
        """Start a source while the others run; one of that id that is there already stays as it is."""
        if source_id in self._states:
            return
        if self._group is None:
            raise Conflict("sources are added while the others run")
        state = self._states[source_id] = SourceState(id=source_id, source=source)
        self._group.start_soon(self._be, state, self._leaving.get(source_id), name=f"source {source_id}")

    async def remove(self, source_id: str) -> None:
        """Stop a source: it is cancelled at once, and has ended when this returns, or does not stop in `STOP_S`.

        What it was emitting is durable or refused by then. One of that id that is added meanwhile waits for its end.
        """
        state = self._states.pop(source_id, None)
        if state is not None:
            self._leaving[source_id] = state
            state.scope.cancel()
            with anyio.move_on_after(STOP_S) as patience:
                await state.ended.wait()
            if patience.cancelled_caught:
                log.error(
                    "Source %s does not stop", source_id, extra={"action": "source_stuck", "source": source_id}
                )  # fmt: skip

    async def _be(self, state: SourceState, before: SourceState | None) -> None:
        """Be one source, from the end of one of the same id to its own."""
        try:
            with state.scope:
                if before is not None:
                    with anyio.CancelScope(shield=True):
                        await before.ended.wait()
                await self._supervise(state)
        finally:
            state.ended.set()
            if self._leaving.get(state.id) is state:
                del self._leaving[state.id]

    async def _supervise(self, state: SourceState) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            started = self._clock.monotonic()
            try:
                await self._run_once(state)
                state.error = "it ended by itself"
                log.warning("Source %s ended by itself", state.id, extra={"action": "source_ended"})
            except StoreDamaged:
                state.state, state.error = "stopped", "the store failed"
                return
            except (KeyboardInterrupt, GeneratorExit):
                raise
            except BaseException as error:  # also SystemExit, which would end the engine
                if isinstance(error, anyio.get_cancelled_exc_class()) and cancellation.is_wanted():
                    raise
                state.error = _said(error)
                log.error(
                    "Source %s raised", state.id, exc_info=error,
                    extra={"action": "source_raised", "source": state.id},
                )  # fmt: skip
            state.state = "failed"
            state.restarts += 1
            if self._clock.monotonic() - started >= STEADY_S:
                pause_s = FIRST_PAUSE_S
            await self._clock.sleep(pause_s * self._random.uniform(0.8, 1.2))
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
            state.state = "starting"

    async def _run_once(self, state: SourceState) -> None:
        context = Context(
            state, door=self._door, memory=self._memory, clock=self._clock, base=self._base,
            max_data=self._max_data, routes=self._routes, on_ready=self._on_ready,
        )  # fmt: skip
        try:
            await state.source.run(context)
        finally:
            context.close()


def _check_memory(values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if not isinstance(key, str) or not 0 < len(key) <= LONGEST_KEY:
            raise InvalidEvent(f"what is remembered has a key of 1 to {LONGEST_KEY} characters", status=422)
        survey([key, value])


def _said(error: BaseException) -> str:
    """Return what an error says, whatever its methods do."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__
