"""A clock that stands still until it is told to go on."""

from __future__ import annotations

import heapq
from datetime import UTC, datetime, timedelta
from itertools import count

import anyio
from anyio import wait_all_tasks_blocked

TURNS = 20
START = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


class VirtualClock:
    """Time for tests and simulations: `advance` moves it, and wakes who sleeps, in order."""

    def __init__(self, start: datetime = START) -> None:
        self._now = start
        self._monotonic = 0.0
        self._sleepers: list[tuple[float, int, anyio.Event]] = []
        self._order = count()

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await anyio.lowlevel.checkpoint()
            return
        woken = anyio.Event()
        item = (self._monotonic + seconds, next(self._order), woken)
        heapq.heappush(self._sleepers, item)
        try:
            await woken.wait()
        finally:
            if not woken.is_set():
                self._sleepers.remove(item)
                heapq.heapify(self._sleepers)

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass: each sleeper wakes at its time, and does what it can before time goes on."""
        end = self._monotonic + seconds
        await _settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            self._pass(self._sleepers[0][0] - self._monotonic)
            while self._sleepers and self._sleepers[0][0] <= self._monotonic:
                heapq.heappop(self._sleepers)[2].set()
            await _settle()
        self._pass(end - self._monotonic)

    def step(self, seconds: float) -> None:
        """Step the wall clock, forward or back, as an operator or NTP does; nobody wakes, monotonic time stays."""
        self._now += timedelta(seconds=seconds)

    def _pass(self, seconds: float) -> None:
        self._monotonic += seconds
        self._now += timedelta(seconds=seconds)


async def _settle() -> None:
    """Return when all tasks wait for something; most do after a few turns, and looking for it takes far longer."""
    for _ in range(TURNS):
        await anyio.lowlevel.checkpoint()
    await wait_all_tasks_blocked()
