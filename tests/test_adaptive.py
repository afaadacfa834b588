"""Adaptive intervals at work: ends of runs change timers and sources, durably and with a reason."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.adaptive import ADAPTIVE_SOURCE, Adaptation, Machine, Reading
from engine.errors import Conflict, StoreUnavailable
from engine.events import Accepted, Event
from engine.jobs import Job
from engine.plugin import Outcome, Source, SourceContext
from engine.runs import Run, RunState
from engine.store.base import EventFilter, RunFilter
from engine.store.changes import Accept, Cursor
from engine.testing import VirtualClock
from engine.testing.clock import START
from engine.timers import Timers
from engine.triggers import Adaptive, Mode, Trigger
from plugins.timers.interval import Interval
from tests.organs import Bench, bench, job, trigger

MINUTE = 60.0
ON_FAILURE = Adaptive(min_s=30, max_s=4 * MINUTE, success_rate_min=0.95, hold=1)


class Polled(Source, frozen=True, kw_only=True):
    """A source that could poll; tests call the door for it."""

    every: float = 60.0

    def base_interval(self) -> float:
        return self.every

    async def run(self, context: SourceContext) -> None:
        context.ready()
        await anyio.sleep_forever()


class Factors:
    """Stands for the sources: keeps by how much each is slower."""

    def __init__(self) -> None:
        self.now: dict[str, float] = {}

    def set_factor(self, source_id: str, factor: float) -> None:
        self.now[source_id] = factor


class Work(Bench):
    """A small engine with timers and adaptive intervals."""

    timers: Timers
    factors: Factors
    adaptation: Adaptation

    def interval_s(self, name: str = "sync") -> float:
        view = self.adaptation.view(name)
        assert view is not None
        interval_s: float = view["interval_s"]
        return interval_s

    async def told(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Return the data of the events that tell of intervals, the oldest first."""
        found = await self.store.events(EventFilter(source=ADAPTIVE_SOURCE, type=kind), limit=1000)
        return [{"type": one.event.type, "subject": one.event.subject, **one.event.data} for one in reversed(found)]

    async def dues(self, name: str = "sync") -> list[float]:
        """Return the due instants that were run, in minutes since the start."""
        runs = await self.store.runs(RunFilter(triggers=frozenset({name})), limit=1000)
        assert not [run for run in runs if run.state is RunState.MISSED]
        return [(run.scheduled_for - START).total_seconds() / MINUTE for run in reversed(runs) if run.scheduled_for]


def timed(name: str = "sync", settings: Adaptive | None = ON_FAILURE, every: float = MINUTE, **more: Any) -> Trigger:
    return trigger(name, source=f"timer:{name}", on=Interval(every=every), adaptive=settings, **more)


def polled(name: str = "sync", settings: Adaptive | None = ON_FAILURE, every: float = MINUTE, **more: Any) -> Trigger:
    return trigger(name, source="mill", on=Polled(every=every), adaptive=settings, **more)


@asynccontextmanager
async def adapting(
    path: Path, *triggers: Trigger, clock: VirtualClock | None = None, machine: Machine | None = None, **more: Any
) -> AsyncIterator[Work]:
    given = triggers or (timed(),)
    async with bench(path, triggers=given, clock=clock, **more) as desk:
        work = Work.__new__(Work)
        work.__dict__.update(desk.__dict__)

        async def begin(cursors: Sequence[Cursor]) -> Any:
            return await desk.journal.submit(Accept(entries=(), cursors=tuple(cursors)))

        work.timers = Timers(
            clock=desk.clock, triggers=given, emit=desk.intake.accept_due, begin=begin, look=desk.store.cursor
        )
        work.factors = Factors()
        work.adaptation = Adaptation(
            clock=desk.clock, door=desk.intake, store=desk.store, timers=work.timers, sources=work.factors,
            machine=machine,
        )  # fmt: skip
        desk.hears_ends = work.adaptation
        await work.adaptation.load()
        for each in given:
            work.adaptation.add(each)
        async with anyio.create_task_group() as group:
            await group.start(work.timers.run, await desk.store.cursors("timer:"))
            group.start_soon(work.adaptation.run)
            await work.settle()
            yield work
            group.cancel_scope.cancel()


class Acts:
    """What attempts come to: it can be changed while they go on. `takes_s` is how long each takes."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.fails = False
        self.takes_s = 0.0
        self.outputs: Mapping[str, Any] | None = None

    async def __call__(self, run: Run, _: Job) -> Outcome:
        await self.clock.sleep(self.takes_s)
        if self.fails:
            return Outcome.failed("exit_code", "exited with 1", outputs=self.outputs)
        return Outcome.succeeded("done", outputs=self.outputs)


@asynccontextmanager
async def acting(
    path: Path, *triggers: Trigger, fails: bool = False, takes_s: float = 1.0, **more: Any
) -> AsyncIterator[tuple[Work, Acts]]:
    clock = more.pop("clock", None) or VirtualClock()
    acts = Acts(clock)
    acts.fails, acts.takes_s = fails, takes_s
    async with adapting(path, *triggers, clock=clock, act=acts, **more) as desk:
        yield desk, acts


# Timers


async def test_a_job_that_fails_is_run_ever_more_rarely_and_when_it_succeeds_as_often_as_before(tmp_path: Path) -> None:
    async with acting(tmp_path / "s.db", fails=True) as (desk, acts):
        assert desk.timers.next_at("sync") == START + timedelta(minutes=1)
        await desk.advance(20 * MINUTE)
        assert await desk.dues() == pytest.approx([1, 2.5, 4.75, 8.125, 12.125, 16.125], abs=0.01)  # in whole seconds
        assert desk.interval_s() == 4 * MINUTE
        acts.fails = False
        await desk.advance(16 * MINUTE)
        assert desk.interval_s() == MINUTE
        dues = await desk.dues()
        assert dues[6] == pytest.approx(20.125, abs=0.01)
        assert dues[-1] == int(dues[-1])  # the grid of the configured interval: each full minute
        gaps = [b - a for a, b in pairwise(dues[6:])]
        assert gaps[:2] == pytest.approx([8 / 3, 16 / 9], abs=0.01)
        assert all(0.5 <= gap <= 1.5 for gap in gaps[2:])  # between the two grids
        assert gaps[4:] == pytest.approx([1.0] * len(gaps[4:]))


async def test_a_change_is_an_event_with_both_intervals_the_inputs_and_the_rule(tmp_path: Path) -> None:
    async with acting(tmp_path / "s.db", fails=True) as (desk, _):
        await desk.advance(1.1 * MINUTE)
        assert await desk.told() == [
            {
                "type": "engine.interval.changed", "subject": "sync", "old_s": MINUTE, "new_s": 1.5 * MINUTE,
                "base_s": MINUTE, "rule": "success_rate",
                "reason": "lengthened from 1m to 1m30s: 0% of the runs succeed, at least 95% should",
                "inputs": {"runs": 1, "success_rate": {"value": 0.0, "limit": 0.95}},
            }
        ]  # fmt: skip
        [change] = [
            change
            for change in desk.store.changes
            if isinstance(change, Accept) and change.memory is not None and change.memory.source == ADAPTIVE_SOURCE
        ]
        assert [entry.event.type for entry in change.entries] == ["engine.interval.changed"]
        view = desk.adaptation.whole_view("sync")
        assert (view["last_change"]["old_s"], view["last_change"]["new_s"]) == (MINUTE, 1.5 * MINUTE)
        assert view["why"] == view["changes"][-1]["reason"]
        assert view["inputs"]["runs"] == 0
        assert (view["base_s"], view["min_s"], view["max_s"]) == (MINUTE, 30, 4 * MINUTE)
        assert (view["mode"], view["frozen"]) == ("on", None)


@pytest.mark.parametrize("crash_at_h", [1.2, 2.4, 2.5, 5.0, 9.0])
async def test_a_restart_goes_on_with_the_interval_and_its_instants(tmp_path: Path, crash_at_h: float) -> None:
    async with acting(tmp_path / "whole.db", fails=True) as (desk, _):
        await desk.advance(20 * MINUTE)
        expected = await desk.dues()
    clock = VirtualClock()
    async with acting(tmp_path / "s.db", fails=True, clock=clock) as (desk, _):
        await desk.advance(crash_at_h * MINUTE)
        before = desk.timers.next_at("sync")
    async with acting(tmp_path / "s.db", fails=True, clock=clock) as (desk, _):
        assert desk.timers.next_at("sync") == before
        await desk.advance((20 - crash_at_h) * MINUTE)
        dues = await desk.dues()
        if crash_at_h not in (2.5,):  # the run that was cut off is run again, and its end is another
            assert dues == expected
        gaps = [b - a for a, b in pairwise(dues)]
        assert gaps == sorted(gaps)


async def test_after_a_restart_it_says_what_was_decided_before_it(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with acting(tmp_path / "s.db", clock=clock) as (desk, acts):
        assert desk.adaptation.whole_view("sync")["why"] == "nothing was decided yet"
        acts.fails = True
        await desk.advance(1.5 * MINUTE)
    async with acting(tmp_path / "s.db", clock=clock) as (desk, _):
        view = desk.adaptation.whole_view("sync")
        latest = view["changes"][-1]["reason"]
        assert view["why"] == f"nothing was decided since the trigger was loaded; before that: {latest}"
        await desk.adaptation.act("sync", "freeze", "the audit")
    async with acting(tmp_path / "s.db", clock=clock) as (desk, _):
        assert desk.adaptation.whole_view("sync")["why"] == "it is frozen: the audit"


async def test_an_instant_that_was_missed_while_the_engine_was_away_is_one_of_the_adapted_interval(
    tmp_path: Path,
) -> None:
    clock = VirtualClock()
    async with acting(tmp_path / "s.db", fails=True, clock=clock) as (desk, _):
        await desk.advance(9 * MINUTE)  # at 8.1 minutes it came to four minutes
    await clock.advance(4 * MINUTE)
    async with acting(tmp_path / "s.db", clock=clock) as (desk, _):
        await desk.advance(1)
        assert (await desk.dues())[-1] == pytest.approx(12.125, abs=0.01)


async def test_a_shorter_interval_puts_nothing_off_and_brings_no_burst(tmp_path: Path) -> None:
    settings = Adaptive(min_s=10, max_s=4 * MINUTE, volume="rows", volume_target=100, hold=1)
    async with acting(tmp_path / "s.db", timed(settings=settings)) as (desk, acts):
        acts.outputs, acts.takes_s = {"rows": 1_000_000}, 50
        await desk.advance(1.9 * MINUTE)
        # The run ended 50 seconds after its instant: 40, the new interval, had passed by then.
        assert desk.interval_s() == 40
        assert desk.timers.next_at("sync") == START + timedelta(minutes=2)
        await desk.advance(1.0 * MINUTE)
        dues = await desk.dues()
        assert dues[:2] == [1, 2]
        assert all(b - a >= 0.44 for a, b in pairwise(dues))


async def test_a_change_while_an_instant_is_on_its_way_leaves_that_alone(tmp_path: Path) -> None:
    async with acting(tmp_path / "s.db", fails=True) as (desk, acts):
        acts.takes_s = MINUTE - 0.25
        await desk.advance(2 * MINUTE - 0.75)
        desk.store.hold_answers = gate = anyio.Event()
        await desk.advance(1)  # the run has ended, and so has the minute: both wait for the store
        desk.store.hold_answers = None
        gate.set()
        await desk.advance(1)
        assert (await desk.dues())[:2] == [1, 2]
        next_at = desk.timers.next_at("sync")
        assert next_at is not None
        assert START + timedelta(minutes=3) <= next_at <= START + timedelta(minutes=3.5)


async def test_a_slow_job_and_one_that_is_timed_out_lengthen_it_and_a_quick_failure_does_not_tell_of_quickness(
    tmp_path: Path,
) -> None:
    settings = Adaptive(min_s=10, max_s=4 * MINUTE, duration_max_s=10, hold=1)
    async with acting(tmp_path / "s.db", timed(settings=settings)) as (desk, acts):
        acts.takes_s = 20
        await desk.advance(1.5 * MINUTE)
        assert desk.interval_s() == pytest.approx(MINUTE * 2**0.5, abs=1)
        acts.takes_s, acts.fails = 1, True
        await desk.advance(10 * MINUTE)
        assert desk.interval_s() == pytest.approx(MINUTE * 2**0.5, abs=1)
        acts.fails = False
        await desk.advance(10 * MINUTE)
        assert desk.interval_s() == MINUTE


async def test_a_volume_may_be_text_and_what_is_no_number_tells_nothing(tmp_path: Path) -> None:
    settings = Adaptive(min_s=10, max_s=4 * MINUTE, volume="rows", volume_target=100, hold=1)
    async with acting(tmp_path / "s.db", timed(settings=settings)) as (desk, acts):
        for value in ("many", "nan", True, None, [1], "1e999"):
            acts.outputs = {"rows": value}
            await desk.advance(MINUTE)
        assert desk.interval_s() == MINUTE
        assert desk.adaptation.whole_view("sync")["inputs"]["volume"] == {"value": None, "limit": 100}
        acts.outputs = {"rows": " 10 "}
        await desk.advance(1.5 * MINUTE)
        assert desk.interval_s() == 1.5 * MINUTE


async def test_runs_by_hand_and_runs_that_began_before_the_change_do_not_count(tmp_path: Path) -> None:
    async with acting(tmp_path / "s.db", fails=True, jobs=(job(timeout_s=2 * MINUTE),)) as (desk, acts):
        for _ in range(5):
            await desk.intake.fire("sync")
        await desk.advance(5)
        assert desk.adaptation.whole_view("sync")["inputs"]["runs"] == 0
        acts.takes_s = 1.5 * MINUTE  # the next begins before this one ends
        await desk.advance(2.7 * MINUTE)
        assert len(await desk.told()) == 1
        await desk.advance(1 * MINUTE)
        assert len(await desk.told()) == 1
        assert desk.adaptation.whole_view("sync")["inputs"]["runs"] == 0


# The machine


class Busy:
    """A machine as busy as a test says; `asked` counts."""

    def __init__(self, cpu: float = 0.2) -> None:
        self.cpu = cpu
        self.asked = 0
        self.fault: Exception | None = None

    def __call__(self) -> Reading:
        self.asked += 1
        if self.fault is not None:
            raise self.fault
        return Reading(cpu=self.cpu, memory=0.5, load=0.5)


ON_CPU = Adaptive(min_s=10, max_s=4 * MINUTE, cpu_max=0.85, hold=1)


async def test_a_busy_machine_lengthens_the_interval_and_a_calm_one_lets_it_come_back(tmp_path: Path) -> None:
    busy = Busy(cpu=1.0)
    async with acting(tmp_path / "s.db", timed(settings=ON_CPU), machine=Machine(lambda: busy)) as (desk, _):
        await desk.advance(1.1 * MINUTE)
        [told] = await desk.told()
        assert told["reason"] == "lengthened from 1m to 1m12s: 100% of the CPUs are busy, at most 85% may be"
        busy.cpu = 0.3
        await desk.advance(10 * MINUTE)
        assert desk.interval_s() == MINUTE


async def test_the_machine_is_sampled_only_while_a_trigger_asks_for_it(tmp_path: Path) -> None:
    busy = Busy()
    async with acting(tmp_path / "s.db", machine=Machine(lambda: busy)) as (desk, _):
        await desk.advance(MINUTE)
        assert busy.asked == 0
        desk.adaptation.add(timed("other", ON_CPU))
        await desk.advance(60)
        assert 10 <= busy.asked <= 12


async def test_a_machine_that_can_not_be_read_counts_for_nothing_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    busy = Busy(cpu=1.0)
    busy.fault = PermissionError("/proc/stat")
    async with acting(tmp_path / "s.db", timed(settings=ON_CPU), machine=Machine(lambda: busy)) as (desk, _):
        await desk.advance(3 * MINUTE)
        assert desk.interval_s() == MINUTE
        assert [record.action for record in caplog.records if "machine" in getattr(record, "action", "")] == [  # type: ignore[attr-defined]
            "machine_unreadable"
        ]


def test_a_real_machine_is_read() -> None:
    machine = Machine()
    machine.sample()
    before = machine.reading
    machine.sample()
    reading = machine.reading
    assert before is None
    assert reading is not None
    assert 0 <= reading.cpu <= 1
    assert 0 < reading.memory < 1
    assert reading.load >= 0


# Shadow, freeze, reset


async def test_in_shadow_mode_it_is_only_said_what_would_be_done_and_once(tmp_path: Path) -> None:
    settings = Adaptive(min_s=10, max_s=4 * MINUTE, success_rate_min=0.95, hold=1, mode=Mode.SHADOW)
    async with acting(tmp_path / "s.db", timed(settings=settings), fails=True) as (desk, acts):
        await desk.advance(4.5 * MINUTE)
        assert await desk.dues() == [1, 2, 3, 4]
        [told] = await desk.told()
        assert (told["type"], told["old_s"], told["new_s"]) == ("engine.interval.proposed", MINUTE, 1.5 * MINUTE)
        view = desk.adaptation.whole_view("sync")
        assert (view["mode"], view["interval_s"], len(view["changes"])) == ("shadow", MINUTE, 1)
        acts.fails = False
        await desk.advance(3 * MINUTE)
        acts.fails = True
        await desk.advance(3 * MINUTE)
        assert len(await desk.told()) == 2


async def test_what_is_frozen_stays_over_a_restart_until_it_is_unfrozen(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with acting(tmp_path / "s.db", fails=True, clock=clock) as (desk, _):
        await desk.advance(1.5 * MINUTE)
        await desk.adaptation.act("sync", "freeze", "the audit")
        await desk.advance(5 * MINUTE)
        assert desk.interval_s() == 1.5 * MINUTE
    async with acting(tmp_path / "s.db", fails=True, clock=clock) as (desk, _):
        await desk.advance(5 * MINUTE)
        view = desk.adaptation.whole_view("sync")
        assert (view["interval_s"], view["frozen"]["reason"]) == (1.5 * MINUTE, "the audit")
        await desk.adaptation.act("sync", "unfreeze", "it is over")
        assert desk.adaptation.whole_view("sync")["why"] == "it is adapted again: it is over"
        await desk.advance(5 * MINUTE)
        assert desk.interval_s() > 1.5 * MINUTE
        kinds = [told["type"].rpartition(".")[2] for told in await desk.told()]
        assert kinds[:4] == ["changed", "frozen", "unfrozen", "changed"]
        await desk.adaptation.act("sync", "unfreeze", "again")
        assert [told["type"].rpartition(".")[2] for told in await desk.told()].count("unfrozen") == 1


async def test_a_reset_goes_back_to_the_configured_interval_at_once_and_on_its_own_grid(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with acting(tmp_path / "s.db", fails=True, clock=clock) as (desk, acts):
        await desk.advance(9 * MINUTE)
        assert desk.interval_s() == 4 * MINUTE
        acts.fails = False
        await desk.adaptation.act("sync", "reset", "repaired")
        assert desk.interval_s() == MINUTE
        told = (await desk.told())[-1]
        assert (told["rule"], told["new_s"], told["reason"]) == (
            "reset",
            MINUTE,
            "reset to the configured 1m: repaired",
        )
        assert desk.timers.next_at("sync") == START + timedelta(minutes=10)
    async with acting(tmp_path / "s.db", clock=clock) as (desk, _):
        await desk.advance(3.5 * MINUTE)
        assert (await desk.dues())[-3:] == [10, 11, 12]


async def test_a_reset_leaves_what_is_frozen_so_and_in_shadow_mode_forgets_what_was_seen(tmp_path: Path) -> None:
    shadow = Adaptive(min_s=10, max_s=4 * MINUTE, success_rate_min=0.95, hold=3, mode=Mode.SHADOW)
    async with acting(tmp_path / "s.db", timed(), timed("shadow", shadow), fails=True) as (desk, _):
        await desk.advance(1.5 * MINUTE)
        await desk.adaptation.act("sync", "freeze", "")
        for name in ("sync", "shadow"):
            await desk.adaptation.act(name, "reset", "")
            view = desk.adaptation.whole_view(name)
            assert (view["interval_s"], view["inputs"]["runs"], view["why"]) == (
                MINUTE,
                0,
                "reset to the configured 1m",
            )
            assert (view["frozen"] is not None) == (name == "sync")
        assert desk.timers.next_at("shadow") == START + timedelta(minutes=2)
        await desk.advance(5 * MINUTE)
        assert (await desk.dues("shadow"))[-1] == 6


async def test_two_who_ask_at_the_same_time_are_heard_one_after_the_other(tmp_path: Path) -> None:
    async with acting(tmp_path / "s.db", fails=True) as (desk, _):
        await desk.advance(1.1 * MINUTE)
        async with anyio.create_task_group() as group:
            for action in ("freeze", "reset", "unfreeze", "freeze"):
                group.start_soon(desk.adaptation.act, "sync", action, action)
        view = desk.adaptation.whole_view("sync")
        assert (view["interval_s"], view["frozen"]["reason"]) == (MINUTE, "freeze")
        told = await desk.told()
        assert [each["reason"].split()[0] for each in told[1:]] == ["freeze", "reset", "unfreeze", "freeze"]


async def test_what_is_not_adaptive_can_not_be_frozen(tmp_path: Path) -> None:
    async with acting(tmp_path / "s.db", timed(settings=None)) as (desk, _):
        assert desk.adaptation.view("sync") is None
        with pytest.raises(Conflict, match="is not adaptive"):
            await desk.adaptation.act("sync", "freeze", "")


# What goes wrong


async def test_what_can_not_be_recorded_is_not_done_and_is_tried_again_at_the_next_end(tmp_path: Path) -> None:
    class Away:
        """A door that refuses what tells of intervals."""

        def __init__(self, desk: Work) -> None:
            self.desk, self.away = desk, True

        async def accept(self, source: str, events: Sequence[Event], *, remember: Any = None) -> list[Accepted]:
            if self.away:
                raise StoreUnavailable("the disk is full")
            return await self.desk.intake.accept(source, events, remember=remember)

    async with acting(tmp_path / "s.db", fails=True) as (desk, _):
        desk.adaptation._door = door = Away(desk)
        await desk.advance(2.5 * MINUTE)
        assert await desk.dues() == [1, 2]
        assert desk.interval_s() == MINUTE
        assert "the disk is full" in desk.adaptation.whole_view("sync")["why"]
        with pytest.raises(StoreUnavailable):
            await desk.adaptation.act("sync", "freeze", "")
        assert desk.adaptation.whole_view("sync")["frozen"] is None
        door.away = False
        await desk.advance(MINUTE)
        assert desk.interval_s() == 1.5 * MINUTE
        assert len(await desk.told()) == 1


@pytest.mark.parametrize(
    "changed",
    [
        timed(every=2 * MINUTE),
        timed(settings=None),
        timed(settings=Adaptive(min_s=1, max_s=4 * MINUTE, success_rate_min=0.95, hold=1, mode=Mode.SHADOW)),
    ],
    ids=["interval", "no more", "shadow"],
)
async def test_another_configured_interval_or_mode_begins_anew(tmp_path: Path, changed: Trigger) -> None:
    clock = VirtualClock()
    async with acting(tmp_path / "s.db", fails=True, clock=clock) as (desk, _):
        await desk.advance(5 * MINUTE)
        assert desk.interval_s() > MINUTE
    async with acting(tmp_path / "s.db", changed, clock=clock) as (desk, _):
        assert desk.timers.next_at("sync") == START + timedelta(minutes=6)


async def test_new_bounds_hold_for_an_interval_that_was_kept(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with acting(tmp_path / "s.db", fails=True, clock=clock) as (desk, _):
        await desk.advance(9 * MINUTE)
    narrow = Adaptive(min_s=30, max_s=2 * MINUTE, success_rate_min=0.95, hold=1)
    async with acting(tmp_path / "s.db", timed(settings=narrow), clock=clock) as (desk, _):
        assert desk.interval_s() == 2 * MINUTE


async def test_a_memory_that_can_not_be_read_is_told_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench(tmp_path / "s.db") as desk:
        await desk.intake.accept(ADAPTIVE_SOURCE, (), remember={"sync": {"base_s": "an hour"}})
    async with acting(tmp_path / "s.db") as (desk, _):
        assert desk.interval_s() == MINUTE
        assert "interval_unread" in {getattr(record, "action", "") for record in caplog.records}


async def test_a_trigger_that_is_removed_is_forgotten(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with acting(tmp_path / "s.db", fails=True, clock=clock) as (desk, _):
        await desk.advance(1.5 * MINUTE)
        change = desk.adaptation.forgetting("sync")
        assert change is not None
        await desk.journal.submit(change)
        desk.adaptation.forget("sync")
        assert desk.adaptation.view("sync") is None
        assert desk.adaptation.forgetting("sync") is None
    async with acting(tmp_path / "s.db", clock=clock) as (desk, _):
        assert desk.interval_s() == MINUTE


# Sources that poll


async def events(desk: Work, count: int = 1) -> None:
    for _ in range(count):
        await desk.emit(Event(type="grain.ground"))
        await desk.advance(120)


async def test_a_polling_source_looks_less_often_when_what_it_brings_fails(tmp_path: Path) -> None:
    async with acting(tmp_path / "s.db", polled(every=60.0, settings=SECONDS), fails=True, takes_s=60.0) as (
        desk,
        acts,
    ):
        assert desk.factors.now == {"mill": 1.0}
        await events(desk, 2)
        assert desk.factors.now["mill"] == pytest.approx(1.5**2)
        view = desk.adaptation.view("sync")
        assert view is not None
        assert (view["interval_s"], view["in_force_s"]) == (135.0, 135.0)
        acts.fails = False
        await desk.advance(300)
        await events(desk, 12)
        assert desk.factors.now["mill"] == 1.0


SECONDS = Adaptive(min_s=30.0, max_s=240.0, success_rate_min=0.95, hold=1)


async def test_many_runs_at_once_are_one_step(tmp_path: Path) -> None:
    async with acting(tmp_path / "s.db", polled(every=60.0, settings=SECONDS), fails=True, concurrency=100) as (
        desk,
        _,
    ):
        await desk.advance(61)
        await desk.emit(*[Event(type="grain.ground") for _ in range(50)])
        await desk.advance(5)
        assert len(await desk.told()) == 1


async def test_of_several_triggers_on_a_source_the_shortest_interval_that_is_wanted_counts(tmp_path: Path) -> None:
    triggers = (polled("a", every=60.0, settings=SECONDS), polled("b", every=60.0, settings=None, filter="false"))
    async with acting(tmp_path / "s.db", *triggers, fails=True, takes_s=60.0) as (desk, _):
        await events(desk, 2)
        view = desk.adaptation.view("a")
        assert view is not None
        assert (view["interval_s"], view["in_force_s"]) == (135.0, 60.0)
        assert desk.factors.now == {"mill": 1.0}
        desk.adaptation.forget("b")
        assert desk.factors.now["mill"] == pytest.approx(2.25)
        desk.adaptation.forget("a")


async def test_a_source_that_falls_quiet_comes_back_by_itself_but_not_while_a_run_of_it_is_open(tmp_path: Path) -> None:
    async with acting(tmp_path / "s.db", polled(every=60.0, settings=SECONDS), fails=True, takes_s=60.0) as (
        desk,
        acts,
    ):
        await events(desk, 2)
        acts.takes_s = 2000
        await desk.emit(Event(type="grain.ground"))
        await desk.advance(1900)
        assert desk.interval_s() == 135.0
        acts.fails = False
        await desk.advance(2000)
        assert desk.interval_s() == 60.0
        assert desk.factors.now == {"mill": 1.0}
        assert any("nothing came for" in told["reason"] for told in await desk.told())


async def test_a_restart_goes_on_with_the_pace_of_a_source(tmp_path: Path) -> None:
    clock = VirtualClock()
    triggers = (polled(every=60.0, settings=SECONDS),)
    async with acting(tmp_path / "s.db", *triggers, fails=True, takes_s=60.0, clock=clock) as (desk, _):
        await events(desk, 2)
    async with acting(tmp_path / "s.db", *triggers, clock=clock) as (desk, _):
        assert desk.factors.now["mill"] == pytest.approx(2.25)
