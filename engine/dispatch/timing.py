"""What waits for its time: windows, throttles, retries, held runs; and what becomes of a run whose time has come."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from msgspec import Struct
from msgspec.structs import replace

from engine.clock import EPOCH, LONGEST_SLEEP_S, Clock, sleep_or_wake
from engine.decide.expiry import expired, is_over
from engine.decide.overlap import REPLACES, START, Action, has_begun, said_of_place, said_of_skip
from engine.decide.priority import rank
from engine.decide.shaping import Windows, after_window, said_of_turn
from engine.dispatch.active import Shaping
from engine.dispatch.line import RETRY_READ_S
from engine.dispatch.moving import Moving
from engine.errors import Conflict, StoreError, StoreUnavailable
from engine.events import Event
from engine.gates import Gates
from engine.journal import Journal
from engine.overlaps import Overlaps
from engine.queue import Timeline, Waiting
from engine.runs import Origin, Run, RunState, Step
from engine.store.base import Store
from engine.store.changes import Enqueue

log = logging.getLogger("engine.dispatch")

SETTLES = timedelta(seconds=0.05)
"""A run whose time has come, but not the answer of the store on what it has, is looked at again so much later."""

MOST_KEPT = 512
"""So many events of runs that wait are kept in memory, each of at most `engine.queue.KEPT_DATA_BYTES`."""


class Ways(Struct, frozen=True, kw_only=True):
    """Where a run goes whose time has come.

    - `start`: takes a slot for it and starts it, and tells whether it may, and there was one; `offer`: takes it in as
      queued; `end`: ends it.
    - `spawn`: runs something as part of dispatch.
    """

    start: Callable[[Waiting], bool]
    offer: Callable[[Run, Event | None], None]
    end: Callable[[Run, Step], None]
    spawn: Callable[..., None]


class Timing:
    """Follows the timeline, a window of all that is due later."""

    def __init__(
        self, *, clock: Clock, journal: Journal, store: Store, timeline: Timeline, windows: Windows, shaper: Shaping,
        gates: Gates, overlaps: Overlaps, moving: Moving, ageing_s: float, ways: Ways,
    ) -> None:  # fmt: skip
        self._clock = clock
        self._journal = journal
        self._store = store
        self._timeline = timeline
        self._windows = windows
        self._shaper = shaper
        self._gates = gates
        self._overlaps = overlaps
        self._moving = moving
        self._ageing_s = ageing_s
        self._ways = ways
        self._changed = asyncio.Event()
        self._sleeps_until = EPOCH
        self._kept: dict[str, Event] = {}
        """The events of the latest runs that wait: what is due soon need not be read again. See `MOST_KEPT`."""

    def wait(self, run: Run, event: Event | None) -> None:
        """Take in a run that waits in the store until its `due_at`, with the event that brought it about, where that is
        known."""
        if event is not None:
            if len(self._kept) >= MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[run.id] = event
        if run.due_at is not None:
            self._timeline.put(run, run.due_at)
            if run.due_at < self._sleeps_until:
                self._changed.set()

    def hasten(self, run_id: str, due_at: datetime) -> None:
        """Take note that a pending run is due earlier."""
        if not self._timeline.move(run_id, due_at):
            self._ways.spawn(self._take_up, run_id)
        elif due_at < self._sleeps_until:
            self._changed.set()

    async def _take_up(self, run_id: str) -> None:
        """Take in a pending run that lies beyond the window of the timeline and is due earlier now."""
        while True:
            try:
                run = await self._store.run(run_id)
            except StoreUnavailable:
                await self._clock.sleep(RETRY_READ_S)
                continue
            if run is not None and run.state is RunState.PENDING:
                self.wait(run, None)
            return

    async def follow(self) -> None:
        """Promote what is due, until cancelled."""
        while True:
            if self._timeline.is_low:
                try:
                    await self._timeline.refill()
                except StoreUnavailable:
                    await self._clock.sleep(RETRY_READ_S)
            now = self._clock.now()
            for run in self._timeline.take_due(now):
                self._promote(run, now)
            if self._timeline.is_low:
                # What is due may go on beyond the window; so may what is being moved, so it has to end at times.
                await self._moving.few()
                continue
            self._changed.clear()
            now, next_at = self._clock.now(), self._timeline.next_at()
            latest = now + timedelta(seconds=LONGEST_SLEEP_S)
            self._sleeps_until = latest if next_at is None else min(next_at, latest)
            if self._sleeps_until > now:
                await sleep_or_wake(self._clock, (self._sleeps_until - now).total_seconds(), self._changed)

    def _promote(self, run: Run, now: datetime) -> None:
        """Make a run whose time has come ready: running where a slot is free, else queued; ask about a held one."""
        if run.state is RunState.HELD:
            self._gates.ask_due(run)
            return
        window = self._windows.of_run(run.id)
        if window is not None:
            if window.due_at > now or not window.is_settled:
                self._timeline.postpone(run, max(window.due_at, now + SETTLES))
                return
            self._windows.close(window)
            if (step := window.close(now)) is not None:
                self._ways.end(run, step)
                return
            run = after_window(run, window)
            if self._shaper.throttles(run):
                self._moving.add(run.id)
                return
        if run.expires_at is not None and is_over(run, now):
            self._ways.end(run, expired(run, now))
            return
        met = START
        if not has_begun(run):
            met = self._overlaps.decide(run.job, run.trigger, run.origin, key=run.limit_key)
        if met.action is Action.SKIP:
            reason = said_of_skip(met, run.limit_key)
            self._ways.end(run, Step(at=now, state=RunState.SKIPPED, code="overlap", reason=reason))
            return
        if run.code == "throttle" and self._shaper.holds_back(run, now):
            self._moving.add(run.id)
            return
        may_start = met.action is not Action.REPLACE and run.origin is not Origin.BACKFILL
        event = self._kept.pop(run.id, None)
        if may_start and self._ways.start(Waiting(run, event)):
            return
        code, text = said_of_turn(run)
        code, waits = (REPLACES, said_of_place(met)) if met.action is Action.REPLACE else (code, "waits for a slot")
        step = Step(at=now, state=RunState.QUEUED, code=code, reason=f"{text}; {waits}")
        ready = replace(
            run, state=RunState.QUEUED, due_at=None, rank=rank(now, run.priority, self._ageing_s), code=code,
            trace=(*run.trace, step),
        )  # fmt: skip
        self._overlaps.add(ready)
        self._moving.add(run.id)
        self._ways.spawn(self._enqueue, ready, step, event)

    async def _enqueue(self, run: Run, step: Step, event: Event | None) -> None:
        queued = self._journal.submit(Enqueue(run=run.id, step=step, rank=run.rank))
        if run.throttled is not None:
            self._shaper.note_passing(run, queued)
        try:
            await queued
        except StoreError as error:
            log.warning("%s", error, extra={"action": "enqueue_failed", "run": run.id})
            return
        except Conflict:
            return
        finally:
            self._moving.discard(run.id)
        if not self._overlaps.was_replaced(run.id):
            self._ways.offer(run, event)
