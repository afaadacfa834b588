"""Breakers: how many events may come to a trigger, or from a source, before it is in quarantine.

A breaker counts exactly: it opens with the event that comes when `limit` others came less than `per` before it. From
then on nothing runs until somebody releases it, and the count starts anew. What was counted for an event that is not
stored is taken back.

The truth about quarantines is in the store, written in the commit of the event that brings one about. Until that is
durable each event that it holds back carries it, so that none is held back for a quarantine that never was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from msgspec import Struct, field

from engine.clock import rfc3339, to_microseconds
from engine.triggers import Breaker, Trigger
from engine.units import format_duration

QUARANTINE_SOURCE = "engine:quarantine"
"""Under this id the store remembers quarantines, by `key_of`."""

MOST_COUNTED = 100_000
"""The highest limit of a breaker: the instants of so many events are kept, some 4 MB."""

Place = tuple[str, str]
"""`trigger` and its name, or `source` and its id."""

TRIGGER, SOURCE = "trigger", "source"


class Quarantine(Struct, frozen=True, kw_only=True):
    """Since when nothing runs of a trigger or source, as more than `limit` events came in `per_s` seconds.

    `event` is the first that is held back; `title` what people call the source.
    """

    place: Place
    since: datetime
    limit: int
    per_s: float
    event: str
    title: str = ""

    @property
    def subject(self) -> str:
        """What is in quarantine, in words."""
        scope, name = self.place
        return f"{scope} {self.title or name}"

    def said(self) -> str:
        """Say what is in quarantine, since when, and why."""
        return (
            f"{self.subject} is in quarantine since {self.since:%Y-%m-%d %H:%M:%S} UTC, as more than {self.limit:,} "
            f"events came in {format_duration(self.per_s)}"
        )

    def kept(self) -> dict[str, Any]:
        """Return it as the store remembers it."""
        return {
            "since": rfc3339(self.since), "limit": self.limit, "per_s": self.per_s, "event": self.event,
            "title": self.title,
        }  # fmt: skip


class Released(Struct, frozen=True, kw_only=True):
    """A quarantine that was ended, when, and the triggers whose events it held back."""

    quarantine: Quarantine
    at: datetime
    triggers: tuple[str, ...]


def key_of(place: Place) -> str:
    """Return the key under which a quarantine is remembered."""
    return ":".join(place)


def place_of(key: str) -> Place:
    """Return the place of a key."""
    scope, _, name = key.partition(":")
    return scope, name


def read_kept(key: str, value: Mapping[str, Any]) -> Quarantine | datetime:
    """Return what the store remembers: a quarantine, or when the last one of that place was released."""
    if "released_at" in value:
        return datetime.fromisoformat(value["released_at"])
    return Quarantine(
        place=place_of(key), since=datetime.fromisoformat(value["since"]), limit=value["limit"], per_s=value["per_s"],
        event=value["event"], title=value["title"],
    )  # fmt: skip


def breakers_of(trigger: Trigger) -> tuple[tuple[Place, Breaker], ...]:
    """Return the breakers that the events of a trigger meet, its source's first."""
    shared, found = trigger.shared, []
    if shared is not None and shared.breaker is not None:
        found.append(((SOURCE, trigger.source), shared.breaker))
    if trigger.breaker is not None:
        found.append(((TRIGGER, trigger.name), trigger.breaker))
    return tuple(found)


class Count:
    """The events of the last `per` that were let through, as instants in microseconds."""

    __slots__ = ("_passed",)

    def __init__(self, passed: Iterable[int] = ()) -> None:
        self._passed = deque(passed)

    def __len__(self) -> int:
        return len(self._passed)

    def let_through(self, rule: Breaker, now_us: int) -> bool:
        """Count one more event, unless so many came less than `per` ago that it is too much."""
        passed, per_us = self._passed, round(rule.per_s * 1e6)
        # What lies in the future was counted before the clock was set back: it is not counted twice as long.
        while passed and not now_us - per_us < passed[0] <= now_us:
            passed.popleft()
        if len(passed) >= rule.limit:
            return False
        passed.append(now_us)
        return True

    def take_back(self, at_us: int) -> None:
        """Count an event no more that was counted then."""
        with suppress(ValueError):  # it is so long ago that it counts no more
            self._passed.remove(at_us)

    def clear(self) -> None:
        """Start anew."""
        self._passed.clear()


class Guarded(Struct, frozen=True):
    """What a breaker has noted of an event: that it was counted, then, or that it is held back."""

    place: Place
    at_us: int
    quarantine: Quarantine | None


class _Known(Struct):
    """What is known of a place.

    - `durable`: whether its quarantine is in the store; `carried`: by how many events that are on their way there.
    - `held`: how many events it has held back; None where it is from before this start, and nobody has counted yet.
    """

    count: Count = field(default_factory=Count)
    quarantine: Quarantine | None = None
    durable: bool = False
    carried: int = 0
    held: int = 0


class Breakers:
    """All counts and quarantines. `on_trip` hears of each quarantine once, when it is durable."""

    def __init__(self) -> None:
        self._known: dict[Place, _Known] = {}
        self.on_trip: Callable[[Quarantine], None] = lambda quarantine: None

    def find(self, place: Place) -> Quarantine | None:
        """Return the quarantine that holds."""
        known = self._known.get(place)
        return None if known is None else known.quarantine

    def held(self, place: Place) -> int:
        """Return how many events a quarantine has held back."""
        known = self._known.get(place)
        return 0 if known is None else known.held

    def all(self) -> list[Quarantine]:
        """Return all quarantines that hold, sources first, by name."""
        found = [known.quarantine for known in self._known.values() if known.quarantine is not None]
        return sorted(found, key=lambda one: one.place)

    # Events

    def ask(self, place: Place, rule: Breaker, now: datetime, event: str, title: str = "") -> Guarded:
        """Count an event, or hold it back; what was noted is to be settled, or undone."""
        known, now_us = self._known.get(place), to_microseconds(now)
        if known is None:
            known = self._known[place] = _Known()
        if known.quarantine is None:
            if known.count.let_through(rule, now_us):
                return Guarded(place, now_us, None)
            known.quarantine = Quarantine(
                place=place, since=now, limit=rule.limit, per_s=rule.per_s, event=event, title=title
            )
            known.durable, known.carried, known.held = False, 0, 0
        known.carried += 1
        known.held += 1
        return Guarded(place, now_us, known.quarantine)

    def to_store(self, guarded: Collection[Guarded]) -> dict[str, Any]:
        """Return what has to be stored with an event: the quarantines that hold it back and are not durable yet."""
        return {
            key_of(one.place): one.quarantine.kept()
            for one in guarded
            if one.quarantine is not None and not self._is_durable(one)
        }

    def settle(self, guarded: Collection[Guarded]) -> None:
        """Take note that an event is durable."""
        for one in guarded:
            known = self._known.get(one.place)
            if one.quarantine is None or known is None or known.quarantine is not one.quarantine:
                continue
            known.carried -= 1
            if not known.durable:
                known.durable = True
                self.on_trip(one.quarantine)

    def undo(self, guarded: Collection[Guarded]) -> None:
        """Take back what was noted of an event that is not stored; a quarantine that nothing else carries never was."""
        for one in guarded:
            known = self._known.get(one.place)
            if known is None:
                continue
            if one.quarantine is None:
                known.count.take_back(one.at_us)
            elif known.quarantine is one.quarantine:
                known.carried -= 1
                known.held -= 1
                if not known.durable and not known.carried:
                    known.quarantine = None

    def _is_durable(self, one: Guarded) -> bool:
        known = self._known[one.place]
        return known.quarantine is one.quarantine and known.durable

    # Quarantines

    def load(self, place: Place, *, passed: Iterable[int] = (), quarantine: Quarantine | None, held: int = 0) -> None:
        """Take up what the store knows of a place."""
        self._known[place] = _Known(
            count=Count(passed), quarantine=quarantine, durable=quarantine is not None, held=held
        )

    def release(self, place: Place) -> Callable[[], None] | None:
        """End a quarantine at once, and start the count anew; return what takes that back. None where there is none."""
        known = self._known.get(place)
        if known is None or known.quarantine is None:
            return None
        before = self._known.pop(place)

        def restore() -> None:
            self._known[place] = before

        return restore

    def forget(self, place: Place) -> None:
        """Forget a place that is not there any more."""
        self._known.pop(place, None)
