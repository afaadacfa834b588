"""Waiting for the ends of runs, and what sources may read of what is stored for them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import anyio

from engine.clock import Clock
from engine.dispatch import RETRY_READ_S
from engine.errors import StoreUnavailable
from engine.events import Event
from engine.plugin import Settled
from engine.runs import ENDED, Run
from engine.store.base import Store

LOOK_AGAIN_S = 30.0
"""Who waits for a run's end looks at the store at least so often."""

MOST_WAITING = 1_000
"""Those that wait for a time only; further ones are told at once how the runs stand."""


class Changes:
    """Lets those wait who want to know when a run's state changes."""

    def __init__(self) -> None:
        self._watched: dict[str, list[anyio.Event]] = {}

    def tell(self, run_id: str) -> None:
        """Wake all that wait for the run."""
        for event in self._watched.pop(run_id, ()):
            event.set()

    @contextmanager
    def watch(self, run_id: str) -> Iterator[anyio.Event]:
        """Give an event that is set at the run's next change, also one before it is waited for."""
        event = anyio.Event()
        self._watched.setdefault(run_id, []).append(event)
        try:
            yield event
        finally:
            events = self._watched.get(run_id)
            if events is not None and event in events:
                events.remove(event)
                if not events:
                    del self._watched[run_id]

    async def wait(self, run_id: str, timeout_s: float) -> None:
        """Return when the run has changed, or after `timeout_s`."""
        with self.watch(run_id) as event, anyio.move_on_after(timeout_s):
            await event.wait()


class Settling:
    """Tells how runs end, or stand when the time is up; and what sources may read: see `engine.sources.Memory`.

    `stopping` is set when the engine begins to stop: nobody is then kept waiting for a time.
    """

    def __init__(self, store: Store, changes: Changes, clock: Clock, stopping: anyio.Event) -> None:
        self._store = store
        self._changes = changes
        self._clock = clock
        self._stopping = stopping
        self.waiting = 0
        """How many wait for a time."""

    async def cursor(self, source: str) -> Any:
        return await self._store.cursor(source)

    async def memory(self, source: str, *, after: str | None, limit: int) -> dict[str, Any]:
        return await self._store.memory(source, after=after, limit=limit)

    async def event(self, event_id: str) -> Event | None:
        stored = await self._store.event(event_id)
        return None if stored is None else stored.event

    async def settled(self, run_ids: Sequence[str], within_s: float | None = None) -> tuple[Settled, ...]:
        found: dict[str, Run | None] = {}

        async def follow() -> None:
            for run_id in dict.fromkeys(run_ids):
                found[run_id] = await ended(run_id, store=self._store, changes=self._changes, clock=self._clock)

        if within_s is None:
            await follow()
        elif self.waiting < MOST_WAITING:
            self.waiting += 1
            try:
                await first(follow, partial(self._clock.sleep, within_s), self._stopping.wait)
            finally:
                self.waiting -= 1
        for run_id in run_ids:
            if run_id not in found:
                found[run_id] = await self._store.run(run_id)
        return tuple(_settled(run) for run_id in dict.fromkeys(run_ids) if (run := found[run_id]) is not None)


def _settled(run: Run) -> Settled:
    return Settled(run=run.id, job=run.job, trigger=run.trigger, state=run.state, code=run.code, reason=run.reason)


async def first(*calls: Callable[[], Awaitable[object]]) -> None:
    """Return when the first of some calls has returned; the others are cancelled."""
    async with anyio.create_task_group() as group:

        async def run(call: Callable[[], Awaitable[object]]) -> None:
            await call()
            group.cancel_scope.cancel()

        for call in calls:
            group.start_soon(run, call)


async def ended(run_id: str, *, store: Store, changes: Changes, clock: Clock) -> Run | None:
    """Wait until a run has ended, and return it; None where there is no such run any more."""
    while True:
        with changes.watch(run_id) as changed:
            try:
                run = await store.run(run_id)
            except StoreUnavailable:
                await clock.sleep(RETRY_READ_S)
                continue
            if run is None or run.state in ENDED:
                return run
            with anyio.move_on_after(LOOK_AGAIN_S):
                await changed.wait()
