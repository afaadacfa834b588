"""Pauses: which triggers run nothing for now, since when, until when, and why. They outlive the engine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from engine.clock import Clock
from engine.journal import Journal
from engine.store.base import Store
from engine.store.changes import Accept, Memory
from engine.triggers import Pause

log = logging.getLogger("engine.pauses")

PAUSES_SOURCE = "engine:pauses"
"""Under this id the store remembers them, by trigger."""

PAGE = 1_000


class Pauses:
    """The pauses by trigger. What is durable holds at once, also where whoever asked for it has gone meanwhile."""

    def __init__(self, clock: Clock, journal: Journal) -> None:
        self._clock = clock
        self._journal = journal
        self._known: dict[str, Pause] = {}
        self.known: Mapping[str, Pause] = self._known
        """Those that were made, for all to see; one whose end has come stays until it is replaced."""

    def now(self, trigger: str) -> Pause | None:
        """Return the pause that holds for a trigger now."""
        pause = self._known.get(trigger)
        return pause if pause is not None and pause.holds(self._clock.now()) else None

    async def load(self, store: Store) -> None:
        """Take up what is stored."""
        after: str | None = None
        while page := await store.memory(PAUSES_SOURCE, after=after, limit=PAGE):
            self._known |= {trigger: msgspec.convert(value, Pause) for trigger, value in page.items()}
            after = next(reversed(page))

    async def pause(self, trigger: str, *, reason: str, until: datetime | None) -> Pause:
        """Pause a trigger, durably. One that is paused keeps its `since`, and has the new reason and end.

        Raises StoreUnavailable.
        """
        held = self.now(trigger)
        pause = Pause(reason=reason, since=self._clock.now() if held is None else held.since, until=until)
        await self._store(trigger, pause)
        log.info(
            "Trigger %s is paused: %s", trigger, reason or "no reason given",
            extra={"action": "paused", "trigger": trigger},
        )  # fmt: skip
        return pause

    async def resume(self, trigger: str) -> bool:
        """Let a trigger run again, durably; return whether it was paused. Raises StoreUnavailable."""
        held = self.now(trigger)
        if trigger in self._known:
            await self._store(trigger, None)
        if held is not None:
            log.info("Trigger %s is resumed", trigger, extra={"action": "resumed", "trigger": trigger})
        return held is not None

    def forgetting(self, trigger: str) -> Memory | None:
        """Return what makes the store forget the pause of a trigger that is removed; None where there is none."""
        return _memory(trigger, None) if trigger in self._known else None

    def forget(self, trigger: str) -> None:
        """Forget a pause that the store has forgotten."""
        self._known.pop(trigger, None)

    def _store(self, trigger: str, pause: Pause | None) -> asyncio.Future[Any]:
        stored = self._journal.submit(Accept(entries=(), memory=_memory(trigger, pause)))
        stored.add_done_callback(self._taker(trigger, pause))
        return stored

    def _taker(self, trigger: str, pause: Pause | None) -> Callable[[asyncio.Future[Any]], None]:
        def take(stored: asyncio.Future[Any]) -> None:
            if stored.exception() is not None:
                return
            if pause is None:
                self._known.pop(trigger, None)
            else:
                self._known[trigger] = pause

        return take


def _memory(trigger: str, pause: Pause | None) -> Memory:
    return Memory(source=PAUSES_SOURCE, values={trigger: None if pause is None else msgspec.to_builtins(pause)})
