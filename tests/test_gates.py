"""Gates and held runs: what is asked before a run starts, and what becomes of those that may not start."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from engine.decide.gates import LATER, PASS, Hold, Pass, Skip, Verdict, bypassed, decided, held_since
from engine.decide.rules import Rule
from engine.events import Event
from engine.runs import HELD_BY_HAND, Run, RunState, Step
from engine.steering import Steering
from engine.store.changes import Hold as HoldRun
from engine.testing import VirtualClock
from engine.triggers import Debounce
from tests.organs import Bench, bench, event, job, trigger
from tests.test_lanes import Lanes

JOBS = [job(), job("sweep")]
RULES = [trigger("a", source="a"), trigger("b", source="b"), trigger("c", source="c", job="sweep")]


class Door:
    """A gate of some triggers, which a test opens and shuts."""

    def __init__(self, *names: str, verdict: Verdict = PASS) -> None:
        self.names = names
        self.verdict: Verdict | Callable[[Run], Verdict] = verdict
        self.asked = 0

    def concerns(self, rule: Rule) -> bool:
        return rule.trigger.name in self.names

    def look(self, run: Run, rule: Rule) -> Verdict:
        self.asked += 1
        return self.verdict(run) if callable(self.verdict) else self.verdict


SHUT = Hold(code="shut", reason="held: the door is shut")


async def made(desk: Bench, source: str, count: int = 1) -> list[str]:
    runs = [run for _ in range(count) for run in (await desk.emit_one(event(), source=source)).runs]
    await desk.settle()
    return runs


async def state(desk: Bench, run_id: str) -> tuple[RunState, str, str]:
    run = await desk.store.run(run_id)
    assert run is not None
    return run.state, run.code, run.reason


async def test_a_run_that_passes_tells_what_its_gate_saw(tmp_path: Path) -> None:
    async with bench(
        tmp_path / "e.db", triggers=RULES, jobs=JOBS, gates=[Door("a", verdict=Pass(seen="ajar"))]
    ) as desk:
        (run_id,) = await made(desk, "a")
        run = await desk.store.run(run_id)
        assert run is not None
        assert run.state is RunState.SUCCEEDED
        assert run.trace[0].reason == "matched: event from a; waits for its turn" or "its turn" in run.trace[0].reason
        assert run.trace[1].reason.endswith("; ajar")


async def test_a_run_that_waited_for_its_time_and_passes_starts_without_a_place_in_the_queue(tmp_path: Path) -> None:
    door = Door("d", verdict=Pass(seen="ajar"))
    gathering = trigger("d", source="d", debounce=Debounce(wait_s=10.0))
    async with bench(tmp_path / "e.db", triggers=[*RULES, gathering], jobs=JOBS, gates=[door], concurrency=1) as desk:
        (first,) = await made(desk, "d")
        await desk.advance(10)
        run = await desk.store.run(first)
        assert run is not None
        assert [step.state.value for step in run.trace] == ["pending", "running", "succeeded"]
        assert run.trace[1].reason.endswith("; ajar")
        door.verdict = SHUT
        (second,) = await made(desk, "d")
        await desk.advance(10)
        assert (await state(desk, second))[:2] == (RunState.HELD, "shut")
        assert desk.dispatch.running == 0


async def test_the_event_of_a_run_that_waits_alone_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gathering = trigger("d", source="d", debounce=Debounce(wait_s=10.0))
    async with bench(tmp_path / "e.db", triggers=[gathering], jobs=JOBS) as desk:
        read: list[str] = []
        run_events = desk.store.run_events

        async def counted(run_id: str) -> tuple[Event, ...]:
            read.append(run_id)
            return await run_events(run_id)

        monkeypatch.setattr(desk.store, "run_events", counted)
        (alone,) = await made(desk, "d")
        await desk.advance(10)
        both = (await made(desk, "d", 2))[0]
        await desk.advance(10)
        assert read == [both]
        assert [len(desk.script.events[name]) for name in (alone, both)] == [1, 2]


async def test_a_held_run_has_no_slot_and_is_in_nobodys_way(tmp_path: Path) -> None:
    door = Door("a", verdict=SHUT)
    async with bench(tmp_path / "e.db", triggers=RULES, jobs=JOBS, gates=[door], concurrency=1) as desk:
        (held,) = await made(desk, "a")
        assert await state(desk, held) == (RunState.HELD, "shut", "held: the door is shut")
        (behind,) = await made(desk, "b")
        assert (await state(desk, behind))[0] is RunState.SUCCEEDED
        assert desk.dispatch.running == 0
        door.verdict = PASS
        desk.gates.changed(["a"])
        await desk.settle()
        run = await desk.store.run(held)
        assert run is not None
        assert [step.state.value for step in run.trace] == ["queued", "held", "queued", "running", "succeeded"]


async def test_a_change_of_another_trigger_wakes_nobody(tmp_path: Path) -> None:
    door = Door("a", "c", verdict=SHUT)
    async with bench(tmp_path / "e.db", triggers=RULES, jobs=JOBS, gates=[door]) as desk:
        (held,) = await made(desk, "a")
        door.verdict = PASS
        desk.gates.changed(["c"])
        await desk.settle()
        assert (await state(desk, held))[0] is RunState.HELD
        assert await desk.gates.anyone_waits(["a"])
        assert not await desk.gates.anyone_waits(["b", "c"])


async def test_a_held_run_is_asked_about_again_when_its_time_has_come(tmp_path: Path) -> None:
    clock = VirtualClock()
    until = clock.now() + timedelta(seconds=90)
    door = Door("a", verdict=Hold(code="shut", reason="held: until noon", until=until))
    async with bench(tmp_path / "e.db", triggers=RULES, jobs=JOBS, gates=[door], clock=clock) as desk:
        (held,) = await made(desk, "a")
        await desk.advance(89)
        assert (await state(desk, held))[0] is RunState.HELD
        door.verdict = Skip(code="over", reason="expired: it was too long", state=RunState.EXPIRED)
        await desk.advance(2)
        assert (await state(desk, held))[0] is RunState.EXPIRED


async def test_held_runs_are_asked_about_again_after_a_restart(tmp_path: Path) -> None:
    door, clock = Door("a", verdict=SHUT), VirtualClock()
    async with bench(tmp_path / "e.db", triggers=RULES, jobs=JOBS, gates=[door], clock=clock) as desk:
        held = await made(desk, "a", 3)
    door.verdict = PASS
    async with bench(tmp_path / "e.db", triggers=RULES, jobs=JOBS, gates=[door], clock=clock) as desk:
        await desk.settle()
        assert [begun[0] for begun in desk.script.begun] == held, "in the order in which they came"


async def test_what_is_held_for_a_gate_that_is_gone_runs_after_a_restart(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with bench(
        tmp_path / "e.db", triggers=RULES, jobs=JOBS, gates=[Door("a", verdict=SHUT)], clock=clock
    ) as desk:
        (held,) = await made(desk, "a")
    async with bench(tmp_path / "e.db", triggers=RULES, jobs=JOBS, clock=clock) as desk:
        await desk.settle()
        assert (await state(desk, held))[0] is RunState.SUCCEEDED


async def test_while_a_gate_finds_out_the_run_stays_queued_and_blocks_nobody(tmp_path: Path) -> None:
    door = Door("a", verdict=LATER)
    async with bench(tmp_path / "e.db", triggers=RULES, jobs=JOBS, gates=[door], concurrency=1) as desk:
        (waits,) = await made(desk, "a")
        (behind,) = await made(desk, "b")
        assert (await state(desk, behind))[0] is RunState.SUCCEEDED
        assert (await state(desk, waits))[0] is RunState.QUEUED
        assert await desk.gates.anyone_waits(["a"])
        door.verdict = PASS
        desk.gates.changed(["a"])
        await desk.settle()
        assert (await state(desk, waits))[0] is RunState.SUCCEEDED


async def test_a_run_that_is_skipped_takes_no_slot(tmp_path: Path) -> None:
    door = Door("a", verdict=Skip(code="closed", reason="skipped: closed"))
    async with bench(tmp_path / "e.db", triggers=RULES, jobs=JOBS, gates=[door]) as desk:
        (run_id,) = await made(desk, "a")
        assert await state(desk, run_id) == (RunState.SKIPPED, "closed", "skipped: closed")
        assert not desk.script.begun


async def test_a_change_while_the_hold_is_being_stored_is_not_missed(tmp_path: Path) -> None:
    door = Door("a", verdict=SHUT)

    def once(run: Run) -> Verdict:
        # It opens right after it has said no.
        door.verdict = PASS
        desk.gates.changed(["a"])
        return SHUT

    async with bench(tmp_path / "e.db", triggers=RULES, jobs=JOBS, gates=[door]) as desk:
        door.verdict = once
        (run_id,) = await made(desk, "a")
        assert (await state(desk, run_id))[0] is RunState.SUCCEEDED


async def test_what_somebody_holds_by_hand_is_not_released_by_a_gate(tmp_path: Path) -> None:
    door = Door("a", verdict=SHUT)
    async with bench(tmp_path / "e.db", triggers=RULES, jobs=JOBS, gates=[door]) as desk:
        (run_id,) = await made(desk, "a")
        step = Step(at=desk.clock.now(), state=RunState.HELD, code=HELD_BY_HAND, reason="held by ann")
        await desk.journal.submit(HoldRun(run=run_id, step=step))
        door.verdict = PASS
        desk.gates.changed(None)
        await desk.settle()
        assert (await state(desk, run_id))[:2] == (RunState.HELD, HELD_BY_HAND)


@pytest.mark.parametrize("count", [700])
async def test_many_held_runs_are_asked_about_page_by_page(tmp_path: Path, count: int) -> None:
    door = Door("a", verdict=SHUT)
    async with bench(tmp_path / "e.db", triggers=RULES, jobs=JOBS, gates=[door], concurrency=2) as desk:
        held = await made(desk, "a", count)
        assert (await desk.store.counts())[RunState.HELD] == count
        assert await desk.store.held_counts() == {"a": count}
        assert len(desk.dispatch._line.front) == len(desk.dispatch._timeline) == len(desk.dispatch._moving) == 0
        door.verdict = PASS
        desk.gates.changed(["a"])
        await desk.settle()
        assert [begun[0] for begun in desk.script.begun] == held


def test_the_first_gate_that_says_no_decides() -> None:
    skip = Skip(code="x", reason="skipped")
    assert decided([Pass(seen="a"), Pass(seen="b"), PASS]) == Pass(seen="a; b")
    assert decided([LATER, SHUT]) is SHUT
    assert decided([PASS, LATER]) is LATER
    assert decided([SHUT, skip]) is SHUT
    assert decided([]) is PASS


async def test_a_run_remembers_what_it_passes_by_and_since_when_it_is_held(tmp_path: Path) -> None:
    door, clock = Door("a", verdict=SHUT), VirtualClock()
    async with bench(tmp_path / "e.db", triggers=RULES, jobs=JOBS, gates=[door], clock=clock) as desk:
        (run_id,) = (await desk.intake.fire("a", bypass=frozenset({"conditions", "pause"}))).runs
        at = clock.now()
        await desk.settle()
        await desk.advance(10)
        door.verdict = Hold(code="shut", reason="held: still", until=clock.now() + timedelta(seconds=60))
        desk.gates.changed(None)
        await desk.settle()
    async with bench(
        tmp_path / "e.db", triggers=RULES, jobs=JOBS, gates=[door], clock=clock, dispatching=False
    ) as desk:
        run = await desk.store.run(run_id)
        assert run is not None
        assert tuple(bypassed(run)) == ("conditions",)
        assert held_since(run, "shut") == at
        assert held_since(run, "other") is None


async def test_a_run_of_a_backfill_is_held_and_goes_on_in_its_lane(tmp_path: Path) -> None:
    door = Door("bake", verdict=LATER)
    async with bench(
        tmp_path / "e.db", triggers=[trigger("bake"), trigger("b", source="b")], gates=[door], concurrency=1
    ) as desk:
        lanes = Lanes(desk)
        late = await lanes.late()
        assert (await state(desk, late))[0] is RunState.QUEUED
        assert not desk.dispatch._line._backfills.waiting, "it keeps nobody from a slot, and counts no time"
        door.verdict = SHUT
        desk.gates.changed(None)
        await desk.settle()
        assert (await state(desk, late))[0] is RunState.HELD
        (live,) = await made(desk, "b")
        assert lanes.going == {live}
        door.verdict = PASS
        desk.gates.changed(None)
        await lanes.end(live)
        assert lanes.going == {late}
        await lanes.end(late)
        assert (await state(desk, late))[0] is RunState.SUCCEEDED


async def test_a_run_may_be_cancelled_while_a_gate_finds_out(tmp_path: Path) -> None:
    door = Door("a", verdict=LATER)
    async with bench(tmp_path / "e.db", triggers=RULES, jobs=JOBS, gates=[door]) as desk:
        (asked,) = await made(desk, "a")
        steering = Steering(
            clock=desk.clock, store=desk.store, journal=desk.journal, hands=desk.dispatch.hands,
            rules=desk.intake._rules, retired={}, ageing_s=60.0, finish=desk.intake.finish,
        )  # fmt: skip
        run = await steering.cancel(asked)
        assert run.state is RunState.CANCELLED, "it does not wait for the answer"
        door.verdict = PASS
        desk.gates.changed(None)
        await desk.settle()
        assert not desk.script.begun
        assert not await desk.gates.anyone_waits(None)
