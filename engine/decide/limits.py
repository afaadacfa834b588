"""The limits on how much runs at once: that of the engine, and those of the jobs."""

from __future__ import annotations

from engine.jobs import Job


class Slots:
    """Counts who runs, and tells who may start. `most` is how many runs may have a slot, in all jobs together."""

    __slots__ = ("_limits", "_taken_by", "most", "taken")

    def __init__(self, most: int) -> None:
        self.most = most
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

    def take(self, job: str) -> None:
        """Count one more run of a job."""
        self.taken += 1
        self._taken_by[job] = self._taken_by.get(job, 0) + 1

    def give(self, job: str) -> None:
        """Count one run of a job less."""
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
