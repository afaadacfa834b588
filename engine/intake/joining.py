"""Triggers on several sources: by which input an event comes, and the joins that wait for all of them.

See docs/shaping.md, and `engine.decide.joins` for what a join is.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from engine.backlog import Backlog
from engine.clock import rfc3339
from engine.decide.functions import Function
from engine.decide.joins import JOIN_WAITS, Joining, JoinWindow, ends_at, ends_complete, opened
from engine.decide.rules import Rule
from engine.decide.shaping import Windows
from engine.errors import ExpressionError
from engine.events import Event, EventOutcome, Outcome
from engine.intake.draft import Draft
from engine.intake.shaping import MakeRun
from engine.runs import Origin, RunState, Step
from engine.store.changes import Join, Supersede
from engine.triggers import Use
from engine.units import listed


def came_by(draft: Draft, event: Event, rule: Rule) -> Event | Outcome:
    """Return an event with the input by which it came: of those by which it may have, the first whose filter it passes.

    Where it passes none, return that it is filtered.
    """
    failed = ""
    for one in rule.candidates or ():
        taken = replace(event, input=one.name)
        if one.filter is None:
            draft.saw("on", "pass", input=one.name)
            return taken
        scope = rule.scope(taken, event.data)
        try:
            passes = one.filter.holds(taken) if isinstance(one.filter, Function) else one.filter.holds(scope)
            verdict = "pass" if passes else "drop"
        except ExpressionError as error:
            passes, verdict = False, "error"
            failed = failed or f"input {one.name}: {error}"
        draft.saw("on", verdict, input=one.name, filter=one.filter.seen(scope))
        if passes:
            return taken
    names = listed([f"{one.name} ({one.filter.text})" for one in rule.candidates or () if one.filter is not None])
    code, why = ("filter_error", failed) if failed else ("filter_false", f"it passes the filter of no input: {names}")
    return Outcome(
        trigger=rule.trigger.name, outcome=EventOutcome.FILTERED, code=code, reason=f"{EventOutcome.FILTERED}: {why}"
    )  # fmt: skip


class Joinery:
    """Decides what an event is in a join, at the state that the windows have; what it changes there is in the draft.

    `full` tells whether one more run of a trigger may wait.
    """

    def __init__(
        self, windows: Windows, backlog: Backlog, make_run: MakeRun, full: Callable[[Rule, Origin], Outcome | None]
    ) -> None:
        self._windows = windows
        self._backlog = backlog
        self._make_run = make_run
        self._full = full

    def join(
        self, draft: Draft, event: Event, rule: Rule, joining: Joining, origin: Origin, priority: int, key: str
    ) -> Outcome:
        """Let an event, which has its input, be a part of the open join of its key, or open one with a pending run."""
        window = self._windows.find(rule.trigger.name, key)
        if window is not None and (not isinstance(window, JoinWindow) or window.due_at <= event.received_at):
            # Over, and its run is about to take note of that; or what the trigger gathered when it was another one.
            self._windows.seal(window)
        elif isinstance(window, JoinWindow) and (draft.apart is None or window.run not in draft.apart):
            return self._add(draft, event, rule, joining, priority, window)
        return self._open(draft, event, rule, joining, origin, priority, key)

    def _open(
        self, draft: Draft, event: Event, rule: Rule, joining: Joining, origin: Origin, priority: int, key: str
    ) -> Outcome:
        name, most = rule.trigger.name, 0 if joining.join is None else joining.join.max_open
        if (full := self._full(rule, origin)) is not None:
            return full
        if len(self._windows.of_trigger(name)) >= most:
            draft.saw("join", "drop", key=key, input=event.input, open=most)
            return _full_of(name, f"{most:,} joins of trigger {name} wait already (max_open = {most})")
        ends = ends_at(joining, event.received_at)
        missing = [one for one in joining.inputs if one != event.input]
        text = draft.told(f"pending: waits for {listed(missing)} until {ends:%H:%M:%S} UTC (join)")
        step = Step(at=event.received_at, state=RunState.PENDING, code=JOIN_WAITS, reason=text, bypass=draft.bypass)
        run = self._make_run(
            event, rule, origin, priority, (step,), due_at=ends, closes_at=ends, window=key, limit_key=draft.limit_key
        )
        window = opened(run, event, joining)
        self._windows.open(window)
        draft.opened += (window,)
        draft.parts += ((window, event.input or "", event.id),)
        self._backlog.add(name)
        draft.saw("join", "open", key=key, input=event.input, until=rfc3339(ends), missing=missing)
        draft.add(run, event)
        return Outcome(trigger=name, outcome=EventOutcome.RUN, run=run.id, code=JOIN_WAITS, reason=text)

    def _add(
        self, draft: Draft, event: Event, rule: Rule, joining: Joining, priority: int, window: JoinWindow
    ) -> Outcome:  # fmt: skip
        name, source = rule.trigger.name, event.input or ""
        use, most = joining.inputs[source].use, 0 if joining.join is None else joining.join.max_events
        before = window.parts.get(source, [])
        if use is Use.FIRST and before:
            return self._keep_first(draft, event, rule, window)
        if use is Use.ALL and sum(map(len, window.used.values())) >= most:
            draft.saw("join", "drop", key=window.key, input=source, run=window.run, events=most)
            return _full_of(name, f"run {window.run} joins {most:,} events already (max_events = {most})")
        draft.raised += ((window, window.priority),)
        window.priority = max(window.priority, priority)
        old, was_due = window.add(source, event.id), window.due_at
        window.count += 1
        missing = window.missing
        if not missing and ends_complete(joining):
            window.due_at = event.received_at
            self._windows.seal(window)
            draft.filled += ((window.run, window.due_at),)
        draft.joined += ((window, was_due, window.due_at, 0),)
        draft.parts += ((window, source, event.id),)
        first = old is not None and source == window.opened_by
        outcome = EventOutcome.RUN if first else EventOutcome.JOINED
        text = draft.told(_said_of_join(window, missing, ended=window.due_at != was_due))
        verdict = "join" if old is None else "supersede"
        draft.saw(
            "join", verdict, key=window.key, input=source, until=rfc3339(window.due_at), missing=missing,
            **({} if old is None else {"event": old}),
        )  # fmt: skip
        draft.joins += (
            Join(
                run=window.run, event=event.id, due_at=window.due_at, priority=window.priority, reason=text,
                count=1 if old is None else 0, cause=draft.deepened(window, event),
            ),
        )  # fmt: skip
        if old is not None:
            why = f"event {event.id} came after it by input {source} while run {window.run} waited"
            draft.supersedes += (
                Supersede(
                    run=window.run, trigger=name, old=old, event=event.id, code="join_superseded",
                    reason=f"{EventOutcome.DEDUPLICATED}: {why}", first=first,
                ),
            )  # fmt: skip
        code = JOIN_WAITS if missing else "join_complete"
        return Outcome(trigger=name, outcome=outcome, run=window.run, code=code, reason=text)

    def _keep_first(self, draft: Draft, event: Event, rule: Rule, window: JoinWindow) -> Outcome:
        """Drop an event, as another one came before it by the same input; that has to be durable by then."""
        before = window.parts[event.input or ""][0]
        draft.in_the_way += (window.run,)
        draft.saw("join", "drop", key=window.key, input=event.input, run=window.run, event=before)
        why = f"event {before} came before it by input {event.input}, and run {window.run} uses the first"
        return Outcome(
            trigger=rule.trigger.name, outcome=EventOutcome.DEDUPLICATED, run=window.run, code="join_superseded",
            reason=f"{EventOutcome.DEDUPLICATED}: {why}",
        )  # fmt: skip


def _said_of_join(window: JoinWindow, missing: list[str], *, ended: bool) -> str:
    until = f"until {window.due_at:%H:%M:%S} UTC"
    if missing:
        return f"joined: run {window.run} still waits for {listed(missing)} {until}"
    return f"joined: run {window.run} has all of its inputs" + ("" if ended else f", and takes later ones {until}")


def _full_of(trigger: str, why: str) -> Outcome:
    return Outcome(
        trigger=trigger, outcome=EventOutcome.RATE_LIMITED, code="join_full",
        reason=f"{EventOutcome.RATE_LIMITED}: {why}",
    )  # fmt: skip
