"""Polls of a real PostgreSQL server: what wakes them, and what they do when it fails, hangs or falls silent."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import asyncpg
import pytest
from anyio.to_thread import run_sync

from engine.plugin import BadSetting
from engine.sources.supervisor import STOP_S
from plugins.sources.database import listening
from plugins.sources.database.polling import LONGEST_RETRY_S, Pace
from plugins.sources.database.source import Database
from tests.database_servers import Postgres, Proxy, postgres_server
from tests.fakes import FakeSourceContext, until

QUERY = "select id, name from orders where id > :cursor order by id"
NEVER = 3600.0


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres_server() as made:
        yield made


@pytest.fixture
async def orders(server: Postgres) -> AsyncIterator[asyncpg.Connection]:
    """A table `orders`, which is new for each test, and a connection that writes to it."""
    connection = await asyncpg.connect(server.dsn)
    await connection.execute("drop table if exists orders")
    await connection.execute(
        "create table orders (id bigserial primary key, name text, at timestamptz default now(), price numeric)"
    )
    yield connection
    connection.terminate()


@pytest.fixture
def context(tmp_path: Path) -> FakeSourceContext:
    made = FakeSourceContext(tmp_path)
    made.name = "database:orders"
    return made


def source(url: str, **settings: Any) -> Database:
    given = {"query": QUERY, "cursor": "id", "start": "beginning", "min": 0.01, "every": 0.05, **settings}
    return Database(url=url, **given)


def names(context: FakeSourceContext) -> list[Any]:
    return [event.data["name"] for event in context.emitted]


async def add(orders: asyncpg.Connection, *new: str) -> None:
    await orders.executemany("insert into orders (name) values ($1)", [(name,) for name in new])


async def test_rows_are_told_once_and_in_order_also_by_time_stamps_that_they_share(
    server: Postgres, orders: asyncpg.Connection, context: FakeSourceContext
) -> None:
    query = "select id, name, at, price from orders where at > :cursor order by at, id"
    await orders.execute(
        "insert into orders (name, at, price) select 'n' || i, timestamptz '2026-01-01 12:00+01', 0.10 "
        "from generate_series(1, 2) i"
    )
    async with context.running(source(server.url(), query=query, cursor="at", key="id", look_back=60.0)):
        await until(lambda: len(context.emitted) >= 2)
        # A transaction that took longer than the one after it.
        await orders.execute("insert into orders (name, at) values ('late', '2026-01-01 11:59:30+01')")
        await orders.execute("insert into orders (name, at) values ('later', '2026-01-02 12:00+01')")
        await until(lambda: len(context.emitted) >= 4)
    assert names(context) == ["n1", "n2", "late", "later"]
    assert context.emitted[0].data == {"id": 1, "name": "n1", "at": "2026-01-01T11:00:00Z", "price": "0.10"}


async def test_a_notification_brings_on_the_next_poll_at_once(
    server: Postgres, orders: asyncpg.Connection, context: FakeSourceContext
) -> None:
    await add(orders, "a")
    async with context.running(source(server.url(), min=NEVER, every=NEVER, listen="Orders changed")):
        await until(lambda: names(context) == ["a"])
        await until_it_listens(orders)
        for name in "bcd":
            async with orders.transaction():
                await add(orders, name)
                await orders.execute("select pg_notify('Orders changed', '')")
            await until(lambda name=name: names(context)[-1] == name)  # type: ignore[misc]
    assert names(context) == ["a", "b", "c", "d"]


async def until_counted(orders: asyncpg.Connection, count: int, which: str) -> None:
    """Wait until the server has so many other clients of a kind."""
    others = "backend_type = 'client backend' and pid <> pg_backend_pid()"
    asked = f"select count(*) from pg_stat_activity where {others} and {which}"
    with anyio.fail_after(30):
        while True:
            if await orders.fetchval(asked) == count:
                return
            await anyio.sleep(0.01)


LISTENING = "(query like 'LISTEN%' or query = 'select 1')"


async def until_it_listens(orders: asyncpg.Connection) -> None:
    await until_counted(orders, 1, LISTENING)


async def test_what_was_written_while_nobody_listened_is_found_once_it_listens_again(
    server: Postgres, orders: asyncpg.Connection, context: FakeSourceContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "FIRST_PAUSE_S", 0.01)
    async with context.running(source(server.url(), min=NEVER, every=NEVER, listen="orders")):
        await until_it_listens(orders)
        await add(orders, "missed")
        await orders.execute(f"select pg_terminate_backend(pid) from pg_stat_activity where {LISTENING}")
        await until(lambda: names(context) == ["missed"])
        await until(lambda: context.warning is None)


async def test_a_server_that_is_restarted_under_load_loses_and_doubles_nothing(
    server: Postgres, orders: asyncpg.Connection, context: FakeSourceContext
) -> None:
    written: list[str] = []
    stopping = anyio.Event()

    async def write() -> None:
        while not stopping.is_set():
            try:
                connection = await asyncpg.connect(server.dsn)
                while not stopping.is_set():
                    name = f"n{len(written)}"
                    await connection.execute("insert into orders (name) values ($1)", name)
                    await connection.execute("notify orders")
                    written.append(name)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await anyio.sleep(0.02)
        await connection.close()

    # A cursor that is handed out before its commit needs one writer, as here.
    async with context.running(source(server.url(), listen="orders")), anyio.create_task_group() as group:
        group.start_soon(write)
        for _ in range(2):
            before = len(context.emitted)
            await until(lambda before=before: len(context.emitted) > before + 20)  # type: ignore[misc]
            await run_sync(server.restart)
        before = len(context.emitted)
        await until(lambda: len(context.emitted) > before + 20)
        stopping.set()
        await until(lambda: context.warning is None and names(context)[-1] == written[-1])
    # An insert whose answer was lost may have been committed: its name then comes twice in the table, too.
    orders = await asyncpg.connect(server.dsn)
    assert names(context) == [row["name"] for row in await orders.fetch("select name from orders order by id")]
    await orders.close()


async def test_a_server_that_falls_silent_is_told_of_and_polled_again_once_it_speaks(
    server: Postgres, orders: asyncpg.Connection, context: FakeSourceContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "PING_S", 0.05)
    monkeypatch.setattr(listening, "PING_LIMIT_S", 0.5)
    async with anyio.create_task_group() as group:
        proxy = Proxy(server.port)
        await proxy.run(group)
        polled = source(server.url(proxy.port, "?ssl=disable"), listen="orders", timeout=0.5, connect_timeout=0.5)
        async with context.running(polled):
            await add(orders, "a")
            await until(lambda: names(context) == ["a"])
            await until_it_listens(orders)
            proxy.fall_silent()
            await add(orders, "b")
            await until(
                lambda: (
                    "polls have no result: it did not answer within 0.5s" in (context.warning or "")
                    and "notifications on 'orders' do not come: it did not answer within 0.5s"
                    in (context.warning or "")
                )
            )
            proxy.speak()
            await until(lambda: names(context) == ["a", "b"] and context.warning is None)
        group.cancel_scope.cancel()


@pytest.mark.parametrize("pause_s", [0.01, NEVER])
async def test_a_source_ends_soon_also_while_the_server_is_silent(
    server: Postgres, orders: asyncpg.Connection, context: FakeSourceContext, pause_s: float
) -> None:
    async with anyio.create_task_group() as group:
        proxy = Proxy(server.port)
        await proxy.run(group)
        polled = source(server.url(proxy.port, "?ssl=disable"), listen="orders", min=pause_s, every=pause_s)
        with anyio.fail_after(STOP_S + 15):
            async with context.running(polled):
                await add(orders, "a")
                await orders.execute("notify orders")
                await until(lambda: names(context) == ["a"])
                await until_it_listens(orders)
                proxy.fall_silent()
        group.cancel_scope.cancel()


async def test_a_query_that_takes_too_long_is_ended_also_in_the_server(
    server: Postgres, orders: asyncpg.Connection, context: FakeSourceContext
) -> None:
    await add(orders, "a")
    slow = "select id, pg_sleep(600)::text as name from orders where id > :cursor order by id"
    async with context.running(source(server.url(), query=slow, timeout=0.2)):
        await until(lambda: "within 0.2s (`timeout`)" in (context.warning or ""))
    await until_counted(orders, 0, "state = 'active' and query like '%600%'")


async def test_a_query_that_writes_is_refused_by_the_server(
    server: Postgres, orders: asyncpg.Connection, context: FakeSourceContext
) -> None:
    await orders.execute(
        "create or replace function greedy() returns bigint language sql as "
        "$$ insert into orders (name) values ('mine') returning id $$"
    )
    writes = "select id, greedy() as name from (select 1::bigint as id) one where id > :cursor order by id"
    async with context.running(source(server.url(), query=writes)):
        await until(lambda: "read-only transaction" in (context.warning or ""))
    assert await orders.fetchval("select count(*) from orders") == 0


async def test_several_rounds_take_one_connection_and_leave_none_behind(
    server: Postgres, orders: asyncpg.Connection, context: FakeSourceContext
) -> None:
    await until_counted(orders, 0, "true")
    async with context.running(source(server.url(), listen="orders")):
        for name in "abc":
            await add(orders, name)
            await until(lambda name=name: name in names(context))  # type: ignore[misc]
        await until_it_listens(orders)
        await until_counted(orders, 2, "true")
    await until_counted(orders, 0, "true")


def test_a_channel_is_for_postgresql_alone_and_has_a_name_that_it_can_have() -> None:
    with pytest.raises(BadSetting, match="other databases and drivers have no notifications"):
        source("sqlite+aiosqlite:///app.db", listen="orders")
    with pytest.raises(BadSetting, match="63 bytes at most"):
        source("postgresql+asyncpg://u@h/n", listen="ä" * 40)


def test_an_extra_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for driver, url, extra in (
        ("asyncpg", "postgresql+asyncpg://u@h/n", "postgres"), ("asyncmy", "mysql+asyncmy://u@h/n", "mysql"),
    ):  # fmt: skip
        monkeypatch.setitem(sys.modules, driver, None)
        with pytest.raises(BadSetting, match=f"needs the package {driver}, which is not installed") as caught:
            source(url)
        assert caught.value.hint == f"pip install 'trigger-engine[{extra}]'"


def test_after_errors_a_database_is_asked_again_soon_however_rarely_it_is_polled() -> None:
    pace = Pace(1.0, 600.0)
    for _ in range(12):
        pace.after(found=False)
    assert [pace.after_error() for _ in range(6)] == [1, 2, 4, 8, 8, 8]
    assert max(Pace(1.0, 600.0).after_error() for _ in range(3)) <= LONGEST_RETRY_S
    assert [Pace(60.0, 600.0).after_error(), Pace(0.5, 1.0).after_error()] == [60.0, 0.5]
    assert pace.after(found=False) == 600
