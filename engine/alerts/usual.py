"""How long runs of a job usually take, asked for seldom: it is told by the counts of a week, not by the runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from engine.clock import Clock
from engine.tallies import Statistics

KEPT_S = 600.0
LEAST_RUNS = 5
MOST_KEPT = 10_000


class Usual:
    """Half of the runs of a job took at most so long, in a week. `ask` returns the statistics of a job."""

    def __init__(self, clock: Clock, ask: Callable[[str], Awaitable[Statistics]]) -> None:
        self._clock = clock
        self._ask = ask
        self._known: dict[str, tuple[float, float | None]] = {}

    async def of(self, job: str) -> float | None:
        """Return it in seconds; None where fewer than five ran. Raises StoreUnavailable."""
        now_s = self._clock.monotonic()
        known = self._known.get(job)
        if known is not None and now_s - known[0] < KEPT_S:
            return known[1]
        found = await self._ask(job)
        usual_s = found.duration_p50_s if found.total >= LEAST_RUNS else None
        if len(self._known) >= MOST_KEPT:
            self._known.clear()
        self._known[job] = (now_s, usual_s)
        return usual_s
