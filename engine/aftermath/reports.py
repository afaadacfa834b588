"""Reports on how well timers were kept, from the tallies that are stored: some rows for each, however much has run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from engine.adherence import Adherence, adherence_of, kept_since, pieces
from engine.aftermath.counting import KEPT, Counting
from engine.clock import Clock
from engine.decide.rules import Rule
from engine.decide.schedule import timers_of
from engine.errors import NotFound
from engine.store.base import Store
from engine.tallies import Tally, Width


class Reports:
    """Answers how well timers were kept. `rules` are the triggers as they are now."""

    def __init__(self, *, counting: Counting, store: Store, clock: Clock, rules: Mapping[str, Rule]) -> None:
        self._counting = counting
        self._store = store
        self._clock = clock
        self._rules = rules

    def names(self) -> list[str]:
        """Return the triggers that are on a timer, by name."""
        return sorted(name for name, rule in self._rules.items() if timers_of(rule.trigger))

    async def adherence(self, triggers: Sequence[str], *, start: datetime, end: datetime) -> list[Adherence]:
        """Return, for each trigger, what became of its due instants between two instants, to whole hours or days.

        What runs, or was due a moment ago, is not counted yet. Raises NotFound, and StoreUnavailable.
        """
        for name in triggers:
            if name not in self._rules:
                raise NotFound(f"there is no trigger {name}")
        await self._counting.flush()
        parts = pieces(start, end, hours_since=kept_since(self._clock.now(), KEPT[Width.HOUR]))
        found = []
        for name in triggers:
            tallies: list[Tally] = []
            for part in parts:
                rows = await self._store.tallies(trigger=name, width=part.width, start=part.start, end=part.end)
                tallies += [row.tally for row in rows]
            found.append(adherence_of(name, tallies, parts[0].start, parts[-1].end))
        return found
