"""Joins: events that come by several inputs become one run, when there is one of each.

A join is a window (see `engine.decide.shaping`) of another kind: it belongs to a pending run, whose key it has, and it
knows which events have come by which input. Its end is set when it begins. It ends sooner where its inputs are complete
and it is to end then; the run is ready. Where it is incomplete at its end, the run expires.

An event that is decided counts at once, and is taken back where it is refused by the store. Until that shows, the event
that it supersedes is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from engine.decide.functions import Function
from engine.decide.shaping import Window, Windows
from engine.events import Event
from engine.expressions import Expression
from engine.runs import Run, RunState, Step
from engine.triggers import Reset, Trigger, Use
from engine.units import format_duration, listed

JOIN_WAITS = "join_waits"
"""The code of a run that waits for the inputs of its join."""


class Filled(Struct, frozen=True):
    """That an event came by an input of a run, as the store has it; `opened`: it is the first of the run."""

    run: str
    event: str
    input: str
    opened: bool


class InputRule(Struct, frozen=True, kw_only=True):
    """An input made ready to decide."""

    name: str
    source: str
    on: Any
    use: Use
    filter: Expression | Function | None


class Joining:
    """The inputs of a trigger. `waits` tells whether it waits for all of them; else each event runs for itself."""

    __slots__ = ("inputs", "join", "waits")

    def __init__(self, trigger: Trigger, filters: Mapping[str, Expression | Function | None]) -> None:
        self.join = trigger.join
        self.waits = trigger.join is not None
        self.inputs = {
            one.name: InputRule(name=one.name, source=one.source, on=one.on, use=one.use, filter=filters[one.name])
            for one in trigger.inputs
        }

    @property
    def uses(self) -> dict[str, Use]:
        """Which events of each input are used."""
        return {name: one.use for name, one in self.inputs.items()}

    def data_of(self, events: Sequence[Event]) -> dict[str, Any]:
        """Return the data of a run for events, oldest first: a member for each input by which one came."""
        data: dict[str, Any] = {}
        for name, one in self.inputs.items():
            mine = [event.data for event in events if event.input == name]
            if mine:
                data[name] = mine if one.use is Use.ALL else mine[-1]
        return data

    def joined(self, events: Sequence[Event]) -> Event:
        """Return the event of a run for several: the latest, with the data of all of them."""
        return replace(events[-1], data=self.data_of(events), input=None)


class JoinWindow(Window, kw_only=True):
    """An open join.

    - `uses`: the inputs that it waits for, and which of their events it uses; `parts`: what has come by each.
    - `opened_by`: the input of the run's first event; `span_s`: how long it waits.
    - `orphan`: its trigger joins nothing any more.
    - `in_flight`: the events that are decided and not durable yet.
    """

    uses: dict[str, Use]
    span_s: float
    opened_by: str
    orphan: bool = False
    parts: dict[str, list[str]] = field(default_factory=dict)
    in_flight: set[str] = field(default_factory=set)

    @property
    def missing(self) -> list[str]:
        """The inputs by which no event has come."""
        return [name for name in self.uses if not self.parts.get(name)]

    @property
    def used(self) -> dict[str, list[str]]:
        """The events that it uses, by input."""
        return {
            name: events[-1:] if self.uses.get(name) is Use.LAST else list(events)
            for name, events in self.parts.items() if events
        }  # fmt: skip

    def add(self, name: str, event: str) -> str | None:
        """Take in an event; return the one that it supersedes."""
        events = self.parts.setdefault(name, [])
        superseded = events[-1] if events and self.uses[name] is Use.LAST else None
        events.append(event)
        self.in_flight.add(event)
        return superseded

    def settle(self, name: str, event: str) -> None:
        """Take note that an event is durable: what it superseded is forgotten."""
        self.in_flight.discard(event)
        events = self.parts[name]
        if self.uses.get(name) is Use.LAST and event in events:
            del events[: events.index(event)]

    def take_back(self, name: str, event: str) -> None:
        """Forget an event that was not stored."""
        self.in_flight.discard(event)
        if event in self.parts[name]:
            self.parts[name].remove(event)

    def close(self, now: datetime) -> Step | None:
        self.count = sum(map(len, self.used.values()))
        missing = self.missing
        if self.orphan:
            text = f"expired: trigger {self.trigger} joins nothing any more; {listed(list(self.used))} had come"
            return Step(at=now, state=RunState.EXPIRED, code="join_incomplete", reason=text)
        if not missing:
            return None
        came = listed(list(self.used)) or "nothing"
        span = format_duration(self.span_s)
        text = f"expired: {listed(missing)} did not come within {span} of the first event; {came} did"
        return Step(at=now, state=RunState.EXPIRED, code="join_incomplete", reason=text)

    @property
    def is_settled(self) -> bool:
        return not self.in_flight


def opened(run: Run, event: Event, joining: Joining) -> JoinWindow:
    """Return the join that begins with an event, which has its input, and its pending run."""
    if run.due_at is None or event.input is None or joining.join is None or run.window is None:
        raise ValueError("a join begins with an event of an input, and has an end")
    window = JoinWindow(
        run=run.id, trigger=run.trigger, key=run.window, due_at=run.due_at, closes_at=run.closes_at,
        priority=run.priority, cause=event.cause, uses=joining.uses, span_s=joining.join.window_s,
        opened_by=event.input,
    )  # fmt: skip
    window.add(event.input, event.id)
    return window


def ends_at(joining: Joining, now: datetime) -> datetime:
    """Return when a join that begins now is over."""
    return now + timedelta(seconds=0.0 if joining.join is None else joining.join.window_s)


def ends_complete(joining: Joining) -> bool:
    """Tell whether a join ends as soon as its inputs are complete."""
    return joining.join is None or joining.join.reset is Reset.COMPLETE


def windows_of(runs: Iterable[Run], filled: Iterable[Filled], joining_of: Mapping[str, Joining]) -> Windows:
    """Return the open windows of pending runs, with their original deadlines: `filled` are the events of joins.

    `joining_of` are the triggers that wait for inputs now. A join goes on with the inputs that its trigger has by now;
    one whose trigger is none any more takes in nothing, and ends at its time.
    """
    runs = list(runs)
    windows = Windows(run for run in runs if run.code != JOIN_WAITS)
    events: dict[str, list[Filled]] = {}
    for one in filled:
        events.setdefault(one.run, []).append(one)
    for run in runs:
        if run.code != JOIN_WAITS or run.window is None or run.due_at is None:
            continue
        joining, mine = joining_of.get(run.trigger), events.get(run.id, [])
        ends = run.closes_at or run.due_at
        window = JoinWindow(
            run=run.id, trigger=run.trigger, key=run.window, due_at=run.due_at, closes_at=run.closes_at,
            priority=run.priority, cause=run.cause, span_s=(ends - run.created_at).total_seconds(),
            uses={one.input: Use.ALL for one in mine} if joining is None else joining.uses,
            opened_by=next((one.input for one in mine if one.opened), ""),
            orphan=joining is None and run.due_at >= ends,
        )  # fmt: skip
        for one in mine:
            window.parts.setdefault(one.input, []).append(one.event)
        windows.open(window)
        if joining is None or run.due_at < ends:
            # Of another trigger by now; or complete, and was about to become ready.
            windows.seal(window)
    return windows
