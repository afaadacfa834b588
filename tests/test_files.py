# ruff: noqa: ASYNC230 - what these tests write is small, and they write it as senders do
from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.to_thread import run_sync

from engine.plugin import BadSetting, Event, InvalidEvent
from plugins.sources.files import Files, claims, lookout, tree
from plugins.sources.files.known import Held, Known, Waiting
from plugins.sources.files.patterns import Selection
from plugins.watching import hints
from plugins.watching.names import shown
from plugins.watching.opening import Mark
from tests.fakes import FakeSourceContext, SteppedClock, until


class Yard:
    """A watched directory whose source runs, seen from the side of those who write."""

    def __init__(self, base: Path) -> None:
        self.path = base / "in"
        self.path.mkdir()
        self.spare = base / "spare"
        self.spare.mkdir()
        self.clock = SteppedClock()
        self.context = FakeSourceContext(base, clock=self.clock)

    @asynccontextmanager
    async def open(self, **settings: Any) -> AsyncIterator[None]:
        settings = {"complete": "rename", **settings}
        if settings["complete"] != "stable":
            assert "settle" not in settings
        async with self.context.running(Files(path=Path("in"), **settings)):
            yield

    def restart(self) -> None:
        self.context = self.context.restarted()

    def drop(self, name: str | bytes, text: str = "content") -> None:
        """Write elsewhere and rename into the directory."""
        made = self.spare / "made"
        made.write_text(text)
        os.rename(os.fsencode(made), os.path.join(os.fsencode(self.path), os.fsencode(name)))

    @property
    def events(self) -> list[Event]:
        return self.context.emitted

    def told(self) -> list[tuple[str, str]]:
        """Return kind and path, below the directory, of each event so far."""
        return [(event.type.removeprefix("file."), self.below(event.data["path"])) for event in self.events]

    def warning(self) -> str:
        """Return what the source says is wrong; nothing is empty."""
        return self.context.warning or ""

    def below(self, path: str) -> str:
        return os.path.relpath(path, self.path)

    async def until_told(self, *expected: tuple[str, str], step_s: float = 0.05) -> None:
        """Let time pass until these are the events, in any order."""
        await self.passing(lambda: len(self.told()) >= len(expected), step_s=step_s)
        assert sorted(self.told()) == sorted(expected)

    async def passing(self, condition: Any, *, step_s: float = 0.05) -> None:
        """Let time pass until the condition holds."""
        with anyio.fail_after(20):
            while not condition():
                self.clock.advance(step_s)
                await anyio.sleep(0.005)

    async def scanned(self, *, step_s: float = 0.05) -> None:
        """Return when all was scanned once more, from beginning to end, and what was found has become due."""
        for _ in range(2):
            scans = Scans.ended
            self.context.beat()
            await self.passing(lambda: Scans.ended > scans, step_s=step_s)  # noqa: B023
        for _ in range(20):
            self.clock.advance(step_s)
            await anyio.sleep(0.001)


class Scans:
    """Counts scans that came to their end."""

    ended = 0


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    real = lookout.Lookout.scan_ended

    def ended(self: lookout.Lookout, took_s: float) -> None:
        real(self, took_s)
        Scans.ended += 1

    monkeypatch.setattr(lookout.Lookout, "scan_ended", ended)


@pytest.fixture
def missed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the paths, in a list that grows, that were seen to be missing."""
    paths: list[str] = []
    real = Waiting.put

    def put(self: Waiting, path: str, held: Held) -> None:
        real(self, path, held)
        if held.mark is None:
            paths.append(path)

    monkeypatch.setattr(Waiting, "put", put)
    return paths


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path)


# What is told


async def test_a_created_file_is_an_event_with_its_path_name_size_and_time(yard: Yard) -> None:
    async with yard.open(match=("*.csv",)):
        yard.drop("a.csv", "12345")
        os.utime(yard.path / "a.csv", ns=(0, 1_700_000_000_123_456_789))
        await yard.passing(lambda: yard.events)
    event = yard.events[-1]
    path = str(yard.path / "a.csv")
    assert (event.type, event.subject) == ("file.created", path)
    assert event.data["path"] == path
    assert event.data["name"] == "a.csv"
    assert event.data["size"] == 5
    found = os.stat(path)
    assert event.key is not None
    assert event.key.startswith(f"{found.st_dev}-{found.st_ino}-5-")
    assert event.key.endswith("-created")


async def test_times_are_texts_in_utc_to_the_microsecond(yard: Yard) -> None:
    yard.drop("a.csv")
    os.utime(yard.path / "a.csv", ns=(0, 1_700_000_000_123_456_789))
    yard.drop("b.csv")
    os.utime(yard.path / "b.csv", ns=(0, -1))
    async with yard.open():
        await yard.until_told(("created", "a.csv"), ("created", "b.csv"))
    assert {event.data["mtime"] for event in yard.events} == {
        "2023-11-14T22:13:20.123456Z",
        "1969-12-31T23:59:59.999999Z",
    }


async def test_created_modified_moved_and_deleted_are_told_of(yard: Yard) -> None:
    async with yard.open():
        yard.drop("a")
        await yard.until_told(("created", "a"))
        yard.drop("a", "another content")
        await yard.until_told(("created", "a"), ("modified", "a"))
        (yard.path / "a").rename(yard.path / "b")
        await yard.until_told(("created", "a"), ("modified", "a"), ("moved", "b"))
        assert yard.events[-1].data["from"] == str(yard.path / "a")
        (yard.path / "b").unlink()
        await yard.until_told(("created", "a"), ("modified", "a"), ("moved", "b"), ("deleted", "b"))
    assert len({event.key for event in yard.events}) == 4


async def test_a_file_that_is_moved_to_and_fro_is_told_of_each_time(yard: Yard) -> None:
    async with yard.open():
        yard.drop("a")
        await yard.passing(lambda: len(yard.events) == 1)
        for number in range(4):
            (yard.path / "ab"[number % 2]).rename(yard.path / "ba"[number % 2])
            await yard.passing(lambda: len(yard.events) == number + 2)  # noqa: B023
    assert [kind for kind, _ in yard.told()] == ["created", "moved", "moved", "moved", "moved"]


async def test_files_that_rotate_are_told_as_moves_and_one_that_is_new(yard: Yard) -> None:
    for name in ("log", "log.1", "log.2"):
        yard.drop(name, name)
    async with yard.open(poll="always"):
        await yard.until_told(("created", "log"), ("created", "log.1"), ("created", "log.2"))
        yard.events.clear()
        os.rename(yard.path / "log.2", yard.path / "log.3")
        os.rename(yard.path / "log.1", yard.path / "log.2")
        os.rename(yard.path / "log", yard.path / "log.1")
        yard.drop("log", "new")
        await yard.scanned()
    told = {path: kind for kind, path in yard.told()}
    assert told.keys() == {"log", "log.1", "log.2", "log.3"}
    assert (told["log.1"], told["log.2"], told["log.3"]) == ("moved", "moved", "moved")
    # And they are known as they are: nothing more is told.
    before = len(yard.events)
    yard.restart()
    async with yard.open(poll="always"):
        await yard.scanned()
    assert len(yard.events) == before


async def test_a_file_that_is_missing_for_a_moment_was_modified_or_not_touched(yard: Yard, missed: list[str]) -> None:
    yard.drop("a")
    yard.drop("b")
    async with yard.open():
        await yard.until_told(("created", "a"), ("created", "b"))
        (yard.path / "a").rename(yard.spare / "a")
        (yard.path / "b").unlink()
        await until(lambda: sorted(missed) == ["a", "b"])
        (yard.spare / "a").rename(yard.path / "a")
        yard.drop("b", "something new")
        await yard.scanned()
    assert yard.told()[2:] == [("modified", "b")]


async def test_what_leaves_the_directory_is_deleted_and_what_comes_back_is_created(yard: Yard) -> None:
    async with yard.open():
        yard.drop("a")
        await yard.passing(lambda: len(yard.events) == 1)
        (yard.path / "a").rename(yard.spare / "a")
        await yard.passing(lambda: len(yard.events) == 2)
        (yard.spare / "a").rename(yard.path / "a")
        await yard.passing(lambda: len(yard.events) == 3)
    assert [kind for kind, _ in yard.told()] == ["created", "deleted", "created"]


async def test_a_hard_link_is_a_file_of_its_own(yard: Yard) -> None:
    async with yard.open(match=("*.json",)):
        made = yard.spare / "made"
        made.write_text("{}")
        os.link(made, yard.path / "a.json")
        await yard.until_told(("created", "a.json"))
        os.link(yard.path / "a.json", yard.path / "b.json")
        await yard.until_told(("created", "a.json"), ("created", "b.json"))


async def test_two_links_that_are_found_at_once_are_two_events(yard: Yard) -> None:
    yard.drop("a")
    os.link(yard.path / "a", yard.path / "b")
    async with yard.open():
        await yard.until_told(("created", "a"), ("created", "b"))


@pytest.mark.parametrize("moving", ["a", "b"])
async def test_of_several_links_the_one_that_moves_is_moved(yard: Yard, moving: str) -> None:
    yard.drop("a")
    os.link(yard.path / "a", yard.path / "b")
    async with yard.open():
        await yard.until_told(("created", "a"), ("created", "b"))
        (yard.path / moving).rename(yard.path / "c")
        await yard.until_told(("created", "a"), ("created", "b"), ("moved", "c"))
        (yard.path / "c").unlink()
        await yard.until_told(("created", "a"), ("created", "b"), ("moved", "c"), ("deleted", "c"))


@pytest.mark.parametrize("removed", ["a", "z"])
def test_an_inode_number_that_was_given_anew_tells_of_its_latest_file(removed: str) -> None:
    mark = Mark(1, 7, 10, 1_000, 1_000)
    latest = Mark(1, 7, 20, 2_000, 2_000)
    # It is not told yet that the first file was removed; the order is that of the store.
    names = {removed: list(mark), "m": list(latest)}
    known = Known(dict(sorted(names.items())))
    assert known.origins_of("new", latest._replace(ctime_ns=3_000)) == ["m"]


def test_a_scan_misses_neither_what_it_finds_nor_what_was_told_behind_its_back(tmp_path: Path) -> None:
    """What is taken for missing is soon taken for deleted, and is told so where it moves meanwhile."""
    selection = Selection(("*",), (), hidden=False, recursive=True, own=frozenset())
    place, known = tree.Tree(tmp_path, selection, follow=False, sentinel=None), Known({})
    (tmp_path / "a").write_text("a")
    scan = tree.Scan(place, known)
    while found := scan.next_portion():
        for one in found:
            assert one.mark is not None
            known.apply(known.change(one.path, one.mark))
    assert scan.missing() == []
    (tmp_path / "b").write_text("b")
    (told,) = place.look(["b"])
    assert told.mark is not None
    known.apply(known.change("b", told.mark))
    assert scan.missing() == [told]
    (tmp_path / "b").unlink()
    assert scan.missing() == [tree.Found("b", None)]


async def test_a_copy_that_keeps_size_and_time_is_a_change_each_time(yard: Yard) -> None:
    async with yard.open():
        for number in range(4):
            made = yard.spare / "made"
            made.write_text("same")
            os.utime(made, ns=(10**18, 10**18))
            made.rename(yard.path / "a")
            await yard.passing(lambda: len(yard.events) == 2 * number + 1)  # noqa: B023
            (yard.path / "a").unlink()
            await yard.passing(lambda: len(yard.events) == 2 * number + 2)  # noqa: B023
    assert [kind for kind, _ in yard.told()] == ["created", "deleted"] * 4


async def test_other_rights_are_no_change(yard: Yard) -> None:
    async with yard.open():
        yard.drop("a")
        await yard.until_told(("created", "a"))
        (yard.path / "a").chmod(0o600)
        await yard.scanned()
    assert len(yard.events) == 1


async def test_only_the_wanted_changes_are_events_but_all_are_known(yard: Yard) -> None:
    async with yard.open(events=("deleted",)):
        yard.drop("a")
        await yard.passing(lambda: "a" in yard.context.memory)
        (yard.path / "a").rename(yard.path / "b")
        await yard.passing(lambda: "b" in yard.context.memory)
        (yard.path / "b").unlink()
        await yard.until_told(("deleted", "b"))
    assert yard.context.memory == {}


# Which files


async def test_globs_choose_and_exclude_by_name_and_path(yard: Yard) -> None:
    for path in (
        "a.csv",
        "a.txt",
        "b.csv.tmp",
        ".hidden.csv",
        "sub/c.csv",
        "sub/skip/d.csv",
        "old/e.csv",
        ".git/f.csv",
    ):
        (yard.path / path).parent.mkdir(exist_ok=True)
        (yard.path / path).write_text("x")
    async with yard.open(match=("*.csv",), exclude=("skip/", "/old"), recursive=True):
        await yard.scanned()
        assert sorted(yard.told()) == [("created", "a.csv"), ("created", "sub/c.csv")]
        (yard.path / "sub" / "skip" / "later.csv").write_text("x")
        (yard.path / "sub" / "later.csv").write_text("x")
        await yard.scanned()
    assert sorted(yard.told())[2:] == [("created", "sub/later.csv")]


async def test_directories_below_count_only_when_recursive(yard: Yard) -> None:
    (yard.path / "sub").mkdir()
    (yard.path / "sub" / "a").write_text("x")
    async with yard.open():
        yard.drop("b")
        await yard.scanned()
    assert yard.told() == [("created", "b")]


async def test_hidden_files_count_when_asked_for(yard: Yard) -> None:
    (yard.path / ".d").mkdir()
    (yard.path / ".d" / "a").write_text("x")
    yard.drop(".b")
    async with yard.open(hidden=True, recursive=True):
        await yard.until_told(("created", ".d/a"), ("created", ".b"))


async def test_new_and_moved_directories_are_looked_through(yard: Yard) -> None:
    async with yard.open(recursive=True):
        (yard.path / "a" / "b").mkdir(parents=True)
        (yard.path / "a" / "b" / "one").write_text("1")
        (yard.path / "a" / "two").write_text("22")
        await yard.until_told(("created", "a/b/one"), ("created", "a/two"))
        yard.events.clear()
        (yard.path / "a").rename(yard.path / "z")
        await yard.until_told(("moved", "z/b/one"), ("moved", "z/two"))
        yard.events.clear()
        shutil.rmtree(yard.path / "z")
        await yard.until_told(("deleted", "z/b/one"), ("deleted", "z/two"))


@pytest.mark.parametrize("recursive", [False, True])
async def test_links_pipes_sockets_and_devices_are_left_alone_and_told_once(
    yard: Yard, caplog: pytest.LogCaptureFixture, recursive: bool
) -> None:
    secret = yard.spare / "secret"
    secret.write_text("secret")
    (yard.path / "link").symlink_to(secret)
    (yard.path / "shadow").symlink_to("/etc/shadow")
    (yard.path / "elsewhere").symlink_to(yard.spare)
    (yard.path / "dangling").symlink_to("nowhere")
    os.mkfifo(yard.path / "pipe")
    odd = 5
    if os.geteuid() == 0:
        os.mknod(yard.path / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        odd += 1
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(await run_sync(os.path.relpath, yard.path / "socket"))
        odd += 1
        async with yard.open(recursive=recursive, complete="stable", settle=0.0):
            await yard.scanned()
            await yard.scanned()
    assert yard.events == []
    assert len([record for record in caplog.records if "is left alone" in record.message]) == odd


async def test_links_are_followed_when_asked_for_and_circles_end(yard: Yard) -> None:
    real = yard.spare / "real"
    real.mkdir()
    (real / "a").write_text("12345")
    (yard.path / "file").symlink_to(real / "a")
    (yard.path / "directory").symlink_to(real)
    (real / "circle").symlink_to(yard.path)
    (yard.path / "dangling").symlink_to("nowhere")
    async with yard.open(follow_symlinks=True, recursive=True, complete="stable", settle=0.0):
        await yard.until_told(("created", "file"), ("created", "directory/a"))
        (real / "a").write_text("changed")
        await yard.scanned()
    assert sorted(yard.told())[2:] == [("modified", "directory/a"), ("modified", "file")]


async def test_a_sparse_file_of_a_terabyte_is_a_file(yard: Yard) -> None:
    with open(yard.path / "large", "wb") as file:
        file.truncate(2**40)
    async with yard.open(complete="stable", settle=0.0):
        await yard.passing(lambda: yard.events)
    assert yard.events[0].data["size"] == 2**40


async def test_a_directory_that_cant_be_read_loses_no_files_and_is_told_of(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    (yard.path / "sub").mkdir()
    (yard.path / "sub" / "a").write_text("x")
    real = os.open
    locked = False

    def refuse(path: Any, *arguments: Any, **keywords: Any) -> int:
        if locked and path == "sub":
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **keywords)

    monkeypatch.setattr(os, "open", refuse)
    async with yard.open(recursive=True):
        await yard.until_told(("created", "sub/a"))
        locked = True
        await yard.scanned()
        assert yard.warning() == "sub can't be read: Permission denied"
        locked = False
        await yard.scanned()
        assert not yard.warning()
    assert len(yard.events) == 1


@pytest.mark.parametrize("reason", [errno.EIO, errno.ESTALE, errno.EACCES])
async def test_a_file_that_cant_be_looked_at_for_a_while_is_not_deleted(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    real = os.stat
    failing = False

    def fail(path: Any, *arguments: Any, **keywords: Any) -> os.stat_result:
        if failing and path == "a":
            raise OSError(reason, os.strerror(reason))
        return real(path, *arguments, **keywords)

    monkeypatch.setattr(os, "stat", fail)
    async with yard.open():
        yard.drop("a")
        await yard.until_told(("created", "a"))
        failing = True
        (yard.path / "a").write_text("something new")
        yard.drop("b")
        # A scan may see that "a" was modified: it asks in another way.
        await yard.passing(lambda: ("created", "b") in yard.told())
        for _ in range(50):
            yard.clock.advance(0.1)
            await anyio.sleep(0.001)
        failing = False
        yard.context.beat()
        await yard.until_told(("created", "a"), ("created", "b"), ("modified", "a"))
        await yard.scanned()
    assert len(yard.events) == 3


HOSTILE = [
    b"line\nbreak", b"\xff\xfe", b"-rf", b"--help", b"x...", b"a b\t", b"caf\xe9", "né".encode(), b"A", b"a",
    b"$(touch x)", b"`x`;x|x&", b"\x1b[31mred", b"%2e%2e%2f", b"'\"", b"\\", b"x" * 255, b"\xc3\xa9" * 127, b"*",
    b"[a]",
]  # fmt: skip


async def test_hostile_names_are_only_names(yard: Yard) -> None:
    async with yard.open(recursive=True):
        for name in HOSTILE:
            yard.drop(name)
        await yard.passing(lambda: len(yard.events) == len(HOSTILE), step_s=0.5)
    assert {event.subject for event in yard.events} == {
        shown(os.path.join(yard.path, os.fsdecode(name))) for name in HOSTILE
    }
    by_name = {event.data["name"]: event.data for event in yard.events}
    # What text can hold is told as it is, so that a job can open it; for the rest there is a URI.
    assert by_name["line\nbreak"]["path"] == str(yard.path / "line\nbreak")
    assert by_name["\\xff\\xfe"]["uri"] == f"file://{yard.path}/%FF%FE"
    assert sum("uri" in data for data in by_name.values()) == 2
    yard.restart()
    async with yard.open(recursive=True):
        await yard.scanned()
        for name in HOSTILE:
            os.unlink(os.path.join(os.fsencode(yard.path), name))
        await yard.passing(lambda: len(yard.events) == 2 * len(HOSTILE), step_s=0.5)
    assert yard.context.memory == {}


async def test_a_path_that_is_longer_than_a_subject_may_be_is_an_event(yard: Yard) -> None:
    deep = yard.path
    descriptors = [os.open(deep, os.O_RDONLY)]
    for number in range(8):
        name = f"{number}" * 200
        os.mkdir(name, dir_fd=descriptors[-1])
        descriptors.append(os.open(name, os.O_RDONLY, dir_fd=descriptors[-1]))
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=descriptors[-1]))
    for descriptor in descriptors:
        os.close(descriptor)
    for _ in range(2):
        async with yard.open(recursive=True):
            await yard.passing(lambda: yard.events)
            await yard.scanned()
        yard.restart()
    (event,) = yard.events
    assert event.subject is not None
    assert len(event.subject) == 1024
    assert event.data["path"].endswith("7/file")
    assert len(event.data["path"]) > 1600


# When a file is complete


async def test_a_stable_file_is_told_when_it_settled(yard: Yard) -> None:
    async with yard.open(complete="stable", settle=2.0):
        (yard.path / "a").write_text("x")
        await yard.scanned(step_s=0.01)
        assert yard.events == []
        await yard.until_told(("created", "a"))


async def test_a_file_that_grows_is_not_complete(yard: Yard) -> None:
    async with yard.open(complete="stable", settle=2.0):
        for _ in range(6):
            with open(yard.path / "a", "ab") as file:
                file.write(b"line\n")
            yard.context.beat()
            for _ in range(20):
                yard.clock.advance(0.05)
                await anyio.sleep(0.002)
        assert yard.events == []
        await yard.until_told(("created", "a"))
    assert yard.events[0].data["size"] == 30


async def test_a_file_that_somebody_has_open_for_writing_is_not_complete(yard: Yard) -> None:
    async with yard.open(complete="stable", settle=0.5):
        with open(yard.path / "a", "wb") as file:
            file.write(b"begun")
            file.flush()
            for _ in range(200):
                yard.clock.advance(0.1)
                await anyio.sleep(0.001)
            await yard.scanned()
            assert yard.events == []
        # Nothing tells of the closing.
        await yard.until_told(("created", "a"))


async def test_where_writers_cant_be_seen_the_time_alone_counts(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "open_for_writing", lambda _: None)
    async with yard.open(complete="stable", settle=0.5):
        with open(yard.path / "a", "wb"):
            await yard.until_told(("created", "a"))


async def test_a_file_that_may_not_be_read_is_told_of(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuse(path: Any, *arguments: Any, **keywords: Any) -> int:
        if path == "a":
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **keywords)

    monkeypatch.setattr(os, "open", refuse)
    yard.drop("a")
    async with yard.open(complete="stable", settle=0.1):
        await yard.until_told(("created", "a"))


async def test_a_file_that_is_gone_before_it_settled_is_no_event(yard: Yard) -> None:
    async with yard.open(complete="stable", settle=5.0):
        yard.drop("a")
        await yard.scanned(step_s=0.01)
        (yard.path / "a").unlink()
        for _ in range(100):
            yard.clock.advance(0.2)
            await anyio.sleep(0.001)
        await yard.scanned()
    assert yard.events == []


async def test_a_file_waits_for_its_sentinel_and_after_a_change_for_a_newer_one(yard: Yard) -> None:
    async with yard.open(match=("*.csv",), complete="sentinel", sentinel=".ok"):
        (yard.path / "a.csv").write_text("1")
        await yard.scanned()
        assert yard.events == []
        (yard.path / "a.csv.ok").touch()
        await yard.until_told(("created", "a.csv"))
        (yard.path / "a.csv").write_text("22")
        os.utime(yard.path / "a.csv.ok", ns=(0, 1))
        await yard.scanned()
        assert len(yard.events) == 1
        os.utime(yard.path / "a.csv.ok")
        await yard.until_told(("created", "a.csv"), ("modified", "a.csv"))


async def test_a_file_that_is_replaced_at_once_waits_for_its_sentinel_too(yard: Yard, missed: list[str]) -> None:
    async with yard.open(complete="sentinel"):
        (yard.path / "a").write_text("1")
        (yard.path / "a.done").touch()
        await yard.until_told(("created", "a"))
        (yard.path / "a").unlink()
        await until(lambda: missed == ["a"])
        os.utime(yard.path / "a.done", ns=(0, 1))
        yard.drop("a", "22")
        await yard.scanned()
        assert len(yard.events) == 1
        (yard.path / "a.done").touch()
        await yard.until_told(("created", "a"), ("modified", "a"))


async def test_sentinels_are_no_events(yard: Yard) -> None:
    async with yard.open(complete="sentinel"):
        (yard.path / "a.done").touch()
        (yard.path / "b").write_text("x")
        (yard.path / "b.done").touch()
        await yard.until_told(("created", "b"))
        await yard.scanned()
    assert yard.told() == [("created", "b")]


async def test_rewritten_again_and_again_the_last_content_is_told_and_none_twice(yard: Yard) -> None:
    async with yard.open(complete="stable", settle=0.0):
        for number in range(200):
            (yard.path / "a").write_text("x" * number)
            if number % 10 == 0:
                yard.clock.advance(0.05)
                await anyio.sleep(0.002)
        await yard.passing(lambda: yard.events and yard.events[-1].data["size"] == 199)
        await yard.scanned()
    sizes = [event.data["size"] for event in yard.events]
    assert sizes == sorted(set(sizes))


# Once, and only once


async def test_what_is_there_at_the_start_counts(yard: Yard) -> None:
    yard.drop("a")
    async with yard.open():
        await yard.until_told(("created", "a"))


async def test_only_what_comes_after_the_first_start_counts_when_asked_for(yard: Yard) -> None:
    for number in range(1200):
        (yard.path / f"{number}").touch()
    async with yard.open(start="now"):
        assert yard.events == []
        assert len(yard.context.memory) == 1200
        yard.drop("b")
        await yard.until_told(("created", "b"))
    yard.drop("while-away")
    (yard.path / "0").unlink()
    yard.restart()
    async with yard.open(start="now"):
        await yard.until_told(("created", "b"), ("created", "while-away"), ("deleted", "0"))


async def test_a_directory_that_is_made_after_the_first_start_held_nothing_at_it(yard: Yard) -> None:
    yard.path.rmdir()
    async with yard.open(start="now"):
        yard.path.mkdir()
        yard.drop("a")
        await yard.until_told(("created", "a"), step_s=0.25)


async def test_what_changed_while_the_engine_was_away_is_told_once(yard: Yard) -> None:
    for name in ("stays", "goes", "moves", "changes"):
        yard.drop(name, name)
    async with yard.open():
        await yard.passing(lambda: len(yard.events) == 4)
    yard.events.clear()
    (yard.path / "goes").unlink()
    (yard.path / "moves").rename(yard.path / "moved")
    yard.drop("changes", "changed")
    yard.drop("comes")
    for _ in range(2):
        yard.restart()
        async with yard.open():
            await yard.until_told(
                ("deleted", "goes"), ("moved", "moved"), ("modified", "changes"), ("created", "comes")
            )
            await yard.scanned()
    assert len(yard.events) == 4


async def test_files_keep_who_they_are_when_devices_are_numbered_anew(yard: Yard) -> None:
    yard.drop("a")
    async with yard.open():
        await yard.passing(lambda: yard.events)
    yard.context.memory["a"][0] += 1
    yard.restart()
    async with yard.open():
        await yard.scanned()
    assert len(yard.events) == 1


async def test_where_inodes_are_numbered_anew_files_are_known_by_size_and_time(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "filesystem_of", lambda _: "fuse.sshfs")
    yard.drop("a")
    async with yard.open():
        await yard.passing(lambda: yard.events)
    yard.context.memory["a"][1] += 1
    yard.restart()
    async with yard.open():
        await yard.scanned()
        (yard.path / "a").rename(yard.path / "b")
        await yard.until_told(("created", "a"), ("deleted", "a"), ("created", "b"))


async def test_a_crash_after_the_commit_makes_no_second_event(yard: Yard) -> None:
    died = anyio.Event()

    async def die() -> None:
        died.set()
        await anyio.sleep_forever()

    for number in range(700):
        (yard.path / f"{number}").touch()
    yard.context.before_answer = die
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Files(path=Path("in"), complete="rename").run, yard.context)
        await died.wait()
        tasks.cancel_scope.cancel()
    assert len(yard.events) == 500
    yard.restart()
    async with yard.open():
        await yard.passing(lambda: len(yard.events) == 700)
        await yard.scanned()
    assert len({event.subject for event in yard.events}) == len(yard.events) == 700


async def test_files_wait_while_the_store_is_away(yard: Yard) -> None:
    async with yard.open():
        yard.context.failures = 4
        yard.drop("a")
        await yard.until_told(("created", "a"), step_s=0.5)
    assert yard.context.refused_calls == 4


async def test_the_pauses_while_the_store_is_away_grow(yard: Yard) -> None:
    async with yard.open():
        yard.context.failures = 10**6
        yard.drop("a")
        await until(lambda: yard.context.refused_calls)
        for _ in range(600):
            yard.clock.advance(0.25)
            await anyio.sleep(0.001)
    assert 5 <= yard.context.refused_calls <= 15


async def test_what_the_engine_refuses_is_rejected_once_and_the_others_are_told(yard: Yard) -> None:
    def refuse(event: Event) -> None:
        if event.data["name"] == "b":
            raise InvalidEvent("the engine won't have it")

    yard.context.refuse = refuse
    for name in "abc":
        yard.drop(name)
    async with yard.open():
        await yard.until_told(("created", "a"), ("created", "c"))
        await yard.scanned()
    yard.restart()
    async with yard.open():
        await yard.scanned()
    ((event, reason),) = yard.context.rejected
    assert (event.subject, reason) == (str(yard.path / "b"), "the engine won't have it")


async def test_many_files_at_once_share_transactions(yard: Yard) -> None:
    async with yard.open():
        for number in range(2_000):
            yard.drop(f"{number}")
        await yard.passing(lambda: len(yard.events) == 2_000)
        await yard.scanned()
    assert len(yard.events) == 2_000
    assert len([size for size in yard.context.batches if size]) < 200
    assert max(yard.context.batches) <= claims.MOST_AT_ONCE


async def test_hints_that_are_lost_lose_no_files(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookout, "MOST_HINTS", 0)
    monkeypatch.setattr(tree, "MOST_FOUND", 7)
    monkeypatch.setattr(tree, "MOST_ENTRIES", 20)
    async with yard.open():
        await yard.scanned()
        for number in range(300):
            yard.drop(f"{number}")
        await yard.passing(lambda: len(yard.events) == 300)


# What goes wrong with the directory


async def test_a_missing_directory_is_waited_for_and_that_is_said(yard: Yard) -> None:
    yard.path.rmdir()
    async with yard.open():
        assert yard.warning() == f"{yard.path} can't be read: No such file or directory"
        yard.path.mkdir()
        yard.drop("a")
        await yard.until_told(("created", "a"), step_s=0.25)
        await yard.passing(lambda: not yard.warning())


async def test_a_path_that_is_no_directory_is_told_and_waited_for(yard: Yard) -> None:
    yard.path.rmdir()
    yard.path.write_text("a file")
    async with yard.open():
        assert "Not a directory" in yard.warning()
        yard.path.unlink()
        yard.path.mkdir()
        yard.drop("a")
        await yard.until_told(("created", "a"), step_s=0.25)


async def test_a_directory_that_is_deleted_and_made_again_is_watched_again(yard: Yard) -> None:
    async with yard.open():
        for number in range(3):
            before = len(yard.events)
            yard.drop("a", f"{number}")
            await yard.passing(lambda: len(yard.events) > before)  # noqa: B023
            shutil.rmtree(yard.path)
            await yard.passing(yard.warning, step_s=0.25)
            yard.path.mkdir()
            await yard.passing(lambda: not yard.warning(), step_s=0.25)
            # Only then it is known that the file is gone, too.
            await yard.passing(lambda: yard.told()[-1] == ("deleted", "a"), step_s=0.25)
    assert yard.told() == [("created", "a"), ("deleted", "a")] * 3


async def test_a_replaced_directory_is_the_one_that_is_watched(yard: Yard) -> None:
    async with yard.open(every=3600.0):
        yard.drop("old")
        await yard.until_told(("created", "old"))
        other = yard.spare / "other"
        other.mkdir()
        (other / "first").write_text("x")
        yard.path.rename(yard.spare / "former")
        other.rename(yard.path)
        await yard.passing(lambda: len(yard.events) == 3, step_s=0.25)
        yard.drop("second")
        await yard.passing(lambda: len(yard.events) == 4, step_s=0.25)
    assert sorted(yard.told()) == [
        ("created", "first"), ("created", "old"), ("created", "second"), ("deleted", "old"),
    ]  # fmt: skip


async def test_a_directory_that_cant_be_watched_is_polled_until_it_can(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise OSError(28, "OS file watch limit reached")

    with monkeypatch.context() as patch:
        patch.setattr(hints, "RustNotify", refuse)
        async with yard.open(poll_every=1.0):
            await yard.passing(yard.warning)
            assert "is polled, as it can't be watched" in yard.warning()
            assert "watch limit reached" in yard.warning()
            yard.drop("a")
            await yard.until_told(("created", "a"), step_s=0.1)
            patch.undo()
            await yard.passing(lambda: not yard.warning(), step_s=1.0)


async def test_a_file_system_that_does_not_tell_of_all_changes_is_polled_and_that_is_said(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lookout, "filesystem_of", lambda _: "nfs4")

    class Silent:
        """A watch that stands, and tells nothing."""

        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        async def run(self, tell: Any) -> None:
            tell(())
            await anyio.sleep_forever()

    monkeypatch.setattr(lookout, "Watch", Silent)
    async with yard.open(poll_every=1.0):
        assert caplog.text.count("as it is on nfs4") == 1
        yard.drop("a")
        await yard.until_told(("created", "a"), step_s=0.1)


async def test_polling_alone_can_be_asked_for(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("it is watched")

    monkeypatch.setattr(hints, "RustNotify", never)
    async with yard.open(poll="always", poll_every=1.0):
        yard.drop("a")
        await yard.until_told(("created", "a"), step_s=0.1)
    assert not yard.warning()


async def test_files_are_looked_at_in_threads_alone(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill() -> None:
        for number in range(5_000):
            os.close(os.open(yard.path / f"{number}", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC))

    await run_sync(fill)
    on_the_loop = []
    real = os.stat

    def note(*arguments: Any, **keywords: Any) -> os.stat_result:
        on_the_loop.append(threading.current_thread() is threading.main_thread())
        return real(*arguments, **keywords)

    monkeypatch.setattr(os, "stat", note)
    async with yard.open(complete="stable", settle=0.0):
        await yard.passing(lambda: len(yard.events) == 5_000)
    assert len(on_the_loop) >= 5_000
    assert not any(on_the_loop)


# Settings


@pytest.mark.parametrize(
    ("field", "settings"),
    [
        ("match", {"match": ()}),
        ("match", {"match": ("/",)}),
        ("match", {"match": ("../*",)}),
        ("exclude", {"exclude": ("a//b",)}),
        ("events", {"events": ()}),
        ("events", {"events": ("deleted",), "claim": True}),
        ("settle", {"settle": 1.0, "complete": "rename"}),
        ("sentinel", {"sentinel": ".ok"}),
        ("sentinel", {"sentinel": "a/b", "complete": "sentinel"}),
        ("follow_symlinks", {"follow_symlinks": True, "claim": True}),
    ],
)
def test_settings_that_cant_work_are_refused(field: str, settings: dict[str, Any]) -> None:
    with pytest.raises(BadSetting) as caught:
        Files(path=Path("in"), **settings)
    assert caught.value.field == field


def test_the_source_is_the_same_when_only_its_patience_changes() -> None:
    one = Files(path=Path("in"))
    assert one.identity() == Files(path=Path("in"), settle=9.0, every=5.0, poll_every=1.0, poll="always").identity()
    assert one.identity() != Files(path=Path("in"), match=("*.csv",)).identity()
    assert one.identity() != Files(path=Path("other")).identity()
