"""Answers that are kept, so that who sends a request again gets the same: `Idempotency-Key`.

A reply is kept for a day or two, durably, beside what sources remember (`Store.memory`). There are three shelves, which
take turns by the day: today's, yesterday's, and one that is being emptied. Each reply that is kept takes some of what
is over with it, in the same change, so that nothing grows and nobody has to sweep.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec
from msgspec import Struct

from engine.clock import Clock
from engine.journal import Journal
from engine.store.base import Store
from engine.store.changes import Accept, Memory

SHELF = "engine:replies:{}"
SHELVES = 3
KEPT = timedelta(hours=24)
"""For so long a reply is given again, at least; a shelf is emptied a day later."""

REMOVED_AT_ONCE = 20
MOST_KEPT = 50_000
"""Replies that are kept on one shelf."""

_END = "."
"""Ends a key on a shelf: so it is the first one behind its own digest, and found by that."""


class Reply(Struct, frozen=True, kw_only=True):
    """An answer as it was given: `request` is the digest of what was sent."""

    request: str
    status: int
    headers: dict[str, str]
    body: Any
    at: datetime


class Replies:
    """The replies that are kept, by the digest of who asked for what with which key."""

    def __init__(self, store: Store, journal: Journal, clock: Clock) -> None:
        self._store = store
        self._journal = journal
        self._clock = clock
        self._day, self._count = -1, 0

    async def find(self, digest: str) -> Reply | None:
        """Return the reply that is kept; None where there is none, or it is too old. Raises StoreUnavailable."""
        now = self._clock.now()
        today = _day(now)
        for day in (today, today - 1):
            found = await self._store.memory(SHELF.format(day % SHELVES), after=digest, limit=1)
            if (value := found.get(digest + _END)) is not None:
                reply = msgspec.convert(value, Reply)
                if now - reply.at < KEPT:
                    return reply
        return None

    def full(self) -> bool:
        """Tell whether so many are kept that there may be no more today."""
        return self._day == _day(self._clock.now()) and self._count >= MOST_KEPT

    async def keep(self, digest: str, *, request: str, status: int, headers: dict[str, str], body: Any) -> None:
        """Keep a reply, durably, and remove some that are over. Raises StoreUnavailable."""
        now = self._clock.now()
        today = _day(now)
        if today != self._day:
            self._day, self._count = today, 0
        self._count += 1
        reply = Reply(request=request, status=status, headers=headers, body=body, at=now)
        values: dict[str, Any] = {digest + _END: msgspec.to_builtins(reply)}
        over = await self._store.memory(SHELF.format((today + 1) % SHELVES), after=None, limit=REMOVED_AT_ONCE)
        memories = [Memory(source=SHELF.format(today % SHELVES), values=values)]
        if over:
            memories.append(Memory(source=SHELF.format((today + 1) % SHELVES), values=dict.fromkeys(over)))
        await self._journal.submit(Accept(entries=(), memories=tuple(memories)))


def _day(at: datetime) -> int:
    return at.toordinal()
