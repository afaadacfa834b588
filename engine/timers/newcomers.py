"""The cursors of timers that are new: stored many at a time, and beside everything else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Any

import anyio

from engine.clock import Clock, rfc3339
from engine.errors import EngineError, StoreDamaged
from engine.store.changes import Cursor
from engine.timers.state import HANDED_ON, LONGEST_RETRY_S, RETRY_S, State

NEW_CURSORS = 1_000
"""So many are stored in one change."""

Begin = Callable[[Sequence[Cursor]], Awaitable[Any]]


class Newcomers:
    """Remembers since when timers are there, so that what they miss from then on is known.

    `begin` makes cursors durable.
    """

    def __init__(self, clock: Clock, begin: Begin) -> None:
        self._clock = clock
        self._begin = begin
        self._waiting: dict[str, State] = {}
        self._came = anyio.Event()

    def add(self, state: State) -> None:
        """Store a timer's cursor: it has none, or goes on from elsewhere."""
        self._waiting[state.trigger.name] = state
        self._came.set()

    def forget(self, trigger: str) -> None:
        """Store none for a trigger: it has fired, or is gone."""
        self._waiting.pop(trigger, None)

    async def run(self) -> None:
        """Store what is added, until cancelled or until the store has failed for good."""
        pause_s = RETRY_S
        while True:
            await self._came.wait()
            self._came = anyio.Event()
            while self._waiting:
                # One that is being dealt with gets its cursor by that, which a later one would undo.
                free = (state for state in self._waiting.values() if state.ticket != HANDED_ON)
                chosen = [(state, state.since) for state in islice(free, NEW_CURSORS)]
                if not chosen:
                    await self._clock.sleep(pause_s)
                    continue
                try:
                    await self._begin([Cursor(source=state.source, value=rfc3339(since)) for state, since in chosen])
                except StoreDamaged:
                    return
                except EngineError:
                    await self._clock.sleep(pause_s)
                    pause_s = min(pause_s * 2, LONGEST_RETRY_S)
                    continue
                pause_s = RETRY_S
                for state, since in chosen:
                    if state.since == since and self._waiting.get(state.trigger.name) is state:
                        del self._waiting[state.trigger.name]
