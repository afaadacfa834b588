"""Opening the SQLite store's file: made whole, checked, migrated, or refused and left as it is."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.errors import Conflict, StoreDamaged, StoreError, StoreInUse, StoreUnavailable, StoreVersion
from engine.store import opening
from engine.store.base import RunFilter
from engine.store.copying import copy_store
from engine.store.migrations import APPLICATION_ID, MIGRATIONS
from engine.store.opening import Lock, holder_of, prepare
from engine.store.sqlite import SqliteStore
from engine.testing.store_contract.material import accept_run, make
from tests.store_files import copy_files, overwrite_page

FIRST = "create table grain (id integer primary key, note text) strict"
SECOND = "alter table grain add column weight integer; create index grain_weight on grain (weight)"
THIRD = "create table flour (id integer primary key) strict; insert into flour select id from grain"

NEWER = rf"schema version {len(MIGRATIONS) + 1}, this engine knows {len(MIGRATIONS)}\."


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "engine.db"


async def filled(path: Path, runs: int = 100) -> Path:
    """Make a store with some runs, closed."""
    store = SqliteStore(path)
    await store.open()
    await make(store, *(accept_run()[2] for _ in range(runs)))
    await store.close()
    return path


def with_log(path: Path, statement: str) -> None:
    """Leave the file with a write-ahead log that holds what `statement` did, as a killed process does."""
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("pragma wal_autocheckpoint = 0")
    raw.execute(statement)
    copied = copy_files(path, path.with_name("killed"))
    raw.close()
    for each in copied.parent.iterdir():
        os.replace(each, path.with_name(each.name))
    copied.parent.rmdir()


def names(path: Path) -> list[str]:
    """Return the names of all files beside the store's."""
    return sorted(each.name for each in path.parent.iterdir())


def kept(path: Path) -> dict[str, bytes]:
    """Return the store's file and its log, byte for byte."""
    return {name: (path.parent / name).read_bytes() for name in (path.name, path.name + "-wal")
            if (path.parent / name).exists()}  # fmt: skip


def put_back(path: Path, files: dict[str, bytes]) -> None:
    """Put back what `kept` returned."""
    for name, content in files.items():
        (path.parent / name).write_bytes(content)


def _overwritten(path: Path) -> None:
    overwrite_page(path, 3)


def _header_overwritten(path: Path) -> None:
    overwrite_page(path, 1)


def _truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _emptied(path: Path) -> None:
    os.truncate(path, 0)


def _text(path: Path) -> None:
    path.write_text("Dear disk, this is no database.\n" * 400)


def _foreign(path: Path) -> None:
    path.unlink()
    raw = sqlite3.connect(path)
    raw.execute("create table songs (title text)")
    raw.close()


def _foreign_with_an_id(path: Path) -> None:
    _foreign(path)
    raw = sqlite3.connect(path)
    raw.execute(f"pragma application_id = {APPLICATION_ID + 1}")
    raw.close()


def _newer(path: Path) -> None:
    raw = sqlite3.connect(path)
    raw.execute(f"pragma user_version = {len(MIGRATIONS) + 1}")
    raw.close()


def _newer_and_killed(path: Path) -> None:
    _newer(path)
    with_log(path, "delete from outcomes")


def _damaged_and_killed(path: Path) -> None:
    with_log(path, f"pragma user_version = {len(MIGRATIONS)}")
    _overwritten(path)


def _without_file(path: Path) -> None:
    with_log(path, "delete from outcomes")
    path.unlink()


@pytest.mark.parametrize(
    ("harm", "error", "says"),
    [
        (_overwritten, StoreDamaged, "damaged"),
        (_header_overwritten, StoreDamaged, "damaged"),
        (_truncated, StoreDamaged, "damaged"),
        (_emptied, StoreDamaged, "is empty"),
        (_text, StoreDamaged, "damaged"),
        (_foreign, StoreDamaged, "no store of this engine"),
        (_foreign_with_an_id, StoreDamaged, "no store of this engine"),
        (_damaged_and_killed, StoreDamaged, "damaged"),
        (_newer, StoreVersion, NEWER),
        (
            _newer_and_killed,
            StoreVersion,
            NEWER,
        ),
        (_without_file, StoreDamaged, "write-ahead log engine.db-wal is there"),
    ],
)
async def test_a_file_that_is_no_sound_store_of_ours_is_refused_and_stays_byte_for_byte(
    path: Path, harm: Callable[[Path], None], error: type[StoreError], says: str
) -> None:
    await filled(path)
    harm(path)
    before = kept(path)
    assert before
    for _ in range(2):
        with pytest.raises(error, match=says) as refused:
            await SqliteStore(path).open()
        assert str(path) in str(refused.value)
        assert kept(path) == before


def test_a_directory_in_place_of_the_file_is_refused(path: Path) -> None:
    path.mkdir()
    with pytest.raises(StoreDamaged, match="no regular file"):
        prepare(path)
    assert list(path.iterdir()) == []


async def test_a_refused_store_can_be_opened_when_it_was_put_right(path: Path) -> None:
    await filled(path)
    good = kept(path)
    overwrite_page(path, 3)
    store = SqliteStore(path)
    with pytest.raises(StoreDamaged):
        await store.open()
    put_back(path, good)
    await store.open()
    assert len(await store.runs(RunFilter(), limit=1000)) == 100
    await store.close()


async def test_a_large_file_is_opened_without_reading_it_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await filled(path)
    monkeypatch.setattr(opening, "CHECKED_AT_START_BYTES", 4096)
    store = SqliteStore(path)
    await store.open()
    assert not store.checked
    await store.close()
    overwrite_page(path, 1)
    with pytest.raises(StoreDamaged):
        await store.open()


async def test_a_log_left_by_a_killed_process_is_taken_up(path: Path) -> None:
    await filled(path)
    with_log(path, "update runs set job = 'changed'")
    assert kept(path)["engine.db-wal"]
    store = SqliteStore(path)
    await store.open()
    assert {run.job for run in await store.runs(RunFilter(), limit=1000)} == {"changed"}
    await store.close()


def test_a_new_file_belongs_to_its_owner_alone(path: Path) -> None:
    prepare(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert names(path) == ["engine.db"]


def test_an_empty_log_without_its_file_is_no_loss(path: Path) -> None:
    path.with_name("engine.db-wal").touch()
    prepare(path)
    assert path.exists()


@pytest.mark.parametrize("leftover", [b"", b"half of a store", None])
def test_what_a_crash_left_while_the_file_was_made_is_swept_away(path: Path, leftover: bytes | None) -> None:
    new = path.with_name("engine.db.new")
    if leftover is None:
        raw = sqlite3.connect(new)
        raw.executescript("pragma journal_mode = wal; create table events (only_half text);")
        raw.close()
    else:
        new.write_bytes(leftover)
    new.with_name("engine.db.new-wal").write_bytes(b"torn")
    prepare(path)
    assert names(path) == ["engine.db"]


def test_a_crash_at_any_statement_of_the_making_leaves_no_file(path: Path) -> None:
    for steps in range(3):
        broken = (*MIGRATIONS[:steps], "create table half (id integer); no such statement")
        with pytest.raises(sqlite3.OperationalError):
            prepare(path, broken)
        assert not path.exists()
    prepare(path)
    assert path.exists()


# Migrations


def _rows(path: Path, query: str) -> list[tuple[object, ...]]:
    raw = sqlite3.connect(path)
    try:
        return raw.execute(query).fetchall()
    finally:
        raw.close()


def _old(path: Path) -> bytes:
    prepare(path, (FIRST,))
    raw = sqlite3.connect(path)
    raw.executemany("insert into grain (note) values (?)", [(f"sack {n}",) for n in range(500)])
    raw.commit()
    raw.close()
    return path.read_bytes()


def test_an_old_file_is_copied_beside_itself_and_then_migrated(path: Path) -> None:
    before = _old(path)
    assert prepare(path, (FIRST, SECOND, THIRD))
    backup = path.with_name("engine.db.v1.backup")
    assert _rows(backup, "select * from grain") == [(n + 1, f"sack {n}") for n in range(500)]
    assert _rows(backup, "pragma user_version") == [(1,)]
    assert _rows(path, "select count(weight), count(*) from grain") == [(0, 500)]
    assert _rows(path, "select count(*) from flour") == [(500,)]
    assert _rows(path, "pragma user_version") == [(3,)]
    assert _rows(path, "pragma integrity_check") == [("ok",)]
    os.replace(backup, path)
    assert prepare(path, (FIRST,))
    assert len(path.read_bytes()) == len(before)


def test_a_file_of_the_newest_version_is_not_copied(path: Path) -> None:
    before = _old(path)
    prepare(path, (FIRST,))
    assert path.read_bytes() == before
    assert names(path) == ["engine.db"]


@pytest.mark.parametrize("works", [(), (SECOND,)], ids=["the first", "the second"])
def test_a_migration_that_fails_leaves_the_file_as_it_was(path: Path, works: tuple[str, ...]) -> None:
    before = _old(path)
    failing = "create table half (id integer); insert into half select id from grain; select 1 / no_such_column"
    with pytest.raises(StoreError, match=f"migration {2 + len(works)} failed: no such column") as failed:
        prepare(path, (FIRST, *works, failing))
    assert "engine.db.v1.backup" in str(failed.value)
    assert path.read_bytes() == before
    assert prepare(path, (FIRST,))


def test_each_migration_of_a_file_starts_from_a_copy_of_what_it_is_now(path: Path) -> None:
    _old(path)
    prepare(path, (FIRST, SECOND))
    # Its owner goes back to the copy, works with it, and upgrades again.
    os.replace(path.with_name("engine.db.v1.backup"), path)
    raw = sqlite3.connect(path)
    raw.execute("update grain set note = 'since then'")
    raw.commit()
    raw.close()
    path.with_name("engine.db.v1.backup").write_bytes(b"an older copy")
    prepare(path, (FIRST, SECOND))
    assert _rows(path.with_name("engine.db.v1.backup"), "select distinct note from grain") == [("since then",)]


KILLED = """
import os, signal, sqlite3, sys
from pathlib import Path
from engine.store import opening
real = sqlite3.connect
countdown = int(sys.argv[2])

class Mortal(sqlite3.Connection):
    pass

def connect(*args, **kwargs):
    raw = real(*args, **kwargs)
    def step():
        global countdown
        countdown -= 1
        if countdown == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0
    raw.set_progress_handler(step, 200)
    return raw

opening.sqlite3.connect = connect
opening.prepare(Path(sys.argv[1]), %r)
""" % ((FIRST, SECOND, THIRD),)  # noqa: UP031 - the program has braces of its own


def test_a_migration_killed_at_any_step_leaves_a_file_that_the_next_start_migrates(path: Path) -> None:
    _old(path)
    killed = 0
    for countdown in (1, 2, 3, 5, 8, 13, 18, 24, 30, 40, 60, 80, 120):
        copy = copy_files(path, path.parent / str(countdown))
        ended = subprocess.run([sys.executable, "-c", KILLED, copy, str(countdown)], check=False, timeout=30)
        killed += ended.returncode == -signal.SIGKILL
        assert ended.returncode in (0, -signal.SIGKILL)
        version = _rows(copy, "pragma user_version")
        assert version == ([(1,)] if ended.returncode else [(3,)])
        prepare(copy, (FIRST, SECOND, THIRD))
        assert _rows(copy, "select count(*) from grain") == [(500,)]
        assert _rows(copy, "select count(*) from flour") == [(500,)]
        assert _rows(copy, "pragma user_version") == [(3,)]
        assert _rows(copy.with_name("engine.db.v1.backup"), "select count(*) from grain") == [(500,)]
        assert not list(copy.parent.glob("*.part"))
        if not ended.returncode:
            break
    assert killed >= 5


# One engine at a time


def test_a_lock_names_the_process_that_holds_it_and_dies_with_it(path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from engine.store.opening import Lock\n"
        "lock = Lock(Path(sys.argv[1]), 'the store'); print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreInUse, match=f"process {holder.pid}") as refused:
            Lock(path, "the store")
        assert refused.value.pid == holder.pid
        assert holder_of(path) == holder.pid
    finally:
        holder.kill()
        holder.wait()
        if holder.stdout is not None:
            holder.stdout.close()
    assert holder_of(path) is None, "it holds it no more, though its id is there"
    lock = Lock(path, "the store")
    assert holder_of(path) == os.getpid()
    lock.release()
    assert holder_of(path) is None


@pytest.mark.parametrize("content", ["", "rubbish", "this process", "9" * 70, "²", "-1"])
def test_a_lock_file_that_nobody_holds_names_nobody_whatever_is_in_it(path: Path, content: str) -> None:
    assert holder_of(path) is None
    content = content.replace("this process", str(os.getpid()))
    path.write_text(content)
    assert holder_of(path) is None
    assert path.read_text() == content
    Lock(path, "the store").release()


async def test_a_second_engine_is_refused_before_it_touches_the_file(path: Path) -> None:
    await filled(path)
    first = SqliteStore(path)
    await first.open()
    try:
        with pytest.raises(StoreInUse, match=str(os.getpid())):
            await SqliteStore(path).open()
        reader = SqliteStore(path, read_only=True)
        await reader.open()
        await make(first, accept_run()[2])
        assert len(await reader.runs(RunFilter(), limit=1000)) == 101
        await reader.close()
    finally:
        await first.close()


async def test_a_copy_can_be_made_where_there_are_no_hard_links_and_nothing_is_copied_over(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(path, runs=3)

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    copy = path.with_name("copy.db")
    copy_store(path, copy)
    assert _rows(copy, "select count(*) from runs") == [(3,)]
    with pytest.raises(Conflict):
        copy_store(path, copy)
    assert sorted(one.name for one in path.parent.iterdir() if "copy" in one.name) == ["copy.db"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 64 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


async def test_a_copy_that_finds_no_room_names_itself_and_not_the_store_and_leaves_nothing(
    path: Path, small_disk: Path
) -> None:
    await filled(path, runs=3)
    with pytest.raises(StoreUnavailable, match=r"the copy \S+copy\.db can't be written: its disk is full"):
        copy_store(path, small_disk / "copy.db")
    assert os.listdir(small_disk) == []
