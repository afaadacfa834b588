"""The processes of running runs, stored for the time after a crash."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any

from engine.clock import Clock
from engine.dispatch.active import Active
from engine.journal import Journal
from engine.processes import age_s, family_of, kernel_start, make_likely_victims, peak_memory
from engine.store.changes import NoteProcess

NOTE_AFTER_S = 0.05
"""The process of a run that lasts longer is stored, so that its group is found after a crash."""

ROUGHLY_S = 0.5
SAMPLE_S = 1.0
"""How often the memory of those is looked at."""


class ProcessNotes:
    """Stores the processes of runs that last; those of short ones would cost more than the runs.

    A process is known by its environment from its start, whatever the store says; what is stored finds the group
    of one that dropped its environment or is gone.
    """

    def __init__(self, clock: Clock, journal: Journal, active: Mapping[str, Active]) -> None:
        self._clock = clock
        self._journal = journal
        self._active = active
        self._waiting: deque[tuple[float, Active]] = deque()
        self._wanted = asyncio.Event()
        self._lasting: dict[str, Active] = {}
        self._lasts = asyncio.Event()

    def take(self, active: Active, pid: int) -> None:
        """Take note of the process of a run that has just begun."""
        active.process = pid
        if not self._waiting:
            self._wanted.set()
        self._waiting.append((self._clock.monotonic() + NOTE_AFTER_S, active))

    async def sample(self) -> None:
        """Look at what lasting processes use, until cancelled; ended ones tell it where it is more than ours."""
        while True:
            await self._lasts.wait()
            await self._clock.sleep(SAMPLE_S)
            for run_id, active in list(self._lasting.items()):
                if self._active.get(run_id) is not active or active.process is None:
                    del self._lasting[run_id]
                    continue
                peak = peak_memory(family_of(active.process))
                active.peak_bytes = max(peak or 0, active.peak_bytes or 0) or None
            if not self._lasting:
                self._lasts.clear()

    async def follow(self) -> None:
        """Store what has lasted long enough, until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while self._waiting:
                due_s, active = self._waiting[0]
                if active.run.id in self._active and (left_s := due_s - self._clock.monotonic()) > 0:
                    await self._clock.sleep(left_s)
                    continue
                self._waiting.popleft()
                pid = active.process
                if pid is None or self._active.get(active.run.id) is not active:
                    continue
                started = kernel_start(pid)
                if started is not None:
                    family = family_of(pid)
                    make_likely_victims(family)
                    if age_s(started) <= self._clock.monotonic() - due_s + NOTE_AFTER_S + ROUGHLY_S:
                        # It is this run's alone: a worker process has had others.
                        active.peak_bytes = peak_memory(family)
                        self._lasting[active.run.id] = active
                        self._lasts.set()
                    change = NoteProcess(run=active.run.id, pid=pid, started=started)
                    # Not awaited: it comes before the end of this attempt in any case.
                    self._journal.submit(change).add_done_callback(_looked)


def _looked(future: asyncio.Future[Any]) -> None:
    """Take note of a result that nobody waits for."""
    if not future.cancelled():
        future.exception()
