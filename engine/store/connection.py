"""SQLite connections: aiosqlite's, with whole functions handed to its thread at once."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import aiosqlite

from engine.errors import StoreDamaged, StoreUnavailable

T = TypeVar("T")

BUSY_TIMEOUT_S = 5.0
"""How long a write waits for another process that holds the file before it is refused as unavailable."""

LONGEST_IDLE_LOG_BYTES = 32 * 2**20

_PASSING = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_INTERRUPT,
    }
)
"""Primary result codes of what may pass by itself: a full disk, a lock, an I/O error."""

_BROKEN = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class Connection(aiosqlite.Connection):
    """An aiosqlite connection that runs a function on the raw connection in one hop to its thread.

    aiosqlite makes a hop (75 to 110 µs) of each call; a transaction of six statements would take six. `begin`
    and `call` use the queue and the thread that aiosqlite's own calls use.
    """

    def begin(self, function: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Put `function` in line for the connection's thread; SQLite's errors become ours in the future."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if not self._running:
            future.set_exception(StoreUnavailable("the store is closed"))
        else:
            self._tx.put_nowait((future, partial(_translating, [function], self._conn)))
        return future

    def run_aside(self, function: Callable[[sqlite3.Connection], None]) -> None:
        """Put `function` in line for the connection's thread, from whichever thread; nobody hears how it ends."""
        if self._running:
            self._tx.put_nowait((None, partial(function, self._conn)))

    async def call(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Run `function` in the connection's thread and return its result; SQLite's errors become ours."""
        return await self.begin(function)


def _translating(functions: list[Callable[[sqlite3.Connection], T]], raw: sqlite3.Connection) -> T:
    """Call the one function that is there.

    The thread keeps what it was given until there is more to do. It is to keep nothing of the function by that: who
    waits for it gives that back, in the thread which made it and has it at hand.
    """
    function = functions.pop()
    try:
        return function(raw)
    except sqlite3.Error as error:
        raise translate(error) from error


def translate(error: sqlite3.Error) -> Exception:
    """Return the engine's error for one of SQLite's; programming errors stay as they are."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return error
    name = getattr(error, "sqlite_errorname", "")
    if code & 0xFF in _PASSING:
        return StoreUnavailable(f"the store can't be written or read now: {error} ({name})")
    if code & 0xFF in _BROKEN:
        return StoreDamaged(f"the store is damaged: {error} ({name})")
    return error


def connector(path: Path, *, read_only: bool) -> Callable[[], sqlite3.Connection]:
    """Return what opens the file: without SQLite's own transactions, as we begin and commit ourselves."""

    def connect() -> sqlite3.Connection:
        mode = "ro" if read_only else "rw"
        raw = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            isolation_level=None,
            cached_statements=1024,
            timeout=BUSY_TIMEOUT_S,
            check_same_thread=False,
        )
        try:
            _set_up(raw, read_only=read_only)
        except BaseException:
            raw.close()
            raise
        return raw

    return connect


def _set_up(raw: sqlite3.Connection, *, read_only: bool) -> None:
    raw.execute("pragma cache_size = -32768")
    if not read_only:
        raw.execute("pragma synchronous = full")
        # We checkpoint ourselves, when nobody waits.
        raw.execute("pragma wal_autocheckpoint = 0")
        # A log that a long read had grow is cut when it is begun anew.
        raw.execute(f"pragma journal_size_limit = {LONGEST_IDLE_LOG_BYTES}").fetchall()
    raw.execute("pragma temp_store = memory")


async def connect(path: Path, *, read_only: bool) -> Connection:
    """Open a connection to an existing file."""
    connection = Connection(connector(path, read_only=read_only), iter_chunk_size=64)
    # A daemon thread: an engine that has to end at once does not wait for a statement.
    connection._thread.daemon = True
    try:
        await connection
    except sqlite3.Error as error:
        raise translate(error) from error
    return connection


def sync_directory(path: Path) -> None:
    """Make a rename in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_regular(path: Path) -> bool:
    """Tell whether a regular file is there."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return False
