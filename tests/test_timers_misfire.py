"""Timers: what becomes of due instants that could not be run in time, and of those that a pause kept back."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from pathlib import Path

import anyio
import pytest

from engine.clock import rfc3339
from engine.errors import StoreUnavailable
from engine.runs import Run, RunState
from engine.store.base import RunFilter
from engine.testing.clock import START
from engine.triggers import CatchUp, Misfire, PauseScope
from tests.organs import Bench, job
from tests.ticking import DONE, MISSED, Clockwork, Every, at, due_runs, ticking, timed

ALL, NONE = Misfire(catch_up=CatchUp.ALL), Misfire(catch_up=CatchUp.NONE)
MONTH_S = 30 * 86400.0


class Counted(Every, frozen=True, kw_only=True):
    """Due every so many seconds; it can count without stepping."""

    def count(self, after: datetime, upto: datetime) -> int:
        period = timedelta(seconds=self.seconds)
        return (upto - START) // period - (after - START) // period


async def run_at(desk: Bench, seconds: float, name: str = "nightly") -> Run:
    """Return the run of a due instant."""
    runs = await desk.store.runs(RunFilter(triggers=frozenset({name})), limit=10_000)
    [run] = [run for run in runs if run.scheduled_for == at(seconds)]
    return run


# catch_up


async def test_what_is_late_says_how_late_and_why(tmp_path: Path) -> None:
    async with ticking(tmp_path / "s.db", timed(on=Every(seconds=3600))) as desk:
        await desk.advance(3600)
        clock = desk.clock
    clock.step(15 * 3600 + 1800)
    async with ticking(tmp_path / "s.db", timed(on=Every(seconds=3600)), clock=clock) as desk:
        await desk.settle()
        assert (await run_at(desk, 3600)).trace[0].reason == "due"
        late = (await run_at(desk, 16 * 3600)).trace[0].reason
        assert late == "due: 30m late, as the engine was away or busy"
        assert (await run_at(desk, 15 * 3600)).reason == (
            f"missed: due at {rfc3339(at(15 * 3600))}, while the engine was away or busy; a later one is run"
        )


async def test_all_are_caught_up_on_in_order_and_at_a_rate(tmp_path: Path) -> None:
    rule = Misfire(catch_up=CatchUp.ALL, rate_per_s=0.5)
    async with ticking(tmp_path / "s.db", timed(misfire=rule)) as desk:
        await desk.advance(60)
        clock = desk.clock
    clock.step(240)
    async with ticking(tmp_path / "s.db", timed(misfire=rule), clock=clock) as desk:
        await desk.advance(30)
        begun = [(run.scheduled_for, at_) for id_, _, at_ in desk.script.begun for run in [await desk.run_of(id_)]]
        assert begun == [(at(120), at(300)), (at(180), at(302)), (at(240), at(304)), (at(300), at(306))]
        assert desk.timers.next_at("nightly") == at(360)
        assert await desk.store.cursor("timer:nightly") == rfc3339(at(300))
        await desk.advance(60)
        assert set((await due_runs(desk)).values()) == {DONE}
        assert list(await due_runs(desk)) == [at(n * 60) for n in range(1, 7)]


async def test_a_crash_in_the_middle_of_catching_up_leaves_nothing_out_and_runs_nothing_twice(tmp_path: Path) -> None:
    rule = Misfire(catch_up=CatchUp.ALL, rate_per_s=1.0)
    async with ticking(tmp_path / "s.db", timed(misfire=rule)) as desk:
        await desk.settle()
        clock = desk.clock
    clock.step(601)
    counts = []
    for _ in range(4):
        async with ticking(tmp_path / "s.db", timed(misfire=rule), clock=clock) as desk:
            await desk.advance(2.5)
            counts.append(len(await due_runs(desk)))
    assert counts == [3, 6, 9, 10]
    async with ticking(tmp_path / "s.db", timed(misfire=rule), clock=clock) as desk:
        assert await due_runs(desk) == {at(n * 60): DONE for n in range(1, 11)}


async def test_only_the_newest_are_caught_up_on_and_the_rest_is_missed(tmp_path: Path) -> None:
    rule = Misfire(catch_up=CatchUp.ALL, max=3, rate_per_s=100.0)
    async with ticking(tmp_path / "s.db", timed(misfire=rule)) as desk:
        await desk.settle()
        clock = desk.clock
    clock.step(301)
    async with ticking(tmp_path / "s.db", timed(misfire=rule), clock=clock) as desk:
        await desk.advance(5)
        assert await due_runs(desk) == {
            at(60): MISSED, at(120): MISSED, at(180): DONE, at(240): DONE, at(300): DONE,
        }  # fmt: skip
        assert (await run_at(desk, 60)).reason.endswith("; only the newest 3 are caught up on")


async def test_what_gets_too_old_while_it_waits_its_turn_is_missed(tmp_path: Path) -> None:
    rule = Misfire(catch_up=CatchUp.ALL, rate_per_s=1 / 30, grace_s=150.0)
    async with ticking(tmp_path / "s.db", timed(misfire=rule)) as desk:
        await desk.settle()
        clock = desk.clock
    clock.step(250)
    async with ticking(tmp_path / "s.db", timed(misfire=rule), clock=clock) as desk:
        await desk.advance(29)
        assert await due_runs(desk) == {at(60): MISSED, at(120): DONE}
        await desk.advance(600)
        runs = await due_runs(desk)
        assert list(runs) == [at(n * 60) for n in range(1, len(runs) + 1)]
        assert (await run_at(desk, 60)).reason.endswith("; that is longer ago than the grace of 2m30s")
        assert desk.timers.next_at("nightly") == at(900)


async def test_what_is_older_than_the_grace_is_missed_and_the_cursor_moves_on(tmp_path: Path) -> None:
    rule = Misfire(grace_s=20.0)
    async with ticking(tmp_path / "s.db", timed(misfire=rule)) as desk:
        await desk.settle()
        clock = desk.clock
    clock.step(150)
    async with ticking(tmp_path / "s.db", timed(misfire=rule), clock=clock) as desk:
        await desk.settle()
        assert await due_runs(desk) == {at(60): MISSED, at(120): MISSED}
        assert await desk.store.cursor("timer:nightly") == rfc3339(at(120))
        assert (await desk.store.ledger()).missing == ()
    async with ticking(tmp_path / "s.db", timed(misfire=rule), clock=clock) as desk:
        await desk.advance(30)
        assert await due_runs(desk) == {at(60): MISSED, at(120): MISSED, at(180): DONE}


async def test_none_catches_up_on_nothing_but_a_busy_minute_is_no_misfire(tmp_path: Path) -> None:
    trigger = timed(on=Every(seconds=600), misfire=NONE)
    async with ticking(tmp_path / "s.db", trigger) as desk:
        await desk.settle()
        clock = desk.clock
    clock.step(630)
    async with ticking(tmp_path / "s.db", trigger, clock=clock) as desk:
        await desk.settle()
        assert await due_runs(desk) == {at(600): DONE}
    clock.step(631)
    async with ticking(tmp_path / "s.db", trigger, clock=clock) as desk:
        await desk.settle()
        assert await due_runs(desk) == {at(600): DONE, at(1200): MISSED}
        assert (await run_at(desk, 1200)).reason.endswith("; what is more than 1m late is not caught up on")


async def test_a_month_of_minutes_is_one_row_with_its_count_and_counts_in_the_statistics(tmp_path: Path) -> None:
    trigger = timed(on=Counted(seconds=60))
    async with ticking(tmp_path / "s.db", trigger) as desk:
        await desk.settle()
        clock = desk.clock
    clock.step(MONTH_S)
    async with ticking(tmp_path / "s.db", trigger, clock=clock) as desk:
        await desk.settle()
        row = await run_at(desk, 60)
        assert row.reason.startswith("missed: 43,099 due instants from 2026-01-05T12:01:00Z to ")
        assert row.outputs == {"instants": 43_099, "first": rfc3339(at(60)), "last": rfc3339(at(MONTH_S - 101 * 60))}
        stats = (await desk.store.stats(["nightly"]))["nightly"]
        assert stats.by_state == {MISSED: 43_199, DONE: 1}
        missed = await desk.store.runs(RunFilter(states=frozenset({MISSED})), limit=1000)
        assert len(missed) == 101


async def test_a_thousand_triggers_that_were_away_for_a_month_are_dealt_with_in_portions(tmp_path: Path) -> None:
    triggers = [timed(f"t{n}", Counted(seconds=60)) for n in range(200)]
    async with ticking(tmp_path / "s.db", *triggers) as desk:
        await desk.settle()
        assert len(await desk.store.cursors("timer:")) == 200
        clock = desk.clock
    clock.step(MONTH_S)
    async with ticking(tmp_path / "s.db", *triggers, clock=clock) as desk:
        await desk.settle()
        ended = await desk.store.runs(RunFilter(states=frozenset({DONE})), limit=1000)
        assert len(ended) == 200
        assert all(cursor == rfc3339(at(MONTH_S)) for cursor in (await desk.store.cursors("timer:")).values())


async def test_missed_instants_wait_for_a_store_that_is_away(tmp_path: Path) -> None:
    async with ticking(tmp_path / "s.db", timed(misfire=ALL)) as desk:
        await desk.settle()
        desk.store.write_error = StoreUnavailable("the disk is full")
        await desk.advance(250)
        assert await due_runs(desk) == {}
        desk.store.write_error = None
        await desk.advance(45)
        assert await due_runs(desk) == {at(n * 60): DONE for n in range(1, 5)}


# Pauses


async def paused(desk: Clockwork, seconds: float | None = None, name: str = "nightly") -> None:
    until = None if seconds is None else desk.clock.now() + timedelta(seconds=seconds)
    await desk.pauses.pause(PauseScope.TRIGGER, name, reason="the warehouse moves", until=until, who="")


async def test_a_paused_timer_emits_nothing_and_the_misfire_rule_follows_the_pause(tmp_path: Path) -> None:
    async with ticking(tmp_path / "s.db", timed(), timed("other")) as desk:
        await paused(desk)
        await desk.advance(250)
        assert await due_runs(desk) == {}
        assert len(await due_runs(desk, "other")) == 4
        assert desk.timers.next_at("nightly") == at(300)
        assert await desk.store.cursor("timer:nightly") == rfc3339(at(0))
        await desk.pauses.resume(PauseScope.TRIGGER, "nightly", who="")
        desk.timers.look_again({"nightly"})
        await desk.settle()
        assert await due_runs(desk) == {at(60): MISSED, at(120): MISSED, at(180): MISSED, at(240): DONE}
        assert (await run_at(desk, 120)).reason == (
            f"missed: due at {rfc3339(at(120))}, while trigger nightly was paused: the warehouse moves; "
            "a later one is run"
        )
        await desk.advance(60)
        assert (await due_runs(desk))[at(300)] is DONE
        assert await desk.store.runs(RunFilter(states=frozenset({RunState.SKIPPED})), limit=1) == []


async def test_a_pause_that_ends_by_itself_is_noticed(tmp_path: Path) -> None:
    async with ticking(tmp_path / "s.db", timed(misfire=ALL)) as desk:
        await paused(desk, 200)
        await desk.advance(199)
        assert await due_runs(desk) == {}
        await desk.advance(2)
        assert await due_runs(desk) == {at(60): DONE, at(120): DONE, at(180): DONE}
        assert (
            (await run_at(desk, 60)).trace[0].reason.startswith("due: 2m20s late, as trigger nightly was paused until")
        )


async def test_a_pause_that_is_put_off_or_cut_short_is_followed(tmp_path: Path) -> None:
    async with ticking(tmp_path / "s.db", timed()) as desk:
        await paused(desk, 100)
        await desk.advance(70)
        await paused(desk, 100)
        desk.timers.look_again(None)
        await desk.advance(90)
        assert await due_runs(desk) == {}
        await desk.advance(15)
        assert await due_runs(desk) == {at(60): MISSED, at(120): DONE}


async def test_a_pause_outlives_a_restart_and_so_does_what_it_kept_back(tmp_path: Path) -> None:
    async with ticking(tmp_path / "s.db", timed(misfire=NONE)) as desk:
        await paused(desk)
        await desk.advance(130)
        clock = desk.clock
    async with ticking(tmp_path / "s.db", timed(misfire=NONE), clock=clock) as desk:
        await desk.advance(200)
        assert await due_runs(desk) == {}
        await desk.pauses.resume(PauseScope.TRIGGER, "nightly", who="")
        desk.timers.look_again(None)
        await desk.settle()
        assert await due_runs(desk) == {at(n * 60): MISSED for n in range(1, 5)} | {at(300): DONE}
        assert "while trigger nightly was paused" in (await run_at(desk, 60)).reason


async def test_a_pause_within_catching_up_stops_it_and_it_goes_on_afterwards(tmp_path: Path) -> None:
    rule = Misfire(catch_up=CatchUp.ALL, rate_per_s=0.5)
    async with ticking(tmp_path / "s.db", timed(misfire=rule)) as desk:
        await desk.settle()
        desk.clock.step(250)
        await desk.advance(31)
        begun = len(desk.script.begun)
        assert begun == 1
        await paused(desk)
        await desk.advance(100)
        assert len(desk.script.begun) == 1
        await desk.pauses.resume(PauseScope.TRIGGER, "nightly", who="")
        desk.timers.look_again({"nightly"})
        await desk.advance(20)
        assert await due_runs(desk) == {at(n * 60): DONE for n in range(1, 7)}


async def test_a_pause_that_ends_elsewhere_while_one_is_caught_up_on_leaves_none_out(tmp_path: Path) -> None:
    rule = Misfire(catch_up=CatchUp.ALL, rate_per_s=0.5)
    async with ticking(tmp_path / "s.db", timed(misfire=rule)) as desk:
        await paused(desk)
        await desk.advance(250)
        await desk.pauses.resume(PauseScope.TRIGGER, "nightly", who="")
        desk.timers.look_again({"nightly"})
        await desk.advance(1)  # the first was run, and the next is to be
        on_the_way = desk.store.hold = anyio.Event()
        await desk.advance(2)
        desk.timers.look_again(None)
        await desk.advance(1)
        on_the_way.set()
        desk.store.hold = None
        await desk.advance(10)
        assert await due_runs(desk) == {at(n * 60): DONE for n in range(1, 5)}


async def test_looking_again_at_what_is_on_its_way_to_the_store_loses_no_instant_that_is_caught_up_on(
    tmp_path: Path,
) -> None:
    async with ticking(tmp_path / "s.db", timed(misfire=ALL)) as desk:
        await paused(desk, 200)
        await desk.advance(199)
        desk.store.hold = anyio.Event()
        await desk.advance(2)  # its end comes, and it is told of, too
        desk.timers.look_again({"nightly"})
        await desk.advance(0)
        desk.store.hold.set()
        await desk.advance(2)
        assert await due_runs(desk) == {at(60): DONE, at(120): DONE, at(180): DONE}


async def test_looking_again_at_what_is_not_there_or_not_paused_does_nothing(tmp_path: Path) -> None:
    async with ticking(tmp_path / "s.db", timed()) as desk:
        desk.timers.look_again({"nightly", "unknown"})
        desk.timers.look_again(None)
        await desk.advance(60)
        assert await due_runs(desk) == {at(60): DONE}


async def test_a_paused_timer_that_is_removed_is_not_looked_at_again(tmp_path: Path) -> None:
    async with ticking(tmp_path / "s.db", timed(), timed("other")) as desk:
        await paused(desk, 100)
        await desk.advance(70)
        desk.timers.remove("nightly")
        await desk.advance(100)
        assert await due_runs(desk) == {}


# Jitter


async def test_an_instant_fires_when_its_schedule_says_and_is_named_by_when_it_is_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.decide.schedule.Schedule.fires_at", lambda self, due: due + timedelta(seconds=25))
    async with ticking(tmp_path / "s.db") as desk:
        await desk.advance(84)
        assert desk.script.begun == []
        await desk.advance(2)
        assert [begun for _, _, begun in desk.script.begun] == [at(85)]
        assert await due_runs(desk) == {at(60): DONE}
        assert await desk.store.cursor("timer:nightly") == rfc3339(at(60))
        clock = desk.clock
    clock.step(46)  # at 2:12: the instant at 2:00 has not fired yet
    async with ticking(tmp_path / "s.db", clock=clock) as desk:
        await desk.advance(12)
        assert await due_runs(desk) == {at(60): DONE}
        await desk.advance(2)
        assert await due_runs(desk) == {at(60): DONE, at(120): DONE}


# Many


async def test_more_than_a_portion_that_is_due_at_once_is_run_at_that_instant(tmp_path: Path) -> None:
    triggers = [timed(f"t{n}") for n in range(300)]
    async with ticking(tmp_path / "s.db", *triggers, jobs=[job()], concurrency=1000) as desk:
        await desk.advance(60)
        assert len(desk.script.begun) == 300
        assert {begun for _, _, begun in desk.script.begun} == {at(60)}
        assert len(await desk.store.cursors("timer:")) == 300


async def test_what_is_missed_is_said_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "engine.timers")
    async with ticking(tmp_path / "s.db", timed("latest"), timed("none", misfire=NONE)) as desk:
        await desk.settle()
        clock = desk.clock
    clock.step(1 * 3600 + 55)
    async with ticking(tmp_path / "s.db", timed("latest"), timed("all", misfire=ALL), clock=clock) as desk:
        await desk.advance(10)
    said = [record.getMessage() for record in caplog.records if getattr(record, "action", "") == "missed"]
    assert said == ["Trigger latest missed due instants; the latest is run"]
