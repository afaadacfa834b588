"""Once more: a new run of what an ended run was for, by events that are copies of that run's.

The copies have ids of their own, and so an outcome each, as every event; source, type, subject, time and data are those
of the first time. The new run goes straight to the queue: what its events had to pass they have passed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from engine.clock import Clock
from engine.decide.rules import Rule
from engine.errors import Conflict, NotFound
from engine.events import Accepted, Event, EventOutcome, Outcome
from engine.ids import new_id
from engine.intake.draft import Draft
from engine.intake.drafts import Drafting
from engine.journal import Journal
from engine.payload import encode_json
from engine.runs import Run
from engine.store.changes import Accept

TRIES = 3


class Again:
    """Runs once more what has ended; `hand_on` gives what is durable to dispatch."""

    def __init__(
        self, *, clock: Clock, journal: Journal, drafting: Drafting, rules: Mapping[str, Rule],
        hand_on: Callable[[Sequence[Draft], Sequence[Accepted]], object],
    ) -> None:  # fmt: skip
        self._clock = clock
        self._journal = journal
        self._drafting = drafting
        self._rules = rules
        self._hand_on = hand_on

    async def __call__(
        self, run: Run, events: Sequence[Event], *, reason: str, request_id: str | None = None
    ) -> Accepted:
        """Make a new run for copies of a run's events, oldest first, durably; return the answer for the first of them.

        The same `request_id` again makes no second one. Raises NotFound, Conflict (the trigger or its job is disabled),
        InvalidEvent and StoreUnavailable.
        """
        rule = self._rules.get(run.trigger)
        if rule is None:
            raise NotFound(f"there is no trigger {run.trigger} any more")
        if rule.disabled is not None:
            raise Conflict(rule.disabled)
        doubted: set[str] = set()
        for attempt in range(1, TRIES + 1):
            drafts = self._drafts(run, events, rule, reason, request_id, doubted if attempt == TRIES else None)
            stored = self._journal.submit(Accept(entries=tuple([draft.entry() for draft in drafts])))
            try:
                answers: list[Accepted] = await stored
            except asyncio.CancelledError:
                # Who asked is gone, but it was written or refused: the run must not be left alone.
                if stored.exception() is not None:
                    self._drafting.undo(drafts)
                else:
                    self._hand_on(drafts, stored.result())
                raise
            except Conflict:
                # A run in its way was over in the store.
                self._drafting.undo(drafts)
                doubted.update(drafts[0].in_the_way)
                if attempt == TRIES:
                    raise
            except BaseException:
                self._drafting.undo(drafts)
                raise
            else:
                self._hand_on(drafts, answers)
                return answers[0]
        raise AssertionError("unreachable")

    def _drafts(
        self, run: Run, events: Sequence[Event], rule: Rule, reason: str, request_id: str | None, apart: set[str] | None
    ) -> list[Draft]:  # fmt: skip
        now = self._clock.now()
        copies = [
            replace(
                event, id=new_id(), received_at=now, key=None if request_id is None else f"retry {request_id} {place}"
            )
            for place, event in enumerate(events)
        ]
        # All are looked at before anything is reserved.
        first, *others = drafts = [
            self._drafting.draft((copy, encode_json(copy.data)), (rule,), again=True) for copy in copies
        ]
        first.apart = apart
        first.may_start = not others  # at once it would start with its first event alone
        self._drafting.again(first, rule, run, len(copies), reason)
        new = first.runs[0][0]
        for draft in others:
            text = f"joined: run {new.id} is for all events of run {run.id}"
            joined = Outcome(
                trigger=run.trigger, outcome=EventOutcome.JOINED, run=new.id, code="joined", reason=text
            )  # fmt: skip
            draft.outcomes.append(joined)
        for draft in drafts:
            if draft.event.input is not None:
                draft.came_by(draft.event.input, draft.outcomes[0])
        return drafts
