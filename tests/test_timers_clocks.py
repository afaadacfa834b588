"""Timers: what steps of the wall clock, a machine that sleeps, and new time zone data do to them; and what is said."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from engine.clock import rfc3339, suspended_s
from engine.decide.schedule import schedule_of
from engine.errors import StoreUnavailable
from engine.store.base import RunFilter
from engine.testing import VirtualClock
from engine.timers import ZoneData
from engine.timers.state import State
from engine.timers.zonedata import Offsets
from engine.triggers import CatchUp, Misfire, Trigger
from plugins.timers.cron import Cron
from plugins.timers.interval import Interval
from tests.organs import Bench
from tests.ticking import DONE, Every, at, due_runs, ticking, timed

DAY_S = 86400.0
ALL, NONE = Misfire(catch_up=CatchUp.ALL, rate_per_s=100.0), Misfire(catch_up=CatchUp.NONE)


def said(caplog: pytest.LogCaptureFixture, action: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if getattr(record, "action", "") == action]


@pytest.fixture(autouse=True)
def _hear(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "engine.timers")


async def done_of(desk: Bench, name: str) -> list[datetime]:
    return [instant for instant, state in (await due_runs(desk, name)).items() if state is DONE]


# Steps of the wall clock


@pytest.mark.parametrize("step_s", [7200.0, 400 * DAY_S])
async def test_a_step_forward_is_caught_up_on_by_each_rule_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, step_s: float
) -> None:
    hourly = Every(seconds=3600)
    triggers = [timed("latest", hourly), timed("all", hourly, misfire=ALL), timed("none", hourly, misfire=NONE)]
    async with ticking(tmp_path / "s.db", *triggers) as desk:
        await desk.advance(60)
        desk.clock.step(step_s)
        await desk.advance(40)
        passed = int(step_s // 3600)
        assert await done_of(desk, "latest") == [at(step_s)]
        assert await done_of(desk, "all") == [at(n * 3600) for n in range(max(passed - 99, 1), passed + 1)]
        assert await done_of(desk, "none") == []
        for name in ("latest", "all", "none"):
            count = sum((await desk.store.stats([name]))[name].by_state.values())
            assert count == passed
        assert said(caplog, "clock_stepped")[0].startswith("The wall clock was set forward by ")
        assert desk.timers.next_at("none") == at(step_s + 3600)


async def test_a_step_back_of_less_than_three_hours_runs_nothing_again_and_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with ticking(tmp_path / "s.db", timed(on=Every(seconds=600)), timed("daily", Every(seconds=DAY_S))) as desk:
        await desk.advance(1900)
        desk.clock.step(-1000)
        await desk.advance(1000)
        assert list(await due_runs(desk)) == [at(600), at(1200), at(1800)]
        assert said(caplog, "clock_stepped") == ["The wall clock was set back by 16m40s, to 2026-01-05T12:15:20Z"]
        assert said(caplog, "clock_behind") == [
            "The clock is behind what triggers have dealt with: nightly; nothing is run twice, they go on after "
            f"{rfc3339(at(1800))}"
        ]
        await desk.advance(600)
        assert list(await due_runs(desk)) == [at(600), at(1200), at(1800), at(2400)]


async def test_a_clock_that_was_wrong_by_days_and_is_corrected_runs_what_it_only_missed_and_nothing_twice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with ticking(tmp_path / "s.db", timed(on=Every(seconds=3600))) as desk:
        await desk.advance(3700)
        desk.clock.step(400 * DAY_S)
        await desk.advance(40)
        wrong = at(400 * DAY_S + 3600)
        assert await done_of(desk, "nightly") == [at(3600), wrong]
        desk.clock.step(-400 * DAY_S)
        await desk.advance(40)
        assert desk.timers.next_at("nightly") == at(7200)
        [corrected] = said(caplog, "clock_corrected")
        assert corrected.startswith("The clock was wrong before: nightly go on from ")
        await desk.advance(2 * 3600)
        runs = await desk.store.runs(RunFilter(states=frozenset({DONE})), limit=10)
        assert sorted(run.scheduled_for for run in runs if run.scheduled_for) == [
            at(3600), at(7200), at(3 * 3600), wrong,
        ]  # fmt: skip
        desk.clock.step((wrong - desk.clock.now()).total_seconds() - 10)
        await desk.advance(60)
        assert [run.scheduled_for for run in await desk.store.runs(RunFilter(), limit=1000)].count(wrong) == 1
        assert (await desk.store.ledger()).missing == ()


async def test_a_clock_that_was_corrected_while_the_engine_was_away_is_taken_at_its_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with ticking(tmp_path / "s.db") as desk:
        desk.clock.step(10 * DAY_S)
        await desk.advance(100)
        clock = desk.clock
    clock.step(-10 * DAY_S)
    caplog.clear()
    async with ticking(tmp_path / "s.db", clock=clock) as desk:
        await desk.settle()
        assert len(said(caplog, "clock_corrected")) == 1
        assert await desk.store.cursor("timer:nightly") == rfc3339(at(100))
        await desk.advance(60)
        assert (await due_runs(desk))[at(120)] is DONE
    caplog.clear()
    async with ticking(tmp_path / "s.db", clock=clock) as desk:
        await desk.advance(60)
        assert (await due_runs(desk))[at(180)] is DONE
        assert said(caplog, "clock_corrected") == []


async def test_an_instant_on_its_way_to_the_store_while_the_clock_is_corrected_holds_nothing_up(tmp_path: Path) -> None:
    async with ticking(tmp_path / "s.db") as desk:
        await desk.settle()
        desk.store.write_error = StoreUnavailable("the disk is full")
        desk.clock.step(DAY_S)
        await desk.advance(31)
        desk.store.write_error = None
        desk.clock.step(-DAY_S)
        await desk.advance(200)
        assert at(240 - 60) in await due_runs(desk)
        assert desk.timers.next_at("nightly") == at(240)


async def test_slewing_and_small_steps_are_not_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with ticking(tmp_path / "s.db") as desk:
        for _ in range(10):
            desk.clock.step(0.02)
            await desk.advance(30)
        assert said(caplog, "clock_stepped") == said(caplog, "slept") == []


async def test_a_machine_that_slept_is_told_of_and_no_step_of_the_clock(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with ticking(tmp_path / "s.db") as desk:
        await desk.advance(10)
        desk.slept_s = 8 * 3600.0
        desk.clock.step(8 * 3600.0)
        await desk.advance(30)
        assert said(caplog, "slept") == [
            "The machine slept for 8h; what came due meanwhile is dealt with by each trigger's misfire rule"
        ]
        assert said(caplog, "clock_stepped") == []
        assert await done_of(desk, "nightly") == [at(8 * 3600)]
        assert len(await due_runs(desk)) == 102


async def test_an_engine_that_stood_still_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with ticking(tmp_path / "s.db") as desk:
        await desk.advance(10)
        desk.clock._pass(600)  # nobody wakes: the process was stopped
        await desk.advance(1)
        [text] = said(caplog, "stood_still")
        assert text.startswith("The engine stood still for ")
        assert await done_of(desk, "nightly") == [at(600)]


def test_how_long_the_machine_was_suspended_never_goes_down() -> None:
    before = suspended_s()
    assert suspended_s() >= before - 0.001


# A grid


async def test_an_interval_keeps_to_its_grid_over_steps_both_ways(tmp_path: Path) -> None:
    trigger = timed(on=Interval(every=300.0))
    async with ticking(tmp_path / "s.db", trigger) as desk:
        await desk.advance(310)
        desk.clock.step(100)
        await desk.advance(200)
        desk.clock.step(-250)
        await desk.advance(900)
        runs = await due_runs(desk)
        assert runs == {at(n * 300): DONE for n in range(1, len(runs) + 1)}
        assert len(runs) == 4


# Zone data

SPRING, AUTUMN = datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")
JULY = datetime(2026, 7, 1, tzinfo=UTC)


class Remembered:
    """What the store holds of the zones."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.written = 0
        self.away = False

    async def recall(self, source: str, *, after: str | None, limit: int) -> dict[str, Any]:
        if self.away:
            raise StoreUnavailable("away")
        return dict([item for item in sorted(self.values.items()) if after is None or item[0] > after][:limit])

    async def remember(self, values: Mapping[str, Any]) -> None:
        self.values.update(values)
        self.written += 1


def states(*triggers: Trigger, since: datetime = JULY) -> list[State]:
    made = []
    for one in triggers:
        schedule = schedule_of(one)
        assert schedule is not None
        state = State(trigger=one, schedule=schedule, since=since)
        state.go_on()
        made.append(state)
    return made


def test_the_changes_of_a_zone_are_found_to_the_second() -> None:
    found = Offsets.read(BERLIN, datetime(2026, 1, 1, 12, 30, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
    changes = [int(SPRING.timestamp()), int(AUTUMN.timestamp())]
    assert found.at[1:] == tuple(changes)
    assert found.offsets == (3600, 7200, 3600)
    assert [found.of(changes[0] - 1), found.of(changes[0]), found.of(changes[1])] == [3600, 7200, 3600]
    assert Offsets.read(ZoneInfo("UTC"), JULY, AUTUMN).offsets == (0,)


async def test_new_zone_data_is_told_of_with_the_triggers_that_move(caplog: pytest.LogCaptureFixture) -> None:
    clock, store = VirtualClock(JULY), Remembered()
    zones = ZoneData(clock, store.recall, store.remember)
    there = states(
        timed("nightly", Cron(expression="0 2 * * *", timezone="Europe/Berlin")),
        timed("christmas", Cron(expression="0 2 25 12 *", timezone="Europe/Berlin")),
        timed("hourly", Cron(expression="0 * * * *", timezone="Europe/Berlin")),
        timed("grid", Interval(every=7 * 3600.0, timezone="Europe/Berlin")),
        timed("elsewhere", Cron(expression="0 2 * * *", timezone="Asia/Tokyo")),
    )
    await zones.compare(there)
    assert set(store.values) == {"Europe/Berlin", "Asia/Tokyo"}
    assert store.written == 1
    await zones.compare(there)
    assert store.written == 1
    # What the zone was going to do before the new data: to stay on summer time for good.
    old = store.values["Europe/Berlin"]
    store.values["Europe/Berlin"] = {**old, "at": old["at"][:1], "offsets": old["offsets"][:1]}
    await zones.compare(there)
    [text] = said(caplog, "zone_data_changed")
    assert text == (
        "The time zone data of Europe/Berlin changed: at 2026-10-25T01:00:00Z its clock is now +01:00 from UTC, and "
        "was to be +02:00; next instants that moved: christmas (2026-12-25T01:00:00Z, was 2026-12-25T00:00:00Z)"
    )
    assert store.written == 2
    caplog.clear()
    await zones.compare(there)
    assert said(caplog, "zone_data_changed") == []


async def test_zone_data_that_differs_already_moves_what_is_next(caplog: pytest.LogCaptureFixture) -> None:
    clock, store = VirtualClock(JULY), Remembered()
    there = states(
        timed("nightly", Cron(expression="30 2 * * *", timezone="Africa/Casablanca")),
        timed("hourly", Cron(expression="0 * * * *", timezone="Africa/Casablanca")),
        timed("grid", Interval(every=DAY_S, timezone="Africa/Casablanca")),
    )
    zones = ZoneData(clock, store.recall, store.remember)
    await zones.compare(there)
    store.values["Africa/Casablanca"]["offsets"] = [
        offset - 3600 for offset in store.values["Africa/Casablanca"]["offsets"]
    ]
    await zones.compare(there)
    [text] = said(caplog, "zone_data_changed")
    assert text.endswith("next instants that moved: nightly (2026-07-01T01:30:00Z, was 2026-07-01T02:30:00Z)")


async def test_a_store_that_is_away_only_puts_the_comparison_off(caplog: pytest.LogCaptureFixture) -> None:
    store = Remembered()
    store.away = True
    zones = ZoneData(VirtualClock(JULY), store.recall, store.remember)
    await zones.compare(states(timed("nightly", Cron(expression="0 2 * * *", timezone="Europe/Berlin"))))
    assert len(said(caplog, "zone_data_unknown")) == 1
    assert store.written == 0


async def test_what_is_remembered_of_a_zone_is_renewed_in_time() -> None:
    clock, store = VirtualClock(JULY), Remembered()
    zones = ZoneData(clock, store.recall, store.remember)
    there = states(timed("nightly", Cron(expression="0 2 * * *", timezone="Europe/Berlin")))
    await zones.compare(there)
    clock.step(13 * 31 * DAY_S)
    await zones.compare(there)
    assert store.written == 2
    assert store.values["Europe/Berlin"]["until"] > (JULY + timedelta(days=4 * 365)).timestamp()
