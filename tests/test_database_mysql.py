"""Polls of a real MariaDB server by the driver of the extra `mysql`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from plugins.sources.database.source import Database
from tests.database_servers import mariadb_server
from tests.fakes import FakeSourceContext, until

QUERY = "select id, name, at, price from orders where at > :cursor order by at, id"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with mariadb_server() as found:
        yield found


class Orders:
    """A table, written as another program would."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def run(self, sql: str) -> Any:
        async with self._engine.begin() as connection:
            result = await connection.execute(text(sql))
            return result.scalar() if result.returns_rows else None


def url_of(port: int) -> str:
    return f"mysql+asyncmy://engine@127.0.0.1:{port}/test"


@pytest.fixture
async def orders(port: int) -> AsyncIterator[Orders]:
    engine = create_async_engine(url_of(port), poolclass=NullPool)
    made = Orders(engine)
    with anyio.fail_after(50):
        while True:
            try:
                await made.run("drop table if exists orders")
                break
            except OperationalError:  # it is not up yet
                await anyio.sleep(0.05)
    await made.run(
        "create table orders (id int auto_increment primary key, name text, at datetime, price decimal(9, 2))"
    )
    yield made
    await engine.dispose()


@pytest.fixture
def context(tmp_path: Path) -> FakeSourceContext:
    return FakeSourceContext(tmp_path)


def source(port: int, **settings: Any) -> Database:
    given = {"query": QUERY, "cursor": "at", "key": "id", "look_back": 60.0, "start": "beginning", **settings}
    return Database(url=url_of(port), min=0.01, every=0.05, **given)


async def test_rows_are_told_once_also_those_that_are_committed_late(
    port: int, orders: Orders, context: FakeSourceContext
) -> None:
    await orders.run("insert into orders (name, at, price) values ('a', '2026-01-01 12:00:00', 0.10)")
    await orders.run("insert into orders (name, at, price) values ('b', '2026-01-01 12:00:00', 0.10)")
    async with context.running(source(port)):
        await until(lambda: len(context.emitted) >= 2)
        await orders.run("insert into orders (name, at) values ('late', '2026-01-01 11:59:30')")
        await orders.run("insert into orders (name, at) values ('later', '2026-01-02 12:00:00')")
        await until(lambda: len(context.emitted) >= 4)
    assert [event.data["name"] for event in context.emitted] == ["a", "b", "late", "later"]
    assert context.emitted[0].data == {"id": 1, "name": "a", "at": "2026-01-01T12:00:00", "price": "0.10"}


async def test_rows_that_change_are_told(port: int, orders: Orders, context: FakeSourceContext) -> None:
    await orders.run("insert into orders (name) values ('a'), ('b')")
    query = "select id, name from orders"
    compared = source(port, query=query, cursor=None, look_back=0, changes="hash", start="now")
    async with context.running(compared):
        await until(lambda: len(context.memory) == 2)
        await orders.run("update orders set name = 'c' where id = 2")
        await orders.run("delete from orders where id = 1")
        await until(lambda: len(context.emitted) == 2)
    assert {event.type for event in context.emitted} == {"row.source.updated", "row.source.deleted"}


async def test_a_query_that_takes_too_long_is_ended_also_in_the_server(
    port: int, orders: Orders, context: FakeSourceContext
) -> None:
    await orders.run("insert into orders (name, at) values ('a', now())")
    slow = "select id, at, sleep(600) as name from orders where at > :cursor order by at, id"
    async with context.running(source(port, query=slow, timeout=0.2)):
        await until(lambda: "within 0.2s (`timeout`)" in (context.warning or ""))
    with anyio.fail_after(30):
        while True:
            active = "select count(*) from information_schema.processlist where info like '%sleep(600)%'"
            if not await orders.run(f"{active} and id <> connection_id()"):
                return
            await anyio.sleep(0.02)


async def test_a_query_that_writes_is_refused_by_the_server(
    port: int, orders: Orders, context: FakeSourceContext
) -> None:
    await orders.run("insert into orders (name, at) values ('a', now())")
    await orders.run("create or replace function greedy() returns int modifies sql data "
                     "begin insert into orders (name) values ('mine'); return 1; end")  # fmt: skip
    writes = "select id, at, greedy() as name from orders where at > :cursor order by at, id"
    async with context.running(source(port, query=writes)):
        await until(lambda: "READ ONLY transaction" in (context.warning or ""))
    assert await orders.run("select count(*) from orders") == 1
