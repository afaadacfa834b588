"""Listening: PostgreSQL says when there may be something new, and the next poll is made at once.

A notification is a hint, and no more: what is new is what a poll finds. So one that is lost costs time alone, and
whenever the connection stands anew, a poll looks for what was missed.
"""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from engine.plugin import Clock
from plugins.querying.reading import sentence_of

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 5.0
"""The pauses before it connects again: doubled each time, and spread, as many may have lost the same server."""

PING_S, PING_LIMIT_S = 4.0, 4.0
"""So often the server has to answer, and within so long: a connection that is cut without a word is found by that."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


class Bell:
    """Rung when a poll is worth while."""

    def __init__(self) -> None:
        self._rung = anyio.Event()

    def ring(self) -> None:
        self._rung.set()

    def hush(self) -> None:
        """Forget that it rang; what rings it from now on is heard."""
        if self._rung.is_set():
            self._rung = anyio.Event()

    async def heard(self) -> None:
        """Wait until it rings, or did since it was hushed."""
        await self._rung.wait()


class Listener:
    """Listens on a channel of a PostgreSQL database, over a connection of its own that it makes again and again.

    `tell` is told what keeps it from listening, and None once it listens.
    """

    def __init__(
        self, url: URL, channel: str, clock: Clock, *, connect_timeout_s: float, ring: Callable[[], None],
        tell: Callable[[str | None], None],
    ) -> None:  # fmt: skip
        self._url = url
        self._channel = channel
        self._clock = clock
        self._connect_timeout_s = connect_timeout_s
        self._ring = ring
        self._tell = tell
        self._failures = 0
        self._random = random.Random()  # noqa: S311 - spreads attempts, no secret

    async def run(self) -> None:
        """Listen until cancelled."""
        while True:
            try:
                await self._listen()
            except Exception as error:  # drivers raise what they like
                _log.debug("Listening failed", exc_info=True, extra={"action": "database_deaf"})
                self._tell(sentence_of(error))
            pause_s = min(FIRST_PAUSE_S * 2.0 ** min(self._failures, 10), LONGEST_PAUSE_S)
            self._failures += 1
            await self._clock.sleep(pause_s * self._random.uniform(0.8, 1.2))

    async def _listen(self) -> None:
        """Connect, and ring at each notification; raise what ends that."""
        lost = anyio.Event()
        async with self._connected() as driver:
            driver.add_termination_listener(lambda _: lost.set())
            await self._within(PING_LIMIT_S, lambda: driver.add_listener(self._channel, lambda *_: self._ring()))
            self._failures = 0
            self._tell(None)
            self._ring()
            while not lost.is_set():
                if not await self._is_set_within(lost, PING_S):
                    await self._within(PING_LIMIT_S, lambda: driver.execute("select 1"))
        raise ConnectionError("the server ended the connection")

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Any]:
        """Connect by the settings of the URL, as SQLAlchemy reads them; yield asyncpg's own connection."""
        engine = create_async_engine(self._url, poolclass=NullPool, hide_parameters=True)
        connection = engine.connect()
        try:
            await self._within(self._connect_timeout_s, connection.start)
            driver: Any = (await connection.get_raw_connection()).driver_connection
            try:
                yield driver
            finally:
                # No parting words: a server that is cut off would be waited for.
                driver.terminate()
        finally:
            with anyio.CancelScope(shield=True):
                await _let_go(connection)
                await engine.dispose()

    async def _within(self, limit_s: float, work: Callable[[], Awaitable[T]]) -> T:
        """Return what `work` returns; raise TimeoutError when its time is over."""
        results: list[T] = []
        failures: list[Exception] = []
        async with anyio.create_task_group() as group:

            async def expire() -> None:
                await self._clock.sleep(limit_s)
                group.cancel_scope.cancel()

            group.start_soon(expire)
            try:
                results.append(await work())
            except Exception as error:
                failures.append(error)
            group.cancel_scope.cancel()
        await anyio.lowlevel.checkpoint_if_cancelled()
        if results:
            return results[0]
        raise failures[0] if failures else TimeoutError(f"it did not answer within {limit_s:g}s")

    async def _is_set_within(self, event: anyio.Event, limit_s: float) -> bool:
        async with anyio.create_task_group() as group:

            async def expire() -> None:
                await self._clock.sleep(limit_s)
                group.cancel_scope.cancel()

            group.start_soon(expire)
            await event.wait()
            group.cancel_scope.cancel()
        await anyio.lowlevel.checkpoint_if_cancelled()
        return event.is_set()


async def _let_go(connection: AsyncConnection) -> None:
    if connection.sync_connection is None:
        return
    try:
        await connection.invalidate()
        await connection.close()
    except Exception:  # as above
        _log.debug("A connection could not be let go", exc_info=True, extra={"action": "database_failed"})
