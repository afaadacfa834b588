"""The guards together: quarantines, heartbeats, and how far runs may cause runs; see docs/guards.md."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import anyio

from engine.clock import Clock
from engine.config.scalars import near
from engine.decide.breakers import SOURCE, TRIGGER, Breakers, Place, Released
from engine.decide.heartbeats import Heartbeats
from engine.decide.rules import Rule
from engine.errors import NotFound
from engine.heartbeats import Announce, Expectations
from engine.intake import Guarding
from engine.journal import Journal
from engine.quarantine import Quarantines
from engine.store.base import Store
from engine.triggers import Breaker
from engine.units import format_duration

T = TypeVar("T")


class Guards:
    """What guards triggers and sources. `rules` are the triggers by name; `held` tells which are kept from running."""

    def __init__(
        self, *, clock: Clock, journal: Journal, store: Store, rules: Mapping[str, Rule], max_hops: int,
        announce: Announce, held: Callable[[str], bool],
    ) -> None:  # fmt: skip
        self.guarding = Guarding(Breakers(), Heartbeats(), max_hops=max_hops)
        self._rules = rules
        self._journal = journal
        self._quarantines = Quarantines(
            clock=clock, journal=journal, store=store, breakers=self.guarding.breakers, rules=rules, announce=announce
        )  # fmt: skip
        self._expected = Expectations(
            clock=clock, journal=journal, store=store, beats=self.guarding.beats, rules=rules, announce=announce,
            held=held,
        )  # fmt: skip

    async def load(self) -> None:
        """Take up what is stored; it comes before the first event."""
        await self._quarantines.load()
        await self._expected.load()

    async def run(self) -> None:
        """Tell of what they find, until cancelled."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._quarantines.run, name="quarantines")
            group.start_soon(self._expected.run, name="heartbeats")

    def look_again(self) -> None:
        """Look again, as pauses have changed."""
        self._expected.look_again()

    # Triggers that come and go

    def add(self, rule: Rule) -> None:
        """Take in a trigger that came while the engine runs."""
        self._expected.add(rule)

    def renew(self, before: Rule, rule: Rule) -> None:
        """Take in another version of a trigger: where its events are expected otherwise, that counts from now on."""
        if before.heartbeats != rule.heartbeats or before.disabled != rule.disabled:
            change = self._expected.leaving(before)
            if change is not None:
                self._journal.submit(change).add_done_callback(_heard)
        self._expected.add(rule)

    def removed(self, rule: Rule) -> None:
        """Forget a trigger that is gone, in the order of the journal."""
        for change in (self._quarantines.leaving(rule), self._expected.leaving(rule)):
            if change is not None:
                self._journal.submit(change).add_done_callback(_heard)

    # What people ask

    async def release_trigger(self, name: str, *, who: str = "", reason: str = "") -> Released | None:
        """End the quarantine of a trigger, durably; return None where it has none of its own.

        Raises NotFound and StoreUnavailable.
        """
        if name not in self._rules:
            hint = near(name, self._rules)
            raise NotFound(f"there is no trigger {name}" + (f"; {hint}" if hint else ""))
        return await self._quarantines.release((TRIGGER, name), who=who, reason=reason)

    async def release_source(self, source_id: str, *, who: str = "", reason: str = "") -> Released | None:
        """End the quarantine of a source, by its id or its name, durably; return None where there is none.

        Raises StoreUnavailable.
        """
        for rule in self._rules.values():
            shared = rule.trigger.shared
            if shared is not None and shared.name == source_id:
                source_id = rule.trigger.source
                break
        return await self._quarantines.release((SOURCE, source_id), who=who, reason=reason)

    def quarantine_of(self, rule: Rule) -> str | None:
        """Say why nothing of a trigger runs, where it or its source is in quarantine."""
        found = self._quarantines.of(rule)
        return None if found is None else found.said()

    def quarantined(self) -> dict[str, str]:
        """Return the triggers of which nothing runs, as they or their sources are in quarantine, and why."""
        found = {name: self.quarantine_of(rule) for name, rule in self._rules.items() if rule.breakers}
        return {name: why for name, why in found.items() if why is not None}

    def view_of(self, name: str) -> dict[str, Any]:
        """Return what `trigger_view` does, for a trigger that is there."""
        return self.trigger_view(self._rules[name])

    def trigger_view(self, rule: Rule) -> dict[str, Any]:
        """Return what the API shows of a trigger's guards."""
        trigger = rule.trigger
        return {
            "breaker": breaker_view(trigger.breaker),
            "quarantine": self._quarantines.view(self._quarantines.of(rule)),
            "max_hops": self.guarding.hops_of(rule),
            "expected": self._expected.view((TRIGGER, trigger.name)),
        }

    def source_view(self, source_id: str) -> dict[str, Any]:
        """Return what the API shows of a source's guards."""
        place = (SOURCE, source_id)
        return {
            "quarantine": self._quarantines.view(self._quarantines.at(place)), "expected": self._expected.view(place)
        }  # fmt: skip

    def silent(self) -> list[tuple[Place, str]]:
        """Return of whom no event came for too long, and that in words."""
        return self._expected.silent()

    def status(self) -> dict[str, Any]:
        """Return what the API shows of them all."""
        return {
            "quarantines": self._quarantines.views(),
            "missing": [beat.place[1] if not beat.title else beat.title for beat in self._expected.missing()],
        }

    def checks(self) -> list[dict[str, Any]]:
        """Return what health says of them."""
        return [self._quarantines.check(), self._expected.check()]


def breaker_view(breaker: Breaker | None) -> dict[str, Any] | None:
    """Return a breaker as the configuration writes it."""
    return None if breaker is None else {"limit": breaker.limit, "per": format_duration(breaker.per_s)}


def _heard(stored: asyncio.Future[Any]) -> None:
    """What could not be forgotten is forgotten at the next start."""
    if not stored.cancelled():
        stored.exception()
