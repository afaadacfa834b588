# ruff: noqa: ASYNC230 - what these tests write is small, and they write it as senders do
from __future__ import annotations

import ctypes
import fcntl
import json
import logging
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.plugin import BadSetting, Event, InvalidEvent
from plugins.sources.trigger_dir import TriggerDirectory, folder, inbox
from plugins.sources.trigger_dir.content import InvalidTrigger, read_trigger
from plugins.sources.trigger_dir.folder import Folder, Look, State
from plugins.watching import hints
from plugins.watching.names import shown
from tests.fakes import FakeSourceContext, SteppedClock, until

VALID = '{"trigger_type": "report.daily", "parameters": {"day": 1}}'


class Box:
    """A trigger directory whose source runs, seen from the sender's side."""

    def __init__(self, base: Path) -> None:
        self.path = base / "in"
        self.spare = base / "spare"
        self.spare.mkdir(exist_ok=True)
        self.clock = SteppedClock()
        self.context = FakeSourceContext(base, clock=self.clock)
        self.source = TriggerDirectory(path=Path("in"))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        async with self.context.running(self.source):
            yield

    def drop(self, name: str, text: str | bytes = VALID) -> None:
        """Write elsewhere and rename into the directory, as careful senders do."""
        self.path.mkdir(exist_ok=True)
        made = self.spare / "made"
        made.write_bytes(text.encode() if isinstance(text, str) else text)
        made.rename(self.path / name)

    @property
    def events(self) -> list[Event]:
        return self.context.emitted

    def left(self) -> list[str]:
        """Return what lies in the directory, but for the source's own directory."""
        return sorted(name for name in os.listdir(self.path) if name != ".taken")

    async def settled(self, condition: Any, *, step_s: float = 0.5) -> None:
        """Let time pass until the condition holds."""
        with anyio.fail_after(20):
            while not condition():
                self.clock.advance(step_s)
                await anyio.sleep(0.01)

    async def looked_again(self, rounds: int = 3) -> None:
        """Wait until the source has looked through the whole directory some times more."""
        for number in range(rounds):
            probe = f"probe-{id(self)}-{number}.json"
            self.drop(probe, f'{{"trigger_type": "probe", "parameters": {{"n": {number}}}}}')
            self.context.beat()
            await until(lambda name=probe: any(event.subject == name for event in self.events))  # type: ignore[misc]
            await until(lambda name=probe: not (self.path / name).exists())  # type: ignore[misc]
        self.events[:] = [event for event in self.events if event.type != "probe"]


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


# What is taken, and what it becomes


async def test_a_renamed_file_is_an_event_and_then_gone(box: Box) -> None:
    async with box.open():
        box.drop(
            "a.trigger",
            json.dumps(
                {
                    "trigger_type": "report.daily", "source": "erp", "priority": "high",
                    "parameters": {"day": 1}, "created_at": "2026-11-21T13:00:00+01:00",
                }
            ),
        )  # fmt: skip
        await until(lambda: box.left() == [])
    (event,) = box.events
    assert (event.type, event.subject, event.priority) == ("report.daily", "a.trigger", 8)
    assert event.data == {"parameters": {"day": 1}, "source": "erp"}
    assert event.time == datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
    assert event.key


async def test_an_empty_object_is_a_trigger(box: Box) -> None:
    async with box.open():
        box.drop("a.json", "{}")
        await until(lambda: box.left() == [])
    (event,) = box.events
    assert (event.type, event.data, event.priority, event.time) == (
        "file.trigger",
        {"parameters": {}},
        None,
        box.clock.now(),
    )


async def test_files_that_are_there_at_the_start_count_oldest_first(box: Box) -> None:
    for number, name in enumerate(["c.json", "a.json", "b.trigger"]):
        box.drop(name)
        os.utime(box.path / name, ns=(0, 10**18 + number))
    async with box.open():
        await until(lambda: box.left() == [])
    assert [event.subject for event in box.events] == ["c.json", "a.json", "b.trigger"]
    assert box.context.batches == [3]


async def test_other_names_are_left_alone(box: Box) -> None:
    for name in ("notes.txt", ".hidden.json", "a.json.tmp", "a.JSON", "json"):
        box.drop(name)
    async with box.open():
        await box.looked_again()
    assert box.events == []
    assert len(box.left()) == 5


async def test_the_directory_is_made_where_it_is_missing(box: Box) -> None:
    async with box.open():
        assert box.path.is_dir()


async def test_a_directory_that_is_deleted_is_made_and_watched_again(box: Box) -> None:
    async with box.open():
        for round_ in range(3):
            shutil.rmtree(box.path, ignore_errors=True)
            await box.settled(lambda: box.path.is_dir())
            before = len(box.events)
            box.drop(f"{round_}.json", f'{{"parameters": {{"n": {round_}}}}}')
            await box.settled(lambda: len(box.events) == before + 1)  # noqa: B023


async def test_a_replaced_directory_is_the_one_that_is_watched(box: Box, tmp_path: Path) -> None:
    async with box.open():
        other = tmp_path / "other"
        other.mkdir()
        (other / "first.json").write_text(VALID)
        box.path.rename(tmp_path / "old")
        other.rename(box.path)
        await box.settled(lambda: len(box.events) == 1)
        box.drop("second.json")
        await box.settled(lambda: [event.subject for event in box.events] == ["first.json", "second.json"])


async def test_many_files_at_once_share_commits(box: Box) -> None:
    for number in range(1200):
        box.drop(f"{number}.json", f'{{"parameters": {{"n": {number}}}}}')
    async with box.open():
        await until(lambda: box.left() == [])
    assert sorted(event.data["parameters"]["n"] for event in box.events) == list(range(1200))
    assert box.context.batches == [500, 500, 200]


async def test_more_files_than_are_listed_at_once_all_come(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "MOST_LISTED", 7)
    for number in range(50):
        box.drop(f"{number}.json", f'{{"parameters": {{"n": {number}}}}}')
    async with box.open():
        await until(lambda: box.left() == [])
    assert len(box.events) == 50


async def test_large_files_are_read_a_few_at_a_time(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "MOST_READ_BYTES", 100_000)
    for number in range(8):
        box.drop(f"{number}.json", json.dumps({"parameters": {"n": number, "pad": "x" * 60_000}}))
    async with box.open():
        await until(lambda: box.left() == [])
    assert box.context.batches == [2, 2, 2, 2]


async def test_a_directory_that_cant_be_watched_is_polled_and_that_is_said(
    box: Box, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(28, "OS file watch limit reached")

    monkeypatch.setattr(hints, "RustNotify", refuse)
    async with box.open():
        box.drop("a.json")
        await box.settled(lambda: box.left() == [])
    assert len(box.events) == 1
    assert caplog.text.count("watch limit reached") == 1


# Half-written files


async def test_a_file_is_not_taken_while_it_is_open_for_writing(box: Box) -> None:
    async with box.open():
        with open(box.path / "a.json", "w") as file:
            file.write("{}")
            file.flush()
            await box.looked_again()
            assert box.events == []
            file.write("   \n")
        # Nothing tells of the closing: that it is looked at again, soon, is the source's own doing.
        await box.settled(lambda: box.left() == [], step_s=0.05)
    assert len(box.events) == 1


async def test_a_slow_writer_is_waited_for(box: Box) -> None:
    async with box.open():
        with open(box.path / "a.json", "wb", buffering=0) as file:
            for byte in VALID.encode():
                file.write(bytes([byte]))
                for _ in range(4):
                    box.clock.advance(0.25)
                    await anyio.sleep(0.001)
        await box.settled(lambda: box.left() == [])
    assert [event.type for event in box.events] == ["report.daily"]
    assert box.context.rejected == []


async def test_a_writer_that_opens_the_file_again_and_again_is_waited_for(box: Box) -> None:
    async with box.open():
        for byte in VALID.encode():
            with open(box.path / "a.json", "ab") as file:
                file.write(bytes([byte]))
            box.clock.advance(1.0)
            await anyio.sleep(0.001)
        await box.settled(lambda: box.left() == [])
    assert [event.type for event in box.events] == ["report.daily"]
    assert box.context.rejected == []


async def test_invalid_content_is_never_judged_while_somebody_writes(box: Box) -> None:
    async with box.open():
        with open(box.path / "a.json", "w") as file:
            file.write('{"parameters": ')
            file.flush()
            for _ in range(20):
                box.clock.advance(10.0)
                await box.looked_again(1)
            assert box.context.rejected == []
            file.write("{}}")
        await box.settled(lambda: box.left() == [])
    assert len(box.events) == 1


async def test_a_valid_file_that_is_never_closed_is_taken_when_it_settled(box: Box) -> None:
    async with box.open():
        with open(box.path / "a.json", "w") as file:
            file.write(VALID)
            file.flush()
            await box.looked_again()
            assert box.events == []
            await box.settled(lambda: box.left() == [])
    assert len(box.events) == 1


async def test_where_writers_cant_be_seen_a_file_must_stay_the_same_for_a_moment(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "open_for_writing", lambda file: None)
    box.path.mkdir()
    (box.path / "a.json").write_text(VALID)
    async with box.open():
        # The first look has been, and as the clock stands still there is no second verdict.
        await until(lambda: box.clock.sleepers > 0)
        assert box.events == []
        box.clock.advance(inbox.QUIET_S)
        await until(lambda: box.left() == [])
    assert len(box.events) == 1


def test_a_writer_that_meets_the_check_for_writers_does_not_end_the_engine(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("{}")
    script = (
        "import fcntl, os, signal, sys, time\n"
        "from plugins.watching.opening import open_for_writing\n"
        "file = os.open(sys.argv[1], os.O_RDONLY)\n"
        "real = fcntl.fcntl\n"
        "def slow(fd, command, argument=0):\n"
        "    if command == fcntl.F_SETLEASE and argument == fcntl.F_UNLCK:\n"
        "        print('held', flush=True)\n"
        "        sys.stdin.readline()\n"
        "    return real(fd, command, argument)\n"
        "fcntl.fcntl = slow\n"
        "print(open_for_writing(file), flush=True)\n"
    )
    root = Path(__file__).parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", script, path],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root,
    ) as engine:  # fmt: skip
        assert engine.stdin is not None
        assert engine.stdout is not None
        assert engine.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError):
            os.open(path, os.O_WRONLY | os.O_NONBLOCK)  # breaks the lease: the kernel signals its holder
        engine.stdin.write("\n")
        engine.stdin.flush()
        assert engine.stdout.readline() == "False\n"
        assert engine.wait() == 0


# Invalid files

INVALID: list[tuple[str | bytes, str]] = [
    ("", "not valid JSON"),
    ("{", "not valid JSON"),
    ('{\n  "parameters": {},\n  "priority": high\n}', "line 3, column 15"),
    ("[]", "the file holds a list"),
    ("null", "the file holds null"),
    ('"text"', "the file holds text"),
    ("17", "the file holds a number"),
    ("true", "the file holds true"),
    ("{}{}", "trailing characters"),
    ('{"priority": 1, "priority": 2}', "same member name twice"),
    (b'{"source": "\xff"}', "UTF-8"),
    (b"\xef\xbb\xbf{}", "line 1, column 1"),
    ('{"parameters": {"x": NaN}}', "not valid JSON"),
    ('{"parameters": {"x": 1e999}}', "out of range"),
    ('{"parameters": ' + "[" * 100 + "]" * 100 + "}", "deeper than 64"),
    ("[" * 100_000, "deeper than 64"),
    ('{"paramters": {}}', "did you mean parameters?"),
    ('{"command": "rm"}', "unknown member 'command'; expected trigger_type"),
    ('{"parameters": []}', "parameters: found a list; expected an object"),
    ('{"parameters": null}', "parameters: found null"),
    ('{"trigger_type": 1}', "trigger_type: found a number; expected text"),
    ('{"trigger_type": ""}', "is no type"),
    ('{"trigger_type": "two words"}', "is no type"),
    ('{"trigger_type": "a\\nb"}', "is no type"),
    ('{"trigger_type": "engine.timer"}', "reserved"),
    (json.dumps({"trigger_type": "x" * 256}), "256 characters"),
    ('{"source": {}}', "source: found an object"),
    ('{"priority": 10}', "priority: found 10; expected 0 to 9, or one of low, normal, high, critical"),
    ('{"priority": -1}', "priority: found -1"),
    ('{"priority": true}', "priority: found true"),
    ('{"priority": 5.0}', "priority: found a number"),
    ('{"priority": "High"}', "priority: found 'High'"),
    ('{"created_at": "2026-11-21T12:00:00"}', "with its offset from UTC"),
    ('{"created_at": "yesterday"}', "no time by RFC 3339"),
    ('{"created_at": "2026-02-30T00:00:00Z"}', "no time by RFC 3339"),
    ('{"created_at": "0001-01-01T00:00:00+23:00"}', "no time by RFC 3339"),
    ('{"created_at": 1763726400}', "created_at: found a number"),
]


@pytest.mark.parametrize(("text", "said"), INVALID)
def test_an_invalid_file_is_told_what_is_wrong_and_where(text: str | bytes, said: str) -> None:
    body = text.encode() if isinstance(text, str) else text
    with pytest.raises(InvalidTrigger) as caught:
        read_trigger(body, subject="a.json", key="k")
    assert said in str(caught.value)
    assert len(str(caught.value)) < 300


@settings(deadline=None)
@given(body=st.binary() | st.text().map(str.encode))
def test_no_content_is_a_fault(body: bytes) -> None:
    try:
        event = read_trigger(body, subject="a.json", key="k")
    except InvalidTrigger:
        return
    assert event.subject == "a.json"


@pytest.mark.parametrize(
    ("given_", "priority"), [("low", 2), ("normal", 5), ("high", 8), ("critical", 9), (0, 0), (9, 9)]
)
def test_priorities_are_numbers_or_names(given_: Any, priority: int) -> None:
    body = json.dumps({"priority": given_}).encode()
    assert read_trigger(body, subject="a", key="k").priority == priority


async def test_bad_files_are_rejected_once_each_with_a_reason_beside_them(box: Box) -> None:
    for number, (text, _) in enumerate(INVALID):
        box.drop(f"{number}.json", text)
    async with box.open():
        await box.settled(lambda: box.left() == ["rejected"])
        await box.looked_again()
    assert box.events == []
    assert len(box.context.rejected) == len(INVALID)
    for event, reason in box.context.rejected:
        assert event.type == "file.rejected"
        assert event.subject is not None
        number = int(event.subject.removesuffix(".json"))
        text, said = INVALID[number]
        assert said in reason
        kept = box.path / "rejected" / event.subject
        assert kept.read_bytes() == (text.encode() if isinstance(text, str) else text)
        assert said in kept.with_name(f"{kept.name}.error").read_text()
        assert event.data == {"name": event.subject, "size": kept.stat().st_size}


async def test_an_invalid_file_is_judged_only_when_it_settled(box: Box) -> None:
    box.drop("a.json", '{"parameters": ')
    async with box.open():
        await until(lambda: box.clock.sleepers > 0)
        box.clock.advance(1.9)
        await box.looked_again()
        assert box.context.rejected == []
        await box.settled(lambda: len(box.context.rejected) == 1)


async def test_what_was_rejected_before_is_not_overwritten(box: Box) -> None:
    async with box.open():
        for number in range(3):
            box.drop("a.json", f"bad {number}")
            await box.settled(lambda: "a.json" not in box.left())
    rejected = box.path / "rejected"
    kept = {name: (rejected / name).read_text() for name in os.listdir(rejected) if not name.endswith(".error")}
    assert kept == {"a.json": "bad 0", "a~1.json": "bad 1", "a~2.json": "bad 2"}
    assert len(os.listdir(rejected)) == 6


async def test_a_rejected_file_that_is_corrected_and_moved_back_is_taken(box: Box) -> None:
    async with box.open():
        box.drop("a.json", "bad")
        await box.settled(lambda: "a.json" not in box.left())
        kept = box.path / "rejected" / "a.json"
        kept.write_text(VALID)
        kept.rename(box.path / "a.json")
        await until(lambda: len(box.events) == 1)


async def test_what_the_engine_refuses_is_rejected_and_the_others_are_taken(box: Box) -> None:
    def refuse(event: Event) -> None:
        if event.subject == "b.json":
            raise InvalidEvent("the engine won't have it")

    box.context.refuse = refuse
    for name in ("a.json", "b.json", "c.json"):
        box.drop(name)
    async with box.open():
        await until(lambda: box.left() == ["rejected"])
    assert sorted(event.subject or "" for event in box.events) == ["a.json", "c.json"]
    assert [reason for _, reason in box.context.rejected] == ["the engine won't have it"]


async def test_a_file_beyond_the_limit_is_rejected_without_being_read(box: Box) -> None:
    box.path.mkdir()
    with open(box.path / "a.json", "wb") as file:
        file.truncate(2**40)
    async with box.open():
        await box.settled(lambda: box.left() == ["rejected"])
    ((event, reason),) = box.context.rejected
    assert event.data["size"] == 2**40
    assert "at most 1048576" in reason
    kept = box.path / "rejected" / "a.json"
    assert kept.stat().st_size == 2**40


# What is no regular file


async def test_links_pipes_sockets_devices_and_directories_are_left_alone_and_told_once(
    box: Box, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text('{"trigger_type": "canary"}')
    box.path.mkdir()
    (box.path / "link.json").symlink_to(secret)
    (box.path / "shadow.json").symlink_to("/etc/shadow")
    (box.path / "folder-link.json").symlink_to(tmp_path)
    (box.path / "dangling.json").symlink_to("nowhere")
    (box.path / "directory.json").mkdir()
    os.mkfifo(box.path / "pipe.trigger")
    odd = 6
    if os.geteuid() == 0:
        os.mknod(box.path / "device.json", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        odd += 1
    with socket.socket(socket.AF_UNIX) as listener:
        with _inside(box.path):
            listener.bind("socket.json")
        odd += 1
        async with box.open():
            await box.looked_again()
            for _ in range(3):
                box.context.beat()
                await box.looked_again(1)
    assert box.events == []
    assert box.context.rejected == []
    assert len(box.left()) == odd
    assert secret.exists()
    assert len([record for record in caplog.records if "is left alone" in record.message]) == odd
    assert "canary" not in caplog.text


@contextmanager
def _inside(path: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


async def test_a_link_that_takes_the_place_of_a_file_is_not_followed(box: Box, tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text('{"trigger_type": "canary"}')
    box.drop("a.json")
    async with box.open():
        for _ in range(200):
            (box.spare / "link").symlink_to(secret)
            (box.spare / "link").rename(box.path / "a.json")
            box.drop("a.json")
            await anyio.lowlevel.checkpoint()
        # A link that was in the way may stay, under a name of its own.
        await until(lambda: [name for name in box.left() if not (box.path / name).is_symlink()] == [])
    assert {event.type for event in box.events} == {"report.daily"}
    assert secret.exists()


def test_what_takes_a_files_place_after_it_was_checked_is_neither_followed_nor_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real.json").write_text(VALID)
    (tmp_path / "link.json").symlink_to("real.json")
    os.mkfifo(tmp_path / "pipe.json")
    checked = os.stat(tmp_path / "real.json")
    monkeypatch.setattr(os, "stat", lambda *_, **__: checked)
    looks = Folder(tmp_path, max_bytes=1000).look(["link.json", "pipe.json", "real.json"])
    assert [look.state for look in looks] == [State.CHANGING, State.CHANGING, State.WHOLE]


# Once, and only once


async def test_a_crash_between_commit_and_removal_makes_no_second_event(box: Box) -> None:
    died = anyio.Event()

    async def die() -> None:
        died.set()
        await anyio.sleep_forever()

    for number in range(3):
        box.drop(f"{number}.json", f'{{"parameters": {{"n": {number}}}}}')
    box.context.before_answer = die
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(box.source.run, box.context)
        await died.wait()
        tasks.cancel_scope.cancel()
    assert len(box.events) == 3
    assert len(box.left()) == 3
    box.context = box.context.restarted()
    async with box.open():
        await until(lambda: box.left() == [])
    assert len(box.events) == 3


async def test_a_crash_while_a_file_is_aside_makes_no_second_event_and_leaves_no_file(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: Any, **__: Any) -> None:
        raise Killed

    box.drop("a.json")
    box.drop("b.json", "bad")
    looked = Folder(box.path, max_bytes=1000)
    (good,) = looked.look(["a.json"])
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", kill)
        patch.setattr(folder, "write_text", kill)
        with pytest.raises(Killed):
            looked.remove([good])
        with pytest.raises(Killed):
            looked.reject(looked.look(["b.json"])[0], "why")
    assert sorted(os.listdir(box.path / ".taken")) == ["a.json", "b.json"]
    # The first event had been stored under its key before.
    await box.context.emit(read_trigger(good.body, subject="a.json", key=good.key))
    async with box.open():
        await box.settled(lambda: box.left() == ["rejected"] and os.listdir(box.path / ".taken") == [])
    assert len(box.events) == 1
    assert len(box.context.rejected) == 1


async def test_a_crash_between_rejection_and_move_makes_no_second_record(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.drop("a.json", "bad")
    (look,) = Folder(box.path, max_bytes=1000).look(["a.json"])
    await box.context.reject(Event(type="file.rejected", key=look.key), "bad")
    async with box.open():
        await box.settled(lambda: box.left() == ["rejected"])
    assert len(box.context.rejected) == 1


async def test_the_same_content_dropped_again_is_a_new_event(box: Box) -> None:
    async with box.open():
        for number in range(5):
            box.drop("a.json")
            await until(lambda: box.left() == [])
            assert len(box.events) == number + 1


async def test_a_copy_that_keeps_its_time_is_a_new_event_each_time(box: Box) -> None:
    # ext4 gives the same inode number to each of them, so that only its generation differs.
    async with box.open():
        for number in range(5):
            made = box.spare / "made"
            made.write_text(VALID)
            os.utime(made, ns=(10**18, 10**18))
            made.rename(box.path / "a.json")
            await until(lambda: box.left() == [])
            assert len(box.events) == number + 1


async def test_files_stay_while_the_store_is_away_and_are_taken_after(box: Box) -> None:
    box.context.failures = 4
    box.drop("a.json")
    box.drop("b.json", "bad")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(box.source.run, box.context)
        await until(lambda: box.context.refused_calls == 1 and box.clock.sleepers > 0)
        assert box.left() == ["a.json", "b.json"]
        await box.settled(lambda: box.left() == ["rejected"])
        tasks.cancel_scope.cancel()
    assert box.context.refused_calls == 4
    assert len(box.events) == len(box.context.rejected) == 1


async def test_the_pauses_while_the_store_is_away_grow(box: Box) -> None:
    box.context.failures = 10**6
    box.drop("a.json")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(box.source.run, box.context)
        for _ in range(600):
            box.clock.advance(0.25)
            await anyio.sleep(0.001)
        tasks.cancel_scope.cancel()
    assert 5 <= box.context.refused_calls <= 15


async def test_a_file_that_is_replaced_before_it_is_removed_is_not_lost(box: Box) -> None:
    async def replace() -> None:
        box.context.before_answer = None
        box.drop("a.json", '{"trigger_type": "second"}')

    box.context.before_answer = replace
    async with box.open():
        box.drop("a.json", '{"trigger_type": "first"}')
        await until(lambda: box.left() == [])
    assert [event.type for event in box.events] == ["first", "second"]


async def test_a_file_that_is_rewritten_in_place_within_its_times_grain_is_not_lost(box: Box) -> None:
    async def rewrite() -> None:
        box.context.before_answer = None
        path = box.path / "a.json"
        times = path.stat()
        path.write_text('{"trigger_type": "other"}')
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    box.context.before_answer = rewrite
    async with box.open():
        box.drop("a.json", '{"trigger_type": "first"}')
        await until(lambda: box.left() == [])
    assert [event.type for event in box.events] == ["first", "other"]


async def test_a_file_is_not_removed_under_a_writer_that_came_late(box: Box) -> None:
    opened = []

    async def open_it() -> None:
        box.context.before_answer = None
        opened.append(open(box.path / "a.json", "a"))

    box.context.before_answer = open_it
    async with box.open():
        box.drop("a.json", '{"trigger_type": "first"}\n')
        await until(lambda: bool(opened))
        await box.looked_again()
        with opened[0] as file:
            file.seek(0)
            file.truncate(0)
            file.write('{"trigger_type": "second"}')
        await box.settled(lambda: box.left() == [])
    assert [event.type for event in box.events] == ["first", "second"]


async def test_an_overwriting_loop_loses_nothing_that_stayed_and_repeats_nothing(box: Box) -> None:
    async with box.open():
        for number in range(300):
            if number % 2:
                box.drop("a.json", f'{{"parameters": {{"n": {number}}}}}')
            else:
                (box.path / "a.json").write_text(f'{{"parameters": {{"n": {number}}}}}')
            await anyio.sleep(0.001)
        await box.settled(lambda: box.left() == [])
    seen = [event.data["parameters"]["n"] for event in box.events]
    assert seen[-1] == 299
    assert len(seen) == len(set(seen))
    assert seen == sorted(seen)
    assert box.context.rejected == []


def test_putting_back_never_overwrites_a_newer_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = Folder(tmp_path, max_bytes=1000)
    path = tmp_path / "a.json"
    path.write_text('{"n": 1}')
    (look,) = inside.look(["a.json"])
    path.write_text('{"n": 22}')
    real = folder._put_back

    def late(*arguments: Any) -> None:
        path.write_text('{"n": 333}')
        real(*arguments)

    monkeypatch.setattr(folder, "_put_back", late)
    assert inside.remove([look]) == {}
    assert path.read_text() == '{"n": 333}'
    assert (tmp_path / "a~1.json").read_text() == '{"n": 22}'


def test_where_links_are_not_allowed_files_are_put_back_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    inside = Folder(tmp_path, max_bytes=1000)
    (tmp_path / "a.json").write_text("{}")
    stale = Look(name="a.json", state=State.WHOLE, key="another")
    monkeypatch.setattr(os, "link", refuse)
    assert inside.remove([stale]) == {}
    assert (tmp_path / "a.json").read_text() == "{}"


# What can't be read or removed


async def test_a_file_that_cant_be_removed_is_taken_once_and_told_once(
    box: Box, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries = 0

    def refuse(*_: Any, **__: Any) -> None:
        nonlocal tries
        tries += 1
        raise PermissionError(1, "Operation not permitted")

    async with box.open():
        box.drop("good.json")
        box.drop("bad.json", "bad")
        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", refuse)
            await box.settled(lambda: len(box.context.rejected) == 1 and len(box.events) == 1)
            for _ in range(4):
                before = tries
                box.context.beat()
                await until(lambda: tries >= before + 2)  # noqa: B023
            assert box.left() == ["bad.json", "good.json"]
        box.context.beat()
        await until(lambda: box.left() == ["rejected"])
    assert len(box.events) == len(box.context.rejected) == 1
    assert box.context.batches == [1]
    assert caplog.text.count("good.json was taken, but can't be removed") == 1
    assert caplog.text.count("bad.json was rejected, but can't be removed") == 1


def _set_immutable(path: Path, immutable: bool) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        flags = int.from_bytes(fcntl.ioctl(file, 0x80086601, bytes(8))[:4], sys.byteorder)
        flags = flags | 0x10 if immutable else flags & ~0x10
        fcntl.ioctl(file, 0x40086602, bytes(ctypes.c_long(flags)))
    finally:
        os.close(file)


async def test_an_immutable_file_is_taken_once_also_across_a_restart(box: Box) -> None:
    box.drop("a.json")
    try:
        _set_immutable(box.path / "a.json", True)
    except OSError:
        pytest.skip("files can't be made immutable here")
    try:
        for _ in range(3):
            async with box.open():
                await box.looked_again()
            box.context = box.context.restarted()
        assert box.left() == ["a.json"]
    finally:
        _set_immutable(box.path / "a.json", False)
    async with box.open():
        await until(lambda: box.left() == [])
    assert len(box.events) == 1


async def test_an_unreadable_file_is_told_once_and_taken_when_it_can_be_read(
    box: Box, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = os.open

    def refuse(path: Any, *arguments: Any, **keywords: Any) -> int:
        if path == "a.json":
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **keywords)

    box.drop("a.json")
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        async with box.open():
            for _ in range(3):
                box.context.beat()
                await box.looked_again()
            assert box.left() == ["a.json"]
            assert box.events == []
            patch.undo()
            box.context.beat()
            await until(lambda: box.left() == [])
    assert len(box.events) == 1
    assert caplog.text.count("a.json is left alone: Permission denied") == 1


async def test_a_path_that_is_no_directory_is_told_once_and_waited_for(
    box: Box, caplog: pytest.LogCaptureFixture
) -> None:
    box.path.write_text("a file")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(box.source.run, box.context)
        await until(lambda: "can't be read" in caplog.text)
        for _ in range(20):
            box.clock.advance(1.0)
            await anyio.sleep(0.002)
        assert not box.context.is_ready.is_set()
        box.path.unlink()
        await box.settled(box.context.is_ready.is_set)
        tasks.cancel_scope.cancel()
    assert caplog.text.count("can't be read") == 1


# Names

HOSTILE = [
    b"line\nbreak.json", b"\xff\xfe.json", b"-rf.json", b"--help.json", b"x...json", b"a b\t.json",
    b"caf\xe9.trigger",
    "né.json".encode(), b"A.json", b"a.json", b"$(touch x).json", b"`x`;x|x&.json", b"\x1b[31mred.json",
    b"%2e%2e%2f.json",
    b"*.json", b"'\".json", b"\\.json", b"x" * 250 + b".json", b"\xc3\xa9" * 125 + b".json", b"con.json",
    b"a~1.json",
]  # fmt: skip


async def test_hostile_names_are_only_names(box: Box) -> None:
    box.path.mkdir()
    for name in HOSTILE:
        (box.spare / "made").write_text(VALID)
        os.rename(box.spare / "made", os.fsencode(box.path) + b"/" + name)
    async with box.open():
        await until(lambda: box.left() == [])
    assert sorted(event.subject or "" for event in box.events) == sorted(shown(os.fsdecode(name)) for name in HOSTILE)
    for event in box.events:
        assert event.subject is not None
        assert event.subject.isprintable()
        event.subject.encode()


async def test_hostile_names_are_rejected_without_trouble(box: Box) -> None:
    box.path.mkdir()
    for name in HOSTILE:
        (box.spare / "made").write_text("bad")
        os.rename(box.spare / "made", os.fsencode(box.path) + b"/" + name)
    async with box.open():
        await box.settled(lambda: box.left() == ["rejected"])
    assert len(box.context.rejected) == len(HOSTILE)
    kept = os.listdir(os.fsencode(box.path / "rejected"))
    assert len(kept) == 2 * len(HOSTILE)
    files = {name for name in kept if not name.endswith(b".error")}
    assert {name + b".error" for name in files} == set(kept) - files
    assert sorted(os.listdir(box.path.parent)) == ["in", "spare"]


def test_what_is_shown_of_a_name_is_printable() -> None:
    assert shown("a b.json") == "a b.json"
    assert shown("né.json") == "né.json"
    assert shown(os.fsdecode(b"\xff.json")) == "\\xff.json"
    assert shown("a\nb\x1b.json") == "a\\nb\\x1b.json"


# Settings


def test_the_source_is_the_same_when_only_its_patience_changes() -> None:
    one = TriggerDirectory(path=Path("/in"))
    assert one.identity() == TriggerDirectory(path=Path("/in"), settle=9.0).identity()
    assert one.identity() != TriggerDirectory(path=Path("/other")).identity()


def test_settings_that_cant_work_are_refused() -> None:
    with pytest.raises(BadSetting) as caught:
        TriggerDirectory(path=Path("/in"), settle=-1.0)
    assert caught.value.field == "settle"
    with pytest.raises(BadSetting) as caught:
        TriggerDirectory(path=Path("a\0b"))
    assert caught.value.field == "path"


def test_urgent_data_signals_are_left_to_be_ignored() -> None:
    # What the check for writers relies on.
    assert signal.getsignal(signal.SIGURG) is signal.SIG_DFL
    assert logging.getLogger("watchfiles").level == logging.NOTSET
