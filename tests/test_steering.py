"""What people ask of runs: cancel, hold, release, another priority, and a flush; what was answered holds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.decide.attempts import after_crash
from engine.errors import Conflict, InvalidRequest, NotFound, StoreUnavailable
from engine.ids import new_id
from engine.jobs import Job, OnCrash, Overlap, RetryPolicy
from engine.plugin import Outcome
from engine.runs import Run, RunState
from engine.steering import Steering
from engine.store.changes import AskCancel
from engine.testing import VirtualClock
from engine.triggers import Debounce
from engine.waiting import FlushRequest
from plugins.sources.run import RunEnds
from tests.organs import Bench, bench, event, job, trigger


class Steered(Bench):
    """A small engine whose jobs run until the test lets them go on."""

    steering: Steering
    doors: dict[str, anyio.Event]


@asynccontextmanager
async def steered(
    path: Path, *, act: Callable[[Run, Job], Awaitable[Outcome]] | None = None, **fields: Any
) -> AsyncIterator[Steered]:
    doors: dict[str, anyio.Event] = {}

    async def wait_for_gate(run: Run, job: Job) -> Outcome:
        await doors.setdefault(run.id, anyio.Event()).wait()
        return Outcome.succeeded("done")

    fields = {"concurrency": 1, **fields}
    async with bench(path, act=act or wait_for_gate, **fields) as desk:
        desk.__class__ = Steered
        assert isinstance(desk, Steered)
        desk.doors = doors
        desk.steering = Steering(
            clock=desk.clock, store=desk.store, journal=desk.journal, hands=desk.dispatch.hands,
            rules=desk.intake._rules, retired={}, ageing_s=60.0, finish=lambda run, end: desk.intake.finish(run, end),
        )  # fmt: skip
        yield desk


async def new_run(desk: Bench, source: str = "mill", **fields: Any) -> str:
    accepted = await desk.emit_one(event(**fields), source=source)
    await desk.settle()
    (run_id,) = accepted.runs
    return run_id


async def state_of(desk: Bench, run_id: str) -> tuple[str, str]:
    run = await desk.run_of(run_id)
    return run.state.value, run.code


async def let_go(desk: Steered, run_id: str) -> None:
    desk.doors.setdefault(run_id, anyio.Event()).set()
    await desk.settle()


async def test_a_run_that_waits_ends_at_once_when_it_is_cancelled(tmp_path: Path) -> None:
    async with steered(tmp_path / "e.db") as desk:
        first, second, third = [await new_run(desk) for _ in range(3)]
        run = await desk.steering.cancel(second, reason="not needed", who="ann")
        assert (run.state, run.code, run.reason) == ("cancelled", "cancelled", "cancelled: by ann: not needed")
        assert run.finished_at == desk.clock.now()
        assert second in desk.changed
        await let_go(desk, first)
        assert [run_id for run_id, *_ in desk.script.begun] == [first, third]


async def test_a_running_run_is_ended_and_not_tried_again_when_it_is_cancelled(tmp_path: Path) -> None:
    async with steered(tmp_path / "e.db", jobs=[job(retry=RetryPolicy(attempts=3))]) as desk:
        first, second = await new_run(desk), await new_run(desk)
        run = await desk.steering.cancel(first, reason="too slow", who="ann")
        assert run.state in (RunState.RUNNING, RunState.CANCELLED)
        await desk.settle()
        run = await desk.run_of(first)
        assert (run.state, run.reason) == ("cancelled", "cancelled: by ann: too slow")
        assert [step.code for step in run.trace] == ["matched", "started", "cancelling", "cancelled"]
        assert [attempt.state for attempt in run.attempts] == ["cancelled"]
        assert desk.script.interrupted == 1
        assert [run_id for run_id, *_ in desk.script.begun] == [first, second]


async def test_that_a_running_run_is_to_be_cancelled_is_durable_before_it_is_ended(tmp_path: Path) -> None:
    async with steered(tmp_path / "e.db") as desk:
        first = await new_run(desk)
        desk.store.hold = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(desk.steering.cancel, first)
            await desk.settle()
            assert desk.script.interrupted == 0
            desk.store.hold.set()
        assert [type(change) for change in desk.store.changes if isinstance(change, AskCancel)] == [AskCancel]
        await desk.settle()
        assert await state_of(desk, first) == ("cancelled", "cancelled")


async def test_a_run_whose_attempt_ends_well_before_it_can_be_cut_off_has_succeeded(tmp_path: Path) -> None:
    async with steered(tmp_path / "e.db") as desk:
        first = await new_run(desk)
        desk.store.hold = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(desk.steering.cancel, first)
            await desk.settle()
            desk.doors[first].set()
            await desk.settle()
            desk.store.hold.set()
        await desk.settle()
        assert await state_of(desk, first) == ("succeeded", "succeeded")


async def test_an_attempt_that_fails_while_the_run_is_being_cancelled_is_not_followed_by_another(
    tmp_path: Path,
) -> None:
    gate = anyio.Event()

    async def fail(run: Run, job: Job) -> Outcome:
        await gate.wait()
        return Outcome.failed("no", "no")

    async with steered(tmp_path / "e.db", act=fail, jobs=[job(retry=RetryPolicy(attempts=3))]) as desk:
        first = await new_run(desk)
        desk.store.hold = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(desk.steering.cancel, first)
            await desk.settle()
            gate.set()
            await desk.settle()
            desk.store.hold.set()
        await desk.advance(60)
        assert await state_of(desk, first) == ("cancelled", "cancelled")
        assert len(desk.script.begun) == 1


async def test_a_run_that_waits_for_its_next_attempt_is_cancelled_too(tmp_path: Path) -> None:
    async def fail(run: Run, job: Job) -> Outcome:
        return Outcome.failed("no", "no")

    async with steered(tmp_path / "e.db", act=fail, jobs=[job(retry=RetryPolicy(attempts=3, delay_s=5.0))]) as desk:
        first = await new_run(desk)
        assert (await state_of(desk, first))[0] == "retrying"
        assert (await desk.steering.cancel(first)).reason == "cancelled: by hand"
        await desk.advance(60)
        assert await state_of(desk, first) == ("cancelled", "cancelled")
        assert len(desk.script.begun) == 1


async def test_a_run_that_gathers_events_is_cancelled_and_the_next_event_opens_another(tmp_path: Path) -> None:
    rules = [trigger(debounce=Debounce(wait_s=5.0))]
    async with steered(tmp_path / "e.db", triggers=rules) as desk:
        first = await new_run(desk)
        assert (await new_run(desk)) == first
        await desk.steering.cancel(first)
        second = await new_run(desk)
        assert second != first
        await desk.advance(10)
        assert await state_of(desk, first) == ("cancelled", "cancelled")
        assert (await state_of(desk, second))[0] == "running"
        assert (await desk.store.ledger()).missing == ()


async def test_a_run_that_is_stored_as_running_but_not_launched_is_cancelled_before_it_does_anything(
    tmp_path: Path,
) -> None:
    async with steered(tmp_path / "e.db") as desk:
        desk.store.hold_answers = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(desk.emit_one, event())
            await desk.settle()
            (run,) = await desk.store.running()
            group.start_soon(desk.steering.cancel, run.id)
            await desk.settle()
            desk.store.hold_answers.set()
        await desk.settle()
        assert (await state_of(desk, run.id))[0] == "cancelled"
        assert all(run_id not in desk.script.going for run_id in (run.id,))


async def test_a_cancelled_run_stays_so_though_the_engine_dies_before_its_end_is_recorded(tmp_path: Path) -> None:
    async def stubborn(run: Run, job: Job) -> Outcome:
        with anyio.CancelScope(shield=True):
            await gate.wait()
        return Outcome.succeeded("late")

    gate = anyio.Event()
    async with steered(tmp_path / "e.db", act=stubborn) as desk:
        first = await new_run(desk)
        run = await desk.steering.cancel(first, reason="enough", who="ann")
        assert (run.state, run.code) == ("running", "cancelling")
        assert await desk.steering.cancel(first) == run
        end = after_crash(run, OnCrash.RETRY, desk.clock.now(), 1, 60.0)
        assert (end.step.state, end.step.code) == ("cancelled", "cancelled")
        assert end.step.reason == "cancelled: by ann: enough; the engine died meanwhile; 1 of its processes ended"
        gate.set()
        await desk.settle()


@pytest.mark.parametrize("what", ["cancel", "hold", "release"])
async def test_what_has_ended_or_is_not_there_can_not_be_steered(tmp_path: Path, what: str) -> None:
    async with steered(tmp_path / "e.db") as desk:
        first = await new_run(desk)
        await let_go(desk, first)
        with pytest.raises(Conflict, match="succeeded"):
            await getattr(desk.steering, what)(first)
        with pytest.raises(NotFound):
            await getattr(desk.steering, what)(new_id())


async def test_a_held_run_is_passed_by_and_released_to_its_old_place(tmp_path: Path) -> None:
    async with steered(tmp_path / "e.db") as desk:
        runs = [await new_run(desk) for _ in range(4)]
        held = await desk.steering.hold(runs[1], reason="stock-taking", who="ann")
        assert (held.state, held.code, held.reason) == ("held", "held_by_hand", "held: by ann: stock-taking")
        assert await desk.steering.hold(runs[1]) == held
        await let_go(desk, runs[0])
        assert list(desk.script.going) == [runs[2]]
        released = await desk.steering.release(runs[1], who="bob")
        assert (released.state, released.code, released.rank) == ("queued", "released", held.rank)
        await let_go(desk, runs[2])
        assert list(desk.script.going) == [runs[1]]
        with pytest.raises(Conflict, match="running"):
            await desk.steering.hold(runs[1])
        with pytest.raises(Conflict, match="not held"):
            await desk.steering.release(runs[3])


async def test_a_held_run_stays_held_through_a_restart_and_the_order_is_kept(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with steered(tmp_path / "e.db", clock=clock, dispatching=False) as desk:
        runs = [await new_run(desk, priority=priority) for priority in (2, 8, 5, 8)]
        await desk.steering.hold(runs[1])
        await desk.steering.set_priority(runs[0], 8)
        before = [run.id for run, _ in await desk.store.queue_head("bake", after=None, limit=9)]
        assert before == [runs[0], runs[3], runs[2]]
    async with steered(tmp_path / "e.db", clock=clock, boot="boot-2") as desk:
        for run_id in before:
            assert list(desk.script.going) == [run_id]
            await let_go(desk, run_id)
        assert desk.script.going == {}
        await desk.steering.release(runs[1])
        await desk.settle()
        assert list(desk.script.going) == [runs[1]]


async def test_a_run_that_gathered_events_keeps_them_while_it_is_held(tmp_path: Path) -> None:
    async with steered(tmp_path / "e.db", triggers=[trigger(debounce=Debounce(wait_s=5.0))]) as desk:
        first = await new_run(desk, data=1)
        assert await new_run(desk, data=2) == first
        await desk.steering.hold(first)
        assert await new_run(desk, data=3) != first
        await desk.advance(20)
        (other,) = desk.script.going
        await let_go(desk, other)
        await desk.steering.release(first)
        await desk.settle()
        assert [one.data for one in desk.script.events[first]] == [1, 2]


async def test_another_priority_moves_a_run_to_where_it_would_have_stood(tmp_path: Path) -> None:
    async with steered(tmp_path / "e.db") as desk:
        runs = [await new_run(desk) for _ in range(4)]
        raised = await desk.steering.set_priority(runs[3], 8, who="ann", reason="the boss waits")
        assert (raised.priority, raised.state, raised.code) == (8, "queued", "matched")
        assert raised.reason == "priority 8 in the place of 5: by ann: the boss waits"
        assert raised.rank == raised.trace[0].at.timestamp() * 1e6 - 8 * 60e6
        await desk.steering.set_priority(runs[1], 0)
        for expected in (0, 3, 2, 1):
            assert [runs.index(run_id) for run_id in desk.script.going] == [expected]
            await let_go(desk, runs[expected])


async def test_no_more_than_the_trigger_allows_can_be_asked_for(tmp_path: Path) -> None:
    async with steered(tmp_path / "e.db", triggers=[trigger(priority_max=6)]) as desk:
        await new_run(desk)
        second = await new_run(desk)
        run = await desk.steering.set_priority(second, 9)
        assert run.priority == 6
        assert run.reason == "priority 6 in the place of 5, not 9, as its trigger allows no more: by hand"
        with pytest.raises(InvalidRequest):
            await desk.steering.set_priority(second, 10)


async def test_a_run_that_has_started_has_its_priority_no_more(tmp_path: Path) -> None:
    async with steered(tmp_path / "e.db") as desk:
        first = await new_run(desk)
        with pytest.raises(Conflict, match="does not wait any more: it is running"):
            await desk.steering.set_priority(first, 9)


async def test_the_priority_of_a_run_that_gathers_holds_when_its_window_closes(tmp_path: Path) -> None:
    rules = [trigger("slow", source="slow", debounce=Debounce(wait_s=5.0)), trigger()]
    async with steered(tmp_path / "e.db", triggers=rules) as desk:
        gathering = await new_run(desk, "slow")
        await desk.steering.set_priority(gathering, 8)
        assert await new_run(desk, "slow") == gathering
        first = await new_run(desk)
        await desk.advance(10)
        second = await new_run(desk)
        assert (await desk.run_of(gathering)).priority == 8
        await let_go(desk, first)
        assert list(desk.script.going) == [gathering]
        assert len(desk.script.events[gathering]) == 2
        assert second not in desk.script.going


async def test_a_change_that_the_store_refuses_leaves_the_run_where_it_was(tmp_path: Path) -> None:
    async with steered(tmp_path / "e.db") as desk:
        first, second = await new_run(desk), await new_run(desk)
        desk.store.write_error = StoreUnavailable("the disk is full")
        with pytest.raises(StoreUnavailable):
            await desk.emit_one(event())
        for what in (desk.steering.cancel, desk.steering.hold):
            with pytest.raises(StoreUnavailable, match="disk is full"):
                await what(second)
        with pytest.raises(StoreUnavailable, match="disk is full"):
            await desk.steering.cancel(first)
        desk.store.write_error = None
        await desk.advance(60)
        await let_go(desk, first)
        assert list(desk.script.going) == [second]


async def test_who_asks_may_leave_before_the_answer_and_the_run_is_not_lost(tmp_path: Path) -> None:
    async with steered(tmp_path / "e.db") as desk:
        first, second = await new_run(desk), await new_run(desk)
        desk.store.hold = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(desk.steering.set_priority, second, 8)
            await desk.settle()
            group.cancel_scope.cancel()
            desk.store.hold.set()
        await desk.settle()
        await let_go(desk, first)
        assert list(desk.script.going) == [second]


async def test_a_run_is_not_started_while_something_is_asked_of_it(tmp_path: Path) -> None:
    async with steered(tmp_path / "e.db") as desk:
        first, second = await new_run(desk), await new_run(desk)
        async with anyio.create_task_group() as group:
            desk.store.hold = anyio.Event()
            group.start_soon(desk.steering.hold, second)
            await desk.settle()
            desk.doors[first].set()
            await desk.settle()
            desk.store.hold.set()
        await desk.settle()
        assert await state_of(desk, second) == ("held", "held_by_hand")
        assert desk.script.going == {}


async def test_a_flush_ends_what_waits_and_is_meant(tmp_path: Path) -> None:
    rules = [trigger("a", source="a", tags=("night",)), trigger("b", source="b")]
    async with steered(tmp_path / "e.db", triggers=rules) as desk:
        running = await new_run(desk, "a")
        mine = [await new_run(desk, "a") for _ in range(3)]
        others = [await new_run(desk, "b") for _ in range(2)]
        await desk.steering.hold(mine[0])
        which = FlushRequest(tag="night")
        found = await desk.steering.flush(which, reason="flood", who="ann", dry_run=True)
        assert (found.count, found.triggers, set(found.runs)) == (3, {"a": 3}, set(mine))
        assert (await state_of(desk, mine[1]))[0] == "queued"
        assert await desk.steering.flush(which, reason="flood", who="ann") == found
        for run_id in mine:
            run = await desk.run_of(run_id)
            assert (run.state, run.code, run.reason) == ("cancelled", "flushed", "cancelled: flushed by ann: flood")
        assert (await state_of(desk, running))[0] == "running"
        assert (await desk.steering.flush(which, reason="flood")).count == 0
        await let_go(desk, running)
        assert list(desk.script.going) == [others[0]]
        assert (await desk.store.ledger()).missing == ()


async def test_a_flush_of_more_than_a_page_leaves_nothing(tmp_path: Path) -> None:
    async with steered(tmp_path / "e.db") as desk:
        await desk.emit(*[event() for _ in range(1200)])
        await desk.settle()
        found = await desk.steering.flush(FlushRequest(whole=True), reason="all")
        assert (found.count, len(found.runs)) == (1199, 100)
        assert (await desk.store.counts())[RunState.QUEUED] == 0
        assert len(desk.dispatch._line.front) == 0


@pytest.mark.parametrize(
    "which",
    [FlushRequest(), FlushRequest(job="bake", whole=True), FlushRequest(states=frozenset({RunState.RUNNING}))],
)
async def test_a_flush_must_say_what_it_means(tmp_path: Path, which: FlushRequest) -> None:
    async with steered(tmp_path / "e.db") as desk:
        with pytest.raises(InvalidRequest):
            await desk.steering.flush(which, reason="why")


async def test_what_follows_from_the_end_of_a_cancelled_run_is_made(tmp_path: Path) -> None:
    rules = [trigger(), trigger("after", source="ends", job="sweep")]
    follows = [("ends", RunEnds(job="bake", outcomes=("cancelled",)))]
    jobs = [job(), job("sweep")]
    async with steered(tmp_path / "e.db", jobs=jobs, triggers=rules, following=follows) as desk:
        first, second = await new_run(desk), await new_run(desk)
        await desk.steering.cancel(second)
        await let_go(desk, first)
        (following,) = desk.script.going
        assert (await desk.run_of(following)).trigger == "after"


async def test_a_run_that_has_ended_runs_once_more_as_a_new_run(tmp_path: Path) -> None:
    async with steered(tmp_path / "e.db") as desk:
        first = await new_run(desk, data={"sack": 7}, key="k", subject="sack/7")
        await let_go(desk, first)
        old = await desk.run_of(first)
        answer = await desk.intake.again(old, await desk.store.run_events(first), reason=f"run {first} once more")
        await desk.settle()
        (second,) = answer.runs
        run = await desk.run_of(second)
        assert (run.origin, run.trace[0].code) == ("replay", "retried")
        assert run.trace[0].reason == f"retried: run {first} once more"
        (given,) = desk.script.events[second]
        (before,) = desk.script.events[first]
        assert (given.data, given.subject, given.source, given.time) == (
            {"sack": 7}, "sack/7", before.source, before.time,
        )  # fmt: skip
        assert given.id != before.id
        assert (await desk.store.ledger()).missing == ()


async def test_a_run_of_several_events_runs_once_more_for_all_of_them(tmp_path: Path) -> None:
    async with steered(tmp_path / "e.db", triggers=[trigger(debounce=Debounce(wait_s=5.0))]) as desk:
        first = await new_run(desk, data=1)
        await new_run(desk, data=2)
        await new_run(desk, data=3)
        await desk.advance(10)
        await let_go(desk, first)
        old, events = await desk.run_of(first), await desk.store.run_events(first)
        answer = await desk.intake.again(old, events, reason="once more", request_id="r")
        await desk.settle()
        assert [one.data for one in desk.script.events[answer.runs[0]]] == [1, 2, 3]
        repeat = await desk.intake.again(old, events, reason="once more", request_id="r")
        assert (repeat.duplicate, repeat.runs) == (True, answer.runs)
        ledger = await desk.store.ledger()
        assert (ledger.accepted, ledger.missing) == (6, ())


async def test_a_run_that_is_tried_again_obeys_the_limit_of_its_job(tmp_path: Path) -> None:
    jobs = [job(concurrency=1, overlap=Overlap.SKIP)]
    async with steered(tmp_path / "e.db", jobs=jobs, concurrency=4) as desk:
        first = await new_run(desk)
        await let_go(desk, first)
        second = await new_run(desk)
        old, events = await desk.run_of(first), await desk.store.run_events(first)
        answer = await desk.intake.again(old, events, reason="once more")
        assert answer.outcomes[0].code == "overlap"
        assert list(desk.script.going) == [second]
