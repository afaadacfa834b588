"""What the SQLite store does with its file, its connections, and the faults of disk and machine."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.errors import StoreDamaged, StoreUnavailable
from engine.runs import RunState
from engine.store import connection, ledger, reads, sqlite
from engine.store.base import RunFilter
from engine.store.changes import Change
from engine.store.connection import Connection, translate
from engine.store.migrations import APPLICATION_ID, MIGRATIONS
from engine.store.sqlite import SqliteStore
from engine.testing.store_contract.material import accept, accept_run, an_entry, an_event, end, make, start
from tests.store_files import copy_files, overwrite_page


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "engine.db"


@pytest.fixture
async def store(path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SqliteStore]:
    monkeypatch.setattr(connection, "BUSY_TIMEOUT_S", 0.3)
    store = SqliteStore(path)
    await store.open()
    yield store
    await store.close()


def writer_of(store: SqliteStore) -> Connection:
    assert store._writer is not None
    return store._writer


async def pragma(on: Connection, name: str) -> Any:
    return await on.call(lambda raw: raw.execute(f"pragma {name}").fetchone()[0])


def log_bytes(path: Path) -> int:
    return path.with_name(path.name + "-wal").stat().st_size


async def run_ids(store: SqliteStore) -> list[str]:
    """Return the ids of all runs, oldest first."""
    return [run.id for run in await store.runs(RunFilter(), limit=100_000)][::-1]


# Connections


async def test_the_file_and_the_writer_are_set_up_for_durability(store: SqliteStore) -> None:
    writer = writer_of(store)
    expected = {
        "application_id": APPLICATION_ID,
        "user_version": len(MIGRATIONS),
        "auto_vacuum": 2,
        "journal_mode": "wal",
        "synchronous": 2,
        "wal_autocheckpoint": 0,
    }
    assert {name: await pragma(writer, name) for name in expected} == expected


async def test_exactly_one_connection_can_write_the_file(store: SqliteStore, path: Path) -> None:
    await make(store, accept_run()[2])
    await store.runs(RunFilter(), limit=1)
    writing = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}") == str(path):
                writing += fcntl.fcntl(int(name), fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
        except OSError:
            continue
    assert writing == 1
    for reader in store._readers:
        with pytest.raises(StoreUnavailable, match="readonly"):
            await reader.call(lambda raw: raw.execute("delete from runs"))


def test_sqlite_errors_become_ours_by_whether_they_can_pass() -> None:
    def error(code: int) -> sqlite3.Error:
        made = sqlite3.OperationalError("it failed")
        made.sqlite_errorcode, made.sqlite_errorname = code, "NAME"
        return made

    passing = [sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_BUSY_SNAPSHOT, sqlite3.SQLITE_IOERR]
    passing += [sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY]
    for code in passing:
        assert isinstance(translate(error(code)), StoreUnavailable)
    for code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT_INDEX):
        assert isinstance(translate(error(code)), StoreDamaged)
    wrong = error(sqlite3.SQLITE_ERROR)
    assert translate(wrong) is wrong


# Reading


ASKS: list[tuple[str, Callable[[sqlite3.Connection], object]]] = [
    ("counts", reads.counts),
    ("stats", lambda raw: reads.stats(raw, ["bake", "other"])),
    ("queued_jobs", reads.queued_jobs),
    ("ledger", ledger.ledger),
]


@pytest.mark.parametrize("ask", [ask for _, ask in ASKS], ids=[name for name, _ in ASKS])
async def test_a_read_of_several_statements_sees_one_commit(
    store: SqliteStore, path: Path, ask: Callable[[sqlite3.Connection], object]
) -> None:
    await make(store, *(accept_run(job=job, trigger=t)[2] for job in "ab" for t in ("bake", "other")))
    other = sqlite3.connect(path, isolation_level=None)
    raw = sqlite3.connect(path, isolation_level=None)
    before = ask(raw)

    def write(statement: str) -> None:
        if statement.startswith("select"):
            other.execute("update runs set state = 'running', job = job || 'z' where state = 'queued'")
            other.execute("update runs set event_count = event_count + 1")

    seen: list[object] = []
    place = 0

    def at_second(statement: str) -> None:
        nonlocal place
        place += statement.startswith("select")
        if place == 2:
            write(statement)

    try:
        raw.set_trace_callback(at_second)
        seen.append(ask(raw))
        raw.set_trace_callback(None)
        assert place >= 2
        assert seen == [before]
        assert ask(raw) != before
    finally:
        raw.close()
        other.close()


async def test_damage_that_a_read_meets_is_told_as_damage(store: SqliteStore, path: Path) -> None:
    await make(store, *(accept_run()[2] for _ in range(300)))
    await store.close()
    with closing(sqlite3.connect(path)) as raw:  # without its schema nothing opens it
        pages = raw.execute("select pageno from dbstat where name <> 'sqlite_schema' and pageno > 1").fetchall()
    for (number,) in pages:
        overwrite_page(path, number)
    reader = SqliteStore(path, read_only=True)
    await reader.open()
    assert await reader.check() != []
    with pytest.raises(StoreDamaged, match="damaged"):
        await reader.runs(RunFilter(), limit=5)
    await reader.close()


# Locked, full, away


HOLDER = """
import sqlite3, sys
raw = sqlite3.connect(sys.argv[1], isolation_level=None)
raw.execute("begin immediate")
print("held", flush=True)
sys.stdin.read()
"""


async def test_a_lock_of_another_process_is_waited_for_in_vain_and_never_blocks_the_loop(
    store: SqliteStore, path: Path
) -> None:
    with subprocess.Popen(  # noqa: ASYNC220 - it is up before the test goes on
        [sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        beats: list[float] = []

        async def beat() -> None:
            while True:
                beats.append(time.monotonic())
                await anyio.sleep(0.005)

        _, run, change = accept_run()
        async with anyio.create_task_group() as group:
            group.start_soon(beat)
            began = time.monotonic()
            with pytest.raises(StoreUnavailable, match="locked"):
                await store.apply([change])
            waited_s = time.monotonic() - began
            group.cancel_scope.cancel()
        assert waited_s >= 0.25
        assert len(beats) > 10
        assert await store.runs(RunFilter(), limit=5) == []
        holder.communicate()
    await make(store, change)
    assert await run_ids(store) == [run.id]


async def _until_refused(store: SqliteStore) -> list[str]:
    """Apply runs with some data until the store refuses one; return the ids of those that it took."""
    taken: list[str] = []
    for _ in range(2000):
        event = an_event(data="x" * 1000)
        change = accept(an_entry(event))
        try:
            await make(store, change)
        except StoreUnavailable:
            return taken
        taken.append(event.id)
    raise AssertionError("the store was never full")


async def _keeps(store: SqliteStore, ids: list[str]) -> None:
    for event_id in ids:
        assert await store.event(event_id) is not None
    assert await store.check() == []
    assert (await store.ledger()).missing == ()


async def test_a_full_file_refuses_keeps_what_it_took_and_works_when_there_is_room(
    store: SqliteStore,
) -> None:
    writer = writer_of(store)
    pages = await pragma(writer, "page_count")
    await pragma(writer, f"max_page_count = {pages + 20}")
    taken = await _until_refused(store)
    assert taken
    with pytest.raises(StoreUnavailable, match="full"):
        await store.apply([accept(an_entry(an_event(data="x" * 4000)))])
    await _keeps(store, taken)
    await pragma(writer, "max_page_count = 100000")
    await make(store, accept(an_entry(an_event(data="x" * 4000))))
    await _keeps(store, taken)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def fill(disk: Path) -> Path:
    """Fill a disk to the last byte."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size_bytes in (65536, 4096, 1):
            try:
                while file.write(b"\0" * size_bytes) == size_bytes:
                    pass
            except OSError:
                continue
    return filler


async def test_a_full_disk_refuses_keeps_what_it_took_and_works_when_there_is_room(small_disk: Path) -> None:
    store = SqliteStore(small_disk / "engine.db")
    await store.open()
    first = accept(an_entry(an_event(data="first")))
    await make(store, first)
    filler = fill(small_disk)
    taken = await _until_refused(store)
    await _keeps(store, taken)
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await store.apply([accept(an_entry(an_event(data="x" * 9000)))])
    filler.unlink()
    await make(store, accept(an_entry(an_event(data="x" * 9000))))
    taken += await _until_refused(store)
    await _keeps(store, taken)
    await store.close()


async def test_what_was_committed_is_not_called_refused_because_the_log_could_not_be_moved(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(small_disk / "engine.db")
    await store.open()
    # A log that has grown once is written anew from its beginning, which takes no room; the file has to grow.
    await make(store, *(accept(an_entry(an_event(data="x" * 2000))) for _ in range(60)))
    await writer_of(store).call(lambda raw: raw.execute("pragma wal_checkpoint(passive)").fetchall())
    filler = fill(small_disk)
    monkeypatch.setattr(sqlite, "LONGEST_LOG_PAGES", 0)
    event = an_event(data="y" * 30_000)
    await make(store, accept(an_entry(event)))
    store.tidy()
    assert await store.event(event.id) is not None
    filler.unlink()
    await make(store, accept(an_entry(an_event())))
    await _keeps(store, [event.id])
    await store.close()


async def test_the_log_is_moved_into_the_file_when_nothing_waits_and_when_it_is_long(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def write(changes: int) -> None:
        await make(store, *(accept(an_entry(an_event(data="x" * 4000))) for _ in range(changes)))

    before = os.stat(path).st_size
    await write(600)
    assert os.stat(path).st_size == before
    store.tidy()
    await write(1)
    assert os.stat(path).st_size > before + 600 * 4000
    grown, length = os.stat(path).st_size, log_bytes(path)
    monkeypatch.setattr(sqlite, "LONGEST_LOG_PAGES", 2000)
    for _ in range(10):
        await write(200)
    assert os.stat(path).st_size > grown + 1000 * 4000
    assert log_bytes(path) < length + 2000 * 8192


# Power loss


async def test_a_log_cut_anywhere_holds_a_prefix_and_all_commits_before_the_cut(tmp_path: Path) -> None:
    path = tmp_path / "live" / "engine.db"
    store = SqliteStore(path)
    await store.open()
    ends: list[tuple[int, list[str]]] = []
    written: list[str] = []
    for place in range(40):
        made = [accept_run() for _ in range(1 + place % 3)]
        steps: list[Change] = [change for _, _, change in made]
        steps += [start(run) if place % 2 else end(run) for _, run, _ in made]
        await make(store, *steps)
        written += [run.id for _, run, _ in made]
        ends.append((log_bytes(path), list(written)))
    copy = copy_files(path, tmp_path / "copy")
    await store.close()
    chance = random.Random(7)
    whole = log_bytes(copy)
    cuts = [0, 1, 32, whole, *(chance.randrange(whole) for _ in range(40))]
    for place, cut in enumerate(cuts):
        found = copy_files(copy, tmp_path / f"cut{place}")
        os.truncate(found.with_name("engine.db-wal"), cut)
        if place % 2:
            with found.with_name("engine.db-wal").open("ab") as log:
                log.write(chance.randbytes(chance.randrange(1, 9000)))
        opened = SqliteStore(found)
        await opened.open()
        kept = await run_ids(opened)
        assert kept == max((ids for size, ids in ends if size <= cut), key=len, default=[])
        assert (await opened.ledger()).missing == ()
        assert await opened.check() == []
        states = (await opened.counts()).get(RunState.QUEUED, 0)
        assert states == 0, "a batch was kept in part"
        await opened.close()


WRITER = """
import asyncio, sys
from pathlib import Path
from engine.store.sqlite import SqliteStore
from engine.testing.store_contract.material import accept_run, make, start

async def main():
    store = SqliteStore(Path(sys.argv[1]))
    await store.open()
    print("open", flush=True)
    while True:
        made = [accept_run() for _ in range(5)]
        await make(store, *(change for _, _, change in made), *(start(run) for _, run, _ in made))
        print(*(run.id for _, run, _ in made), flush=True)
        store.tidy()

asyncio.run(main())
"""


async def test_what_was_acknowledged_is_there_after_kill_9(path: Path) -> None:
    acknowledged: list[str] = []
    for round_number in range(3):
        with subprocess.Popen(  # noqa: ASYNC220 - the test is about this process
            [sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "open\n"
            for _ in range(20 + round_number * 17):
                acknowledged += writer.stdout.readline().split()
            writer.send_signal(signal.SIGKILL)
            for line in writer.stdout:
                acknowledged += line.split() if line.endswith("\n") else []
        store = SqliteStore(path)
        await store.open()
        kept = await run_ids(store)
        assert set(acknowledged) <= set(kept)
        assert len(kept) % 5 == 0
        assert len(await store.running()) == len(kept)
        assert await store.check() == []
        await store.close()
