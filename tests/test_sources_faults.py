"""Sources that hang, ignore their stop, flood or emit junk: named, contained, and nobody else's trouble."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.to_thread import run_sync

from engine.clock import SystemClock
from engine.errors import InvalidEvent, PluginError, StoreUnavailable
from engine.events import Event
from engine.following import Followers
from engine.intake import Intake
from engine.journal import Journal
from engine.marks import MarkKeeper
from engine.plugin import Source, SourceContext
from engine.settling import Changes, Settling
from engine.sources import Routes, Sources
from engine.sources import context as context_module
from engine.sources.context import MOST_EVENTS
from engine.sources.state import SLOW_ROUND_S
from engine.sources.supervisor import STOP_S
from engine.store.sqlite import SqliteStore
from engine.testing import VirtualClock
from tests.fakes import until
from tests.organs import bench, event, trigger
from tests.test_sources import Act, Acts, Yard, receives, sources_of, yard


async def hangs(context: SourceContext) -> None:
    await anyio.sleep_forever()


async def turns(count: int = 50) -> None:
    """Let everybody do something; one that never waits does so for ever, so nothing less will do."""
    for _ in range(count):
        await anyio.lowlevel.checkpoint()


async def wake_after(clock: VirtualClock, seconds: float) -> None:
    """Let time pass beside one that never waits."""
    clock._pass(seconds)
    while clock._sleepers and clock._sleepers[0][0] <= clock.monotonic():
        heapq.heappop(clock._sleepers)[2].set()
    await turns()


released: list[anyio.Event] = []
"""What ends the sources that ignore their stop, so that they do not outlive their test."""


@pytest.fixture(autouse=True)
def _release() -> Iterator[None]:
    released[:] = [anyio.Event()]
    yield
    assert released[0].is_set() or not released[0].statistics().tasks_waiting


async def shields(context: SourceContext) -> None:
    context.ready()
    with anyio.CancelScope(shield=True):
        await released[0].wait()


async def swallows(context: SourceContext) -> None:
    context.ready()
    while not released[0].is_set():
        with contextlib.suppress(BaseException):
            await released[0].wait()


# Hanging at the start


async def test_a_start_that_hangs_is_told_of_with_its_place_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with yard(tmp_path, slow=hangs, good=receives) as at_work:
        await at_work.clock.advance(Source.ready_within_s - 1)
        assert at_work.state("slow").state == "starting"
        await at_work.clock.advance(1)
        state = at_work.state("slow")
        assert (state.state, state.restarts) == ("failed", 1)
        assert f"not ready within 1m, it waits at {__file__}:" in (state.error or "")
        assert (state.error or "").endswith("in hangs")
        await at_work.clock.advance(2)
        assert state.state == "starting"
        assert at_work.state("good").restarts == 0
    [record] = [record for record in caplog.records if getattr(record, "action", "") == "source_late"]
    assert "await anyio.sleep_forever()" in getattr(record, "stack", "")


async def test_a_source_that_emits_before_it_is_ready_is_not_late(tmp_path: Path) -> None:
    async def works_long(context: SourceContext) -> None:
        for _ in range(5):
            await context.clock.sleep(Source.ready_within_s - 1)
            await context.emit(event())
        await receives(context)

    async with yard(tmp_path, long=works_long) as at_work:
        await at_work.clock.advance(5 * Source.ready_within_s)
        assert (at_work.state("long").state, at_work.state("long").restarts) == ("running", 0)


# Hanging at the stop


@pytest.mark.parametrize("act", [shields, swallows])
async def test_a_source_that_ignores_its_stop_is_named_and_left_alone_and_the_others_stop(
    tmp_path: Path, act: Act, caplog: pytest.LogCaptureFixture
) -> None:
    cleaned: list[str] = []
    left: list[SourceContext] = []

    async def good(context: SourceContext) -> None:
        try:
            await receives(context)
        finally:
            cleaned.append(context.name)

    async def bad(context: SourceContext) -> None:
        left.append(context)
        await act(context)

    made = Yard({"bad": bad, "good": good}, tmp_path)
    async with anyio.create_task_group() as group:
        group.start_soon(made.run)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await turns()
            assert cleaned == ["good"]
            await wake_after(made.clock, STOP_S)
    assert made.sources.stuck() == ["bad"]
    assert made.state("good").state == "stopped"
    assert f"not stopped within 5s, it waits at {__file__}:" in (made.state("bad").error or "")
    assert [record.levelname for record in caplog.records if getattr(record, "action", "") == "source_stuck"] == [
        "ERROR"
    ]
    # Nothing comes in from what is left of it, and it does not go round without end.
    with pytest.raises(PluginError, match="was stopped"):
        await left[0].emit(event())
    assert made.door.taken == []
    before_s = time.process_time()
    await anyio.sleep(0.1)
    assert time.process_time() - before_s < 0.09
    released[0].set()
    await until(lambda: not any(task.get_name() == "source bad" for task in asyncio.all_tasks()))


async def test_what_a_source_still_emits_while_it_stops_in_time_is_taken(tmp_path: Path) -> None:
    async def act(context: SourceContext) -> None:
        try:
            await receives(context)
        finally:
            with anyio.CancelScope(shield=True):
                await context.emit(event("last words"))

    async with yard(tmp_path, polite=act) as at_work:
        door = at_work.door
    assert [events[0].type for _, events, _ in door.taken] == ["last words"]


async def test_what_a_source_raises_while_it_stops_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def act(context: SourceContext) -> None:
        try:
            await receives(context)
        finally:
            raise RuntimeError("the socket was closed already")

    async with yard(tmp_path, rude=act, good=receives) as at_work:
        pass
    assert [at_work.state(name).state for name in ("rude", "good")] == ["stopped", "stopped"]
    assert at_work.state("rude").last_error == "RuntimeError: the socket was closed already"
    assert "Source rude raised while it stopped" in caplog.text


async def test_a_late_start_that_can_not_be_cancelled_is_not_started_a_second_time_beside_itself(
    tmp_path: Path,
) -> None:
    gate = anyio.Event()
    starts = 0

    async def act(context: SourceContext) -> None:
        nonlocal starts
        starts += 1
        if starts > 1:
            return await receives(context)
        with anyio.CancelScope(shield=True):
            await gate.wait()

    async with yard(tmp_path, slow=act) as at_work:
        await at_work.clock.advance(Source.ready_within_s + STOP_S + 1)
        assert at_work.state("slow").state == "stuck"
        assert at_work.sources.not_ready()[0].startswith("source slow is stuck: not stopped within 5s, it waits at ")
        await at_work.clock.advance(600)
        assert starts == 1
        gate.set()
        await at_work.clock.advance(2)
        assert (starts, at_work.state("slow").state, at_work.state("slow").error) == (2, "running", None)


# Hanging at work


async def test_a_round_that_does_not_end_is_told_of_until_it_does(tmp_path: Path) -> None:
    gates = [anyio.Event(), anyio.Event()]

    async def act(context: SourceContext) -> None:
        context.ready()
        numbers = iter(gates)
        async for _ in context.every(5):
            gate = next(numbers, None)
            if gate is not None:
                await gate.wait()

    async with yard(tmp_path, polls=act) as at_work:
        await at_work.clock.advance(SLOW_ROUND_S)
        assert at_work.sources.not_ready() == []
        await at_work.clock.advance(5)
        assert at_work.sources.not_ready() == ["source polls hangs: it looks every 5 s, and has been at it for 65 s"]
        gates[0].set()
        await at_work.clock.advance(1)
        assert at_work.sources.not_ready() == []
        gates[1].set()


@pytest.mark.parametrize("period_s", [0, -1, float("nan")])
async def test_a_period_that_is_none_is_refused(tmp_path: Path, period_s: float) -> None:
    async def act(context: SourceContext) -> None:
        async for _ in context.every(period_s):
            await context.emit(event())

    async with yard(tmp_path, polls=act) as at_work:
        assert "is no period" in (at_work.state("polls").error or "")
        assert at_work.door.taken == []


# Junk


JUNK: list[Any] = [
    {"type": "a dict"}, None, Event(type=7), Event(type=""), Event(type="x" * 1025),  # type: ignore[arg-type]
    event(key=7), event(key=""), event(key="\ud800"), event(key=b"bytes"), event(subject=["list"]),
    event(time="2026-01-01T00:00:00Z"), event(time=datetime(2026, 1, 1)), event(time=7),  # noqa: DTZ001
    event(priority="high"), event(priority=99), event(data=float("inf")), event(data={1: 2}), event(data={1, 2}),
    event(data="x" * 1100), event(data=[[0] * 600]), event(data=10**400),
]  # fmt: skip


async def test_whatever_is_no_event_is_refused_counted_and_harms_no_other(tmp_path: Path) -> None:
    async def act(context: SourceContext) -> None:
        context.ready()
        for junk in JUNK:
            with pytest.raises(InvalidEvent):
                await context.emit(event(data="good"), junk)
        with pytest.raises(InvalidEvent, match="at most 1,000"):
            await context.emit(*[event()] * (MOST_EVENTS + 1))
        with pytest.raises(InvalidEvent, match="the cursor is"):
            await context.emit(event(), cursor="x" * 2000)
        with pytest.raises(InvalidEvent, match="remembered as 'k' is"):
            await context.emit(event(), remember={"k": "x" * 2000})
        await context.emit(event(data="good"), cursor=1)
        await anyio.sleep_forever()

    async with bench(tmp_path / "s.db", triggers=[trigger()], max_data_bytes=1000) as desk:
        made = sources_of(desk, tmp_path, act, Changes())
        async with anyio.create_task_group() as group:
            group.start_soon(made.run)
            await desk.advance(10)
            [state] = made.states
            assert (state.state, state.error) == ("running", None)
            assert (state.events, state.refused) == (1, 2 * len(JUNK) + MOST_EVENTS + 3)
            group.cancel_scope.cancel()
        assert len(desk.script.begun) == 1


async def test_who_is_refused_again_and_again_is_made_to_wait_and_leaves_the_loop_to_others(tmp_path: Path) -> None:
    tries = {"junk": 0, "away": 0}

    async def junk(context: SourceContext) -> None:
        context.ready()
        while True:
            tries["junk"] += 1
            try:
                await context.emit(event("engine.mine"))
            except InvalidEvent:
                continue

    async def away(context: SourceContext) -> None:
        context.ready()
        while True:
            tries["away"] += 1
            try:
                await context.emit(event())
            except StoreUnavailable:
                continue

    made = Yard({"junk": junk, "away": away}, tmp_path)
    made.door.error = StoreUnavailable("the disk is full")
    async with anyio.create_task_group() as group:
        group.start_soon(made.run)
        await made.clock.advance(10)
        assert all(100 <= count <= 120 for count in tries.values())
        assert made.state("away").pushed_back == tries["away"]
        group.cancel_scope.cancel()


# Floods


async def test_a_source_that_does_not_wait_for_answers_is_pushed_back_and_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context_module, "MOST_CALLS", 100)
    monkeypatch.setattr(context_module, "CALLS_AT_ONCE", 10)
    refused = 0

    async def flood(context: SourceContext) -> None:
        nonlocal refused

        async def one() -> None:
            nonlocal refused
            try:
                await context.emit(event())
            except StoreUnavailable:
                refused += 1

        context.ready()
        async with anyio.create_task_group() as group:
            for _ in range(1000):
                group.start_soon(one)
        await anyio.sleep_forever()

    async with bench(tmp_path / "s.db", triggers=[trigger()]) as desk:
        desk.store.hold = anyio.Event()
        made = sources_of(desk, tmp_path, flood, Changes())
        async with anyio.create_task_group() as group:
            group.start_soon(made.run)
            await desk.advance(100)
            [state] = made.states
            assert state.emitting == 100
            assert refused == state.pushed_back == 900
            assert desk.journal.depth <= 10
            await_other = desk.intake.accept("other", [event()])
            desk.store.hold.set()
            await await_other
            await desk.settle()
            assert state.events == 100
            group.cancel_scope.cancel()


async def test_a_source_that_emits_as_fast_as_it_can_delays_no_other(tmp_path: Path) -> None:
    batch = [event(data={"n": number}) for number in range(MOST_EVENTS)]
    beats, enough = 0, anyio.Event()

    async def flood(context: SourceContext) -> None:
        context.ready()
        while True:
            await context.emit(*batch)

    async def good(context: SourceContext) -> None:
        nonlocal beats
        context.ready()
        async for _ in context.every(0.01):
            await context.emit(event())
            beats += 1
            if beats == 20:
                enough.set()

    store = SqliteStore(tmp_path / "s.db")
    await store.open()
    journal = Journal(store, SystemClock())
    async with bench(tmp_path / "unused.db") as desk:
        intake = Intake(
            clock=SystemClock(), journal=journal, starter=desk.dispatch, windows=desk.windows, marks=MarkKeeper(store),
            rules={}, hearing=[], followers=Followers((), {}, {}), max_data_bytes=1000, ageing_s=60.0,
        )  # fmt: skip
        made = Sources(
            clock=SystemClock(), sources=[("flood", Acts(act=flood)), ("good", Acts(act=good))], door=intake,
            memory=Settling(store, Changes(), SystemClock(), anyio.Event()), base=tmp_path,
            files=tmp_path / "files", max_data=1000, routes=Routes(),
            on_change=lambda: None,
        )  # fmt: skip
        async with anyio.create_task_group() as group:
            group.start_soon(journal.run)
            group.start_soon(made.run)
            with anyio.fail_after(30):
                await enough.wait()
            assert made.states[0].events >= MOST_EVENTS
            assert journal.depth <= 2
            group.cancel_scope.cancel()
    await store.close()


# What is counted


async def test_what_a_source_did_is_counted(tmp_path: Path) -> None:
    async def act(context: SourceContext) -> None:
        context.ready()
        first = event(key="a", time=context.clock.now() - timedelta(seconds=7))
        await context.emit(first, event(key="b", time=context.clock.now() - timedelta(seconds=3)))
        await context.emit(event(key="a"))
        await context.reject(event(key="c"), "it is no JSON")
        await context.reject(event(key="c"), "it is no JSON")
        await context.clock.sleep(5)
        raise RuntimeError("lost")

    async with bench(tmp_path / "s.db", triggers=[trigger()]) as desk:
        made = sources_of(desk, tmp_path, act, Changes())
        async with anyio.create_task_group() as group:
            group.start_soon(made.run)
            await desk.advance(5.5)
            [state] = made.states
            view = state.view()
            counts = {name: view[name] for name in ("events", "duplicates", "rejected", "refused", "restarts", "lag_s")}
            assert counts == {
                "events": 2, "duplicates": 1, "rejected": 1, "refused": 0, "restarts": 1, "lag_s": 3.0,
            }  # fmt: skip
            assert (view["last_error"], view["last_error_at"]) == ("RuntimeError: lost", "2026-01-05T12:00:05Z")
            await desk.advance(2)
            # It came back: what went wrong last is still known.
            assert (made.states[0].view()["error"], made.states[0].view()["last_error"]) == (None, "RuntimeError: lost")
            group.cancel_scope.cancel()


async def test_a_thread_that_hangs_is_waited_for_where_the_source_stands_in_it(tmp_path: Path) -> None:
    async def act(context: SourceContext) -> None:
        await run_sync(time.sleep, 0.2)
        await receives(context)

    async with yard(tmp_path, reads=act) as at_work:
        started_at = at_work.state("reads").since
        assert started_at == at_work.clock.now()
        await until(lambda: at_work.state("reads").state == "running")


# Hanging at its removal


@pytest.mark.parametrize("act", [shields, swallows])
async def test_a_removed_source_that_does_not_stop_is_named_and_the_next_of_its_id_waits_for_it(
    tmp_path: Path, act: Act, caplog: pytest.LogCaptureFixture
) -> None:
    left: list[SourceContext] = []

    async def bad(context: SourceContext) -> None:
        left.append(context)
        await act(context)

    made = Yard({"bad": bad, "good": receives}, tmp_path)
    removed = anyio.Event()

    async def remove() -> None:
        await made.sources.remove("bad")
        removed.set()

    async with anyio.create_task_group() as group:
        group.start_soon(made.run)
        await turns()
        group.start_soon(remove)
        await turns()
        assert [state.id for state in made.sources.states] == ["bad", "good"]
        assert not removed.is_set()
        await wake_after(made.clock, STOP_S)
        assert removed.is_set()
        assert made.sources.stuck() == ["bad"]
        assert made.sources.not_ready() == []
        [warning] = made.sources.warnings()
        assert warning.startswith(f"source bad is stuck: not stopped within 5s, it waits at {__file__}:")
        assert warning.endswith("; it was removed")
        with pytest.raises(PluginError, match="was stopped"):
            await left[0].emit(event())

        made.sources.add("bad", Acts(act=receives))
        await turns()
        assert made.sources.not_ready() == [
            "source bad is starting: it waits for the one before it, which has not ended"
        ]
        assert made.sources.stuck() == ["bad"]
        assert made.sources.warnings() == [warning]
        await made.sources.remove("bad")
        made.sources.add("bad", Acts(act=receives))
        released[0].set()
        await turns()
        assert (made.state("bad").state, made.sources.stuck(), made.sources.warnings()) == ("running", [], [])
        group.cancel_scope.cancel()
    assert [record.levelname for record in caplog.records if getattr(record, "action", "") == "source_stuck"] == [
        "ERROR"
    ]


async def test_a_removed_source_that_does_not_stop_keeps_the_others_from_nothing_and_is_known_at_the_end(
    tmp_path: Path,
) -> None:
    made = Yard({"bad": shields, "good": receives}, tmp_path)
    async with anyio.create_task_group() as group:
        group.start_soon(made.run)
        await turns()
        group.start_soon(made.sources.remove, "bad")
        await turns()
        await wake_after(made.clock, STOP_S)
        group.cancel_scope.cancel()
    assert made.sources.stuck() == ["bad"]
    released[0].set()
    await turns()
    assert made.sources.stuck() == []


async def test_a_source_whose_removal_nobody_awaits_any_more_stops_all_the_same(tmp_path: Path) -> None:
    async with yard(tmp_path, mill=receives) as made:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await made.sources.remove("mill")
        await turns()
        assert made.sources.states == []
        await made.sources.remove("mill")
