"""Rehearsal: what an event would become at a trigger, decided by the deciders themselves and taken back; and replays.

A replay is a copy of an event with an id of its own, so that it has outcomes of its own, as every event. It meets what
its first time met, but for those that shape: each replayed event runs for itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

from msgspec.structs import replace

from engine.decide.rules import Rule
from engine.errors import Conflict, ExpressionError, NotFound
from engine.events import Accepted, Event, EventOutcome, Outcome, Seen
from engine.ids import new_id
from engine.intake.draft import Admitted
from engine.intake.drafts import Drafting
from engine.plugin import Source
from engine.replays import REPLAY_KEY, Rehearsed
from engine.runs import Origin
from engine.store.base import StoredEvent
from engine.triggers import SHAPING

_NOT_FOR_REPLAY = SHAPING

Commit = Callable[[Event, Sequence[Rule], str, frozenset[str]], Awaitable[Accepted]]


class Rehearsal:
    """Tries events without storing them, and runs them again.

    `admit` checks and completes an event as from a source, `commit` makes a replay durable.
    """

    def __init__(
        self, *, drafting: Drafting, rules: Mapping[str, Rule], admit: Callable[[Event, str], Admitted], commit: Commit
    ) -> None:
        self._drafting = drafting
        self._rules = rules
        self._admit = admit
        self._commit = commit

    def test(self, trigger: str, event: Event) -> Rehearsed:
        """Return what an event would become now; nothing is stored or started, and nothing is different afterwards.

        It is decided as one from the trigger's own source. Where that has several, the event's `source` is the id of
        one of them, or the name of an input; else it may come by each. Raises NotFound and InvalidEvent.
        """
        rule = self._rule(trigger)
        if rule.joining is not None and event.source in rule.joining.inputs:
            rule = rule.through((event.source,))
            event = replace(event, source="")
        elif rule.joining is not None:
            rule = rule.through(rule.joining.inputs)
        ways = [(one.source, one.on) for one in rule.candidates or ()] or [(rule.trigger.source, rule.trigger.on)]
        draft = self._drafting.draft(self._admit(event, event.source or ways[0][0]), (rule,))
        named = bool(event.source) and rule.candidates is not None
        heard = [source for source, on in ways if _takes(source, on, draft.event, named=named)]
        if not heard:
            return Rehearsed(event=draft.event, outcome=_unheard(trigger, draft.event))
        if rule.candidates is not None:
            rule = rule.through([one.name for one in rule.candidates if one.source in heard])
        try:
            self._drafting.decide(draft, (rule,), Origin.EVENT, "", frozenset())
        finally:
            # Nothing else has had a turn: what was reserved is given back before anybody can miss it.
            self._drafting.undo([draft])
            self._drafting.restore(draft)
            for window, priority in reversed(draft.raised):
                window.priority = priority
        (outcome,) = draft.outcomes
        data = None
        with suppress(ExpressionError):  # the gates tell of it
            data = rule.data_of(_part(draft.event, outcome, rule))
        return Rehearsed(
            event=draft.event, outcome=outcome, run=draft.runs[0][0] if draft.runs else None, data=data
        )  # fmt: skip

    async def replay(
        self, stored: StoredEvent, *, trigger: str | None, reason: str, request_id: str | None = None
    ) -> Accepted:
        """Run an event again at the triggers that it met, or at one of them, durably.

        Each new run has the origin `replay` and goes by its own key, so nothing of the first time is in its way. The
        same `request_id` again makes no second one.

        Raises NotFound, Conflict (it met no trigger that is there and works, or the request id was that of a replay
        at another trigger), InvalidEvent and StoreUnavailable.
        """
        rules = self.met(stored, trigger)
        if not rules:
            met = "the trigger" if trigger is not None else "any trigger"
            raise Conflict(f"event {stored.event.id} met {met} that could run it now: there is none, or it is disabled")
        first = stored.event
        key = f"{REPLAY_KEY}{first.id} {request_id or new_id()}"
        said = f"event {first.id}" + (f": {reason}" if reason else "")
        copy = replace(first, key=key, http=None)
        answer = await self._commit(copy, rules, said, _NOT_FOR_REPLAY)
        if answer.duplicate and trigger is not None and all(one.trigger != trigger for one in answer.outcomes):
            raise Conflict(f"its request id has replayed event {first.id} at another trigger; give each its own")
        return answer

    def met(self, stored: StoredEvent, trigger: str | None) -> list[Rule]:
        """Return the triggers that an event met, or the one that is named of them, as far as they work now."""
        if trigger is not None:
            self._rule(trigger)
        names = [
            outcome.trigger
            for outcome in stored.outcomes
            if outcome.trigger is not None and outcome.outcome is not EventOutcome.REJECTED
        ]
        found = [self._way(name, stored) for name in names if name in self._rules and trigger in (None, name)]
        return [rule for rule in found if rule.disabled is None]

    def _way(self, name: str, stored: StoredEvent) -> Rule:
        """Return a trigger's rule, for the input by which an event came the first time, where it has several.

        One that a pause or a quarantine held back was not asked by which it comes: it may be by each that it suits.
        """
        rule = self._rules[name]
        if rule.joining is None:
            return rule
        came_by = {
            seen.saw["input"]
            for outcome in stored.outcomes if outcome.trigger == name
            for seen in outcome.gates if seen.gate == "on" and isinstance(seen.saw, dict) and "input" in seen.saw
        }  # fmt: skip
        inputs = rule.joining.inputs
        suit = [one.name for one in inputs.values() if _takes(one.source, one.on, stored.event, named=True)]
        return rule.through(came_by or suit or inputs)

    def _rule(self, trigger: str) -> Rule:
        rule = self._rules.get(trigger)
        if rule is None:
            raise NotFound(f"there is no trigger {trigger}")
        return rule


def _takes(source: str, on: object, event: Event, *, named: bool) -> bool:
    """Tell whether a source of a trigger may have an event; `named`: it says which source it comes from."""
    if isinstance(on, Source) and on.hears:
        return on.accepts(event)
    return not named or event.source == source


def _part(event: Event, outcome: Outcome, rule: Rule) -> Event:
    """Return an event as the job sees it: as its part of a join, where it is one."""
    came_by = next((seen.saw["input"] for seen in outcome.gates if (seen.gate, seen.verdict) == ("on", "pass")), None)
    if came_by is None or rule.joining is None or not rule.joining.waits:
        return event
    return rule.joining.joined((replace(event, input=came_by),))


def _unheard(trigger: str, event: Event) -> Outcome:
    seen = Seen("on", "drop", {"source": event.source, "type": event.type, "subject": event.subject})
    return Outcome(
        trigger=trigger, outcome=EventOutcome.UNMATCHED, code="unmatched",
        reason=f"unmatched: the source of trigger {trigger} does not listen to events of type {event.type}",
        gates=(seen,),
    )  # fmt: skip
