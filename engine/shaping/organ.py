"""What shaping does in its own time: it throttles what has gathered, and ends what has waited too long.

A run that expires is ended at its instant, wherever it waits; and marks that have no effect any more are forgotten.
What throttles is in `engine.shaping.throttle`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

import anyio

from engine.clock import LONGEST_SLEEP_S, Clock, sleep_or_wake
from engine.decide.expiry import expired
from engine.decide.rules import Rule
from engine.errors import StoreError, StoreUnavailable
from engine.journal import Journal
from engine.marks import MarkKeeper
from engine.runs import Run, Step
from engine.shaping.throttle import RETRY_S, Throttle
from engine.store.base import Store
from engine.store.changes import Accept

log = logging.getLogger("engine.shaping")

FORGET_EVERY_S = 60.0
"""How often marks without effect are looked for."""

AT_ONCE = 256
"""So many runs that have expired are read at a time."""


class Waiting(Protocol):
    """What is needed of dispatch."""

    def take_back(self, run: Run, *, waits: bool) -> None:
        """Take back a run that the throttle took on; `waits` tells whether it does so still."""
        ...

    def expire(self, run: Run, step: Step) -> None:
        """End a run that has waited too long, unless it is about to begin."""
        ...


class Shaper:
    """The part of shaping that waits; `rules` are the triggers by name."""

    def __init__(
        self, *, clock: Clock, store: Store, journal: Journal, marks: MarkKeeper, rule_of: Callable[[str], Rule | None]
    ) -> None:  # fmt: skip
        self._clock = clock
        self._store = store
        self._journal = journal
        self._throttle = Throttle(
            clock=clock, store=store, journal=journal, marks=marks, rule_of=rule_of,
            take_back=lambda run, *, waits: self.dispatch.take_back(run, waits=waits),
        )  # fmt: skip
        self.throttles = self._throttle.throttles
        self.holds_back = self._throttle.holds_back
        self.note_passing = self._throttle.note_passing
        self.catch_up = self._throttle.catch_up
        self._expires_sooner = asyncio.Event()
        self._looks_at: datetime | None = None
        self.dispatch: Waiting

    def note_expiry(self, at: datetime) -> None:
        """Take note that a run expires then."""
        if self._looks_at is None or at < self._looks_at:
            self._looks_at = at
            self._expires_sooner.set()

    async def run(self) -> None:
        """Work until cancelled."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._throttle.run, name="shaping: throttle")
            group.start_soon(self._expire, name="shaping: expiry")
            group.start_soon(self._forget, name="shaping: marks")

    # Expiry

    async def _expire(self) -> None:
        """End what has waited too long: at the start, whenever something expires, and where that changes."""
        while True:
            self._expires_sooner.clear()
            try:
                runs = await self._store.expiring(limit=AT_ONCE)
            except StoreUnavailable:
                await self._clock.sleep(RETRY_S)
                continue
            now = self._clock.now()
            over = [run for run in runs if run.expires_at is not None and run.expires_at <= now]
            for run in over:
                self.dispatch.expire(run, expired(run, now))
            if over:
                # They are on their way to their ends; what is to begin just now has its slot.
                self._looks_at = None
                await self._clock.sleep(RETRY_S)
                continue
            self._looks_at = runs[0].expires_at if runs else None
            left_s = LONGEST_SLEEP_S if self._looks_at is None else (self._looks_at - now).total_seconds()
            await sleep_or_wake(self._clock, min(left_s, LONGEST_SLEEP_S), self._expires_sooner)

    # Marks

    async def _forget(self) -> None:
        while True:
            try:
                while await self._store.has_marks_before(self._clock.now()):
                    await self._journal.submit(Accept(entries=(), forget_marks=self._clock.now()))
            except StoreError as error:
                log.debug("Marks are forgotten later: %s", error, extra={"action": "forget_failed"})
            await self._clock.sleep(FORGET_EVERY_S)
