"""How runs ended of late: counts over sliding times, and failures in a row. Its size does not grow with what ran."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from datetime import datetime

from msgspec import Struct

from engine.runs import FAILURES, RunState

PARTS = 60
"""A time is counted in so many parts: what is too old by less than one of them counts still."""


class Count(Struct, kw_only=True):
    """How many runs ended, and how."""

    succeeded: int = 0
    failed: int = 0
    missed: int = 0

    @property
    def judged(self) -> int:
        """Those that succeeded or failed."""
        return self.succeeded + self.failed

    def add(self, state: RunState, count: int) -> None:
        """Count ends."""
        if state is RunState.SUCCEEDED:
            self.succeeded += count
        elif state in FAILURES:
            self.failed += count
        elif state is RunState.MISSED:
            self.missed += count

    def take(self, other: Count) -> None:
        """Add what another one counted."""
        self.succeeded += other.succeeded
        self.failed += other.failed
        self.missed += other.missed


class Part(Struct):
    """What was counted in one part of the time, which began at `began_s` (seconds since 1970)."""

    began_s: float
    count: Count


class Window:
    """Ends in the last `over_s` seconds, by trigger and job."""

    def __init__(self, over_s: float) -> None:
        self.over_s = over_s
        self._part_s = over_s / PARTS
        self._parts: dict[tuple[str, str], deque[Part]] = {}

    def add(self, trigger: str, job: str, state: RunState, at: datetime, count: int) -> None:
        """Count an end."""
        parts = self._parts.get((trigger, job))
        if parts is None:
            parts = self._parts[trigger, job] = deque()
        at_s = at.timestamp()
        # What ended before the last part, as the clock was set back, counts there.
        if not parts or at_s - parts[-1].began_s >= self._part_s:
            parts.append(Part(at_s - at_s % self._part_s, Count()))
        parts[-1].count.add(state, count)

    def counts(self, now: datetime) -> Iterator[tuple[str, str, Count]]:
        """Yield what ended in the time up to now, by trigger and job; what did not is forgotten."""
        since_s = now.timestamp() - self.over_s
        # A part that seems to lie in the future was counted before the clock was set back: it is of now.
        ahead_s = now.timestamp() + self._part_s
        for key, parts in list(self._parts.items()):
            while parts and parts[0].began_s + self._part_s <= since_s:
                parts.popleft()
            for part in parts:
                part.began_s = min(part.began_s, ahead_s)
            if not parts:
                del self._parts[key]
                continue
            whole = Count()
            for part in parts:
                whole.take(part.count)
            yield *key, whole


def watch(windows: dict[float, Window], lengths: Collection[float]) -> None:
    """Have windows of these lengths, and no others; those that are there go on."""
    for gone in windows.keys() - set(lengths):
        del windows[gone]
    for over_s in lengths:
        if over_s not in windows:
            windows[over_s] = Window(over_s)


class Streak(Struct, frozen=True, kw_only=True):
    """How many runs of a trigger failed in a row, and since when."""

    count: int
    since: datetime


class Ends:
    """What is known of ends of runs: windows of several lengths, failures in a row, and the last success."""

    def __init__(self) -> None:
        self.windows: dict[float, Window] = {}
        """What all ends are counted in."""
        self.misses: dict[float, Window] = {}
        """What only due instants that were missed are counted in."""
        self.streaks: dict[str, Streak] = {}
        self.changed: set[str] = set()
        """The triggers whose failures in a row are yet to be stored."""
        self.successes: dict[str, datetime] = {}
        """When the last run succeeded, of the triggers that were asked for."""
        self.last_at: datetime | None = None

    def watch(self, lengths: Collection[float], misses: Collection[float]) -> None:
        """Count over these times, and over no others."""
        watch(self.windows, lengths)
        watch(self.misses, misses)

    def add(self, trigger: str, job: str, state: RunState, at: datetime, count: int = 1) -> None:
        """Count an end, or several."""
        for window in self.windows.values():
            window.add(trigger, job, state, at, count)
        if state is RunState.MISSED:
            for window in self.misses.values():
                window.add(trigger, job, state, at, count)
        self.note(trigger, state, at)

    def note(self, trigger: str, state: RunState, at: datetime) -> None:
        """Note an end for what lies in a row, and for the last success."""
        if self.last_at is None or at > self.last_at:
            self.last_at = at
        if state in FAILURES:
            known = self.streaks.get(trigger)
            self.streaks[trigger] = Streak(
                count=1 if known is None else known.count + 1, since=at if known is None else known.since
            )
            self.changed.add(trigger)
        elif state is RunState.SUCCEEDED:
            if self.streaks.pop(trigger, None) is not None:
                self.changed.add(trigger)
            if trigger in self.successes:
                self.successes[trigger] = max(at, self.successes[trigger])
