"""Previews: a source looks once, and what it would emit is shown and not kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import anyio

from engine.clock import Clock
from engine.errors import Conflict, EngineError, InvalidEvent, InvalidRequest, PluginError, said
from engine.events import Accepted, Event
from engine.plugin import BadSetting, Settled, Source, encode_json
from engine.previews import Found, Preview
from engine.sources.context import Context
from engine.sources.routes import Routes
from engine.sources.state import SourceState
from engine.sources.waiting import wait_for
from engine.units import format_span

log = logging.getLogger("engine.sources")

LONGEST_S = 45.0
"""A look that takes longer is ended: who asked waits for it."""

MOST_BYTES = 4 * 1024 * 1024
"""The events of one preview, as JSON; what is beyond is told of as `more`."""


class Admitted(NamedTuple):
    """An event as it would be stored, and its data as JSON."""

    event: Event
    data: bytes


class Known(Protocol):
    """What a preview reads of the store."""

    async def cursor(self, source: str) -> Any: ...

    async def memory(self, source: str, *, after: str | None, limit: int) -> dict[str, Any]: ...

    async def find_event(self, source: str, key: str) -> Accepted | None: ...


class Previews:
    """Has sources look, one look of each at a time. `as_stored` checks an event as it is when it is emitted, and
    redacts it."""

    def __init__(
        self, *, clock: Clock, store: Known, as_stored: Callable[[str, Event], Event], base: Path,
        files: Path, max_data: int,
    ) -> None:  # fmt: skip
        self._clock = clock
        self._store = store
        self._as_stored = as_stored
        self._base = base
        self._files = files
        self._max_data = max_data
        self._looking: set[str] = set()

    async def look(self, source_id: str, source: Any, *, cursor: Any, limit: int) -> Preview:
        """Return at most `limit` events that a source would emit now; nothing is stored, and no run is made.

        `cursor`: from where, in the place of the stored one; what that may be is the plugin's. Raises InvalidRequest
        for a source that can't tell or a cursor that is of no use to it, Conflict where it is looking already,
        PluginError where the look brings nothing, and StoreUnavailable.
        """
        if not isinstance(source, Source) or not source.previews:
            raise InvalidRequest(f"source {source_id} can't be previewed: {source.name} does not tell beforehand")
        if source_id in self._looking:
            raise Conflict(f"source {source_id} is looking for another preview; ask again when that is done")
        self._looking.add(source_id)
        try:
            return await self._look(source_id, source, cursor, limit)
        finally:
            self._looking.discard(source_id)

    async def _look(self, source_id: str, source: Source, cursor: Any, limit: int) -> Preview:
        scope = anyio.CancelScope()
        stage = _Stage(self._store, self._as_stored, limit, scope.cancel)
        context = Context(
            SourceState(id=source_id, source=source), door=stage, memory=stage, clock=self._clock, base=self._base,
            files=self._files, max_data=self._max_data, routes=Routes(), on_ready=lambda: None,
        )  # fmt: skip
        stored = await self._store.cursor(source_id)
        failures: list[Exception] = []
        done = anyio.Event()

        async def work() -> None:
            try:
                with scope:
                    await source.preview(context, cursor)
            except Exception as error:  # a plugin's
                failures.append(error)
            finally:
                done.set()

        async with anyio.create_task_group() as group:
            group.start_soon(work, name=f"preview of {source_id}")
            await wait_for(done, self._clock, LONGEST_S)
            late = not done.is_set()
            scope.cancel()
        context.close()
        if late:
            raise PluginError(f"source {source_id} has not looked within {format_span(LONGEST_S)}")
        if failures and not stage.more:
            raise self._failure(source_id, failures[0])
        after = None if stage.more else stage.moved or stored
        return Preview(found=tuple(stage.found), stored=stored, cursor=after, more=stage.more)

    def _failure(self, source_id: str, error: Exception) -> EngineError:
        if isinstance(error, BadSetting):
            return InvalidRequest(f"{error.field} {error}" + (f"; {error.hint}" if error.hint else ""))
        if isinstance(error, PluginError):
            return PluginError(f"source {source_id} found nothing out: {error}")
        if isinstance(error, EngineError):
            return error
        ids = {"action": "preview_failed", "source": source_id}
        log.error("The preview of source %s raised", source_id, exc_info=error, extra=ids)
        return PluginError(f"the preview of source {source_id} raised {type(error).__name__}: {said(error)}")


class _Stage:
    """What stands in the place of intake and of the source's memory: it keeps what it is given to itself."""

    def __init__(
        self, store: Known, as_stored: Callable[[str, Event], Event], limit: int, stop: Callable[[], None]
    ) -> None:
        self._store = store
        self._as_stored = as_stored
        self._limit = limit
        self._stop = stop
        self._bytes = 0
        self.found: list[Found] = []
        self.moved: Any = None
        self.more = False

    async def accept(
        self, source: str, events: Sequence[Event], *, cursor: Any = None, remember: Mapping[str, Any] | None = None
    ) -> list[Accepted]:
        admitted = [_admitted(self._as_stored(source, event)) for event in events]
        answers = [await self._take(source, one) for one in admitted]
        await self._stop_where_enough()
        self.moved = self.moved if cursor is None else cursor
        return answers

    async def reject(self, source: str, event: Event, reason: str) -> Accepted:
        # What is refused is kept whatever it is: it is shown as it came, but for what is redacted.
        with suppress(InvalidEvent):
            event = self._as_stored(source, event)
        answer = await self._take(source, _admitted(event), refused=reason)
        await self._stop_where_enough()
        return answer

    async def cursor(self, source: str) -> Any:
        return await self._store.cursor(source)

    async def memory(self, source: str, *, after: str | None, limit: int) -> dict[str, Any]:
        return await self._store.memory(source, after=after, limit=limit)

    async def settled(self, run_ids: Sequence[str], within_s: float | None = None) -> tuple[Settled, ...]:
        return ()

    async def event(self, event_id: str) -> Event | None:
        return None

    def as_stored(self, source: str, event: Event) -> Event:
        return self._as_stored(source, event)

    async def _take(self, source: str, one: Admitted, refused: str | None = None) -> Accepted:
        event = one.event
        before = None if event.key is None else await self._store.find_event(source, event.key)
        self._bytes += len(one.data)
        if len(self.found) >= self._limit or (self.found and self._bytes > MOST_BYTES):
            self.more = True
        else:
            self.found.append(Found(event=event, duplicate=before is not None, refused=refused))
        return before or Accepted(event=event.id)

    async def _stop_where_enough(self) -> None:
        if self.more:
            self._stop()
            await anyio.lowlevel.checkpoint()


def _admitted(event: Event) -> Admitted:
    return Admitted(event, encode_json(event.data))
