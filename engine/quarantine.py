"""Quarantines, kept: taken up at the start, told of once, and ended by people.

They come about at the door, in the commit of the first event that is too much (see `engine.decide.breakers`), and so
they outlive whatever happens to the engine. What was counted before a restart is read from the events themselves.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from engine.clock import Clock, rfc3339, to_microseconds
from engine.decide.breakers import (
    MOST_COUNTED,
    QUARANTINE_SOURCE,
    SOURCE,
    Breakers,
    Place,
    Quarantine,
    Released,
    key_of,
    place_of,
    read_kept,
)
from engine.decide.rules import Rule
from engine.errors import EngineError, StoreUnavailable
from engine.events import RESERVED_PREFIX, Event, EventOutcome
from engine.journal import Journal
from engine.store.base import Receipts, Store
from engine.store.changes import Accept, Memory
from engine.triggers import Breaker

log = logging.getLogger("engine.quarantine")

QUARANTINED_TYPE = f"{RESERVED_PREFIX}quarantined"
"""The type of the event by which rules can tell people."""

PAGE = 1_000
RETRY_S = 5.0
TELL_AGAIN_S = 86_400.0
"""A quarantine that is older is not told of at the next start: its event, and with it its key, may have been purged."""

_COUNTED = frozenset(EventOutcome) - {EventOutcome.QUARANTINED, EventOutcome.UNMATCHED}


class Quarantines:
    """All quarantines. `rules` are the triggers by name; `announce` makes an event of the engine's own durable."""

    def __init__(
        self, *, clock: Clock, journal: Journal, store: Store, breakers: Breakers, rules: Mapping[str, Rule],
        announce: Callable[[Event], Awaitable[Any]],
    ) -> None:  # fmt: skip
        self._clock = clock
        self._journal = journal
        self._store = store
        self._breakers = breakers
        self._rules = rules
        self._announce = announce
        self._untold: deque[Quarantine] = deque()
        self._has_untold = asyncio.Event()
        breakers.on_trip = self._note_trip

    # What holds

    def all(self) -> list[Quarantine]:
        """Return all quarantines that hold."""
        return self._breakers.all()

    def of(self, rule: Rule) -> Quarantine | None:
        """Return the quarantine that holds for a trigger: its source's, or its own."""
        found = (self._breakers.find(place) for place, _ in rule.breakers)
        return next((one for one in found if one is not None), None)

    def at(self, place: Place) -> Quarantine | None:
        """Return the quarantine of a trigger or source."""
        return self._breakers.find(place)

    def view(self, quarantine: Quarantine | None) -> dict[str, Any] | None:
        """Return a quarantine as the API shows it."""
        if quarantine is None:
            return None
        scope, name = quarantine.place
        return {
            "scope": scope, "name": name, "since": rfc3339(quarantine.since), "limit": quarantine.limit,
            "per_s": quarantine.per_s, "event": quarantine.event, "held_back": self._breakers.held(quarantine.place),
            "reason": quarantine.said(),
        }  # fmt: skip

    def views(self) -> list[dict[str, Any]]:
        """Return all quarantines as the API shows them."""
        return [view for one in self.all() if (view := self.view(one)) is not None]

    def check(self) -> dict[str, Any]:
        """Return what health says of it."""
        held = [f"{one.said()}; release {one.title or one.place[1]} ends it" for one in self.all()]
        return {"name": "quarantine", "ok": not held, "detail": "; ".join(held) or "none"}

    def triggers_at(self, place: Place) -> list[str]:
        """Return the triggers, by name, whose events a breaker counts."""
        return sorted(name for name, rule in self._rules.items() if any(where == place for where, _ in rule.breakers))

    # Taking up what was

    async def load(self) -> None:
        """Take up what is stored, and count what came of late; forget what is of breakers that are gone."""
        now, found = self._clock.now(), self._breakers_by_place()
        kept = await self._kept()
        gone: list[str] = [key for key in kept if place_of(key) not in found]
        for place, rule in found.items():
            known = kept.get(key_of(place))
            since = now - timedelta(seconds=rule.per_s)
            if isinstance(known, datetime):
                if known <= since:
                    gone.append(key_of(place))
                since = max(known + timedelta(microseconds=1), since)
            if isinstance(known, Quarantine):
                held = await self._received(place, known.since, frozenset({EventOutcome.QUARANTINED}), MOST_COUNTED)
                self._breakers.load(place, quarantine=known, held=len(held))
                if (now - known.since).total_seconds() < TELL_AGAIN_S:
                    self._untold.append(known)  # it may not have been told of; the same key is the same event
                log.warning("Still: %s", known.said(), extra={"action": "still_quarantined", "of": place[1]})
            else:
                passed = await self._received(place, since, _COUNTED, rule.limit)
                self._breakers.load(place, quarantine=None, passed=map(to_microseconds, reversed(passed)))
        self._has_untold.set()
        if gone:
            await self._journal.submit(Accept(entries=(), memory=_memory(dict.fromkeys(gone))))

    async def _kept(self) -> dict[str, Quarantine | datetime]:
        found: dict[str, Quarantine | datetime] = {}
        after: str | None = None
        while page := await self._store.memory(QUARANTINE_SOURCE, after=after, limit=PAGE):
            found.update((key, read_kept(key, value)) for key, value in page.items())
            after = next(reversed(page))
        return found

    async def _received(
        self, place: Place, since: datetime, outcomes: frozenset[EventOutcome], limit: int
    ) -> list[datetime]:
        which = Receipts(
            triggers=frozenset(self.triggers_at(place)), outcomes=outcomes, since=since, by_hand=place[0] != SOURCE
        )
        return await self._store.received(which, limit=limit)

    def _breakers_by_place(self) -> dict[Place, Breaker]:
        return {place: breaker for rule in self._rules.values() for place, breaker in rule.breakers}

    # Ending them

    async def release(self, place: Place, *, who: str = "", reason: str = "") -> Released | None:
        """End a quarantine, durably, and start the count anew; return None where there is none.

        Raises StoreUnavailable: then it holds on.
        """
        quarantine, now = self._breakers.find(place), self._clock.now()
        restore = self._breakers.release(place)
        if quarantine is None or restore is None:
            return None
        released = {"released_at": rfc3339(now)}
        stored = self._journal.submit(Accept(entries=(), memory=_memory({key_of(place): released})))

        def look(done: asyncio.Future[Any]) -> None:
            if done.cancelled() or done.exception() is not None:
                restore()

        stored.add_done_callback(look)
        await stored
        log.info(
            "%s is released from quarantine%s%s", _capital(quarantine.subject), f" (by {who})" if who else "",
            f": {reason}" if reason else "",
            extra={"action": "released", "scope": place[0], "of": place[1], "by": who},
        )  # fmt: skip
        return Released(quarantine=quarantine, at=now, triggers=tuple(self.triggers_at(place)))

    def leaving(self, rule: Rule) -> Accept | None:
        """Forget a trigger that was removed, and its source's breaker where no other is on it; return what makes the
        store do so."""
        gone = [place for place, _ in rule.breakers if not self.triggers_at(place)]
        for place in gone:
            self._breakers.forget(place)
        return Accept(entries=(), memory=_memory({key_of(place): None for place in gone})) if gone else None

    # Telling of them

    async def run(self) -> None:
        """Make an event of each quarantine that comes about, once; until cancelled."""
        while True:
            await self._has_untold.wait()
            while self._untold:
                quarantine = self._untold[0]
                try:
                    await self._announce(_event(quarantine))
                except StoreUnavailable:
                    await self._clock.sleep(RETRY_S)
                    continue
                except EngineError:
                    log.exception("A quarantine could not be told of", extra={"action": "quarantine_untold"})
                self._untold.popleft()
            self._has_untold.clear()

    def _note_trip(self, quarantine: Quarantine) -> None:
        scope, name = quarantine.place
        log.warning(
            "%s: nothing of it runs until it is released", _capital(quarantine.said()),
            extra={"action": "quarantined", "scope": scope, "of": name, "event": quarantine.event},
        )  # fmt: skip
        self._untold.append(quarantine)
        self._has_untold.set()


def _event(quarantine: Quarantine) -> Event:
    scope, name = quarantine.place
    data = {
        "scope": scope, "name": quarantine.title or name, "since": rfc3339(quarantine.since),
        "limit": quarantine.limit, "per_s": quarantine.per_s, "event": quarantine.event, "reason": quarantine.said(),
    }  # fmt: skip
    key = f"{key_of(quarantine.place)[:900]} {rfc3339(quarantine.since)}"
    return Event(
        type=QUARANTINED_TYPE, source=QUARANTINE_SOURCE, subject=(quarantine.title or name)[:1024], key=key, data=data,
        time=quarantine.since,
    )  # fmt: skip


def _memory(values: Mapping[str, Any]) -> Memory:
    return Memory(source=QUARANTINE_SOURCE, values=values)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
