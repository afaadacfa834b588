"""What the command line can tell without a running engine."""

from __future__ import annotations

import asyncio
import glob
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from engine.cli.failures import CommandFailed
from engine.clock import SystemClock
from engine.errors import StoreError
from engine.http import shapes
from engine.http.views import doctor_view
from engine.store.base import Ledger

if TYPE_CHECKING:
    from engine.audits import Chain
    from engine.cli.session import Session
    from engine.config import Config
    from engine.hindsight import Proof
    from engine.registry import Registry
    from engine.store.sqlite import SqliteStore

T = TypeVar("T")

LONGEST_JOIN_S = 5.0

_EMPTY = Ledger(accepted=0, ended=0, waiting=0, missing=())

_LEFT = ("engine.lock", "admin.token", "logs")
"""What an engine leaves in its data directory."""


def offline_doctor(config: Config) -> dict[str, Any]:
    """Add up the ledger and check the store's integrity, in its file, which is only read.

    Where there is no store, or it can't be read, `ledger` is None, and nothing is said of what was not looked at.
    """
    if not config.store.path.exists():
        return _unread({"name": "store_file", "ok": False, "detail": _absence(config)})
    try:
        ledger, damage, found = asyncio.run(_read(config))
    except StoreError as error:
        return _unread({"name": "integrity", "ok": False, "detail": str(error)})
    if damage:
        return _unread({"name": "integrity", "ok": False, "detail": "; ".join(damage)})
    return {**doctor_view(ledger, (), [one.check() for one in found])}


def _unread(check: shapes.Check) -> dict[str, Any]:
    """Return what doctor found where it found no ledger to add up, and why."""
    return {"ok": False, "ledger": None, "broken": [], "triggers": [], "checks": [check]}


def _absence(config: Config) -> str:
    """Say that there is no store, and what tells that there was one: an engine that starts may not miss it."""
    path, data = config.store.path, config.engine.data
    log = path.with_name(path.name + "-wal")
    if log.exists() and log.stat().st_size > 0:
        return f"{path} is missing, but its write-ahead log {log.name} is there: put it back; both belong together"
    beside = [path.with_name(path.name + ".lock"), *sorted(path.parent.glob(f"{glob.escape(path.name)}.v*.backup"))]
    left = [one.name for one in (*beside, *(data / name for name in _LEFT)) if one.exists()]
    if left:
        return (
            f"there is none in {path}, but what an engine leaves is there ({', '.join(left)}): put the file back, or a "
            "backup of it; an engine that is started now begins with an empty store"
        )
    return (
        f"there is none in {path}, and nothing that an engine left: none was started here yet, its disk is not "
        "mounted, or [engine] data or [store] url name another place than they should"
    )


async def _read(config: Config) -> tuple[Ledger, list[str], tuple[Proof | Chain, ...]]:
    from engine.cli.hindsight import subject_in
    from engine.hindsight import prove

    async with opened(config) as store:
        damage = await store.check()
        if damage:
            return _EMPTY, damage, ()
        subjects = [subject_in(config, name) for name in config.triggers]
        proof = await prove(store, subjects, SystemClock().now())
        return await store.ledger(), [], (proof, await store.audit_chain())


@asynccontextmanager
async def opened(config: Config, *, read_only: bool = True) -> AsyncIterator[SqliteStore]:
    """Open the store's file while the block lasts; raise StoreError, such as StoreInUse where it is to be written."""
    from engine.store.sqlite import SqliteStore

    store = SqliteStore(config.store.path, clock=SystemClock(), read_only=read_only)
    before = set(threading.enumerate())
    try:
        await store.open()
    except StoreError:
        # The thread of a connection that could not be opened still has a word for this event loop.
        for thread in set(threading.enumerate()) - before:
            await asyncio.to_thread(thread.join, LONGEST_JOIN_S)
        raise
    try:
        yield store
    finally:
        await store.close()


def read_store(session: Session, read: Callable[[SqliteStore], Awaitable[T]]) -> T:
    """Return what is read in the store's file; raise CommandFailed where there is none yet."""
    config = session.load()
    if not config.store.path.exists():
        raise CommandFailed(f"there is no store in {config.store.path} yet: the engine makes one when it starts")

    async def reading() -> T:
        async with opened(config) as store:
            return await read(store)

    return asyncio.run(reading())


def find_plugins(session: Session) -> Registry:
    """Return all plugins; those in folders too, where there is a configuration that names them."""
    from engine.errors import ConfigError
    from engine.registry import Registry

    try:
        folders = session.reach().plugins
    except ConfigError:
        if session.config:
            raise
        folders = ()
    return Registry.discover(folders)


def plugin_view(entry: Any) -> dict[str, Any]:
    """Return a plugin as `plugins` lists it."""
    return {
        "kind": entry.kind,
        "name": entry.name,
        "origin": entry.origin,
        "doc": entry.doc,
        "ok": entry.error is None,
        "error": entry.error,
    }
