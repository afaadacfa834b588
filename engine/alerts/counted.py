"""Ends of runs, counted for alerts: those that are heard of, and those of before the start."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol

import msgspec

from engine.alerts.kept import FAILURES, UNTIL, streak_values
from engine.clock import Clock, rfc3339
from engine.decide.ends import Ends, Streak
from engine.runs import Run, RunState
from engine.store.base import Store

RECALLED = 5_000
"""So many of the latest runs are counted anew at a start."""

LONGEST_RECALLED = timedelta(days=1)


class Counts(Protocol):
    """What counts the ends of runs, besides this."""

    def ended(self, run: Run, state: RunState, code: str, at: datetime, duration_s: float | None) -> int:
        """Count the end of a run, and return how many it counts as."""
        ...


class Counted:
    """What is known of ends. `counts` hears of the ends that this hears of; `remember` makes values durable."""

    def __init__(
        self, *, clock: Clock, store: Store, counts: Counts, remember: Callable[[Mapping[str, Any]], Awaitable[None]]
    ) -> None:
        self._store = store
        self._counts = counts
        self._remember = remember
        self.ends = Ends()
        self._early: list[tuple[str, str, RunState, datetime, int]] | None = []
        """What ended before it was recalled what had ended before."""
        self._began_at = clock.now()
        self._until: datetime | None = None

    def ended(self, run: Run, state: RunState, code: str, at: datetime, duration_s: float | None) -> None:
        """Count the end of a run, and have it counted elsewhere, too."""
        count = self._counts.ended(run, state, code, at, duration_s)
        if self._early is not None:
            self._early.append((run.trigger, run.job, state, at, count))
        else:
            self.ends.add(run.trigger, run.job, state, at, count)

    def watch(self, rates: Collection[float], misses: Collection[float]) -> None:
        """Count all ends over these times, and what was missed over those."""
        self.ends.watch(rates, misses)

    def take_up(self, key: str, value: Any) -> None:
        """Take up one value that is remembered, where it is one of these."""
        if key.startswith(FAILURES):
            self.ends.streaks[key.removeprefix(FAILURES)] = msgspec.convert(value, Streak)
        elif key == UNTIL:
            self._until = datetime.fromisoformat(value)

    @property
    def is_recalled(self) -> bool:
        """Whether what ended before the start is counted."""
        return self._early is None

    async def recall(self) -> None:
        """Count what ended before this start, as far as alerts look back; raise StoreUnavailable."""
        lengths = [timedelta(seconds=over_s) for over_s in (*self.ends.windows, *self.ends.misses)]
        longest = min(max(lengths, default=timedelta()), LONGEST_RECALLED)
        until = self._until or self._began_at - LONGEST_RECALLED
        since = max(min(until, self._began_at - longest), self._began_at - LONGEST_RECALLED)
        runs = await self._store.ended_since(since, limit=RECALLED)
        early, self._early = self._early or [], None
        for run in sorted(runs, key=_end_of):
            at = _end_of(run)
            if at > self._began_at:
                continue
            for windows in (self.ends.windows, self.ends.misses if run.state is RunState.MISSED else {}):
                for window in windows.values():
                    window.add(run.trigger, run.job, run.state, at, run.instants)
            if at > until:
                self.ends.note(run.trigger, run.state, at)
        for trigger, job, state, at, count in early:
            self.ends.add(trigger, job, state, at, count)

    async def remember(self) -> None:
        """Have the failures in a row that changed remembered; raise StoreUnavailable."""
        if not self.ends.changed:
            return
        changed, self.ends.changed = self.ends.changed, set()
        values = streak_values(self.ends.streaks, changed)
        if self.ends.last_at is not None:
            values[UNTIL] = rfc3339(self.ends.last_at)
        try:
            await self._remember(values)
        except BaseException:
            self.ends.changed |= changed
            raise


def _end_of(run: Run) -> datetime:
    return run.finished_at or run.created_at
