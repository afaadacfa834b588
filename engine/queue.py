"""The queue: in the store it is whole, in memory is a window of it.

For each job the window holds the runs at the head of its queue; when it runs low, more is read. What comes
due later (debounce, retry) stands on a timeline that is windowed in the same way. So a million waiting runs
cost disk, and starting up reads a window.

Where a job's limit is by key, a run whose key has no slot is set aside, and those behind it go on; the window then
reads on past what is aside, up to `MOST_ASIDE` runs of one job. Beyond that what is behind waits until they are fewer.
"""

from __future__ import annotations

import heapq
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime

from msgspec import Struct

from engine.decide.limits import Block
from engine.events import Event
from engine.runs import Run
from engine.store.base import QueuePlace

WINDOW = 512
"""Runs of one job that are read at a time; at most twice as many are held."""

LOW_WATER = 128
"""When fewer are left in a window, more is read."""

MOST_ASIDE = 16 * WINDOW
"""So many runs of one job, whose keys have no slot, are read past to find others."""

KEPT_DATA_BYTES = 16 * 1024
"""Events with more data than this are not kept in memory with their run, but read when it starts."""


class Waiting(Struct):
    """A queued run in the window; its event is None where it has to be read."""

    run: Run
    event: Event | None


Blocks = Callable[[Run], Block | None]
"""Tells what keeps a run from starting, or None."""


class _Lane:
    """The window of one job's queue.

    `edge` is the last place known; None means that the window holds the whole queue of the job.
    """

    __slots__ = (
        "announced", "arrived", "aside", "edge", "entries", "heap", "look_at", "parked", "reading", "set_aside",
        "taken",
    )  # fmt: skip

    def __init__(self) -> None:
        self.announced: QueuePlace | None = None
        self.heap: list[QueuePlace] = []
        self.entries: dict[str, Waiting] = {}
        self.edge: QueuePlace | None = None
        self.parked = False
        self.reading = False
        self.arrived: list[Waiting] = []
        self.taken: set[str] = set()
        """What was taken and may still be queued in what is read, as its start was not durable then."""
        self.look_at = 2 * WINDOW
        """At so many of these, those that have ended are forgotten."""
        self.aside: dict[str | None, list[QueuePlace]] = {}
        """By key: what is set aside as the key has no slot. The first of a key that has one is back in the heap."""
        self.set_aside: set[str] = set()
        """The runs that are aside."""

    def head(self) -> QueuePlace | None:
        heap = self.heap
        while heap and not self._stands(heap[0]):
            heapq.heappop(heap)
        return heap[0] if heap else None

    def _stands(self, place: QueuePlace) -> bool:
        """Tell whether a place is that of a run of the window: it may have left, or come back to another one."""
        waiting = self.entries.get(place.run)
        return waiting is not None and waiting.run.rank == place.rank

    def push(self, waiting: Waiting) -> None:
        self.entries[waiting.run.id] = waiting
        heapq.heappush(self.heap, QueuePlace(waiting.run.rank, waiting.run.id))

    @property
    def ready(self) -> int:
        """How many runs of the window are not aside."""
        return len(self.entries) - len(self.set_aside)

    @property
    def is_low(self) -> bool:
        """Whether more must be read."""
        if self.edge is None or self.reading:
            return False
        return len(self.entries) - min(len(self.set_aside), MOST_ASIDE) < LOW_WATER

    def put_aside(self, place: QueuePlace) -> None:
        """Set the run at the head aside, as its key has no slot."""
        heapq.heappop(self.heap)
        waiting = self.entries[place.run]
        heapq.heappush(self.aside.setdefault(waiting.run.limit_key, []), place)
        self.set_aside.add(place.run)
        if len(self.set_aside) > WINDOW:
            waiting.event = None

    def bring_back(self, key: str | None) -> None:
        """Bring back the first run of a key that is aside."""
        places = self.aside.get(key)
        if places is None:
            return
        while places:
            place = heapq.heappop(places)
            if self._stands(place):
                self.set_aside.discard(place.run)
                heapq.heappush(self.heap, place)
                break
        if not places:
            del self.aside[key]

    def bring_all_back(self) -> None:
        """Bring back all that is aside."""
        for places in self.aside.values():
            self.heap += places
        heapq.heapify(self.heap)
        self.aside.clear()
        self.set_aside.clear()

    def forget(self, run_id: str) -> Waiting | None:
        """Take a run out of the window, wherever in it it stands."""
        self.taken.add(run_id)
        self.set_aside.discard(run_id)
        return self.entries.pop(run_id, None)

    def trim(self) -> None:
        """Drop the far end of an overfull window; the store has it."""
        kept = WINDOW + min(len(self.set_aside), MOST_ASIDE)
        if len(self.entries) <= WINDOW + kept:
            return
        found = {*self.heap}.union(*self.aside.values())
        places = [place for place in sorted(found) if self._stands(place)]
        for place in places[kept:]:
            del self.entries[place.run]
            self.set_aside.discard(place.run)
        places = places[:kept]
        self.edge = places[-1]
        self.heap = [place for place in places if place.run not in self.set_aside]
        self.aside = {}
        for place in places:
            if place.run in self.set_aside:
                self.aside.setdefault(self.entries[place.run].run.limit_key, []).append(place)


ReadHead = Callable[[str, QueuePlace | None, int], Awaitable[Sequence[tuple[Run, Event | None]]]]


class Queue:
    """The ready runs of all jobs, in order of rank.

    `read` reads a job's queue from a place on; `is_active` tells whether a run was taken and has not ended.
    """

    def __init__(self, read: ReadHead, is_active: Callable[[str], bool]) -> None:
        self._read = read
        self._is_active = is_active
        self._lanes: dict[str, _Lane] = {}
        self._heads: list[tuple[QueuePlace, str]] = []
        self._deep: dict[str, None] = {}
        """The jobs of which the store may hold more than the window: those that are asked whether they run low."""

    def __len__(self) -> int:
        """How many runs the windows hold."""
        return sum(len(lane.entries) for lane in self._lanes.values())

    @property
    def is_quiet(self) -> bool:
        """Whether no job is in line with a run that may be taken."""
        return not self._heads

    def has(self, job: str) -> bool:
        """Tell whether runs of the job wait."""
        lane = self._lanes.get(job)
        return lane is not None and (bool(lane.entries) or lane.edge is not None or bool(lane.arrived))

    def waiting(self, job: str) -> Iterator[Run]:
        """Yield the runs of a job that the window holds, in no order."""
        lane = self._lanes.get(job)
        if lane is not None:
            yield from (waiting.run for waiting in (*lane.entries.values(), *lane.arrived))

    def has_ready(self, job: str) -> bool:
        """Tell whether runs of the job wait that are not aside."""
        lane = self._lanes.get(job)
        return lane is not None and (lane.ready > 0 or lane.edge is not None or bool(lane.arrived))

    def holds(self, job: str, run_id: str) -> bool:
        """Tell whether a run waits in the window."""
        lane = self._lanes.get(job)
        return lane is not None and run_id in lane.entries

    def offer(self, run: Run, event: Event | None) -> bool:
        """Take in a run that is queued in the store; one that is known or active already is left.

        Return whether more may be taken now, or has to be read: not where its job is parked or others stand before it.
        """
        lane = self._lanes.get(run.job)
        if lane is None:
            lane = self._lanes[run.job] = _Lane()
        if run.id in lane.entries or self._is_active(run.id):
            return False
        waiting = Waiting(run, event)
        if lane.edge is not None and QueuePlace(run.rank, run.id) > lane.edge:
            if lane.reading:
                lane.arrived.append(waiting)
            return lane.is_low
        lane.push(waiting)
        self._trim(run.job, lane)
        return self._announce(run.job, lane) or lane.is_low

    def expect(self, job: str) -> None:
        """Note, at the start, that the store may hold queued runs of a job."""
        lane = self._lanes.setdefault(job, _Lane())
        lane.edge = QueuePlace(-(2**62), "")
        self._deep[job] = None

    def remove(self, job: str, run_id: str) -> None:
        """Forget a run that was taken out of the queue in the store."""
        lane = self._lanes.get(job)
        if lane is not None:
            lane.forget(run_id)
            lane.arrived = [waiting for waiting in lane.arrived if waiting.run.id != run_id]

    def find(self, job: str, run_id: str) -> Run | None:
        """Return a run that waits in the window, or None."""
        lane = self._lanes.get(job)
        waiting = None if lane is None else lane.entries.get(run_id)
        return None if waiting is None else waiting.run

    def pick(self, job: str, run_id: str) -> Waiting | None:
        """Take one run out of its turn; None where it does not wait in the window."""
        lane = self._lanes.get(job)
        return lane.forget(run_id) if lane is not None and run_id in lane.entries else None

    def peek(self, job: str) -> Run | None:
        """Return the first run of a job that is not aside; None where the window holds none."""
        lane = self._lanes.get(job)
        head = None if lane is None else lane.head()
        return None if lane is None or head is None else lane.entries[head.run].run

    def first(self, blocks: Blocks) -> QueuePlace | None:
        """Return the place of the first run that nothing blocks.

        One whose key has no slot is set aside; of jobs that may start none at all the whole is parked. See `unpark`.
        """
        heads = self._heads
        while heads:
            place, job = heads[0]
            lane = self._lanes[job]
            if place != lane.announced:
                heapq.heappop(heads)
                continue
            head = lane.head()
            if head == place:
                block = blocks(lane.entries[place.run].run)
                if block is None:
                    return place
                if block is not Block.KEY:
                    lane.parked, lane.announced = True, None
                    heapq.heappop(heads)
                    continue
                lane.put_aside(place)
            self._reannounce(job, lane)
        return None

    def take(self, blocks: Blocks) -> Waiting | None:
        """Take the first run that nothing blocks; see `first`."""
        if self.first(blocks) is None:
            return None
        place, job = self._heads[0]
        lane = self._lanes[job]
        waiting = self._take_head(lane, place)
        if len(lane.taken) > lane.look_at and not lane.reading:
            self._forget_ended(lane)
        self._reannounce(job, lane)
        return waiting

    def take_of(self, job: str, blocks: Blocks) -> Waiting | None:
        """Take the first run of a job, whether it is parked or not; None where the window holds none that may start."""
        lane = self._lanes.get(job)
        # Its place at the front of the line is put right when that comes up.
        while lane is not None and (head := lane.head()) is not None:
            block = blocks(lane.entries[head.run].run)
            if block is None:
                return self._take_head(lane, head)
            if block is not Block.KEY:
                return None
            lane.put_aside(head)
        return None

    def _take_head(self, lane: _Lane, head: QueuePlace) -> Waiting:
        heapq.heappop(lane.heap)
        lane.taken.add(head.run)
        waiting = lane.entries.pop(head.run)
        if lane.aside:
            lane.bring_back(waiting.run.limit_key)
        return waiting

    def unpark(self, job: str) -> None:
        """Let a job take part again, as one of its slots is free."""
        lane = self._lanes.get(job)
        if lane is not None and lane.parked:
            lane.parked = False
            self._announce(job, lane)

    def unpark_key(self, job: str, key: str | None) -> None:
        """Let a job take part again, as one of its slots is free that a run with this key had."""
        lane = self._lanes.get(job)
        if lane is not None and (lane.parked or lane.aside):
            lane.parked = False
            if lane.aside:
                lane.bring_back(key)
            self._announce(job, lane)

    def unpark_all(self, job: str) -> None:
        """Let a job take part again with all its runs, as its limits are other ones."""
        lane = self._lanes.get(job)
        if lane is not None:
            lane.parked = False
            lane.bring_all_back()
            self._announce(job, lane)

    def low(self) -> list[str]:
        """Return the jobs of whose queue more must be read."""
        return [job for job in self._deep if self._lanes[job].is_low] if self._deep else []

    def is_low(self, job: str) -> bool:
        """Tell whether more of the job's queue must be read."""
        lane = self._lanes.get(job)
        return lane is not None and lane.edge is not None and lane.is_low

    async def refill(self, job: str) -> None:
        """Read more of a job's queue into its window."""
        lane = self._lanes[job]
        if lane.reading or lane.edge is None:
            return
        lane.reading = True
        edge = lane.edge
        self._forget_ended(lane)
        try:
            rows = await self._read(job, edge, WINDOW)
        finally:
            lane.reading = False
            arrived, lane.arrived = lane.arrived, []
        if lane.edge != edge:
            # The window was trimmed meanwhile: what was read, and what arrived, lies beyond its end.
            return
        if len(rows) == WINDOW:
            last = rows[-1][0]
            lane.edge = QueuePlace(last.rank, last.id)
        else:
            lane.edge = None
            self._deep.pop(job, None)
        for run, event in rows:
            if run.id not in lane.entries and run.id not in lane.taken and not self._is_active(run.id):
                lane.push(Waiting(run, event))
        for waiting in arrived:
            place = QueuePlace(waiting.run.rank, waiting.run.id)
            known = waiting.run.id in lane.entries or self._is_active(waiting.run.id)
            if not known and (lane.edge is None or place <= lane.edge):
                lane.push(waiting)
        self._trim(job, lane)
        self._announce(job, lane)

    def _trim(self, job: str, lane: _Lane) -> None:
        lane.trim()
        if lane.edge is not None:
            self._deep[job] = None

    def _forget_ended(self, lane: _Lane) -> None:
        lane.taken = {run_id for run_id in lane.taken if self._is_active(run_id)}
        lane.look_at = 2 * max(WINDOW, len(lane.taken))

    def _announce(self, job: str, lane: _Lane) -> bool:
        """Put the job in line by its head, where that is better than what stands there; return whether it is."""
        if lane.parked:
            return False
        head = lane.head()
        if head is None or (lane.announced is not None and head >= lane.announced):
            return False
        lane.announced = head
        heapq.heappush(self._heads, (head, job))
        return True

    def _reannounce(self, job: str, lane: _Lane) -> None:
        """Replace the job's place at the front of the line by its head."""
        lane.announced = lane.head()
        if lane.announced is None:
            heapq.heappop(self._heads)
        else:
            heapq.heapreplace(self._heads, (lane.announced, job))


ReadDue = Callable[[tuple[datetime, str], int], Awaitable[list[tuple[datetime, Run]]]]


class Timeline:
    """What waits for its time, the earliest first: a window of it, and more is read when it runs low.

    `edge` is the last place known; None means that the window holds all there is. Before the first `refill`
    nothing is known.
    """

    def __init__(self, read: ReadDue, is_active: Callable[[str], bool]) -> None:
        self._read = read
        self._is_active = is_active
        self._heap: list[tuple[datetime, str]] = []
        self._runs: dict[str, tuple[datetime, Run]] = {}
        self._edge: tuple[datetime, str] | None = (datetime.min.replace(tzinfo=UTC), "")
        self._reading = False
        self._arrived: list[tuple[datetime, Run]] = []

    def __len__(self) -> int:
        return len(self._runs)

    def put(self, run: Run, due_at: datetime) -> None:
        """Take in a run that waits in the store until `due_at`, or move it there; one that is active is left."""
        if self._is_active(run.id):
            return
        if self._edge is not None and (due_at, run.id) > self._edge:
            self._runs.pop(run.id, None)
            if self._reading:
                self._arrived.append((due_at, run))
            return
        self._push(run, due_at)
        if len(self._runs) > 4 * WINDOW:
            self._trim()

    def move(self, run_id: str, due_at: datetime) -> bool:
        """Move a run of the window to an earlier time; return whether it is there."""
        known = self._runs.get(run_id)
        if known is not None:
            self._push(known[1], due_at)
        return known is not None

    def postpone(self, run: Run, due_at: datetime) -> None:
        """Put back a run that was taken, for a later time that the store may not know yet.

        It stays in memory though it may lie beyond the edge: a read could pass the place where it will be.
        """
        self._push(run, due_at)

    def remove(self, run_id: str) -> None:
        """Forget a run."""
        self._runs.pop(run_id, None)
        self._arrived = [item for item in self._arrived if item[1].id != run_id]

    def next_at(self) -> datetime | None:
        """Return the earliest due time in the window, or None."""
        heap = self._heap
        while heap:
            due_at, run_id = heap[0]
            known = self._runs.get(run_id)
            if known is not None and known[0] == due_at:
                return due_at
            heapq.heappop(heap)
        return None

    def take_due(self, now: datetime) -> list[Run]:
        """Take all runs of the window that are due."""
        due = []
        while (at := self.next_at()) is not None and at <= now:
            _, run_id = heapq.heappop(self._heap)
            due.append(self._runs.pop(run_id)[1])
        return due

    @property
    def is_low(self) -> bool:
        """Whether more must be read."""
        return self._edge is not None and not self._reading and len(self._runs) < LOW_WATER

    async def refill(self) -> None:
        """Read more of what waits."""
        if self._reading or self._edge is None:
            return
        self._reading = True
        edge = self._edge
        try:
            rows = await self._read(edge, WINDOW)
        finally:
            self._reading = False
            arrived, self._arrived = self._arrived, []
        if self._edge != edge:
            # The window was trimmed meanwhile: what was read, and what arrived, lies beyond its end.
            return
        self._edge = (rows[-1][0], rows[-1][1].id) if len(rows) == WINDOW else None
        for due_at, run in rows:
            if run.id not in self._runs and not self._is_active(run.id):
                self._push(run, due_at)
        for due_at, run in arrived:
            self.put(run, due_at)

    def _push(self, run: Run, due_at: datetime) -> None:
        self._runs[run.id] = (due_at, run)
        heapq.heappush(self._heap, (due_at, run.id))

    def _trim(self) -> None:
        """Drop the far end of an overfull window; the store has it."""
        places = sorted((due_at, run_id) for run_id, (due_at, _) in self._runs.items())
        for _, run_id in places[WINDOW:]:
            del self._runs[run_id]
        self._heap = places[:WINDOW]
        self._edge = places[WINDOW - 1]
