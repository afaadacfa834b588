"""Drafts: what an event is to become at each trigger that it meets, decided before it is stored."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Protocol

from msgspec.structs import replace

from engine.backlog import Backlog
from engine.clock import rfc3339
from engine.decide.marks import Claim, Marks
from engine.decide.overlap import CAUGHT_UP, REPLACES, Action, Decision, said_of_place, said_of_skip
from engine.decide.payloads import misfit
from engine.decide.priority import effective, rank
from engine.decide.rules import Rule
from engine.decide.shaping import Windows
from engine.errors import ExpressionError, InvalidEvent
from engine.events import RESERVED_PREFIX, Event, EventOutcome, Outcome, Seen
from engine.ids import new_id
from engine.intake.draft import Admitted, Draft
from engine.intake.guarding import Guarding
from engine.intake.joining import Joinery, came_by
from engine.intake.shaping import Shaping
from engine.payload import encode_json
from engine.redaction import Redaction
from engine.replays import REPLAY_KEY
from engine.runs import WAITING, Lane, Origin, Run, RunState, Step, lane_of
from engine.triggers import STARTING_GATES, Edge, Pause
from engine.units import format_size

TIMER_TYPE = f"{RESERVED_PREFIX}timer"

LONGEST_NAME = 1024
"""Characters that an event's type, subject, key and source may have."""

_NO_KEYS: Mapping[str, str] = MappingProxyType({})
_UNCAPPED = frozenset({Origin.BACKFILL, Origin.REPLAY})
"""What the cap on waiting runs of a trigger does not hold for."""

_ON_TIME = frozenset({Origin.SCHEDULE, Origin.BACKFILL})
"""What is run for a due instant, which is the time of its event."""


class Starter(Protocol):
    """What intake needs of dispatch."""

    boot: str

    def claim(self, run_id: str, job: str, lane: Lane, *, key: str | None = None, past_pause: bool = False) -> bool:
        """Take a slot for a new run of the job with this `limit_key`, if one is free, nobody waits for it, and the
        engine is not paused."""
        ...

    def concern(self, trigger: str) -> bool:
        """Tell whether runs of a trigger meet a gate (a condition, a window) before they start."""
        ...

    def meet(
        self, job: str, trigger: str, origin: Origin, *, key: str | None = None, caught_up: bool = False,
        without: Collection[str] = (),
    ) -> Decision:  # fmt: skip
        """Decide what becomes of a new run of a job with that `limit_key`, by its open runs; those in `without` do not
        count."""
        ...

    def expect(self, run: Run) -> None:
        """Count a new run among the open ones, though it is not stored yet."""
        ...

    def withdraw(self, run: Run) -> None:
        """Count a run no more that was not stored."""
        ...

    def release(self, run: Run) -> None:
        """Give a claimed slot back, as its run was not stored."""
        ...

    def launch(self, run: Run, event: Event) -> None:
        """Execute a run that was stored as running, in a claimed slot."""
        ...

    def hasten(self, run_id: str, due_at: datetime) -> None:
        """Take note that a pending run is due earlier, as its window is full."""
        ...

    def let_pass(self, run: Run) -> None:
        """Start a run, when its turn comes, also while the engine is paused."""
        ...

    def offer(self, run: Run, event: Event | None) -> None:
        """Take in a run that was stored as queued."""
        ...

    def wait(self, run: Run, event: Event | None = None) -> None:
        """Take in a run that was stored as pending, with its event where that is small, or was put off."""
        ...


class Pausing(Protocol):
    """What intake needs of the pauses."""

    def at(self, rule: Rule, at: datetime) -> Pause | None:
        """Return the pause that holds for a trigger at that instant."""
        ...


class MarkKeeping(Protocol):
    """What intake needs of the marks that gates keep."""

    known: Marks

    async def learn(self, claims: Collection[Claim]) -> None:
        """Read the marks of claims that were refused."""
        ...

    async def over(self, runs: Collection[str]) -> set[str]:
        """Return which of these runs are not there, or gather no more."""
        ...


class Drafting:
    """Decides what events become. What it reserves for them meanwhile, slots and places in windows, `undo` gives back.

    `pauses` tells what is paused; None: nothing ever is. `redaction` says what is replaced in every event.
    """

    def __init__(
        self, *, starter: Starter, windows: Windows, marks: MarkKeeping, pauses: Pausing | None, backlog: Backlog,
        ageing_s: float, max_data_bytes: int, guarding: Guarding | None = None, redaction: Redaction | None = None,
    ) -> None:  # fmt: skip
        self.guarding = guarding or Guarding()
        self._starter = starter
        self._windows = windows
        self._marks = marks
        self._shaping = Shaping(windows, marks.known, backlog, self._run, self._full)
        self._joining = Joinery(windows, backlog, self._run, self._full)
        self._pauses = pauses
        self._backlog = backlog
        self._ageing_s = ageing_s
        self._max_data_bytes = max_data_bytes
        self._redaction = redaction

    def draft(self, admitted: Admitted, rules: Sequence[Rule], *, again: bool = False) -> Draft:
        """Return an empty draft of an event that meets these triggers, with what is redacted replaced.

        Nobody sees the event as it was from here on. `again`: it was stored before. Raises InvalidEvent where its data
        has become too large by that.
        """
        event, data = admitted
        found = self.redacted(event, rules, again=again)
        if found is not event:
            data = encode_json(found.data)
            if len(data) > self._max_data_bytes:
                limit = format_size(self._max_data_bytes)
                raise InvalidEvent(f"an event's data is at most {limit} of JSON, also when redacted", status=413)
        return Draft(found, data)

    def redacted(self, event: Event, rules: Sequence[Rule] = (), *, again: bool = False) -> Event:
        """Return an event with what the sources of these triggers redact, and what all do, replaced, in this order."""
        for rule in rules:
            for redaction in rule.redactions:
                event = redaction.applied(event, again=again)
                again = True  # two triggers on one source
        return event if self._redaction is None else self._redaction.applied(event, again=again)

    def decide(self, draft: Draft, rules: Sequence[Rule], origin: Origin, reason: str, bypass: frozenset[str]) -> None:
        """Decide what an event becomes at each trigger that it meets."""
        event = draft.event
        if not rules:
            draft.outcomes.append(
                Outcome(
                    trigger=None,
                    outcome=EventOutcome.UNMATCHED,
                    code="unmatched",
                    reason=f"unmatched: no trigger is on events of {event.source} of type {event.type}",
                )
            )
        for rule in rules:
            outcome = self._decide_one(draft, event, rule, origin, reason, bypass)
            if draft.seen:
                outcome = replace(outcome, gates=tuple(draft.seen))
                draft.seen.clear()
            draft.outcomes.append(outcome)
            if rule.heartbeats:
                self.guarding.expect(draft, rule, origin, outcome)

    def _decide_one(
        self, draft: Draft, event: Event, rule: Rule, origin: Origin, reason: str, bypass: frozenset[str]
    ) -> Outcome:
        """Decide what an event becomes at one trigger, adding its run or join to the draft."""
        trigger = rule.trigger
        if rule.disabled is not None:
            what = "job" if trigger.works else "trigger"
            return _dropped(trigger.name, EventOutcome.PAUSED, f"{what}_disabled", rule.disabled)
        if event.cause is not None and (looped := self.guarding.too_far(draft, event, rule)) is not None:
            return looped
        if rule.breakers and (held := self.guarding.held_back(draft, event, rule, origin, bypass)) is not None:
            return held
        if rule.schemas:
            why = misfit(rule, event.data, draft.data, draft.seen)
            if why is not None:
                return _dropped(trigger.name, EventOutcome.REJECTED, "schema", why)
        draft.past_pause = "pause" in bypass
        draft.bypass = tuple(sorted(bypass & STARTING_GATES)) if bypass else ()
        # A backfill waits by itself while its trigger is paused; what it has begun is not lost.
        if self._pauses is not None and not draft.past_pause and origin is not Origin.BACKFILL:
            pause = self._pauses.at(rule, event.received_at)
            if pause is not None:
                until = None if pause.until is None else rfc3339(pause.until)
                draft.seen.append(Seen("pause", "drop", {"since": rfc3339(pause.since), "until": until}))
                return _dropped(
                    trigger.name, EventOutcome.PAUSED, f"{pause.scope.value}_paused", pause.said_of(trigger.name)
                )
        if rule.candidates is not None:
            found = came_by(draft, event, rule)
            if isinstance(found, Outcome):
                return found
            event = found
        keys: Mapping[str, str] = _NO_KEYS
        scope = None
        if rule.filter is not None or rule.keys:
            try:
                scope = rule.scope(event, rule.data_of(event))
                if rule.filter is not None:
                    passes = rule.passes(event, scope)
                    draft.seen.append(Seen("filter", "pass" if passes else "drop", rule.filter.seen(scope)))
                    if not passes:
                        return _dropped(
                            trigger.name, EventOutcome.FILTERED, "filter_false", f"{rule.filter.text} is false"
                        )
                if rule.keys:
                    keys = rule.keys_of(event, scope, bypass)
            except ExpressionError as error:
                why = f"{error}; the event has no data" if event.data is None else str(error)
                if rule.filter is not None and (not draft.seen or draft.seen[-1].gate == "on"):
                    draft.seen.append(Seen("filter", "error", None if scope is None else rule.filter.seen(scope)))
                return _dropped(trigger.name, EventOutcome.FILTERED, "filter_error", why)
        own, draft.fault = rule.priority_of(event, scope)
        priority = effective(own, event.priority, trigger.priority_max)
        draft.limit_key = None
        if rule.limit_key is not None:
            draft.limit_key, fault = rule.limit_key_of(event, scope)
            draft.fault = "; ".join(filter(None, (draft.fault, fault)))
        if rule.shaped:
            outcome = self._shape(draft, event, rule, origin, priority, reason, keys, bypass)
        else:
            outcome = self._ready(draft, event, rule, origin, priority, reason)
        if event.input is not None:
            draft.came_by(event.input, outcome)
        return outcome

    def again(self, draft: Draft, rule: Rule, run: Run, count: int, reason: str) -> None:
        """Decide what becomes of a run that is to run once more, for `count` events of which this is the first."""
        if rule.limit_key is not None:
            # What the first time saw besides the event, such as a request's headers, is gone.
            draft.limit_key = run.limit_key or rule.limit_key_of(draft.event, None)[0]
        draft.outcomes.append(self._ready(draft, draft.event, rule, Origin.REPLAY, run.priority, reason))
        new, event = draft.runs[0]
        draft.runs[0] = (replace(new, event_count=count, scheduled_for=run.scheduled_for), event)

    def _shape(
        self, draft: Draft, event: Event, rule: Rule, origin: Origin, priority: int, reason: str,
        keys: Mapping[str, str], bypass: frozenset[str],
    ) -> Outcome:  # fmt: skip
        """Decide what an event becomes at a trigger that shapes its events: see docs/shaping.md for the order."""
        shaping, gathering = self._shaping, rule.gathering
        outcome = shaping.drop(draft, event, rule, keys, bypass)
        if outcome is not None:
            return outcome
        if event.input is not None and rule.joining is not None and rule.joining.waits:
            outcome = self._joining.join(draft, event, rule, rule.joining, origin, priority, keys.get("join", ""))
            shaping.remember(draft, event, rule, keys, bypass, outcome, None)
            return outcome
        if gathering is not None and gathering.gate in bypass:
            gathering = None
        if gathering is not None:
            outcome = shaping.gather(draft, event, rule, gathering, origin, priority, keys)
        leads = outcome is None and gathering is not None and gathering.edge is not Edge.TRAILING
        if outcome is None and "throttle" not in bypass:
            outcome = shaping.throttle(draft, event, rule, origin, priority, keys)
        if outcome is None:
            outcome = self._ready(draft, event, rule, origin, priority, reason)
        shaping.remember(draft, event, rule, keys, bypass, outcome, gathering if leads else None)
        return outcome

    def _ready(self, draft: Draft, event: Event, rule: Rule, origin: Origin, priority: int, reason: str) -> Outcome:
        """Make a run that is ready; where a slot is free it is stored as running at once.

        Where the limit of its job is reached, it waits, is skipped, or takes the place of another one.
        """
        now, trigger, job = event.received_at, rule.trigger.name, rule.job.name
        if (full := self._full(rule, origin)) is not None:
            return full
        if origin is Origin.EVENT and not draft.caught_up:
            code, text = "matched", f"matched: {reason}" if reason else "matched"
        elif origin is Origin.MANUAL:
            code, text = "fired", f"fired by hand: {reason}" if reason else "fired by hand"
        elif draft.caught_up:
            code, text = CAUGHT_UP, f"due: {reason}" if reason else "due"
        elif origin is Origin.SCHEDULE:
            code, text = "due", f"due: {reason}" if reason else "due"
        elif origin is Origin.BACKFILL:
            code, text = "backfilled", f"backfilled: {reason}" if reason else "backfilled"
        elif origin is Origin.REPLAY and event.key is not None and event.key.startswith(REPLAY_KEY):
            code, text = "replayed", f"replayed: {reason}"
        else:
            code, text = "retried", f"retried: {reason}"
        text = draft.told(text)
        key, run_id = draft.limit_key, new_id()
        met = self._starter.meet(job, trigger, origin, key=key, caught_up=draft.caught_up, without=draft.apart or ())
        # A backfill's run waits in its lane, so that it takes no slot that others want.
        # So does what meets a gate, which is asked when its turn comes.
        gated = self._starter.concern(trigger)
        may_start = draft.may_start and origin is not Origin.BACKFILL and not gated
        if met.run is not None:
            draft.seen.append(Seen("overlap", met.action.value, {"run": met.run}))
        if met.action is Action.SKIP:
            return self._skip(draft, event, rule, origin, priority, met)
        if met.action is Action.REPLACE:
            code, text = REPLACES, f"{text}; {said_of_place(met)}"
            step = Step(at=now, state=RunState.QUEUED, code=code, reason=text, bypass=draft.bypass)
            run = self._run(event, rule, origin, priority, (step,), id=run_id, limit_key=key)
            draft.in_the_way += () if met.run is None else (met.run,)
        elif may_start and self._starter.claim(run_id, job, lane_of(origin), key=key, past_pause=draft.past_pause):
            steps = (
                Step(at=now, state=RunState.QUEUED, code=code, reason=text, bypass=draft.bypass),
                Step(at=now, state=RunState.RUNNING, code="started", reason="started: a slot was free"),
            )
            run = self._run(
                event, rule, origin, priority, steps, id=run_id, limit_key=key, attempt=1, started_at=now,
                boot=self._starter.boot,
            )  # fmt: skip
        else:
            text = f"{text}; waits for {'its turn' if gated else 'a slot'}"
            step = Step(at=now, state=RunState.QUEUED, code=code, reason=text, bypass=draft.bypass)
            run = self._run(event, rule, origin, priority, (step,), id=run_id, limit_key=key)
        self._starter.expect(run)
        if run.state is not RunState.RUNNING:
            self._backlog.add(trigger)
        draft.add(run, event)
        return Outcome(trigger=trigger, outcome=EventOutcome.RUN, run=run.id, code=code, reason=text)

    def _full(self, rule: Rule, origin: Origin) -> Outcome | None:
        """Return the outcome of an event where as many runs of its trigger wait as may; None where one more may.

        What people ask for once more is not lost so, and a backfill counts its open runs by itself.
        """
        most, trigger = rule.trigger.max_waiting, rule.trigger.name
        if most is None or origin in _UNCAPPED or (waiting := self._backlog.of(trigger)) < most:
            return None
        why = f"{waiting:,} runs of trigger {trigger} wait already (max_waiting = {most})"
        return _dropped(trigger, EventOutcome.RATE_LIMITED, "queue_full", why)

    def _skip(
        self, draft: Draft, event: Event, rule: Rule, origin: Origin, priority: int, met: Decision
    ) -> Outcome:  # fmt: skip
        """Make a run that is skipped for another one: it begins and ends so, and nothing follows from its end."""
        now, text = event.received_at, said_of_skip(met, draft.limit_key)
        step = Step(at=now, state=RunState.SKIPPED, code="overlap", reason=text)
        run = self._run(event, rule, origin, priority, (step,), finished_at=now, limit_key=draft.limit_key)
        draft.in_the_way += () if met.run is None else (met.run,)
        draft.runs.append((run, event))
        return Outcome(trigger=rule.trigger.name, outcome=EventOutcome.RUN, run=run.id, code="overlap", reason=text)

    def _run(
        self, event: Event, rule: Rule, origin: Origin, priority: int, steps: tuple[Step, ...], *,
        id: str | None = None, limit_key: str | None = None, attempt: int = 0, started_at: datetime | None = None,
        boot: str | None = None, finished_at: datetime | None = None, **shaped: Any,
    ) -> Run:  # fmt: skip
        now, expires_s = event.received_at, rule.trigger.expires_s
        last, expires_at = steps[-1], None
        if expires_s is not None and last.state in WAITING and origin is not Origin.BACKFILL:
            # What gathers is not late before its window is over.
            since = now if shaped.get("window") is None else shaped["due_at"]
            expires_at = since + timedelta(seconds=expires_s)
        key = event.key
        if key is None:
            key = event.id
        elif (
            # Heard, or of several sources: they may use the same keys for different events.
            event.input is not None
            or (origin is Origin.EVENT and event.source != rule.trigger.source)
            # Another backfill may run the same instant again.
            or origin is Origin.BACKFILL
        ):
            key = f"{event.source} {key}"
        on_time = origin in _ON_TIME or (origin is Origin.REPLAY and event.type == TIMER_TYPE)
        run = Run(
            id=id or new_id(), job=rule.job.name, trigger=rule.trigger.name, origin=origin, key=key, event=event.id,
            state=last.state, code=last.code, reason=last.reason, priority=priority,
            rank=rank(now, priority, self._ageing_s), created_at=now, trace=steps,
            scheduled_for=event.time if on_time else None, cause=event.cause, limit_key=limit_key, attempt=attempt,
            started_at=started_at, boot=boot, finished_at=finished_at, expires_at=expires_at,
        )  # fmt: skip
        return replace(run, **shaped) if shaped else run

    def undo(self, drafts: Sequence[Draft]) -> None:
        """Take back what was reserved for events that were not stored, the last first: each built upon those before."""
        for draft in reversed(drafts):
            for run, _ in draft.runs:
                self._starter.withdraw(run)
                if run.state in WAITING:
                    self._backlog.remove(run.trigger)
                if run.state is RunState.RUNNING:
                    self._starter.release(run)
            if draft.notes is not None:
                self.guarding.undo(draft.notes)
            for window in draft.opened:
                self._windows.close(window)
            self._marks.known.forget(draft.claims)
            for window, before, after, size_bytes in reversed(draft.joined):
                window.count -= 1
                window.size_bytes -= size_bytes
                if window.due_at == after:
                    window.due_at = before
                self._windows.unseal(window)
            for join, name, event_id in reversed(draft.parts):
                join.take_back(name, event_id)

    def restore(self, draft: Draft) -> None:
        """Know again what was known of the marks that a draft changed, which nobody has looked at since."""
        for place, before in reversed(draft.marked):
            self._marks.known.restore(place, before)

    def settle(self, draft: Draft) -> None:
        """Take note that a draft is durable: its claims, its quarantines, and the windows that are full with it."""
        if draft.notes is not None:
            self.guarding.settle(draft.notes, draft.event)
        self._marks.known.settle(draft.claims)
        for run_id, due_at in draft.filled:
            self._starter.hasten(run_id, due_at)
        for window, name, event_id in draft.parts:
            window.settle(name, event_id)

    async def learn(self, draft: Draft) -> None:
        """Find out why a draft was refused: close windows that it joined and that are over, read the marks it claimed.

        Raises StoreUnavailable.
        """
        if draft.claims:
            await self._marks.learn(draft.claims)
        if not draft.joined:
            return
        over = await self._marks.over({window.run for window, *_ in draft.joined})
        for window, *_ in draft.joined:
            if window.run in over:
                self._windows.close(window)


def _dropped(trigger: str, outcome: EventOutcome, code: str, why: str) -> Outcome:
    return Outcome(trigger=trigger, outcome=outcome, code=code, reason=f"{outcome}: {why}")
