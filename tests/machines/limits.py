"""Limits: slots of the engine and of jobs, priorities with ageing, and what overlap makes of runs that come in."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from engine.clock import rfc3339
from engine.decide.firing import Firing
from engine.events import Event
from engine.jobs import Overlap
from engine.plugin import Outcome
from engine.store.base import RunFilter
from tests.machines.attempts import Attempts
from tests.machines.driven import Machine
from tests.organs import AGEING_S, event, job, trigger

MOST_CRASHES = 10
TRIGGERS = {"a1": "a", "a2": "a", "b": "b"}
"""The triggers and their jobs; each is on a source of its own name."""


class One:
    """A run as the model knows it."""

    def __init__(self, number: int, trigger: str, priority: int, now: Fraction, scheduled: bool, exempt: bool) -> None:
        self.number, self.trigger, self.job = number, trigger, TRIGGERS[trigger]
        self.rank = now - priority * Fraction(AGEING_S)
        self.scheduled, self.exempt = scheduled, exempt
        self.state, self.begun = "queued", False
        self.crashes = 0

    @property
    def open(self) -> bool:
        return self.state in ("queued", "running")


class Model:
    """Looks at all runs whenever something happens. Times are seconds since the start."""

    def __init__(self, most: int, limits: dict[str, int | None], overlaps: dict[str, Overlap]) -> None:
        self.most, self.limits, self.overlaps = most, limits, overlaps
        self.now = Fraction(0)
        self.runs: list[One] = []
        self.begun: list[tuple[Fraction, int, int]] = []

    def running(self, job: str | None = None) -> list[One]:
        return [one for one in self.runs if one.state == "running" and job in (None, one.job)]

    def pump(self) -> None:
        """Start what may: the lowest rank first, of the jobs that have room."""
        while len(self.running()) < self.most:
            ready = [
                one
                for one in self.runs
                if one.state == "queued"
                and ((limit := self.limits[one.job]) is None or len(self.running(one.job)) < limit)
            ]
            if not ready:
                return
            first = min(ready, key=lambda one: (one.rank, one.number))
            first.state, first.begun = "running", True
            self.begun.append((self.now, first.number, 1))

    def come(self, trigger: str, priority: int, *, scheduled: bool = False, exempt: bool = False) -> None:
        """A run comes; where as many of its job are open as may be, its overlap says what becomes of it."""
        new = One(len(self.runs), trigger, priority, self.now, scheduled, exempt)
        limit, overlap = self.limits[new.job], self.overlaps[new.job]
        there = [one for one in self.runs if one.open and one.job == new.job and (one.begun or not one.exempt)]
        self.runs.append(new)
        if limit is not None and len(there) >= limit and not exempt:
            same = [one for one in there if not one.begun and one.trigger == trigger]
            if overlap is Overlap.SKIP or (
                overlap is Overlap.QUEUE and scheduled and any(one.scheduled for one in same)
            ):
                new.state = "skipped"
                return
            if overlap is Overlap.REPLACE:
                for one in same:
                    one.state = "skipped"
                began = [one for one in there if one.begun and not one.exempt]
                if len(there) - len(same) >= limit and began:
                    began[0].state = "cancelled"
        self.pump()

    def be_away(self, seconds: Fraction, *, killed: bool) -> None:
        """What ran waits again, where it stood, and has begun all the same; but for what ran at too many crashes."""
        self.now += seconds
        for one in self.running():
            one.state = "failed" if killed and one.crashes >= MOST_CRASHES else "queued"
            one.crashes += killed
        self.pump()


SECONDS = st.integers(0, 240).map(lambda half: Fraction(half, 2))
LIMITS = st.none() | st.integers(1, 3)


class LimitsMachine(Machine):
    """Two jobs with limits, three triggers, and attempts that go on until they are told to end."""

    def __init__(self) -> None:
        super().__init__()
        self.driven: Attempts | None = None

    @initialize(
        most=st.integers(1, 4), limits=st.tuples(LIMITS, LIMITS), overlaps=st.tuples(*[st.sampled_from(Overlap)] * 2)
    )
    def begin(
        self, most: int, limits: tuple[int | None, int | None], overlaps: tuple[Overlap, Overlap]
    ) -> None:  # fmt: skip
        jobs = [
            job(name, concurrency=limit, overlap=overlap)
            for name, limit, overlap in zip("ab", limits, overlaps, strict=True)
        ]
        self.model = Model(most, dict(zip("ab", limits, strict=True)), dict(zip("ab", overlaps, strict=True)))
        triggers = [trigger(name, source=name, job=of, priority_max=9) for name, of in TRIGGERS.items()]
        self.engine = self.driven = Attempts(jobs, triggers, most)
        self.engine.start()
        self.due = 0

    @rule(name=st.sampled_from(list(TRIGGERS)), priority=st.integers(0, 9))
    def emit(self, name: str, priority: int) -> None:
        answer = self.engine.do(self.engine.desk.emit_one(event(priority=priority), source=name))
        self.model.come(name, priority)
        self.come(answer.runs)

    @rule(name=st.sampled_from(list(TRIGGERS)), priority=st.integers(0, 9))
    def fire(self, name: str, priority: int) -> None:
        answer = self.engine.do(self.engine.desk.intake.fire(name, priority=priority))
        self.model.come(name, priority)
        self.come(answer.runs)

    @rule(name=st.sampled_from(list(TRIGGERS)), caught_up=st.sampled_from([False, False, True]))
    def come_due(self, name: str, caught_up: bool) -> None:
        self.due += 1
        key = f"{rfc3339(self.engine.clock.now())} {self.due}"
        one = Event(type="engine.timer", subject=name, time=self.engine.clock.now(), key=key, data={})
        firing = Firing(source=name, event=one, cursor=key, caught_up=caught_up)
        (error,) = self.engine.do(self.engine.desk.intake.accept_due([firing]))
        assert error is None
        self.model.come(name, 5, scheduled=True, exempt=caught_up)
        self.come([run for run in self.engine.do(self._runs()) if run not in self.engine.numbers])

    async def _runs(self) -> list[str]:
        return [run.id for run in await self.engine.desk.store.runs(RunFilter(), limit=10_000)]

    def come(self, runs: list[str] | tuple[str, ...]) -> None:
        (run,) = runs
        self.engine.know(run)
        self.engine.do(self.engine.desk.settle())

    @precondition(lambda self: self.model.running())
    @rule(data=st.data(), succeeds=st.booleans())
    def end(self, data: st.DataObject, succeeds: bool) -> None:
        one = data.draw(st.sampled_from(self.model.running()))
        one.state = "succeeded" if succeeds else "failed"
        self.engine.end(one.number, Outcome.succeeded("done") if succeeds else Outcome.failed("exit_code", "with 1"))
        self.model.pump()

    @rule(seconds=SECONDS)
    def wait(self, seconds: Fraction) -> None:
        self.model.now += seconds
        self.engine.do(self.engine.desk.advance(float(seconds)))

    @rule(seconds=SECONDS, killed=st.booleans())
    def be_away(self, seconds: Fraction, killed: bool) -> None:
        self.engine.stop(float(seconds), killed=killed)
        self.model.be_away(seconds, killed=killed)

    def compare(self) -> None:
        found = self.engine.runs()
        assert [found[number].state.value for number in sorted(found)] == [one.state for one in self.model.runs]
        assert sorted(self.engine.begun()) == sorted(self.model.begun)
        script = self.engine.desk.script
        assert script.most <= self.model.most
        for name, limit in self.model.limits.items():
            assert limit is None or script.most_of.get(name, 0) <= limit

    def teardown(self) -> None:
        if self.driven is not None:
            self.driven.close()
