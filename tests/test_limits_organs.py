"""Limits by key and pools where they matter: in intake, dispatch, the store, and over a restart."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.decide.lanes import LONGEST_KEPT_S
from engine.errors import InvalidRequest, NotFound
from engine.events import Accepted
from engine.jobs import Job, Overlap
from engine.plugin import Outcome
from engine.pools import Pools
from engine.runs import Lane, Run, RunState, Step
from engine.triggers import Debounce
from tests.organs import Bench, bench, event, job, trigger
from tests.test_lanes import Lanes


def keyed(name: str = "bake", concurrency: int = 1, **fields: Any) -> Job:
    return job(name, concurrency=concurrency, concurrency_key="event.subject", **fields)


class Oven:
    """Lets each run take until it is told to end; it knows what goes on, by key and by job."""

    def __init__(self) -> None:
        self.going: dict[str, Run] = {}
        self.ends: dict[str, anyio.Event] = {}

    async def act(self, run: Run, job: Job) -> Outcome:
        self.going[run.id] = run
        self.ends[run.id] = anyio.Event()
        try:
            await self.ends[run.id].wait()
        finally:
            del self.going[run.id]
        return Outcome.succeeded("done")

    def keys(self) -> Counter[str | None]:
        return Counter(run.limit_key for run in self.going.values())

    async def end(self, desk: Bench, run_id: str) -> None:
        self.ends[run_id].set()
        await desk.settle()


async def emitted(desk: Bench, *subjects: str, source: str = "mill") -> list[str]:
    answers: list[Accepted] = await desk.emit(*(event(subject=subject) for subject in subjects), source=source)
    await desk.settle()
    return [run for answer in answers for run in answer.runs]


async def test_the_limit_holds_for_each_value_of_the_key_and_one_that_is_full_does_not_block_the_others(
    tmp_path: Path,
) -> None:
    oven = Oven()
    async with bench(tmp_path / "e.db", jobs=[keyed()], concurrency=10, act=oven.act) as desk:
        first, second, third = await emitted(desk, "anna", "anna", "anna")
        await emitted(desk, "bert", "carl", "bert")
        assert oven.keys() == {"anna": 1, "bert": 1, "carl": 1}
        assert (await desk.run_of(second)).state is RunState.QUEUED
        # What comes while others of its job wait for their keys starts in the commit of its event.
        (dora,) = await emitted(desk, "dora")
        assert [step.state for step in (await desk.run_of(dora)).trace] == [RunState.QUEUED, RunState.RUNNING]
        assert (await desk.run_of(dora)).reason == "started: a slot was free"
        await oven.end(desk, first)
        assert second in oven.going
        assert third not in oven.going


async def test_the_value_is_kept_with_the_run_over_a_restart(tmp_path: Path) -> None:
    oven = Oven()
    async with bench(tmp_path / "e.db", jobs=[keyed()], concurrency=10, dispatching=False) as desk:
        runs = await emitted(desk, "anna", "anna", "bert")
        assert [(await desk.run_of(run)).limit_key for run in runs] == ["anna", "anna", "bert"]
    async with bench(tmp_path / "e.db", jobs=[keyed()], concurrency=10, act=oven.act) as desk:
        assert oven.keys() == {"anna": 1, "bert": 1}


async def test_a_key_that_fails_is_told_and_such_runs_count_together(tmp_path: Path) -> None:
    oven = Oven()
    failing = job(concurrency=1, concurrency_key="data.customer")
    async with bench(tmp_path / "e.db", jobs=[failing], concurrency=10, act=oven.act) as desk:
        one, two = await emitted(desk, "a", "b")
        assert list(oven.going) == [one]
        run = await desk.run_of(two)
        assert run.limit_key is None
        assert "it counts as one without a key, as its concurrency_key fails" in run.trace[0].reason


async def test_a_run_of_several_events_has_the_key_of_the_first(tmp_path: Path) -> None:
    gathers = trigger(debounce=Debounce(wait_s=5.0))
    async with bench(tmp_path / "e.db", jobs=[keyed()], triggers=[gathers]) as desk:
        (run,) = set(await emitted(desk, "anna", "bert"))
        await desk.advance(6)
        assert (await desk.run_of(run)).limit_key == "anna"
        assert (await desk.run_of(run)).event_count == 2


async def test_skip_and_replace_go_by_the_key_as_well(tmp_path: Path) -> None:
    oven = Oven()
    async with bench(tmp_path / "e.db", jobs=[keyed(overlap=Overlap.SKIP)], concurrency=10, act=oven.act) as desk:
        anna, again, bert = await emitted(desk, "anna", "anna", "bert")
        assert set(oven.going) == {anna, bert}
        assert (await desk.run_of(again)).reason == (
            f"skipped: run {anna} is in its way, and the limit of key 'anna' is reached"
        )
    oven = Oven()
    async with bench(tmp_path / "r.db", jobs=[keyed(overlap=Overlap.REPLACE)], concurrency=10, act=oven.act) as desk:
        anna, bert = await emitted(desk, "anna", "bert")
        (newer,) = await emitted(desk, "anna")
        assert set(oven.going) == {bert, newer}
        assert (await desk.run_of(anna)).code == "replaced"


async def test_a_pool_holds_for_all_jobs_together_by_weight_and_the_heavy_one_is_not_overtaken_for_ever(
    tmp_path: Path,
) -> None:
    oven = Oven()
    jobs = [job("light", pools={"warehouse": 1}), job("heavy", pools={"warehouse": 2}), job("other")]
    triggers = [trigger(f"on-{name}", job=name, source=name) for name in ("light", "heavy", "other")]
    async with bench(
        tmp_path / "e.db", jobs=jobs, triggers=triggers, concurrency=10, pools={"warehouse": 2}, act=oven.act
    ) as desk:
        one, two = await emitted(desk, "a", "b", source="light")
        (heavy,) = await emitted(desk, "c", source="heavy")
        later, last = await emitted(desk, "d", "e", source="light")
        (other,) = await emitted(desk, "f", source="other")
        assert set(oven.going) == {one, two, other}
        await oven.end(desk, one)
        assert set(oven.going) == {two, other}, "the room is kept for the one that waits for more"
        (newest,) = await emitted(desk, "g", source="light")
        assert newest not in oven.going
        await oven.end(desk, two)
        assert set(oven.going) == {heavy, other}
        await oven.end(desk, heavy)
        assert set(oven.going) == {later, last, other}


async def test_what_a_pool_is_kept_for_frees_it_when_it_is_cancelled(tmp_path: Path) -> None:
    oven = Oven()
    jobs = [job("light", pools={"warehouse": 1}), job("heavy", pools={"warehouse": 2})]
    triggers = [trigger(f"on-{name}", job=name, source=name) for name in ("light", "heavy")]
    async with bench(
        tmp_path / "e.db", jobs=jobs, triggers=triggers, concurrency=10, pools={"warehouse": 2}, act=oven.act
    ) as desk:
        (one,) = await emitted(desk, "a", source="light")
        (heavy,) = await emitted(desk, "b", source="heavy")
        (later,) = await emitted(desk, "c", source="light")
        assert set(oven.going) == {one}
        run = await desk.run_of(heavy)
        step = Step(at=desk.clock.now(), state=RunState.CANCELLED, code="cancelled", reason="cancelled: by hand")
        desk.dispatch.expire(run, step)
        await desk.settle()
        assert set(oven.going) == {one, later}


async def test_a_backfill_that_needs_much_of_a_pool_is_not_kept_from_it_for_ever(tmp_path: Path) -> None:
    jobs = [job("light", pools={"warehouse": 1}), job("heavy", pools={"warehouse": 2})]
    triggers = [trigger(f"on-{name}", job=name, source=name) for name in ("light", "heavy")]
    async with bench(tmp_path / "e.db", jobs=jobs, triggers=triggers, concurrency=10, pools={"warehouse": 2}) as desk:
        lanes = Lanes(desk)
        live = [await lanes.live(source="light") for _ in range(6)]
        late = await lanes.late(of_job="heavy")
        await desk.advance(LONGEST_KEPT_S - 1)
        await lanes.end(live[0])
        assert lanes.going == {live[1], live[2]}
        await desk.advance(1)
        await lanes.end(live[1])
        assert lanes.going == {live[2]}, "the pool is kept for it from now on"
        await lanes.end(live[2])
        assert lanes.going == {late}
        await lanes.end(late)
        assert lanes.going == {live[3], live[4]}


def pools_of(desk: Bench, concurrency: int = 10, **pools: int) -> Pools:
    made = Pools(desk.clock, desk.journal, desk.store, concurrency=concurrency, pools=pools, kept={Lane.MANUAL: 1})
    made.dispatch = desk.dispatch
    return made


async def test_limits_change_while_it_runs_and_what_was_changed_outlives_the_engine(tmp_path: Path) -> None:
    oven = Oven()
    jobs = [job("light", pools={"warehouse": 1})]
    triggers = [trigger("on-light", job="light", source="light")]
    async with bench(
        tmp_path / "e.db", jobs=jobs, triggers=triggers, concurrency=10, pools={"warehouse": 1}, act=oven.act
    ) as desk:
        pools = pools_of(desk, warehouse=1)
        one, two, _ = await emitted(desk, "a", "b", "c", source="light")
        assert pools.waits_for(await desk.run_of(two)) == f"waits for pool warehouse: 1 of 1 taken by run {one}"
        view = await pools.change("warehouse", 2, reason="the night shift", who="anna")
        await desk.settle()
        assert set(oven.going) == {one, two}
        assert (view["limit"], view["configured"], view["override"]["reason"]) == (2, 1, "the night shift")
        shown = await pools.view("warehouse")
        assert (shown["taken"], shown["queued"]) == (2, 1)
        assert shown["runs"] == [{"id": run, "job": "light", "takes": 1} for run in (one, two)]
        # Smaller: what runs goes on, and nothing starts before there is room again.
        await pools.change("warehouse", 1, reason="the day shift")
        await oven.end(desk, one)
        assert set(oven.going) == {two}
        await pools.change("engine", 2, reason="a small machine")
        assert desk.dispatch.concurrency == 2
        again = pools_of(desk, warehouse=1)
        await again.load()
        assert (again.limit("engine"), again.limits()) == (2, {"warehouse": 1})
        await pools.reset("warehouse")
        await pools.reset("engine")
        assert desk.dispatch.concurrency == 10
        again = pools_of(desk, warehouse=1)
        await again.load()
        assert again.limit("engine") == 10


async def test_a_limit_that_can_not_be_is_refused(tmp_path: Path) -> None:
    async with bench(tmp_path / "e.db") as desk:
        pools = pools_of(desk, warehouse=1)
        for name, limit in (("engine", 0), ("engine", 1), ("warehouse", -1), ("warehouse", 10**7)):
            with pytest.raises(InvalidRequest):
                await pools.change(name, limit, reason="why not")
        with pytest.raises(NotFound, match="there are engine, warehouse"):
            await pools.change("cellar", 1, reason="why not")
