"""Databases: which URLs can be asked, and connections on which nothing can be written."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote, unquote

from sqlalchemy import URL, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from engine.plugin import BadSetting

LONGEST_BUSY_S = 5.0
"""So long SQLite itself waits for a lock; that can't be interrupted, so a poll that found one is tried again."""

PROGRESS_STEPS = 100_000
"""Every so many steps of its machine, some milliseconds, SQLite asks whether it has to end."""

LONGEST_CHANNEL = 63
"""PostgreSQL would cut longer names off."""

READ_ONLY = "set transaction read only"
READ_ONLY_BACKENDS = frozenset({"postgresql", "mysql", "mariadb", "oracle"})

_ASYNC_DRIVERS = {
    "sqlite": "sqlite+aiosqlite:///app.db",
    "postgresql": "postgresql+asyncpg://user@host/name",
    "mysql": "mysql+asyncmy://user@host/name",
    "mariadb": "mariadb+asyncmy://user@host/name",
    "oracle": "oracle+oracledb_async://user@host",
    "mssql": "mssql+aioodbc://user@host/name",
}

_EXTRAS = {"asyncpg": "postgres", "asyncmy": "mysql"}
"""The extra by which a driver is installed; drivers that are no part of one are installed by their own names."""


class Halt:
    """Ends what SQLite does: set, every statement fails as interrupted at its next steps."""

    def __init__(self) -> None:
        self.is_set = False

    def asked(self) -> bool:
        return self.is_set


def read_url(text: str) -> URL:
    """Return a database's URL; raise BadSetting where it can't be asked.

    The message tells of the URL no more than the name of a driver that is known.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise BadSetting("url", "is no URL of a database", f'such as "{_ASYNC_DRIVERS["sqlite"]}"') from None
    example = _ASYNC_DRIVERS.get(url.get_backend_name(), _ASYNC_DRIVERS["sqlite"])
    dialect = _dialect(url, example)
    if not dialect.is_async:
        message = f"names the driver {dialect.driver}, which would hold up the engine while it waits"
        raise BadSetting("url", message, f'name an asynchronous one: "{example}"')
    try:
        dialect.import_dbapi()
    except ImportError as error:
        package = getattr(error, "name", None) or dialect.driver
        extra = _EXTRAS.get(package)
        way_out = f"pip install 'trigger-engine[{extra}]'" if extra else f"pip install {package}"
        raise BadSetting("url", f"needs the package {package}, which is not installed", way_out) from None
    if url.get_backend_name() == "sqlite" and _is_in_memory(url):
        message = "names a database in memory, which is empty for everybody but who made it"
        raise BadSetting("url", message, f'name a file: "{example}"')
    return url


def check_listening(url: URL, channel: str) -> None:
    """Refuse a channel that can't be listened on; its name is taken as it is, in quotes."""
    if url.get_backend_name() != "postgresql" or url.get_driver_name() != "asyncpg":
        message = "is for PostgreSQL by asyncpg: other databases and drivers have no notifications"
        raise BadSetting("listen", message, f'leave it out, or url = "{_ASYNC_DRIVERS["postgresql"]}"')
    if len(channel.encode()) > LONGEST_CHANNEL or "\0" in channel:
        message = f"is no name of a channel: it has {LONGEST_CHANNEL} bytes at most, and no NUL"
        raise BadSetting("listen", message, 'such as listen = "orders_changed"')


def place_of(url: URL) -> list[str | int | None]:
    """Return what makes it the same database: not who asks, and not by which driver."""
    return [url.get_backend_name(), url.host, url.port, url.database]


def secrets_of(url: URL, *, all_of_it: bool) -> list[str]:
    """Return what of a URL must not be shown: its password, or each of its parts where it is a secret as a whole."""
    parts: list[str | None] = [url.password]
    if all_of_it:
        values = [value for entry in url.query.values() for value in ([entry] if isinstance(entry, str) else entry)]
        whole, file = url.render_as_string(hide_password=False), (url.database or "").rpartition("/")[2]
        parts += [whole, url.username, url.host, url.database, file, *values]
    return [part for part in parts if part]


def sqlite_file(url: URL, base: Path) -> Path:
    """Return the file of an SQLite URL; a relative one is relative to `base`."""
    name = url.database or ""
    if name.startswith("file:"):
        name = unquote(name.removeprefix("file:"))
        if name.startswith("//"):
            name = "/" + name[2:].partition("/")[2]
    return base / name


def open_engine(url: URL, base: Path, halt: Halt, *, connect_timeout_s: float) -> AsyncEngine:
    """Return an engine for a URL. What it connects to can't be written by its connections, where the database has that.

    An SQLite file is opened anew for each poll, in mode `ro`, so that one that was replaced is noticed. Elsewhere one
    connection is kept.
    """
    if url.get_backend_name() == "sqlite":
        return _open_sqlite(url, base, halt, busy_s=min(connect_timeout_s, LONGEST_BUSY_S))
    return create_async_engine(
        url, pool_size=1, max_overflow=0, pool_pre_ping=True, pool_recycle=1800, hide_parameters=True
    )


def _open_sqlite(url: URL, base: Path, halt: Halt, *, busy_s: float) -> AsyncEngine:
    query = {name: value for name, value in url.query.items() if name not in ("mode", "uri", "timeout")}
    place = "file:" + quote(str(sqlite_file(url, base)))
    read_only = url.set(database=place, query={**query, "mode": "ro", "uri": "true"})
    engine = create_async_engine(read_only, poolclass=NullPool, connect_args={"timeout": busy_s}, hide_parameters=True)

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: DBAPIConnection, _: object) -> None:
        raw = connection.driver_connection
        # One text that is not UTF-8 must not keep all other rows from being read.
        raw.text_factory = lambda text: text.decode("utf-8", "replace")
        connection.run_async(lambda found: found.set_progress_handler(halt.asked, PROGRESS_STEPS))

    return engine


def _dialect(url: URL, example: str) -> Dialect:
    try:
        return url.get_dialect()()
    except NoSuchModuleError:
        # The scheme is not repeated: of a secret that is no URL it could be a part.
        message = "names a database or driver that SQLAlchemy does not know"
        raise BadSetting("url", message, f'such as "{example}"') from None


def _is_in_memory(url: URL) -> bool:
    name = url.database or ""
    return name in ("", ":memory:", "file:", "file::memory:") or url.query.get("mode") == "memory"
