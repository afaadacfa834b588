"""The throttle where runs are released late: what waits behind them keeps its distance, and nothing comes in a heap."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from engine.errors import StoreUnavailable
from engine.events import Accepted
from engine.runs import RunState
from engine.testing import VirtualClock
from engine.triggers import Batch, Rate
from tests.organs import Bench, bench, event, trigger

pytestmark = pytest.mark.anyio

SLOWLY = Rate(limit=1, per_s=10.0, burst=1)


def began(desk: Bench) -> list[float]:
    """Return when runs began, in seconds after the first of them, rounded to what commits take."""
    first = desk.script.begun[0][2]
    return [round((at - first).total_seconds(), 1) for _, _, at in desk.script.begun]


def runs(answers: list[Accepted]) -> list[str]:
    return [answer.runs[0] for answer in answers]


async def away(desk: Bench, seconds: float, *, reads: bool = False) -> None:
    """Let the store take no change, and answer nothing, for so long."""
    desk.store.write_error = StoreUnavailable("the disk is full")
    desk.store.read_error = StoreUnavailable("the disk is away") if reads else None
    await desk.advance(seconds)
    desk.store.write_error = desk.store.read_error = None


@pytest.mark.parametrize("reads", [False, True])
async def test_runs_that_were_due_while_the_store_was_away_do_not_start_in_a_heap(tmp_path: Path, reads: bool) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger(throttle=SLOWLY)]) as desk:
        answers = await desk.emit(*(event(data={"n": n}) for n in range(6)))
        await desk.advance(5)
        await away(desk, 40, reads=reads)
        assert began(desk) == [0]
        await desk.advance(60)
        assert [run for run, _, _ in desk.script.begun] == runs(answers)
        late, *rest = began(desk)[1:]
        assert 45 <= late <= 51  # the journal looks every five seconds whether the store is back
        assert [at - late for at in rest] == pytest.approx([10, 20, 30, 40], abs=0.1)


async def test_what_is_put_off_is_stored_as_due_when_it_will_be(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger(throttle=SLOWLY)]) as desk:
        answers = await desk.emit(*(event(data={"n": n}) for n in range(4)))
        await away(desk, 40)
        await desk.advance(8)
        waiting = [await desk.run_of(run) for run in runs(answers)[2:]]
        assert [run.state for run in waiting] == [RunState.PENDING] * 2
        due = [run.due_at for run in waiting]
        await desk.advance(60)
        assert due == [at for *_, at in desk.script.begun[2:]]


async def test_an_event_that_comes_then_has_its_place_behind_those_that_were_put_off(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger(throttle=SLOWLY)]) as desk:
        answers = await desk.emit(*(event(data={"n": n}) for n in range(4)))
        await away(desk, 60)
        await desk.advance(6)
        last = await desk.emit_one(event(data={"n": 9}))
        await desk.advance(80)
        assert [run for run, _, _ in desk.script.begun] == [*runs(answers), *last.runs]
        late, *rest = began(desk)[1:]
        assert [at - late for at in rest] == pytest.approx([10, 20, 30], abs=0.1)


async def test_setting_the_clock_forward_lets_no_heap_start(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with bench(tmp_path / "s.db", triggers=[trigger(throttle=SLOWLY)], clock=clock) as desk:
        await desk.emit(*(event(data={"n": n}) for n in range(5)))
        await desk.advance(1)
        clock.step(3600)
        await desk.advance(60)
        first, *rest = began(desk)[1:]
        assert [at - first for at in rest] == pytest.approx([10, 20, 30], abs=0.1)


async def test_other_keys_are_not_put_off(tmp_path: Path) -> None:
    shaped = trigger(throttle=Rate(limit=1, per_s=30.0, burst=1, key="data.mill"))
    async with bench(tmp_path / "s.db", triggers=[shaped]) as desk:
        await desk.emit(*(event(data={"mill": mill}) for mill in "aaa"))
        await desk.advance(25)
        await desk.emit(*(event(data={"mill": mill}) for mill in "bb"))
        await away(desk, 20)
        await desk.advance(80)
        # a: 0, then late at 45 to 50, and 30 behind that; b: 25 and 55, as it was planned.
        assert 25 in began(desk)
        assert 55 in began(desk)
        assert len(began(desk)) == 5


async def test_what_gathered_meanwhile_is_put_off_too(tmp_path: Path) -> None:
    shaped = trigger(batch=Batch(size=10, wait_s=3.0), throttle=SLOWLY)
    async with bench(tmp_path / "s.db", triggers=[shaped]) as desk:
        for n in range(4):
            await desk.emit(event(data={"n": n}))
            await desk.advance(3.5)
        await away(desk, 30)
        await desk.advance(60)
        at = began(desk)
        assert len(at) == 4
        assert all(later - earlier >= 9.9 for earlier, later in pairwise(at))


async def test_a_release_that_is_late_by_less_than_a_second_moves_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger(throttle=SLOWLY)]) as desk:
        answers = await desk.emit(*(event(data={"n": n}) for n in range(3)))
        planned = (await desk.run_of(runs(answers)[2])).due_at
        await desk.advance(9.9)
        await away(desk, 0.3)
        await desk.advance(5)
        assert len(desk.script.begun) == 2
        assert (await desk.run_of(runs(answers)[2])).due_at == planned
