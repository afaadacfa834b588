"""Polls of a real database: what becomes an event, and that nothing is lost or told twice whatever happens to it."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.to_thread import run_sync

from engine.errors import StoreDamaged
from engine.plugin import Secret
from plugins.querying.connecting import Halt, read_url
from plugins.querying.reading import Ask, Reader, ReadFailed
from plugins.sources.database import polling
from plugins.sources.database.polling import Pace
from plugins.sources.database.source import Database
from tests.fakes import FakeSourceContext, until

URL = "sqlite+aiosqlite:///app.db"
QUERY = "select id, name from orders where id > :cursor order by id limit 5"
STAMPED = "select id, at from orders where at > :cursor order by at, id"
ENDLESS = "with recursive c(x) as (select 1 union all select x + 1 from c) select max(x) as id from c"

TIMEOUT_S = 86_400.0


class Orders:
    """A database file with a table `orders`, written as another program would.

    With the journal `wal` its writes need not wait until a poll has read its rows; they are made on the loop.
    """

    def __init__(self, path: Path, *, journal: str = "wal") -> None:
        self.raw = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.raw.execute(f"pragma journal_mode = {journal}")
        self.raw.execute("create table orders (id integer primary key, name text, at text)")

    def add(self, *names: Any, at: str | None = None) -> None:
        self.raw.executemany("insert into orders (name, at) values (?, ?)", [(name, at) for name in names])

    def run(self, sql: str, *values: Any) -> None:
        self.raw.execute(sql, values)


@pytest.fixture
def orders(tmp_path: Path) -> Iterator[Orders]:
    made = Orders(tmp_path / "app.db")
    yield made
    made.raw.close()


@pytest.fixture
def context(tmp_path: Path) -> FakeSourceContext:
    made = FakeSourceContext(tmp_path)
    made.name = "database:orders"
    return made


def source(**settings: Any) -> Database:
    return Database(
        **{"url": URL, "query": QUERY, "cursor": "id", "start": "beginning", "min": 0.005, "every": 0.02, **settings}
    )


def compared(**settings: Any) -> Database:
    return source(
        **{"query": "select id, name from orders", "cursor": None, "changes": "hash", "key": "id", **settings}
    )


def names(context: FakeSourceContext) -> list[Any]:
    return [event.data["name"] for event in context.emitted]


async def told(context: FakeSourceContext, count: int) -> None:
    await until(lambda: len(context.emitted) >= count)


async def logged(caplog: pytest.LogCaptureFixture, said: str) -> str:
    """Wait until something was logged, and return it."""

    def found() -> list[str]:
        return [message for record in caplog.records if said in (message := record.getMessage())]

    caplog.set_level(logging.INFO)
    await until(found)
    return found()[-1]


class Paced:
    """A clock that lets each pause between two polls end when the test says so; no query ever takes too long."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self._go = anyio.Semaphore(0)

    def now(self) -> datetime:
        return datetime(2026, 11, 21, 12, 0, tzinfo=UTC)

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        if seconds >= TIMEOUT_S:
            await anyio.sleep_forever()
        self.pauses.append(seconds)
        await self._go.acquire()

    async def rounds(self, count: int) -> None:
        """Let polls be made until there were `count` in all."""
        while len(self.pauses) < count:
            if before := len(self.pauses):
                self._go.release()
            await until(lambda before=before: len(self.pauses) > before)  # type: ignore[misc]


# Rows become events


async def test_rows_become_events_page_by_page_and_new_ones_as_they_come(
    orders: Orders, context: FakeSourceContext
) -> None:
    orders.add(*range(12))
    async with context.running(source()):
        await told(context, 12)
        orders.add("late")
        await told(context, 13)
    assert names(context) == [*map(str, range(12)), "late"]
    first = context.emitted[0]
    assert (first.type, first.subject, first.key) == ("row.orders", "1", "1")
    assert first.data == {"id": 1, "name": "0"}
    assert context.batches == [5, 5, 2, 1]


async def test_a_restart_goes_on_where_the_cursor_was_left(orders: Orders, context: FakeSourceContext) -> None:
    orders.add("a", "b")
    async with context.running(source()):
        await told(context, 2)
    orders.add("c")
    again = context.restarted()
    async with again.running(source()):
        await told(again, 3)
    assert names(again) == ["a", "b", "c"]
    assert again.batches[-1] == 1


async def test_now_takes_what_is_there_for_known(orders: Orders, context: FakeSourceContext) -> None:
    orders.add(*range(12))
    async with context.running(source(start="now")):
        await until(lambda: context.store.position)
        assert await context.cursor() == {"column": "id", "kind": "int", "value": "12"}
        orders.add("new")
        await told(context, 1)
    assert names(context) == ["new"]


async def test_now_on_an_empty_table_tells_of_the_first_row(orders: Orders, context: FakeSourceContext) -> None:
    async with context.running(source(start="now")):
        await until(lambda: context.store.position)
        orders.add("first")
        await told(context, 1)
    assert names(context) == ["first"]


async def test_now_is_found_behind_a_limit_that_nobody_sees(orders: Orders, context: FakeSourceContext) -> None:
    orders.add(*range(12))
    inner = "select * from (select id, name from orders where id > :cursor order by id limit 5) order by id"
    async with context.running(source(start="now", query=inner)):
        await until(lambda: context.store.position)
        orders.add("new")
        await told(context, 1)
    assert names(context) == ["new"]


async def test_a_start_can_be_a_value(orders: Orders, context: FakeSourceContext) -> None:
    orders.add(*range(1, 6))
    async with context.running(source(start=3)):
        await told(context, 2)
    assert names(context) == ["4", "5"]


@pytest.mark.parametrize("values", [(-(2**63), -1, 0, 2**63 - 1), ("", "A", "a", "ä"), (-1.5, 0, 2.25)])
async def test_the_beginning_is_before_any_value_of_any_kind(
    orders: Orders, context: FakeSourceContext, values: tuple[Any, ...]
) -> None:
    orders.run("create table t (v)")
    for value in values:
        orders.run("insert into t values (?)", value)
    async with context.running(source(query="select v from t where v > :cursor order by v limit 2", cursor="v")):
        await told(context, len(values))
    assert [event.data["v"] for event in context.emitted] == list(values)


async def test_rows_that_share_a_value_are_told_once_each_however_late_they_come(
    orders: Orders, context: FakeSourceContext
) -> None:
    settings: dict[str, Any] = {"query": STAMPED, "cursor": "at", "key": "id"}
    orders.add(*range(3), at="2026-11-21 12:00:00")
    async with context.running(source(**settings)):
        await told(context, 3)
        orders.add(3, at="2026-11-21 12:00:00")
        await told(context, 4)
    orders.add(4, at="2026-11-21 12:00:00")
    orders.add(5, at="2026-11-21 12:00:01")
    again = context.restarted()
    async with again.running(source(**settings)):
        await told(again, 6)
    assert [event.data["id"] for event in again.emitted] == [1, 2, 3, 4, 5, 6]
    assert again.emitted[0].key == '["2026-11-21 12:00:00",1]'
    assert again.emitted[0].subject == "1"
    assert list(again.memory) == ['["2026-11-21 12:00:01",6]']


async def test_rows_that_are_committed_within_the_look_back_are_told(
    orders: Orders, context: FakeSourceContext
) -> None:
    settings: dict[str, Any] = {"query": STAMPED, "cursor": "at", "key": "id", "look_back": 10.0, "page": 2}
    for second in (0, 5, 9, 20):
        orders.add("x", at=f"2026-11-21 12:00:{second:02}")
    async with context.running(source(**settings)):
        await told(context, 4)
        orders.add("late", at="2026-11-21 12:00:12")
        await told(context, 5)
        orders.add("later", at="2026-11-21 12:00:30")
        await told(context, 6)
        await until(lambda: len(context.memory) == 2)
    assert [event.data["id"] for event in context.emitted] == [1, 2, 3, 4, 5, 6]
    assert list(context.memory) == ['["2026-11-21 12:00:20",4]', '["2026-11-21 12:00:30",6]']


async def test_a_batch_is_one_event_for_a_page(orders: Orders, context: FakeSourceContext) -> None:
    orders.add(*"abcdefg")
    async with context.running(source(emit="batch", type="orders.new")):
        await told(context, 2)
    assert [len(event.data["rows"]) for event in context.emitted] == [5, 2]
    assert {event.type for event in context.emitted} == {"orders.new"}
    assert [event.subject for event in context.emitted] == ["5", "7"]


async def test_a_batch_that_an_event_can_not_hold_is_several(orders: Orders, context: FakeSourceContext) -> None:
    context.max_data = 400
    orders.add(*("x" * 100 for _ in range(5)))
    async with context.running(source(emit="batch")):
        await told(context, 2)
    assert [len(event.data["rows"]) for event in context.emitted] == [3, 2]
    assert context.batches == [2]


@pytest.mark.parametrize("emit", ["row", "batch"])
async def test_a_row_that_no_event_can_hold_is_recorded_and_the_others_go_on(
    orders: Orders, context: FakeSourceContext, emit: str
) -> None:
    context.max_data = 400
    orders.add("a", "x" * 1000, "b")
    async with context.running(source(emit=emit)):
        await told(context, 1 if emit == "batch" else 2)
        orders.add("c")
        await told(context, 2 if emit == "batch" else 3)
    ((event, reason),) = context.rejected
    assert (event.subject, event.data["columns"]) == ("2", ["id", "name"])
    assert "as JSON, an event holds 4" in reason or "an event holds 3" in reason


async def test_large_rows_end_a_page_early_and_are_all_told(
    orders: Orders, context: FakeSourceContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "PAGE_BYTES", 10_000)
    orders.run(
        "insert into orders (name) with recursive n(i) as (select 1 union all select i + 1 from n where i < 200) "
        "select printf('%0200d', i) from n"
    )
    query = "select id, name from orders where id > :cursor order by id"
    async with context.running(source(query=query, page=1000)):
        await told(context, 200)
    assert [event.data["id"] for event in context.emitted] == list(range(1, 201))
    assert max(context.batches) <= 50


async def test_values_that_json_lacks_are_told_as_the_documentation_says(
    orders: Orders, context: FakeSourceContext
) -> None:
    query = "select 1 as id, null as n, x'00ff' as b, cast(x'61ff' as text) as t, 9e999 as i, :cursor as c"
    async with context.running(source(query=f"select * from ({query}) where id > :cursor order by id", start=0)):
        await told(context, 1)
    assert context.emitted[0].data == {"id": 1, "n": None, "b": "AP8=", "t": "a\ufffd", "i": "Infinity", "c": 0}


# Crashes, and a store that is away


async def test_what_the_store_can_not_take_is_offered_again(
    orders: Orders, context: FakeSourceContext, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(polling, "STORE_PAUSE_S", 0.001)
    context.max_data = 400
    orders.add("a", "x" * 1000, "b")
    context.failures = 5
    async with context.running(source()):
        await told(context, 2)
        assert context.refused_calls == 5
        assert len(context.rejected) == 1
    assert "offered again" in await logged(caplog, "offered again")


@pytest.mark.parametrize("committed", [False, True])
@pytest.mark.parametrize("settings", [{}, {"key": "name", "look_back": 3}, {"emit": "batch", "key": "name"}])
async def test_a_crash_around_the_commit_neither_loses_nor_doubles(
    orders: Orders, context: FakeSourceContext, committed: bool, settings: dict[str, Any]
) -> None:
    orders.add(*range(12))
    crashed = anyio.Event()

    async def crash() -> None:
        if len(context.batches) == 2:
            crashed.set()
            await anyio.sleep_forever()

    context.before_answer = crash
    if not committed:
        real = context.emit

        async def lost(*events: Any, **more: Any) -> Any:
            if len(context.batches) == 1:
                crashed.set()
                await anyio.sleep_forever()
            return await real(*events, **more)

        context.emit = lost  # type: ignore[method-assign]
    async with context.running(source(**settings)):
        await crashed.wait()
    again = context.restarted()
    async with again.running(source(**settings)):
        await until(lambda: again.store.position["value"] == "12")
    rows = [row for event in again.emitted for row in event.data.get("rows", [event.data])]
    assert [row["id"] for row in rows] == list(range(1, 13))


# A database that is away, or another than before


async def test_a_file_that_is_missing_is_waited_for(
    tmp_path: Path, context: FakeSourceContext, caplog: pytest.LogCaptureFixture
) -> None:
    async with context.running(source()):
        said = await logged(caplog, "have no result")
        assert f"{tmp_path / 'app.db'} is not there" in said
        assert not (tmp_path / "app.db").exists()
        with closing(Orders(tmp_path / "app.db").raw) as raw:
            raw.execute("insert into orders (name) values ('a')")
        await told(context, 1)
        await logged(caplog, "is well again")


@pytest.mark.parametrize("kind", ["text", "directory", "pipe"])
async def test_what_is_no_database_is_said_and_holds_nothing_up(
    tmp_path: Path, context: FakeSourceContext, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    path = tmp_path / "app.db"
    if kind == "text":
        path.write_text("this is not a database " * 1000)
    elif kind == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)
    async with context.running(source()):
        said = await logged(caplog, "have no result")
    assert ("file is not a database" if kind == "text" else "is no file") in said


async def test_a_file_that_was_replaced_is_noticed(tmp_path: Path, context: FakeSourceContext) -> None:
    with closing(Orders(tmp_path / "app.db").raw) as raw:
        raw.execute("insert into orders (name) values ('a')")
    async with context.running(source()):
        await told(context, 1)
        with closing(Orders(tmp_path / "new.db").raw) as raw:
            raw.execute("insert into orders (id, name) values (7, 'b')")
        (tmp_path / "new.db").rename(tmp_path / "app.db")
        await told(context, 2)
    assert names(context) == ["a", "b"]


async def test_a_table_or_column_that_comes_later_is_waited_for(
    orders: Orders, context: FakeSourceContext, caplog: pytest.LogCaptureFixture
) -> None:
    orders.run("alter table orders rename to hidden")
    async with context.running(source(query=QUERY.replace("name", "name, total"))):
        assert "no such table: orders" in await logged(caplog, "have no result")
        orders.run("alter table hidden rename to orders")
        assert "no such column: total" in await logged(caplog, "total")
        orders.run("alter table orders add column total numeric default 5")
        orders.add("a")
        await told(context, 1)
    assert context.emitted[0].data == {"id": 1, "name": "a", "total": 5}


async def test_a_schema_that_changes_between_polls_changes_the_rows(orders: Orders, context: FakeSourceContext) -> None:
    orders.add("a")
    async with context.running(source(query="select * from orders where id > :cursor order by id")):
        await told(context, 1)
        orders.run("alter table orders drop column at")
        orders.run("alter table orders add column size int")
        orders.run("insert into orders (name, size) values ('b', 3)")
        await told(context, 2)
    assert [list(event.data) for event in context.emitted] == [["id", "name", "at"], ["id", "name", "size"]]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("select name from orders where id > :cursor order by id", "no column 'id', which `cursor` names"),
        ("select id, name, at as id from orders where id > :cursor order by id", "two columns the name 'id'"),
        ("select null as id, name from orders where id > :cursor order by id", "no value in the cursor's column"),
        ("select id - 9 as id from orders where id > :cursor or 1 order by id", "when asked from"),
        ("select -id as id from orders where id > :cursor order by orders.id", "rows do not come in the order"),
        ("select 1 as id from orders where orders.id > :cursor order by id", "two rows share the value 1"),
    ],
)
async def test_rows_that_can_not_be_followed_are_said_and_nothing_is_told_of_them(
    orders: Orders, context: FakeSourceContext, caplog: pytest.LogCaptureFixture, query: str, said: str
) -> None:
    orders.add("a", "b")
    start = 0 if " or 1 " in query else "beginning"
    async with context.running(source(query=query, start=start)):
        assert said in await logged(caplog, "have no result")
    assert context.emitted == []
    assert await context.cursor() is None


async def test_a_run_of_ties_beyond_the_page_is_said_and_goes_on_once_the_page_is_larger(
    orders: Orders, context: FakeSourceContext, caplog: pytest.LogCaptureFixture
) -> None:
    settings: dict[str, Any] = {"query": STAMPED, "cursor": "at", "key": "id"}
    orders.add(*range(6), at="2026-11-21 12:00:00")
    orders.add(6, at="2026-11-21 12:00:01")
    async with context.running(source(**settings, page=4)):
        assert "4 rows or more share the value 2026-11-21 12:00:00" in await logged(caplog, "have no result")
        assert source(**settings, page=4).identity() == source(**settings, page=7).identity()
    again = context.restarted()
    async with again.running(source(**settings, page=7)):
        await told(again, 7)
    assert sorted(event.data["id"] for event in again.emitted) == [1, 2, 3, 4, 5, 6, 7]


async def test_ties_that_only_the_database_sees_as_such_do_not_make_it_spin(
    orders: Orders, context: FakeSourceContext, caplog: pytest.LogCaptureFixture
) -> None:
    orders.run("create table t (v text collate nocase, id integer primary key)")
    for value in ("a", "A", "b"):
        orders.run("insert into t (v) values (?)", value)
    query = "select v, id from t where v > :cursor order by v, id"
    async with context.running(source(query=query, cursor="v", key="id", page=2)):
        await logged(caplog, "share the value")
    assert sorted(event.data["v"] for event in context.emitted) == ["A", "a"]


async def test_a_database_that_another_program_has_locked_is_waited_for(
    tmp_path: Path, context: FakeSourceContext, caplog: pytest.LogCaptureFixture
) -> None:
    orders = Orders(tmp_path / "app.db", journal="delete")
    orders.add("a")
    with closing(orders.raw):
        async with context.running(source(connect_timeout=0.05)):
            await told(context, 1)
            # A poll that reads must go on meanwhile, for its lock is waited for.
            await run_sync(orders.run, "begin exclusive")
            orders.add("b")
            assert "locked" in await logged(caplog, "have no result")
            await run_sync(orders.run, "commit")
            await told(context, 2)
    assert names(context) == ["a", "b"]


async def test_a_poll_holds_no_lock_while_its_rows_are_stored(tmp_path: Path, context: FakeSourceContext) -> None:
    orders = Orders(tmp_path / "app.db", journal="delete")
    orders.add("a")
    storing = anyio.Event()

    async def hold() -> None:
        storing.set()
        await anyio.sleep_forever()

    context.before_answer = hold
    with closing(orders.raw):
        async with context.running(source()):
            await storing.wait()
            orders.run("pragma busy_timeout = 0")
            orders.run("begin exclusive")
            orders.run("commit")


# Bounds


async def test_a_query_that_takes_too_long_is_ended_and_asked_again(
    orders: Orders, context: FakeSourceContext, caplog: pytest.LogCaptureFixture
) -> None:
    endless = f"select id, name from orders where id > :cursor and (name <> 'slow' or ({ENDLESS}) = 0) order by id"
    orders.add("slow", "b")
    async with context.running(source(query=endless, timeout=0.1)):
        assert "it did not answer within 0.1s (`timeout`)" in await logged(caplog, "have no result")
        orders.run("update orders set name = 'a' where id = 1")
        await told(context, 2)
    assert names(context) == ["a", "b"]


async def test_a_source_that_is_stopped_ends_its_query(
    orders: Orders, context: FakeSourceContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threading.Event()

    def ask(halt: Halt) -> bool:
        asked.set()
        return halt.is_set

    monkeypatch.setattr(Halt, "asked", ask)
    with anyio.fail_after(10):
        async with context.running(compared(query=ENDLESS)):
            await until(asked.is_set)


@pytest.mark.parametrize(
    "sql", ["insert into orders (name) values ('x')", "create table x (y)", "pragma user_version = 7"]
)
async def test_nothing_can_be_written(orders: Orders, tmp_path: Path, context: FakeSourceContext, sql: str) -> None:
    for url in (URL, f"{URL}?mode=rwc", "sqlite+aiosqlite:///file:app.db?mode=rw&uri=true"):
        reader = Reader(read_url(url), tmp_path, context.clock, timeout_s=5.0, connect_timeout_s=5.0)
        with pytest.raises(ReadFailed, match="readonly database"):
            await reader.read(Ask(sql=sql), lambda _: True)
        await reader.close()
    assert orders.raw.execute("select count(*) from orders").fetchone() == (0,)
    assert orders.raw.execute("pragma user_version").fetchone() == (0,)


async def test_a_store_that_fails_is_told_as_it_is(orders: Orders, context: FakeSourceContext) -> None:
    async def damaged() -> None:
        raise StoreDamaged("the file is damaged")

    context.before_answer = damaged
    orders.add("a")
    with pytest.raises(StoreDamaged, match="the file is damaged"):
        await source().run(context)


async def test_polls_come_fast_while_rows_come_and_slow_down_when_there_are_none(
    orders: Orders, tmp_path: Path
) -> None:
    clock = Paced()
    context = FakeSourceContext(tmp_path, clock=clock)
    timeouts = {"timeout": TIMEOUT_S, "connect_timeout": TIMEOUT_S}
    async with context.running(source(min=1.0, every=10.0, **timeouts)):
        await clock.rounds(6)
        assert clock.pauses == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
        orders.add("a")
        await clock.rounds(8)
        assert clock.pauses[6:] == [1.0, 2.0]
        orders.run("alter table orders rename to away")
        await clock.rounds(12)
        assert clock.pauses[8:] == [1.0, 2.0, 4.0, 8.0]


def test_the_pause_never_leaves_its_bounds() -> None:
    pace = Pace(0.5, 3.0)
    assert [pace.after(found=found) for found in (True, True, False, False, False, True)] == [0.5, 0.5, 1, 2, 3, 0.5]


async def test_of_a_secret_url_nothing_is_shown(
    tmp_path: Path, context: FakeSourceContext, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    hidden = Secret(f"sqlite+aiosqlite:///{tmp_path}/hidden-name.db")
    async with context.running(source(url=hidden)):
        await logged(caplog, "have no result")
    told_of = "".join(record.getMessage() for record in caplog.records if record.name.startswith(("engine", "plugins")))
    assert "is not there" in told_of
    assert "hidden-name" not in told_of
    assert "hidden-name" not in source(url=hidden).identity()


# Comparing


async def test_rows_that_appear_change_and_go_are_told(orders: Orders, context: FakeSourceContext) -> None:
    orders.add("a", "b", "c")
    async with context.running(compared(start="now")):
        await until(lambda: context.store.position)
        orders.run("begin")
        orders.add("d")
        orders.run("update orders set name = 'B' where id = 2")
        orders.run("delete from orders where id = 1")
        orders.run("commit")
        await told(context, 3)
    found = {event.type: (event.subject, event.data) for event in context.emitted}
    assert found == {
        "row.orders.inserted": ("4", {"id": 4, "name": "d"}),
        "row.orders.updated": ("2", {"id": 2, "name": "B"}),
        "row.orders.deleted": ("1", {"id": 1}),
    }
    assert list(context.memory) == ["[2]", "[3]", "[4]"]


async def test_the_beginning_tells_of_all_rows_and_a_restart_of_none(
    orders: Orders, context: FakeSourceContext
) -> None:
    orders.add("a", "b", "c")
    async with context.running(compared(page=2)):
        await told(context, 3)
    orders.run("delete from orders where id = 3")
    again = context.restarted()
    async with again.running(compared(page=2)):
        await told(again, 4)
    assert [event.type.rpartition(".")[2] for event in again.emitted] == 3 * ["inserted"] + ["deleted"]
    assert [event.key for event in again.emitted] == ["1:[1]", "2:[2]", "3:[3]", "4:[3]"]


async def test_there_and_back_are_two_changes(orders: Orders, context: FakeSourceContext) -> None:
    orders.add("a")
    async with context.running(compared()):
        for count, name in enumerate("abab", 1):
            orders.run("update orders set name = ?", name)
            await told(context, count)
    assert names(context) == ["a", "b", "a", "b"]


@pytest.mark.parametrize("stage", ["baseline", "changes"])
async def test_a_crash_in_the_midst_of_a_comparison_neither_loses_nor_doubles(
    orders: Orders, context: FakeSourceContext, stage: str
) -> None:
    orders.add(*range(10))
    crashed = anyio.Event()

    async def crash() -> None:
        if len(context.batches) == 3:
            crashed.set()
            await anyio.sleep_forever()

    context.before_answer = crash
    settings: dict[str, Any] = {"page": 2, "start": "now" if stage == "baseline" else "beginning"}
    async with context.running(compared(**settings)):
        await crashed.wait()
    again = context.restarted()
    async with again.running(compared(**settings)):
        await until(lambda: len(again.memory) == 10 and again.store.position)
        orders.run("delete from orders where id = 2")
        await until(lambda: again.emitted and again.emitted[-1].type.endswith(".deleted"))
    before = [event.data["id"] for event in again.emitted[:-1]]
    assert before == ([] if stage == "baseline" else list(range(1, 11)))


async def test_a_comparison_whose_changes_are_large_is_made_in_several_looks(
    orders: Orders, context: FakeSourceContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "HELD_BYTES", 20_000)
    orders.add(*("x" * 100 for _ in range(500)))
    async with context.running(compared()):
        await told(context, 500)
        orders.run("delete from orders where id = 7")
        await told(context, 501)
    assert len({event.subject for event in context.emitted}) == 500
    assert [event.type for event in context.emitted[500:]] == ["row.orders.deleted"]


async def test_a_key_that_comes_twice_is_said(
    orders: Orders, context: FakeSourceContext, caplog: pytest.LogCaptureFixture
) -> None:
    orders.add("a", "a")
    async with context.running(compared(key="name")):
        assert 'two rows have the key ["a"]' in await logged(caplog, "have no result")
    assert context.emitted == []


async def test_another_way_of_following_begins_anew(
    orders: Orders, context: FakeSourceContext, caplog: pytest.LogCaptureFixture
) -> None:
    orders.add("a", "b")
    async with context.running(compared()):
        await told(context, 2)
    again = context.restarted()
    async with again.running(source(start="now")):
        await logged(caplog, "begins anew")
        await until(lambda: again.store.position == {"column": "id", "kind": "int", "value": "2"})
    assert again.memory == {}
    assert len(again.emitted) == 2


async def test_a_hundred_thousand_rows_are_compared(orders: Orders, context: FakeSourceContext) -> None:
    orders.run(
        "insert into orders (name) with recursive n(i) as (select 1 union all select i + 1 from n where i < 100000) "
        "select 'order ' || i from n"
    )
    async with context.running(compared(start="now", page=5000)):
        await until(lambda: context.store.position, within_s=50)
        orders.run("update orders set name = 'changed' where id = 99999")
        await until(lambda: context.emitted, within_s=50)
    assert len(context.memory) == 100_000
    assert [event.subject for event in context.emitted] == ["99999"]
