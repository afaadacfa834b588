"""What a running source is offered; and the door's own checks, before anything of it reaches intake."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, TypeVarTuple

import anyio

from engine.clock import Clock
from engine.errors import InvalidEvent, PluginError, StoreUnavailable
from engine.events import RESERVED_PREFIX, Accepted, Event
from engine.logs import IdLogger
from engine.payload import encode_json, survey
from engine.plugin import Handler, Settled
from engine.sources.refusals import RefusedRequest
from engine.sources.routes import Routes
from engine.sources.state import Phase, Round, SourceState
from engine.sources.waiting import wait_for
from engine.units import format_size

log = logging.getLogger("engine.sources")

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

MEMORY_PAGE = 5_000
LONGEST_KEY = 1024

MOST_EVENTS = 1_000
"""Events in one call of emit: each costs the event loop some 30 µs, and all wait for the last."""

CALLS_AT_ONCE = 512
"""Calls of one source that are on their way to the store; further ones wait in line. It is one commit's worth, so that
those of others never wait for more than that."""

MOST_CALLS = 5_000
"""Calls of one source that may wait in all."""

PATIENCE, REFUSED_PAUSE_S = 10, 0.1
"""After so many refusals in a row each further one takes so long: who asks in a loop must not keep the loop."""


class Door(Protocol):
    """What a source needs of intake."""

    async def accept(
        self, source: str, events: Sequence[Event], *, cursor: Any = None, remember: Mapping[str, Any] | None = None
    ) -> list[Accepted]: ...

    async def reject(self, source: str, event: Event, reason: str) -> Accepted: ...

    def as_stored(self, source: str, event: Event) -> Event: ...


class Memory(Protocol):
    """What a source needs to read of what was stored for it."""

    async def cursor(self, source: str) -> Any: ...

    async def memory(self, source: str, *, after: str | None, limit: int) -> dict[str, Any]: ...

    async def settled(self, run_ids: Sequence[str], within_s: float | None = None) -> tuple[Settled, ...]:
        """Wait until runs have ended, or for so long, and return how they stand; without those that are gone."""
        ...

    async def event(self, event_id: str) -> Event | None:
        """Return an event as it is stored; None where it is not, any more."""
        ...


class Context:
    """What a running source gets; see `engine.plugin.SourceContext`. Each start of a source has one of its own.

    `on_ready` is called when the source says that it is ready.
    """

    def __init__(
        self, state: SourceState, *, door: Door, memory: Memory, clock: Clock, base: Path, files: Path,
        max_data: int, routes: Routes, on_ready: Callable[[], None],
    ) -> None:  # fmt: skip
        self.name = state.id
        self.clock = clock
        self.base = base
        self.files = files
        self.max_data = max_data
        self.log: logging.LoggerAdapter[logging.Logger] = IdLogger(logging.getLogger("plugins"), {"source": state.id})
        self.last_sign_s = clock.monotonic()
        """When it last made something durable, or began: who does is alive."""
        self._state = state
        self._door = door
        self._memory = memory
        self._routes = routes
        self._on_ready = on_ready
        self._mine: list[tuple[str, str]] = []
        self._closed = False
        self._turns = anyio.Semaphore(CALLS_AT_ONCE)

    async def emit(
        self, *events: Event, cursor: Any = None, remember: Mapping[str, Any] | None = None
    ) -> list[Accepted]:
        answers = await self._offer(len(events) or 1, self._accept, events, cursor, remember)
        self._state.count(events, answers, self.clock.now())
        return answers

    def _accept(
        self, events: Sequence[Event], cursor: Any, remember: Mapping[str, Any] | None
    ) -> Awaitable[list[Accepted]]:  # fmt: skip
        self._check_call(events, cursor, remember)
        return self._door.accept(self.name, events, cursor=cursor, remember=remember)

    async def reject(self, event: Event, reason: str) -> Accepted:
        return await self._offer(1, self._reject, event, str(reason))

    async def _reject(self, event: Event, reason: str) -> Accepted:
        self._check_call((event,), None, None)
        answer = await self._door.reject(self.name, event, reason)
        self._state.turned_away = 0
        self._state.rejected += not answer.duplicate
        return answer

    async def cursor(self) -> Any:
        return await self._memory.cursor(self.name)

    async def remembered(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        after: str | None = None
        while page := await self._memory.memory(self.name, after=after, limit=MEMORY_PAGE):
            found |= page
            after = next(reversed(page))
        return found

    async def settled(self, accepted: Accepted, *, within_s: float | None = None) -> tuple[Settled, ...]:
        self._state.settling += 1
        try:
            return await self._memory.settled(accepted.runs, within_s)
        finally:
            self._state.settling -= 1

    def as_stored(self, event: Event) -> Event:
        return self._door.as_stored(self.name, event)

    async def stored(self, accepted: Accepted) -> Event | None:
        return await self._memory.event(accepted.event)

    def ready(self) -> None:
        state = self._state
        if self._closed or state.state is not Phase.STARTING:
            return
        state.enter(Phase.RUNNING, self.clock.now())
        state.error = None
        self._on_ready()

    def warn(self, text: str | None) -> None:
        state, text = self._state, str(text) if text else None
        if self._closed or text == state.warning:
            return
        state.warn(text, self.clock.now())
        ids = {"action": "source_warned" if text else "source_well", "source": state.id}
        if text:
            log.warning("Source %s: %s", state.id, text, extra=ids)
        else:
            log.info("Source %s is well again", state.id, extra=ids)

    async def every(self, seconds: float) -> AsyncIterator[None]:
        if not seconds > 0:
            raise ValueError(f"every {seconds!r} s is no period; it has to be more than 0")
        state, clock = self._state, self.clock
        begun_s = clock.monotonic()
        try:
            while True:
                state.beat = Round(began_s=clock.monotonic(), period_s=self.paced(seconds))
                yield
                state.beat = None
                # A slow round skips beats, but for the last that it missed.
                period_s = self.paced(seconds)
                begun_s += max(int((clock.monotonic() - begun_s) / period_s) - 1, 0) * period_s
                begun_s += await self._wait_out(seconds, begun_s)
        finally:
            state.beat = None

    async def pause(self, seconds: float, *, since_s: float | None = None) -> None:
        await self._wait_out(seconds, self.clock.monotonic() if since_s is None else since_s)

    def paced(self, seconds: float) -> float:
        return seconds * self._state.factor

    async def _wait_out(self, seconds: float, since_s: float) -> float:
        """Wait until a period since then has passed; return how long it was, which may change meanwhile."""
        state, clock = self._state, self.clock
        while True:
            period_s, changed = self.paced(seconds), state.paced
            left_s = since_s + period_s - clock.monotonic()
            if left_s <= 0:
                await clock.sleep(0)
                return period_s
            await wait_for(changed, clock, left_s)
            if not changed.is_set():
                return period_s

    def route(self, method: str, path: str, handler: Handler, *, encodings: Collection[str] = ()) -> None:
        self._stand_open()
        self._routes.add(method, path, handler, self._note_refused, encodings=encodings)
        self._mine.append((method, path))
        self._state.paths.add(path)

    def _note_refused(self, request: RefusedRequest) -> None:
        self._state.refusals.note(self.name, request, self.clock.now())

    def close(self) -> None:
        """Take back what the source registered; nothing more comes in from this start of it."""
        self._closed = True
        for method, path in self._mine:
            self._routes.remove(method, path)
        self._mine.clear()

    async def _offer(self, count: int, call: Callable[[*Ts], Awaitable[T]], *arguments: *Ts) -> T:
        """Make a call at the door, for so many events, and count what becomes of it."""
        self._stand_open()
        state, began_s = self._state, self.clock.monotonic()
        try:
            if state.emitting >= MOST_CALLS:
                raise StoreUnavailable(f"{MOST_CALLS:,} calls of source {state.id} wait already; await their answers")
            state.emitting += 1
            try:
                try:
                    self._turns.acquire_nowait()
                except anyio.WouldBlock:
                    await self._turns.acquire()
                try:
                    answer = await call(*arguments)
                finally:
                    self._turns.release()
            finally:
                state.emitting -= 1
                ended_s = self.clock.monotonic()
                state.waited_s += ended_s - began_s
        except InvalidEvent:
            state.refused += count
            await self._turn_away()
            raise
        except StoreUnavailable:
            state.pushed_back += 1
            await self._turn_away()
            raise
        self.last_sign_s = ended_s
        return answer

    async def _turn_away(self) -> None:
        """Let the others go on before a refusal, which would else come back without any wait."""
        self._state.turned_away += 1
        if self._state.turned_away > PATIENCE:
            await self.clock.sleep(REFUSED_PAUSE_S)
        else:
            await anyio.lowlevel.checkpoint()

    def _stand_open(self) -> None:
        if self._closed:
            raise PluginError(f"source {self.name} was stopped; what is left of it is taken no more")

    def _check_call(self, events: Sequence[Event], cursor: Any, remember: Mapping[str, Any] | None) -> None:
        """Check what only sources can get wrong; intake checks what an event holds."""
        if len(events) > MOST_EVENTS:
            raise InvalidEvent(f"{len(events):,} events in one call; emit at most {MOST_EVENTS:,}", status=413)
        for event in events:
            if not isinstance(event, Event):
                raise InvalidEvent(f"a source emits events, and this is a {type(event).__name__}", status=422)
            if isinstance(event.type, str) and event.type.startswith(RESERVED_PREFIX):
                raise InvalidEvent(f"types that begin with {RESERVED_PREFIX!r} are the engine's own", status=422)
        if cursor is not None:
            self._check_value("the cursor", cursor)
        if remember is None:
            return
        for key, value in remember.items():
            if not isinstance(key, str) or not 0 < len(key) <= LONGEST_KEY:
                raise InvalidEvent(f"what is remembered has a key of 1 to {LONGEST_KEY} characters", status=422)
            survey(key)
            self._check_value(f"what is remembered as {key!r:.80}", value)

    def _check_value(self, what: str, value: Any) -> None:
        survey(value)
        if (size := len(encode_json(value))) > self.max_data:
            limit = format_size(self.max_data)
            raise InvalidEvent(f"{what} is {format_size(size)} of JSON, and may be {limit} at most", status=413)
