"""Maintenance windows: those of the configuration, those of the API and overrides, and what becomes of runs in them."""

from __future__ import annotations

from datetime import datetime, time, timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from msgspec import Struct

from engine.decide.windows import After, MaintenanceWindow, Scope, Weekly
from engine.errors import Conflict
from engine.store.base import RunFilter
from tests.machines.driven import Driven, Machine
from tests.test_maintenance import AT, TRIGGERS, Desk, desk

TICK = 30
"""Everything happens at multiples of so many seconds; the model looks at each."""

DAY = 86_400
NAMES = [one.name for one in TRIGGERS]


class Daily(Struct):
    """A window that is open each day; or, with `once`, a single time. Seconds since the start; `of`: its triggers."""

    start: int
    length: int
    after: After
    of: frozenset[str]
    once: bool = False
    closed_until: int = 0
    """Until then it is overridden."""

    def by_pattern(self, at: int) -> bool:
        """Tell whether it is open then, whatever was overridden."""
        since = at - self.start
        return 0 <= since < self.length if self.once else since % DAY < self.length

    def is_open(self, at: int) -> bool:
        return at >= self.closed_until and self.by_pattern(at)

    def end(self, at: int) -> int | None:
        """Return when this opening, or the next one, is over."""
        for seconds in range(at, at + 3 * DAY, TICK):
            if self.by_pattern(seconds) and not self.by_pattern(seconds + TICK):
                return seconds + TICK
        return None


class One:
    """A run as the model knows it; `droppable` where it came by itself."""

    def __init__(self, trigger: str, droppable: bool) -> None:
        self.trigger, self.droppable = trigger, droppable
        self.state, self.at = "held", -1


class Model:
    """Asks each run that waits about each window at each tick."""

    def __init__(self, windows: dict[str, Daily]) -> None:
        self.windows, self.now = windows, 0
        self.runs: list[One] = []

    def ask(self) -> None:
        """Let each run that waits go, or end, where it is to."""
        waiting = [run for run in self.runs if run.state == "held"]
        for place, run in enumerate(waiting):
            holding = [w for w in self.windows.values() if run.trigger in w.of and w.is_open(self.now)]
            if not holding:
                run.state, run.at = "succeeded", self.now
            elif run.droppable and any(w.after is After.DROP for w in holding):
                run.state = "skipped"
            elif run.droppable and any(w.after is After.LATEST for w in holding):
                later = [one for one in waiting[place + 1 :] if one.trigger == run.trigger and one.droppable]
                if later:
                    run.state = "skipped"

    def come(self, run: One) -> None:
        self.runs.append(run)
        self.ask()

    def wait(self, seconds: int) -> None:
        for _ in range(0, seconds, TICK):
            self.now += TICK
            self.ask()


TICKS = st.integers(0, 20).map(lambda ticks: ticks * TICK) | st.integers(0, 240).map(lambda ticks: ticks * TICK)
OF = st.sets(st.sampled_from(NAMES), min_size=1).map(frozenset)
MINUTES = st.integers(0, 24 * 60 - 1)


class WindowsMachine(Machine):
    """Two windows that open daily, one that the API makes, and three triggers whose runs succeed at once."""

    def __init__(self) -> None:
        super().__init__()
        self.driven: Driven[Desk] = Driven()
        self.numbers: dict[str, int] = {}

    @initialize(
        dailies=st.lists(
            st.tuples(MINUTES, st.integers(1, 600), st.sampled_from(After), OF), min_size=2, max_size=2
        )
    )  # fmt: skip
    def begin(self, dailies: list[tuple[int, int, After, frozenset[str]]]) -> None:
        self.configured: list[MaintenanceWindow] = []
        windows = {}
        midnight = AT.replace(hour=0, minute=0)
        for number, (minute, length, after, of) in enumerate(dailies):
            start = midnight + timedelta(minutes=minute)
            end = start + timedelta(minutes=length)
            name = f"w{number}"
            pattern = Weekly(
                days=frozenset(range(7)), start=time(start.hour, start.minute), end=time(end.hour, end.minute),
                timezone="UTC",
            )  # fmt: skip
            self.configured.append(
                MaintenanceWindow(name=name, pattern=pattern, when="daily", after=after, scope=Scope(triggers=of))
            )
            windows[name] = Daily(start=self.seconds(start), length=length * 60, after=after, of=of)
        self.model = Model(windows)
        self.enter()

    @staticmethod
    def seconds(at: datetime) -> int:
        return round((at - AT).total_seconds())

    def enter(self) -> None:
        at = AT + timedelta(seconds=self.model.now)
        self.driven.enter(desk(self.driven.path, *self.configured, at=at, concurrency=1000))
        self.settle()

    def settle(self) -> None:
        self.driven.do(self.driven.desk.bench.settle())

    @rule(name=st.sampled_from(NAMES))
    def emit(self, name: str) -> None:
        self.know(self.driven.do(self.driven.desk.emit(name)))
        self.model.come(One(name, True))

    @rule(name=st.sampled_from(NAMES), bypass=st.booleans())
    def fire(self, name: str, bypass: bool) -> None:
        without = frozenset({"maintenance"}) if bypass else frozenset()
        answer = self.driven.do(self.driven.desk.bench.intake.fire(name, bypass=without))
        self.know(answer.runs[0])
        self.settle()
        one = One(name, False)
        if bypass:
            one.state, one.at = "succeeded", self.model.now
        self.model.come(one)

    def know(self, run: str) -> None:
        self.numbers[run] = len(self.numbers)

    @rule(seconds=TICKS)
    def wait(self, seconds: int) -> None:
        self.model.wait(seconds)
        self.driven.do(self.driven.desk.bench.advance(seconds))

    @rule(seconds=TICKS, killed=st.booleans())
    def be_away(self, seconds: int, killed: bool) -> None:
        self.driven.kill() if killed else self.driven.leave()
        self.model.now += seconds
        self.model.ask()
        self.enter()

    @rule(name=st.sampled_from(["w0", "w1", "x"]), minutes=st.none() | st.integers(1, 600))
    def override(self, name: str, minutes: int | None) -> None:
        one = self.model.windows.get(name)
        if one is None:
            return
        until = one.end(self.model.now) if minutes is None else self.model.now + minutes * 60
        organ = self.driven.desk.maintenance
        duration_s = None if minutes is None else minutes * 60.0
        try:
            self.driven.do(organ.override(name, until=None, duration_s=duration_s, reason="", who=""))
        except Conflict:
            assert until is None
            return
        assert until is not None
        self.settle()
        one.closed_until = until
        self.model.ask()

    @rule(name=st.sampled_from(["w0", "w1", "x"]))
    def end_override(self, name: str) -> None:
        one = self.model.windows.get(name)
        if one is None:
            return
        self.driven.do(self.driven.desk.maintenance.end_override(name, who=""))
        self.settle()
        one.closed_until = 0
        self.model.ask()

    @rule(opens=st.integers(-60, 60), length=st.integers(1, 300), of=OF)
    def define(self, opens: int, length: int, of: frozenset[str]) -> None:
        start = self.model.now + opens * 60
        settings: dict[str, Any] = {"opens_s": start, "closes_s": start + length * 60, "triggers": sorted(of)}
        self.driven.do(self.driven.desk.maintenance.define("x", settings, who=""))
        self.settle()
        before = self.model.windows.get("x")
        self.model.windows["x"] = Daily(
            start=start, length=length * 60, after=After.RUN, of=of, once=True,
            closed_until=0 if before is None else before.closed_until,
        )  # fmt: skip
        self.model.ask()

    @precondition(lambda self: "x" in self.model.windows)
    @rule()
    def remove(self) -> None:
        self.driven.do(self.driven.desk.maintenance.remove("x", who=""))
        self.settle()
        del self.model.windows["x"]
        self.model.ask()

    def compare(self) -> None:
        runs = self.driven.do(self.driven.desk.bench.store.runs(RunFilter(), limit=10_000))
        found = {self.numbers[run.id]: run for run in runs}
        for number, one in enumerate(self.model.runs):
            run = found[number]
            assert (number, run.state.value) == (number, one.state)
            if one.state == "succeeded":
                assert run.started_at is not None
                assert self.seconds(run.started_at) == one.at

    def teardown(self) -> None:
        self.driven.close()
