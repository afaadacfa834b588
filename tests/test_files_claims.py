# ruff: noqa: ASYNC230 - what these tests write is small, and they write it as senders do
from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.plugin import Accepted, Event, InvalidEvent
from engine.runs import RunState
from plugins.sources.files import Files, claims
from plugins.sources.files.changes import Change
from plugins.sources.files.claims import ClaimFolders
from plugins.sources.files.known import Known
from plugins.watching.opening import mark_of
from tests.fakes import FakeSourceContext, SteppedClock


class Inbox:
    """A directory whose files are claimed, seen from its senders' side."""

    def __init__(self, base: Path) -> None:
        self.path = base / "in"
        self.path.mkdir()
        self.spare = base / "spare"
        self.spare.mkdir()
        self.clock = SteppedClock()
        self.context = FakeSourceContext(base, clock=self.clock)

    @asynccontextmanager
    async def open(self, **settings: Any) -> AsyncIterator[None]:
        settings = {"settle": 0.1, **settings} if settings.get("complete", "stable") == "stable" else settings
        async with self.context.running(Files(path=Path("in"), claim=True, **settings)):
            yield

    def drop(self, name: str | bytes, text: str = "content") -> None:
        made = self.spare / "made"
        made.write_text(text)
        os.rename(os.fsencode(made), os.path.join(os.fsencode(self.path), os.fsencode(name)))

    def left(self) -> list[str]:
        """Return the files that lie anywhere in the directory, by their paths."""
        return sorted(
            os.path.relpath(os.path.join(place, name), self.path)
            for place, _, names in os.walk(self.path)
            for name in names
        )

    def text(self, event: Event) -> str:
        """Return what lies where an event says that its file is."""
        return Path(event.data["path"]).read_text()

    @property
    def events(self) -> list[Event]:
        return self.context.emitted

    def settle(self, number: int, state: RunState = RunState.SUCCEEDED) -> None:
        """Let the run of the event of that number, from 1, end so."""
        self.context.settle(Accepted(event=f"event-{number}", runs=(f"run-{number}",)), state)

    async def passing(self, condition: Any, *, step_s: float = 0.05) -> None:
        with anyio.fail_after(20):
            while not condition():
                self.clock.advance(step_s)
                await anyio.sleep(0.005)

    async def until_left(self, *expected: str, step_s: float = 0.05) -> None:
        await self.passing(lambda: self.left() == sorted(expected), step_s=step_s)


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox(tmp_path)


async def test_a_claimed_file_lies_where_no_sender_writes_while_its_runs_go_on(inbox: Inbox) -> None:
    async with inbox.open():
        inbox.drop("a.csv")
        await inbox.passing(lambda: inbox.events)
        assert inbox.left() == [".claimed/a.csv"]
        (event,) = inbox.events
        assert (event.type, event.subject) == ("file.created", str(inbox.path / "a.csv"))
        assert event.data["path"] == str(inbox.path / ".claimed" / "a.csv")
        assert event.data["name"] == "a.csv"
        inbox.settle(1)
        await inbox.until_left("done/a.csv")
        await inbox.passing(lambda: inbox.context.memory == {})
    assert len(inbox.events) == 1


@pytest.mark.parametrize("state", [RunState.FAILED, RunState.TIMED_OUT, RunState.CANCELLED, RunState.SKIPPED])
async def test_a_file_whose_run_did_not_succeed_is_moved_beside_the_reason(inbox: Inbox, state: RunState) -> None:
    async with inbox.open():
        inbox.drop("a.csv")
        await inbox.passing(lambda: inbox.events)
        inbox.settle(1, state)
        await inbox.until_left("failed/a.csv", "failed/a.csv.error")
    text = (inbox.path / "failed" / "a.csv.error").read_text()
    assert f"run run-1 of the job job (trigger trigger): {state.value}: {state}: it said so" in text


async def test_an_event_without_runs_leaves_a_file_that_is_done(inbox: Inbox) -> None:
    inbox.context.store.makes_runs = False
    async with inbox.open():
        inbox.drop("a.csv")
        await inbox.until_left("done/a.csv")
    assert len(inbox.events) == 1


async def test_directories_below_are_kept(inbox: Inbox) -> None:
    (inbox.path / "x" / "y").mkdir(parents=True)
    (inbox.path / "x" / "y" / "a").write_text("1")
    async with inbox.open(recursive=True):
        await inbox.passing(lambda: inbox.events)
        assert inbox.left() == [".claimed/x/y/a"]
        inbox.settle(1)
        await inbox.until_left("done/x/y/a")
        # What lies in the source's own directories is no file to take.
        inbox.context.beat()
        inbox.drop("x/y/b")
        await inbox.passing(lambda: len(inbox.events) == 2)
    assert inbox.events[1].data["name"] == "b"


async def test_files_of_one_name_are_claimed_beside_each_other_and_replace_none_that_is_done(inbox: Inbox) -> None:
    async with inbox.open():
        for number in (1, 2, 3):
            inbox.drop("a.csv", f"{number}")
            await inbox.passing(lambda: len(inbox.events) == number)  # noqa: B023
        assert inbox.left() == [".claimed/a.csv", ".claimed/a~1.csv", ".claimed/a~2.csv"]
        assert {event.subject for event in inbox.events} == {str(inbox.path / "a.csv")}
        assert len({event.data["path"] for event in inbox.events}) == 3
        inbox.settle(2)
        await inbox.passing(lambda: "done/a.csv" in inbox.left())
        inbox.settle(1)
        inbox.settle(3)
        await inbox.until_left("done/a.csv", "done/a~1.csv", "done/a~2.csv")
    assert (inbox.path / "done" / "a.csv").read_text() == "2"


async def test_rewritten_while_it_is_processed_each_content_is_one_event_and_the_last_is_not_lost(
    inbox: Inbox,
) -> None:
    async with inbox.open(settle=0.0):
        for number in range(300):
            if number % 2:
                inbox.drop("a.csv", f"{number}")
            else:
                (inbox.path / "a.csv").write_text(f"{number}")
            if number % 7 == 0:
                inbox.clock.advance(0.1)
            await anyio.sleep(0.001)
        await inbox.passing(lambda: not (inbox.path / "a.csv").exists())
        # A file that was claimed has its event a moment later.
        await inbox.passing(lambda: inbox.events and len(inbox.events) == len(inbox.left()))
        contents = [int(inbox.text(event)) for event in inbox.events]
    assert contents[-1] == 299
    assert len(set(contents)) == len(contents) > 5


async def test_a_file_is_not_claimed_while_somebody_writes(inbox: Inbox) -> None:
    async with inbox.open():
        with open(inbox.path / "a.csv", "wb") as file:
            file.write(b"begun")
            file.flush()
            for _ in range(100):
                inbox.clock.advance(0.1)
                await anyio.sleep(0.001)
            assert inbox.left() == ["a.csv"]
        await inbox.until_left(".claimed/a.csv")


def test_a_file_whose_writer_came_late_is_put_back(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("x")
    change = Change(kind="created", path="a", mark=mark_of(path.stat()))
    folders = ClaimFolders(tmp_path, same=Known({}).same, asks_writers=True, sentinel=None)
    with path.open("ab"):
        assert folders.take([change]) == ([], {})
    assert path.read_text() == "x"
    path.write_text("changed")
    assert folders.take([change]) == ([], {})
    assert path.read_text() == "changed"


@pytest.mark.parametrize("moment", ["claimed", "stored"])
async def test_a_crash_at_any_time_makes_one_event_and_one_file(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    died = anyio.Event()
    real = inbox.context.emit

    async def emit(*events: Event, **keywords: Any) -> list[Accepted]:
        answers = [] if events and moment == "claimed" else await real(*events, **keywords)
        if events:
            died.set()
            await anyio.sleep_forever()
        return answers

    monkeypatch.setattr(inbox.context, "emit", emit)
    inbox.drop("a.csv")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Files(path=Path("in"), claim=True, settle=0.0).run, inbox.context)
        await inbox.passing(died.is_set)
        tasks.cancel_scope.cancel()
    assert inbox.left() == [".claimed/a.csv"]
    assert len(inbox.events) == (1 if moment == "stored" else 0)
    if moment == "stored":
        os.utime(inbox.path / ".claimed" / "a.csv")  # a job may well touch what it works on
    inbox.context = inbox.context.restarted()
    async with inbox.open():
        await inbox.passing(lambda: inbox.events)
        inbox.settle(1)
        await inbox.until_left("done/a.csv")
        await inbox.passing(lambda: inbox.context.memory == {})
    (event,) = inbox.events
    assert (event.data["name"], event.subject) == ("a.csv", str(inbox.path / "a.csv"))


async def test_what_a_job_removed_or_moved_itself_is_forgotten(inbox: Inbox) -> None:
    async with inbox.open():
        inbox.drop("a.csv")
        inbox.drop("b.csv")
        await inbox.passing(lambda: len(inbox.events) == 2)
        for name in ("a.csv", "b.csv"):
            (inbox.path / ".claimed" / name).unlink()
        inbox.settle(1)
        await inbox.passing(lambda: len(inbox.context.memory) == 1)
    inbox.context = inbox.context.restarted()
    async with inbox.open():
        await inbox.passing(lambda: inbox.context.memory == {})
    assert len(inbox.events) == 2


async def test_files_that_were_there_at_the_first_start_are_left_when_asked_for(inbox: Inbox) -> None:
    inbox.drop("old.csv")
    inbox.drop("gone.csv")
    async with inbox.open(start="now"):
        inbox.drop("new.csv")
        (inbox.path / "gone.csv").unlink()
        await inbox.passing(lambda: inbox.events)
        await inbox.passing(lambda: "gone.csv" not in inbox.context.memory)
        assert inbox.left() == [".claimed/new.csv", "old.csv"]
        inbox.drop("old.csv", "it is new now")
        await inbox.passing(lambda: len(inbox.events) == 2)
    assert [event.type for event in inbox.events] == ["file.created"] * 2


async def test_a_sentinel_goes_with_its_file(inbox: Inbox) -> None:
    async with inbox.open(complete="sentinel"):
        (inbox.path / "a.csv").write_text("1")
        (inbox.path / "a.csv.done").touch()
        await inbox.passing(lambda: inbox.events)
        assert inbox.left() == [".claimed/a.csv"]


async def test_a_file_that_cant_be_claimed_is_left_told_and_taken_later(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    async with inbox.open():
        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", refuse)
            made = inbox.path / "a.csv"
            made.write_text("x")
            await inbox.passing(lambda: inbox.context.warning is not None)
            for _ in range(3):
                inbox.context.beat()
                for _ in range(20):
                    inbox.clock.advance(0.05)
                    await anyio.sleep(0.002)
            assert inbox.left() == ["a.csv"]
        inbox.context.beat()
        await inbox.passing(lambda: inbox.events)
        inbox.context.beat()
        await inbox.passing(lambda: inbox.context.warning is None, step_s=0.5)
    assert caplog.text.count("can't be claimed, such as a.csv: Operation not permitted") == 1


async def test_a_file_that_cant_be_moved_at_its_end_is_tried_again(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with inbox.open():
        inbox.drop("a.csv")
        await inbox.passing(lambda: inbox.events)
        (inbox.path / "done").write_text("in the way")
        inbox.settle(1)
        await inbox.passing(lambda: inbox.context.warning is not None)
        assert inbox.context.warning == "files can't be moved from .claimed: Not a directory"
        (inbox.path / "done").unlink()
        await inbox.until_left("done/a.csv", step_s=5.0)
        await inbox.passing(lambda: inbox.context.warning is None)


async def test_what_the_engine_refuses_has_failed(inbox: Inbox) -> None:
    def refuse(_: Event) -> None:
        raise InvalidEvent("the engine won't have it")

    inbox.context.refuse = refuse
    async with inbox.open():
        inbox.drop("a.csv")
        await inbox.until_left("failed/a.csv", "failed/a.csv.error")
    assert "the engine won't have it" in (inbox.path / "failed" / "a.csv.error").read_text()


async def test_runs_that_take_long_keep_no_others_waiting(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "MOST_AWAITED", 2)
    async with inbox.open():
        for number in range(6):
            inbox.drop(f"{number}.csv", f"{number}")
        await inbox.passing(lambda: len(inbox.events) == 6)
        last = os.path.basename(inbox.events[5].data["path"])
        inbox.settle(6)
        await inbox.passing(lambda: f"done/{last}" in inbox.left(), step_s=2.0)
        assert len([path for path in inbox.left() if path.startswith(".claimed/")]) == 5


async def test_hostile_names_are_claimed_like_others(inbox: Inbox) -> None:
    names = [b"line\nbreak", b"\xff\xfe", b"x" * 255, b"\xc3\xa9" * 127, b"-rf"]
    async with inbox.open(complete="rename"):
        for name in names:
            inbox.drop(name)
        await inbox.passing(lambda: len(inbox.events) == len(names), step_s=0.5)
    inbox.context = inbox.context.restarted()
    for name in names:
        os.utime(os.fsencode(inbox.path / ".claimed") + b"/" + name)
    async with inbox.open(complete="rename"):
        for number in range(1, len(names) + 1):
            inbox.settle(number, RunState.FAILED)
        failed = inbox.path / "failed"
        await inbox.passing(lambda: failed.is_dir() and len(os.listdir(failed)) == 2 * len(names))
        await inbox.passing(lambda: inbox.context.memory == {})
    assert len(inbox.events) == len(names)


async def test_a_link_that_takes_a_files_place_is_not_claimed(inbox: Inbox) -> None:
    secret = inbox.spare / "secret"
    secret.write_text("secret")
    (inbox.path / ".claimed").symlink_to(inbox.spare)
    async with inbox.open():
        inbox.drop("a.csv")
        await inbox.passing(lambda: inbox.context.warning is not None)
        assert inbox.left() == [".claimed", "a.csv"] or inbox.left() == ["a.csv"]
    assert sorted(os.listdir(inbox.spare)) == ["secret"]
    assert inbox.events == []
