"""The limits on how much runs at once: that of the engine, those of the jobs, and what is kept for lanes."""

from __future__ import annotations

from collections.abc import Mapping

from engine.decide.lanes import Shares
from engine.jobs import Job
from engine.runs import Lane


class Slots:
    """Counts who runs, and tells who may start. `most` is how many runs may have a slot, in all jobs together.

    `kept` are the slots that are kept for lanes.
    """

    __slots__ = ("_limits", "_shares", "_taken_by", "most", "taken")

    def __init__(self, most: int, kept: Mapping[Lane, int] | None = None) -> None:
        self.most = most
        self._shares = Shares(most, kept) if kept and any(kept.values()) else None
        self.taken = 0
        """How many runs have one now."""
        self._taken_by: dict[str, int] = {}
        self._limits: dict[str, int] = {}

    def limit(self, job: Job) -> None:
        """Take in a job, or another version of one, with its limit; nothing of a disabled one starts."""
        if not job.enabled:
            self._limits[job.name] = 0
        elif job.concurrency is not None:
            self._limits[job.name] = job.concurrency
        else:
            self._limits.pop(job.name, None)

    def taken_by(self, job: str) -> int:
        """Return how many runs of a job have a slot now."""
        return self._taken_by.get(job, 0)

    def limit_of(self, job: str) -> int | None:
        """Return how many runs of a job may have a slot; None for no limit of its own."""
        return self._limits.get(job)

    def may_start(self, job: str) -> bool:
        """Tell whether one more run of a job may start now."""
        if self.taken >= self.most:
            return False
        limit = self._limits.get(job)
        return limit is None or self._taken_by.get(job, 0) < limit

    def may_take(self, lane: Lane) -> bool:
        """Tell whether a run of a lane may have a free slot."""
        return self._shares is None or self._shares.may_take(lane)

    def has_own(self, lane: Lane) -> bool:
        """Tell whether a slot is free that is kept for a lane."""
        return self._shares is not None and self._shares.has_own(lane)

    def take(self, job: str, lane: Lane = Lane.LIVE) -> None:
        """Count one more run of a job."""
        if self._shares is not None:
            self._shares.take(lane)
        self.taken += 1
        self._taken_by[job] = self._taken_by.get(job, 0) + 1

    def give(self, job: str, lane: Lane = Lane.LIVE) -> None:
        """Count one run of a job less."""
        if self._shares is not None:
            self._shares.give(lane)
        self.taken -= 1
        left = self._taken_by[job] - 1
        if left:
            self._taken_by[job] = left
        else:
            del self._taken_by[job]

    def said_of_wait(self, job: str) -> str:
        """Say what a run of a job that may not start waits for."""
        if self.taken >= self.most:
            return "a slot of the engine"
        return f"a slot of job {job}"
