"""Strays: what programs leave running in sessions of its own, found by its mark after their runs have ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection

from anyio.to_thread import run_sync

from engine.clock import Clock
from engine.errors import StoreUnavailable
from engine.processes import end_leftovers, find_marked
from engine.runs import ENDED
from engine.store.base import Store

log = logging.getLogger("engine.run")

LOOK_AFTER_S = 1.0
"""Looks through /proc are at least so far apart, and one serves all runs that ended since the last."""

LEAST_REST = 200
"""After a look that took long, a rest of so many times as long."""

SURE_AFTER_S = 0.2
"""What shows a run's mark so much later still is left over: worker processes change it when a call has ended."""

MOST_TOLD = 5


class Strays:
    """Ends what ended runs have left, once a second at most; `is_active` tells which runs have not ended.

    A process that dropped the variable `mark` from its environment and has left its session is not found.
    """

    def __init__(self, *, clock: Clock, mark: str, is_active: Callable[[str], bool]) -> None:
        self._clock = clock
        self._mark = mark
        self._is_active = is_active
        self._ended: set[str] = set()
        self._wanted = asyncio.Event()

    def ended(self, run_id: str) -> None:
        """Take note that an attempt that had processes has ended."""
        self._ended.add(run_id)
        if not self._wanted.is_set():
            self._wanted.set()

    async def run(self, store: Store) -> None:
        """End strays until cancelled; at first those that an earlier engine process did not come to."""
        await self._look_back(store)
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            await self._clock.sleep(LOOK_AFTER_S)
            begun_s = self._clock.monotonic()
            ended, self._ended = self._ended, set()
            await self._sweep(ended)
            await self._clock.sleep(LEAST_REST * (self._clock.monotonic() - begun_s))

    async def _look_back(self, store: Store) -> None:
        for run_id in await run_sync(find_marked, self._mark, None):
            try:
                run = await store.run(run_id)
            except StoreUnavailable:
                return
            if run is not None and run.state in ENDED:
                self.ended(run_id)

    async def _sweep(self, ended: Collection[str]) -> None:
        for _ in range(2):
            found = await run_sync(find_marked, self._mark, ended)
            ended = {run_id for run_id in found if not self._is_active(run_id)}
            if not ended:
                return
            await self._clock.sleep(SURE_AFTER_S)
        left = {run_id: (None, None) for run_id in ended if not self._is_active(run_id)}
        for run_id, pids in (await end_leftovers(left, mark=self._mark, clock=self._clock)).items():
            few = ", ".join(map(str, pids[:MOST_TOLD])) + (", …" if len(pids) > MOST_TOLD else "")
            log.warning(
                "A run that has ended had left %s running, which %s ended: %s",
                "a process" if len(pids) == 1 else f"{len(pids)} processes", "is" if len(pids) == 1 else "are", few,
                extra={"action": "strays_ended", "run": run_id},
            )  # fmt: skip
