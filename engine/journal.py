"""The journal: the one writer. Changes that wait together become durable together (group commit).

Whoever changes state hands a change to `submit` and awaits the future. Changes take effect in the order of the calls:
so a slot that is given back and taken anew is, at every commit, held at most once.

When the store can't write, what came from outside (`Accept`) is refused, so that its sender keeps it; everything else
is about work that has happened or is under way, and waits in its order until the store is back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Protocol

from engine.clock import Clock
from engine.errors import EngineError, StoreDamaged, StoreUnavailable
from engine.store.base import Result
from engine.store.changes import Accept, Change

log = logging.getLogger("engine.journal")

LARGEST_BATCH = 512
"""Changes in one transaction."""

MOST_WAITING = 10_000
"""Changes that may wait to be written; beyond it new events are refused."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0


class Writable(Protocol):
    """What the journal needs of a store."""

    async def apply(self, changes: Sequence[Change]) -> list[Result]: ...

    async def idle(self) -> None: ...


class Journal:
    """Puts what waits into one transaction, again and again, and wakes all that waited for it."""

    def __init__(self, store: Writable, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._waiting: list[tuple[Change, asyncio.Future[Any]]] = []
        self._wake = asyncio.Event()
        self._closing = False
        self._singly = 0
        self.failure: EngineError | None = None
        """Why the store can't write now; None while it can."""
        self.commits = 0
        self.changes = 0

    @property
    def depth(self) -> int:
        """How many changes wait to be written."""
        return len(self._waiting)

    def submit(self, change: Change) -> asyncio.Future[Any]:
        """Put a change in line and return a future of its result.

        The future raises StoreUnavailable where the store refuses an `Accept` now, StoreDamaged when the store
        has failed for good, and Conflict where the change can't be made.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if isinstance(self.failure, StoreDamaged):
            future.set_exception(self.failure)
        elif isinstance(change, Accept) and (self.failure is not None or len(self._waiting) >= MOST_WAITING):
            future.set_exception(
                StoreUnavailable(str(self.failure or "too many events wait to be written; try again in a moment"))
            )
        else:
            self._waiting.append((change, future))
            self._wake.set()
        return future

    async def run(self) -> None:
        """Write what is submitted until `close`; then write the rest and return."""
        pause_s = FIRST_PAUSE_S
        while self._waiting or not self._closing:
            if not self._waiting:
                await self._store.idle()
                if not self._waiting and not self._closing:
                    self._wake.clear()
                    await self._wake.wait()
                continue
            size = LARGEST_BATCH
            if self._singly:
                size, self._singly = 1, self._singly - 1
            batch, self._waiting = self._waiting[:size], self._waiting[size:]
            try:
                results = await self._store.apply([change for change, _ in batch])
            except StoreUnavailable as error:
                self._refuse(batch, error)
                if self._closing:
                    self._give_up(error)
                    return
                await self._clock.sleep(pause_s)
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
                continue
            except StoreDamaged as error:
                log.critical("The store failed; nothing more is written", extra={"action": "store_damaged"})
                self.failure = error
                self._waiting = [*batch, *self._waiting]
                self._give_up(error)
                return
            except Exception as error:
                # A change that can't be written at all: find it, so that it harms nothing but itself.
                if len(batch) > 1:
                    self._singly = len(batch)
                    self._waiting = [*batch, *self._waiting]
                    continue
                log.exception("A change can't be written", extra={"action": "change_refused"})
                if not batch[0][1].done():
                    batch[0][1].set_exception(error)
                continue
            if self.failure is not None:
                log.info("The store writes again", extra={"action": "store_back"})
                self.failure = None
            pause_s = FIRST_PAUSE_S
            self.commits += 1
            self.changes += len(batch)
            for (_, future), result in zip(batch, results, strict=True):
                if future.done():
                    continue
                if isinstance(result, EngineError):
                    future.set_exception(result)
                else:
                    future.set_result(result)

    def fail(self, error: StoreDamaged) -> None:
        """Write nothing more: the store was found damaged. What waits is refused, and `run` returns."""
        self.failure = error
        self._give_up(error)
        self.close()

    def close(self) -> None:
        """Let `run` write what waits, and return."""
        self._closing = True
        self._wake.set()

    def _refuse(self, batch: list[tuple[Change, asyncio.Future[Any]]], error: StoreUnavailable) -> None:
        """Refuse the events that wait; put everything else back in line."""
        if self.failure is None:
            log.error("The store can't write: %s", error, extra={"action": "store_away"})
        self.failure = error
        kept = []
        for change, future in [*batch, *self._waiting]:
            if not isinstance(change, Accept):
                kept.append((change, future))
            elif not future.done():
                future.set_exception(StoreUnavailable(str(error)))
        self._waiting = kept

    def _give_up(self, error: EngineError) -> None:
        waiting, self._waiting = self._waiting, []
        for _, future in waiting:
            if not future.done():
                future.set_exception(error)
