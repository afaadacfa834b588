"""What happens, for those who listen: the list of the latest messages, and the stream of them over HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest

from engine.errors import Conflict, StoreUnavailable
from engine.events import Accepted, Event, EventOutcome, Outcome
from engine.feed import LINGER_S, MOST_LISTENERS, MOST_MESSAGES, Feed, Kind
from engine.http.server import HttpServer
from engine.ids import new_id
from engine.runs import Run, RunState, Step
from engine.store.changes import Accept, Entry, Finish, Hold, Memory, NoteProcess, Start
from engine.testing import VirtualClock
from tests.fake_operations import AT, TOKEN, FakeOperations
from tests.test_runtime import Gate
from tests.test_waits import engine

STREAM = "/api/v1/stream"


def a_step(state: RunState, code: str = "c") -> Step:
    return Step(at=AT, state=state, code=code, reason="why")


def an_entry(run: Run | None = None) -> Entry:
    event = Event(id=new_id(), type="order.created", source="api", received_at=AT)
    outcome = Outcome(
        trigger="nightly", outcome=EventOutcome.RUN, run=None if run is None else run.id, code="matched", reason="r"
    )
    return Entry(event=event, data=b"null", outcomes=(outcome,), runs=() if run is None else (run,))


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def feed(clock: VirtualClock) -> Feed:
    return Feed(clock, "boot")


def told(feed: Feed, place: int = 0) -> list[tuple[str, Any]]:
    found = feed.after(place, 1000)
    assert found is not None
    return [(one.kind.value, one.data) for one in found]


def test_nothing_is_gathered_while_nobody_listens(feed: Feed) -> None:
    feed.written([(Start(run="r", step=a_step(RunState.RUNNING), attempt=1, boot="b"), None)])
    feed.tell(Kind.ALERT, {})
    assert feed.latest == 0


async def test_messages_are_gathered_for_a_while_for_who_comes_back(feed: Feed, clock: VirtualClock) -> None:
    held = Hold(run="r", step=a_step(RunState.HELD))
    with feed.listen():
        feed.written([(held, None)])
    await clock.advance(LINGER_S)
    feed.written([(held, None)])
    assert feed.latest == 2
    place = feed.place("boot-1")
    assert place == 1
    await clock.advance(1)
    feed.written([(held, None)])
    assert feed.latest == 2
    assert feed.place("boot-1") is None


def test_what_is_written_is_told_and_what_was_refused_is_not(feed: Feed, tmp_path: Path) -> None:
    run = FakeOperations(tmp_path).add_run(state=RunState.QUEUED)
    entry = an_entry(run)
    accepted = Accepted(event=entry.event.id, runs=(run.id,))
    start = Start(run=run.id, step=a_step(RunState.RUNNING, "started"), attempt=1, boot="b")
    with feed.listen():
        feed.written([
            (Accept(entries=(entry, an_entry())), [accepted, Accepted(event="e", duplicate=True)]),
            (start, None),
            (NoteProcess(run=run.id, pid=1, started=1), None),
            (Hold(run=run.id, step=a_step(RunState.HELD)), Conflict("it runs")),
            (Accept(entries=(), memory=Memory(source="engine:pauses", values={"nightly": None, "tag:a": {}})), []),
            (Accept(entries=(), memory=Memory(source="files:in", values={"x": 1})), []),
        ])  # fmt: skip
    kinds = [kind for kind, _ in told(feed)]
    assert kinds == ["event", "run", "run", "trigger", "trigger"]
    (_, event), (_, begun), (_, started), (_, paused), (_, tag) = told(feed)
    assert (event["id"], event["outcomes"][0]["run"]) == (entry.event.id, run.id)
    assert (begun["id"], begun["job"], begun["state"]) == (run.id, "import", "queued")
    assert started == {
        "id": run.id, "job": "import", "trigger": "nightly", "state": "running", "code": "started", "reason": "why",
        "at": "2026-11-21T09:30:00Z",
    }  # fmt: skip
    assert paused == {"changed": "pause", "key": "nightly", "name": "nightly"}
    assert tag["key"] == "tag:a"


def test_what_follows_from_an_end_is_told_with_it(feed: Feed) -> None:
    attempt: Any = None
    end = Finish(
        run="r", step=a_step(RunState.SUCCEEDED), attempt=attempt, attempt_count=1, then=Accept(entries=(an_entry(),))
    )  # fmt: skip
    with feed.listen():
        feed.written([(end, [Accepted(event="e")])])
    assert [kind for kind, _ in told(feed)] == ["run", "event"]


def test_a_place_that_is_not_there_any_more_or_never_was_is_none(feed: Feed) -> None:
    with feed.listen():
        for number in range(MOST_MESSAGES + 5):
            feed.tell(Kind.ALERT, {"n": number})
        assert feed.place(None) == MOST_MESSAGES + 5
        assert feed.place("boot-5") == 5
        for last in ("boot-4", "other-6", f"boot-{MOST_MESSAGES + 6}", "boot-", "x", "", "boot-\u0661"):
            assert feed.place(last) is None, last
        assert feed.after(4, 10) is None
        page = feed.after(5, 10)
        assert page is not None
        assert [message.number for message in page] == list(range(6, 16))


class Listener:
    """Reads a stream: each block as its lines by name."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer

    async def block(self) -> dict[str, str]:
        found: dict[str, str] = {}
        with anyio.fail_after(20):
            while line := (await self.answer.content.readline()).decode().rstrip("\n"):
                name, _, value = line.partition(": ")
                found[name] = value
        return found

    async def message(self) -> tuple[str, Any, str]:
        while "data" not in (found := await self.block()):
            pass
        return found["event"], json.loads(found["data"]), found["id"]


@asynccontextmanager
async def listening(url: str, query: str = "", **headers: str) -> AsyncIterator[Listener]:
    sent = {"Authorization": f"Bearer {TOKEN}"} | {name.replace("_", "-"): value for name, value in headers.items()}
    async with aiohttp.ClientSession() as session, session.get(f"{url}{STREAM}{query}", headers=sent) as answer:
        yield Listener(answer)


async def test_who_listens_is_told_and_goes_on_where_it_was(operations: FakeOperations, server: HttpServer) -> None:
    async with listening(server.url) as first:
        assert first.answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert (await first.block())["retry"] == "2000"
        assert await first.block() == {"id": "boot-0"}
        operations.feed.tell(Kind.ALERT, {"name": "disk"})
        assert await first.message() == ("alert", {"name": "disk"}, "boot-1")
    operations.feed.tell(Kind.ALERT, {"name": "missed"})
    for headers, query in (({"Last_Event_ID": "boot-1"}, ""), ({}, "?last_event_id=boot-1")):
        async with listening(server.url, query, **headers) as again:
            assert await again.message() == ("alert", {"name": "missed"}, "boot-2")
    async with listening(server.url, Last_Event_ID="an older start-9") as late:
        kind, data, place = await late.message()
        assert (kind, place) == ("reset", "boot-2")
        assert data["reason"]


async def test_a_client_that_falls_behind_is_told_to_read_anew(operations: FakeOperations, server: HttpServer) -> None:
    async with listening(server.url) as listener:
        await listener.block()
        await listener.block()
        for number in range(MOST_MESSAGES + 1):
            operations.feed.tell(Kind.ALERT, {"n": number})
        assert (await listener.message())[0] == "reset"


async def test_a_client_hears_of_what_it_asked_for_and_knows_where_it_is(
    operations: FakeOperations, server: HttpServer
) -> None:
    run = operations.add_run(state=RunState.RUNNING)
    stranger = Hold(run=new_id(), step=a_step(RunState.HELD))
    end = Hold(run=run.id, step=a_step(RunState.HELD))
    for query in (
        "?job=import",
        "?trigger=nightly",
        "?tag=warehouse",
        "?state=held,queued&job=import",
        "?types=run&tag=warehouse",
    ):
        async with listening(server.url, query) as listener:
            await listener.block()
            await listener.block()
            before = operations.feed.latest
            operations.feed.tell(Kind.ALERT, {})
            operations.feed.written([(stranger, None)])
            operations.feed.written([(end, None)])
            kind, data, place = await listener.message()
            assert (kind, data["id"], data["job"], place) == ("run", run.id, "import", f"boot-{before + 3}"), query
    async with listening(server.url, "?types=event") as listener:
        await listener.block()
        await listener.block()
        operations.feed.tell(Kind.ALERT, {})
        assert await listener.block() == {"id": f"boot-{operations.feed.latest}"}


async def test_while_the_store_is_away_a_run_is_told_of_as_far_as_it_is_known(
    operations: FakeOperations, server: HttpServer
) -> None:
    async with listening(server.url) as listener:
        await listener.block()
        await listener.block()
        operations.memory.fault = StoreUnavailable("away")
        operations.feed.written([(Hold(run=new_id(), step=a_step(RunState.HELD)), None)])
        _, data, _ = await listener.message()
        assert (data["job"], data["state"]) == (None, "held")


async def test_more_than_may_listen_are_asked_to_come_later_and_a_wrong_question_is_422(
    operations: FakeOperations, server: HttpServer
) -> None:
    async with listening(server.url, "?types=weather") as listener:
        assert listener.answer.status == 422
    others = ExitStack()
    for _ in range(MOST_LISTENERS):
        others.enter_context(operations.feed.listen())
    async with listening(server.url) as listener:
        assert listener.answer.status == 503
        assert (await listener.answer.json())["code"] == "too_many_streams"


async def test_the_stream_ends_as_the_engine_stops(operations: FakeOperations, server: HttpServer) -> None:
    async with listening(server.url) as listener:
        await listener.block()
        with anyio.fail_after(20):
            await server.stop(5)
        with pytest.raises(aiohttp.ClientError):
            await listener.message()
    assert operations.feed.listeners == 0


async def test_a_whole_engine_tells_of_an_event_its_run_a_pause_and_an_alert(tmp_path: Path) -> None:
    Gate.open.add("held")
    async with engine(tmp_path) as (started, sender):
        assert started.server is not None
        url = f"{started.server.url}{STREAM}"
        headers = {"Authorization": f"Bearer {'t' * 43}"}
        async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
            listener = Listener(answer)
            await listener.block()
            await listener.block()
            _, accepted = await sender.ask("/api/v1/events?wait=20s", {"type": "order.created"})
            heard = [await listener.message()]
            while heard[-1][1].get("state") != "succeeded":
                heard.append(await listener.message())
            assert (heard[0][0], heard[0][1]["id"]) == ("event", accepted["event"])
            assert [data["state"] for kind, data, _ in heard if kind == "run"] == ["running", "succeeded"]
            assert {data["job"] for kind, data, _ in heard if kind == "run"} == {"work"}
            await sender.ask("/api/v1/triggers/heard/pause", {})
            while (message := await listener.message())[0] != "trigger":
                pass
            assert message[1] == {"changed": "pause", "key": "heard", "name": "heard"}
            await sender.ask("/api/v1/alerts/failing/mute", {"duration": "2h", "reason": "we know"})
            while (message := await listener.message())[0] != "alert":
                pass
            assert (message[1]["name"], message[1]["changed"]) == ("failing", "muted")
