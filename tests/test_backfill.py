"""Backfills: each instant once, a few at a time, over crashes, pauses and stores that are away; and to an end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.audits import Audit
from engine.backfill import Backfills
from engine.backfills import BackfillPlan, BackfillProgress, BackfillRequest, BackfillState, Order
from engine.decide.attempts import after_crash
from engine.decide.rules import Rule
from engine.errors import Conflict, InvalidRequest, NotFound, PluginError, StoreUnavailable
from engine.jobs import OnCrash, RetryPolicy
from engine.plugin import Outcome, Timer
from engine.runs import Origin, Run, RunState
from engine.store.base import Result, RunFilter
from engine.store.changes import Accept, Change, Finish, MoveBackfill, TurnBackfill
from engine.testing.clock import START
from engine.triggers import Debounce, Pause, Trigger
from tests.organs import Bench, bench, event, job, trigger
from tests.store_files import copy_files


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


class Every(Timer, frozen=True, kw_only=True):
    """Due every so many seconds."""

    seconds: float = 60.0
    timezone: str | None = None

    def next(self, after: datetime) -> datetime | None:
        period = timedelta(seconds=self.seconds)
        return START + ((after - START) // period + 1) * period

    def previous(self, before: datetime) -> datetime | None:
        period = timedelta(seconds=self.seconds)
        return START - ((START - before) // period + 1) * period


class Broken(Every, frozen=True, kw_only=True):
    """Raises, or stands still."""

    raises: bool = True

    def next(self, after: datetime) -> datetime | None:
        if self.raises:
            raise ZeroDivisionError("it broke")
        return after


def timed(name: str = "nightly", on: Timer | None = None, **fields: Any) -> Trigger:
    return trigger(name, source=f"timer:{name}", on=on or Every(), **fields)


class Desk(Bench):
    """A small engine with backfills."""

    backfills: Backfills
    rules: dict[str, Rule]
    pauses: dict[str, Pause]

    async def begin(self, count: int = 5, **fields: Any) -> BackfillProgress:
        """Begin a backfill of the last `count` minutes."""
        with anyio.fail_after(10):
            return await self.backfills.begin(asked(count, **fields))

    async def state_of(self, begun: BackfillProgress) -> BackfillProgress:
        return await self.backfills.get(begun.backfill.id)

    async def made(self, begun: BackfillProgress) -> list[Run]:
        """Return the runs of a backfill, the first one first."""
        found = await self.store.runs(RunFilter(), limit=1000)
        return [run for run in reversed(found) if run.key.startswith(begun.backfill.source)]


def asked(count: int = 5, **fields: Any) -> BackfillRequest:
    """Ask for the last `count` minutes."""
    given = {"trigger": "nightly", "start": at(-60 * count), "end": START, "reason": "it was down"}
    return BackfillRequest(**{**given, **fields})


@asynccontextmanager
async def desk(
    path: Path, *, triggers: Sequence[Trigger] = (), pauses: dict[str, Pause] | None = None, **fields: Any
) -> AsyncIterator[Desk]:
    """Run a small engine with backfills, on the store at `path`."""
    given = tuple(triggers) or (timed(),)
    pauses = {} if pauses is None else pauses
    async with bench(path / "engine.db", triggers=given, **fields) as made:
        made.__class__ = Desk
        assert isinstance(made, Desk)
        made.pauses, made.rules = pauses, made.intake._rules
        backfills = made.backfills = Backfills(
            clock=made.clock, store=made.store, rules=made.rules, pause_of=pauses.get, emit=made.intake.backfill,
            submit=made.journal.submit, end_waiting=made.dispatch.end_backfilled,
        )  # fmt: skip
        made.dispatch._on_backfilled = backfills.note_end
        async with anyio.create_task_group() as group:
            await group.start(backfills.run)
            await made.settle()
            yield made
            group.cancel_scope.cancel()


def gated() -> tuple[anyio.Event, Any]:
    """Return an event, and what lets each run go on only once it is set."""
    gate = anyio.Event()

    async def act(run: Run, job: Any) -> Outcome:
        await gate.wait()
        return Outcome.succeeded("done")

    return gate, act


async def test_each_instant_of_the_span_is_run_once_and_its_start_belongs_to_it(tmp_path: Path) -> None:
    async with desk(tmp_path) as one:
        begun = await one.begin(5)
        assert (begun.backfill.total, begun.backfill.state) == (5, BackfillState.RUNNING)
        await one.settle()
        runs = await one.made(begun)
        assert [run.scheduled_for for run in runs] == [at(-300), at(-240), at(-180), at(-120), at(-60)]
        assert {(run.state, run.origin, run.event_count) for run in runs} == {
            (RunState.SUCCEEDED, Origin.BACKFILL, 1)
        }  # fmt: skip
        ended = await one.state_of(begun)
        assert ended.backfill.state is BackfillState.COMPLETED
        assert ended.backfill.finished_at == one.clock.now()
        assert (ended.done, ended.ends, ended.running, ended.waiting) == (5, {RunState.SUCCEEDED: 5}, 0, 0)
        assert one.backfills.status() == {"open": 0, "states": {}, "held": {}}


async def test_a_run_tells_which_backfill_made_it_and_its_event_is_as_the_timers(tmp_path: Path) -> None:
    async with desk(tmp_path) as one:
        begun = await one.begin(1)
        await one.settle()
        (run,) = await one.made(begun)
        assert run.trace[0].code == "backfilled"
        assert run.trace[0].reason == "backfilled: it was down; waits for a slot"
        stored = await one.store.event(run.event)
        assert stored is not None
        assert (stored.event.type, stored.event.subject) == ("engine.timer", "nightly")
        assert stored.event.source == f"backfill:{begun.backfill.id}"
        assert stored.event.key == "2026-01-05T11:59:00Z"
        assert stored.event.data == {"scheduled_for": "2026-01-05T11:59:00Z"}
        assert stored.event.time == at(-60)


async def test_the_newest_may_go_first(tmp_path: Path) -> None:
    async with desk(tmp_path) as one:
        begun = await one.begin(3, order=Order.NEWEST)
        await one.settle()
        assert [run.scheduled_for for run in await one.made(begun)] == [at(-60), at(-120), at(-180)]


@pytest.mark.parametrize("most", [1, 3])
async def test_at_most_so_many_runs_are_open_at_any_time(tmp_path: Path, most: int) -> None:
    gate, act = gated()
    async with desk(tmp_path, act=act, concurrency=8) as one:
        begun = await one.begin(9, max_parallel=most)
        await one.settle()
        shown = await one.state_of(begun)
        assert (shown.running, shown.waiting, shown.backfill.position) == (most, 0, most)
        assert shown.current == at(-60 * (9 - most + 1))
        gate.set()
        await one.settle()
        assert one.script.most == most
        assert (await one.state_of(begun)).ends == {RunState.SUCCEEDED: 9}


async def test_an_instant_its_run_and_the_place_are_one_commit(tmp_path: Path) -> None:
    async with desk(tmp_path) as one:
        await one.begin(3)
        await one.settle()
        moves = [change for change in one.store.changes if isinstance(change, Accept) and change.entries]
        assert [len(change.entries[0].runs) for change in moves] == [1, 1, 1]
        places = [change.backfill for change in moves]
        assert [(move.before, move.position) for move in places if isinstance(move, MoveBackfill)] == [
            (0, 1), (1, 2), (2, 3)
        ]  # fmt: skip


async def test_two_backfills_run_the_same_instants_each(tmp_path: Path) -> None:
    async with desk(tmp_path) as one:
        first, second = await one.begin(3), await one.begin(3)
        await one.settle()
        assert [len(await one.made(begun)) for begun in (first, second)] == [3, 3]
        listed = await one.backfills.page(limit=1)
        assert [found.backfill.id for found in listed] == [second.backfill.id]
        before = await one.backfills.page(limit=5, before=second.backfill.id)
        assert [found.backfill.id for found in before] == [first.backfill.id]


async def test_a_filter_holds_for_backfilled_instants_too_and_they_count_as_not_run(tmp_path: Path) -> None:
    one_of_three = timed(filter='data.scheduled_for.endsWith(":58:00Z")', data={"full": True})
    async with desk(tmp_path, triggers=[one_of_three]) as one:
        begun = await one.begin(3)
        await one.settle()
        (run,) = await one.made(begun)
        assert run.scheduled_for == at(-120)
        ended = await one.state_of(begun)
        assert ended.backfill.state is BackfillState.COMPLETED
        assert (ended.done, ended.not_run, ended.ends) == (3, 2, {RunState.SUCCEEDED: 1})


async def test_a_debounced_trigger_runs_each_backfilled_instant_for_itself(tmp_path: Path) -> None:
    async with desk(tmp_path, triggers=[timed(debounce=Debounce(wait_s=600.0))]) as one:
        begun = await one.begin(3)
        await one.settle()
        assert [run.state for run in await one.made(begun)] == [RunState.SUCCEEDED] * 3


async def test_failures_are_counted_and_a_retry_keeps_its_place(tmp_path: Path) -> None:
    async def act(run: Run, job: Any) -> Outcome:
        return Outcome.failed("exit", "failed: exit 1") if run.attempt == 1 else Outcome.succeeded("done")

    retrying = job(retry=RetryPolicy(attempts=2, delay_s=30.0, jitter=0.0))
    async with desk(tmp_path, jobs=[retrying], act=act) as one:
        begun = await one.begin(2)
        await one.settle()
        shown = await one.state_of(begun)
        assert (shown.waiting, shown.backfill.position) == (1, 1)
        await one.advance(31)
        assert (await one.state_of(begun)).backfill.position == 2
        await one.advance(31)
        assert (await one.state_of(begun)).ends == {RunState.SUCCEEDED: 2}
    async with desk(tmp_path / "other", jobs=[job()], act=act) as one:
        begun = await one.begin(2)
        await one.settle()
        assert (await one.state_of(begun)).ends == {RunState.FAILED: 2}


# What is refused, and what is said before


async def test_a_plan_says_what_would_be_run_and_leaves_nothing(tmp_path: Path) -> None:
    async with desk(tmp_path) as one:
        plan = await one.backfills.plan(asked(3, timezone="Europe/Berlin"))
        assert plan == BackfillPlan(
            trigger="nightly", from_at=at(-180), to_at=START, timezone="Europe/Berlin",
            instants=(at(-180), at(-120), at(-60)),
        )  # fmt: skip
        assert await one.backfills.page(limit=5) == []


async def test_only_what_is_missing_is_run(tmp_path: Path) -> None:
    outcomes = iter([RunState.SUCCEEDED, RunState.FAILED, RunState.SUCCEEDED])

    async def act(run: Run, job: Any) -> Outcome:
        succeeded = next(outcomes, RunState.SUCCEEDED) is RunState.SUCCEEDED
        return Outcome.succeeded("done") if succeeded else Outcome.failed("exit", "failed: exit 1")

    async with desk(tmp_path, act=act) as one:
        await one.begin(3)
        await one.settle()
        plan = await one.backfills.plan(asked(4, only_missing=True))
        assert plan.instants == (at(-240), at(-120))
        assert [instant for instant, _ in plan.skipped] == [at(-180), at(-60)]
        begun = await one.begin(4, only_missing=True)
        await one.settle()
        ended = await one.state_of(begun)
        assert (ended.backfill.total, ended.backfill.skipped, ended.done) == (2, 2, 2)
        again = await one.begin(4, only_missing=True)
        await one.settle()
        nothing = await one.state_of(again)
        assert (nothing.backfill.total, nothing.backfill.state) == (0, BackfillState.COMPLETED)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"start": START, "end": START}, "is no span"),
        ({"end": at(1)}, "what is still to come runs by itself"),
        ({"timezone": "Mars/Base"}, "there is no time zone 'Mars/Base'"),
        ({"max_parallel": 0}, "max_parallel is a whole number from 1 to 100"),
        ({"max_parallel": 101}, "max_parallel is a whole number from 1 to 100"),
        ({"trigger": "on-grain"}, "trigger on-grain is on mill, which has no due instants"),
        ({"start": datetime(1, 1, 1), "timezone": "Asia/Tokyo"}, "`from` is out of range"),  # noqa: DTZ001
    ],
)
async def test_what_makes_no_sense_is_refused_with_the_reason(
    tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    async with desk(tmp_path, triggers=[timed(), trigger()]) as one:
        with pytest.raises(InvalidRequest, match=said.replace("(", r"\(")):
            await one.begin(3, **fields)
        assert await one.backfills.page(limit=5) == []


async def test_a_trigger_that_is_not_there_or_disabled_has_no_backfills(tmp_path: Path) -> None:
    async with desk(tmp_path, triggers=[timed(), timed("off", enabled=False)]) as one:
        with pytest.raises(NotFound, match="there is no trigger nothing"):
            await one.begin(trigger="nothing")
        with pytest.raises(Conflict, match="trigger off is disabled"):
            await one.begin(trigger="off")
        with pytest.raises(NotFound, match="there is no backfill x"):
            await one.backfills.get("x")


async def test_more_instants_than_a_backfill_holds_are_refused_with_their_count(tmp_path: Path) -> None:
    async with desk(tmp_path) as one:
        count = 10_001
        async with anyio.create_task_group() as group:
            group.start_soon(one.advance, 60.0)
            with pytest.raises(InvalidRequest, match=r"has 10,001 due instants in that span, .* at most 10,000"):
                await one.backfills.plan(asked(count))
        async with anyio.create_task_group() as group:
            group.start_soon(one.advance, 60.0)
            assert len((await one.backfills.plan(asked(10_000))).instants) == 10_000


async def test_counting_a_span_without_end_ends(tmp_path: Path) -> None:
    async with desk(tmp_path) as one:
        whole = asked(start=datetime(1970, 1, 1, tzinfo=UTC))
        async with anyio.create_task_group() as group:
            group.start_soon(one.advance, 60.0)
            with pytest.raises(InvalidRequest, match=r"has more than [\d,]+ due instants"):
                await one.backfills.plan(whole)


@pytest.mark.parametrize(
    ("raises", "said"), [(True, "raised ZeroDivisionError: it broke"), (False, "said that .* comes after")]
)
async def test_a_timer_that_is_broken_is_named(tmp_path: Path, raises: bool, said: str) -> None:
    async with desk(tmp_path, triggers=[timed(on=Broken(raises=raises))]) as one:
        with pytest.raises(PluginError, match=f"the timer of trigger nightly {said}"):
            await one.begin()


async def test_times_without_an_offset_are_those_of_the_timers_zone_or_of_the_one_that_is_given(
    tmp_path: Path,
) -> None:
    berlin = timed(on=Every(timezone="Europe/Berlin"))
    local: dict[str, Any] = {"start": datetime(2026, 1, 5, 12, 30), "end": datetime(2026, 1, 5, 12, 32)}  # noqa: DTZ001
    async with desk(tmp_path, triggers=[berlin]) as one:
        plan = await one.backfills.plan(asked(**local))
        assert (plan.timezone, plan.from_at) == ("Europe/Berlin", datetime(2026, 1, 5, 11, 30, tzinfo=UTC))
        plan = await one.backfills.plan(asked(**local, timezone="Asia/Tokyo"))
        assert plan.from_at == datetime(2026, 1, 5, 3, 30, tzinfo=UTC)
        twice = datetime(2025, 10, 26, 2, 30)  # noqa: DTZ001 - the clock shows it twice: the first is meant
        plan = await one.backfills.plan(asked(start=twice, end=datetime(2025, 10, 26, 0, 32, tzinfo=UTC)))
        assert plan.from_at == datetime(2025, 10, 26, 0, 30, tzinfo=UTC)


# Pausing, cancelling


async def test_a_paused_backfill_makes_no_runs_until_it_is_resumed(tmp_path: Path) -> None:
    gate, act = gated()
    async with desk(tmp_path, act=act) as one:
        begun = await one.begin(3)
        await one.settle()
        paused = await one.backfills.pause(begun.backfill.id, reason="month end")
        assert (paused.backfill.state, paused.backfill.state_reason) == (BackfillState.PAUSED, "paused: month end")
        gate.set()
        await one.advance(120)
        assert len(await one.made(begun)) == 1
        assert await one.state_of(await one.backfills.pause(begun.backfill.id)) == await one.state_of(begun)
        await one.backfills.resume(begun.backfill.id)
        await one.settle()
        assert (await one.state_of(begun)).backfill.state is BackfillState.COMPLETED


async def test_a_cancelled_backfill_ends_what_waits_and_lets_run_what_runs(tmp_path: Path) -> None:
    gate, act = gated()
    async with desk(tmp_path, act=act, concurrency=2) as one:
        begun = await one.begin(9, max_parallel=4)
        await one.settle()
        shown = await one.state_of(begun)
        assert (shown.running, shown.waiting) == (1, 3)  # the last slot is left for live work
        cancelled = await one.backfills.cancel(begun.backfill.id, reason="wrong month")
        assert cancelled.backfill.state is BackfillState.CANCELLING
        await one.settle()
        shown = await one.state_of(begun)
        assert (shown.running, shown.waiting, shown.ends) == (1, 0, {RunState.CANCELLED: 3})
        with pytest.raises(Conflict, match="is cancelling"):
            await one.backfills.resume(begun.backfill.id)
        gate.set()
        await one.settle()
        ended = await one.state_of(begun)
        assert (ended.backfill.state, ended.backfill.state_reason) == (
            BackfillState.CANCELLED,
            "cancelled: wrong month",
        )
        assert ended.ends == {RunState.CANCELLED: 3, RunState.SUCCEEDED: 1}
        runs = await one.made(begun)
        assert {run.code for run in runs if run.state is RunState.CANCELLED} == {"backfill_cancelled"}
        with pytest.raises(Conflict, match="is cancelled"):
            await one.backfills.pause(begun.backfill.id)
        assert not one.dispatch._line._backfills.waiting


async def test_a_cancelled_backfill_does_not_try_again_what_fails(tmp_path: Path) -> None:
    gate = anyio.Event()

    async def act(run: Run, job: Any) -> Outcome:
        await gate.wait()
        return Outcome.failed("exit", "failed: exit 1")

    retrying = job(retry=RetryPolicy(attempts=3, delay_s=30.0, jitter=0.0))
    async with desk(tmp_path, jobs=[retrying], act=act) as one:
        begun = await one.begin(3)
        await one.settle()
        await one.backfills.cancel(begun.backfill.id)
        gate.set()
        await one.advance(120)
        ended = await one.state_of(begun)
        assert (ended.backfill.state, ended.ends) == (BackfillState.CANCELLED, {RunState.CANCELLED: 1})
        assert len(one.script.begun) == 1


async def test_while_its_trigger_is_paused_it_waits_and_says_so(tmp_path: Path) -> None:
    pauses = {"nightly": Pause(name="nightly", reason="month end", since=START)}
    async with desk(tmp_path, pauses=pauses) as one:
        begun = await one.begin(3)
        await one.settle()
        assert (await one.state_of(begun)).holds == "trigger nightly is paused: month end"
        assert one.backfills.status() == {
            "open": 1, "states": {"running": 1}, "held": {begun.backfill.id: "trigger nightly is paused: month end"}
        }  # fmt: skip
        assert await one.made(begun) == []
        pauses.clear()
        one.backfills.look_again()
        await one.settle()
        ended = await one.state_of(begun)
        assert (ended.backfill.state, ended.holds, ended.done) == (BackfillState.COMPLETED, None, 3)


async def test_a_trigger_that_is_gone_holds_its_backfill_until_it_comes_again(tmp_path: Path) -> None:
    pauses = {"nightly": Pause(name="nightly", reason="", since=START)}
    async with desk(tmp_path, pauses=pauses) as one:
        begun = await one.begin(3)
        await one.settle()
        rule = one.intake.remove("nightly")
        assert rule is not None
        pauses.clear()
        await one.advance(10)
        assert (await one.state_of(begun)).holds == "there is no trigger nightly any more"
        one.intake.add(rule)
        await one.advance(10)
        assert (await one.state_of(begun)).done == 3


# Crashes, and stores that are away


async def test_a_crash_after_any_commit_neither_loses_nor_doubles_an_instant(tmp_path: Path) -> None:
    found: list[Path] = []
    async with desk(tmp_path / "first") as one:
        apply = one.store.apply

        async def copied(changes: Sequence[Change], notes: Mapping[int, Audit] | None = None) -> list[Result]:
            results = await apply(changes, notes)
            found.append(copy_files(one.store.path, tmp_path / f"crash-{len(found)}"))
            return results

        one.store.apply = copied  # type: ignore[method-assign]
        begun = await one.begin(4, max_parallel=2)
        await one.settle()
        assert (await one.state_of(begun)).backfill.state is BackfillState.COMPLETED
    assert len(found) >= 8
    for path in found:
        async with desk(path.parent, boot="boot-2") as one:
            for run in await one.store.running():
                await _settle(one, run)
            await one.advance(120)
            ended = await one.state_of(begun)
            assert ended.backfill.state is BackfillState.COMPLETED
            assert [run.scheduled_for for run in await one.made(begun)] == [at(-240), at(-180), at(-120), at(-60)]
            assert ended.ends == {RunState.SUCCEEDED: 4}


async def _settle(one: Desk, run: Run) -> None:
    end = after_crash(run, OnCrash.RETRY, one.clock.now(), 0, 60.0)
    await one.intake.finish(run, Finish.of(run.id, end))
    stored = await one.run_of(run.id)
    one.dispatch.offer(stored, None)


@pytest.mark.parametrize("state", [BackfillState.PAUSED, BackfillState.CANCELLING])
async def test_what_was_said_of_a_backfill_outlives_the_engine(tmp_path: Path, state: BackfillState) -> None:
    _, act = gated()
    async with desk(tmp_path, act=act, concurrency=1) as one:
        await one.emit(event(), source="timer:nightly")
        begun = await one.begin(3, max_parallel=2)
        await one.settle()
        turn = one.backfills.pause if state is BackfillState.PAUSED else one.backfills.cancel
        one.store.read_error = StoreUnavailable("away") if state is BackfillState.CANCELLING else None
        with anyio.move_on_after(5):
            try:
                await turn(begun.backfill.id)
            except StoreUnavailable:
                assert state is BackfillState.CANCELLING
    async with desk(tmp_path) as one:
        await one.advance(120)
        found = await one.state_of(begun)
        if state is BackfillState.PAUSED:
            assert found.backfill.state is state
            assert (found.done, len(await one.made(begun))) == (2, 2)
        else:
            assert found.backfill.state is BackfillState.CANCELLED
            assert sum(found.ends.values()) == len(await one.made(begun)) == 2


async def test_a_store_that_is_away_is_waited_for(tmp_path: Path) -> None:
    pauses = {"nightly": Pause(name="nightly", reason="", since=START)}
    async with desk(tmp_path, pauses=pauses) as one:
        begun = await one.begin(4)
        await one.settle()
        one.store.write_error = StoreUnavailable("the disk is full")
        pauses.clear()
        await one.advance(10)
        assert (await one.state_of(begun)).holds == "the disk is full"
        one.store.write_error = None
        await one.advance(120)
        ended = await one.state_of(begun)
        assert (ended.backfill.state, ended.done, ended.holds) == (BackfillState.COMPLETED, 4, None)


async def test_a_backfill_that_is_refused_by_the_store_is_not_begun(tmp_path: Path) -> None:
    async with desk(tmp_path) as one:
        one.store.write_error = StoreUnavailable("the disk is full")
        with pytest.raises(StoreUnavailable):
            await one.begin()
        one.store.write_error = None
        await one.advance(60)
        assert await one.backfills.page(limit=5) == []
        assert one.backfills.status()["open"] == 0


async def test_a_run_whose_end_nobody_told_of_is_found_ended_in_a_while(tmp_path: Path) -> None:
    async with desk(tmp_path) as one:
        one.dispatch._on_backfilled = lambda run, step: None
        begun = await one.begin(3)
        await one.advance(200)
        assert (await one.state_of(begun)).backfill.state is BackfillState.COMPLETED


async def test_a_backfill_that_another_hand_has_moved_goes_on_from_there(tmp_path: Path) -> None:
    gate, act = gated()
    async with desk(tmp_path, act=act) as one:
        begun = await one.begin(3)
        await one.settle()
        move = MoveBackfill(backfill=begun.backfill.id, before=1, position=2)
        await one.journal.submit(Accept(entries=(), backfill=move))
        gate.set()
        await one.settle()
        ended = await one.state_of(begun)
        assert (ended.backfill.state, ended.not_run, ended.done) == (BackfillState.COMPLETED, 1, 3)


async def test_the_rate_and_the_end_are_foretold_from_the_latest_ends(tmp_path: Path) -> None:
    async with desk(tmp_path) as one:

        async def act(run: Run, job: Any) -> Outcome:
            await one.clock.sleep(10.0)
            return Outcome.succeeded("done")

        one.script.act = act
        begun = await one.begin(10)
        await one.advance(5)
        shown = await one.state_of(begun)
        assert (shown.rate_per_s, shown.expected_end_at) == (None, None)
        await one.advance(55)
        shown = await one.state_of(begun)
        assert shown.done == 6
        assert shown.rate_per_s == pytest.approx(0.1)
        assert shown.expected_end_at == at(60 + 40)


async def test_the_same_request_begins_one_backfill_however_often_it_is_sent(tmp_path: Path) -> None:
    async with desk(tmp_path, triggers=[timed(), timed("other")]) as one:
        first = await one.backfills.begin(asked(3), request_id="r1")
        assert (await one.backfills.begin(asked(3), request_id="r1")).backfill.id == first.backfill.id
        found: list[str] = []

        async def ask() -> None:
            found.append((await one.backfills.begin(asked(3), request_id="r2")).backfill.id)

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            group.start_soon(ask)
        assert len(set(found)) == 1
        with pytest.raises(Conflict, match="the request id r1 has begun a backfill of trigger nightly"):
            await one.backfills.begin(asked(3, trigger="other"), request_id="r1")
        assert len(await one.backfills.page(limit=10)) == 2


async def test_its_end_is_one_change_with_its_counts(tmp_path: Path) -> None:
    async with desk(tmp_path) as one:
        await one.begin(2)
        await one.settle()
        turns = [change.backfill for change in one.store.changes if isinstance(change, Accept)]
        (end,) = [turn for turn in turns if isinstance(turn, TurnBackfill)]
        assert (end.state, end.ends) == (BackfillState.COMPLETED, {RunState.SUCCEEDED: 2})
