"""Timers: each due instant once, with its event, runs and cursor in one commit, whatever clock, store and plugin do."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.clock import rfc3339
from engine.decide.firing import Firing
from engine.decide.rules import Rule
from engine.errors import Conflict, StoreDamaged, StoreUnavailable
from engine.runs import Origin
from engine.store.base import EventFilter, RunFilter
from engine.store.changes import Accept, Cursor
from engine.testing import VirtualClock
from engine.timers import ASK_AGAIN_S, Timers
from engine.triggers import Debounce
from tests.organs import job, trigger
from tests.ticking import DONE, MISSED, Every, Once, at, due_runs, ticking, timed

faults: dict[str, Any] = {}


class Faulty(Every, frozen=True, kw_only=True):
    """Does what `faults` says in place of answering."""

    def next(self, after: datetime) -> datetime | None:
        if "next" in faults:
            answer: datetime | None = faults["next"](after)
            return answer
        return super().next(after)

    def previous(self, before: datetime) -> datetime | None:
        if "previous" in faults:
            answer: datetime | None = faults["previous"](before)
            return answer
        return super().previous(before)


@pytest.fixture(autouse=True)
def _no_faults() -> None:
    faults.clear()


# Due instants


async def test_each_instant_is_run_once_and_on_time(tmp_path: Path) -> None:
    async with ticking(tmp_path / "s.db") as desk:
        assert desk.timers.next_at("nightly") == at(60)
        await desk.advance(59.9)
        assert desk.script.begun == []
        await desk.advance(200)
        assert [begun for _, _, begun in desk.script.begun] == [at(60), at(120), at(180), at(240)]
        assert await due_runs(desk) == {at(second): DONE for second in (60, 120, 180, 240)}
        assert desk.timers.next_at("nightly") == at(300)
        assert desk.timers.next_at("unknown") is None
        assert len(desk.timers) == 1


async def test_an_instant_is_an_event_with_its_time_as_its_key(tmp_path: Path) -> None:
    async with ticking(tmp_path / "s.db") as desk:
        await desk.advance(60)
        [stored] = await desk.store.events(EventFilter(), limit=10)
        event = stored.event
        assert (event.type, event.source, event.subject, event.time) == (
            "engine.timer", "timer:nightly", "nightly", at(60),
        )  # fmt: skip
        assert event.key == "2026-01-05T12:01:00Z"
        assert event.data == {"scheduled_for": "2026-01-05T12:01:00Z"}
        run = await desk.run_of(stored.outcomes[0].run or "")
        assert (run.origin, run.key, run.scheduled_for) == (Origin.SCHEDULE, event.key, at(60))


async def test_event_run_and_cursor_are_one_commit(tmp_path: Path) -> None:
    async with ticking(tmp_path / "s.db") as desk:
        await desk.advance(60)
        [_, fired] = [change for change in desk.store.changes if isinstance(change, Accept)]
        assert len(fired.entries) == len(fired.entries[0].runs) == 1
        assert fired.cursor == Cursor(source="timer:nightly", value=rfc3339(at(60)))


async def test_many_timers_are_kept_side_by_side(tmp_path: Path) -> None:
    triggers = [timed(f"every-{n}", Every(seconds=n)) for n in (7, 11, 13)]
    triggers.append(timed("once", Once(moment=at(20))))
    async with ticking(tmp_path / "s.db", *triggers, concurrency=100) as desk:
        await desk.advance(100)
        for n in (7, 11, 13):
            assert list(await due_runs(desk, f"every-{n}")) == [at(s) for s in range(n, 101, n)]
        assert list(await due_runs(desk, "once")) == [at(20)]
        assert desk.timers.next_at("once") is None
        assert {begun for _, _, begun in desk.script.begun} == {
            at(s) for n in (7, 11, 13) for s in range(n, 101, n)
        } | {at(20)}  # fmt: skip


async def test_disabled_triggers_and_those_on_no_timer_have_none(tmp_path: Path) -> None:
    async with ticking(tmp_path / "s.db", timed(enabled=False), trigger()) as desk:
        assert len(desk.timers) == 0
        await desk.advance(600)
        assert await desk.store.events(EventFilter(), limit=1) == []


async def test_a_timer_can_be_debounced_like_any_source(tmp_path: Path) -> None:
    async with ticking(tmp_path / "s.db", timed(debounce=Debounce(wait_s=90.0, max_wait_s=200.0))) as desk:
        await desk.advance(1000)
        assert [(len(desk.script.events[run]), begun) for run, _, begun in desk.script.begun] == [
            (4, at(260)), (4, at(500)), (4, at(740)), (4, at(980)),
        ]  # fmt: skip
        assert (await desk.store.ledger()).missing == ()


# Restarts


async def test_since_when_a_timer_is_there_is_stored_before_it_was_ever_due(tmp_path: Path) -> None:
    async with ticking(tmp_path / "s.db") as desk:
        await desk.settle()
        assert await desk.store.cursor("timer:nightly") == rfc3339(at(0))
        clock = desk.clock
    clock.step(150)
    async with ticking(tmp_path / "s.db", clock=clock) as desk:
        await desk.settle()
        assert await due_runs(desk) == {at(60): MISSED, at(120): DONE}


async def test_of_what_passed_while_the_engine_was_away_the_latest_is_run_and_the_rest_is_told(tmp_path: Path) -> None:
    async with ticking(tmp_path / "s.db") as desk:
        await desk.advance(60)
        clock = desk.clock
    clock.step(240)
    async with ticking(tmp_path / "s.db", clock=clock) as desk:
        await desk.advance(61)
        assert await due_runs(desk) == {
            at(60): DONE, at(120): MISSED, at(180): MISSED, at(240): MISSED, at(300): DONE, at(360): DONE,
        }  # fmt: skip
        missed = await desk.store.runs(RunFilter(states=frozenset({MISSED})), limit=10)
        assert {run.code for run in missed} == {"missed"}
        assert rfc3339(at(240)) in missed[0].reason
        assert (await desk.store.ledger()).missing == ()


async def test_a_restart_right_after_an_instant_runs_it_no_second_time(tmp_path: Path) -> None:
    async with ticking(tmp_path / "s.db") as desk:
        await desk.advance(60)
        clock = desk.clock
    async with ticking(tmp_path / "s.db", clock=clock) as desk:
        await desk.advance(30)
        assert await due_runs(desk) == {at(60): DONE}


async def test_a_month_away_is_told_in_a_bounded_number_of_rows(tmp_path: Path) -> None:
    async with ticking(tmp_path / "s.db") as desk:
        await desk.settle()
        clock = desk.clock
    clock.step(30 * 86400)
    async with ticking(tmp_path / "s.db", clock=clock) as desk:
        await desk.settle()
        runs = await due_runs(desk)
        assert len(runs) == 102
        assert list(runs.values()).count(DONE) == 1
        assert max(runs) == at(30 * 86400)
        first = min(runs)
        [row] = [run for run in await desk.store.runs(RunFilter(), limit=200) if run.scheduled_for == first]
        assert row.reason.startswith("missed: more than 10,000 due instants from 2026-01-05T12:01:00Z to ")


# The clock


async def test_a_clock_set_back_runs_no_instant_twice(tmp_path: Path) -> None:
    async with ticking(tmp_path / "s.db") as desk:
        await desk.advance(185)
        desk.clock.step(-150)
        await desk.advance(145)
        assert list(await due_runs(desk)) == [at(60), at(120), at(180)]
        await desk.advance(70)
        assert await due_runs(desk) == {at(second): DONE for second in (60, 120, 180, 240)}


async def test_a_clock_set_back_over_a_restart_runs_no_instant_twice(tmp_path: Path) -> None:
    async with ticking(tmp_path / "s.db") as desk:
        await desk.advance(185)
        clock = desk.clock
    clock.step(-150)
    async with ticking(tmp_path / "s.db", clock=clock) as desk:
        await desk.advance(210)
        assert await due_runs(desk) == {at(second): DONE for second in (60, 120, 180, 240)}


async def test_a_clock_set_forward_is_noticed_within_half_a_minute_and_caught_up_once(tmp_path: Path) -> None:
    async with ticking(tmp_path / "s.db") as desk:
        await desk.advance(5)
        desk.clock.step(7200)
        await desk.advance(30)
        runs = await due_runs(desk)
        assert list(runs.values()).count(DONE) == 1
        assert max(runs) == at(7200)
        assert runs[at(7200)] is DONE
        desk.clock.step(-7200)
        await desk.advance(3600)
        assert await due_runs(desk) == runs


# The store


async def test_an_instant_waits_for_the_store_and_is_run_when_it_is_back(tmp_path: Path) -> None:
    async with ticking(tmp_path / "s.db") as desk:
        await desk.settle()
        desk.store.write_error = StoreUnavailable("the disk is full")
        await desk.advance(150)
        assert await due_runs(desk) == {}
        desk.store.write_error = None
        await desk.advance(31)
        assert (await due_runs(desk))[at(60)] in (MISSED, DONE)
        await desk.advance(60)
        runs = await due_runs(desk)
        assert list(runs) == [at(60), at(120), at(180), at(240)]
        assert runs[at(240)] is DONE


async def test_the_cursor_of_a_new_timer_never_falls_back_behind_one_that_has_fired(tmp_path: Path) -> None:
    begun: list[Cursor] = []

    async def emit(firings: Sequence[Firing]) -> list[Exception | None]:
        return [None] * len(firings)

    async def begin(cursors: Sequence[Cursor]) -> None:
        begun.extend(cursors)
        raise StoreUnavailable("away")

    clock = VirtualClock()
    timers = Timers(clock=clock, triggers=[timed()], emit=emit, begin=begin)
    async with anyio.create_task_group() as group:
        await group.start(timers.run, {})
        await clock.advance(50)
        assert begun
        await clock.advance(30)
        count = len(begun)
        await clock.advance(120)
        assert len(begun) == count
        group.cancel_scope.cancel()


async def test_a_refusal_of_any_kind_is_tried_again_and_ends_no_other_timer(tmp_path: Path) -> None:
    refused: list[str] = []
    fired: list[str] = []

    def answer(firing: Firing) -> Exception | None:
        if firing.source == "timer:bad" and len(refused) < 3:
            refused.append(firing.cursor)
            return Conflict("the run has ended")
        fired.append(firing.source)
        return None

    async def emit(firings: Sequence[Firing]) -> list[Exception | None]:
        return [answer(firing) for firing in firings]

    async def begin(cursors: Sequence[Cursor]) -> None:
        return None

    clock = VirtualClock()
    timers = Timers(clock=clock, triggers=[timed("bad"), timed("good")], emit=emit, begin=begin)
    async with anyio.create_task_group() as group:
        await group.start(timers.run, {})
        await clock.advance(119)
        assert fired == ["timer:good", "timer:bad"]
        assert len(refused) == 3
        group.cancel_scope.cancel()


async def test_timers_rest_when_the_store_has_failed_for_good(tmp_path: Path) -> None:
    asked = 0

    async def emit(firings: Sequence[Firing]) -> list[Exception | None]:
        nonlocal asked
        asked += 1
        return [StoreDamaged("a page is torn") for _ in firings]

    async def begin(cursors: Sequence[Cursor]) -> None:
        return None

    clock = VirtualClock()
    timers = Timers(clock=clock, triggers=[timed()], emit=emit, begin=begin)
    async with anyio.create_task_group() as group:
        await group.start(timers.run, {})
        await clock.advance(150)
        assert asked == 1
        group.cancel_scope.cancel()


# Plugins


def _raise(error: Exception) -> Any:
    def answer(around: datetime) -> datetime:
        raise error

    return answer


BROKEN: dict[str, dict[str, Any]] = {
    "next raises": {"next": _raise(RuntimeError("a bug in a plugin"))},
    "previous raises": {"previous": _raise(RuntimeError("a bug in a plugin"))},
    "next is naive": {"next": lambda after: datetime(2026, 1, 5, 12, 1)},  # noqa: DTZ001
    "previous is naive": {"previous": lambda before: datetime(2026, 1, 5, 12, 1)},  # noqa: DTZ001
    "next is text": {"next": lambda after: "tomorrow"},
    "next never moves on": {"next": lambda after: after},
    "next goes back": {"next": lambda after: after - timedelta(seconds=1)},
    "previous knows nothing of next": {"previous": lambda before: None},
}


@pytest.mark.parametrize("how", BROKEN)
async def test_a_timer_that_is_broken_is_named_asked_again_and_harms_no_other(tmp_path: Path, how: str) -> None:
    faults.update(BROKEN[how])
    async with ticking(tmp_path / "s.db", timed("broken", Faulty()), timed("good"), concurrency=10) as desk:
        await desk.advance(185)
        assert list(desk.timers.problems()) == ["broken"]
        assert desk.timers.next_at("broken") is None
        assert await due_runs(desk, "good") == {at(second): DONE for second in (60, 120, 180)}
        assert set(await due_runs(desk, "broken")) <= {at(60), at(120), at(180)}
        faults.clear()
        await desk.advance(ASK_AGAIN_S + 60)
        assert desk.timers.problems() == {}
        assert desk.timers.next_at("broken") == at(360)
        runs = await due_runs(desk, "broken")
        assert [instant for instant, state in runs.items() if state is DONE][-1] == at(300)


async def test_a_timer_that_breaks_later_loses_nothing_of_what_it_was_due(tmp_path: Path) -> None:
    async with ticking(tmp_path / "s.db", timed(on=Faulty())) as desk:
        await desk.advance(60)
        faults.update(BROKEN["previous raises"])
        await desk.advance(120)
        faults.clear()
        await desk.advance(120)
        runs = await due_runs(desk)
        assert list(runs) == [at(60), at(120), at(180), at(240), at(300)]
        assert runs[at(300)] is DONE


async def test_the_job_of_a_disabled_kind_records_what_was_due(tmp_path: Path) -> None:
    async with ticking(tmp_path / "s.db", timed(), jobs=[job(enabled=False)]) as desk:
        await desk.advance(60)
        [stored] = await desk.store.events(EventFilter(), limit=10)
        assert [outcome.code for outcome in stored.outcomes] == ["job_disabled"]
        assert await desk.store.cursor("timer:nightly") == rfc3339(at(60))


async def test_a_timer_without_a_further_instant_is_completed(tmp_path: Path) -> None:
    once, never = timed("once", Once(moment=at(30))), timed("never", Once(moment=at(-30)))
    async with ticking(tmp_path / "e.db", once, never, timed("always")) as work:
        await work.settle()
        assert [work.timers.is_completed(name) for name in ("once", "never", "always")] == [False, True, False]
        await work.advance(31)
        assert work.timers.is_completed("once")
        assert work.timers.next_at("once") is None
        assert len(await work.store.runs(RunFilter(triggers=frozenset({"once"})), limit=10)) == 1
        assert await work.store.runs(RunFilter(triggers=frozenset({"never"})), limit=10) == []
        assert not work.timers.is_completed("no-timer")
        assert work.timers.why_completed("once") == "its timer has no further due instant"
        assert work.timers.why_completed("never") == (
            f"its timer has no further due instant: its last instant was {rfc3339(at(-30))}, "
            "before this trigger was first seen"
        )
        assert work.timers.why_completed("always") is None


async def test_a_trigger_is_completed_after_the_end_of_its_timer_and_says_so(tmp_path: Path) -> None:
    async with ticking(tmp_path / "e.db", timed(on=Every(start=at(60), every_nth=2, end=at(300)))) as work:
        await work.advance(200)
        assert not work.timers.is_completed("nightly")
        await work.advance(1000)
        assert work.timers.is_completed("nightly")
        assert await due_runs(work) == {at(second): DONE for second in (60, 180, 300)}
        assert work.timers.why_completed("nightly") == f"nothing of it is due after its end, {rfc3339(at(300))}"


async def test_a_timer_that_raises_is_not_completed(tmp_path: Path) -> None:
    async with ticking(tmp_path / "e.db", timed(on=Faulty())) as work:
        faults["next"] = lambda after: 1 / 0
        await work.advance(61)
        assert work.timers.problems()
        assert not work.timers.is_completed("nightly")


# Timers that come and go


async def test_a_timer_that_comes_while_others_run_is_due_at_its_time(tmp_path: Path) -> None:
    async with ticking(tmp_path / "s.db") as work:
        late = timed("late")
        work.intake.add(Rule(late, job()))
        work.timers.add(late)
        await work.settle()
        assert work.timers.next_at("late") == work.timers.next_at("nightly")
        await work.advance(120)
        assert list(await due_runs(work, "late")) == list(await due_runs(work))


async def test_a_timer_that_goes_is_not_due_any_more_and_comes_again_without_a_past(tmp_path: Path) -> None:
    async with ticking(tmp_path / "s.db") as work:
        await work.advance(60)
        before = await due_runs(work)
        cursor = work.timers.remove("nightly")
        assert cursor is not None
        assert work.timers.remove("nightly") is None
        assert (work.timers.next_at("nightly"), len(work.timers)) == (None, 0)
        await work.journal.submit(Accept(entries=(), cursor=cursor))
        await work.advance(300)
        assert await due_runs(work) == before
        work.timers.add(timed())
        await work.advance(60)
        after = await due_runs(work)
        assert len(after) == len(before) + 1
        assert set(after.values()) == {DONE}


async def test_a_timer_that_is_replaced_is_due_once_at_an_instant(tmp_path: Path) -> None:
    async with ticking(tmp_path / "s.db") as work:
        for _ in range(200):
            work.timers.add(timed())
        await work.advance(120)
        assert set((await due_runs(work)).values()) == {DONE}
        assert len(work.timers._heap) == 1


async def test_many_timers_that_come_and_go_leave_nothing_behind(tmp_path: Path) -> None:
    async with ticking(tmp_path / "s.db") as work:
        for number in range(300):
            work.timers.add(timed(f"t-{number}"))
            await work.settle()
            work.timers.remove(f"t-{number}")
        assert len(work.timers._heap) < 100


async def test_a_timer_is_not_added_where_none_runs(tmp_path: Path) -> None:
    async with ticking(tmp_path / "s.db") as work:
        timers = work.timers
    with pytest.raises(Conflict):
        timers.add(timed("late"))
