"""The line: what is ready and waits for slots, and who is next; it counts the slots.

What people fire and what comes by itself stand in one line by rank; beside it is that of backfills, which gets the
slots that the other leaves. Whoever can't have what it needs (a slot of its job, its key, its pools) lets the others
pass: see `engine.decide.limits` for the one exception.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from engine.clock import LONGEST_SLEEP_S, Clock
from engine.decide.lanes import Room
from engine.decide.limits import FIRST_RANK, Block, Shortage, Slots
from engine.errors import StoreUnavailable
from engine.events import Event
from engine.jobs import Job
from engine.lanes import BackfillLane, Front
from engine.queue import Queue, Waiting
from engine.runs import Lane, Origin, Run
from engine.store.base import QueuePlace, Store

RETRY_READ_S = 1.0


class Line:
    """Takes in what is queued in the store, and gives out who is to start.

    `pump` is called where somebody may be able to start who was not before; `spawn` runs something as part of dispatch.
    """

    def __init__(
        self, *, clock: Clock, store: Store, slots: Slots, is_active: Callable[[str], bool],
        pump: Callable[[], None], spawn: Callable[..., None],
    ) -> None:  # fmt: skip
        self._clock = clock
        self._store = store
        self.slots = slots
        self._is_active = is_active
        self._pump = pump
        self._spawn = spawn
        self.front = Front(self._queue_of(Lane.LIVE), self._queue_of(Lane.MANUAL))
        self._backfills = BackfillLane(clock, self._queue_of(Lane.BACKFILL))
        self._backfill_waits = asyncio.Event()

    # Slots

    def claim(self, run_id: str, job: str, lane: Lane, key: str | None) -> bool:
        """Take a slot for a new run, if it can have all that it needs, and nobody waits for it."""
        slots = self.slots
        if self.front.has_ready(job) or slots.blocks(job, key) is not None or not slots.may_take(lane):
            return False
        slots.take(run_id, job, lane, key)
        return True

    def count(self, run: Run) -> None:
        """Count a slot of a run that was taken from the line."""
        self.slots.take(run.id, run.job, run.lane, run.limit_key)

    def give(self, run: Run) -> None:
        """Take the slot of a run back, and let those take part again who wait for what it had."""
        if run.origin is Origin.BACKFILL:
            self._backfills.ended(run)
        pools = self.slots.give(run.id)
        self.front.unpark_key(run.job, run.limit_key)
        if self._backfills.waiting:
            self._backfills.unpark_key(run.job, run.limit_key)
        for pool in pools:
            self._unpark_users(pool)

    def _unpark_users(self, pool: str) -> None:
        for job in self.slots.users(pool):
            self.front.unpark(job)
            self._backfills.unpark(job)

    def limit(self, job: Job) -> None:
        """Take in a job, or another version of one, with its limits."""
        self.slots.limit(job)
        self.front.unpark_all(job.name)
        self._backfills.unpark_all(job.name)

    def resize(self, *, most: int | None = None, pools: Mapping[str, int] | None = None) -> None:
        """Have another number of slots, or other pools."""
        if most is not None:
            self.slots.resize(most)
        for name, limit in (pools or {}).items():
            self.slots.set_pool(name, limit)
            self._unpark_users(name)

    def blocks(self, run: Run) -> Block | None:
        """Return what keeps a waiting run from starting, or None."""
        return self.slots.blocks(run.job, run.limit_key, (run.rank, run.id))

    def shortage(self, run: Run) -> Shortage | None:
        """Return the limit that a waiting run waits for, or None."""
        return self.slots.shortage(run.job, run.limit_key, (run.rank, run.id))

    # Who waits

    def offer(self, run: Run, event: Event | None) -> bool:
        """Take in a run that is queued in the store; return whether there may be more to do for `pump` now."""
        if run.origin is not Origin.BACKFILL:
            return self.front.offer(run, event)
        self._backfills.offer(run, event)
        self._backfill_waits.set()
        return True

    def remove(self, run: Run) -> None:
        """Forget a run that was taken out of the queue in the store."""
        if run.origin is Origin.BACKFILL:
            self._backfills.remove(run)
        else:
            self.front.remove(run.job, run.id)

    def turned_away(self, run: Run) -> None:
        """Note that a run that was taken from the line gets no slot."""
        if run.origin is Origin.BACKFILL:
            self._backfills.ended(run)

    def count_anew(self) -> None:
        """Count from now on since when backfills wait, as it was no live work that kept them."""
        self._backfills.count_anew()

    # Who is next

    def take(self) -> Waiting | None:
        """Take the next run, if there is one that may start; its slot is not counted yet."""
        slots = self.slots
        if slots.taken >= slots.most:
            return None
        if (kept := slots.kept_for) and (gone := [run for run, job in kept.items() if not self._waits(job, run)]):
            self._keep_no_more(gone)
        if self._backfills.waiting:
            return self._take_beside_backfills()
        return self.front.take(self.blocks, slots.may_take)

    def _waits(self, job: str, run_id: str) -> bool:
        return self.front.holds(job, run_id) or self._backfills.holds(job, run_id)

    def _keep_no_more(self, runs: Sequence[str]) -> None:
        """Keep no pools for runs that do not wait any more."""
        for run in runs:
            self.slots.keep_no_more(run)
        for pool in self.slots.pools:
            self._unpark_users(pool)

    def pick(self, job: str, run_id: str) -> Waiting | None:
        """Take one run out of its turn, where it may start; None where it may not, or does not wait in a window."""
        slots = self.slots
        if slots.taken >= slots.most or not slots.may_take(Lane.MANUAL):
            return None
        run = self.front.find(job, run_id)
        return None if run is None or self.blocks(run) is not None else self.front.pick(job, run_id)

    def _take_beside_backfills(self) -> Waiting | None:
        """Take the next run of either lane, as `engine.decide.lanes` says."""
        slots, engine = self.slots, Room(self.slots.taken, self.slots.most)
        if slots.has_own(Lane.BACKFILL):
            engine = Room(slots.taken, None)  # a free slot is kept for them: they need leave none
        elif not slots.may_take(Lane.BACKFILL):
            engine = Room(slots.most, slots.most)
        if slots.pools:
            for run in self._backfills.kept_too_long():
                slots.blocks(run.job, run.limit_key, (FIRST_RANK, run.id))  # its pools are kept for it from now on
        return (
            self._backfills.take_ahead(engine, slots.room_of, self.blocks)
            or self.front.take(self.blocks, slots.may_take)
            or self._backfills.take_idle(engine, slots.room_of, self.blocks_new)
        )

    def blocks_new(self, run: Run) -> Block | None:
        """Return what keeps a run from starting that stands behind all others."""
        return self.slots.blocks(run.job, run.limit_key)

    # The windows of the queues

    async def begin(self) -> None:
        """Read the heads of all queues."""
        for lane in (Lane.LIVE, Lane.MANUAL):
            for job in await self._store.queued_jobs(lane):
                self.front.of(lane).expect(job)
        for queue, job in self.front.low():
            await queue.refill(job)
        for job in await self._store.queued_jobs(Lane.BACKFILL):
            self._backfills.expect(job)
            self._backfill_waits.set()
        for job in self._backfills.low():
            await self._backfills.refill(job)

    def refill_after(self, run: Run) -> None:
        """Read more of the queue that a run was taken from, where it runs low."""
        queue = self._backfills if run.origin is Origin.BACKFILL else self.front.of(run.lane)
        if queue.is_low(run.job):
            self._spawn(self._refill, queue, run.job)

    def refill(self) -> None:
        """Read more of all queues that run low."""
        for queue, job in self.front.low():
            self._spawn(self._refill, queue, job)
        for job in self._backfills.low() if self._backfills.waiting else ():
            self._spawn(self._refill, self._backfills, job)

    async def _refill(self, lane: Queue | BackfillLane, job: str) -> None:
        while lane.is_low(job):
            try:
                await lane.refill(job)
            except StoreUnavailable:
                await self._clock.sleep(RETRY_READ_S)
                continue
            self._pump()

    async def follow_backfills(self) -> None:
        """Look again when live work may have kept a backfill from every slot for too long; until cancelled."""
        while True:
            await self._backfill_waits.wait()
            self._backfill_waits.clear()
            while self._backfills.waiting:
                await self._clock.sleep(min(self._backfills.look_in_s(), LONGEST_SLEEP_S))
                self._pump()

    def _queue_of(self, lane: Lane) -> Queue:
        async def read(job: str, after: QueuePlace | None, limit: int) -> Sequence[tuple[Run, Event]]:
            return await self._store.queue_head(job, after=after, limit=limit, lane=lane)

        return Queue(read, self._is_active)
