"""Reading: a query is asked in a form, in bounded time, and nothing that was begun is ever committed."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import anyio
from msgspec import Struct
from sqlalchemy import URL, TextClause, column, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from engine.plugin import Clock
from plugins.querying.connecting import (
    READ_ONLY,
    READ_ONLY_BACKENDS,
    Halt,
    open_engine,
    sqlite_file,
)
from plugins.querying.rows import BadRows

CHUNK = 50
"""So many rows are taken at a time: few, as rows may be large, and as turning them into JSON holds the loop up."""

LONGEST_SENTENCE = 300

CLOSE_S = 1.0
"""A server has so long to take leave of us."""

T = TypeVar("T")
Take = Callable[[Sequence[Mapping[str, Any]]], bool]
"""Takes some rows, and says whether more are wanted."""

_log = logging.getLogger(__name__)


class ReadFailed(Exception):
    """The database did not answer, or refused; the text is one sentence, in which secrets may stand."""


class Ask(Struct, frozen=True, kw_only=True):
    """A query in one of its forms, and the value of `:cursor` where it has that."""

    sql: str
    value: Any = None

    def statement(self) -> TextClause:
        made = text(self.sql)
        return made if self.value is None else made.bindparams(cursor=self.value)


class Reader:
    """Asks one database, one question at a time."""

    def __init__(self, url: URL, base: Path, clock: Clock, *, timeout_s: float, connect_timeout_s: float) -> None:
        self._backend = url.get_backend_name()
        self._file = sqlite_file(url, base) if self._backend == "sqlite" else None
        self._clock = clock
        self._timeout_s = timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._halt = Halt()
        self._engine = open_engine(url, base, self._halt, connect_timeout_s=connect_timeout_s)

    async def close(self) -> None:
        """Close all connections; one whose server says nothing to that is dropped."""
        with anyio.CancelScope(shield=True):
            if self._file is not None:
                await self._engine.dispose()
                return
            try:
                await self._within(CLOSE_S, "close", self._engine.dispose)
            except Exception:  # drivers raise what they like
                _log.debug("A connection could not be closed", exc_info=True, extra={"action": "database_failed"})

    async def read(self, ask: Ask, take: Take) -> bool:
        """Hand the rows of a query to `take`, some at a time; return false where that wanted no more of them.

        Raises ReadFailed, and BadRows where two columns have one name, or what `take` raises.
        """

        async def work(connection: AsyncConnection) -> bool:
            async with connection.stream(ask.statement()) as result:
                names = list(result.keys())
                _check_names(names)
                async for part in result.partitions(CHUNK):
                    if not take([dict(zip(names, row, strict=True)) for row in part]):
                        return False
            return True

        return await self._ask(work)

    async def greatest(self, sql: str, name: str) -> Any:
        """Return the greatest value that a column of a query has, or None where there are no rows."""
        rows = text(sql).columns(column(name)).subquery("asked")
        value = rows.c[name]

        async def work(connection: AsyncConnection) -> Any:
            return await connection.scalar(select(value).order_by(value.desc()).limit(1))

        return await self._ask(work)

    async def _ask(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Do some reading on a connection, within a transaction that is given up in the end."""

        async def whole() -> T:
            # SQLite would wait for ever for what is no file, such as a named pipe.
            if self._file is not None and not await anyio.Path(self._file).is_file():
                raise ReadFailed(f"{self._file} is not there, or is no file")
            connection = self._engine.connect()
            try:
                await self._within(self._connect_timeout_s, "connect_timeout", connection.start)
                return await self._within(self._timeout_s, "timeout", lambda: self._transact(connection, work))
            finally:
                if connection.sync_connection is not None:
                    with anyio.CancelScope(shield=True):
                        await self._give_up(connection)

        try:
            return await whole()
        except (ReadFailed, BadRows):
            raise
        except Exception as error:  # drivers raise what they like
            _log.debug("A query failed", exc_info=True, extra={"action": "database_failed"})
            raise ReadFailed(self._sentence(error)) from None

    async def _transact(self, connection: AsyncConnection, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        if self._backend in READ_ONLY_BACKENDS:
            await connection.execute(text(READ_ONLY))
        if self._backend == "postgresql":
            # The server's own watch: it ends the statement also where our request to end it does not arrive.
            await connection.execute(text(f"set local statement_timeout = {int(self._timeout_s * 1000) + 1000}"))
        elif self._backend in ("mysql", "mariadb"):
            bound = (
                f"max_statement_time = {self._timeout_s + 1}" if getattr(connection.dialect, "is_mariadb", False)
                else f"max_execution_time = {int(self._timeout_s * 1000) + 1000}"
            )  # fmt: skip
            await connection.execute(text(f"set session {bound}"))
        return await work(connection)

    async def _give_up(self, connection: AsyncConnection) -> None:
        """Return a connection, having rolled back; one that doesn't even do that is thrown away."""
        try:
            await self._within(self._connect_timeout_s, "connect_timeout", connection.close)
        except Exception:  # as above
            _log.debug("A connection could not be returned", exc_info=True, extra={"action": "database_failed"})

    async def _within(self, limit_s: float, setting: str, work: Callable[[], Awaitable[T]]) -> T:
        """Return what `work` returns; end it when its time is over, or when nobody waits for it any more.

        The thread of SQLite hears of no cancellation, and SQLAlchemy waits for it: it is halted instead, and `work`
        ends by itself.
        """
        results: list[T] = []
        failures: list[Exception] = []
        expired = False
        self._halt.is_set = False
        async with anyio.create_task_group() as group:
            with anyio.CancelScope(shield=True) as scope:

                async def watch() -> None:
                    nonlocal expired
                    try:
                        await self._clock.sleep(limit_s)
                        expired = True
                    finally:
                        self._halt.is_set = True
                        if self._file is None:
                            scope.cancel()

                group.start_soon(watch)
                try:
                    results.append(await work())
                except Exception as error:
                    failures.append(error)
            group.cancel_scope.cancel()
        await anyio.lowlevel.checkpoint_if_cancelled()
        if results:
            return results[0]
        if expired or not failures:
            raise ReadFailed(f"it did not answer within {limit_s:g}s (`{setting}`)")
        raise failures[0]

    def _sentence(self, error: Exception) -> str:
        said = sentence_of(error)
        return f"{said}: {self._file}" if self._file is not None and "unable to open" in said else said


def sentence_of(error: Exception) -> str:
    """Return what an error says, in one bounded line."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return " ".join(str(cause).split())[:LONGEST_SENTENCE] or type(cause).__name__


def _check_names(names: Sequence[str]) -> None:
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise BadRows(f"the query gives two columns the name {sorted(twice)[0]!r}: rename one with `as`")
