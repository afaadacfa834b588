"""Guards at the door: what is held back as too much comes."""

from __future__ import annotations

import logging
from collections.abc import Collection

from engine.clock import rfc3339
from engine.decide.breakers import SOURCE, TRIGGER, Breakers, Guarded
from engine.decide.heartbeats import SIGNS, Heartbeats
from engine.decide.rules import Rule
from engine.events import Event, EventOutcome, Outcome
from engine.intake.draft import Draft, Notes
from engine.runs import Origin
from engine.triggers import MAX_HOPS

log = logging.getLogger("engine.intake")

_BY_PEOPLE = frozenset({Origin.BACKFILL, Origin.REPLAY})
"""What people run again, at a bounded rate: no breaker counts it, and no quarantine holds it back."""


_BY_THEMSELVES = frozenset({Origin.EVENT, Origin.SCHEDULE})
"""What is a sign of life: nobody made it."""


class Guarding:
    """Asks breakers about events; what it notes of one is in its draft, to be settled or undone with that.

    `max_hops` is what holds for triggers that do not say otherwise.
    """

    def __init__(
        self, breakers: Breakers | None = None, beats: Heartbeats | None = None, *, max_hops: int = MAX_HOPS
    ) -> None:  # fmt: skip
        self.breakers = breakers or Breakers()
        self.beats = beats or Heartbeats()
        self.max_hops = max_hops

    def held_back(
        self, draft: Draft, event: Event, rule: Rule, origin: Origin, bypass: Collection[str]
    ) -> Outcome | None:  # fmt: skip
        """Count an event at its trigger, and at its source; return its outcome where one of them is in quarantine."""
        if origin in _BY_PEOPLE or "quarantine" in bypass:
            return None
        for place, breaker in rule.breakers:
            if place[0] == SOURCE:
                if origin is Origin.MANUAL:
                    continue  # it is not from there
                # One event is one, whatever triggers of its source it meets.
                asked = next((one for one in draft.noting().guarded if one.place == place), None)
            else:
                asked = None
            if asked is None:
                shared = rule.trigger.shared
                title = shared.name if place[0] == SOURCE and shared is not None else ""
                asked = self.breakers.ask(place, breaker, event.received_at, event.id, title)
                notes = draft.noting()
                notes.guarded.append(asked)
                notes.to_remember |= self.breakers.to_store((asked,))
            if asked.quarantine is not None:
                return _held_back(draft, rule.trigger.name, asked)
        return None

    def hops_of(self, rule: Rule) -> int:
        """Return how long the chain of runs may be that caused an event, for a trigger to run it."""
        own = rule.trigger.max_hops
        return self.max_hops if own is None else own

    def too_far(self, draft: Draft, event: Event, rule: Rule) -> Outcome | None:
        """Return the outcome of an event where the chain of runs that caused it is longer than its trigger allows."""
        cause, most = event.cause, self.hops_of(rule)
        if cause is None or cause.hops <= most:
            return None
        draft.saw("max_hops", "drop", hops=cause.hops, max_hops=most, run=cause.run, via=list(cause.via))
        chain = ("… → " if cause.hops > len(cause.via) else "") + " → ".join((*cause.via, rule.trigger.name))
        runs = "1 run" if cause.hops == 1 else f"{cause.hops:,} runs, one caused by the other,"
        why = f"it comes after {runs} and max_hops is {most:,}: {chain}; the last one is run {cause.run}"
        draft.noting().looped.append(f"trigger {rule.trigger.name}: {why}")
        return Outcome(
            trigger=rule.trigger.name, outcome=EventOutcome.REJECTED, code="loop",
            reason=f"{EventOutcome.REJECTED}: {why}",
        )  # fmt: skip

    def undo(self, notes: Notes) -> None:
        """Take back what was noted of an event that is not stored."""
        self.breakers.undo(notes.guarded)
        for window, cause in reversed(notes.deepened):
            window.cause = cause

    def settle(self, notes: Notes, event: Event) -> None:
        """Take note that an event is durable."""
        self.breakers.settle(notes.guarded)
        self.beats.note(notes.expected, event.received_at)
        for said in notes.looped:
            log.warning("A chain of runs is cut at %s", said, extra={"action": "loop_cut", "event": event.id})

    def expect(self, draft: Draft, rule: Rule, origin: Origin, outcome: Outcome) -> None:
        """Note in the draft where it is an event that was expected: once it is durable, that is met."""
        if origin not in _BY_THEMSELVES or rule.disabled is not None:
            return
        for place, _ in rule.heartbeats:
            if place[0] == SOURCE or outcome.outcome in SIGNS:
                draft.noting().expected.append(place)


def _held_back(draft: Draft, trigger: str, asked: Guarded) -> Outcome:
    quarantine = asked.quarantine
    assert quarantine is not None  # noqa: S101 - it is asked about for that
    scope = quarantine.place[0]
    draft.saw("quarantine", "drop", since=rfc3339(quarantine.since), limit=quarantine.limit, per_s=quarantine.per_s)
    code = "trigger_quarantined" if scope == TRIGGER else "source_quarantined"
    return Outcome(
        trigger=trigger, outcome=EventOutcome.QUARANTINED, code=code,
        reason=f"{EventOutcome.QUARANTINED}: {quarantine.said()}",
    )  # fmt: skip
