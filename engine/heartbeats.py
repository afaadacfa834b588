"""Heartbeats, kept: it is told once where no event came for too long, and once when one comes again.

An alarm, its end, and from when silence is counted are in the store, with the event that tells of them, so a restart
begins none twice. What came last is read from the events themselves.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol

import anyio

from engine.clock import Clock, rfc3339, sleep_or_wake
from engine.decide.breakers import SOURCE, TRIGGER, Place, key_of, place_of
from engine.decide.heartbeats import SIGNS, Heartbeat, Heartbeats, Turn
from engine.decide.rules import Rule
from engine.errors import EngineError, StoreUnavailable
from engine.events import RESERVED_PREFIX, Event, EventOutcome
from engine.journal import Journal
from engine.store.base import Receipts, Store
from engine.store.changes import Accept, Memory
from engine.units import format_duration

log = logging.getLogger("engine.heartbeats")

EXPECTED_SOURCE = "engine:expected"
"""Under this id the store remembers expectations, and from there come the events that tell of them."""

MISSING_TYPE = f"{RESERVED_PREFIX}expected.missing"
BACK_TYPE = f"{RESERVED_PREFIX}expected.back"

LOOK_S = 10.0
"""So often it is looked whether something keeps events from coming, at least."""

GRACE_S = 30.0
"""So long after a start no alarm begins: what waits outside has to get in first."""

LEAST_S = 0.05
RETRY_S = 5.0
PAGE = 1_000

_ANY = frozenset(EventOutcome)


class Announce(Protocol):
    """Makes an event of the engine's own durable, with what is to be remembered."""

    def __call__(self, event: Event, *, memory: Memory | None = None) -> Awaitable[Any]: ...


class Expectations:
    """All heartbeats. `held` tells whether a trigger is kept from running: it is paused, or in maintenance."""

    def __init__(
        self, *, clock: Clock, journal: Journal, store: Store, beats: Heartbeats, rules: Mapping[str, Rule],
        announce: Announce, held: Callable[[str], bool],
    ) -> None:  # fmt: skip
        self._clock = clock
        self._journal = journal
        self._store = store
        self._beats = beats
        self._rules = rules
        self._announce = announce
        self._held = held
        self._wake = anyio.Event()
        self._grace_until = clock.now()
        self._unread: set[Place] = set()
        """Those of which the last event is yet to be read."""
        beats.on_back = self.look_again

    def look_again(self) -> None:
        """Look again at once."""
        self._wake.set()

    # What is known

    def view(self, place: Place) -> dict[str, Any] | None:
        """Return an expectation as the API shows it."""
        beat = self._beats.known.get(place)
        if beat is None:
            return None
        return {
            "every": format_duration(beat.expect_s),
            "last_at": None if beat.last_at is None else rfc3339(beat.last_at),
            "due_at": rfc3339(beat.due_at),
            "missing_since": None if beat.missing_since is None else rfc3339(beat.missing_since),
            "suspended": beat.held,
            "reason": None if beat.missing_since is None else _said(beat),
        }

    def missing(self) -> list[Heartbeat]:
        """Return those whose alarm has begun."""
        found = [beat for beat in self._beats.known.values() if beat.missing_since is not None]
        return sorted(found, key=lambda beat: beat.place)

    def silent(self) -> list[tuple[Place, str]]:
        """Return of whom no event came for too long, and that in words."""
        return [(beat.place, _said(beat)) for beat in self.missing()]

    def check(self) -> dict[str, Any]:
        """Return what health says of it."""
        missing = [_said(beat) for beat in self.missing()]
        expected = f"{len(self._beats.known)} come as expected" if self._beats.known else "none"
        return {"name": "expected", "ok": not missing, "detail": "; ".join(missing) or expected}

    # What is expected

    async def load(self) -> None:
        """Take up what is stored, and forget what is not expected any more."""
        self._grace_until = self._clock.now() + timedelta(seconds=GRACE_S)
        kept: dict[str, Any] = {}
        after: str | None = None
        while page := await self._store.memory(EXPECTED_SOURCE, after=after, limit=PAGE):
            kept |= page
            after = next(reversed(page))
        for rule in self._rules.values():
            self.add(rule, kept)
        gone = [key for key in kept if place_of(key) not in self._beats.known]
        if gone:
            await self._journal.submit(Accept(entries=(), memory=_memory(dict.fromkeys(gone))))

    def add(self, rule: Rule, kept: Mapping[str, Any] | None = None) -> None:
        """Expect the events of a trigger; what is new counts from now on."""
        if rule.disabled is not None:
            return
        shared = rule.trigger.shared
        for place, expect_s in rule.heartbeats:
            known = (kept or {}).get(key_of(place))
            if place in self._beats.known:
                continue
            beat = Heartbeat(
                place=place, expect_s=expect_s, since=self._clock.now(),
                title=shared.name if shared is not None and place[0] == SOURCE else "",
            )  # fmt: skip
            self._beats.known[place] = beat
            self._unread.add(place)
            if known is None:
                self._journal.submit(_storing(beat)).add_done_callback(lambda done: done.exception())
                continue
            beat.since, beat.held = datetime.fromisoformat(known["since"]), known["held"]
            if known["missing_since"] is not None:
                beat.missing_since = datetime.fromisoformat(known["missing_since"])
        self.look_again()

    def leaving(self, rule: Rule) -> Accept | None:
        """Forget what is expected of a trigger that was removed, and of its source where no other is on it; return
        what makes the store do so."""
        gone = [
            place
            for place, _ in rule.heartbeats
            if place in self._beats.known and (place[0] == TRIGGER or not self._triggers_at(place))
        ]
        for place in gone:
            del self._beats.known[place]
        return Accept(entries=(), memory=_memory({key_of(place): None for place in gone})) if gone else None

    def _triggers_at(self, place: Place) -> list[str]:
        return [
            name
            for name, rule in self._rules.items()
            if rule.disabled is None and any(where == place for where, _ in rule.heartbeats)
        ]

    # Looking

    async def run(self) -> None:
        """Tell of what is missing, and of what is back; until cancelled."""
        while True:
            self._wake = anyio.Event()
            done = await self._read_last() and await self._look()
            if not self._beats.known:
                await self._wake.wait()
            else:
                await sleep_or_wake(self._clock, self._left_s() if done else RETRY_S, self._wake)

    async def _read_last(self) -> bool:
        """Read when the last events came before this start; return False where the store can't tell now."""
        for place in [*self._unread]:
            beat = self._beats.known.get(place)
            if beat is not None:
                now = self._clock.now()
                since = min(beat.missing_since or now, now - timedelta(seconds=beat.expect_s))
                which = Receipts(
                    triggers=frozenset(self._triggers_at(place)), outcomes=SIGNS if place[0] == TRIGGER else _ANY,
                    since=since, by_hand=False,
                )  # fmt: skip
                try:
                    found = await self._store.received(which, limit=1)
                except StoreUnavailable:
                    return False
                for at in found:
                    beat.note(at)
            self._unread.discard(place)
        return True

    async def _look(self) -> bool:
        """Look at each; return False where the store can't take what has changed now."""
        now = self._clock.now()
        for beat in [*self._beats.known.values()]:
            before = (beat.since, beat.held, beat.missing_since)
            turn = beat.look(now, held=self._is_held(beat), may_begin=now >= self._grace_until)
            try:
                if turn is not None:
                    await self._take(beat, turn, now)
            except StoreUnavailable:
                beat.since, beat.held, beat.missing_since = before
                return False
            except EngineError:
                log.exception("An expectation could not be told of", extra={"action": "expected_untold"})
        return True

    def _is_held(self, beat: Heartbeat) -> bool:
        """Whether all that could meet it is kept from running."""
        scope, name = beat.place
        return self._held(name) if scope == TRIGGER else all(map(self._held, self._triggers_at(beat.place)))

    async def _take(self, beat: Heartbeat, turn: Turn, now: datetime) -> None:
        if turn in (Turn.HELD, Turn.COUNTED_AGAIN):
            await self._journal.submit(_storing(beat))
            return
        ids = {"scope": beat.place[0], "of": beat.place[1]}
        if turn is Turn.MISSING:
            await self._announce(_event(MISSING_TYPE, beat, now), memory=_storing(beat).memory)
            log.warning("%s", _capital(_said(beat)), extra={"action": "expected_missing", **ids})
            return
        back = _event(BACK_TYPE, beat, now)
        began_at, beat.missing_since = beat.missing_since, None
        try:
            await self._announce(back, memory=_storing(beat).memory)
        except BaseException:
            beat.missing_since = began_at
            raise
        log.info("%s hears events again", _capital(beat.subject), extra={"action": "expected_back", **ids})

    def _left_s(self) -> float:
        now = self._clock.now()
        alarms = [max(beat.due_at, self._grace_until) for beat in self._beats.known.values() if not beat.missing_since]
        left_s = min([(at - now).total_seconds() for at in alarms], default=LOOK_S)
        return min(max(left_s, LEAST_S), LOOK_S)


def _said(beat: Heartbeat) -> str:
    last = f"the last came at {beat.last_at:%Y-%m-%d %H:%M:%S} UTC" if beat.last_at is not None else (
        f"none came since {beat.since:%Y-%m-%d %H:%M:%S} UTC"
    )  # fmt: skip
    return f"{beat.subject} expects an event every {format_duration(beat.expect_s)}, and {last}"


def _event(type: str, beat: Heartbeat, now: datetime) -> Event:
    scope, name = beat.place
    assert beat.missing_since is not None  # noqa: S101 - both events are of an alarm
    missing_since = rfc3339(beat.missing_since)
    data = {
        "scope": scope, "name": beat.title or name, "every": format_duration(beat.expect_s),
        "last_at": None if beat.last_at is None else rfc3339(beat.last_at), "missing_since": missing_since,
        "reason": _said(beat) if type == MISSING_TYPE else f"{beat.subject} hears events again",
    }  # fmt: skip
    key = f"{type.removeprefix(RESERVED_PREFIX)} {key_of(beat.place)[:900]} {missing_since}"
    subject = (beat.title or name)[:1024]
    return Event(type=type, source=EXPECTED_SOURCE, subject=subject, key=key, data=data, time=now)


def _storing(beat: Heartbeat) -> Accept:
    """Return what makes the store remember where an expectation stands."""
    missing = None if beat.missing_since is None else rfc3339(beat.missing_since)
    value = {"since": rfc3339(beat.since), "held": beat.held, "missing_since": missing}
    return Accept(entries=(), memory=_memory({key_of(beat.place): value}))


def _memory(values: Mapping[str, Any]) -> Memory:
    return Memory(source=EXPECTED_SOURCE, values=values)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
