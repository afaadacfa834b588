"""One backfill at work: what is known of it in memory, from which it is decided what to do next."""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta
from enum import Enum, auto

import anyio

from engine.backfills import Backfill, BackfillProgress, BackfillState
from engine.clock import Clock
from engine.runs import ENDED, RunState

ENDS_REMEMBERED = 256
"""So many ends of runs the rate is made of."""


class Next(Enum):
    """What a backfill needs next."""

    EMIT = auto()
    WITHDRAW = auto()
    END = auto()
    WAIT = auto()


class Work:
    """What is known of an open backfill.

    - `open`: the ids of its runs that have not ended, as far as that is known; the store knows better.
    - `holds`: why it makes no run though it could.
    - `changed`: set when there may be something to do; `over`: set when it has ended, or the engine stops.
    """

    def __init__(self, backfill: Backfill, clock: Clock) -> None:
        self.backfill = backfill
        self.instants: tuple[datetime, ...] | None = None
        self.open: set[str] = set()
        self.holds: str | None = None
        self.changed = anyio.Event()
        self.over = anyio.Event()
        self._clock = clock
        self._ends: deque[float] = deque(maxlen=ENDS_REMEMBERED)

    def next(self) -> Next:
        """Decide what it needs next, from what is known of it."""
        backfill = self.backfill
        if backfill.state is BackfillState.CANCELLING:
            return Next.WITHDRAW if self.open else Next.END
        if backfill.state is not BackfillState.RUNNING:
            return Next.WAIT
        if backfill.position < backfill.total:
            return Next.EMIT if self.room else Next.WAIT
        return Next.WAIT if self.open else Next.END

    @property
    def room(self) -> int:
        """How many more of its runs may be open."""
        return max(self.backfill.max_parallel - len(self.open), 0)

    def wake(self) -> None:
        """Have it looked at."""
        self.changed.set()

    def note_end(self, run_id: str) -> None:
        """Note that one of its runs has ended."""
        self.open.discard(run_id)
        self._ends.append(self._clock.monotonic())
        self.wake()

    def forget_rate(self) -> None:
        """Count anew how fast it goes, as it stood still."""
        self._ends.clear()

    def rate_per_s(self) -> float | None:
        """Return how many of its runs end in a second, lately; it falls while none ends."""
        if len(self._ends) < 2:
            return None
        span_s = self._clock.monotonic() - self._ends[0]
        return (len(self._ends) - 1) / span_s if span_s > 0 else None


def progress_of(backfill: Backfill, counts: dict[RunState, int], work: Work | None, now: datetime) -> BackfillProgress:
    """Return how far a backfill has come; `counts` are its runs by state, `work` is there while it is open."""
    ends = {state: count for state, count in sorted(counts.items()) if state in ENDED}
    made, running = sum(counts.values()), counts.get(RunState.RUNNING, 0)
    progress = BackfillProgress(
        backfill=backfill, ends=ends, not_run=max(backfill.position - made, 0), running=running,
        waiting=made - running - sum(ends.values()), holds=None if work is None else work.holds,
    )  # fmt: skip
    if work is None:
        return progress
    rate, expected, current = work.rate_per_s(), None, None
    if rate and backfill.state is BackfillState.RUNNING and work.holds is None:
        expected = now + timedelta(seconds=(backfill.total - progress.done) / rate)
    if work.instants is not None and backfill.position:
        current = work.instants[backfill.position - 1]
    return BackfillProgress(
        backfill=backfill, ends=ends, not_run=progress.not_run, running=running, waiting=progress.waiting,
        current=current, rate_per_s=rate, expected_end_at=expected, holds=work.holds,
    )  # fmt: skip
