"""Heartbeats: whether events come as often as they are expected to, at a trigger or from a source.

Silence is counted from the last event, or from when it began to be counted where none came since: when the expectation
was first seen, or when what kept it from being met was over. While that holds no alarm begins; one that has begun ends
with the next event alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from enum import StrEnum

from msgspec import Struct

from engine.decide.breakers import SOURCE, TRIGGER, Place
from engine.events import EventOutcome
from engine.triggers import Trigger

SIGNS = frozenset(EventOutcome) - {EventOutcome.FILTERED, EventOutcome.REJECTED, EventOutcome.UNMATCHED}
"""What an event has to come to at a trigger to be one that was expected there: not what its filter drops."""


class Turn(StrEnum):
    """What has changed."""

    MISSING = "missing"
    BACK = "back"
    HELD = "held"
    COUNTED_AGAIN = "counted_again"


class Heartbeat(Struct, kw_only=True):
    """One expectation, and where it stands.

    - `since`: from when silence is counted, where no event came later; `last_at`: when the last one came.
    - `missing_since`: when the alarm began; None: there is none. `held`: something kept it from being met, when last
      looked at.
    """

    place: Place
    expect_s: float
    since: datetime
    last_at: datetime | None = None
    missing_since: datetime | None = None
    held: bool = False
    title: str = ""

    @property
    def silent_since(self) -> datetime:
        """From when silence is counted."""
        return self.since if self.last_at is None else max(self.since, self.last_at)

    @property
    def due_at(self) -> datetime:
        """When the alarm begins, if nothing comes."""
        return self.silent_since + timedelta(seconds=self.expect_s)

    @property
    def subject(self) -> str:
        """What is expected to hear, in words."""
        return f"{self.place[0]} {self.title or self.place[1]}"

    def note(self, at: datetime) -> None:
        """Take note of an event."""
        self.last_at = at if self.last_at is None else max(self.last_at, at)

    def look(self, now: datetime, *, held: bool, may_begin: bool = True) -> Turn | None:
        """Say what has changed, and take note of that, but for an end.

        `held`: something keeps it from being met now; `may_begin`: whether an alarm may begin.
        """
        if self.missing_since is not None and self.last_at is not None and self.last_at >= self.missing_since:
            return Turn.BACK
        if held:
            was, self.held = self.held, True
            return None if was else Turn.HELD
        if self.held:
            self.held, self.since = False, max(self.since, now)
            return Turn.COUNTED_AGAIN
        if may_begin and self.missing_since is None and now >= self.due_at:
            self.missing_since = now
            return Turn.MISSING
        return None


def heartbeats_of(trigger: Trigger) -> tuple[tuple[Place, float], ...]:
    """Return how often the events of a trigger are expected, from its source and at itself, in seconds."""
    shared, found = trigger.shared, []
    if shared is not None and shared.expect_s is not None:
        found.append(((SOURCE, trigger.source), shared.expect_s))
    if trigger.expect_s is not None:
        found.append(((TRIGGER, trigger.name), trigger.expect_s))
    return tuple(found)


class Heartbeats:
    """All expectations by place. `on_back` is called when an event comes to one whose alarm has begun."""

    def __init__(self) -> None:
        self.known: dict[Place, Heartbeat] = {}
        self.on_back: Callable[[], None] = lambda: None

    def note(self, places: Collection[Place], at: datetime) -> None:
        """Take note of an event that is durable."""
        for place in places:
            beat = self.known.get(place)
            if beat is not None:
                beat.note(at)
                if beat.missing_since is not None:
                    self.on_back()
