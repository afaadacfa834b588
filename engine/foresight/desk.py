"""The desk: it answers what a running engine is asked about the future, without holding it up.

A long computation works in a thread, step by step, and one after the other: the event loop has its turns meanwhile, and
whoever leaves ends his.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any

import anyio
from anyio.to_thread import run_sync

from engine.clock import Clock
from engine.config import Config, load_sent
from engine.foresight.durations import past_lengths
from engine.foresight.forecast import Forecast
from engine.foresight.plan import Horizon, plan
from engine.foresight.questions import Question
from engine.foresight.simulation import World
from engine.foresight.tally import Item
from engine.registry import Registry
from engine.store.base import Store

LONGEST = timedelta(days=366)
"""No question that the API takes is about a longer time."""

MOST_INSTANTS = 100_000
"""No more instants are foreseen for it."""

STEP = 250
"""So many instants are foreseen in one step: some milliseconds."""

PAUSE_S = 0.001
"""Between two steps the interpreter is left to others."""

SENT_NAME = "sent.toml"
"""What problems of a configuration that was sent name as its file."""


class Page:
    """Keeps the items of one page of all that are foreseen."""

    def __init__(self, first: int, limit: int) -> None:
        self.items: list[Item] = []
        self.count = 0
        self._first, self._limit = first, limit

    def see(self, item: Item) -> None:
        """Take note of the next item."""
        if self._first <= self.count < self._first + self._limit:
            self.items.append(item)
        self.count += 1

    @property
    def next(self) -> str | None:
        """Where the next page begins, None at the end."""
        beyond = self._first + self._limit
        return str(beyond) if self.count > beyond else None


class Desk:
    """Answers `simulate` and `plan`.

    `world` tells how the engine is now; `show` returns a setting as JSON and masks what is in its `secrets`.
    """

    def __init__(
        self, *, config: Config, registry: Registry, environment: Mapping[str, str], clock: Clock, store: Store,
        world: Callable[[], World], show: Callable[..., Any],
    ) -> None:  # fmt: skip
        self._config = config
        self._registry = registry
        self._environment = environment
        self._clock = clock
        self._store = store
        self._show = show
        self._turn = anyio.Lock()
        self.world = world

    def take_config(self, config: Config) -> None:
        """Compare with another configuration from now on."""
        self._config = config

    async def simulate(self, question: Question, world: World, page: Page) -> dict[str, Any]:
        """Return what would happen, and the items of a page.

        Raises TooMany beyond `MOST_INSTANTS`, and StoreUnavailable where past runs can't be read.
        """
        past = past_lengths(await self._store.stats(list(world.triggers))) if question.past else {}
        async with self._turn:
            forecast = await run_sync(partial(Forecast, question, world, past, most=MOST_INSTANTS, see=page.see))
            while not await run_sync(forecast.go_on, STEP):
                await self._clock.sleep(PAUSE_S)
            view = await run_sync(forecast.view)
        return {**view, "items": page.items, "next": page.next}

    async def plan(self, sent: bytes, *, days: int, count: int) -> dict[str, Any]:
        """Return what a configuration would change that somebody sent.

        No file is read for it but the calendars and schemas that the engine reads too, so secrets that stand in files
        are not compared. Raises ConfigError.
        """
        async with self._turn:
            new = await run_sync(self._read, sent)
            now = self._clock.now()
            horizon = Horizon(start=now, end=now + timedelta(days=days), count=count)
            show = partial(self._show, secrets=self._config.secrets | new.secrets)
            return await run_sync(partial(plan, self._config, new, horizon, show=show, secrets_known=False))

    async def compare(self, old: Config, new: Config, *, days: int = 7, count: int = 20) -> dict[str, Any]:
        """Return what a configuration changes of another one, and which due instants in so many days."""
        async with self._turn:
            now = self._clock.now()
            horizon = Horizon(start=now, end=now + timedelta(days=days), count=count)
            show = partial(self._show, secrets=old.secrets | new.secrets)
            return await run_sync(partial(plan, old, new, horizon, show=show, secrets_known=True))

    def _read(self, sent: bytes) -> Config:
        return load_sent(
            [(SENT_NAME, sent)], base=self._config.base, environment=self._environment, registry=self._registry,
            readable=self._config.icals | self._config.schemas,
        )  # fmt: skip
