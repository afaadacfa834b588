"""Servers of databases for tests, each of its own: started in a temporary directory, and stopped in the end."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import anyio
import pytest

STARTS_WITHIN_S = 50


def program(name: str, *places: str) -> str:
    """Return a server's program; skip the test where it can't be had, but fail where it has to be there."""
    for place in [found for pattern in places for found in sorted(Path("/").glob(pattern), reverse=True)]:
        if (place / name).exists():
            return str(place / name)
    if (found := shutil.which(name)) is not None:
        return found
    if os.environ.get("CI"):
        pytest.fail(f"{name} is not installed: .ci/run installs it")
    pytest.skip(f"{name} is not installed")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Account:
    """Who a server runs as: it may not be root."""

    def __init__(self) -> None:
        names = ("postgres", "nobody") if os.geteuid() == 0 else ()
        known = [entry for name in names if (entry := _account(name)) is not None]
        self.entry = known[0] if known else None

    def run(self, *command: str, stdin: TextIO | None = None) -> None:
        # Not by pipes: a server that it starts would hold them open.
        with tempfile.TemporaryFile("w+") as said:
            done = subprocess.run(
                command, stdin=stdin or subprocess.DEVNULL, stdout=said, stderr=said, timeout=STARTS_WITHIN_S, cwd="/",
                **self.options(),
            )  # fmt: skip
            said.seek(0)
            output = said.read()
        assert done.returncode == 0, f"{command}: {output}"

    def options(self) -> dict[str, Any]:
        if self.entry is None:
            return {}
        return {"user": self.entry.pw_uid, "group": self.entry.pw_gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        if self.entry is not None:
            os.chown(path, self.entry.pw_uid, self.entry.pw_gid)


def _account(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


@contextmanager
def home(account: Account) -> Iterator[Path]:
    """Give a directory that the account can get at, which below pytest's own directories it could not."""
    with tempfile.TemporaryDirectory(prefix="engine-db-", ignore_cleanup_errors=True) as made:
        path = Path(made)
        account.own(path)
        yield path


class Postgres:
    """A PostgreSQL server."""

    def __init__(self, directory: Path, account: Account) -> None:
        self._data = directory / "data"
        self._account = account
        self._pg_ctl = program("pg_ctl", "usr/lib/postgresql/*/bin")
        self.port = free_port()
        initdb = program("initdb", "usr/lib/postgresql/*/bin")
        account.run(
            initdb, "-D", str(self._data), "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync"
        )
        with (self._data / "postgresql.conf").open("a") as settings:
            settings.write(
                f"listen_addresses = '127.0.0.1'\nport = {self.port}\nunix_socket_directories = '{directory}'\n"
                "fsync = off\nmax_connections = 50\n"
            )

    def url(self, port: int | None = None, query: str = "") -> str:
        return f"postgresql+asyncpg://postgres@127.0.0.1:{port or self.port}/postgres{query}"

    @property
    def dsn(self) -> str:
        return self.url().replace("+asyncpg", "")

    def start(self) -> None:
        self._control("start", "-l", str(self._data / "log"))

    def restart(self) -> None:
        """Start anew without a word to anybody, as after a crash."""
        self._control("restart", "-m", "immediate", "-l", str(self._data / "log"))

    def stop(self) -> None:
        self._control("stop", "-m", "immediate")

    def _control(self, *what: str) -> None:
        command = (self._pg_ctl, "-D", str(self._data), "-w", "-t", str(STARTS_WITHIN_S), *what)
        self._account.run(*command)


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """Run a PostgreSQL server."""
    account = Account()
    program("initdb", "usr/lib/postgresql/*/bin")
    with home(account) as directory:
        server = Postgres(directory, account)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def mariadb_server() -> Iterator[int]:
    """Run a MariaDB server, and give its port; user `engine`, no password, database `test`."""
    account = Account()
    daemon = program("mariadbd", "usr/sbin")
    with home(account) as directory:
        data, port, sock, first = directory / "data", free_port(), directory / "sock", directory / "first.sql"
        data.mkdir()
        account.own(data)
        # What mariadb-install-db does, which needs a program of a larger package.
        first.write_text("create database mysql;\nuse mysql;\n" + "".join(
            Path(f"/usr/share/mysql/mysql_system_tables{part}.sql").read_text() for part in ("", "_data")
        ))  # fmt: skip
        with first.open() as script:
            account.run(daemon, "--no-defaults", "--bootstrap", f"--datadir={data}", stdin=script)
        first.write_text(
            "create database test;\ncreate user engine@'127.0.0.1';\ngrant all on *.* to engine@'127.0.0.1';\n"
        )
        command = [
            daemon, "--no-defaults", f"--datadir={data}", f"--socket={sock}", "--bind-address=127.0.0.1",
            f"--port={port}", f"--pid-file={directory}/pid", f"--init-file={first}", "--skip-name-resolve",
            "--innodb-flush-log-at-trx-commit=0", f"--log-error={directory}/log",
        ]  # fmt: skip
        with subprocess.Popen(command, cwd="/", **account.options()) as process:
            try:
                yield port
            finally:
                process.kill()


class Proxy:
    """A TCP proxy that can fall silent: it then takes what comes, and neither forwards nor closes anything."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.port = 0
        self._open = anyio.Event()
        self._open.set()
        self.taken = 0
        """Connections that were made to it."""

    def fall_silent(self) -> None:
        self._open = anyio.Event()

    def speak(self) -> None:
        self._open.set()

    async def run(self, group: anyio.abc.TaskGroup) -> None:
        """Listen; return once it does."""
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        self.port = listener.extra(anyio.abc.SocketAttribute.local_port)

        async def serve() -> None:
            async with listener:
                await listener.serve(self._serve)

        group.start_soon(serve)

    async def _serve(self, client: anyio.abc.SocketStream) -> None:
        self.taken += 1
        async with client:
            await self._open.wait()
            try:
                connected = await anyio.connect_tcp("127.0.0.1", self._target)
            except OSError:  # the server is down: so is the proxy, to who asks
                return
            async with connected as server, anyio.create_task_group() as both:

                async def forward(one: anyio.abc.SocketStream, other: anyio.abc.SocketStream) -> None:
                    try:
                        async for data in one:
                            await self._open.wait()
                            await other.send(data)
                    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                        pass
                    both.cancel_scope.cancel()

                both.start_soon(forward, client, server)
                await forward(server, client)
