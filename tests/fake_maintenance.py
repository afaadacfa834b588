"""Maintenance without an engine around it: the real windows, and a journal that stores nothing."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from engine.clock import Clock
from engine.config import Config, window_reader
from engine.decide.rules import Rule
from engine.journal import Journal
from engine.maintenance import Maintenance
from engine.registry import Registry
from engine.store.changes import Change


class StoresNothing:
    """A journal to which everything is durable a turn later; `fault` is raised for all that comes while it is set."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.fault: Exception | None = None

    def submit(self, change: Change) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        stored: asyncio.Future[Any] = loop.create_future()
        if self.fault is not None:
            loop.call_soon(stored.set_exception, self.fault)
        else:
            self.changes.append(change)
            loop.call_soon(stored.set_result, None)
        return stored


def fake_maintenance(config: Config, clock: Clock, journal: StoresNothing | None = None) -> Maintenance:
    """Return the maintenance windows of a configuration."""
    rules = {name: Rule(trigger, config.jobs[trigger.job]) for name, trigger in config.triggers.items()}
    read = window_reader(config, Registry.discover(), {})
    return Maintenance(clock, cast(Journal, journal or StoresNothing()), rules, config.maintenance, read)
