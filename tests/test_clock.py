"""Time: the machine's, and the one that stands still until it is told to go on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from hypothesis import given
from hypothesis import strategies as st

from engine.clock import (
    EPOCH,
    LONGEST_SLEEP_S,
    Clock,
    SystemClock,
    from_microseconds,
    rfc3339,
    sleep_until,
    to_microseconds,
)
from engine.testing import VirtualClock

NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
INSTANTS = st.datetimes(datetime(1901, 1, 1), datetime(9998, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))  # noqa: DTZ001 - the zone is added


async def test_the_system_clock_tells_utc_and_sleeps_what_it_is_told() -> None:
    clock = SystemClock()
    assert clock.now().tzinfo is UTC
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=5)
    before = clock.monotonic()
    await clock.sleep(0.01)
    assert clock.monotonic() - before >= 0.009


@pytest.mark.parametrize("clock", [SystemClock(), VirtualClock()], ids=["system", "virtual"])
@pytest.mark.parametrize("seconds", [0.0, -1.0])
async def test_sleeping_for_nothing_gives_others_a_turn(clock: Clock, seconds: float) -> None:
    turns = []

    async def other() -> None:
        turns.append("other")

    async with anyio.create_task_group() as group:
        group.start_soon(other)
        while not turns:
            await clock.sleep(seconds)


@given(INSTANTS)
def test_instants_survive_being_kept_as_microseconds(at: datetime) -> None:
    assert from_microseconds(to_microseconds(at)) == at


@given(INSTANTS, INSTANTS)
def test_microseconds_keep_the_order_of_instants(one: datetime, other: datetime) -> None:
    assert (to_microseconds(one) < to_microseconds(other)) == (one < other)


def test_microseconds_count_from_1970_in_utc_whatever_the_zone() -> None:
    assert to_microseconds(EPOCH) == 0
    assert to_microseconds(EPOCH - timedelta(microseconds=1)) == -1
    local = NOON.astimezone(timezone(timedelta(hours=-7)))
    assert to_microseconds(local) == to_microseconds(NOON)
    assert from_microseconds(1).tzinfo is UTC


@given(INSTANTS)
def test_rfc_3339_text_is_read_back_as_the_same_instant(at: datetime) -> None:
    text = rfc3339(at)
    assert text.endswith("Z")
    assert datetime.fromisoformat(text) == at


def test_rfc_3339_is_written_in_utc_with_what_the_instant_has() -> None:
    assert rfc3339(NOON) == "2026-01-05T12:00:00Z"
    assert rfc3339(NOON + timedelta(microseconds=5)) == "2026-01-05T12:00:00.000005Z"
    assert rfc3339(NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))) == "2026-01-05T12:00:00Z"


# The virtual clock


async def test_virtual_time_stands_still_until_it_is_advanced() -> None:
    clock = VirtualClock(NOON)
    await anyio.sleep(0.01)
    assert (clock.now(), clock.monotonic()) == (NOON, 0.0)
    await clock.advance(90.5)
    assert (clock.now(), clock.monotonic()) == (NOON + timedelta(seconds=90.5), 90.5)


async def test_each_sleeper_wakes_at_its_own_time_and_order() -> None:
    clock = VirtualClock(NOON)
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, *naps: float) -> None:
        for seconds in naps:
            await clock.sleep(seconds)
            woken.append((name, clock.monotonic()))

    async with anyio.create_task_group() as group:
        group.start_soon(sleeper, "slow", 10.0)
        group.start_soon(sleeper, "often", 3.0, 3.0, 3.0, 3.0)
        group.start_soon(sleeper, "also", 10.0)
        await clock.advance(2.9)
        assert woken == []
        await clock.advance(7.1)
        assert woken == [("often", 3.0), ("often", 6.0), ("often", 9.0), ("slow", 10.0), ("also", 10.0)]
        await clock.advance(2.0)
        assert woken[-1] == ("often", 12.0)


async def test_a_cancelled_sleeper_leaves_nothing_behind() -> None:
    clock = VirtualClock(NOON)
    with anyio.move_on_after(0.01):
        await clock.sleep(5.0)
    async with anyio.create_task_group() as group:
        group.start_soon(clock.sleep, 5.0)
        await clock.advance(5.0)
    assert clock.monotonic() == 5.0
    assert clock._sleepers == []


async def test_a_step_moves_the_wall_clock_alone_and_wakes_nobody() -> None:
    clock = VirtualClock(NOON)
    woken = anyio.Event()

    async def sleeper() -> None:
        await clock.sleep(60.0)
        woken.set()

    async with anyio.create_task_group() as group:
        group.start_soon(sleeper)
        await wait_all_tasks_blocked()
        clock.step(7200)
        assert (clock.now(), clock.monotonic()) == (NOON + timedelta(hours=2), 0.0)
        await clock.advance(59.0)
        assert not woken.is_set()
        clock.step(-10_800)
        assert clock.now() == NOON - timedelta(hours=1) + timedelta(seconds=59)
        await clock.advance(1.0)
        assert woken.is_set()


async def _woken_after(clock: VirtualClock, at: datetime, *, step_s: float = 0.0, after_s: float = 0.0) -> float:
    """Return after how many seconds of monotonic time a sleeper until `at` wakes; the wall clock steps meanwhile."""
    woken: list[float] = []

    async def sleeper() -> None:
        await sleep_until(clock, at)
        woken.append(clock.monotonic())

    async with anyio.create_task_group() as group:
        group.start_soon(sleeper)
        await clock.advance(after_s)
        clock.step(step_s)
        while not woken:
            await clock.advance(0.5)
    return woken[0]


async def test_sleeping_until_an_instant_ends_at_that_instant() -> None:
    assert await _woken_after(VirtualClock(NOON), NOON + timedelta(seconds=100)) == 100.0
    assert await _woken_after(VirtualClock(NOON), NOON) == 0.0
    assert await _woken_after(VirtualClock(NOON), NOON - timedelta(days=1)) == 0.0


async def test_a_step_forward_past_the_instant_is_noticed_within_the_longest_sleep() -> None:
    hour = NOON + timedelta(hours=1)
    woken = await _woken_after(VirtualClock(NOON), hour, step_s=7200, after_s=10)
    assert 10 <= woken <= 10 + LONGEST_SLEEP_S


async def test_a_step_back_is_slept_through_again() -> None:
    woken = await _woken_after(VirtualClock(NOON), NOON + timedelta(seconds=100), step_s=-50, after_s=60)
    assert woken == 150.0
