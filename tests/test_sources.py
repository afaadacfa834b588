"""Sources: each is run, restarted and known, and none harms another."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.errors import Conflict, InvalidEvent, PluginError, StoreDamaged, StoreUnavailable
from engine.events import Accepted, Event
from engine.jobs import Job
from engine.plugin import Outcome, Request, Response, Settled, Source, SourceContext
from engine.runs import Run
from engine.settling import Changes, Settling
from engine.sources import Routes, Sources, SourceState, Trouble
from engine.sources.supervisor import FIRST_PAUSE_S, LONGEST_PAUSE_S, STEADY_S
from engine.testing import VirtualClock
from engine.testing.clock import START
from tests.fakes import until
from tests.organs import Bench, bench, event, trigger

Act = Callable[[SourceContext], Awaitable[None]]


class Acts(Source, frozen=True, kw_only=True):
    """A source that does what the test says."""

    name = "acts"
    act: Act

    async def run(self, context: SourceContext) -> None:
        await self.act(context)


class FakeDoor:
    """Takes events, or raises what it is told to."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, tuple[Event, ...], Any]] = []
        self.rejected: list[tuple[str, Event, str]] = []
        self.error: Exception | None = None

    async def accept(
        self, source: str, events: Sequence[Event], *, cursor: Any = None, remember: Mapping[str, Any] | None = None
    ) -> list[Accepted]:
        if self.error is not None:
            raise self.error
        self.taken.append((source, tuple(events), cursor))
        return [Accepted(event=str(number)) for number, _ in enumerate(events)]

    async def reject(self, source: str, event: Event, reason: str) -> Accepted:
        self.rejected.append((source, event, reason))
        return Accepted(event="rejected")

    def as_stored(self, source: str, event: Event) -> Event:
        return event


class Yard:
    """Sources at work under a virtual clock."""

    def __init__(self, acts: dict[str, Act], path: Path) -> None:
        self.clock = VirtualClock()
        self.door = FakeDoor()
        self.routes = Routes()
        self.cursors: dict[str, Any] = {}
        self.remembered: dict[str, dict[str, Any]] = {}
        self.ends: dict[str, Settled] = {}
        self.readiness: list[list[str]] = []
        self.sources = Sources(
            clock=self.clock, sources=[(name, Acts(act=act)) for name, act in acts.items()], door=self.door,
            memory=self, base=path, files=path / "files", max_data=1000, routes=self.routes,
            on_change=lambda: self.readiness.append(self.sources.not_ready()),
        )  # fmt: skip
        self.ended = False

    async def cursor(self, source: str) -> Any:
        return self.cursors.get(source)

    async def memory(self, source: str, *, after: str | None, limit: int) -> dict[str, Any]:
        values = sorted(self.remembered.get(source, {}).items())
        return dict([item for item in values if after is None or item[0] > after][:limit])

    async def settled(self, run_ids: Sequence[str], within_s: float | None = None) -> tuple[Settled, ...]:
        return tuple(self.ends[run_id] for run_id in run_ids if run_id in self.ends)

    async def event(self, event_id: str) -> Event | None:
        return None

    async def run(self) -> None:
        await self.sources.run()
        self.ended = True

    def state(self, name: str) -> SourceState:
        [state] = [state for state in self.sources.states if state.id == name]
        return state


@asynccontextmanager
async def yard(path: Path, **acts: Act) -> AsyncIterator[Yard]:
    made = Yard(acts, path)
    async with anyio.create_task_group() as group:
        group.start_soon(made.run)
        await anyio.wait_all_tasks_blocked()
        yield made
        group.cancel_scope.cancel()


async def receives(context: SourceContext) -> None:
    context.ready()
    await anyio.sleep_forever()


async def hangs(context: SourceContext) -> None:
    await anyio.sleep_forever()


def raising(error: BaseException, times: list[float] | None = None, *, ready: bool = False) -> Act:
    async def act(context: SourceContext) -> None:
        if times is not None:
            times.append(context.clock.monotonic())
        if ready:
            context.ready()
        raise error

    return act


# Readiness and state


async def test_the_sources_are_ready_when_all_of_them_say_so(tmp_path: Path) -> None:
    gate = anyio.Event()

    async def late(context: SourceContext) -> None:
        await gate.wait()
        context.ready()
        await anyio.sleep_forever()

    async with yard(tmp_path, early=receives, late=late) as at_work:
        assert at_work.sources.not_ready() == ["source late is starting"]
        assert at_work.readiness == [["source late is starting"]]
        gate.set()
        await anyio.wait_all_tasks_blocked()
        assert at_work.sources.not_ready() == []
        assert at_work.readiness[-1] == []
        assert at_work.state("late").view() == {
            "name": "late", "plugin": "acts", "state": "running", "since": "2026-01-05T12:00:00Z", "error": None,
            "warning": None, "restarts": 0, "events": 0, "duplicates": 0, "rejected": 0, "refused": 0,
            "refused_requests": None, "pushed_back": 0, "emitting": 0, "waited_s": 0.0, "lag_s": None,
            "last_event_at": None, "last_error": None, "last_error_at": None,
        }  # fmt: skip


async def test_each_source_is_waited_for_until_it_had_its_chance(tmp_path: Path) -> None:
    gate = anyio.Event()

    async def late(context: SourceContext) -> None:
        await gate.wait()
        raise RuntimeError("no route to host")

    async with yard(tmp_path, good=receives, late=late) as at_work:
        assert at_work.sources.awaited() == ["source late is starting"]
        gate.set()
        await until(lambda: at_work.state("late").state == "failed")
        assert at_work.sources.awaited() == []
        assert at_work.readiness[-1] == ["source late failed: RuntimeError: no route to host"]
        await at_work.clock.advance(600)
        assert at_work.sources.awaited() == []


async def test_one_that_still_emits_what_it_found_keeps_others_waiting_for_a_time_alone(tmp_path: Path) -> None:
    async def busy(context: SourceContext) -> None:
        async for _ in context.every(10):
            await context.emit(event())

    async with yard(tmp_path, busy=busy) as at_work:
        await at_work.clock.advance(Source.ready_within_s - 1)
        assert at_work.sources.awaited() == ["source busy is starting"]
        await at_work.clock.advance(2)
        assert at_work.sources.awaited() == []
        assert at_work.sources.not_ready() == ["source busy is starting"]


async def test_one_that_comes_later_or_is_started_again_is_not_waited_for(tmp_path: Path) -> None:
    gate = anyio.Event()

    async def once(context: SourceContext) -> None:
        if not gate.is_set():
            context.ready()
            await gate.wait()
            raise RuntimeError("gone")
        await anyio.sleep_forever()

    async with yard(tmp_path, once=once) as at_work:
        at_work.sources.add("new", Acts(act=hangs))
        gate.set()
        await until(lambda: at_work.state("once").state == "failed")
        await at_work.clock.advance(2 * FIRST_PAUSE_S)
        assert len(at_work.sources.not_ready()) == 2
        assert at_work.sources.awaited() == []


async def test_a_path_may_be_that_of_a_source_that_had_it_or_has_never_run(tmp_path: Path) -> None:
    gate = anyio.Event()

    async def asked(context: SourceContext) -> None:
        context.route("POST", "/hooks/mine", answers)
        context.ready()
        await gate.wait()
        raise RuntimeError("gone")

    async with yard(tmp_path, asked=asked) as at_work:
        assert not at_work.sources.may_answer("/hooks/other")
        gate.set()
        await until(lambda: at_work.state("asked").state == "failed")
        assert at_work.routes.find("POST", "/hooks/mine") is None
        assert at_work.sources.may_answer("/hooks/mine")
        assert not at_work.sources.may_answer("/hooks/other")
        at_work.sources.add("new", Acts(act=hangs))
        assert at_work.sources.may_answer("/hooks/other")
        await at_work.sources.remove("new")
        assert not at_work.sources.may_answer("/hooks/other")


async def test_what_a_source_warns_of_is_shown_until_it_is_over_or_the_source_starts_again(tmp_path: Path) -> None:
    gate, again = anyio.Event(), anyio.Event()

    async def warns(context: SourceContext) -> None:
        context.ready()
        context.warn("the directory is missing")
        await gate.wait()
        context.warn(None)
        await again.wait()
        context.warn("the directory is missing again")
        raise RuntimeError("no more")

    async with yard(tmp_path, warns=warns) as at_work:
        await anyio.wait_all_tasks_blocked()
        assert at_work.sources.warnings() == ["source warns: the directory is missing"]
        assert at_work.state("warns").view()["warning"] == "the directory is missing"
        assert at_work.sources.not_ready() == []
        gate.set()
        await anyio.wait_all_tasks_blocked()
        assert at_work.sources.warnings() == []
        again.set()
        await until(lambda: at_work.state("warns").state == "failed")
        assert at_work.sources.warnings() == []


async def test_a_source_has_its_cursor_its_name_and_its_base(tmp_path: Path) -> None:
    seen: list[Any] = []

    async def act(context: SourceContext) -> None:
        seen.extend([context.name, await context.cursor(), context.base, context.max_data])
        await receives(context)

    made = Yard({"rows": act}, tmp_path)
    made.cursors["rows"] = {"row": 7}
    async with anyio.create_task_group() as group:
        group.start_soon(made.run)
        await anyio.wait_all_tasks_blocked()
        assert seen == ["rows", {"row": 7}, tmp_path, 1000]
        group.cancel_scope.cancel()


# Restarts


async def test_what_raises_is_started_again_after_pauses_that_grow_to_a_bound(tmp_path: Path) -> None:
    times: list[float] = []
    async with yard(tmp_path, bad=raising(RuntimeError("no route to host"), times)) as at_work:
        state = at_work.state("bad")
        assert (state.state, state.error, state.restarts) == ("failed", "RuntimeError: no route to host", 1)
        assert at_work.sources.not_ready() == ["source bad failed: RuntimeError: no route to host"]
        await at_work.clock.advance(500)
        pauses = [later - earlier for earlier, later in pairwise(times)]
        expected = [min(FIRST_PAUSE_S * 2**number, LONGEST_PAUSE_S) for number in range(len(pauses))]
        assert len(pauses) >= 10
        for pause, nominal in zip(pauses, expected, strict=True):
            assert 0.8 * nominal - 1e-9 <= pause <= 1.2 * nominal + 1e-9
        assert len(set(pauses[7:])) > 1, "restarts are not spread"


async def test_a_source_that_ran_steadily_begins_with_short_pauses_again(tmp_path: Path) -> None:
    times: list[float] = []

    async def act(context: SourceContext) -> None:
        times.append(context.clock.monotonic())
        context.ready()
        if len(times) >= 7:
            await context.clock.sleep(STEADY_S + 1)
        raise RuntimeError("lost")

    async with yard(tmp_path, wavers=act) as at_work:
        await at_work.clock.advance(2000)
        assert all(later - earlier <= STEADY_S + 1 + 1.3 * FIRST_PAUSE_S for earlier, later in pairwise(times[6:]))
        assert len(times) > 20


async def test_what_ends_by_itself_is_started_again_too(tmp_path: Path) -> None:
    starts: list[float] = []

    async def act(context: SourceContext) -> None:
        starts.append(context.clock.monotonic())
        context.ready()

    async with yard(tmp_path, brief=act) as at_work:
        assert at_work.state("brief").error == "it ended by itself"
        await at_work.clock.advance(5)
        assert len(starts) >= 2


async def test_a_source_that_came_back_is_healthy_and_has_no_error(tmp_path: Path) -> None:
    starts = 0

    async def act(context: SourceContext) -> None:
        nonlocal starts
        starts += 1
        if starts == 1:
            raise RuntimeError("lost")
        await receives(context)

    async with yard(tmp_path, wavers=act) as at_work:
        await at_work.clock.advance(2)
        state = at_work.state("wavers")
        assert (state.state, state.error, state.restarts) == ("running", None, 1)
        assert at_work.sources.not_ready() == []


async def test_that_a_source_is_well_again_is_logged_once_and_not_for_a_mere_try(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    starts = 0

    async def act(context: SourceContext) -> None:
        nonlocal starts
        starts += 1
        context.ready()
        if starts <= 3:
            await context.clock.sleep(1)
            raise RuntimeError("lost")
        await anyio.sleep_forever()

    async with yard(tmp_path, wavers=act, steady=receives) as at_work:
        await at_work.clock.advance(STEADY_S - 1)
        assert (starts, at_work.state("wavers").problem(at_work.clock)) == (4, None)
        assert "well again" not in caplog.text
        await at_work.clock.advance(1000)
        told = [record for record in caplog.records if "well again" in record.getMessage()]
        assert [record.getMessage() for record in told] == ["Source wavers is well again: it has run for 1m"]
        assert told[0].__dict__["action"] == "source_well"


async def test_a_warning_stands_until_it_is_taken_back_or_the_source_starts_anew_and_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gates = [anyio.Event() for _ in range(3)]

    async def act(context: SourceContext) -> None:
        context.ready()
        context.warn("the directory is gone")
        context.warn("the directory is gone")
        await gates[0].wait()
        context.warn(None)
        await gates[1].wait()
        context.warn("polling")
        await gates[2].wait()
        gates[0] = anyio.Event()
        raise RuntimeError("lost")

    async with yard(tmp_path, files=act) as at_work:
        expected = [["source files: the directory is gone"], [], ["source files: polling"]]
        for gate, warnings in zip(list(gates), expected, strict=True):
            assert at_work.sources.warnings() == warnings
            assert at_work.sources.not_ready() == []
            gate.set()
            await anyio.wait_all_tasks_blocked()
        assert at_work.state("files").view()["warning"] == "polling"
        await at_work.clock.advance(2)
        assert at_work.sources.warnings() == ["source files: the directory is gone"]
    said = [record.getMessage() for record in caplog.records if getattr(record, "action", "") == "source_warned"]
    assert said == [
        "Source files: the directory is gone",
        "Source files: polling",
        "Source files: the directory is gone",
    ]


class Mute(Exception):
    """An error that can't say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("a bug"), asyncio.CancelledError("by itself"), SystemExit(3), Mute(), BaseException("odd"),
        ExceptionGroup("several", [ValueError("one")]), StoreUnavailable("away"), InvalidEvent("no event"),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
async def test_one_bad_source_harms_no_other(
    tmp_path: Path, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    # Found in review: one that raised CancelledError by itself ended all the others, without a word.
    emitted: list[float] = []

    async def good(context: SourceContext) -> None:
        context.ready()
        async for _ in context.every(10):
            await context.emit(event())
            emitted.append(context.clock.monotonic())

    async with yard(tmp_path, bad=raising(error, ready=True), good=good) as at_work:
        await at_work.clock.advance(100)
        assert emitted == [float(seconds) for seconds in range(0, 101, 10)]
        assert not at_work.ended
        assert at_work.state("good").state == "running"
        assert at_work.state("bad").restarts >= 4
        assert at_work.state("bad").error
        assert any(getattr(record, "action", "") == "source_raised" for record in caplog.records)


async def test_all_sources_end_when_they_are_told_to(tmp_path: Path) -> None:
    cleaned: list[str] = []

    async def act(context: SourceContext) -> None:
        try:
            await receives(context)
        finally:
            cleaned.append(context.name)

    async with yard(tmp_path, one=act, two=act):
        pass
    assert sorted(cleaned) == ["one", "two"]


async def test_a_source_stops_when_the_store_has_failed_for_good(tmp_path: Path) -> None:
    starts = 0

    async def act(context: SourceContext) -> None:
        nonlocal starts
        starts += 1
        context.ready()
        await context.emit(event())

    made = Yard({"source": act}, tmp_path)
    made.door.error = StoreDamaged("a page is torn")
    async with anyio.create_task_group() as group:
        group.start_soon(made.run)
        await made.clock.advance(300)
        assert starts == 1
        assert made.state("source").view()["state"] == "stopped"
        assert made.sources.not_ready() == ["source source is stopped: the store failed"]
        group.cancel_scope.cancel()


async def test_logs_of_a_source_carry_its_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def act(context: SourceContext) -> None:
        context.log.warning("low on grain")
        await receives(context)

    with caplog.at_level(logging.INFO):
        async with yard(tmp_path, mill=act):
            pass
    [record] = [record for record in caplog.records if record.getMessage() == "low on grain"]
    assert getattr(record, "source", None) == "mill"


# Emitting


async def test_what_is_emitted_goes_to_the_door_and_is_counted(tmp_path: Path) -> None:
    answers: list[Any] = []

    async def act(context: SourceContext) -> None:
        context.ready()
        answers.extend(await context.emit(event("a"), event("b"), cursor=3))
        answers.append(await context.reject(event("c"), "it is no JSON"))
        await anyio.sleep_forever()

    async with yard(tmp_path, mill=act) as at_work:
        [(source, events, cursor)] = at_work.door.taken
        assert (source, [each.type for each in events], cursor) == ("mill", ["a", "b"], 3)
        [(source, rejected, reason)] = at_work.door.rejected
        assert (source, rejected.type, reason) == ("mill", "c", "it is no JSON")
        assert [answer.event for answer in answers] == ["0", "1", "rejected"]
        state = at_work.state("mill")
        assert (state.events, state.last_event_at) == (2, at_work.clock.now())
        assert state.view()["last_event_at"] == "2026-01-05T12:00:00Z"


async def test_a_cursor_that_is_no_json_is_refused_and_nothing_is_emitted(tmp_path: Path) -> None:
    errors: list[Exception] = []

    async def act(context: SourceContext) -> None:
        context.ready()
        for cursor in (datetime(2026, 1, 1, tzinfo=UTC), float("nan"), {1: 2}, "\ud800"):
            try:
                await context.emit(event(), cursor=cursor)
            except InvalidEvent as error:
                errors.append(error)
        await anyio.sleep_forever()

    async with yard(tmp_path, mill=act) as at_work:
        assert len(errors) == 4
        assert at_work.door.taken == []


async def test_types_of_the_engines_own_can_not_be_emitted(tmp_path: Path) -> None:
    async def act(context: SourceContext) -> None:
        context.ready()
        with pytest.raises(InvalidEvent, match="own"):
            await context.emit(event(), event("engine.run.failed"))
        await anyio.sleep_forever()

    async with yard(tmp_path, mill=act) as at_work:
        assert at_work.state("mill").error is None
        assert at_work.door.taken == []


async def test_a_source_hears_that_the_store_is_away_and_may_offer_again(tmp_path: Path) -> None:
    refused = 0

    async def act(context: SourceContext) -> None:
        nonlocal refused
        context.ready()
        while True:
            try:
                await context.emit(event())
                break
            except StoreUnavailable:
                refused += 1
                await context.clock.sleep(1)
        await anyio.sleep_forever()

    made = Yard({"mill": act}, tmp_path)
    made.door.error = StoreUnavailable("the disk is full")
    async with anyio.create_task_group() as group:
        group.start_soon(made.run)
        await made.clock.advance(3)
        made.door.error = None
        await made.clock.advance(2)
        assert refused >= 3
        assert len(made.door.taken) == 1
        assert made.state("mill").restarts == 0
        group.cancel_scope.cancel()


def sources_of(desk: Bench, path: Path, act: Act, changes: Changes) -> Sources:
    """Make a source at the real door."""
    return Sources(
        clock=desk.clock, sources=[("mill", Acts(act=act))], door=desk.intake,
        memory=Settling(desk.store, changes, desk.clock, anyio.Event()), base=path, files=path / "files",
        max_data=1000, routes=Routes(),
        on_change=lambda: None,
    )  # fmt: skip


async def emitting(desk: Bench, path: Path, act: Act) -> None:
    """Run a source against the real door."""
    async with anyio.create_task_group() as group:
        group.start_soon(sources_of(desk, path, act, Changes()).run)
        await desk.advance(10)
        group.cancel_scope.cancel()


async def test_events_of_a_source_that_is_stopped_while_it_emits_are_run(tmp_path: Path) -> None:
    async def act(context: SourceContext) -> None:
        context.ready()
        with anyio.move_on_after(0):
            await context.emit(event(key="a"))
        await anyio.sleep_forever()

    async with bench(tmp_path / "s.db", triggers=[trigger()]) as desk:
        await emitting(desk, tmp_path, act)
        assert len(desk.script.begun) == 1
        assert (await desk.store.ledger()).waiting == 0


async def test_junk_from_one_source_is_refused_and_its_good_events_come_in(tmp_path: Path) -> None:
    async def act(context: SourceContext) -> None:
        context.ready()
        cycle: list[Any] = []
        cycle.append(cycle)
        for data in (float("nan"), cycle, {"x": object()}, "x" * 2000):
            with pytest.raises(InvalidEvent):
                await context.emit(event(data=data))
        with pytest.raises(InvalidEvent):
            await context.emit(event(time=datetime(2026, 1, 1)))  # noqa: DTZ001
        await context.emit(event(data="good"))
        await anyio.sleep_forever()

    async with bench(tmp_path / "s.db", triggers=[trigger()], max_data_bytes=1000) as desk:
        await emitting(desk, tmp_path, act)
        assert len(desk.script.begun) == 1


# Beats


async def test_beats_come_at_once_and_then_from_start_to_start_and_slow_rounds_skip_some(tmp_path: Path) -> None:
    times: list[float] = []
    slow = {1: 25.0, 4: 10.0}

    async def act(context: SourceContext) -> None:
        context.ready()
        async for _ in context.every(10):
            times.append(context.clock.monotonic())
            await context.clock.sleep(slow.get(len(times) - 1, 3.0))

    async with yard(tmp_path, ticks=act) as at_work:
        await at_work.clock.advance(85)
        # The second round took 25 s: of the beats at 20 and 30 one is late, and none is made up for.
        assert times == [0, 10, 35, 40, 50, 60, 70, 80]


async def test_the_beats_of_a_source_whose_interval_is_adapted_are_further_apart_at_once(tmp_path: Path) -> None:
    times: list[float] = []

    async def act(context: SourceContext) -> None:
        context.ready()
        async for _ in context.every(10):
            now = context.clock.monotonic()
            times.append(now)

    async with yard(tmp_path, ticks=act) as at_work:
        await at_work.clock.advance(15)
        [state] = at_work.sources.states
        at_work.sources.set_factor(state.id, 2.0)
        at_work.sources.set_factor("unknown", 3.0)
        await at_work.clock.advance(40)
        assert times == [0, 10, 30, 50]
        at_work.sources.set_factor(state.id, 1.0)
        await at_work.clock.advance(20)
        assert times == [0, 10, 30, 50, 60, 70]


async def test_steps_of_the_wall_clock_move_no_beat(tmp_path: Path) -> None:
    times: list[float] = []

    async def act(context: SourceContext) -> None:
        context.ready()
        async for _ in context.every(10):
            now = context.clock.monotonic()
            times.append(now)

    async with yard(tmp_path, ticks=act) as at_work:
        await at_work.clock.advance(15)
        at_work.clock.step(7200)
        await at_work.clock.advance(10)
        at_work.clock.step(-7200)
        await at_work.clock.advance(10)
        assert times == [0, 10, 20, 30]


# Routes


async def answers(request: Request) -> Response:
    return Response()


async def other(request: Request) -> Response:
    return Response()


def test_a_route_is_found_by_path_and_method() -> None:
    routes = Routes()
    routes.add("POST", "/hooks/a", answers)
    routes.add("GET", "/hooks/a", other)
    assert routes.find("POST", "/hooks/a") is answers
    assert routes.find("GET", "/hooks/a") is other
    assert routes.find("PUT", "/hooks/a") == ("GET", "POST")
    assert routes.find("POST", "/hooks/b") is None
    routes.remove("POST", "/hooks/a")
    assert routes.find("POST", "/hooks/a") == ("GET",)
    routes.remove("GET", "/hooks/a")
    assert routes.find("GET", "/hooks/a") is None
    routes.remove("GET", "/hooks/never")


def test_a_route_belongs_to_one_source_and_lies_below_hooks() -> None:
    routes = Routes()
    routes.add("POST", "/hooks/a", answers)
    with pytest.raises(PluginError, match="taken"):
        routes.add("POST", "/hooks/a", other)
    with pytest.raises(PluginError, match="/hooks/"):
        routes.add("POST", "/api/v1/status", other)
    assert routes.find("POST", "/hooks/a") is answers


async def test_the_routes_of_a_source_go_with_it_and_come_back(tmp_path: Path) -> None:
    gate = anyio.Event()

    async def act(context: SourceContext) -> None:
        context.route("POST", "/hooks/github", answers)
        context.ready()
        await gate.wait()
        raise RuntimeError("lost")

    async with yard(tmp_path, github=act) as at_work:
        assert at_work.routes.find("POST", "/hooks/github") is answers
        gate.set()
        await anyio.wait_all_tasks_blocked()
        assert at_work.routes.find("POST", "/hooks/github") is None
        gate = anyio.Event()
        await at_work.clock.advance(2)
        assert at_work.routes.find("POST", "/hooks/github") is answers


async def test_a_source_whose_route_is_taken_fails_and_leaves_the_other_alone(tmp_path: Path) -> None:
    async def act(context: SourceContext) -> None:
        context.route("POST", "/hooks/same", answers)
        await receives(context)

    async with yard(tmp_path, first=act, second=act) as at_work:
        await at_work.clock.advance(10)
        assert at_work.state("first").state == "running"
        assert "taken" in (at_work.state("second").error or "")
        assert at_work.routes.find("POST", "/hooks/same") is answers


# What a source remembers, and how its runs end


async def test_what_is_remembered_is_there_again_page_by_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.sources.context.MEMORY_PAGE", 2)
    seen: list[dict[str, Any]] = []

    async def act(context: SourceContext) -> None:
        await context.emit(event(), cursor=1, remember={"c": 1, "a": [2], "b": {"x": None}})
        await context.emit(remember={"c": None, "d": 4})
        seen.append(await context.remembered())
        context.ready()
        await anyio.sleep_forever()

    async with bench(tmp_path / "s.db", triggers=[trigger()]) as desk:
        await emitting(desk, tmp_path, act)
    assert seen == [{"a": [2], "b": {"x": None}, "d": 4}]


@pytest.mark.parametrize("bad", [{"": 1}, {"k" * 1025: 1}, {1: 1}, {"k": float("nan")}, {"k": {"t": object()}}])
async def test_what_can_not_be_remembered_is_refused_with_its_events(tmp_path: Path, bad: dict[Any, Any]) -> None:
    async def act(context: SourceContext) -> None:
        with pytest.raises(InvalidEvent):
            await context.emit(event(), remember=bad)
        context.ready()
        await anyio.sleep_forever()

    async with yard(tmp_path, mill=act) as place:
        assert place.state("mill").state == "running"
        assert place.door.taken == []


async def test_settled_waits_for_the_end_of_all_runs_of_an_event(tmp_path: Path) -> None:
    ends: list[tuple[Settled, ...]] = []
    gates = {"one": anyio.Event(), "two": anyio.Event()}

    async def work(run: Run, _: Job) -> Outcome:
        await gates[run.trigger].wait()
        return Outcome.succeeded("done")

    async def act(context: SourceContext) -> None:
        ends.append(await context.settled(Accepted(event="none")))
        await context.emit(event(key="sack-1"))
        [again] = await context.emit(event(key="sack-1"))
        assert again.duplicate
        ends.append(await context.settled(again))
        await anyio.sleep_forever()

    async with bench(tmp_path / "s.db", triggers=[trigger("one"), trigger("two")], act=work) as desk:
        changes = Changes()
        async with anyio.create_task_group() as group:
            group.start_soon(sources_of(desk, tmp_path, act, changes).run)
            for gate in gates.values():
                await desk.settle()
                assert ends == [()]
                gate.set()
                await desk.settle()
                for run_id in desk.changed:
                    changes.tell(run_id)
            await desk.settle()
            group.cancel_scope.cancel()
    assert [(end.trigger, end.state.value) for end in ends[1]] == [("one", "succeeded"), ("two", "succeeded")]


# Sources that come and go


async def test_a_source_comes_while_others_run_and_has_ended_when_it_was_removed(tmp_path: Path) -> None:
    ended: list[str] = []

    def noting(name: str) -> Act:
        async def act(context: SourceContext) -> None:
            context.ready()
            try:
                await anyio.sleep_forever()
            finally:
                ended.append(name)

        return act

    async with yard(tmp_path, first=noting("first")) as made:
        made.sources.add("late", Acts(act=noting("late")))
        made.sources.add("late", Acts(act=noting("a second one")))
        await anyio.wait_all_tasks_blocked()
        assert made.sources.not_ready() == []
        await made.sources.remove("late")
        await made.sources.remove("late")
        assert ended == ["late"]
        assert [state.id for state in made.sources.states] == ["first"]


async def test_a_source_that_comes_again_waits_for_the_end_of_the_one_before(tmp_path: Path) -> None:
    gate, running, most = anyio.Event(), [0], [0]

    async def slow_to_end(context: SourceContext) -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        context.ready()
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await gate.wait()
            running[0] -= 1

    async with yard(tmp_path, mill=slow_to_end) as made, anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(made.sources.remove, "mill")
            await anyio.wait_all_tasks_blocked()
            made.sources.add("mill", Acts(act=slow_to_end))
            await anyio.wait_all_tasks_blocked()
        assert made.state("mill").state == "starting"
        assert made.sources.not_ready() == [
            "source mill is starting: it waits for the one before it, which has not ended"
        ]
        gate.set()
        with anyio.fail_after(10):
            while running != [1] or made.state("mill").state != "running":
                await anyio.wait_all_tasks_blocked()
        assert most == [1]


async def test_a_source_is_not_added_where_none_runs(tmp_path: Path) -> None:
    async with yard(tmp_path) as made:
        pass
    with pytest.raises(Conflict):
        made.sources.add("late", Acts(act=receives))


async def test_what_is_wrong_with_a_source_is_told_with_the_time_since_when(tmp_path: Path) -> None:
    contexts: list[SourceContext] = []

    async def warns(context: SourceContext) -> None:
        contexts.append(context)
        await receives(context)

    async with yard(tmp_path, warns=warns, fails=raising(RuntimeError("boom"), ready=True)) as at_work:
        clock, warning, failing = at_work.clock, at_work.state("warns"), at_work.state("fails")
        assert warning.trouble(clock) is None
        began = clock.now()
        contexts[0].warn("app.db is not there")
        await clock.advance(60)
        await anyio.wait_all_tasks_blocked()
        contexts[0].warn("app.db can't be read")
        assert warning.trouble(clock) == Trouble(text="app.db can't be read", since=began)
        contexts[0].warn(None)
        assert warning.trouble(clock) is None
        trouble = failing.trouble(clock)
        assert trouble == Trouble(text="failed: RuntimeError: boom", since=began)


async def test_a_source_that_fails_again_and_again_is_told_of_while_it_runs_in_between(tmp_path: Path) -> None:
    breaks = anyio.Event()

    async def act(context: SourceContext) -> None:
        context.ready()
        await breaks.wait()
        if not context.clock.now() > START:
            raise RuntimeError("boom")
        await anyio.sleep_forever()

    async with yard(tmp_path, tap=act) as at_work:
        state, clock = at_work.state("tap"), at_work.clock
        breaks.set()
        await anyio.wait_all_tasks_blocked()
        await clock.advance(5)
        await anyio.wait_all_tasks_blocked()
        assert state.problem(clock) is None
        said = "it runs, and was restarted 1 time: RuntimeError: boom"
        assert state.trouble(clock) == Trouble(text=said, since=START)
        await clock.advance(300)
        assert state.trouble(clock) is None
