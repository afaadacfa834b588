"""The journal: the one writer. Changes that wait together become durable together (group commit).

Whoever changes state hands a change to `submit` and awaits the future. Changes take effect in the order of
the calls: so a slot that is given back and taken anew is, at every commit, held at most once.

A batch is handed to the store when nothing is being written and the event loop has brought no further change
for a few turns. There is no timer: an idle engine waits some microseconds, a busy one gathers what its
clients send together.

When the store can't write, what came from outside (`Accept`) is refused, so that its sender keeps it;
everything else is about work that has happened or is under way, and waits in its order until the store is
back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from engine.audits import NOTING, Audit
from engine.clock import Clock
from engine.errors import EngineError, StoreDamaged, StoreUnavailable
from engine.metrics.figures import SHORT_S, SIZES, Histogram
from engine.store.base import Result
from engine.store.changes import Accept, Change

log = logging.getLogger("engine.journal")

LARGEST_BATCH = 512
"""Changes in one transaction."""

QUIET_TURNS, ENOUGH = 4, 64
"""A batch begins after so many turns of the event loop without a new change, or when so many wait. Three turns are
what a request that has arrived takes to become a change. One that comes alone, as the one before it did, does not
wait for others."""

MOST_WAITING = 10_000
"""Changes that may wait to be written; beyond it new events are refused."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0

_Item = tuple[Change, "asyncio.Future[Any]", Audit | None]


class Submitted(asyncio.Future[Any]):
    """The answer to an `Accept`: who is cancelled while waiting for it learns it first.

    Its runs and windows have to be handed on or undone. It comes soon, as nothing is accepted while the store is
    away; the results of other changes may take as long as that, and don't keep anybody from being cancelled.
    """

    def cancel(self, msg: Any = None) -> bool:
        """Do nothing: the change is written or refused all the same."""
        return False


class Writable(Protocol):
    """What the journal needs of a store."""

    async def apply(self, changes: Sequence[Change], notes: Mapping[int, Audit] | None = None) -> list[Result]:
        """Make changes durable, with rows of the audit log; see `Store.apply`."""
        ...

    def tidy(self) -> None:
        """Start to tidy up, as nothing waits."""
        ...


class Journal:
    """Puts what waits into one transaction, again and again, and wakes all that waited for it."""

    def __init__(self, store: Writable, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._waiting: list[_Item] = []
        self._writing: asyncio.Future[list[Result]] | None = None
        self._gathering = False
        self._singly = 0
        self._last_size = 0
        self._closing = False
        self._ended = False
        self._changed = asyncio.Event()
        self.failure: EngineError | None = None
        """Why the store can't write now; None while it can."""
        self.refusing: EngineError | None = None
        """Why no new event is taken, although the store can write; None while they are."""
        self.on_written: Callable[[list[tuple[Change, Any]]], None] | None = None
        """Told of what has become durable, before those who wait for it are; it must not raise."""
        self.commits = 0
        self.changes = 0
        self.took_s, self.sizes = Histogram(SHORT_S), Histogram(SIZES)
        """How long each commit took, and how many changes were in it."""

    @property
    def depth(self) -> int:
        """How many changes wait to be written."""
        return len(self._waiting)

    def submit(self, change: Change, audit: Audit | None = None) -> asyncio.Future[Any]:
        """Put a change in line and return a future of its result.

        It is done once the change is written or refused. That of an `Accept` can't be cancelled: a task that is
        cancelled while it awaits the future goes on, with CancelledError, when the future is done.

        `audit` is a row of the audit log that is written with the change; without one it is that of the call that is
        being answered, if there is one that has made no change yet.

        The future raises StoreUnavailable where the store refuses an `Accept` now, StoreDamaged when the
        store has failed for good, and Conflict where the change can't be made.
        """
        loop = asyncio.get_running_loop()
        accept = change if isinstance(change, Accept) else None
        future: asyncio.Future[Any] = loop.create_future() if accept is None else Submitted(loop=loop)
        if self._ended:
            future.set_exception(self.failure or StoreUnavailable("the engine has stopped"))
        elif self.failure is not None and (accept is not None or isinstance(self.failure, StoreDamaged)):
            future.set_exception(type(self.failure)(str(self.failure)))
        elif self.refusing is not None and accept is not None and accept.entries:
            future.set_exception(type(self.refusing)(str(self.refusing)))
        elif accept is not None and len(self._waiting) >= MOST_WAITING:
            future.set_exception(StoreUnavailable("too many events wait to be written; try again in a moment"))
        else:
            if audit is None and (note := NOTING.get()) is not None:
                audit = note.take(future)
            self._waiting.append((change, future, audit))
            if self._writing is None and not self._gathering:
                self._begin_soon()
        return future

    async def run(self) -> None:
        """See to it that what is submitted is written, until `close` and until all is; then return.

        Returns early, with `failure` set, when the store was found damaged.
        """
        try:
            await self._see_to_it()
        finally:
            self._ended = True
            self._give_up(self.failure or StoreUnavailable("the engine has stopped"))

    async def _see_to_it(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not isinstance(self.failure, StoreDamaged):
            if self._closing and self._writing is None:
                if not self._waiting or self.failure is not None:
                    return
                self._begin()
            elif self.failure is None:
                pause_s = FIRST_PAUSE_S
            elif self._writing is None:
                await self._clock.sleep(pause_s)
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
                self._begin()
            await self._changed.wait()
            self._changed.clear()

    def fail(self, error: StoreDamaged) -> None:
        """Write nothing more: the store was found damaged. What waits is refused, and `run` returns."""
        log.critical("The store failed; nothing more is written", extra={"action": "store_damaged"})
        self.failure = error
        self._give_up(error)
        self._changed.set()

    def close(self) -> None:
        """Let `run` write what waits, and return."""
        self._closing = True
        self._changed.set()

    def _begin_soon(self) -> None:
        self._gathering = True
        asyncio.get_running_loop().call_soon(self._gather, 0, 0)

    def _gather(self, seen: int, quiet: int) -> None:
        """Begin a batch once the event loop brings nothing more; called at each of its turns until then."""
        count = len(self._waiting)
        quiet = quiet + 1 if count == seen else 0
        if quiet < QUIET_TURNS and count < ENOUGH and not (count == 1 == self._last_size):
            asyncio.get_running_loop().call_soon(self._gather, count, quiet)
            return
        self._gathering = False
        if self.failure is None and self._waiting and self._writing is None:
            self._begin()

    def _begin(self) -> None:
        """Hand what waits to the store; nothing, to see whether it is back."""
        size = LARGEST_BATCH
        if self._singly:
            size, self._singly = 1, self._singly - 1
        batch, self._waiting = self._waiting[:size], self._waiting[size:]
        self._last_size = len(batch)
        changes = [change for change, _, _ in batch]
        notes = {place: audit for place, (_, _, audit) in enumerate(batch) if audit is not None}
        applying = self._store.apply(changes, notes) if notes else self._store.apply(changes)
        began_s = self._clock.monotonic()
        writing = self._writing = asyncio.ensure_future(applying)
        writing.add_done_callback(lambda done: self._end(batch, done, began_s))

    def _end(self, batch: list[_Item], done: asyncio.Future[list[Result]], began_s: float) -> None:
        """Take the outcome of a batch, and go on with what has gathered meanwhile."""
        self._writing = None
        error = StoreUnavailable("the store was closed") if done.cancelled() else done.exception()
        if error is None:
            if batch:
                self.took_s.add(self._clock.monotonic() - began_s)
                self.sizes.add(len(batch))
            self._settle(batch, done.result())
        elif isinstance(error, StoreDamaged):
            _raise(batch, error)
            self.fail(error)
            return
        elif isinstance(error, StoreUnavailable):
            self._refuse(batch, error)
            return
        else:
            self._isolate(batch, error)
        if self._waiting:
            # Those who were just answered send their next now: it goes along.
            self._begin_soon()
        else:
            self._store.tidy()
            if self._closing:
                self._changed.set()

    def _isolate(self, batch: list[_Item], error: BaseException) -> None:
        """Find the change that can't be written at all, so that it harms nothing but itself."""
        if len(batch) > 1:
            self._singly = len(batch)
            self._waiting = [*batch, *self._waiting]
            return
        log.error("A change can't be written", exc_info=error, extra={"action": "change_refused"})
        _raise(batch, error)

    def _settle(self, batch: list[_Item], results: list[Result]) -> None:
        if self.failure is not None and not isinstance(self.failure, StoreDamaged):
            log.info("The store writes again", extra={"action": "store_back"})
            self.failure = None
            self._changed.set()
        self.commits += bool(batch)
        self.changes += len(batch)
        if self.on_written is not None:
            self.on_written([(change, result) for (change, _, _), result in zip(batch, results, strict=True)])
        for (_, future, _), result in zip(batch, results, strict=True):
            if future.done():
                continue
            if isinstance(result, EngineError):
                future.set_exception(result)
            else:
                future.set_result(result)

    def _refuse(self, batch: list[_Item], error: StoreUnavailable) -> None:
        """Refuse the events that wait; keep everything else, in its order, for the next try."""
        if self.failure is None:
            log.error("The store can't write: %s", error, extra={"action": "store_away"})
        self.failure = error
        kept: list[_Item] = []
        for item in [*batch, *self._waiting]:
            change, future, _ = item
            if not isinstance(change, Accept):
                kept.append(item)
            elif not future.done():
                future.set_exception(StoreUnavailable(str(error)))
        self._waiting = kept
        self._changed.set()

    def _give_up(self, error: EngineError) -> None:
        items, self._waiting = self._waiting, []
        _raise(items, error)


def _raise(items: list[_Item], error: BaseException) -> None:
    for _, future, _ in items:
        if not future.done():
            future.set_exception(error)
