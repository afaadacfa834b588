"""Misfire: due instants that pass while the engine is away, paused or at odd times by the clock."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from datetime import datetime

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from engine.decide.misfire import ON_TIME_S
from engine.runs import RunState
from engine.store.base import RunFilter
from engine.testing import VirtualClock
from engine.testing.clock import START
from engine.triggers import CatchUp, Misfire, PauseScope
from tests.machines.driven import Driven, Machine
from tests.ticking import Clockwork, Every, ticking, timed

NAME = "nightly"
HOUR = 3600
WRONG = 3 * HOUR
"""A timer that is so far ahead of the clock goes by the clock."""


class Model:
    """Goes on second by second, and looks at all instants there are. Times are whole seconds since the start."""

    def __init__(self, period: int, rule: Misfire) -> None:
        self.period, self.rule = period, rule
        self.now = self.since = 0
        self.passed = 0
        """Seconds that went by, whatever the clock on the wall said."""
        self.backlog: list[int] = []
        self.backlog_at = 0
        self.paused_until: int | None = None
        self.paused = self.parked = False
        self.ran: dict[int, int] = {}
        self.missed: set[int] = set()

    def late_limit(self) -> float | None:
        none = self.rule.catch_up is CatchUp.NONE
        return ON_TIME_S if none and self.rule.grace_s is None else self.rule.grace_s

    def run(self, instant: int) -> None:
        self.ran.setdefault(instant, self.now)
        self.since = instant

    def look(self) -> None:
        """Apply the rule to all that is due."""
        due = [n for n in range(-20 * HOUR // self.period * self.period, self.now + 1, self.period) if self.since < n]
        if not due:
            return
        limit = self.late_limit()
        fresh = [n for n in due if limit is None or self.now - n <= limit]
        chosen = fresh[-self.rule.max :] if self.rule.catch_up is CatchUp.ALL else fresh[-1:]
        self.missed |= set(due) - set(chosen)
        if not chosen:
            self.since = due[-1]
            return
        self.run(chosen[0])
        self.backlog = chosen[1:]
        self.backlog_at = self.passed + round(1 / self.rule.rate_per_s)

    def happen(self) -> None:
        """Do what is to be done in this second."""
        if self.paused and self.paused_until is not None and self.now >= self.paused_until:
            self.paused = False
        if self.backlog:
            if self.passed < self.backlog_at and not self.parked:
                return
            if self.paused:
                self.parked = True
                return
            self.parked = False
            if self.rule.grace_s is None or self.now - self.backlog[0] <= self.rule.grace_s:
                self.run(self.backlog.pop(0))
                self.backlog_at = self.passed + round(1 / self.rule.rate_per_s)
                if self.backlog:
                    return
            else:
                self.backlog = []
        if not self.paused:
            self.look()

    def wait(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1
            self.passed += 1
            self.happen()

    def be_away(self, seconds: int, step: int) -> None:
        self.now += seconds + step
        self.passed += seconds
        self.backlog, self.parked = [], False
        if self.since - self.now > WRONG:
            self.since = self.now  # the clock was wrong before
        self.happen()


RULES = st.builds(
    lambda catch_up, grace, most, rate: Misfire(
        catch_up=catch_up, grace_s=None if grace is None else float(grace), max=most, rate_per_s=1 / rate
    ),
    st.sampled_from(CatchUp), st.none() | st.integers(1, 400), st.integers(1, 9), st.sampled_from([1, 2, 5]),
)  # fmt: skip


class MisfireMachine(Machine):
    """One trigger on a timer, which is paused and resumed, and whose engine goes away and comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.driven: Driven[Clockwork] = Driven()

    @initialize(period=st.integers(7, 90), rule=RULES)
    def begin(self, period: int, rule: Misfire) -> None:
        self.trigger = timed(NAME, on=Every(seconds=float(period)), misfire=rule)
        self.model = Model(period, rule)
        self.clock = VirtualClock()
        self.enter()

    def engine(self) -> AbstractAsyncContextManager[Clockwork]:
        return ticking(self.driven.path, self.trigger, clock=self.clock, concurrency=1000)

    def enter(self) -> None:
        self.driven.enter(self.engine())
        self.driven.do(self.driven.desk.settle())

    @rule(seconds=st.integers(0, 30) | st.integers(0, 300))
    def wait(self, seconds: int) -> None:
        self.model.wait(seconds)
        self.driven.do(self.driven.desk.advance(seconds))

    @rule(
        seconds=st.integers(0, 60) | st.integers(0, 500), killed=st.booleans(),
        step=st.sampled_from([0, 0, 0, 600, -600, -3000, 25]),
    )  # fmt: skip
    def be_away(self, seconds: int, killed: bool, step: int) -> None:
        self.driven.kill() if killed else self.driven.leave()
        self.driven.do(self.clock.advance(seconds))
        self.clock.step(step)
        self.model.be_away(seconds, step)
        self.enter()

    @precondition(lambda self: not self.model.paused)
    @rule(length=st.none() | st.integers(1, 300))
    def pause(self, length: int | None) -> None:
        model = self.model
        model.paused, model.paused_until = True, None if length is None else model.now + length
        until = None if model.paused_until is None else self.at(model.paused_until)
        desk = self.driven.desk
        self.driven.do(desk.pauses.pause(PauseScope.TRIGGER, NAME, reason="", until=until, who=""))
        self.look_again()

    @precondition(lambda self: self.model.paused)
    @rule()
    def resume(self) -> None:
        self.model.paused = False
        self.driven.do(self.driven.desk.pauses.resume(PauseScope.TRIGGER, NAME, who=""))
        self.look_again()
        self.model.happen()

    def look_again(self) -> None:
        """Tell the timers of it, as the runtime does."""
        self.driven.desk.timers.look_again([NAME])
        self.driven.do(self.driven.desk.settle())

    @staticmethod
    def at(seconds: int) -> datetime:
        return datetime.fromtimestamp(START.timestamp() + seconds, START.tzinfo)

    def compare(self) -> None:
        runs = self.driven.do(
            self.driven.desk.store.runs(RunFilter(triggers=frozenset({NAME})), limit=10_000)
        )  # fmt: skip
        found: dict[int, int] = {}
        missed: list[int] = []
        for run in runs:
            assert run.scheduled_for is not None
            instant = round((run.scheduled_for - START).total_seconds())
            if run.outputs is not None:
                # What lies before the newest hundred is told of together.
                last = round((datetime.fromisoformat(run.outputs["last"]) - START).total_seconds())
                among = range(instant, last + 1, self.model.period)
                assert run.outputs["instants"] == len(among)
                missed += among
            elif run.state is RunState.MISSED:
                missed.append(instant)
            else:
                assert instant not in found
                assert run.state is RunState.SUCCEEDED
                found[instant] = round((run.created_at - START).total_seconds())
        assert found == self.model.ran
        assert sorted(missed) == sorted(self.model.missed)

    def teardown(self) -> None:
        self.driven.close()
