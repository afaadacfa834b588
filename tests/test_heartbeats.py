"""Heartbeats: where no event comes for too long it is told once, and once when one comes again."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.decide.firing import Firing
from engine.decide.heartbeats import Heartbeat, Turn
from engine.errors import StoreUnavailable
from engine.heartbeats import BACK_TYPE, GRACE_S, LOOK_S, MISSING_TYPE
from engine.store.base import EventFilter
from engine.testing import VirtualClock
from engine.triggers import SharedSource
from tests.organs import Bench, Heard, Listed, bench, event, trigger

pytestmark = pytest.mark.anyio

EVERY_S = 120.0
WATCHED = trigger(expect_s=EVERY_S)


async def told(desk: Bench) -> list[str]:
    """Return what was told of, in order: the last word of the type, and of what."""
    await desk.settle()
    found = await desk.store.events(EventFilter(source="engine:expected"), limit=50)
    return [f"{stored.event.type.rpartition('.')[2]} {stored.event.subject}" for stored in reversed(found)]


def missing(desk: Bench) -> bool:
    return not desk.guards.checks()[1]["ok"]


# Pure

_STEPS = st.lists(
    st.tuples(st.integers(0, 50), st.sampled_from(["event", "look", "look", "held"])), max_size=60
)  # fmt: skip


@given(_STEPS, st.integers(1, 60))
def test_an_alarm_begins_once_for_a_silence_that_nothing_excuses(steps: list[tuple[int, str]], expect: int) -> None:
    now = VirtualClock().now()
    beat = Heartbeat(place=("trigger", "t"), expect_s=float(expect), since=now)
    silent_since, was_held, alarm = now, False, False
    for seconds, act in steps:
        now += timedelta(seconds=seconds)
        if act == "event":
            beat.note(now)
            silent_since = now
            continue
        turn = beat.look(now, held=act == "held")
        if turn is Turn.BACK:
            assert alarm
            alarm, beat.missing_since = False, None
            turn = beat.look(now, held=act == "held")
        if act == "held":
            assert turn is (None if was_held else Turn.HELD)
            was_held = True
        elif was_held:
            assert turn is Turn.COUNTED_AGAIN
            was_held, silent_since = False, now
        else:
            begins = not alarm and (now - silent_since).total_seconds() >= expect
            assert turn is (Turn.MISSING if begins else None)
            alarm = alarm or begins


# At work


async def test_silence_is_told_of_once_and_so_is_its_end(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[WATCHED]) as desk:
        await desk.advance(EVERY_S - 1)
        assert not missing(desk)
        await desk.emit_one(event())
        await desk.advance(EVERY_S - 1)
        assert await told(desk) == []
        await desk.advance(1 + LOOK_S)
        assert missing(desk)
        assert "trigger on-grain expects an event every 2m, and the last came at" in desk.guards.checks()[1]["detail"]
        await desk.advance(3 * EVERY_S)
        assert await told(desk) == ["missing on-grain"]
        await desk.emit_one(event())
        assert await told(desk) == ["missing on-grain", "back on-grain"]
        assert not missing(desk)
        await desk.advance(2 * EVERY_S)
        assert await told(desk) == ["missing on-grain", "back on-grain", "missing on-grain"]


async def test_rules_hear_of_it(tmp_path: Path) -> None:
    hears = {"event:m": Heard(type=MISSING_TYPE), "event:b": Heard(type=BACK_TYPE)}
    tellers = [trigger(f"tell-{source[-1]}", source=source, on=on) for source, on in hears.items()]
    async with bench(tmp_path / "s.db", triggers=[WATCHED, *tellers], hearing=list(hears.items())) as desk:
        await desk.advance(EVERY_S + LOOK_S)
        await desk.emit_one(event())
        await desk.settle()
        types = [events[0].type for events in desk.script.events.values()]
        assert (types.count(MISSING_TYPE), types.count(BACK_TYPE)) == (1, 1)


async def test_it_goes_on_from_the_last_event_after_a_restart(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with bench(tmp_path / "s.db", triggers=[WATCHED], clock=clock) as desk:
        await desk.advance(60)
        await desk.emit_one(event())
    await clock.advance(60)
    async with bench(tmp_path / "s.db", triggers=[WATCHED], clock=clock) as desk:
        await desk.advance(59)
        assert not missing(desk)
        await desk.advance(1 + LOOK_S)
        assert missing(desk)
    async with bench(tmp_path / "s.db", triggers=[WATCHED], clock=clock) as desk:
        await desk.advance(EVERY_S)
        assert (await told(desk), missing(desk)) == (["missing on-grain"], True)
        assert "the last came at 2026-01-05 12:01:00 UTC" in desk.guards.checks()[1]["detail"]
        await desk.emit_one(event())
        assert await told(desk) == ["missing on-grain", "back on-grain"]


async def test_what_waits_outside_may_get_in_before_an_alarm_begins_after_a_start(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with bench(tmp_path / "s.db", triggers=[WATCHED], clock=clock) as desk:
        await desk.emit_one(event())
    await clock.advance(5 * EVERY_S)
    async with bench(tmp_path / "s.db", triggers=[WATCHED], clock=clock) as desk:
        await desk.advance(GRACE_S - 1)
        assert not missing(desk)
        await desk.emit_one(event())
        await desk.advance(GRACE_S + LOOK_S)
        assert await told(desk) == []


async def test_without_any_event_it_counts_from_when_it_was_first_expected_also_over_restarts(tmp_path: Path) -> None:
    clock = VirtualClock()
    for _ in range(3):
        async with bench(tmp_path / "s.db", triggers=[WATCHED], clock=clock) as desk:
            await desk.advance(35)
            assert not missing(desk)
    async with bench(tmp_path / "s.db", triggers=[WATCHED], clock=clock) as desk:
        await desk.advance(GRACE_S)
        assert missing(desk)


@pytest.mark.parametrize("restart", [False, True])
async def test_while_it_is_held_no_alarm_begins_and_afterwards_it_counts_anew(tmp_path: Path, restart: bool) -> None:
    clock, held = VirtualClock(), {"on-grain"}
    path = tmp_path / "s.db"
    async with bench(path, triggers=[WATCHED], clock=clock, held=held.__contains__) as desk:
        await desk.advance(3 * EVERY_S)
        assert not missing(desk)
        assert desk.guards.view_of("on-grain")["expected"]["suspended"]
        if not restart:
            held.clear()
            await desk.advance(EVERY_S - 1)
            assert not missing(desk)
            await desk.advance(2 * LOOK_S)
            assert missing(desk)
    if restart:
        held.clear()
        async with bench(path, triggers=[WATCHED], clock=clock, held=held.__contains__) as desk:
            await desk.advance(EVERY_S - 1)
            assert not missing(desk)
            await desk.advance(2 * LOOK_S)
            assert missing(desk)


async def test_an_alarm_that_has_begun_stays_while_it_is_held(tmp_path: Path) -> None:
    held: set[str] = set()
    async with bench(tmp_path / "s.db", triggers=[WATCHED], held=held.__contains__) as desk:
        await desk.advance(EVERY_S + LOOK_S)
        held.add("on-grain")
        await desk.advance(EVERY_S)
        assert missing(desk)
        await desk.emit_one(event())
        assert await told(desk) == ["missing on-grain", "back on-grain"]


async def test_what_the_filter_drops_and_people_fire_is_no_sign_of_life(tmp_path: Path) -> None:
    kept = trigger(expect_s=EVERY_S, filter="data.n == 1")
    async with bench(tmp_path / "s.db", triggers=[kept]) as desk:
        for _ in range(4):
            await desk.advance(EVERY_S / 3)
            await desk.emit_one(event(data={"n": 2}))
            await desk.intake.fire("on-grain", data={"n": 1})
        assert missing(desk)
        await desk.emit_one(event(data={"n": 1}))
        await desk.settle()
        assert not missing(desk)


async def test_repeats_and_what_is_not_stored_are_no_sign_of_life(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[WATCHED]) as desk:
        await desk.emit_one(event(key="k"))
        await desk.advance(EVERY_S / 2)
        await desk.emit_one(event(key="k"))
        desk.store.write_error = StoreUnavailable("the disk is full")
        with pytest.raises(StoreUnavailable):
            await desk.emit_one(event())
        desk.store.write_error = None
        await desk.advance(EVERY_S / 2 + LOOK_S)
        assert missing(desk)


async def test_a_source_hears_whatever_comes_of_its_events(tmp_path: Path) -> None:
    shared = SharedSource(name="orders", id="mill", on=Listed(), expect_s=EVERY_S)
    made = trigger(shared=shared, filter="data.n == 1")
    async with bench(tmp_path / "s.db", triggers=[made]) as desk:
        await desk.advance(EVERY_S / 2)
        await desk.emit_one(event(data={"n": 2}))
        await desk.advance(EVERY_S - LOOK_S)
        assert not missing(desk)
        await desk.advance(2 * LOOK_S)
        assert await told(desk) == ["missing orders"]
        assert desk.guards.source_view("mill")["expected"]["missing_since"] is not None
        assert desk.guards.view_of("on-grain")["expected"] is None


async def test_due_instants_are_events_too(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger(source="timer:on-grain", expect_s=EVERY_S)]) as desk:
        for number in range(3):
            await desk.advance(EVERY_S / 2)
            due = event("engine.timer", key=f"due {number}")
            firing = Firing(source="timer:on-grain", cursor=str(number), event=due, reason="")
            assert await desk.intake.accept_due([firing]) == [None]
        assert not missing(desk)


async def test_it_waits_for_a_store_that_is_away(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[WATCHED]) as desk:
        await desk.advance(EVERY_S - 1)
        desk.store.write_error = StoreUnavailable("the disk is full")
        await desk.advance(60)
        desk.store.write_error = None
        await desk.advance(60)
        assert (await told(desk), missing(desk)) == (["missing on-grain"], True)


async def test_what_is_expected_no_more_is_forgotten(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with bench(tmp_path / "s.db", triggers=[WATCHED], clock=clock) as desk:
        await desk.advance(EVERY_S + LOOK_S)
    async with bench(tmp_path / "s.db", triggers=[trigger()], clock=clock) as desk:
        assert not missing(desk)
        assert await desk.store.memory("engine:expected", after=None, limit=9) == {}
