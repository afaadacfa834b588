"""The times by which attempts have to end: one heap and one task for all of them."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Mapping

from engine.clock import LONGEST_SLEEP_S, Clock, sleep_or_wake
from engine.dispatch.active import Active
from engine.runs import Run


class Deadlines:
    """Tells of each attempt that is still running when its time is over, by the monotonic clock."""

    def __init__(self, clock: Clock, active: Mapping[str, Active], is_over: Callable[[Active], None]) -> None:
        self._clock = clock
        self._active = active
        self._is_over = is_over
        self._heap: list[tuple[float, str, int]] = []
        self._sooner = asyncio.Event()

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, run: Run, timeout_s: float) -> None:
        """Give the attempt that a run is at `timeout_s` from now."""
        if len(self._heap) > 64 + 4 * len(self._active):
            self._heap = [item for item in self._heap if item[1] in self._active]
            heapq.heapify(self._heap)
        heapq.heappush(self._heap, (self._clock.monotonic() + timeout_s, run.id, run.attempt))
        if self._heap[0][1] == run.id:
            self._sooner.set()

    async def follow(self) -> None:
        """Tell of what is over, until cancelled."""
        while True:
            now = self._clock.monotonic()
            while self._heap and self._heap[0][0] <= now:
                _, run_id, attempt = heapq.heappop(self._heap)
                active = self._active.get(run_id)
                if active is not None and active.run.attempt == attempt:
                    self._is_over(active)
            self._sooner.clear()
            left_s = self._heap[0][0] - now if self._heap else LONGEST_SLEEP_S
            await sleep_or_wake(self._clock, min(left_s, LONGEST_SLEEP_S), self._sooner)
