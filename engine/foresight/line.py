"""The order in which runs that wait get their slots: the queue's, without its store."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from msgspec import Struct

from engine.foresight.course import Course


class Going(Struct, gc=False, eq=False, kw_only=True):
    """One run that is foreseen. All times are microseconds since 1970.

    - `number`: the how-manieth run it is.
    - `due_us`: its due instant, or when the run that it follows ended.
    - `ready_us`: since when it waits for a slot alone; `created_us`: when it came to be.
    - `waits_for`: what it waited for, in words, where it had to; `until_us`: until when, where that was known.
    - `ends_us`: when it is to end, from its start on.
    - `scheduled`: whether it is by a due instant.
    - `begun`: whether it was started once.
    - `hops`: how many runs, one caused by the other, lie before it.
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
    hops: int = 0


_Place = tuple[int, int, Going]


class Line:
    """The runs that wait, of all jobs: the lowest rank first, of equal ones the first that came.

    A job that may not start one is left aside until `unpark`, as in `engine.queue`.
    """

    def __init__(self) -> None:
        self._by_job: dict[str, list[_Place]] = {}
        self._heads: list[tuple[int, int, str]] = []
        self._announced: dict[str, tuple[int, int]] = {}
        self._parked: set[str] = set()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def has(self, job: str) -> bool:
        """Tell whether runs of a job wait."""
        return bool(self._by_job.get(job))

    def push(self, run: Going) -> None:
        """Take in a run that waits."""
        job = run.course.job.name
        heapq.heappush(self._by_job.setdefault(job, []), (run.rank, run.number, run))
        self._count += 1
        self._announce(job)

    def unpark(self, job: str) -> None:
        """Let a job take part again, as one of its slots is free."""
        if job in self._parked:
            self._parked.discard(job)
            self._announce(job)

    def take(self, may_start: Callable[[str], bool]) -> Going | None:
        """Take the first run whose job may start one."""
        heads = self._heads
        while heads:
            rank, number, job = heads[0]
            if self._announced.get(job) != (rank, number):
                heapq.heappop(heads)
                continue
            heapq.heappop(heads)
            del self._announced[job]
            if not may_start(job):
                self._parked.add(job)
                continue
            lane = self._by_job[job]
            run = heapq.heappop(lane)[2]
            self._count -= 1
            if lane:
                self._announce(job)
            else:
                del self._by_job[job]
            return run
        return None

    def waiting(self) -> list[Going]:
        """Return all that wait, in the order in which they came."""
        return sorted((place[2] for lane in self._by_job.values() for place in lane), key=lambda run: run.number)

    def remove(self, job: str, number: int) -> Going:
        """Take out a run of a job that waits, by its number."""
        lane = self._by_job[job]
        place = next(place for place in lane if place[1] == number)
        lane.remove(place)
        heapq.heapify(lane)
        self._count -= 1
        self._announced.pop(job, None)
        if lane:
            self._announce(job)
        else:
            del self._by_job[job]
        return place[2]

    def _announce(self, job: str) -> None:
        """Put a job in line by its head, where that is better than what stands there."""
        if job in self._parked or job not in self._by_job:
            return
        rank, number, _ = self._by_job[job][0]
        announced = self._announced.get(job)
        if announced is None or (rank, number) < announced:
            self._announced[job] = (rank, number)
            heapq.heappush(self._heads, (rank, number, job))
