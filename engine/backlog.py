"""The backlog: how many runs wait, in all and by trigger, and who has to wait with new events because of that.

It counts what the store holds: loaded once at the start, and changed with each change that moves a run. A run that is
drafted counts at once, so that one large batch can't go past a cap.

Above the high water mark the engine pushes back, until the low one is reached. What is pushed back is what has more
than its share: a source whose own runs fill less than an equal part of the low mark goes on. So a flood of one source
is not felt by the others, and the backlog stays below both marks together. Due instants, follow-ups of runs and what
people ask for are never pushed back.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.decide.rules import Rule
from engine.errors import QueueFull

DEFAULT_HIGH = 2_000_000


class Backlog:
    """Counts waiting runs. `high` and `low` (None: nine tenths of it) are the water marks."""

    def __init__(self, *, high: int = DEFAULT_HIGH, low: int | None = None) -> None:
        self.high = high
        self.low = high * 9 // 10 if low is None else low
        self.total = 0
        """How many runs wait, in all."""
        self.is_full = False
        """Whether it pushes back."""
        self._by_trigger: Counter[str] = Counter()

    def load(self, counts: Mapping[str, int]) -> None:
        """Take up, by trigger, what waits in the store."""
        self._by_trigger.update(counts)
        self.total += sum(counts.values())

    def of(self, trigger: str) -> int:
        """Return how many runs of a trigger wait."""
        return self._by_trigger[trigger]

    def add(self, trigger: str) -> None:
        """Count one more run of a trigger."""
        self.total += 1
        self._by_trigger[trigger] += 1

    def remove(self, trigger: str) -> None:
        """Count one run of a trigger less."""
        self.total -= 1
        left = self._by_trigger[trigger] - 1
        if left > 0:
            self._by_trigger[trigger] = left
        else:
            del self._by_trigger[trigger]

    def adding(self, trigger: str) -> Callable[[asyncio.Future[Any]], None]:
        """Return what counts one more run of a trigger once the change that has it wait is durable."""
        return lambda stored: None if _failed(stored) else self.add(trigger)

    def removing(self, trigger: str) -> Callable[[asyncio.Future[Any]], None]:
        """Return what counts one run of a trigger less once the change that it moves by is durable."""
        return lambda stored: None if _failed(stored) else self.remove(trigger)

    def crowded(self) -> bool:
        """Tell whether the engine pushes back now."""
        if self.total >= self.high:
            self.is_full = True
        elif self.is_full and self.total <= self.low:
            self.is_full = False
        return self.is_full

    def admit(self, source: str, rules: Mapping[str, Sequence[Rule]]) -> None:
        """Raise QueueFull where a source has more than its share of what waits; `rules` are those on each source."""
        waiting = {name: sum(self._by_trigger[rule.trigger.name] for rule in met) for name, met in rules.items()}
        mine = waiting.get(source, 0)
        share = max(self.low // max(sum(count > 0 for count in waiting.values()), 1), 1)
        if mine >= share:
            raise QueueFull(
                f"{self.total:,} runs wait, {mine:,} of them by this source; it may go on when no more than "
                f"{self.low:,} do"
            )


def _failed(stored: asyncio.Future[Any]) -> bool:
    # One that is cancelled is written all the same: nobody waited for it any more.
    return not stored.cancelled() and stored.exception() is not None
