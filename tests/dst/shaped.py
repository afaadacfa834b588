"""The judge of shaping: what each gate let pass, dropped, gathered and put off, by a slow and obvious model of it.

It reads the whole story at the end: the events of a trigger in the order in which they became durable, with what came
of each. See docs/shaping.md, which it goes by.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from engine.config import Config
from engine.replays import REPLAY_KEY, RETRY_KEY
from engine.triggers import Edge, Rate, Trigger
from tests.dst.deciding import NUMBERED, URGENT
from tests.dst.disk import Disk
from tests.dst.plan import Plan

SECOND_US = 1_000_000
SLACK_US = 2 * SECOND_US

_UNMET = frozenset({"paused", "filtered", "rejected", "quarantined"})
"""The outcomes of events that came to none of the gates."""


class Met(Struct, kw_only=True):
    """An event at a trigger: when it was received, what it became, and what it passes by."""

    at: int
    subject: str
    data: Any
    size: int
    priority: int | None
    outcome: str
    code: str
    run: str | None
    event: str
    bypass: frozenset[str]

    def key(self, expression: str | None) -> str:
        """Return the value of one of the keys that a plan draws."""
        if expression is None:
            return ""
        if expression == "event.subject":
            return self.subject
        if expression != NUMBERED:
            raise ValueError(f"no such key is drawn: {expression}")
        return str(int(self.data["n"]) % 4) if isinstance(self.data, dict) and "n" in self.data else "none"


class Shaped:
    """Judges the shaping of one simulation; `released` tells when it was durable that a run had left its throttle."""

    def __init__(self, plan: Plan, config: Config, disk: Disk, released: Mapping[str, int]) -> None:
        self._released = released
        self._config = config
        self._disk = disk
        self._bypass = {
            call.what["request"]: frozenset(call.what["bypass"]) for call in plan.calls if call.kind == "fire"
        }
        self._runs: dict[str, Any] = {}

    def findings(self, *, stepped: bool, stepped_back: bool) -> Iterator[str]:
        """Yield what is wrong. Where the clock was set, what depends on distances is not looked at."""
        columns = "id, trigger, origin, priority, state, created_at, closes_at, event_count, throttled, trace"
        self._runs = {row[0]: _Run(*row) for row in self._disk.story.execute(f"select {columns} from runs")}
        for name, trigger in self._config.triggers.items():
            met = self._met(name)
            if not stepped_back:
                yield from self._deduplicated(trigger, met)
                yield from self._limited(trigger, met)
            yield from self._gathered(trigger, met, stepped_back=stepped_back)
            if not stepped:
                yield from self._throttled(trigger, met)
            if trigger.join is None:  # what is superseded leaves its urgency behind
                yield from self._priorities(trigger, met)

    def _met(self, trigger: str) -> list[Met]:
        """Return the events that met the gates of a trigger, in the order in which they became durable."""
        rows = self._disk.story.execute(
            "select e.received_at, e.subject, e.data, e.priority, e.source, e.key, o.outcome, o.code, o.run, e.id "
            "from outcomes o join events e on e.id = o.event where o.trigger = ? order by e.seq", (trigger,)
        )  # fmt: skip
        found = []
        for at, subject, data, priority, source, key, outcome, code, run, event in rows:
            again = key is not None and key.startswith((REPLAY_KEY, RETRY_KEY))
            if again or source.startswith("backfill:") or outcome in _UNMET:
                continue
            bypass = self._bypass.get(key, frozenset()) if source == "manual" else frozenset()
            found.append(Met(
                at=at, subject=subject or "", data=json.loads(data), size=len(data.encode()), priority=priority,
                outcome=outcome, code=code, run=run, event=event, bypass=bypass,
            ))  # fmt: skip
        return found

    def _deduplicated(self, trigger: Trigger, met: Sequence[Met]) -> Iterator[str]:
        """Of those that are alike within the window only the first is run."""
        if trigger.dedupe is None:
            return
        window_us, first = round(trigger.dedupe.window_s * SECOND_US), dict[str, tuple[int, str | None]]()
        for one in met:
            if "dedupe" in one.bypass:
                continue
            key = one.key(str(trigger.dedupe.key))
            until, run = first.get(key, (0, None))
            if (until > one.at) != (one.code == "dedupe"):
                yield f"event {one.event} at {trigger.name} is {one.code}; that of its key {key!r} counts until {until}"
            elif one.code == "dedupe" and one.run != run:
                yield f"event {one.event} at {trigger.name} is deduplicated for {one.run}, the first one is {run}"
            if one.outcome in ("run", "joined"):
                first[key] = (one.at + window_us, one.run)

    def _limited(self, trigger: Trigger, met: Sequence[Met]) -> Iterator[str]:
        """As many pass as the rate limit says, and what it drops was too much."""
        rate = trigger.rate_limit
        if rate is None:
            return
        tats: dict[str, int] = defaultdict(int)
        for one in met:
            if "rate_limit" in one.bypass or one.code == "dedupe":
                continue
            key = one.key(None if rate.key is None else str(rate.key))
            free = max(one.at, tats[key] - (rate.burst - 1) * _interval_us(rate))
            if (free > one.at) != (one.code == "rate_limited"):
                yield f"event {one.event} at {trigger.name}, come at {one.at}, is {one.code}; it is free at {free}"
            if one.code != "rate_limited":
                tats[key] = max(tats[key], one.at) + _interval_us(rate)

    # What gathers

    def _gathered(self, trigger: Trigger, met: Sequence[Met], *, stepped_back: bool) -> Iterator[str]:
        rule = trigger.debounce or trigger.batch
        if rule is None:
            return
        members: dict[str, list[Met]] = defaultdict(list)
        for one in met:
            if one.outcome in ("run", "joined") and one.run is not None:
                members[one.run].append(one)
        last: dict[str, tuple[_Run, list[Met]]] = {}
        for run_id, events in members.items():
            run = self._runs[run_id]
            if run.steps[0][2] not in ("debounce", "batch"):
                if len(events) > 1:
                    yield f"run {run_id} of {trigger.name} gathers nothing, and has {len(events)} events"
                continue
            if run.count != len(events):
                yield f"run {run_id} of {trigger.name} counts {run.count} events, and has {len(events)}"
            yield from self._gathering(trigger, run, events)
            key = events[0].key(None if rule.key is None else str(rule.key))
            if any(one.key(None if rule.key is None else str(rule.key)) != key for one in events):
                yield f"run {run_id} of {trigger.name} has events of different keys"
            before = last.get(key)
            last[key] = (run, events)
            if before is None or before[0].by_hand or _is_full(trigger, before[1]) or stepped_back:
                continue
            # Its run may wait on after that: for what its throttle must know of it, or for the disk.
            over = min(before[0].left_at or math.inf, _due(trigger, *before))
            if before[1][0].at <= events[0].at < over - SLACK_US:
                yield f"run {run_id} of {trigger.name} opened a window while that of {before[0].id} was open"

    def _gathering(self, trigger: Trigger, run: _Run, events: Sequence[Met]) -> Iterator[str]:
        """A window is over when it says so: not sooner, unless it is full."""
        closes_us = run.closes_at
        if trigger.debounce is not None:
            most, longest_s = trigger.debounce.max_events, trigger.debounce.max_wait_s
            trails = trigger.debounce.edge is Edge.TRAILING
        elif trigger.batch is not None:
            most, longest_s, trails = trigger.batch.size, trigger.batch.wait_s, True
        closes = None if longest_s is None else events[0].at + round(longest_s * SECOND_US)
        if trails and closes_us != closes:
            yield f"the window of run {run.id} of {trigger.name} closes at {closes_us}, not at {closes}"
        if most is not None and len(events) > most:
            yield f"run {run.id} of {trigger.name} has {len(events)} events, at most {most} are one"
        if run.left_at is None or run.by_hand or _is_full(trigger, events):
            return
        due = _due(trigger, run, events)
        if run.left_at < due - 1:
            yield f"run {run.id} of {trigger.name} gathered until {run.left_at}, not {due}: {run.steps[1]}"

    # What waits

    def _throttled(self, trigger: Trigger, met: Sequence[Met]) -> Iterator[str]:
        """Never do more pass than the rate says."""
        rate = trigger.throttle
        if rate is None:
            return
        expression = None if rate.key is None else str(rate.key)
        passed: dict[str, list[tuple[int, str]]] = defaultdict(list)
        latest = {one.run: one for one in met if one.outcome in ("run", "joined") and "throttle" not in one.bypass}
        for run_id, event in latest.items():
            run = self._runs[str(run_id)]
            waited = [place for place, step in enumerate(run.steps) if step[2] == "throttle"]
            if run.by_hand:
                continue
            if waited:
                after = [step for step in run.steps[waited[-1] + 1 :] if step[1] != "pending"]
                if not after or after[0][1] in ("cancelled", "expired", "skipped"):
                    continue
                passed[event.key(expression)].append((max(after[0][0], self._released.get(run.id, 0)), run.id))
            elif run.steps[0][2] not in ("debounce", "batch", "join_waits"):
                passed[event.key(expression)].append((run.steps[0][0], run.id))
        for key, times in passed.items():
            tat = 0
            for at, run_id in sorted(times):
                free = tat - (rate.burst - 1) * _interval_us(rate)
                if at < free - SLACK_US:
                    yield f"run {run_id} of {trigger.name} passed its throttle ({key!r}) {(free - at) / 1e6} s too soon"
                tat = max(tat, at) + _interval_us(rate)

    # Priorities

    def _priorities(self, trigger: Trigger, met: Sequence[Met]) -> Iterator[str]:
        """Each run has the priority that was asked for, or the trigger's, within its bound."""
        highest: dict[str, int] = {}
        for one in met:
            if one.run is not None and one.outcome in ("run", "joined"):
                highest[one.run] = max(highest.get(one.run, 0), _priority(trigger, one))
        for run_id, expected in highest.items():
            run = self._runs[run_id]
            changed = any(step[2] == "priority" for step in run.steps)
            if run.priority != expected and not changed:
                yield f"run {run_id} of {trigger.name} has priority {run.priority}, not {expected}"
            if changed and run.priority > max(trigger.priority, trigger.priority_max):
                yield f"run {run_id} of {trigger.name} has priority {run.priority}, more than it may"


class _Run:
    """A run as it is stored, with its trace: for each step when, state, code."""

    def __init__(
        self, id_: str, trigger: str, origin: str, priority: int, state: str, created_at: int, closes_at: int | None,
        count: int, throttled: str | None, trace: str,
    ) -> None:  # fmt: skip
        self.id = id_
        self.priority = priority
        self.closes_at = closes_at
        self.count = count
        self.steps: list[list[Any]] = json.loads(f"[{trace}]")
        moves = [step for step in self.steps if step[2] != "priority"]
        self.left_at: int | None = moves[1][0] if len(moves) > 1 else None
        """When its first state was over."""
        self.by_hand = any(
            step[2] in ("held_by_hand", "cancelled", "flushed", "replaced", "expired") for step in self.steps
        )
        """Whether somebody, or something else than its gate, moved it."""


def _is_full(trigger: Trigger, events: Sequence[Met]) -> bool:
    if trigger.batch is not None:
        size = sum(one.size for one in events)
        return len(events) >= trigger.batch.size or (
            trigger.batch.size_bytes is not None and size >= trigger.batch.size_bytes
        )
    most = trigger.debounce.max_events if trigger.debounce is not None else None
    return most is not None and len(events) >= most


def _due(trigger: Trigger, run: _Run, events: Sequence[Met]) -> int:
    """Return when the window of a run is over, by its latest event."""
    rule = trigger.debounce or trigger.batch
    due = events[-1].at + round(0.0 if rule is None else rule.wait_s * SECOND_US)
    return due if run.closes_at is None else min(due, run.closes_at)


def _interval_us(rate: Rate) -> int:
    return max(1, math.ceil(rate.per_s * SECOND_US / rate.limit))


def _priority(trigger: Trigger, one: Met) -> int:
    own = trigger.priority
    if trigger.priority_from is not None:
        if trigger.priority_from != URGENT:
            raise ValueError(f"no such priority is drawn: {trigger.priority_from}")
        data: Mapping[str, Any] | Any = {} if one.data is None else one.data
        if isinstance(data, dict):
            asked = int(data["n"]) % 12 if "n" in data else 8
            own = min(asked, trigger.priority_max) if asked <= 9 else own
    return own if one.priority is None else min(one.priority, max(trigger.priority_max, own))
