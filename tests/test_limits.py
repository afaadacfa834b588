"""The limits: how many runs may start: in all, of a job, by key, and by pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.decide.limits import Block, Slots, said_of_shortage
from engine.jobs import Job
from tests.organs import job


def keyed(name: str = "bake", concurrency: int = 1, **fields: Any) -> Job:
    return job(name, concurrency=concurrency, concurrency_key="event.subject", **fields)


def test_the_limit_of_all_and_that_of_a_job_both_hold() -> None:
    slots = Slots(2)
    slots.limit(job("bake", concurrency=1))
    slots.take("a", "bake")
    assert not slots.may_start("bake")
    assert slots.said_of_wait("bake") == "a slot of job bake"
    assert slots.may_start("mill")
    slots.take("b", "mill")
    assert not slots.may_start("mill")
    assert slots.said_of_wait("mill") == "a slot of the engine"
    slots.give("a")
    assert slots.may_start("bake")
    assert (slots.taken, slots.taken_by("bake"), slots.taken_by("mill")) == (1, 0, 1)


def test_nothing_of_a_disabled_job_starts_and_another_version_of_it_may() -> None:
    slots = Slots(2)
    slots.limit(job("bake", enabled=False))
    assert not slots.may_start("bake")
    slots.limit(job("bake"))
    assert slots.may_start("bake")


def test_with_a_key_the_limit_holds_for_each_value_and_those_without_one_count_together() -> None:
    slots = Slots(9)
    slots.limit(keyed())
    slots.take("a", "bake", key="x")
    slots.take("b", "bake", key=None)
    assert slots.blocks("bake", "x") is slots.blocks("bake", None) is Block.KEY
    assert slots.blocks("bake", "y") is None
    slots.give("a")
    assert slots.blocks("bake", "x") is None


def test_a_job_that_gets_a_key_or_loses_it_counts_what_runs_by_what_it_is_then() -> None:
    slots = Slots(9)
    slots.limit(job("bake", concurrency=2))
    slots.take("a", "bake", key="x")
    slots.limit(keyed())
    assert slots.blocks("bake", "x") is Block.KEY
    assert slots.blocks("bake", "y") is None
    slots.take("b", "bake", key="y")
    slots.limit(job("bake", concurrency=2))
    assert slots.blocks("bake", "z") is Block.JOB
    slots.give("a")
    slots.give("b")
    slots.limit(keyed())
    assert slots.taken_of("bake", "x") == slots.taken_of("bake", "y") == 0


def test_a_run_takes_of_each_of_its_pools_what_it_weighs_and_gives_back_what_it_took() -> None:
    slots = Slots(9, pools={"warehouse": 3, "mail": 1})
    slots.limit(job("bake", pools={"warehouse": 2, "mail": 1}))
    slots.limit(job("mill", pools={"warehouse": 1}))
    slots.take("a", "bake")
    assert slots.blocks("bake") is Block.POOL
    assert slots.blocks("mill") is None
    slots.take("b", "mill")
    assert slots.blocks("mill") is Block.POOL
    # Its job weighs less by now: it gives back what it weighs now, which is what counts since.
    slots.limit(job("bake", pools={"warehouse": 1}))
    assert slots.taken_of_pool("warehouse") == 2
    assert slots.give("a") == {"warehouse": 1}
    assert slots.taken_of_pool("warehouse") == 1
    assert slots.taken_of_pool("mail") == 0


def test_the_first_in_line_that_waits_for_pools_has_them_kept_until_it_starts() -> None:
    slots = Slots(9, pools={"warehouse": 2})
    slots.limit(job("bake", pools={"warehouse": 2}))
    slots.limit(job("mill", pools={"warehouse": 1}))
    slots.take("light", "mill")
    assert slots.blocks("bake", place=(10, "heavy")) is Block.POOL
    # There is room, but it is kept; not for those that stand before it.
    assert slots.blocks("mill", place=(11, "later")) is Block.POOL
    assert slots.blocks("mill") is Block.POOL
    assert slots.blocks("mill", place=(9, "before")) is None
    slots.give("light")
    assert slots.blocks("bake", place=(10, "heavy")) is None
    slots.take("heavy", "bake")
    assert slots.kept_for == {}


def test_what_can_never_fit_or_waits_for_something_else_too_keeps_no_pool_from_others() -> None:
    slots = Slots(9, pools={"warehouse": 2})
    slots.limit(job("bake", pools={"warehouse": 2}, concurrency=1))
    slots.limit(job("mill", pools={"warehouse": 1}))
    slots.take("light", "mill")
    slots.set_pool("warehouse", 1)
    assert slots.blocks("bake", place=(1, "heavy")) is Block.POOL
    assert slots.kept_for == {}
    slots.set_pool("warehouse", 4)
    slots.take("heavy", "bake")
    assert slots.blocks("bake", place=(1, "another")) is Block.JOB
    assert slots.kept_for == {}
    assert slots.blocks("mill") is None


def test_a_pool_that_is_made_smaller_lets_nobody_in_until_enough_was_given_back() -> None:
    slots = Slots(9, pools={"warehouse": 3})
    slots.limit(job("mill", pools={"warehouse": 1}))
    for run in "abc":
        slots.take(run, "mill")
    slots.set_pool("warehouse", 1)
    for run in "ab":
        slots.give(run)
        assert slots.blocks("mill") is Block.POOL
    slots.give("c")
    assert slots.blocks("mill") is None


@pytest.mark.parametrize(
    ("taken", "asked", "said"),
    [
        ({"r1": "mill", "r2": "mill"}, "mill", "waits for pool warehouse: 2 of 2 taken by runs r1, r2"),
        ({"r1": "bake"}, "mill", "waits for pool warehouse: 2 of 2 taken by run r1"),
        ({"r1": "mill"}, "bake", "waits for pool warehouse: 1 of 2 taken by run r1; it needs 2"),
        ({"r1": "free"}, "free", "waits for job free: 1 of 1 taken by run r1"),
        (
            {f"r{n}": "any" for n in range(5)}, "mill",
            "waits for the engine: 5 of 5 taken by runs r0, r1, r2 and 2 more",
        ),
        ({}, "vast", "waits for pool warehouse, and needs 3 of it: it has 2"),
    ],
)  # fmt: skip
def test_the_limit_that_a_run_waits_for_is_said_with_who_has_it(
    taken: Mapping[str, str], asked: str, said: str
) -> None:  # fmt: skip
    slots = Slots(5, pools={"warehouse": 2})
    for each in (
        job("mill", pools={"warehouse": 1}), job("bake", pools={"warehouse": 2}), job("vast", pools={"warehouse": 3}),
        job("free", concurrency=1), job("any"),
    ):  # fmt: skip
        slots.limit(each)
    for run, name in taken.items():
        slots.take(run, name)
    shortage = slots.shortage(asked)
    assert shortage is not None
    assert said_of_shortage(shortage) == said


def test_a_run_that_waits_for_its_key_says_the_value() -> None:
    slots = Slots(5)
    slots.limit(keyed())
    slots.take("r1", "bake", key="anna")
    shortage = slots.shortage("bake", "anna")
    assert shortage is not None
    assert said_of_shortage(shortage) == "waits for key 'anna': 1 of 1 taken by run r1"
    assert slots.shortage("bake", "bert") is None


@given(
    most=st.integers(1, 4),
    limits=st.lists(st.none() | st.integers(1, 3), min_size=3, max_size=3),
    moves=st.lists(st.tuples(st.booleans(), st.integers(0, 2)), max_size=60),
)
def test_no_limit_is_ever_exceeded(most: int, limits: list[int | None], moves: list[tuple[bool, int]]) -> None:
    slots = Slots(most)
    names = [f"job-{number}" for number in range(3)]
    for name, limit in zip(names, limits, strict=True):
        slots.limit(job(name, concurrency=limit))
    running: dict[str, list[str]] = {name: [] for name in names}
    for place, (begins, number) in enumerate(moves):
        name = names[number]
        if begins and slots.may_start(name):
            slots.take(str(place), name)
            running[name].append(str(place))
        elif not begins and running[name]:
            slots.give(running[name].pop())
        counts = [slots.taken_by(each) for each in names]
        assert sum(counts) == slots.taken <= most
        assert all(limit is None or count <= limit for count, limit in zip(counts, limits, strict=True))


@dataclass
class Modelled:
    """A run of the slow model."""

    id: str
    job: str
    key: str | None
    rank: int
    pools: dict[str, int]
    """What it has taken."""


JOBS = ("bake", "mill", "ship")
POOLS = ("warehouse", "mail")
KEYS = st.sampled_from([None, "a", "b"])


class LimitsMachine(RuleBasedStateMachine):
    """The slots, and a line that is asked in order of rank, against counting all that runs each time anew."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 4
        self.pools = {"warehouse": 3, "mail": 2}
        self.slots = Slots(self.most, pools=self.pools)
        self.jobs: dict[str, Job] = {}
        self.running: list[Modelled] = []
        self.line: list[Modelled] = []
        self.count = 0
        self.overtaken: dict[str, int] = {}
        for name in JOBS:
            self._define(job(name))

    def _define(self, given: Job) -> None:
        self.jobs[given.name] = given
        self.slots.limit(given)
        for run in self.running:
            if run.job == given.name:
                run.pools = dict(given.pools)

    @rule(
        name=st.sampled_from(JOBS), concurrency=st.none() | st.integers(1, 3), by_key=st.booleans(),
        pools=st.dictionaries(st.sampled_from(POOLS), st.integers(1, 3)),
    )  # fmt: skip
    def define(self, name: str, concurrency: int | None, by_key: bool, pools: dict[str, int]) -> None:
        key = "event.subject" if by_key and concurrency else None
        self._define(job(name, concurrency=concurrency, concurrency_key=key, pools=pools))
        self.overtaken.clear()

    @rule(most=st.integers(1, 5))
    def resize(self, most: int) -> None:
        self.most = most
        self.slots.resize(most)
        self.overtaken.clear()

    @rule(pool=st.sampled_from(POOLS), limit=st.integers(0, 4))
    def set_pool(self, pool: str, limit: int) -> None:
        self.pools[pool] = limit
        self.slots.set_pool(pool, limit)
        self.overtaken.clear()

    def _fits(self, run: Modelled) -> bool:
        """Whether no limit would be exceeded, by counting."""
        given = self.jobs[run.job]
        mine = [other for other in self.running if other.job == run.job]
        if given.concurrency_key is not None:
            mine = [other for other in mine if other.key == run.key]
        return (
            len(self.running) < self.most
            and (given.concurrency is None or len(mine) < given.concurrency)
            and all(self._taken(pool) + weight <= self.pools[pool] for pool, weight in given.pools.items())
        )

    def _taken(self, pool: str) -> int:
        return sum(run.pools.get(pool, 0) for run in self.running)

    @rule(name=st.sampled_from(JOBS), key=KEYS, rank=st.integers(0, 30))
    def come(self, name: str, key: str | None, rank: int) -> None:
        self.count += 1
        self.line.append(Modelled(f"{self.count:03}", name, key, rank, {}))

    @rule()
    def start_what_may(self) -> None:
        for run in sorted(self.line, key=lambda run: (run.rank, run.id)):
            block = self.slots.blocks(run.job, run.key, (run.rank, run.id))
            if block is None:
                assert self._fits(run), "a limit would be exceeded"
                self._start(run)
            elif self._fits(run):
                # Only what is kept for one before it may hold it back.
                assert block is Block.POOL
                (pools,) = [self.jobs[run.job].pools]
                kept = [waits for waits in self.line if waits.id in self.slots.kept_for]
                assert any(
                    (one.rank, one.id) < (run.rank, run.id) and self.jobs[one.job].pools.keys() & pools.keys()
                    for one in kept
                )

    def _start(self, run: Modelled) -> None:
        self.line.remove(run)
        self.slots.take(run.id, run.job, key=run.key)
        run.pools = dict(self.jobs[run.job].pools)
        self.running.append(run)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(self.running))
        self.running.remove(run)
        assert self.slots.give(run.id) == run.pools

    @precondition(lambda self: self.line)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(self.line))
        self.line.remove(run)
        self.slots.keep_no_more(run.id)

    @invariant()
    def counts_are_those_of_the_model(self) -> None:
        assert self.slots.taken == len(self.running)
        assert {pool: self.slots.taken_of_pool(pool) for pool in POOLS} == {pool: self._taken(pool) for pool in POOLS}
        for name in JOBS:
            mine = [run for run in self.running if run.job == name]
            assert self.slots.taken_by(name) == len(mine)
            if self.jobs[name].concurrency_key is not None:
                for key in (None, "a", "b"):
                    assert self.slots.taken_of(name, key) == sum(run.key == key for run in mine)


def test_limits_by_key_and_pool_hold_whatever_comes_ends_and_changes() -> None:
    LimitsMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
    LimitsMachine.TestCase("runTest").runTest()


@given(
    needs=st.lists(
        st.dictionaries(st.sampled_from(("p", "q", "r")), st.integers(1, 3), min_size=1), min_size=2, max_size=5
    ),
    ends=st.lists(st.integers(0, 9), min_size=40, max_size=80),
)  # fmt: skip
def test_the_first_in_line_starts_once_those_that_ran_when_it_came_have_ended(
    needs: list[dict[str, int]], ends: list[int]
) -> None:
    """However many lighter runs come behind it and however they end: nobody starves at pools."""
    slots = Slots(100, pools={"p": 3, "q": 3, "r": 3})
    for number, pools in enumerate(needs):
        slots.limit(job(f"job-{number}", pools=pools))
    running: list[str] = []
    for number in range(1, len(needs)):
        while slots.may_start(f"job-{number}"):
            running.append(f"{number}-{len(running)}")
            slots.take(running[-1], f"job-{number}")
    before = set(running)
    for step, end in enumerate(ends):
        if slots.blocks("job-0", place=(0, "heavy")) is None:
            return
        assert before, "all that ran when it came has ended, and it waits still"
        for number in range(1, len(needs)):  # there is always somebody behind it
            if slots.blocks(f"job-{number}", place=(1, f"light-{number}")) is None:
                running.append(f"{number}-late-{step}")
                slots.take(running[-1], f"job-{number}")
        over = running.pop(end % len(running))
        before.discard(over)
        slots.give(over)
