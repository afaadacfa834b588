"""Idempotency-Key: a POST that is sent again gets the answer of the first time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from engine.errors import StoreUnavailable
from engine.http.access import Role
from engine.http.described import JSON, described
from engine.http.idempotency import MOST_IN_MEMORY
from engine.http.route import Route
from engine.http.routes import Router
from engine.http.server import HttpServer
from engine.http.tokens import AdminToken
from engine.journal import Journal
from engine.plugin import Response
from engine.replies import MOST_KEPT, REMOVED_AT_ONCE, Replies
from engine.store.sqlite import SqliteStore
from engine.testing import VirtualClock
from tests.fake_operations import TOKEN, FakeOperations
from tests.http_client import Client, asking
from tests.test_runtime import Gate
from tests.test_waits import engine

V1 = "/api/v1"
KEY = {"Idempotency-Key": "k-1"}
PAUSE = f"{V1}/triggers/nightly/pause"


async def test_a_request_that_is_sent_again_is_not_done_again(operations: FakeOperations, client: Client) -> None:
    first = await client.ask("POST", PAUSE, body={"reason": "one"}, headers=KEY)
    await operations.resume(operations.paused["nightly"].scope, "nightly")
    again = await client.ask("POST", PAUSE, body={"reason": "one"}, headers=KEY)
    assert (again.status, again.json) == (first.status, first.json)
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert not operations.paused


async def test_a_location_comes_again(client: Client) -> None:
    body = {"name": "upgrade", "duration": "1h"}
    answers = [await client.ask("POST", f"{V1}/maintenance", body=body, headers=KEY) for _ in range(2)]
    assert [answer.status for answer in answers] == [201, 201]
    assert answers[0].headers["Location"] == answers[1].headers["Location"]


async def test_another_body_with_the_key_is_422_and_another_path_is_another_request(client: Client) -> None:
    await client.ask("POST", PAUSE, body={"reason": "one"}, headers=KEY)
    other = await client.ask("POST", PAUSE, body={"reason": "two"}, headers=KEY)
    assert (other.status, other.json["code"]) == (422, "key_reused")
    assert (await client.ask("POST", f"{V1}/triggers/nightly/resume", headers=KEY)).status == 200


async def test_what_was_refused_may_be_mended_and_sent_with_its_key(client: Client) -> None:
    assert (await client.ask("POST", PAUSE, body={"why": "one"}, headers=KEY)).status == 422
    assert (await client.ask("POST", PAUSE, body={"reason": "one"}, headers=KEY)).status == 200


async def test_a_key_that_is_none_is_refused_wherever_it_is_sent(client: Client) -> None:
    for key in ("", "k" * 256, "\u00e9"):
        got = await client.ask("POST", PAUSE, headers={"Idempotency-Key": key})
        assert (got.status, got.json["code"]) == (400, "bad_request")


async def test_what_can_not_be_kept_is_done_and_answered_all_the_same(
    operations: FakeOperations, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    operations.replies.fault = StoreUnavailable("the disk is full")
    assert (await client.ask("POST", PAUSE, headers=KEY)).status == 200
    assert [record.__dict__["action"] for record in caplog.records] == ["reply_not_kept"]


async def test_where_too_many_are_kept_nothing_is_done(operations: FakeOperations, client: Client) -> None:
    operations.replies.is_full = True
    got = await client.ask("POST", PAUSE, headers=KEY)
    assert (got.status, got.json["code"]) == (429, "too_many_keys")
    assert not operations.paused
    assert (await client.ask("POST", PAUSE)).status == 200


async def test_an_event_or_a_fire_with_the_key_of_another_one_is_422(
    operations: FakeOperations, client: Client
) -> None:
    for path, body in ((f"{V1}/events", {"type": "a"}), (f"{V1}/triggers/nightly/fire", {"data": 1})):
        operations.repeats = True
        assert (await client.ask("POST", path, body=body, headers=KEY)).status == 202
        operations.repeats = False
        operations.duplicate = True
        got = await client.ask("POST", path, body=body, headers=KEY)
        assert (got.status, got.json["code"]) == (422, "key_reused")
        operations.duplicate = False


class Slow:
    """A route that takes as long as it is let."""

    def __init__(self) -> None:
        self.count = 0
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()

    async def plain(self, call: Any) -> Response:
        self.count += 1
        self.begun.set()
        await self.go_on.wait()
        return Response(body={"n": self.count})


def only(handler: Any) -> Router:
    return Router([Route(method="POST", pattern="/api/v1/slow", handler=handler, role=Role.VIEWER, summary="")])


async def test_while_the_first_is_in_progress_another_one_is_409(operations: FakeOperations) -> None:
    slow = Slow()
    server = HttpServer(operations, AdminToken.from_text(TOKEN), router=only(slow.plain))
    await server.start()
    try:
        async with asking(server) as client:
            first = asyncio.ensure_future(client.ask("POST", "/api/v1/slow", headers=KEY))
            await slow.begun.wait()
            second = await client.ask("POST", "/api/v1/slow", headers=KEY)
            assert (second.status, second.json["code"], second.headers["Retry-After"]) == (409, "in_progress", "1")
            assert (await client.ask("POST", "/api/v1/slow", body={"x": 1}, headers=KEY)).status == 422
            slow.go_on.set()
            assert (await first).json == {"n": 1}
            assert (await client.ask("POST", "/api/v1/slow", headers=KEY)).json == {"n": 1}
    finally:
        await server.stop(0.1)


def all_written(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]


async def test_the_secret_of_a_token_is_told_again_and_is_on_no_disk(tmp_path: Path) -> None:
    made = {"name": "dashboard", "role": "viewer"}
    async with engine(tmp_path) as (_, sender):
        status, token = await sender.ask(f"{V1}/tokens", made, headers=KEY)
        assert (status, await sender.ask(f"{V1}/tokens", made, headers=KEY)) == (201, (201, token))
        rotate = f"{V1}/tokens/dashboard/rotate"
        status, rotated = await sender.ask(rotate, {}, headers=KEY)
        assert (status, await sender.ask(rotate, {}, headers=KEY)) == (200, (200, rotated))
        secrets = [token["token"].encode(), rotated["token"].encode()]
        assert len(set(secrets)) == 2
        written = all_written(tmp_path)
    written += all_written(tmp_path)
    assert any(b"dashboard" in content for content in written), "the token itself is stored"
    assert not any(secret in content for content in written for secret in secrets)
    async with engine(tmp_path) as (_, sender):  # what is gone with the memory is not made up
        assert (await sender.ask(f"{V1}/tokens", made, headers=KEY))[0] == 409


async def test_an_answer_with_a_secret_is_kept_in_memory_alone(operations: FakeOperations) -> None:
    made = 0

    @described({200: JSON}, keyed="in_memory")
    async def secret(call: Any) -> Response:
        nonlocal made
        made += 1
        return Response(body={"token": made})

    server = HttpServer(operations, AdminToken.from_text(TOKEN), router=only(secret))
    await server.start()
    try:
        async with asking(server) as client:
            answers = [await client.ask("POST", "/api/v1/slow", headers=KEY) for _ in range(2)]
            assert [answer.json for answer in answers] == [{"token": 1}, {"token": 1}]
            assert (await client.ask("POST", "/api/v1/slow", body={}, headers=KEY)).status == 422
            for number in range(MOST_IN_MEMORY):
                await client.ask("POST", "/api/v1/slow", headers={"Idempotency-Key": f"n-{number}"})
            assert (await client.ask("POST", "/api/v1/slow", headers=KEY)).json == {"token": MOST_IN_MEMORY + 2}
    finally:
        await server.stop(0.1)
    assert not operations.replies.kept


class Kept:
    """Replies on a store, with a clock that is moved."""

    def __init__(self, path: Path) -> None:
        self.clock = VirtualClock()
        self.store = SqliteStore(path / "engine.db")
        self.journal = Journal(self.store, self.clock)
        self.replies = Replies(self.store, self.journal, self.clock)

    async def keep(self, digest: str, body: Any = None) -> None:
        await self.replies.keep(digest, request="r", status=200, headers={}, body=body)


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Kept]:
    made = Kept(tmp_path)
    await made.store.open()
    running = asyncio.ensure_future(made.journal.run())
    yield made
    made.journal.close()
    await running
    await made.store.close()


HOUR_S = 3600.0


async def test_a_reply_is_kept_for_a_day_whenever_the_day_ends(kept: Kept) -> None:
    await kept.keep("a" * 64, {"x": [1, None]})
    for hours in (0, 12, 11.9):
        await kept.clock.advance(hours * HOUR_S)
        found = await kept.replies.find("a" * 64)
        assert found is not None
        assert (found.status, found.body, found.request) == (200, {"x": [1, None]}, "r")
    await kept.clock.advance(HOUR_S)
    assert await kept.replies.find("a" * 64) is None
    assert await kept.replies.find("a" * 63) is None
    assert await kept.replies.find("b" * 64) is None


async def test_what_is_over_goes_as_others_come(kept: Kept) -> None:
    for number in range(REMOVED_AT_ONCE + 1):
        await kept.keep(f"{number:064}")
    await kept.clock.advance(48 * HOUR_S)
    left = []
    for number in (100, 101):
        await kept.keep(f"{number:064}")
        shelves = [await kept.store.memory(f"engine:replies:{shelf}", after=None, limit=100) for shelf in range(3)]
        left.append(sum(map(len, shelves)))
    assert left == [2, 2]


async def test_there_is_an_end_to_what_is_kept_in_a_day(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.replies.MOST_KEPT", 2)
    assert MOST_KEPT > 1000
    for number in range(2):
        assert not kept.replies.full()
        await kept.keep(f"{number:064}")
    assert kept.replies.full()
    await kept.clock.advance(24 * HOUR_S)
    assert not kept.replies.full()


async def test_keys_hold_after_a_restart(tmp_path: Path) -> None:
    Gate.open.add("held")
    pause, fire = "/api/v1/triggers/heard/pause", "/api/v1/triggers/heard/fire"
    order = {"type": "order.created", "data": {"n": 1}}
    async with engine(tmp_path) as (_, sender):
        paused = await sender.ask(pause, {"reason": "one"}, headers=KEY)
        await sender.ask("/api/v1/triggers/heard/resume", {})
        heard = await sender.ask("/api/v1/events", order, headers=KEY)
        fired = await sender.ask(fire, {"data": {"n": 1}}, headers=KEY)
    async with engine(tmp_path) as (_, sender):
        assert await sender.ask(pause, {"reason": "one"}, headers=KEY) == paused
        assert (await sender.ask(pause, {"reason": "two"}, headers=KEY))[0] == 422
        status, trigger = await sender.ask("/api/v1/triggers/heard", method="GET")
        assert (status, trigger["state"]) == (200, "active")
        assert await sender.ask("/api/v1/events", order, headers=KEY) == (202, {**heard[1], "duplicate": True})
        assert (await sender.ask("/api/v1/events", {**order, "data": {"n": 2}}, headers=KEY))[0] == 422
        assert await sender.ask(fire, {"data": {"n": 1}}, headers=KEY) == (202, {**fired[1], "duplicate": True})
        assert (await sender.ask(fire, {"data": {"n": 2}}, headers=KEY))[0] == 422


async def test_a_key_of_another_trigger_route_or_caller_is_another_one(tmp_path: Path) -> None:
    Gate.open.add("held")
    fires = [f"{V1}/triggers/{name}/fire" for name in ("heard", "plain")]
    async with engine(tmp_path) as (_, sender):
        got = await sender.ask(f"{V1}/tokens", {"name": "ann", "role": "operator"})
        ann = {"Authorization": f"Bearer {got[1]['token']}"}
        first = [await sender.ask(path, {}, headers=KEY) for path in fires]
        first.append(await sender.ask(fires[0], {}, headers={**KEY, **ann}))
        bulk = {"action": "fire", "names": ["heard"], "atomic": True}
        _, done = await sender.ask(f"{V1}/triggers/bulk", bulk, headers=KEY)
        again = [await sender.ask(path, {}, headers=KEY) for path in fires]
        again.append(await sender.ask(fires[0], {}, headers={**KEY, **ann}))
    assert [status for status, _ in [*first, *again]] == [202] * 6
    assert len({answer["event"] for _, answer in first} | {done["items"][0]["event"]}) == 4
    assert [answer["event"] for _, answer in again] == [answer["event"] for _, answer in first]
    assert all(answer["duplicate"] for _, answer in again)


HOURLY = """
[triggers.hourly]
on.cron = "0 * * * *"
job = "work"
"""


async def test_what_is_run_again_or_backfilled_with_a_key_is_done_once_for_each_caller(tmp_path: Path) -> None:
    Gate.open.add("held")
    now = datetime.now(UTC)
    span = {"from": (now - timedelta(hours=4)).isoformat(), "to": (now - timedelta(hours=2)).isoformat()}
    async with engine(tmp_path, HOURLY) as (_, sender):
        made = await sender.ask(f"{V1}/tokens", {"name": "ann", "role": "operator"})
        callers = [KEY, {**KEY, "Authorization": f"Bearer {made[1]['token']}"}]
        _, fired = await sender.ask(f"{V1}/triggers/heard/fire?wait=30s", {})
        around = {"from": (now - timedelta(hours=1)).isoformat(), "to": (now + timedelta(hours=1)).isoformat()}
        asked: list[tuple[str, dict[str, Any], Callable[[Any], str]]] = [
            (f"{V1}/runs/{fired['runs'][0]}/retry", {}, lambda answer: str(answer["event"])),
            (f"{V1}/events/{fired['event']}/replay", {}, lambda answer: str(answer["event"])),
            (f"{V1}/replay", {**around, "trigger": "heard"}, lambda answer: str(answer["items"][-1]["event"])),
            (f"{V1}/backfills", {**span, "trigger": "hourly"}, lambda answer: str(answer["id"])),
        ]
        for path, body, made_by in asked:
            first, second, again = [
                made_by((await sender.ask(path, body, headers=caller))[1]) for caller in (*callers, callers[1])
            ]
            assert first != second, f"{path} answers one caller with what another one asked for"
            assert again == second
