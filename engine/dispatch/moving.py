"""Moving: the runs that are on their way from one state to the next, until that is durable."""

from __future__ import annotations

import asyncio

MOST_MOVING = 2048
"""While so many are, no more of those that are due are taken up."""


class Moving:
    """Knows which runs are on their way; nobody else moves one of these meanwhile."""

    def __init__(self) -> None:
        self._runs: set[str] = set()
        self._fewer = asyncio.Event()

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._runs

    def __len__(self) -> int:
        return len(self._runs)

    def add(self, run_id: str) -> None:
        """Note that a run is on its way."""
        self._runs.add(run_id)

    def discard(self, run_id: str) -> None:
        """Note that a run has arrived."""
        self._runs.discard(run_id)
        self._fewer.set()

    async def one_arrives(self) -> None:
        """Return when one has arrived."""
        self._fewer.clear()
        await self._fewer.wait()

    async def few(self) -> None:
        """Return when fewer than `MOST_MOVING` are on their way."""
        while len(self._runs) >= MOST_MOVING:
            await self.one_arrives()
