"""Overlap in the engine: skipped, queued and replaced runs, whatever the store and the clock do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.decide.attempts import after_crash
from engine.decide.firing import Firing
from engine.decide.overlap import REPLACES
from engine.errors import StoreUnavailable
from engine.events import Event, EventOutcome
from engine.jobs import Job, OnCrash, Overlap, RetryPolicy
from engine.plugin import Outcome, RunEnd, Source, SourceContext
from engine.runs import Run, RunState
from engine.store.base import RunFilter
from engine.store.changes import Finish
from engine.testing import VirtualClock
from engine.triggers import Debounce
from tests.organs import Bench, bench, event, job, trigger
from tests.ticking import due_runs, ticking, timed

S = RunState


class Follows(Source, frozen=True, kw_only=True):
    """Follows the ends of one job's runs."""

    follows_runs = True
    job: str = "bake"

    def follows(self, end: RunEnd) -> bool:
        return end.job == self.job

    async def run(self, context: SourceContext) -> None:
        context.ready()
        await anyio.sleep_forever()


class Gates:
    """Runs that end when the test says so, or when they are cancelled."""

    def __init__(self) -> None:
        self.of: dict[str, anyio.Event] = {}
        self.lingers = anyio.Event()
        self.lingers.set()

    async def act(self, run: Run, job: Job) -> Outcome:
        gate = self.of.setdefault(run.id, anyio.Event())
        try:
            await gate.wait()
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await self.lingers.wait()
            raise
        return Outcome.succeeded("done")

    def open(self, run_id: str) -> None:
        self.of.setdefault(run_id, anyio.Event()).set()


async def states(desk: Bench) -> dict[str, tuple[RunState, str]]:
    """Return state and code of all runs, by id, in the order of their making."""
    runs = await desk.store.runs(RunFilter(), limit=1000)
    return {run.id: (run.state, run.code) for run in sorted(runs, key=lambda run: run.id)}


async def due(desk: Bench, number: int, *, source: str = "mill", **more: Any) -> str:
    """Let an instant come due; return the run that it brings about."""
    one = event("engine.timer", key=f"{source}-{number}")
    firing = Firing(source=source, event=one, cursor="", **more)
    assert await desk.intake.accept_due([firing]) == [None]
    await desk.settle()
    accepted = await desk.store.find_event(source, f"{source}-{number}")
    assert accepted is not None
    return accepted.runs[0]


async def happen(desk: Bench, *, source: str = "mill", **more: Any) -> str:
    (accepted,) = await desk.emit(event(**more), source=source)
    await desk.settle()
    return accepted.runs[0]


async def test_a_due_instant_that_finds_one_waiting_is_a_skipped_run_that_names_it(tmp_path: Path) -> None:
    gates = Gates()
    async with bench(tmp_path / "e.db", jobs=[job(concurrency=1)], act=gates.act) as desk:
        first, second, third = [await due(desk, number) for number in range(3)]
        assert await states(desk) == {
            first: (S.RUNNING, "started"), second: (S.QUEUED, "due"), third: (S.SKIPPED, "overlap"),
        }  # fmt: skip
        skipped = await desk.run_of(third)
        assert skipped.reason == f"skipped: run {second} is in its way, and the limit of the job is reached"
        assert (skipped.finished_at, skipped.attempt, skipped.scheduled_for) == (
            desk.clock.now(), 0, skipped.created_at,
        )  # fmt: skip
        stored = await desk.store.event(skipped.event)
        assert stored is not None
        (outcome,) = stored.outcomes
        assert (outcome.outcome, outcome.run, outcome.code) == (EventOutcome.RUN, third, "overlap")
        gates.open(first)
        gates.open(second)
        await desk.settle()
        fourth = await due(desk, 4)
        assert (await states(desk))[fourth] == (S.RUNNING, "started")
        ledger = await desk.store.ledger()
        assert (ledger.accepted, ledger.ended, ledger.waiting, ledger.missing) == (4, 3, 1, ())
        assert (await desk.store.stats(["on-grain"]))["on-grain"].by_state[S.SKIPPED] == 1


async def test_each_trigger_has_its_own_room_and_events_wait_without_bound(tmp_path: Path) -> None:
    gates = Gates()
    rules = [trigger("a", source="a"), trigger("b", source="b"), trigger("c", source="c")]
    async with bench(tmp_path / "e.db", jobs=[job(concurrency=1)], triggers=rules, act=gates.act) as desk:
        await due(desk, 1, source="a")
        waiting = [await due(desk, 2, source="a"), await due(desk, 2, source="b")]
        waiting += [await happen(desk, source="c") for _ in range(3)]
        waiting.append(await due(desk, 3, source="a", caught_up=True))
        found = await states(desk)
        assert [found[name][0] for name in waiting] == [S.QUEUED] * 6
        last = await due(desk, 4, source="b")
        assert (await states(desk))[last] == (S.SKIPPED, "overlap")


async def test_a_job_without_a_limit_has_no_overlap(tmp_path: Path) -> None:
    async with bench(tmp_path / "e.db", jobs=[job()], concurrency=2, act=Gates().act) as desk:
        runs = [await due(desk, number) for number in range(5)]
        found = await states(desk)
        assert [found[name][0] for name in runs] == [S.RUNNING] * 2 + [S.QUEUED] * 3


async def test_a_job_that_gets_a_limit_while_it_runs_counts_the_run_that_is_there(tmp_path: Path) -> None:
    gates = Gates()
    async with bench(tmp_path / "e.db", jobs=[job()], act=gates.act) as desk:
        first = await happen(desk)
        desk.dispatch.add_job(job(concurrency=1, overlap=Overlap.SKIP))
        second = await happen(desk)
        gates.open(first)
        await desk.settle()
        third = await happen(desk)
        found = await states(desk)
        assert [found[name][0] for name in (first, second, third)] == [S.SUCCEEDED, S.SKIPPED, S.RUNNING]


@pytest.mark.parametrize("limit", [1, 3])
async def test_skip_skips_each_run_beyond_the_limit_also_where_the_engine_is_full(tmp_path: Path, limit: int) -> None:
    gates = Gates()
    jobs = [job(concurrency=limit, overlap=Overlap.SKIP), job("other")]
    rules = [trigger(), trigger("busy", job="other", source="busy")]
    async with bench(tmp_path / "e.db", jobs=jobs, triggers=rules, concurrency=1, act=gates.act) as desk:
        busy = await happen(desk, source="busy")
        runs = [await happen(desk) for _ in range(limit + 2)]
        found = await states(desk)
        assert [found[name][0] for name in runs] == [S.QUEUED] * limit + [S.SKIPPED] * 2
        for name in (busy, *runs):
            gates.open(name)
        await desk.settle()
        assert await happen(desk) not in runs
        assert desk.script.most_of["bake"] <= limit


async def test_one_that_waits_for_its_retry_is_in_the_way(tmp_path: Path) -> None:
    async def fail(run: Run, job: Job) -> Outcome:
        return Outcome.failed("broken", "it broke")

    once_more = RetryPolicy(attempts=2, delay_s=60, jitter=0)
    jobs = [job(concurrency=1, overlap=Overlap.SKIP, retry=once_more)]
    async with bench(tmp_path / "e.db", jobs=jobs, act=fail) as desk:
        first, second = await happen(desk), await happen(desk)
        assert await states(desk) == {first: (S.RETRYING, "broken"), second: (S.SKIPPED, "overlap")}
        await desk.advance(61)
        third = await happen(desk)
        assert [state for state, _ in (await states(desk)).values()] == [S.FAILED, S.SKIPPED, S.RETRYING]
        assert third


async def test_replace_ends_what_runs_and_starts_only_when_that_is_gone(tmp_path: Path) -> None:
    gates = Gates()
    gates.lingers = anyio.Event()
    jobs = [job(concurrency=1, overlap=Overlap.REPLACE, retry=RetryPolicy(attempts=5))]
    async with bench(tmp_path / "e.db", jobs=jobs, act=gates.act) as desk:
        first, second = await happen(desk), await happen(desk)
        assert await states(desk) == {first: (S.RUNNING, "started"), second: (S.QUEUED, REPLACES)}
        assert (await desk.run_of(second)).reason.endswith(f"takes the place of run {first}, and waits for its end")
        third = await happen(desk)
        assert (await states(desk))[second] == (S.SKIPPED, "replaced")
        assert (await desk.run_of(second)).reason == f"skipped: run {third} takes its place (overlap: replace)"
        gates.lingers.set()
        await desk.settle()
        assert await states(desk) == {
            first: (S.CANCELLED, "replaced"), second: (S.SKIPPED, "replaced"), third: (S.RUNNING, "started"),
        }  # fmt: skip
        gone = await desk.run_of(first)
        assert gone.reason == f"cancelled: run {second} takes its place (overlap: replace)"
        assert [attempt.code for attempt in gone.attempts] == ["replaced"]
        assert desk.script.most == 1
        assert (await desk.store.ledger()).missing == ()


async def test_replace_ends_one_that_waits_for_its_retry(tmp_path: Path) -> None:
    gates = Gates()

    async def act(run: Run, job: Job) -> Outcome:
        if len(desk.script.begun) == 1:
            return Outcome.failed("broken", "it broke")
        return await gates.act(run, job)

    jobs = [job(concurrency=1, overlap=Overlap.REPLACE, retry=RetryPolicy(attempts=5, delay_s=60, jitter=0))]
    async with bench(tmp_path / "e.db", jobs=jobs, act=act) as desk:
        first = await happen(desk)
        assert (await states(desk))[first] == (S.RETRYING, "broken")
        second = await happen(desk)
        expected = {first: (S.CANCELLED, "replaced"), second: (S.RUNNING, "started")}
        assert await states(desk) == expected
        await desk.advance(100)
        assert await states(desk) == expected


async def test_a_run_may_be_replaced_while_its_failure_is_being_recorded(tmp_path: Path) -> None:
    gates = Gates()

    async def act(run: Run, job: Job) -> Outcome:
        if len(desk.script.begun) == 1:
            return Outcome.failed("broken", "it broke")
        return await gates.act(run, job)

    jobs = [job(concurrency=1, overlap=Overlap.REPLACE, retry=RetryPolicy(attempts=5, delay_s=60, jitter=0))]
    async with bench(tmp_path / "e.db", jobs=jobs, act=act) as desk:
        first = (await desk.emit(event()))[0].runs[0]
        async with anyio.create_task_group() as group:
            desk.store.hold = anyio.Event()
            group.start_soon(desk.emit, event())
            await desk.settle()
            hold, desk.store.hold = desk.store.hold, None
            hold.set()
        await desk.settle()
        second = next(reversed(await states(desk)))
        expected = {first: (S.CANCELLED, "replaced"), second: (S.RUNNING, "started")}
        assert await states(desk) == expected
        await desk.advance(100)
        assert await states(desk) == expected


async def test_what_waits_for_another_trigger_keeps_its_turn(tmp_path: Path) -> None:
    gates = Gates()
    rules = [trigger("a", source="a"), trigger("b", source="b")]
    jobs = [job(concurrency=1, overlap=Overlap.REPLACE)]
    async with bench(tmp_path / "e.db", jobs=jobs, triggers=rules, act=gates.act) as desk:
        gates.lingers = anyio.Event()
        first = await happen(desk, source="a")
        other = await happen(desk, source="b")
        mine = await happen(desk, source="a")
        gates.lingers.set()
        await desk.settle()
        found = await states(desk)
        assert (found[first], found[other]) == ((S.CANCELLED, "replaced"), (S.RUNNING, "started"))
        assert found[mine][0] is S.QUEUED
        gates.open(other)
        await desk.settle()
        assert (await states(desk))[mine] == (S.RUNNING, "started")


async def test_a_repeat_that_is_not_stored_is_in_nobodys_way(tmp_path: Path) -> None:
    gates = Gates()
    async with bench(tmp_path / "e.db", jobs=[job(concurrency=1, overlap=Overlap.SKIP)], act=gates.act) as desk:
        first = (await desk.emit(event(key="again")))[0].runs[0]
        await desk.settle()
        gates.open(first)
        await desk.settle()
        repeat, fresh = await desk.emit(event(key="again"), event(key="new"))
        await desk.settle()
        assert repeat.duplicate
        assert (await states(desk))[fresh.runs[0]][0] is S.RUNNING
        (_, later) = await desk.emit(event(key="again"), event(key="newer"))
        assert (await states(desk))[later.runs[0]] == (S.SKIPPED, "overlap")


async def test_a_repeat_on_its_way_at_the_same_time_is_in_nobodys_way(tmp_path: Path) -> None:
    gates = Gates()
    async with bench(tmp_path / "e.db", jobs=[job(concurrency=1, overlap=Overlap.SKIP)], act=gates.act) as desk:
        first = (await desk.emit(event(key="again")))[0].runs[0]
        await desk.settle()
        gates.open(first)
        await desk.settle()
        async with anyio.create_task_group() as group:
            group.start_soon(desk.emit, event(key="again"))
            group.start_soon(desk.emit, event(key="new"))
        await desk.settle()
        assert [state for state, _ in (await states(desk)).values()] == [S.SUCCEEDED, S.RUNNING]


async def test_a_run_that_the_store_refused_is_in_nobodys_way(tmp_path: Path) -> None:
    async with bench(tmp_path / "e.db", jobs=[job(concurrency=1, overlap=Overlap.SKIP)], act=Gates().act) as desk:
        desk.store.write_error = StoreUnavailable("away")
        with pytest.raises(StoreUnavailable):
            await desk.emit(event())
        desk.store.write_error = None
        await desk.advance(10)
        assert (await states(desk)) == {}
        assert (await states(desk)).get(await happen(desk), (S.RUNNING, ""))[0] is S.RUNNING


@pytest.mark.parametrize("overlap", Overlap)
async def test_after_a_crash_no_limit_is_exceeded_and_one_waits_at_most(tmp_path: Path, overlap: Overlap) -> None:
    jobs, clock = [job(concurrency=1, overlap=overlap)], VirtualClock()
    gates = Gates()
    gates.lingers = anyio.Event()
    async with bench(tmp_path / "e.db", jobs=jobs, clock=clock, act=gates.act) as desk:
        for number in range(3):
            await due(desk, number)
        before = await states(desk)
        # From here on nothing that this engine does is stored, as if it had died.
        desk.dispatch._starting = False
        desk.store.apply = _refused  # type: ignore[method-assign]
        gates.lingers.set()
    again = Gates()
    async with bench(tmp_path / "e.db", jobs=jobs, clock=clock, act=again.act, dispatching=False) as desk:
        assert await states(desk) == before
        for run in await desk.store.running():
            end = after_crash(run, OnCrash.RETRY, clock.now(), 0, 60.0)
            await desk.intake.finish(run, Finish.of(run.id, end))
        async with anyio.create_task_group() as group:
            await group.start(desk.dispatch.run)
            await desk.settle()
            await due(desk, 4)
            found = [state for state, _ in (await states(desk)).values()]
            assert (
                found
                == {
                    Overlap.QUEUE: [S.RUNNING, S.QUEUED, S.SKIPPED, S.SKIPPED],
                    Overlap.SKIP: [S.RUNNING, S.SKIPPED, S.SKIPPED, S.SKIPPED],
                    Overlap.REPLACE: [S.CANCELLED, S.SKIPPED, S.CANCELLED, S.RUNNING],
                }[overlap]
            )
            assert desk.script.most == 1
            group.cancel_scope.cancel()


async def _refused(changes: Any, notes: Any = None) -> list[Any]:
    raise StoreUnavailable("the engine died")


async def test_debounced_runs_meet_the_rule_when_their_window_closes(tmp_path: Path) -> None:
    gates = Gates()
    rules = [trigger(), trigger("late", source="late", debounce=Debounce(wait_s=2))]
    jobs = [job(concurrency=1, overlap=Overlap.SKIP)]
    async with bench(tmp_path / "e.db", jobs=jobs, triggers=rules, act=gates.act) as desk:
        pending = await happen(desk, source="late")
        first = await happen(desk)
        assert (await states(desk))[first][0] is S.RUNNING
        await desk.advance(3)
        assert (await states(desk))[pending] == (S.SKIPPED, "overlap")
    jobs = [job(concurrency=1, overlap=Overlap.REPLACE)]
    async with bench(tmp_path / "f.db", jobs=jobs, triggers=rules, act=gates.act) as desk:
        pending, first = await happen(desk, source="late"), await happen(desk)
        await desk.advance(3)
        found = await states(desk)
        assert (found[first], found[pending]) == ((S.CANCELLED, "replaced"), (S.RUNNING, "started"))


async def test_a_run_that_has_ended_is_not_in_the_way_of_what_follows_from_its_end(tmp_path: Path) -> None:
    rules = [trigger(), trigger("again", source="ends", on=Follows())]
    jobs, seen = [job(concurrency=1, overlap=Overlap.SKIP)], 0

    async def act(run: Run, job: Job) -> Outcome:
        nonlocal seen
        seen += 1
        if seen > 3:
            await anyio.sleep_forever()
        return Outcome.succeeded("done")

    follows = [("ends", Follows())]
    async with bench(tmp_path / "e.db", jobs=jobs, triggers=rules, following=follows, act=act) as desk:
        await happen(desk)
        assert [state for state, _ in (await states(desk)).values()] == [S.SUCCEEDED] * 3 + [S.RUNNING]
        assert await happen(desk)
        found = [state for state, _ in (await states(desk)).values()]
        assert found == [S.SUCCEEDED] * 3 + [S.RUNNING, S.SKIPPED]


async def test_what_follows_from_an_end_is_skipped_where_another_run_is_open(tmp_path: Path) -> None:
    gates = Gates()
    again = trigger("again", source="ends", on=Follows(job="mix"))
    rules = [trigger(), trigger("first", job="mix", source="mix"), again]
    jobs, follows = [job(concurrency=1, overlap=Overlap.SKIP), job("mix")], [("ends", Follows(job="mix"))]
    async with bench(tmp_path / "e.db", jobs=jobs, triggers=rules, following=follows, act=gates.act) as desk:
        first, mixing = await happen(desk), await happen(desk, source="mix")
        gates.open(mixing)
        await desk.settle()
        *_, (state, code) = (await states(desk)).values()
        assert (state, code) == (S.SKIPPED, "overlap")
        assert (await states(desk))[mixing][0] is S.SUCCEEDED
        assert (await desk.store.ledger()).missing == ()
        assert first


async def test_a_fire_that_bypasses_the_pause_meets_overlap_all_the_same(tmp_path: Path) -> None:
    gates = Gates()
    async with bench(tmp_path / "e.db", jobs=[job(concurrency=1, overlap=Overlap.SKIP)], act=gates.act) as desk:
        await happen(desk)
        desk.dispatch.hold(True)
        fired = await desk.intake.fire("on-grain", bypass=frozenset({"pause"}))
        assert (await desk.run_of(fired.runs[0])).state is S.SKIPPED


async def test_a_run_may_be_replaced_before_it_is_launched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gates, held = Gates(), list[tuple[Run, Event]]()
    async with bench(tmp_path / "e.db", jobs=[job(concurrency=1, overlap=Overlap.REPLACE)], act=gates.act) as desk:
        launch = desk.dispatch.launch
        monkeypatch.setattr(desk.dispatch, "launch", lambda run, event: held.append((run, event)))
        first = await happen(desk)
        assert (await desk.run_of(first)).state is S.RUNNING
        second = await happen(desk)
        assert (await states(desk))[second] == (S.QUEUED, REPLACES)
        launch(*held[0])
        await desk.settle()
        assert await states(desk) == {first: (S.CANCELLED, "replaced"), second: (S.RUNNING, "started")}
        assert [begun for begun, *_ in desk.script.begun] == [second]


async def test_what_waits_counts_for_the_room_of_due_instants_also_where_the_engine_is_full(tmp_path: Path) -> None:
    """Found by the machine of limits: events that waited were left out, so a second instant of a timer waited, too."""

    async def go_on(run: Run, job: Job) -> Outcome:
        await anyio.sleep_forever()
        raise AssertionError

    other = trigger("other", source="other")
    jobs = [job(concurrency=3)]
    async with ticking(tmp_path / "s.db", timed(), other, jobs=jobs, concurrency=1, act=go_on) as desk:
        for _ in range(2):
            await desk.emit_one(event(), source="other")
        await desk.advance(120)
        assert list((await due_runs(desk)).values()) == [S.QUEUED, S.SKIPPED]
