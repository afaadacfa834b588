"""The processes of running runs, stored for the time after a crash."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any

from engine.clock import Clock
from engine.dispatch.active import Active
from engine.journal import Journal
from engine.processes import kernel_start
from engine.store.changes import NoteProcess

NOTE_AFTER_S = 0.05
"""The process of a run that lasts longer is stored, so that its group is found after a crash."""


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

    def take(self, active: Active, pid: int) -> None:
        """Take note of the process of a run that has just begun."""
        active.process = pid
        self._waiting.append((self._clock.monotonic() + NOTE_AFTER_S, active))
        self._wanted.set()

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
                    change = NoteProcess(run=active.run.id, pid=pid, started=started)
                    # Not awaited: it comes before the end of this attempt in any case.
                    self._journal.submit(change).add_done_callback(_looked)


def _looked(future: asyncio.Future[Any]) -> None:
    """Take note of a result that nobody waits for."""
    if not future.cancelled():
        future.exception()
