"""A copy of a store's file, made beside an engine that works on it.

SQLite's backup takes it from a connection of its own that can only read, within one read transaction: so the copy is
the store as it was at one commit, writers go on meanwhile, and what they write does not make it begin anew. It is
checked before it gets its name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import time
from pathlib import Path

from msgspec import Struct

from engine.errors import Conflict, StoreDamaged, StoreUnavailable
from engine.store.connection import BUSY_TIMEOUT_S, is_regular, sync_directory, translate
from engine.store.migrations import APPLICATION_ID

STEP_PAGES = 512
"""So many pages are copied at once; 2 MB."""

PAUSE_S = 0.002
"""Between two steps, so that the disk is not one long copy to everybody else."""


_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)
"""What file systems say that know no hard links, as those of memory sticks and of some network drives."""


class Copied(Struct, frozen=True, kw_only=True):
    """A copy that was made: where, how large, and how long it took."""

    path: Path
    size_bytes: int
    took_s: float


def copy_store(path: Path, to: Path) -> Copied:
    """Copy the store at `path` into the new file `to`, which is durable and checked when this returns. Blocking.

    Raises Conflict where there is something at `to`, StoreUnavailable where the store can't be read or the copy not be
    written, and StoreDamaged where the store is no store, or the copy is not whole.
    """
    began_s = time.monotonic()
    if to.exists() or to.is_symlink():
        raise Conflict(f"{to} is there already; name another file")
    if not is_regular(path):
        raise StoreUnavailable(f"there is no store in {path}")
    partial = to.with_name(f"{to.name}.{os.getpid()}.part")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            _copy(path, partial)
            size_bytes = _finish(partial, to)
        finally:
            for leftover in (partial, *(partial.with_name(partial.name + end) for end in ("-wal", "-shm", "-journal"))):
                leftover.unlink(missing_ok=True)
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:  # the store is only read
            raise StoreUnavailable(f"the copy {to} can't be written: its disk is full") from error
        raise translate(error) from error
    except FileExistsError:
        raise Conflict(f"{to} is there already; name another file") from None
    except OSError as error:
        raise StoreUnavailable(f"the copy {to} can't be written: {error.strerror or error}") from error
    return Copied(path=to, size_bytes=size_bytes, took_s=time.monotonic() - began_s)


def _copy(path: Path, partial: Path) -> None:
    with (
        contextlib.closing(_connect(path, "ro")) as source,
        contextlib.closing(_connect(partial, "rw")) as copy,
    ):
        (application,) = source.execute("pragma application_id").fetchone()
        if application != APPLICATION_ID:
            raise StoreDamaged(f"{path} is a database, but no store of this engine")
        # A read transaction: what is committed from now on is not in the copy, and does not make it begin anew.
        source.execute("begin")
        source.execute("select count(*) from sqlite_schema").fetchone()
        copy.execute("pragma synchronous = off")  # it is synced as a whole
        source.backup(copy, pages=STEP_PAGES, sleep=0, progress=lambda *_: time.sleep(PAUSE_S))
        source.execute("rollback")
    with contextlib.closing(_connect(partial, "ro&immutable=1")) as copy:
        findings = [str(row[0]) for row in copy.execute("pragma quick_check(5)")]
    if findings != ["ok"]:
        raise StoreDamaged(f"the copy of {path} is not whole, so it was not kept: {'; '.join(findings)}")


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, timeout=BUSY_TIMEOUT_S
    )


def _finish(partial: Path, to: Path) -> int:
    """Make the copy durable under its name, which nobody else may have taken meanwhile."""
    with partial.open("rb") as file:
        os.fsync(file.fileno())
        size_bytes = os.fstat(file.fileno()).st_size
    try:
        os.link(partial, to)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if to.exists():
            raise FileExistsError from None
        partial.rename(to)
    sync_directory(to.parent)
    return size_bytes
