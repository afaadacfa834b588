"""Answers that wait for the ends of runs, what senders hand over, and CloudEvents, at a whole engine."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest

from engine.runtime import Runtime
from engine.store.base import EventFilter
from tests.test_runtime import Gate, configured, operations, running

TOKEN = {"Authorization": f"Bearer {'t' * 43}"}

CONFIG = """
[jobs.work]
run.gate = "held"

[triggers.hooked]
on.webhook = { path = "in", verify = "none", respond = { body = { ended = "{{ states }}", of = "{{ data.n }}" } } }
job = "work"

[triggers.plain]
on.webhook = { path = "plain", verify = "none" }
job = "work"

[triggers.heard]
on.event = { type = "order.*" }
job = "work"
"""


@pytest.fixture(autouse=True)
def _fresh() -> None:
    Gate.begun.clear()
    Gate.open.clear()


class Sender:
    """Somebody who sends to the engine; `seen` holds the answers."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url
        self.seen: list[tuple[int, Any]] = []

    async def ask(
        self, path: str, body: Any = None, *, method: str = "POST", headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        data = body if isinstance(body, (bytes, aiohttp.FormData)) else json.dumps({"n": 1} if body is None else body)
        sent = (
            dict(headers or {})
            if not isinstance(data, str)
            else {"Content-Type": "application/json", **(headers or {})}
        )
        async with self._session.request(method, self._url + path, data=data, headers={**TOKEN, **sent}) as answer:
            text = await answer.text()
            self.seen.append((answer.status, json.loads(text) if text else dict(answer.headers)))
            return self.seen[-1]


@asynccontextmanager
async def engine(path: Path, more: str = "") -> AsyncIterator[tuple[Runtime, Sender]]:
    config = configured(path, more + CONFIG)
    async with aiohttp.ClientSession() as session, running(config, listen=True) as started:
        assert started.server is not None
        yield started, Sender(session, started.server.url)


async def until_waiting(started: Runtime) -> None:
    while not operations(started).settling.waiting:  # noqa: ASYNC110 - nothing is set when somebody waits
        await anyio.sleep(0.005)


ASKED = ("/hooks/plain", "/api/v1/events", "/api/v1/triggers/heard/fire")


def body_for(path: str) -> dict[str, Any]:
    return {"type": "order.created"} if path.endswith("/events") else {} if path.endswith("/fire") else {"n": 1}


@pytest.mark.parametrize("path", ASKED)
async def test_who_waits_is_told_how_the_runs_ended(tmp_path: Path, path: str) -> None:
    async with engine(tmp_path) as (started, sender):
        async with anyio.create_task_group() as group:
            group.start_soon(sender.ask, f"{path}?wait=30s", body_for(path))
            await until_waiting(started)
            assert sender.seen == []
            Gate.open.add("held")
        [(status, told)] = sender.seen
    assert status == 200
    assert told["states"] == {told["runs"][0]: "succeeded"}
    assert [(end["job"], end["state"]) for end in told["ends"]] == [("work", "succeeded")]


@pytest.mark.parametrize("path", ASKED)
async def test_when_the_time_is_up_the_states_are_told(tmp_path: Path, path: str) -> None:
    async with engine(tmp_path) as (_, sender):
        status, told = await sender.ask(f"{path}?wait=50ms", body_for(path))
        Gate.open.add("held")
    assert status == 202
    assert list(told["states"]) == told["runs"]
    assert set(told["states"].values()) <= {"queued", "running"}


@pytest.mark.parametrize("path", ASKED)
async def test_a_wait_that_is_none_is_422_and_makes_no_event(tmp_path: Path, path: str) -> None:
    async with engine(tmp_path) as (started, sender):
        status, _ = await sender.ask(f"{path}?wait=soon", body_for(path))
        assert await operations(started).store.events(EventFilter(), limit=5) == []
    assert status == 422


async def test_who_leaves_is_waited_for_no_longer_and_the_run_goes_on(tmp_path: Path) -> None:
    async with engine(tmp_path) as (started, sender):
        async with anyio.create_task_group() as group:
            group.start_soon(sender.ask, "/hooks/plain?wait=60s")
            await until_waiting(started)
            group.cancel_scope.cancel()
        while operations(started).settling.waiting:  # noqa: ASYNC110 - nothing is set when somebody has left
            await anyio.sleep(0.005)
        Gate.open.add("held")
        [stored] = await operations(started).store.events(EventFilter(), limit=5)
        run = await operations(started).ended(stored.outcomes[0].run or "")
        assert run is not None
        assert run.state == "succeeded"


async def test_the_stop_of_the_engine_keeps_nobody_waiting(tmp_path: Path) -> None:
    async with anyio.create_task_group() as group, engine(tmp_path) as (started, sender):
        group.start_soon(sender.ask, "/hooks/plain?wait=60s")
        await until_waiting(started)
        started.stop()
        while not sender.seen:  # noqa: ASYNC110 - the answer is what is waited for
            await anyio.sleep(0.005)
        Gate.open.add("held")
    [(status, told)] = sender.seen
    assert (status, list(told["states"].values())) == (202, ["running"])


async def test_an_answer_of_ones_own_tells_of_the_ends(tmp_path: Path) -> None:
    Gate.open.add("held")
    async with engine(tmp_path) as (_, sender):
        status, told = await sender.ask("/hooks/in?wait=30s", {"n": 7})
    assert status == 200
    assert (list(told["ended"].values()), told["of"]) == (["succeeded"], 7)


async def test_files_lie_beside_the_event_below_the_engines_data(tmp_path: Path) -> None:
    Gate.open.add("held")
    form = aiohttp.FormData()
    form.add_field("n", "1")
    form.add_field("file", b"content", filename="a.txt")
    async with engine(tmp_path) as (started, sender):
        status, told = await sender.ask("/hooks/plain", form)
        stored = await operations(started).store.event(told["event"])
    assert status == 202
    assert stored is not None
    path = Path(stored.event.data["file"]["path"])
    assert path.is_relative_to(operations(started).config.engine.data / "files")
    assert path.read_bytes() == b"content"  # noqa: ASYNC240
    assert (path.parent / "event").read_text() == told["event"]


async def test_the_api_takes_cloudevents_in_binary_mode_and_answers_their_handshake(tmp_path: Path) -> None:
    Gate.open.add("held")
    headers = {
        "ce-specversion": "1.0",
        "ce-id": "7",
        "ce-source": "/shop",
        "ce-type": "order.created",
        "ce-priority": "8",
    }
    async with engine(tmp_path) as (started, sender):
        status, told = await sender.ask("/api/v1/events", {"n": 1}, headers=headers)
        stored = await operations(started).store.event(told["event"])
        assert stored is not None
        event = stored.event
        refused = await sender.ask("/api/v1/events", {"n": 1}, headers={"ce-specversion": "1.0"})
        asked = {"WebHook-Request-Origin": "shop.example"}
        _, shaken = await sender.ask("/api/v1/events", b"", method="OPTIONS", headers=asked)
        _, other = await sender.ask("/api/v1/status", b"", method="OPTIONS", headers=asked)
    assert (status, len(told["runs"])) == (202, 1)
    assert (event.type, event.source, event.key, event.data, event.priority) == (
        "order.created",
        "/shop",
        "7",
        {"n": 1},
        8,
    )
    assert refused[0] == 422
    assert shaken["WebHook-Allowed-Origin"] == "shop.example"
    assert "WebHook-Allowed-Origin" not in other


async def test_another_body_under_an_idempotency_key_is_422_also_after_a_restart(tmp_path: Path) -> None:
    Gate.open.add("held")
    key = {"Idempotency-Key": "k"}
    async with engine(tmp_path) as (_, sender):
        first = await sender.ask("/hooks/plain", {"n": 1}, headers=key)
    async with engine(tmp_path) as (_, sender):
        again = await sender.ask("/hooks/plain", {"n": 1}, headers=key)
        other = await sender.ask("/hooks/plain", {"n": 2}, headers=key)
    assert (first[0], again[0], other[0]) == (202, 202, 422)
    assert again[1] == {**first[1], "duplicate": True}


async def test_what_is_redacted_is_no_other_body(tmp_path: Path) -> None:
    Gate.open.add("held")
    key = {"Idempotency-Key": "k"}
    async with engine(tmp_path, 'security.redact = ["data.card"]') as (started, sender):
        first = await sender.ask("/hooks/plain", {"n": 1, "card": "4711"}, headers=key)
        again = await sender.ask("/hooks/plain", {"n": 1, "card": "4711"}, headers=key)
        other = await sender.ask("/hooks/plain", {"n": 2, "card": "4711"}, headers=key)
        stored = await operations(started).store.event(first[1]["event"])
    assert stored is not None
    assert stored.event.data == {"n": 1, "card": "[redacted]"}
    assert (first[0], again[0], other[0]) == (202, 202, 422)
