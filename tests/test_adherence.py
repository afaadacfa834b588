"""Adherence: what was due, what ran and how late, in whole hours and days, from bins and without a look at the runs."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import runtime as runtime_module
from engine.adherence import adherence_of, kept_since, pieces
from engine.aftermath.counting import KEPT
from engine.config import Config
from engine.http.adherence_routes import COLUMNS, lines_of
from engine.runs import RunState
from engine.runtime import Runtime
from engine.store.changes import Accept
from engine.store.sqlite import SqliteStore
from engine.tallies import MOST_CODES, OTHERS, Planned, Tally, TallyKey, TallyRow, Width
from engine.testing import VirtualClock
from engine.testing.clock import START
from engine.triggers import PauseScope
from tests.fake_operations import FakeOperations
from tests.fakes import until
from tests.http_client import Client
from tests.organs import InlineStore
from tests.test_cli import Running, ask, here  # noqa: F401 - a fixture
from tests.test_cli import running as served  # noqa: F401 - a fixture
from tests.test_runtime import Gate, _fresh, configured  # noqa: F401 - a fixture
from tests.test_runtime import operations as of
from tests.test_runtime import running as running_engine

V1 = "/api/v1"
NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
DAY = timedelta(days=1)
SINCE = kept_since(NOW, KEPT[Width.HOUR])

TIMERS = """
[engine]
shutdown_grace = "0s"
[jobs.work]
run.gate = "open"
[jobs.bad]
run.exec = ["false"]
[triggers.tick]
on.interval = "10m"
job = "work"
[triggers.quiet]
on.interval = "10m"
job = "work"
filter = "data.size() > 100"
[triggers.fails]
on.interval = "30m"
job = "bad"
[triggers.held]
on.interval = "10m"
job = "work"
misfire.catch_up = "none"
[triggers.hand]
on.manual = true
job = "work"
"""


@pytest.fixture(autouse=True)
def _inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_module, "SqliteStore", InlineStore)


@asynccontextmanager
async def running(config: Config, clock: VirtualClock) -> AsyncIterator[Runtime]:
    async with running_engine(config, clock=clock) as engine:
        yield engine
        while engine.running:
            await clock.advance(1)


async def pass_time(engine: Runtime, clock: VirtualClock, seconds: float) -> None:
    """Let time pass, and what ran meanwhile end."""
    while seconds > 0:
        await clock.advance(min(seconds, 60.0))
        seconds -= 60.0
        await until(lambda: engine.running == 0)


# Which tallies are read

MOMENTS = st.datetimes(
    min_value=datetime(2026, 1, 1), max_value=datetime(2026, 11, 21, 9, 30), timezones=st.just(UTC)  # noqa: DTZ001
)  # fmt: skip


@given(MOMENTS, MOMENTS)
def test_pieces_cover_a_span_once_and_read_hours_only_where_they_are_kept(one: datetime, other: datetime) -> None:
    start, end = sorted((one, other))
    end += timedelta(microseconds=1)
    found = pieces(start, end, hours_since=SINCE)
    assert found[0].start <= start < end <= found[-1].end
    for piece, following in pairwise(found):
        assert piece.end == following.start
    for piece in found:
        assert piece.start < piece.end
        assert piece.start == piece.width.start_of(piece.start)
        assert piece.end == piece.width.start_of(piece.end)
        if piece.width is Width.HOUR:
            assert piece.start >= SINCE
            assert piece.end - piece.start <= DAY
    slack = Width.HOUR.length if start >= SINCE else DAY
    assert start - found[0].start < slack


def test_a_week_is_some_days_and_the_hours_at_its_ends() -> None:
    found = pieces(NOW - 7 * DAY, NOW, hours_since=SINCE)
    assert [(piece.width, (piece.end - piece.start) // timedelta(hours=1)) for piece in found] == [
        (Width.HOUR, 15), (Width.DAY, 6 * 24), (Width.HOUR, 10)
    ]  # fmt: skip
    assert [piece.width for piece in pieces(NOW - timedelta(hours=2), NOW, hours_since=SINCE)] == [Width.HOUR]


# What they say


def test_figures_of_several_tallies_are_added_up() -> None:
    first, second = Tally(), Tally()
    for number in range(90):
        first.plan.end(RunState.SUCCEEDED, "exit_zero")
        first.plan.begin(0.1 if number else 0.0)
    for _ in range(5):
        second.plan.end(RunState.FAILED, "exit")
        second.plan.begin(60.0)
    second.plan.end(RunState.MISSED, "down", 3)
    second.plan.pass_by("filter_false")
    second.plan.pass_by("filter_false")
    found = adherence_of("tick", [first, Tally(), second], NOW - DAY, NOW)
    assert (found.due, found.ran) == (100, 95)
    assert found.not_run == {"missed:down": 3, "no_run:filter_false": 2}
    assert found.kept_rate == 0.95
    assert found.success_rate == pytest.approx(90 / 95)
    late = found.lateness
    assert late.p50_s == pytest.approx(0.1, rel=0.05)
    assert late.p99_s == late.max_s == 60.0
    assert late.mean_s == pytest.approx((89 * 0.1 + 300) / 95)


def test_nothing_due_has_no_rates_and_what_is_on_time_is_not_late() -> None:
    empty = adherence_of("tick", [], NOW - DAY, NOW)
    assert (empty.due, empty.kept_rate, empty.success_rate, empty.lateness.max_s) == (0, None, None, None)
    tally = Tally()
    tally.plan.begin(-5.0)
    tally.plan.begin(0.0)
    assert adherence_of("tick", [tally], NOW - DAY, NOW).lateness.p99_s == 0.0


def test_codes_that_a_plugin_makes_up_are_bounded() -> None:
    planned = Planned()
    for number in range(MOST_CODES + 9):
        planned.end(RunState.SKIPPED, f"code_{number}")
    assert len(planned.codes) == MOST_CODES + 1
    assert planned.codes[OTHERS] == 9


# Under a clock that is turned


async def test_each_due_instant_is_found_in_the_report_with_what_became_of_it(tmp_path: Path) -> None:
    config, clock = configured(tmp_path, TIMERS), VirtualClock()
    async with running(config, clock) as engine:
        await of(engine).pause(PauseScope.TRIGGER, "held", reason="a test")
        await pass_time(engine, clock, 3600)
        await of(engine).resume(PauseScope.TRIGGER, "held")
        await pass_time(engine, clock, 1800)
        reports = of(engine).reports
        assert reports.names() == ["fails", "held", "quiet", "tick"]
        found = {
            one.trigger: one for one in await reports.adherence(
                [*reports.names(), "hand"], start=START, end=clock.now()
            )
        }  # fmt: skip
        ledger = await of(engine).store.ledger()
        assert ledger.missing == ()
    assert (found["tick"].due, found["tick"].ran, found["tick"].success_rate) == (9, 9, 1.0)
    assert found["tick"].lateness.max_s == 0.0
    assert found["quiet"].not_run == {"no_run:filter_false": 9}
    assert (found["quiet"].due, found["quiet"].ran, found["quiet"].kept_rate) == (9, 0, 0.0)
    assert (found["fails"].due, found["fails"].success_rate) == (3, 0.0)
    held = found["held"]
    assert held.by_state[RunState.MISSED] == held.due - held.ran > 0
    assert sum(held.not_run.values()) == held.by_state[RunState.MISSED]
    assert all(code.startswith("missed:") for code in held.not_run)
    assert held.due == 9
    assert found["hand"].due == 0


async def test_a_run_that_waits_for_its_slot_is_as_late_as_that(tmp_path: Path) -> None:
    text = """
[engine]
shutdown_grace = "0s"
[jobs.work]
run.gate = { gate = "shut", look_s = 1.0 }
concurrency = 1
[triggers.tick]
on.interval = "10m"
job = "work"
"""
    config, clock = configured(tmp_path, text), VirtualClock()
    async with running(config, clock) as engine:
        await clock.advance(1200)
        await until(lambda: len(Gate.begun) == 1)
        await clock.advance(60)
        Gate.open.add("shut")
        await until(lambda: len(Gate.begun) == 1)
        while engine.running:
            await clock.advance(0.01)
        [found] = await of(engine).reports.adherence(["tick"], start=START, end=clock.now())
    assert found.due == found.ran == 2
    assert found.lateness.max_s == pytest.approx(60, abs=1)
    assert found.lateness.p50_s == 0.001  # the first bin: a millisecond at most


async def test_what_a_killed_engine_had_counted_is_counted_anew_from_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    config, clock = configured(tmp_path, TIMERS), VirtualClock()
    async with running(config, clock) as engine:
        await pass_time(engine, clock, 3000)

        async def die() -> None: ...

        # Nothing of it was stored but the runs themselves.
        with sqlite3.connect(config.store.path) as raw:
            raw.execute("delete from tallies")
            raw.execute("delete from memory where source = 'engine:counting'")
        raw.close()
        monkeypatch.setattr(of(engine).counting, "end", die)
    monkeypatch.undo()
    monkeypatch.setattr(runtime_module, "SqliteStore", InlineStore)
    async with running(config, VirtualClock(clock.now())) as engine:
        [found] = await of(engine).reports.adherence(["tick"], start=START, end=clock.now() + timedelta(seconds=1))
    assert (found.due, found.ran) == (5, 5)
    assert found.lateness.max_s == 0.0


async def test_a_report_reads_some_rows_however_many_have_run(tmp_path: Path) -> None:
    """A hundred thousand runs of a week are 168 hours and 8 days; the report of a week reads 31 rows of them."""
    config, clock = configured(tmp_path, TIMERS), VirtualClock(NOW)
    async with running(config, clock) as engine:
        store, read = of(engine).store, list[int]()
        assert isinstance(store, SqliteStore)
        many = Tally()
        for _ in range(100):
            many.plan.end(RunState.SUCCEEDED, "exit_zero")
            many.plan.begin(0.2)
        rows = []
        hour = Width.HOUR.start_of(NOW - 8 * DAY)
        while hour <= NOW:
            rows.append(_row("tick", Width.HOUR, hour, many))
            hour += timedelta(hours=1)
        day = Width.DAY.start_of(NOW - 30 * DAY)
        while day <= NOW:
            whole = Tally()
            for _ in range(24):
                whole.take(many)
            rows.append(_row("tick", Width.DAY, day, whole))
            day += DAY
        for start in range(0, len(rows), 200):
            await of(engine)._journal.submit(Accept(entries=(), tallies=tuple(rows[start : start + 200])))
        asked = store.tallies

        async def counted(**which: Any) -> Any:
            found = await asked(**which)
            read.append(len(found))
            return found

        store.tallies = counted  # type: ignore[method-assign]
        [found] = await of(engine).reports.adherence(["tick"], start=NOW - 7 * DAY, end=NOW)
        assert sum(read) == 15 + 6 + 10
        assert found.due == 100 * (7 * 24 + 1)
        [month] = await of(engine).reports.adherence(["tick"], start=NOW - 30 * DAY, end=NOW)
        assert month.due == 100 * (30 * 24 + 10)
        text = "select * from tallies where trigger = ? and width = ? and began_at >= ? and began_at < ?"
        with sqlite3.connect(config.store.path) as raw:
            [(_, _, _, step)] = raw.execute(f"explain query plan {text}", ("tick", "hour", 0, 1)).fetchall()
        raw.close()
        assert "USING PRIMARY KEY (trigger=? AND width=? AND began_at>? AND began_at<?)" in step


def _row(trigger: str, width: Width, at: datetime, tally: Tally) -> TallyRow:
    return TallyRow(key=TallyKey(trigger=trigger, job="work", width=width, began_at=at), tally=tally)


# Over HTTP, and on the command line


async def test_the_api_tells_of_one_trigger_and_of_all(
    operations: FakeOperations, client: Client
) -> None:  # fmt: skip
    one = (await client.ask("GET", f"{V1}/triggers/nightly/adherence?over=24h")).json
    assert one["trigger"] == "nightly"
    assert (one["due"], one["ran"], one["succeeded"], one["failed"], one["missed"], one["no_run"]) == (
        10,
        8,
        7,
        1,
        1,
        1,
    )
    assert (one["kept_rate"], one["success_rate"]) == (0.8, 7 / 8)
    assert (one["late_max_s"], one["not_run"]) == (3.5, {"missed:down": 1, "no_run:=cmd()": 1})
    assert one["from"] < one["to"]
    every = (await client.ask("GET", f"{V1}/adherence")).json
    assert every == {"items": [{**every["items"][0], "trigger": "nightly"}], "next": None}
    for asked in (
        "over=soon", "over=401d", "over=1d&from=2026-11-20T00:00:00Z",
        "from=2026-11-22T00:00:00Z&to=2026-11-21T00:00:00Z", "from=yesterday", "format=xml", "untill=x",
        "from=2020-01-01T00:00:00Z",
    ):  # fmt: skip
        assert (await client.ask("GET", f"{V1}/triggers/nightly/adherence?{asked}")).status == 422, asked
    assert (await client.ask("GET", f"{V1}/triggers/nope/adherence")).status == 404
    assert (await client.ask("GET", f"{V1}/adherence", token=None)).status == 401


@pytest.mark.parametrize("path", ["adherence", "triggers/nightly/adherence"])
@pytest.mark.parametrize(("query", "accept"), [("?format=csv", ""), ("", "text/csv, */*;q=0.1")])
async def test_a_table_for_spreadsheets_holds_no_formulas(
    client: Client, path: str, query: str, accept: str
) -> None:  # fmt: skip
    got = await client.ask("GET", f"{V1}/{path}{query}", headers={"Accept": accept} if accept else {})
    assert got.headers["Content-Type"].startswith("text/csv")
    assert got.headers["Content-Disposition"].startswith("attachment; filename=")
    assert got.headers["X-Content-Type-Options"] == "nosniff"
    header, row = csv.reader(io.StringIO(got.body.decode()))
    assert tuple(header) == COLUMNS
    told = dict(zip(header, row, strict=True))
    assert (told["trigger"], told["due"], told["missed"]) == ("nightly", "10", "1")
    assert told["not_run"] == "missed:down 1; no_run:=cmd() 1"


def test_what_a_spreadsheet_would_compute_is_text() -> None:
    cells = ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "  =1", "a,b", 'a"b', "a\nb", -1.5, None]
    [row] = csv.reader(io.StringIO(lines_of([cells]), newline=""))
    assert row == ["'=1+1", "'+1", "'-1", "'@x", "'\tx", "'\rx", "'  =1", "a,b", 'a"b', "a\nb", "-1.5", ""]


def test_the_command_shows_it_as_words_table_json_and_csv(served: Running) -> None:  # noqa: F811
    one = ask(served, "adherence", "nightly", "--over", "1d")
    assert one.exit_code == 0, one.output
    assert "10 due instants" in one.stdout
    assert "not run    1: missed:down" in one.stdout
    every = ask(served, "adherence")
    assert "nightly" in every.stdout
    assert "80.0%" in every.stdout
    assert json.loads(ask(served, "--json", "adherence").stdout)["items"][0]["due"] == 10
    table = ask(served, "adherence", "--csv").stdout
    assert table.startswith("trigger,from,to,due")
    assert len(table.splitlines()) == 2
    assert ask(served, "adherence", "--csv", "--json").exit_code == 2
    assert ask(served, "adherence", "nope").exit_code == 1
