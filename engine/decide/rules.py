"""A trigger made ready to decide: its expressions compiled once, its data merged the one way."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from copy import copy
from hashlib import sha256
from typing import Any

from msgspec.structs import replace

from engine.decide.breakers import Place, breakers_of
from engine.decide.functions import Function
from engine.decide.heartbeats import heartbeats_of
from engine.decide.joins import InputRule, Joining
from engine.decide.priority import priority_of
from engine.decide.shaping import Gathering, gathering_of
from engine.errors import ExpressionError
from engine.events import Event
from engine.expressions import JOB_NAMES, TRIGGER_NAMES, Expression, Scope, Template, plain, render
from engine.jobs import Job
from engine.schemas import compiled
from engine.triggers import SHAPING, Breaker, Judge, SharedSource, Trigger

LONGEST_KEY = 1024
"""Characters of a gate's key that are kept; of longer ones the last are a hash of the whole."""

_NO_REQUEST = {"method": "", "headers": {}, "query": {}, "remote": ""}


class Rule:
    """A trigger with its job and its compiled expressions, or the functions that stand for them.

    `disabled` says why it runs nothing, or is None where it does. `shaped` tells whether anything but a filter stands
    between its events and their runs; `gathering` is how they are gathered, None where each runs for itself. `breakers`
    are those that its events meet, its source's first; `heartbeats` how often they are expected.
    `joining` are its inputs, where it is on several sources; `candidates` are then those by which an event may have
    come, None where that is asked of no event, as it is fired by hand.
    `schemas` are those that its events' data has to fit, with their names, the source's first; `redactions` are what
    its sources replace.

    Raises ExpressionError where one of them is wrong; the configuration has checked them before.
    """

    __slots__ = (
        "_data", "_defaults", "breakers", "candidates", "disabled", "filter", "gathering", "heartbeats", "job",
        "joining", "keys", "limit_key", "priority", "redactions", "schemas", "shaped", "trigger",
    )  # fmt: skip

    def __init__(self, trigger: Trigger, job: Job) -> None:
        self.trigger = trigger
        self.job = job
        self.disabled = why_disabled(trigger, job)
        self.breakers: tuple[tuple[Place, Breaker], ...] = breakers_of(trigger)
        self.heartbeats: tuple[tuple[Place, float], ...] = heartbeats_of(trigger)
        self._look_at_payloads(shared_of(trigger), [trigger.shared])
        self.filter = _compiled(trigger.filter)
        self.priority = None if trigger.priority_from is None else Template(trigger.priority_from, TRIGGER_NAMES)
        self.gathering: Gathering | None = gathering_of(trigger)
        self.joining: Joining | None = None
        self.candidates: tuple[InputRule, ...] | None = None
        if trigger.inputs:
            self.joining = Joining(trigger, {one.name: _compiled(one.filter) for one in trigger.inputs})
        gates = {name: getattr(trigger, name) for name in (*SHAPING, "join")}
        self.shaped = trigger.expires_s is not None or any(gate is not None for gate in gates.values())
        self.keys = {
            name: key
            for name, gate in sorted(gates.items())
            if gate is not None and (key := _compiled(gate.key)) is not None
        }
        self.limit_key = _compiled(job.concurrency_key)
        self._data = Function(trigger.data) if callable(trigger.data) else None
        self._defaults: dict[str, Any] | None = None
        if trigger.defaults:
            self._defaults = {
                name: Template(value, JOB_NAMES) if isinstance(value, str) else value
                for name, value in trigger.defaults.items()
            }

    def through(self, inputs: Collection[str]) -> Rule:
        """Return the rule for an event that came by one of these inputs."""
        if self.joining is None:
            return self
        way = copy(self)
        way.candidates = tuple(one for name, one in self.joining.inputs.items() if name in inputs)
        shared = [one.shared for one in self.trigger.inputs if one.name in inputs]
        way._look_at_payloads(shared, shared)
        return way

    def _look_at_payloads(
        self, redacting: Iterable[SharedSource | None], judging: Iterable[SharedSource | None]
    ) -> None:
        """Take up what the sources with a name say of their events' data, and the trigger itself."""
        redactions = [one.redaction for one in redacting if one is not None and one.redaction is not None]
        self.redactions = tuple(dict.fromkeys(redactions))
        given = [*dict.fromkeys([None if one is None else one.schema for one in judging]), self.trigger.schema]
        self.schemas = tuple([(compiled(schema.text), schema.name) for schema in given if schema is not None])

    def by_source(self) -> dict[str, Rule]:
        """Return, for the id of each source that its events come from, the rule for those."""
        if self.joining is None:
            return {self.trigger.source: self}
        names: dict[str, list[str]] = {}
        for one in self.joining.inputs.values():
            names.setdefault(one.source, []).append(one.name)
        return {source: self.through(inputs) for source, inputs in names.items()}

    @property
    def names(self) -> dict[str, Any]:
        """What expressions see of the trigger and its job; made for those that have any, as most have none."""
        trigger, job = self.trigger, self.job
        return {
            "trigger": {"name": trigger.name, "tags": list(trigger.tags)},
            "job": {"name": job.name, "tags": list(job.tags)},
        }

    def limited(self, job: Job) -> Job:
        """Return the job as it holds for runs of this trigger: with the trigger's own time-out and retries."""
        trigger = self.trigger
        if trigger.timeout_s is None and trigger.retry is None:
            return job
        return replace(
            job,
            timeout_s=job.timeout_s if trigger.timeout_s is None else trigger.timeout_s,
            retry=job.retry if trigger.retry is None else trigger.retry.applied(job.retry),
        )

    def data_of(self, event: Event) -> Any:
        """Return the data that the trigger's expressions and its job see.

        Fixed values win over the event's, the event's over the defaults; the first level only. Data that is
        no object stays as it is where there is nothing to merge, and becomes the member `value` where there
        is. Raises ExpressionError for a default whose template, or a function that, fails on this event.

        An event that is to be joined with others has its own data; theirs is merged when they are together.
        """
        data = event.data
        if event.input is not None and self.joining is not None and self.joining.waits:
            return data
        fixed: Any = self.trigger.data if self._data is None else self._data.data(event)
        if not self._defaults and not fixed:
            return data
        if data is None:
            data = {}
        elif not isinstance(data, dict):
            data = {"value": data}
        filled = {}
        scope: Scope | None = None
        for name, default in (self._defaults or {}).items():
            if name in data:
                continue
            if isinstance(default, Template) and not default.constant:
                if scope is None:
                    scope = self.scope(event, data)
                try:
                    filled[name] = plain(default.value(scope))
                except ExpressionError as error:
                    raise ExpressionError(f"default {name}: {error}") from None
            else:
                filled[name] = default.text if isinstance(default, Template) else default
        return {**filled, **data, **(fixed or {})}

    def passes(self, event: Event, scope: Scope) -> bool:
        """Tell whether an event passes the filter; raise ExpressionError where that fails."""
        if isinstance(self.filter, Function):
            return self.filter.holds(_merged(event, scope))
        return self.filter is None or self.filter.holds(scope)

    def keys_of(self, event: Event, scope: Scope, without: Collection[str] = ()) -> dict[str, str]:
        """Return the keys of an event at the gates that have one, but for those `without`; raise ExpressionError where
        one fails."""
        return {gate: self._key(key, event, scope) for gate, key in self.keys.items() if gate not in without}

    def limit_key_of(self, event: Event, scope: Scope | None) -> tuple[str | None, str]:
        """Return the value by which the job's limit holds for an event's run, and what went wrong where it has none.

        Those that have none, as the expression fails, are counted together.
        """
        if self.limit_key is None:
            return None, ""
        try:
            found = scope or self.scope(event, self.data_of(event))
            return self._key(self.limit_key, event, found), ""
        except ExpressionError as error:
            return None, f"it counts as one without a key, as its concurrency_key fails: {error}"

    def _key(self, key: Expression | Function, event: Event, scope: Scope) -> str:
        text = key.key(_merged(event, scope)) if isinstance(key, Function) else render(key.evaluate(scope))
        if len(text) <= LONGEST_KEY:
            return text
        # Cut, but never to what another key is cut to.
        return text[: LONGEST_KEY - 65] + "#" + sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def priority_of(self, event: Event, scope: Scope | None) -> tuple[int, str]:
        """Return the priority of an event's run as the trigger has it, and what went wrong where its template fails.

        What is computed from data is at most `priority_max`, and the trigger's own where that fails.
        """
        own = self.trigger.priority
        if self.priority is None:
            return own, ""
        try:
            found = scope or self.scope(event, self.data_of(event))
            return min(priority_of(self.priority.value(found)), self.trigger.priority_max), ""
        except ExpressionError as error:
            return own, f"priority {own}, as its expression fails: {error}"

    def scope(self, event: Event, data: Any) -> Scope:
        """Return what expressions see for an event whose merged data is `data`; `now` is when it was received.

        Where there is no data they see an empty object, so that `has(data.x)` can ask.
        """
        return Scope(
            {
                "event": {
                    "id": event.id,
                    "source": event.source,
                    "type": event.type,
                    "subject": event.subject,
                    "time": event.time,
                    "received_at": event.received_at,
                    "key": event.key,
                    "priority": event.priority,
                    "input": event.input,
                },
                "data": {} if data is None else data,
                "http": event.http or _NO_REQUEST,
                "now": event.received_at,
                **self.names,
            }
        )


def one_each(rules: Sequence[Rule]) -> Sequence[Rule]:
    """Return each trigger once: one that an event meets by several sources has the inputs of all of them."""
    if all(rule.candidates is None for rule in rules):
        return rules
    merged: dict[str, Rule] = {}
    for rule in rules:
        before = merged.get(rule.trigger.name)
        if before is not None and before.candidates is not None and rule.candidates is not None:
            rule = rule.through({one.name for one in (*before.candidates, *rule.candidates)})
        merged[rule.trigger.name] = rule
    return list(merged.values())


def shared_of(trigger: Trigger) -> list[SharedSource | None]:
    """Return the sources with a name that a trigger is on, None for each that has none."""
    return [one.shared for one in trigger.inputs] if trigger.inputs else [trigger.shared]


def why_disabled(trigger: Trigger, job: Job | None) -> str | None:
    """Say why a trigger runs nothing: it, its source or its job is disabled; None where they are not."""
    why = trigger.why_disabled()
    if why is not None:
        return f"trigger {trigger.name} {why}"
    return None if job is None or job.enabled else f"job {job.name} is disabled"


def _compiled(given: str | Judge | None) -> Expression | Function | None:
    if given is None:
        return None
    return Expression(given, TRIGGER_NAMES) if isinstance(given, str) else Function(given)


def _merged(event: Event, scope: Scope) -> Event:
    """Return the event as functions see it: with the merged data; what has none keeps its None."""
    data = scope.names["data"]
    return event if data is event.data or (event.data is None and data == {}) else replace(event, data=data)
