"""Opening a SQLite store: made, checked, migrated, or refused; never overwritten."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from engine.errors import StoreDamaged, StoreError, StoreInUse, StoreUnavailable, StoreVersion
from engine.processes import kernel_start
from engine.store.connection import is_regular, sync_directory, translate
from engine.store.migrations import APPLICATION_ID, MIGRATIONS

CHECKED_AT_START_BYTES = 64 * 2**20
"""Files up to this size are checked whole before they are used; of larger ones the rest is checked beside the work."""

_WAY_OUT = "Move it away and put back a backup, or start with an empty data directory; it was left as it is."


class Lock:
    """A lock file that belongs to one process at a time and dies with it; it holds the process id."""

    def __init__(self, path: Path, what: str) -> None:
        """Take the lock, in a directory that is made where it is missing.

        Raises StoreInUse, naming the process that has it, and StoreUnavailable where there can be no such file.
        """
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            no_directory = isinstance(error, (FileExistsError, NotADirectoryError))
            reason = "there is a file in place of a directory" if no_directory else error.strerror
            raise StoreUnavailable(
                f"{what} can't be used: {reason}. Make {path.parent} a directory that this "
                "user can write to, or name another one in the configuration."
            ) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _written(self._descriptor)
            os.close(self._descriptor)
            owner = f"process {pid}" if pid else "another process"
            raise StoreInUse(
                f"{what} is in use by {owner}. Stop that engine first, or give this one another directory.",
                pid=pid,
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Give the lock back; its file stays, empty, as removing it could let two in."""
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)


def holder_of(path: Path) -> int | None:
    """Return the process that holds a lock file; None where none does, or that can't be told.

    The lock is tried for, shared and for an instant, only where the process lives whose id is there: so who looks keeps
    no engine from its lock that starts again after its predecessor was killed.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        pid = _written(descriptor)
        if pid is None or kernel_start(pid) is None:
            return None
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return pid
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return None


def _written(descriptor: int) -> int | None:
    """Return the process id in a lock file; an empty one belongs to nobody."""
    text = os.pread(descriptor, 64, 0).decode("ascii", "replace").strip()
    return int(text) if text.isdecimal() else None


def prepare(path: Path, migrations: Sequence[str] = MIGRATIONS) -> bool:
    """Make the file ready for use; return whether it was checked whole.

    A missing file is made: under another name, with its tables, and then renamed, so that a crash leaves no
    half of one. An existing file is checked, and brought to the newest version after a copy of it was put
    beside it.

    Raises StoreDamaged, StoreVersion, or StoreUnavailable.
    """
    if not is_regular(path):
        if path.exists():
            raise StoreDamaged(f"{path} is no regular file. {_WAY_OUT}")
        log = path.with_name(path.name + "-wal")
        if log.exists() and log.stat().st_size > 0:
            raise StoreDamaged(
                f"{path} is missing, but its write-ahead log {path.name}-wal is there. "
                "Put the file back; both belong together."
            )
        _create(path, migrations)
        return True
    if path.stat().st_size == 0:
        raise StoreDamaged(f"{path} is empty, so it is no store. {_WAY_OUT}")
    try:
        with _opened(path, _unchanged(path)) as raw:
            checked = _check(path, raw)
            version = _version(path, raw, len(migrations))
        if version < len(migrations):
            with _opened(path, "mode=rw") as raw:
                _migrate(path, raw, version, migrations)
    except sqlite3.DatabaseError as error:
        cause = translate(error)
        if isinstance(cause, StoreDamaged):
            raise StoreDamaged(f"{path} is damaged: {error}. {_WAY_OUT}") from error
        raise cause from error
    return checked


def _unchanged(path: Path) -> str:
    """Return how to open a file that may be refused, so that it stays byte for byte as it is.

    The last connection to leave moves the write-ahead log into the file, unless it can only read; one that
    only reads makes a log where there is none, unless it takes the file to be unchanging. It is: we hold the
    lock.
    """
    return "mode=ro" if path.with_name(path.name + "-wal").exists() else "mode=ro&immutable=1"


@contextlib.contextmanager
def _opened(path: Path, how: str) -> Iterator[sqlite3.Connection]:
    raw = sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, isolation_level=None)
    try:
        yield raw
    finally:
        raw.close()


def _create(path: Path, migrations: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    for leftover in (new, new.with_name(new.name + "-wal"), new.with_name(new.name + "-shm")):
        leftover.unlink(missing_ok=True)
    try:
        raw = sqlite3.connect(new, isolation_level=None)
        try:
            # Works only before anything else is written.
            raw.execute("pragma auto_vacuum = incremental")
            raw.execute("pragma journal_mode = wal")
            raw.execute("pragma synchronous = full")
            raw.execute(f"pragma application_id = {APPLICATION_ID}")
            for number, text in enumerate(migrations, start=1):
                raw.executescript(f"begin immediate; {text}; pragma user_version = {number}; commit;")
        finally:
            raw.close()
    except sqlite3.Error as error:
        raise translate(error) from error
    os.chmod(new, 0o600)
    with new.open("rb") as file:
        os.fsync(file.fileno())
    os.rename(new, path)
    sync_directory(path.parent)


def _check(path: Path, raw: sqlite3.Connection) -> bool:
    """Check the file's integrity: whole where it is small, else its schema and the roots of its tables."""
    if path.stat().st_size <= CHECKED_AT_START_BYTES:
        findings = [row[0] for row in raw.execute("pragma quick_check(10)")]
        if findings != ["ok"]:
            raise StoreDamaged(f"{path} is damaged: {'; '.join(findings)}. {_WAY_OUT}")
        return True
    for (table,) in raw.execute("select name from sqlite_schema where type = 'table'").fetchall():
        raw.execute(f'select * from "{table}" limit 1').fetchall()
    return False


def _version(path: Path, raw: sqlite3.Connection, newest: int) -> int:
    (application,) = raw.execute("pragma application_id").fetchone()
    if application != APPLICATION_ID:
        raise StoreDamaged(f"{path} is a database, but no store of this engine. {_WAY_OUT}")
    (version,) = raw.execute("pragma user_version").fetchone()
    if version > newest:
        raise StoreVersion(
            f"{path} has schema version {version}, this engine knows {newest}. "
            "Install the engine that wrote it, or a newer one; the file was left as it is."
        )
    return int(version)


def _migrate(path: Path, raw: sqlite3.Connection, version: int, migrations: Sequence[str]) -> None:
    """Bring the file to the newest version, all steps in one transaction, after copying it."""
    backup = path.with_name(f"{path.name}.v{version}.backup")
    # Also where a copy is there: it may be older than the file, which is whole until the transaction ends.
    partial = backup.with_name(backup.name + ".part")
    partial.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(partial)) as copy:
        raw.backup(copy)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    os.rename(partial, backup)
    sync_directory(path.parent)
    raw.execute("pragma synchronous = full")
    steps = [
        f"{text}; pragma user_version = {number}" for number, text in enumerate(migrations[version:], start=version + 1)
    ]
    try:
        raw.executescript(f"begin immediate; {'; '.join(steps)}; commit;")
    except sqlite3.Error as error:
        (reached,) = raw.execute("pragma user_version").fetchone()
        if raw.in_transaction:
            raw.rollback()
        cause = translate(error)
        if isinstance(cause, StoreError):
            raise cause from error
        raise StoreDamaged(
            f"{path}: migration {reached + 1} failed: {error}. The file is as it was; a copy is {backup}."
        ) from error
