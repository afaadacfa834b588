"""Boots in the SQLite store: which engine process owns it. A row for each, with a lease that its owner renews.

A later engine takes over in one transaction: it writes its own row, and its id into the rows of those before. Whoever
finds another one's id in its row owns the store no more, and writes nothing; however long it stood still.
"""

from __future__ import annotations

import os
import sqlite3
from functools import cache
from pathlib import Path

from engine.clock import Clock, to_microseconds
from engine.errors import StoreInUse, StoreLost
from engine.processes import is_at_work, kernel_start
from engine.store.base import Boot

_MACHINE = Path("/proc/sys/kernel/random/boot_id")

QUERIES = {
    # The engines that have not been succeeded, but for one.
    "open": "select id, pid, started, machine from boots where successor is null and id <> ?",
    # By whom an engine was succeeded.
    "successor": "select successor from boots where id = ?",
    # Write the row of an engine.
    "begin": "insert or ignore into boots (id, pid, started, machine, began_at, renewed_at) values (?, ?, ?, ?, ?, ?)",
    # Succeed all others.
    "succeed": "update boots set successor = ? where successor is null and id <> ?",
    # Forget those that were succeeded long ago, but for the latest.
    "forget": "delete from boots where successor is not null and id not in "
    "(select id from boots order by began_at desc limit 100)",
    # Renew the lease of an engine that was not succeeded.
    "renew": "update boots set renewed_at = max(renewed_at, ?) where id = ? and successor is null",
}


@cache
def machine() -> str:
    """Return what names this machine since it was started; empty where it has no such name."""
    try:
        return _MACHINE.read_text().strip()
    except OSError:
        return ""


def this_process(boot: str) -> Boot:
    """Return this process as the owner of a store."""
    return Boot(id=boot, pid=os.getpid(), started=kernel_start(os.getpid()) or 0, machine=machine())


def refuse_living(raw: sqlite3.Connection, path: Path, boot: Boot) -> None:
    """Raise StoreInUse where one of those before lives, on this machine, though its lock is gone."""
    for _, pid, started, where in raw.execute(QUERIES["open"], (boot.id,)).fetchall():
        mine = (pid, started) == (boot.pid, boot.started)
        if where and where == boot.machine and started and not mine and is_at_work(pid, started):
            raise StoreInUse(
                f"the store {path} is in use by process {pid}, whose lock is gone: it was removed, or lies elsewhere. "
                "Stop that engine first.", pid=pid,
            )  # fmt: skip


def take_over(raw: sqlite3.Connection, boot: Boot, clock: Clock) -> int:
    """Write a boot's row within a transaction, where it is not there; return how many it succeeds."""
    now = to_microseconds(clock.now())
    raw.execute(QUERIES["begin"], (boot.id, boot.pid, boot.started, boot.machine, now, now))
    succeeded = raw.execute(QUERIES["succeed"], (boot.id, boot.id)).rowcount
    if succeeded:
        raw.execute(QUERIES["forget"])
    return succeeded


def must_own(raw: sqlite3.Connection, path: Path, boot: Boot) -> None:
    """Raise StoreLost where a boot was succeeded; ask within the transaction that is to write."""
    row = raw.execute(QUERIES["successor"], (boot.id,)).fetchone()
    if row is not None and row[0] is not None:
        raise StoreLost(
            f"the engine {row[0]} has taken over {path} from this one ({boot.id}), which stood still or lost its lock: "
            "nothing more is written"
        )


def renew(raw: sqlite3.Connection, boot: Boot, clock: Clock) -> bool:
    """Renew a lease; return whether it is its owner's still."""
    return raw.execute(QUERIES["renew"], (to_microseconds(clock.now()), boot.id)).rowcount == 1
