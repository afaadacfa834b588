"""What dispatch hears of an attempt, what it says to it, and what becomes of it without the engine."""

from __future__ import annotations

from collections.abc import Awaitable, Collection
from datetime import datetime
from typing import Protocol

from msgspec.structs import replace

from engine.attending import Attendant
from engine.decide.attempts import AttemptEnd
from engine.dispatch.active import Active
from engine.dispatch.processes import ProcessNotes
from engine.events import Event
from engine.jobs import Job
from engine.plugin import Outcome
from engine.runs import Run

LEFT = "left"
"""Why an attempt is cut off that goes on by itself: the engine stops, and the next start takes it up."""


class Keeping(Protocol):
    """What dispatch needs where attempts are to outlive the engine."""

    def take_up(self, run: Run, job: Job, events: tuple[Event, ...], attendant: Attendant, /) -> Awaitable[Outcome]:
        """Follow an attempt that another engine process began to its end."""
        ...

    def end(self, run: Run, /) -> Awaitable[None]:
        """End all processes of an attempt that another engine process began."""
        ...

    def forget(self, run_id: str, /) -> None:
        """Remove what an attempt was to be taken up by: how it ended is durable."""
        ...


class Attendance(Attendant):
    """Attends the attempt of a run that has a slot."""

    __slots__ = ("_active", "_process_notes")

    def __init__(self, active: Active, process_notes: ProcessNotes) -> None:
        self._active = active
        self._process_notes = process_notes

    @property
    def let_go(self) -> bool:
        return self._active.why == LEFT

    def process(self, pid: int) -> None:
        self._process_notes.take(self._active, pid)

    def used(
        self, cpu_s: float | None, peak_bytes: int | None, *, ended_at: datetime | None = None
    ) -> None:  # fmt: skip
        active = self._active
        active.ended_at = ended_at
        active.cpu_s = active.cpu_s if cpu_s is None else cpu_s
        active.peak_bytes = active.peak_bytes if peak_bytes is None else max(peak_bytes, active.peak_bytes or 0)


def with_usage(end: AttemptEnd, active: Active) -> AttemptEnd:
    """Return the end of an attempt with what its processes used, as far as that is known."""
    if active.cpu_s is None and active.peak_bytes is None:
        return end
    attempt = replace(end.attempt, cpu_s=active.cpu_s, peak_bytes=active.peak_bytes)
    if active.adopted and active.ended_at is not None:
        # By the clock of then: that may have been put back since.
        ended_at = min(max(active.ended_at, attempt.started_at), attempt.finished_at)
        attempt = replace(attempt, finished_at=ended_at)
    return replace(end, attempt=attempt)


def processes_to_end(active: Collection[Active]) -> list[int]:
    """Return the ids of the processes that end with the engine."""
    return [one.process for one in active if one.process is not None and not one.keeps]


def left_s(run: Run, timeout_s: float, now: datetime) -> float:
    """Return how much time an attempt has left that began before this engine process did."""
    taken_s = 0.0 if run.started_at is None else (now - run.started_at).total_seconds()
    return min(max(timeout_s - taken_s, 0.0), timeout_s)
