"""The order in which runs that wait get their slots: the queue's, without its store."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection

from msgspec import Struct

from engine.decide.limits import Place
from engine.foresight.course import Course

Lane = tuple[str, str | None]
"""The runs of a job, with the same value of its `concurrency_key` where it has one."""


class Going(Struct, gc=False, eq=False, kw_only=True):
    """One run that is foreseen. All times are microseconds since 1970.

    - `number`: the how-manieth run it is.
    - `due_us`: its due instant, or when the run that it follows ended.
    - `ready_us`: since when it waits for a slot alone; `created_us`: when it came to be.
    - `waits_for`: what it waited for, in words, where it had to; `until_us`: until when, where that was known.
    - `ends_us`: when it is to end, from its start on.
    - `scheduled`: whether it is by a due instant.
    - `begun`: whether it was started once.
    - `late`: whether it makes up for an instant that was missed; `exempt`: whether overlap does not count for it.
    """

    course: Course
    number: int
    due_us: int
    created_us: int
    ready_us: int
    rank: int
    waits_for: str = ""
    until_us: int = -1
    begun: bool = False
    started_us: int = -1
    ends_us: int = -1
    late: bool = False
    exempt: bool = False
    scheduled: bool = True
    events: int = 1
    limit_key: str | None = None

    @property
    def lane(self) -> Lane:
        """With which others it waits for a slot of its job."""
        return self.course.job.name, self.limit_key


_Entry = tuple[int, int, Going]


class Line:
    """The runs that wait, of all jobs: the lowest rank first, of equal ones the first that came.

    A lane that may not start one is left aside until `unpark`, as in `engine.queue`.
    """

    def __init__(self) -> None:
        self._by_lane: dict[Lane, list[_Entry]] = {}
        self._heads: list[tuple[int, int, Lane]] = []
        self._announced: dict[Lane, tuple[int, int]] = {}
        self._parked: set[Lane] = set()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def has(self, lane: Lane) -> bool:
        """Tell whether runs of a lane wait."""
        return bool(self._by_lane.get(lane))

    def push(self, run: Going) -> None:
        """Take in a run that waits."""
        heapq.heappush(self._by_lane.setdefault(run.lane, []), (run.rank, run.number, run))
        self._count += 1
        self._announce(run.lane)

    def unpark(self, lane: Lane) -> None:
        """Let a lane take part again, as one of its slots is free."""
        if lane in self._parked:
            self._parked.discard(lane)
            self._announce(lane)

    def unpark_jobs(self, jobs: Collection[str]) -> None:
        """Let all lanes of jobs take part again, as there is room in one of their pools."""
        for lane in [lane for lane in self._parked if lane[0] in jobs]:
            self.unpark(lane)

    def take(self, may_start: Callable[[Lane, Place], bool]) -> Going | None:
        """Take the first run that may start."""
        heads = self._heads
        while heads:
            rank, number, lane = heads[0]
            if self._announced.get(lane) != (rank, number):
                heapq.heappop(heads)
                continue
            heapq.heappop(heads)
            del self._announced[lane]
            if not may_start(lane, (rank, str(number))):
                self._parked.add(lane)
                continue
            waiting = self._by_lane[lane]
            run = heapq.heappop(waiting)[2]
            self._count -= 1
            if waiting:
                self._announce(lane)
            else:
                del self._by_lane[lane]
            return run
        return None

    def waiting(self) -> list[Going]:
        """Return all that wait, in the order in which they came."""
        return sorted((entry[2] for lane in self._by_lane.values() for entry in lane), key=lambda run: run.number)

    def remove(self, lane: Lane, number: int) -> Going:
        """Take out a run of a lane that waits, by its number."""
        waiting = self._by_lane[lane]
        entry = next(entry for entry in waiting if entry[1] == number)
        waiting.remove(entry)
        heapq.heapify(waiting)
        self._count -= 1
        self._announced.pop(lane, None)
        if waiting:
            self._announce(lane)
        else:
            del self._by_lane[lane]
        return entry[2]

    def _announce(self, lane: Lane) -> None:
        """Put a lane in line by its head, where that is better than what stands there."""
        if lane in self._parked or lane not in self._by_lane:
            return
        rank, number, _ = self._by_lane[lane][0]
        announced = self._announced.get(lane)
        if announced is None or (rank, number) < announced:
            self._announced[lane] = (rank, number)
            heapq.heappush(self._heads, (rank, number, lane))
