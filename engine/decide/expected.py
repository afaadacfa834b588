"""When what waits is expected to start: an estimate, by how long runs of each job took, and by the slots there are.

What runs and what stands ahead is work, shared by the slots: the engine's, those of the job where it has a limit, and
what its pools hold, of which a run takes as much as it weighs. A run is expected to start when the work ahead of it is
done, at the one that takes longest. (It is the mean wait of a fluid queue with several servers. What comes with a
higher priority, fails or is held makes it wrong, which is why it is called expected.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

from msgspec import Struct

WEIGHT = 0.2
"""How much the latest run of a job counts in its length; the mean goes along with a change within some ten runs."""


class Lengths:
    """How long runs of each job take: a mean in which the latest count most."""

    def __init__(self) -> None:
        self._mean_s: dict[str, float] = {}

    def note(self, job: str, length_s: float) -> None:
        """Take in how long a run took."""
        known = self._mean_s.get(job)
        self._mean_s[job] = length_s if known is None else known + WEIGHT * (length_s - known)

    def of(self, job: str) -> float | None:
        """Return how long a run of a job is expected to take; None where that is not known."""
        return self._mean_s.get(job)


class Going(Struct, frozen=True):
    """A run that has a slot: its job, and for how long it has run."""

    job: str
    for_s: float


class Prospect:
    """What stands ahead in the line, run by run, and when the next is expected to start.

    `slots` is how many runs may have a slot, `limits` how many of each job may, where it has a limit; `keyed` are the
    jobs whose limit is by key, of which nothing can be told. `pools` is how much each pool holds, `needs` how much of
    them a run of a job takes. `ahead` counts by job what stands ahead of the first that is asked for.
    """

    def __init__(
        self,
        *,
        lengths: Lengths,
        going: Sequence[Going],
        ahead: Mapping[str, int],
        slots: int,
        limits: Mapping[str, int],
        keyed: Collection[str] = (),
        pools: Mapping[str, int] = MappingProxyType({}),
        needs: Mapping[str, Mapping[str, int]] = MappingProxyType({}),
    ) -> None:
        self._lengths = lengths
        self._slots = slots
        self._limits = limits
        self._keyed = keyed
        self._pools = pools
        self._needs = needs
        self._count = Counter(ahead)
        self._work_s: dict[str, float | None] = {}
        for job, count in ahead.items():
            self._add(job, lengths.of(job), count)
        for one in going:
            length_s = lengths.of(one.job)
            self._add(one.job, None if length_s is None else max(length_s - one.for_s, 0.0))
            self._count[one.job] += 1

    def wait_s(self, job: str) -> float | None:
        """Return in how many seconds the next run in line, one of this job, may start; None where that can't be told.

        It then stands ahead of what is asked for next.
        """
        waits_s = [self._shared(self._count.total(), self._sum_s(dict.fromkeys(self._work_s, 1)), self._slots)]
        if (limit := self._limits.get(job)) is not None:
            waits_s.append(self._shared(self._count[job], self._work_s.get(job, 0.0), limit))
        waits_s += [self._at_pool_s(pool, weight) for pool, weight in self._needs.get(job, {}).items()]
        if job in self._keyed:
            waits_s.append(None)
        self._add(job, self._lengths.of(job))
        self._count[job] += 1
        known_s = [wait_s for wait_s in waits_s if wait_s is not None]
        return max(known_s) if len(known_s) == len(waits_s) else None

    def _at_pool_s(self, pool: str, weight: int) -> float | None:
        """Return in how many seconds a pool has room for a run of such a weight; None where it never has."""
        holds = self._pools[pool]
        weights = {job: weighs for job, needs in self._needs.items() if (weighs := needs.get(pool))}
        taken = sum(self._count[job] * weighs for job, weighs in weights.items())
        return self._shared(taken + weight - 1, self._sum_s(weights), holds if weight <= holds else 0)

    def _sum_s(self, weights: Mapping[str, int]) -> float | None:
        """Return the work ahead of the jobs that weigh something, each by its weight; None where one's is unknown."""
        whole_s = 0.0
        for job, weight in weights.items():
            work_s = self._work_s.get(job, 0.0)
            if work_s is None:
                return None
            whole_s += work_s * weight
        return whole_s

    def _add(self, job: str, length_s: float | None, count: int = 1) -> None:
        before_s = self._work_s.get(job, 0.0)
        self._work_s[job] = None if length_s is None or before_s is None else before_s + length_s * count

    @staticmethod
    def _shared(count: int, work_s: float | None, slots: int) -> float | None:
        """Return when one of so many slots is free of work; at once where there are more slots than runs."""
        if count < slots:
            return 0.0
        return None if work_s is None or not slots else work_s / slots
