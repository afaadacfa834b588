"""Why it did not run: the account of due instants is complete, and each has the right reason."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.to_thread import run_sync
from hypothesis import given
from hypothesis import strategies as st

from engine.chronicle import BEAT_S, Chronicle
from engine.cli.hindsight import sentences
from engine.cli.offline import offline_doctor
from engine.decide.calendars import Calendar
from engine.decide.rules import Rule
from engine.decide.schedule import Schedule
from engine.hindsight import Line, Period, inquire
from engine.hindsight.account import Account
from engine.hindsight.periods import Noted, periods_of
from engine.hindsight.proof import Proof
from engine.plugin import Event
from engine.runs import RunState
from engine.spans import Span, SpanKind
from engine.store.base import EventFilter
from engine.testing.clock import START
from engine.triggers import PauseScope
from plugins.timers.cron import Cron
from plugins.timers.interval import Interval
from tests.organs import Bench, bench, job, trigger
from tests.test_runtime import Tap, comes_to, configured, operations, running

MINUTE = timedelta(minutes=1)
NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return NOON + minutes * MINUTE


def recorded(first: float, last: float | None = None) -> Line:
    count = 1 if last is None else int(last - first) + 1
    return Line(
        at=at(first), until=None if last is None else at(last), count=count,
        verdict="succeeded" if count == 1 else "missed", code="x", reason="x", run="r",
    )  # fmt: skip


CODES = ("engine_away", "standstill", "disabled", "not_there", "other_schedule", "paused", "source_trouble")
HALVES = st.integers(-4, 84).map(lambda halves: halves / 2)


@st.composite
def accounts(draw: st.DrawFn) -> tuple[Account, list[Line], datetime, datetime]:
    edges = st.tuples(HALVES, HALVES).map(sorted)
    periods = [
        Period(
            code=draw(st.sampled_from(CODES)), start=at(low), end=None if draw(st.booleans()) else at(high), said=str(n)
        )
        for n, (low, high) in enumerate(draw(st.lists(edges, max_size=5)))
    ]
    lines, minute = [], draw(st.integers(-3, 10))
    for length, pause in draw(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 6)), max_size=8)):
        lines.append(recorded(minute, None if not length else minute + length))
        minute += length + pause
    start, end = sorted((draw(HALVES), draw(HALVES)))
    account = Account(
        schedule=Schedule(trigger="t", timer=Interval(every=60.0)), periods=periods,
        dealt=draw(st.none() | HALVES.map(at)), now=at(draw(HALVES)),
    )  # fmt: skip
    told = [line for line in lines if line.at < at(end) and line.last >= at(start)]
    return account, told, at(start), at(end)


@given(accounts())
def test_every_due_instant_is_in_exactly_one_line_with_its_reason(
    case: tuple[Account, list[Line], datetime, datetime],
) -> None:
    account, told, start, end = case
    lines = list(account.lines(start, end, told))
    assert [line.at for line in lines] == sorted(line.at for line in lines)
    instant = at(-3)
    while instant < end:
        if instant >= start:
            [line] = [one for one in lines if one.at <= instant <= one.last]
            if line.run is None:
                reason = account._reason(instant)
                assert (line.verdict, line.code, line.reason) == (reason.verdict, reason.code, reason.said)
        instant += MINUTE
    for line in lines:
        if line.run is None:
            assert line.count == (line.last - line.at) // MINUTE + 1
            assert not line.more


def test_what_a_calendar_takes_away_is_told_of_in_ranges_and_only_while_the_trigger_was_there() -> None:
    closed = Calendar(name="closed", weekdays=frozenset({5, 6}))
    schedule = Schedule(
        trigger="t", timer=Cron(expression="0 */6 * * *", except_=("closed",)), calendars={"closed": closed}
    )
    friday = datetime(2026, 7, 3, tzinfo=UTC)
    off = Period(
        code="disabled", start=friday + timedelta(days=2), end=friday + timedelta(days=2, hours=12), said="off"
    )
    account = Account(schedule=schedule, periods=[off], dealt=None, now=friday + timedelta(days=9))
    lines = list(account.lines(friday, friday + timedelta(days=4), []))
    assert [(line.verdict, line.count, line.at) for line in lines] == [
        ("waiting", 8, friday),
        ("excluded", 6, friday + timedelta(days=1)),
    ]
    assert lines[1].last == friday + timedelta(days=2, hours=18)
    assert "closed" in lines[1].reason


def test_what_is_dealt_with_and_not_recorded_is_unexplained() -> None:
    schedule = Schedule(trigger="t", timer=Interval(every=60.0))
    account = Account(schedule=schedule, periods=[], dealt=at(5), now=at(8))
    lines = list(account.lines(at(3), at(10), [recorded(4)]))
    assert [(line.code, line.at, line.count) for line in lines] == [
        ("unexplained", at(3), 1), ("x", at(4), 1), ("unexplained", at(5), 1), ("waiting", at(6), 3),
        ("to_come", at(9), 1),
    ]  # fmt: skip
    assert lines[0].way_out is not None
    assert "doctor" in lines[0].way_out


def test_times_without_an_engine_lie_between_those_that_ran() -> None:
    def life(name: str, began: float, ended: float, end: str) -> Span:
        return Span(kind=SpanKind.ENGINE, name=name, began_at=at(began), ended_at=at(ended), detail={"end": end})

    lives = [life("a", 0, 10, "stopped"), life("b", 12, 20, "died"), life("c", 25, 30, "running")]
    told = periods_of(Noted(lives=lives), trigger="t", on="x", alive=True)
    assert [(period.start, period.end) for period in told] == [(at(10), at(12)), (at(20), at(25))]
    assert "it was stopped at" in told[0].said
    assert "it was killed (as by a second Ctrl-C), or its machine went down" in told[1].said
    gone = periods_of(Noted(lives=lives), trigger="t", on="x", alive=False)
    assert (gone[-1].start, gone[-1].end) == (at(30), None)
    assert gone[-1].said.endswith("has not been started since")


# The chronicle


def a_chronicle(desk: Bench, boot: str, **rules: Rule) -> Chronicle:
    return Chronicle(
        clock=desk.clock, journal=desk.journal, store=desk.store, boot=boot, version="1", rules=rules,
        describe=lambda trigger: trigger.source,
    )  # fmt: skip


@asynccontextmanager
async def beside(work: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Let something run while the block lasts."""
    async with anyio.create_task_group() as group:
        group.start_soon(work)
        yield
        group.cancel_scope.cancel()


async def spans(desk: Bench, kind: SpanKind) -> list[Span]:
    return await desk.store.spans(kind, start=START - timedelta(days=9), end=START + timedelta(days=9), limit=99)


async def test_an_engine_that_died_is_known_to_have_lived_until_its_last_trace(tmp_path: Path) -> None:
    async with bench(tmp_path / "engine.db") as desk:
        first = a_chronicle(desk, "boot-1")
        await first.begin()
        await desk.advance(5)
        await desk.emit(Event(type="x"))
        await desk.settle()
        died_at = desk.clock.now()
        await desk.advance(600)
        await a_chronicle(desk, "boot-2").begin()
        one, two = await spans(desk, SpanKind.ENGINE)
        assert (one.detail["end"], one.began_at, one.ended_at) == ("died", START, died_at)
        assert (two.name, two.detail["end"], two.began_at) == ("boot-2", "running", desk.clock.now())


async def test_an_engine_notes_that_it_lives_and_how_it_ended(tmp_path: Path) -> None:
    async with bench(tmp_path / "engine.db") as desk:
        chronicle = a_chronicle(desk, "boot-1")
        await chronicle.begin()
        async with beside(chronicle.run):
            await desk.advance(4 * BEAT_S + 1)
        [life] = await spans(desk, SpanKind.ENGINE)
        assert life.ended_at == START + timedelta(seconds=4 * BEAT_S)
        await chronicle.end(asked=True)
        [life] = await spans(desk, SpanKind.ENGINE)
        assert (life.detail["end"], life.ended_at) == ("stopped", desk.clock.now())


async def test_triggers_that_change_come_and_go_leave_spans(tmp_path: Path) -> None:
    async with bench(tmp_path / "engine.db") as desk:
        async with beside(a_chronicle(desk, "1", a=Rule(trigger("a"), job()), b=Rule(trigger("b"), job())).run):
            await desk.advance(1)
        await desk.advance(99)
        off = Rule(trigger("b", enabled=False), job())
        async with beside(a_chronicle(desk, "2", b=off, c=Rule(trigger("c"), job())).run):
            await desk.advance(1)
        found = [
            (span.name, span.ended_at is None, "disabled" in span.detail)
            for span in await spans(desk, SpanKind.TRIGGER)
        ]
        assert found == [("a", False, False), ("b", False, False), ("b", True, True), ("c", True, False)]


async def test_a_trouble_is_noted_from_its_beginning_to_its_end(tmp_path: Path) -> None:
    async with bench(tmp_path / "engine.db") as desk:
        chronicle = a_chronicle(desk, "1")
        troubles: dict[str, tuple[str, datetime | None]] = {}
        chronicle.watch(lambda: troubles)
        async with beside(chronicle.run):
            await desk.advance(BEAT_S)
            troubles["mill"] = ("the wind is gone", desk.clock.now() + timedelta(seconds=3))
            await desk.advance(2 * BEAT_S)
            troubles.clear()
            await desk.advance(BEAT_S)
        [span] = await spans(desk, SpanKind.SOURCE)
        assert (span.name, span.detail["problem"]) == ("mill", "the wind is gone")
        assert span.began_at == START + timedelta(seconds=BEAT_S + 3)
        assert span.ended_at == START + timedelta(seconds=4 * BEAT_S)


async def test_a_long_standstill_is_noted(tmp_path: Path) -> None:
    async with bench(tmp_path / "engine.db") as desk:
        async with beside(a_chronicle(desk, "1").run):
            await desk.advance(BEAT_S)
            desk.clock.step(3600)
            await desk.advance(BEAT_S)
        [span] = await spans(desk, SpanKind.STANDSTILL)
        assert (span.ended_at or START) - span.began_at == timedelta(seconds=3600 + BEAT_S)


# The whole engine

CONFIG = """
[jobs.work]
run.exec = ["true"]
[triggers.orders]
on.tap = {}
job = "work"
filter = "data.total >= 100"
tags = ["shop"]
[triggers.tick]
on.interval = "1s"
job = "work"
"""


async def why(engine: Any, name: str, **more: Any) -> dict[str, Any]:
    now = engine.clock.now()
    subject = operations(engine).subject(name)
    given = {
        "start": now - timedelta(hours=1),
        "end": now + timedelta(seconds=1),
        "now": now,
        "limit": 100,
        "cursor": None,
    }
    return await inquire(operations(engine).store, subject, **{**given, **more})


async def test_why_tells_what_a_trigger_on_a_source_met_and_what_its_gates_saw(tmp_path: Path) -> None:
    async with running(configured(tmp_path, CONFIG)) as engine:
        emit = Tap.contexts["tap"].emit
        await emit(Event(type="order", data={"total": 7, "name": "x" * 200}))
        [answer] = await emit(Event(type="order", data={"total": 700}))
        await comes_to(engine, answer.runs[0], RunState.SUCCEEDED)
        await operations(engine).pause(PauseScope.TAG, "shop", reason="inventory")
        await emit(Event(type="order", data={"total": 701}))
        found = await why(engine, "orders")
        told = [(one["verdict"], one["code"]) for one in found["items"]]
        assert told == [("filtered", "filter_false"), ("succeeded", "succeeded"), ("paused", "tag_paused")]
        assert found["items"][0]["gates"] == [{"gate": "filter", "verdict": "drop", "saw": {"data.total": 7}}]
        assert found["items"][1]["gates"] == [{"gate": "filter", "verdict": "pass", "saw": {"data.total": 700}}]
        assert found["items"][2]["gates"][0]["gate"] == "pause"
        assert any("tag shop was paused: inventory" in period["reason"] for period in found["periods"])
        pages = []
        cursor = None
        while True:
            page = await why(engine, "orders", limit=1, cursor=cursor)
            pages += page["items"]
            if (cursor := page["next"]) is None:
                break
        assert pages == found["items"]
        said = "\n".join(sentences({**found, "remark": None}))
        assert "filter: drop; it saw data.total = 7" in said
        assert "Way out: resume --tag TAG" in said


def told_of(found: dict[str, Any]) -> list[tuple[str, int]]:
    """Return the lines of records; those of ranges may be cut by pages."""
    return [(one["at"], one["count"]) for one in found["items"] if one["verdict"] != "not_run"]


def in_ranges(found: dict[str, Any]) -> int:
    return sum(one["count"] for one in found["items"] if one["verdict"] == "not_run")


async def test_pages_of_a_timer_hold_each_instant_once(tmp_path: Path) -> None:
    async with running(configured(tmp_path, CONFIG)) as engine:
        while len(told_of(await why(engine, "tick"))) < 5:
            await engine.clock.sleep(0.2)
        # What has fired is recorded; what fires just now may be or not.
        end = engine.clock.now() - timedelta(seconds=1)
        while any(one["code"] == "waiting" for one in (await why(engine, "tick", end=end))["items"]):
            await engine.clock.sleep(0.2)
        whole = await why(engine, "tick", end=end)
        pages, count, cursor = [], 0, None
        while True:
            page = await why(engine, "tick", end=end, limit=2, cursor=cursor)
            pages += told_of(page)
            count += in_ranges(page)
            if (cursor := page["next"]) is None:
                break
        assert pages == told_of(whole)
        assert count == in_ranges(whole)
        assert {one["code"] for one in whole["items"]} <= {"not_there", "succeeded", "started", "due"}


async def test_doctor_names_a_due_instant_of_which_nothing_is_recorded(tmp_path: Path) -> None:
    config = configured(tmp_path, CONFIG)
    async with running(config) as engine:
        store = operations(engine).store
        while len(await store.events(EventFilter(source="timer:tick"), limit=9)) < 3:
            await engine.clock.sleep(0.2)
    [check] = [one for one in (await run_sync(offline_doctor, config))["checks"] if one["name"] == "due_instants"]
    assert check["ok"], check
    assert "each is recorded" in check["detail"]
    with sqlite3.connect(config.store.path) as raw:
        [(event, key)] = raw.execute(
            "select id, key from events where source = 'timer:tick' order by key limit 1 offset 1"
        )
        raw.execute("delete from events where id = ?", (event,))
        raw.execute("delete from outcomes where event = ?", (event,))
        raw.execute("delete from runs where event = ?", (event,))
    raw.close()
    found = await run_sync(offline_doctor, config)
    assert not found["ok"]
    [check] = [one for one in found["checks"] if one["name"] == "due_instants"]
    assert not check["ok"]
    assert f"trigger tick: nothing is recorded of what was due at {key}" in check["detail"]


@pytest.mark.parametrize(
    ("timers", "due", "said"),
    [
        (0, 0, "there are no timers"),
        (2, 0, "nothing came due of 2 timers since each has its schedule"),
        (1, 3, "3 due instants of 1 timer were dealt with, since it has its schedule, and each is recorded"),
    ],
)
def test_the_proof_says_since_when_it_counts(timers: int, due: int, said: str) -> None:
    check = Proof(timers=timers, left_out=0, due=due, recorded=due, broken=()).check()
    assert (check["ok"], check["detail"]) == (True, said)
