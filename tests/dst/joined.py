"""The judge of joins: what triggers on several sources made of their events, by a slow and obvious model of them.

It goes through all events of a trigger in the order in which they became durable. See docs/shaping.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from engine.config import Config
from engine.replays import RETRY_KEY
from engine.runs import PRIORITY
from engine.triggers import Reset, Trigger, Use
from tests.dst.disk import Disk
from tests.dst.plan import Met as Ways
from tests.dst.plan import Plan
from tests.dst.shaped import SECOND_US, Met

_BY_HAND = frozenset({"held_by_hand", "cancelled", "flushed"})


class Came(Struct, kw_only=True):
    """An event that came by an input, and what it has to be by the model."""

    met: Met
    input: str
    outcome: str = ""
    code: str = ""


class Group(Struct, kw_only=True):
    """A join as the model knows it."""

    run: str | None
    ends: int
    opened_by: str
    parts: dict[str, list[Came]] = field(default_factory=dict)
    is_open: bool = True


class Joined:
    """Judges the joins of one simulation."""

    def __init__(self, plan: Plan, config: Config, disk: Disk) -> None:
        self._plan = plan
        self._config = config
        self._disk = disk

    def findings(self, *, stepped_back: bool) -> Iterator[str]:
        """Yield what is wrong. Where the clock was set back nothing is looked at."""
        for name, trigger in self._config.triggers.items():
            if trigger.join is not None and not stepped_back:
                yield from self._joined(trigger, self._plan.met[name].ways)

    def _joined(self, trigger: Trigger, ways: Mapping[str, Ways]) -> Iterator[str]:
        join = trigger.join
        assert join is not None
        expression = None if join.key is None else str(join.key)
        came, runs = self._came(trigger, ways), self._runs(trigger.name)
        # Who ended a run by hand did so at some time between two events.
        spoilt = {
            one.met.key(expression) for one in came
            if one.met.run is not None and any(step[2] in _BY_HAND for step in runs[one.met.run][2])
        }  # fmt: skip
        groups: dict[str, list[Group]] = {}
        for one in came:
            key = one.met.key(expression)
            if key not in spoilt:
                self._take(trigger, one, groups.setdefault(key, []))
        for mine in groups.values():
            for group in mine:
                yield from self._see_group(trigger, group, runs)
        for one in came:
            if one.code and (one.outcome, one.code) != (one.met.outcome, one.met.code):
                said = f"event {one.met.event} came to {trigger.name} by {one.input}"
                yield f"{said}, and is {one.met.outcome} ({one.met.code}), not {one.outcome} ({one.code})"

    def _take(self, trigger: Trigger, one: Came, groups: list[Group]) -> None:
        """Let the model decide what an event is to its key's joins."""
        join, name = trigger.join, one.input
        assert join is not None
        use = next(each.use for each in trigger.inputs if each.name == name)
        if not groups or not groups[-1].is_open or groups[-1].ends <= one.met.at:
            ends = one.met.at + round(join.window_s * SECOND_US)
            groups.append(Group(run=one.met.run, ends=ends, opened_by=name, parts={name: [one]}))
            one.outcome, one.code = "run", "join_waits"
            return
        group = groups[-1]
        mine = group.parts.setdefault(name, [])
        if use is Use.FIRST and mine:
            one.outcome, one.code = "deduplicated", "join_superseded"
            return
        if use is Use.ALL and sum(map(len, group.parts.values())) >= join.max_events:
            one.outcome, one.code = "rate_limited", "join_full"
            return
        one.outcome = "joined"
        if use is Use.LAST and mine:
            before = mine.pop()
            before.outcome, before.code = "deduplicated", "join_superseded"
            if name == group.opened_by:
                one.outcome = "run"
        mine.append(one)
        is_complete = all(group.parts.get(each.name) for each in trigger.inputs)
        one.code = "join_complete" if is_complete else "join_waits"
        if is_complete and join.reset is Reset.COMPLETE:
            group.is_open = False

    def _see_group(self, trigger: Trigger, group: Group, runs: Mapping[str, Any]) -> Iterator[str]:
        """A join that is complete is run with what it uses; any other one expires, at its end."""
        used = [one.met for mine in group.parts.values() for one in mine]
        if group.run is None or any(one.run != group.run for one in used):
            yield f"a join of {trigger.name} has runs {sorted({str(one.run) for one in used})}"
            return
        state, count, steps = runs[group.run]
        said = f"run {group.run} of {trigger.name}"
        if count != len(used):
            yield f"{said} counts {count} events, and joins {len(used)}"
        is_complete = all(group.parts.get(each.name) for each in trigger.inputs)
        if is_complete == any(step[2] == "join_incomplete" for step in steps):
            yield f"{said} is {state}: {steps[-1]}; its inputs are {sorted(group.parts)}"
        if group.is_open and len(steps) > 1 and steps[1][0] < group.ends:
            yield f"{said} was over at {steps[1][0]}, its window ends at {group.ends}"

    def _came(self, trigger: Trigger, ways: Mapping[str, Ways]) -> Sequence[Came]:
        rows = self._disk.story.execute(
            "select e.received_at, e.subject, e.data, e.source, e.type, e.key, o.outcome, o.code, o.run, e.id "
            "from outcomes o join events e on e.id = o.event where o.trigger = ? order by e.seq", (trigger.name,)
        )  # fmt: skip
        found = []
        for at, subject, data, source, type_, key, outcome, code, run, event in rows:
            if outcome in ("paused", "filtered", "rejected", "quarantined"):
                continue
            if source == "manual" or (key or "").startswith(RETRY_KEY):
                continue
            met = Met(
                at=at, subject=subject or "", data=json.loads(data), size=len(data), priority=None, outcome=outcome,
                code=code, run=run, event=event, bypass=frozenset(),
            )  # fmt: skip
            sources = {one.name: one.source for one in trigger.inputs}
            found.append(Came(met=met, input=_input_of(ways, sources, source, type_)))
        return found

    def _runs(self, trigger: str) -> dict[str, Any]:
        rows = self._disk.story.execute(
            "select id, state, event_count, trace from runs where trigger = ?", (trigger,)
        )  # fmt: skip
        return {
            run: (state, count, [step for step in json.loads(f"[{trace}]") if step[2] != PRIORITY])
            for run, state, count, trace in rows
        }  # fmt: skip


def _input_of(ways: Mapping[str, Ways], sources: Mapping[str, str], source: str, type_: str) -> str:
    """Return by which input an event comes."""
    for name, way in ways.items():
        if way.kind == "heard" and source == "shop" and way.of == type_:
            return name
        if way.kind == "ends" and source == f"job:{way.of}":
            return name
        if way.kind == "feed" and source == sources[name]:
            return name
    raise ValueError(f"an event of {source} of type {type_} comes by no input")
