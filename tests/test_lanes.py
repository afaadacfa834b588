"""The lane of backfills: live work goes first and finds a slot, and no backfill is kept from all of them for long."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decide.lanes import LONGEST_KEPT_S, Room, Waits, ahead, is_kept_too_long, may_use_idle
from engine.jobs import Overlap, RetryPolicy
from engine.plugin import Outcome
from engine.runs import Lane, Run, RunState, Step
from engine.testing.clock import START
from engine.testing.store_contract.backfilling import a_backfill, begin, move, run_of
from tests.organs import Bench, bench, event, job, trigger

rooms = st.builds(Room, st.integers(0, 6), st.none() | st.integers(0, 6))
times = st.floats(0, 1e6, allow_nan=False)
waits = st.lists(
    st.builds(Waits, job=st.sampled_from("abcdef"), kept_since_s=st.none() | times, room=rooms),
    unique_by=lambda one: one.job, max_size=6,
)  # fmt: skip


@given(rooms, rooms)
def test_the_last_slot_is_never_given_as_an_idle_one(engine: Room, of_job: Room) -> None:
    given = may_use_idle(engine, of_job)
    for one in (engine, of_job):
        assert not (given and not one.is_free)
        if one.limit is not None and one.limit > 1:
            assert not (given and one.taken + 1 == one.limit)
    if all(one.limit is None or one.taken == 0 for one in (engine, of_job)):
        assert given == all(one.limit != 0 for one in (engine, of_job))


@given(waits, rooms, st.booleans(), times)
def test_what_was_kept_longest_is_ahead_alone_and_only_once_it_was_kept_too_long(
    found: list[Waits], engine: Room, one_is_ahead: bool, now_s: float
) -> None:
    chosen = ahead(found, engine, one_is_ahead=one_is_ahead, now_s=now_s)
    could = {one.job: one.kept_since_s for one in found if is_kept_too_long(one.kept_since_s, now_s)}
    could = {name: since for name, since in could.items() if next(o for o in found if o.job == name).room.is_free}
    if chosen is None:
        assert one_is_ahead or not engine.is_free or not could
    else:
        assert engine.is_free
        assert not one_is_ahead
        since = could[chosen]
        assert since is not None
        assert since <= now_s - LONGEST_KEPT_S
        assert all(other is None or since <= other for other in could.values())


class Model:
    """Room, and who waits for them: what dispatch does, without the world."""

    def __init__(self, limits: Sequence[int | None], most: int) -> None:
        self.most = most
        self.limits = dict(enumerate(limits))
        self.now_s = 0.0
        self.live: list[int] = []
        self.late: list[int] = []
        self.running: list[tuple[int, bool, float]] = []
        self.ahead: tuple[int, bool, float] | None = None
        self.since: dict[int, float] = {}
        self.kept_most_s = 0.0

    def room(self, of_job: int) -> Room:
        return Room(sum(1 for name, *_ in self.running if name == of_job), self.limits[of_job])

    def begin(self, of_job: int, late: bool, length_s: float) -> tuple[int, bool, float]:
        started = (of_job, late, self.now_s + length_s)
        self.running.append(started)
        return started

    def pump(self, length_s: float) -> None:
        while True:
            engine = Room(len(self.running), self.most)
            assert len(self.running) <= self.most
            found = [
                Waits(
                    job=str(name), room=self.room(name),
                    kept_since_s=None if any(late and one == name for one, late, _ in self.running) else since,
                )
                for name, since in self.since.items()
            ]  # fmt: skip
            chosen = ahead(found, engine, one_is_ahead=self.ahead is not None, now_s=self.now_s)
            first = next((name for name in self.live if engine.is_free and self.room(name).is_free), None)
            idle = next((name for name in self.late if may_use_idle(engine, self.room(name))), None)
            if chosen is not None:
                self.kept_most_s = max(self.kept_most_s, self.now_s - self.since[int(chosen)])
                self.ahead = self.take_late(int(chosen), length_s)
            elif first is not None:
                self.live.remove(first)
                self.begin(first, False, length_s)
            elif idle is not None:
                assert not any(engine.is_free and self.room(name).is_free for name in self.live)
                self.take_late(idle, length_s)
            else:
                return

    def take_late(self, of_job: int, length_s: float) -> tuple[int, bool, float]:
        self.late.remove(of_job)
        if of_job in self.late:
            self.since[of_job] = self.now_s
        else:
            del self.since[of_job]
        return self.begin(of_job, True, length_s)

    def pass_time(self, seconds: float, length_s: float) -> None:
        """Let time pass from one end of a run, or look, to the next."""
        until_s = self.now_s + seconds
        while True:
            looks = [since + LONGEST_KEPT_S for since in self.since.values() if since + LONGEST_KEPT_S > self.now_s]
            self.now_s = min([until_s, *looks, *(ends for *_, ends in self.running)])
            for one in [one for one in self.running if one[2] <= self.now_s]:
                self.running.remove(one)
                if self.ahead == one:
                    self.ahead = None
                if one[1] and one[0] in self.since:
                    self.since[one[0]] = self.now_s
            self.pump(length_s)
            if self.now_s >= until_s:
                return


steps = st.lists(
    st.tuples(st.booleans(), st.integers(0, 2), st.floats(0.0, 30.0), st.floats(0.5, 40.0)), min_size=1, max_size=60
)


@given(st.integers(1, 4), st.tuples(*[st.none() | st.integers(1, 3)] * 3), steps)
def test_under_any_load_both_lanes_come_to_an_end_and_no_backfill_is_kept_for_long(
    most: int, limits: tuple[int | None, ...], load: list[tuple[bool, int, float, float]]
) -> None:
    model = Model(limits, most)
    longest_s = max(length for *_, length in load)
    for late, of_job, pause_s, length_s in load:
        model.pass_time(pause_s, length_s)
        if late:
            model.late.append(of_job)
            model.since.setdefault(of_job, model.now_s)
        else:
            engine = Room(len(model.running), most)
            if most > 1 and model.ahead is None and all(late for _, late, _ in model.running):
                assert engine.is_free, "backfills alone took all slots"
            model.live.append(of_job)
        model.pump(length_s)
    model.pass_time(LONGEST_KEPT_S * 200, longest_s)
    assert (model.live, model.late, model.running) == ([], [], [])
    # Each of three jobs may wait for the runs ahead of it, and for a slot to come free.
    assert model.kept_most_s <= LONGEST_KEPT_S + 8 * longest_s


# In dispatch


class Lanes:
    """A small engine whose backfilled runs are put in by hand."""

    def __init__(self, desk: Bench) -> None:
        self.desk = desk
        self.lasts: dict[str, anyio.Event] = {}
        desk.script.act = self.act

    async def act(self, run: Run, job: Any) -> Outcome:
        await self.lasts.setdefault(run.id, anyio.Event()).wait()
        return Outcome.succeeded("done")

    async def late(self, *, of_job: str = "bake") -> str:
        """Queue a run of a backfill."""
        backfill = a_backfill(trigger=of_job)
        run = run_of(backfill, START - timedelta(minutes=1), job=of_job)
        await self.desk.journal.submit(begin(backfill))
        await self.desk.journal.submit(move(backfill, 0, 1, run))
        self.desk.dispatch.offer(run, None)
        await self.desk.settle()
        return run.id

    async def live(self, *, source: str = "mill") -> str:
        """Queue, or start, a run of something that happens now."""
        (run,) = (await self.desk.emit_one(event(), source=source)).runs
        await self.desk.settle()
        return run

    async def end(self, *runs: str) -> None:
        """Let runs end."""
        for run in runs:
            self.lasts.setdefault(run, anyio.Event()).set()
        await self.desk.settle()

    @property
    def going(self) -> set[str]:
        return set(self.desk.script.going)


async def test_backfills_leave_the_last_slot_so_that_what_happens_now_starts_at_once(tmp_path: Path) -> None:
    async with bench(tmp_path / "engine.db", concurrency=3) as desk:
        lanes = Lanes(desk)
        late = [await lanes.late() for _ in range(4)]
        assert lanes.going == set(late[:2])
        live = await lanes.live()
        assert live in lanes.going
        await lanes.end(late[0])
        assert lanes.going == {late[1], live}
        await lanes.end(live)
        assert lanes.going == {late[1], late[2]}


async def test_an_engine_with_one_slot_gives_it_to_a_backfill_while_nobody_else_wants_it(tmp_path: Path) -> None:
    async with bench(tmp_path / "engine.db", concurrency=1) as desk:
        lanes = Lanes(desk)
        late = [await lanes.late() for _ in range(2)]
        assert lanes.going == {late[0]}
        live = await lanes.live()
        await desk.advance(10 * LONGEST_KEPT_S)
        await lanes.end(late[0])
        assert lanes.going == {live}, "a backfill's own run keeps it from no slot"
        await lanes.end(live)
        assert lanes.going == {late[1]}


async def test_the_last_slot_of_a_job_is_left_too(tmp_path: Path) -> None:
    async with bench(tmp_path / "engine.db", jobs=[job(concurrency=2)], concurrency=8) as desk:
        lanes = Lanes(desk)
        late = [await lanes.late() for _ in range(2)]
        assert lanes.going == {late[0]}
        live = await lanes.live()
        assert lanes.going == {late[0], live}
        await lanes.end(late[0])
        assert lanes.going == {live}
        await lanes.end(live)
        assert lanes.going == {late[1]}


@pytest.mark.parametrize("limited", ["the engine", "the job"])
async def test_a_backfill_that_live_work_keeps_out_gets_the_next_slot_after_the_bound(
    tmp_path: Path, limited: str
) -> None:
    most, of_job = (2, None) if limited == "the engine" else (8, 2)
    async with bench(tmp_path / "engine.db", jobs=[job(concurrency=of_job)], concurrency=most) as desk:
        lanes = Lanes(desk)
        live = [await lanes.live() for _ in range(8)]
        late = [await lanes.late() for _ in range(2)]
        assert lanes.going == set(live[:2])
        await desk.advance(LONGEST_KEPT_S - 1)
        await lanes.end(live[0])
        assert lanes.going == {live[1], live[2]}
        await desk.advance(1)
        assert lanes.going == {live[1], live[2]}
        await lanes.end(live[1])
        assert lanes.going == {live[2], late[0]}
        await desk.advance(10)
        await lanes.end(live[2])
        assert lanes.going == {late[0], live[3]}, "one at a time is ahead"
        await lanes.end(late[0])
        assert lanes.going == {live[3], live[4]}, "its time begins anew"


async def test_the_bound_holds_also_where_the_last_slot_is_idle_and_nothing_else_happens(tmp_path: Path) -> None:
    async with bench(tmp_path / "engine.db", concurrency=2) as desk:
        lanes = Lanes(desk)
        live, late = await lanes.live(), await lanes.late()
        assert lanes.going == {live}
        await desk.advance(LONGEST_KEPT_S + 1)
        assert lanes.going == {live, late}


async def test_a_backfill_of_a_job_that_may_not_start_keeps_nobody(tmp_path: Path) -> None:
    jobs, triggers = [job(), job("other", enabled=False)], [trigger(), trigger("o", job="other", source="o")]
    async with bench(tmp_path / "engine.db", jobs=jobs, triggers=triggers, concurrency=2) as desk:
        lanes = Lanes(desk)
        stuck = await lanes.late(of_job="other")
        await desk.advance(2 * LONGEST_KEPT_S)
        late, live = await lanes.late(), await lanes.live()
        assert lanes.going == {late, live}
        await lanes.end(late, live)
        desk.dispatch.add_job(job("other"))
        await desk.settle()
        assert lanes.going == {stuck}


async def test_lanes_are_found_again_after_a_restart_however_much_live_work_waits(tmp_path: Path) -> None:
    async with bench(tmp_path / "engine.db", dispatching=False) as desk:
        lanes = Lanes(desk)
        live = [await lanes.live() for _ in range(700)]
        late = await lanes.late()
        assert await desk.store.queued_jobs(Lane.BACKFILL) == ["bake"]
    async with bench(tmp_path / "engine.db", concurrency=2, act=lanes.act) as desk:
        lanes.desk = desk
        assert lanes.going == set(live[:2])
        await lanes.end(*live[:2])
        assert late not in lanes.going
        await desk.advance(LONGEST_KEPT_S)
        await lanes.end(*lanes.going)
        assert late in lanes.going


async def test_a_retry_of_a_backfills_run_waits_in_its_lane_again(tmp_path: Path) -> None:
    retrying = job(retry=RetryPolicy(attempts=2, delay_s=5.0, jitter=0.0))
    async with bench(tmp_path / "engine.db", jobs=[retrying], concurrency=1) as desk:
        lanes = Lanes(desk)

        async def fails(run: Run, job: Any) -> Outcome:
            return Outcome.failed("exit", "failed: exit 1")

        desk.script.act = fails
        late = await lanes.late()
        desk.script.act = lanes.act
        live = [await lanes.live() for _ in range(2)]
        await desk.advance(6)
        assert (await desk.run_of(late)).state is RunState.QUEUED
        await lanes.end(live[0])
        assert lanes.going == {live[1]}
        await lanes.end(live[1])
        assert lanes.going == {late}


async def test_a_run_that_is_withdrawn_ends_and_never_starts(tmp_path: Path) -> None:
    async with bench(tmp_path / "engine.db", concurrency=1) as desk:
        lanes = Lanes(desk)
        live, late = await lanes.live(), await lanes.late()
        step = Step(at=START, state=RunState.CANCELLED, code="asked", reason="cancelled: asked for")
        assert await desk.dispatch.end_backfilled(await desk.run_of(late), step)
        assert not await desk.dispatch.end_backfilled(await desk.run_of(live), step)
        await lanes.end(live)
        assert lanes.going == set()
        assert (await desk.run_of(late)).state is RunState.CANCELLED
        assert not desk.dispatch._line._backfills.waiting


@pytest.mark.parametrize("overlap", Overlap)
async def test_what_is_due_now_is_not_skipped_for_a_backfills_run_nor_replaces_it(
    tmp_path: Path, overlap: Overlap
) -> None:
    async with bench(tmp_path / "engine.db", jobs=[job(concurrency=1, overlap=overlap)]) as desk:
        lanes = Lanes(desk)
        late = await lanes.late()
        (due,) = (await desk.emit_one(event(), source="mill")).runs
        await desk.settle()
        assert lanes.going == {late}
        assert (await desk.run_of(due)).state is RunState.QUEUED
        await lanes.end(late)
        assert lanes.going == {due}


async def test_while_the_engine_is_paused_no_backfill_starts_and_its_time_counts_from_the_end_of_that(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path / "engine.db", concurrency=2) as desk:
        lanes = Lanes(desk)
        live = [await lanes.live() for _ in range(3)]
        desk.dispatch.hold(True)
        late = await lanes.late()
        await lanes.end(live[0], live[1])
        await desk.advance(2 * LONGEST_KEPT_S)
        assert lanes.going == set()
        more = await lanes.live()
        desk.dispatch.hold(False)
        await desk.settle()
        assert lanes.going == {live[2], more}, "no live work kept it while nothing was started"
        await desk.advance(LONGEST_KEPT_S)
        await lanes.end(more)
        assert lanes.going == {live[2], late}
