"""Joins against a slow and obvious model: random events, keys, times and restarts, and no difference.

The model keeps every event that came, and looks through all of them whenever it is asked something.
"""

from __future__ import annotations

import tempfile
from contextlib import AsyncExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from engine.errors import StoreUnavailable
from engine.testing import VirtualClock
from engine.triggers import Input, Join, Reset, Trigger, Use
from tests.organs import Bench, Listed, bench, event, trigger

SECONDS = (st.integers(0, 12) | st.integers(0, 60)).map(lambda half: Fraction(half, 2))
NAMES = "abc"
RECOVERS_S = 5
"""So long after a refusal the journal has found that the store writes again."""


class Came(Struct):
    """An event as the model has it: `run` is the number of the join that it is used by, None where it is not."""

    n: int
    name: str
    outcome: str
    run: int | None
    used: bool = True


class Group(Struct):
    """A join as the model knows it."""

    number: int
    key: str
    ends: Fraction
    state: str = "waits"


class Model:
    """What a trigger makes of events, step by step. Times are seconds since the start."""

    def __init__(self, rule: Trigger) -> None:
        assert rule.join is not None
        self.join, self.uses = rule.join, {one.name: one.use for one in rule.inputs}
        self.now = Fraction(0)
        self.groups: list[Group] = []
        self.came: list[Came] = []
        self.started: list[tuple[Fraction, int, tuple[int, ...]]] = []

    def go_to(self, to: Fraction, *, away: bool = False) -> None:
        """Let everything happen that is due until then, in order; while it is away, all of it happens at the end."""
        for group in sorted(self.groups, key=lambda one: (one.ends, one.number)):
            if group.state == "waits" and group.ends <= to:
                self.end(group, to if away else group.ends)
        self.now = to

    def parts(self, group: Group) -> dict[str, list[int]]:
        return {
            name: [one.n for one in self.came if one.run == group.number and one.used and one.name == name]
            for name in self.uses
        }

    def end(self, group: Group, at: Fraction) -> None:
        parts = self.parts(group)
        if all(parts.values()):
            group.state = "run"
            self.started.append((at, group.number, tuple(sorted(n for mine in parts.values() for n in mine))))
        else:
            group.state = "expired"

    def event(self, n: int, name: str, key: str) -> None:
        self.came.append(self.decide(n, name, key))

    def decide(self, n: int, name: str, key: str) -> Came:
        open_ = [one for one in self.groups if one.state == "waits"]
        group = next((one for one in open_ if one.key == key), None)
        if group is None:
            if len(open_) >= self.join.max_open:
                return Came(n, name, "join_full", None, used=False)
            self.groups.append(Group(len(self.groups), key, self.now + Fraction(self.join.window_s)))
            return Came(n, name, "join_waits", self.groups[-1].number)
        parts, use = self.parts(group), self.uses[name]
        if use is Use.FIRST and parts[name]:
            return Came(n, name, "join_superseded", group.number, used=False)
        if use is Use.ALL and sum(map(len, parts.values())) >= self.join.max_events:
            return Came(n, name, "join_full", None, used=False)
        for earlier in self.came:
            if use is Use.LAST and earlier.run == group.number and earlier.name == name and earlier.used:
                earlier.used, earlier.outcome = False, "join_superseded"
        parts[name].append(n)
        came = Came(n, name, "join_complete" if all(parts.values()) else "join_waits", group.number)
        if all(parts.values()) and self.join.reset is Reset.COMPLETE:
            self.came.append(came)
            self.end(group, self.now)
            self.came.pop()
        return came


class Real:
    """The engine's organs, with the same words."""

    def __init__(self, path: Path, rule: Trigger) -> None:
        self.path, self.rule = path, rule
        self.clock = VirtualClock()
        self.began = self.clock.now()
        self.ids: list[str] = []
        self.numbers: dict[str, int] = {}
        self.starts: list[tuple[Fraction, int, tuple[int, ...]]] = []

    async def up(self, stack: AsyncExitStack) -> Bench:
        return await stack.enter_async_context(
            bench(self.path, triggers=[self.rule], clock=self.clock, concurrency=1000)
        )

    async def emit(self, desk: Bench, name: str, events: list[tuple[int, str]]) -> None:
        made = [event(data={"n": n, "k": key}) for n, key in events]
        for answer in await desk.emit(*made, source=f"source-{name}"):
            (outcome,) = answer.outcomes
            self.ids.append(answer.event)
            if outcome.run is not None:
                self.numbers.setdefault(outcome.run, len(self.numbers))

    def note_starts(self, desk: Bench) -> None:
        for run, _, at in desk.script.begun:
            numbers = tuple(sorted(one.data["n"] for one in desk.script.events[run]))
            micros = round((at - self.began).total_seconds() * 1e6)
            self.starts.append((Fraction(micros, 10**6), self.numbers[run], numbers))

    async def outcomes(self, desk: Bench) -> list[tuple[str, int | None]]:
        found = []
        for one in self.ids:
            stored = await desk.store.event(one)
            assert stored is not None
            (outcome,) = stored.outcomes
            found.append((outcome.code, None if outcome.run is None else self.numbers[outcome.run]))
        return found

    async def states(self, desk: Bench) -> dict[int, str]:
        states = {number: (await desk.run_of(run)).state.value for run, number in self.numbers.items()}
        return {number: {"pending": "waits", "succeeded": "run"}.get(state, state) for number, state in states.items()}


def rule_of(uses: list[Use], join: Join) -> Trigger:
    inputs = tuple(
        Input(name=name, source=f"source-{name}", on=Listed(path=name), use=use)
        for name, use in zip(NAMES, uses, strict=False)
    )
    return trigger(source="all:on-grain", inputs=inputs, join=join)


RULES = st.builds(
    rule_of,
    st.lists(st.sampled_from(Use), min_size=2, max_size=3),
    st.builds(
        lambda window, reset, most, events: Join(
            window_s=float(window), reset=reset, key="data.k", max_open=most, max_events=events
        ),
        st.integers(1, 30), st.sampled_from(Reset), st.sampled_from([1, 2, 1000]), st.sampled_from([2, 4, 1000]),
    ),
)  # fmt: skip
EVENTS = st.tuples(
    st.just("events"), st.sampled_from(NAMES), st.lists(st.sampled_from("aab"), min_size=1, max_size=3)
)  # fmt: skip
STEPS = st.lists(
    EVENTS | EVENTS
    | st.tuples(st.just("refused"), st.sampled_from(NAMES), st.just(["a", "b"]))
    | st.tuples(st.just("wait"), SECONDS, st.none())
    | st.tuples(st.just("restart"), SECONDS, st.none()),
    max_size=30,
)  # fmt: skip


async def step(real: Real, model: Model, desk: Bench, what: str, name: str, keys: list[str]) -> None:
    """Let events come by an input, or be refused as the disk is full: then it is as if they never came."""
    if name not in model.uses:
        return
    if what == "refused":
        if any(one.state == "waits" and one.ends <= model.now + RECOVERS_S for one in model.groups):
            return
        desk.store.write_error = StoreUnavailable("the disk is full")
        with pytest.raises(StoreUnavailable):
            await real.emit(desk, name, [(-1, key) for key in keys])
        desk.store.write_error = None
        model.go_to(model.now + RECOVERS_S)
        await desk.advance(RECOVERS_S)
        return
    first = len(model.came)
    events = list(enumerate(keys, start=first))
    for n, key in events:
        model.event(n, name, key)
    await real.emit(desk, name, events)
    await desk.settle()


async def compare(rule: Trigger, steps: list[tuple[str, Any, Any]]) -> None:
    model = Model(rule)
    with tempfile.TemporaryDirectory() as folder:
        real = Real(Path(folder) / "s.db", rule)
        async with AsyncExitStack() as stack:
            desk = await real.up(stack)
            for what, given_, keys in [*steps, ("wait", Fraction(500), None)]:
                if what == "wait":
                    model.go_to(model.now + given_)
                    await desk.advance(float(given_))
                elif what == "restart":
                    real.note_starts(desk)
                    await stack.aclose()
                    await real.clock.advance(float(given_))
                    model.go_to(model.now + given_, away=True)
                    desk = await real.up(stack)
                    await desk.settle()
                else:
                    await step(real, model, desk, what, given_, keys)
                assert len(desk.windows) == sum(one.state == "waits" for one in model.groups)
            real.note_starts(desk)
            assert (await desk.store.ledger()).missing == ()
            assert await real.outcomes(desk) == [(one.outcome, one.run) for one in model.came]
            assert await real.states(desk) == {one.number: one.state for one in model.groups}
    assert sorted(real.starts) == sorted(model.started)


@settings(max_examples=60, deadline=None)
@given(rule=RULES, steps=STEPS)
def test_joins_are_those_of_the_obvious_model(rule: Trigger, steps: list[tuple[str, Any, Any]]) -> None:
    anyio.run(compare, rule, steps)


@pytest.mark.full
@pytest.mark.timeout(3600)
@settings(max_examples=4000, deadline=None)
@given(rule=RULES, steps=STEPS)
def test_joins_are_those_of_the_obvious_model_for_long(rule: Trigger, steps: list[tuple[str, Any, Any]]) -> None:
    anyio.run(compare, rule, steps)
