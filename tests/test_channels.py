"""The channels, against receivers; and a whole engine that tells them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.config import load
from engine.deliveries import Delivery, DeliveryFilter, DeliveryState
from engine.errors import ConfigError
from engine.plugin import BadSetting, ChannelContext, Clock, Message, Mood, Reception, Secret, SystemClock
from engine.registry import Registry
from engine.runs import RunState
from engine.runtime import Runtime
from plugins.channels.apprise import Apprise
from plugins.channels.callback import Callback
from tests.evil_server import Received, answer, saying, serving
from tests.test_runtime import comes_to, configured, fire, operations, running

AT = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
KEY = bytes(range(32))
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"


class Context:
    clock: Clock = SystemClock()
    base = Path("/")
    log: logging.LoggerAdapter[logging.Logger] = logging.LoggerAdapter(logging.getLogger("test"), {})


CONTEXT: ChannelContext = Context()


def a_message(**fields: Any) -> Message:
    given = {
        "id": "0199-m", "type": "engine.run.failed", "at": AT, "title": "oven failed", "text": "it burnt\nagain",
        "mood": Mood.FAILURE, "data": {"run": "r1"}, **fields,
    }  # fmt: skip
    return Message(**given)


def proves(request: Received) -> bool:
    """Check a request as Standard Webhooks has it."""
    headers = request.headers
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + request.body
    mac = base64.b64encode(hmac.new(KEY, content, hashlib.sha256).digest()).decode()
    return headers["webhook-signature"] == f"v1,{mac}"


# Callbacks


def a_callback(url: str | Secret, **settings: Any) -> Callback:
    return Callback(url=url, secret=Secret(SECRET), **{"allow_private": ("127.0.0.1",), **settings})


async def test_a_callback_is_signed_and_the_same_at_each_try(tmp_path: Path) -> None:
    async with serving(
        saying(answer("503 Service Unavailable", "", "Retry-After: 7"), answer("204 No Content"))
    ) as server:
        first = await a_callback(server.url("/cb")).deliver(CONTEXT, a_message())
        second = await a_callback(server.url("/cb")).deliver(CONTEXT, a_message())
    assert (first.reception, first.retry_after_s) == (Reception.NOT_NOW, 7.0)
    assert second.reception is Reception.TAKEN
    for request in server.requests:
        assert proves(request)
        assert request.headers["webhook-id"] == "0199-m"
        assert json.loads(request.body) == {
            "type": "engine.run.failed", "timestamp": "2026-03-01T02:00:00Z", "data": {"run": "r1"},
        }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "reception"),
    [("200 OK", "taken"), ("301 Moved", "not_now"), ("404 Not Found", "not_now"), ("410 Gone", "gone")],
)
async def test_what_an_answer_means(status: str, reception: str) -> None:
    async with serving(saying(answer(status, "", "Location: http://127.0.0.1:1/"))) as server:
        receipt = await a_callback(server.url()).deliver(CONTEXT, a_message())
    assert receipt.reception == reception
    assert ("redirects are not followed" in receipt.reason) == status.startswith("3")
    assert len(server.requests) == 1


async def test_a_receiver_that_hangs_or_is_not_there_is_told_in_time() -> None:
    async def hang(request: Received, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async with serving(hang) as server:
        receipt = await a_callback(server.url(), timeout=0.05).deliver(CONTEXT, a_message())
    assert (receipt.reception, "did not answer" in receipt.reason) == (Reception.NOT_NOW, True)
    receipt = await a_callback(server.url()).deliver(CONTEXT, a_message())
    assert receipt.reception is Reception.NOT_NOW


async def test_a_callback_does_not_reach_private_networks_unless_that_is_said() -> None:
    for url in ("http://127.0.0.1/", "http://[::ffff:10.0.0.1]/", "http://169.254.169.254/", "http://0x7f000001/"):
        with pytest.raises(BadSetting, match="can't be a target") as refused:
            Callback(url=url, secret=Secret(SECRET))
        assert refused.value.field == "url"
    # A name tells nothing until it is resolved.
    receipt = await Callback(url="http://localhost.localdomain/", secret=Secret(SECRET)).deliver(CONTEXT, a_message())
    assert receipt.reception is Reception.NOT_NOW


async def test_a_secret_url_is_not_told_where_it_fails() -> None:
    async with serving(saying(answer("500 no a-very-secret-path"))) as server:
        receipt = await a_callback(Secret(server.url("/a-very-secret-path"))).deliver(CONTEXT, a_message())
    assert "a-very-secret" not in receipt.reason
    with pytest.raises(BadSetting) as refused:
        a_callback(Secret("http://me:a-very-secret@example.com/"))
    assert "secret" not in str(refused.value)


# Notifications


async def test_a_notification_arrives_on_a_url_of_apprise() -> None:
    async with serving(saying(answer())) as server:
        url = f"json://user:a-password@127.0.0.1:{server.port}/hook"
        receipt = await Apprise(url=Secret(url)).deliver(CONTEXT, a_message())
    assert (receipt.reception, receipt.reason) == (Reception.TAKEN, "sent by json")
    (request,) = server.requests
    body = json.loads(request.body)
    assert (body["title"], body["message"], body["type"]) == ("oven failed", "it burnt\nagain", "failure")


async def test_why_a_notification_was_not_taken_is_told_without_the_url() -> None:
    async with serving(saying(answer("500 Internal Server Error"))) as server:
        url = f"json://user:a-password@127.0.0.1:{server.port}/a-long-key-of-mine"
        receipt = await Apprise(url=Secret(url)).deliver(CONTEXT, a_message())
    assert receipt.reception is Reception.NOT_NOW
    assert "500" in receipt.reason
    assert not any(part in receipt.reason for part in ("a-password", "a-long-key", "json://"))


async def test_a_notification_that_hangs_is_given_up_in_time_and_holds_nothing() -> None:
    release = asyncio.Event()

    async def hang(request: Received, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(answer())

    async with serving(hang) as server:
        channel = Apprise(url=Secret(f"json://127.0.0.1:{server.port}/"), timeout=0.2)
        with anyio.fail_after(3):
            receipt = await channel.deliver(CONTEXT, a_message())
        assert (receipt.reception, receipt.reason) == (Reception.NOT_NOW, "no answer within 0.2s")
        release.set()
        await server.gone.wait()


@pytest.mark.parametrize("url", ["nope://x", "plain", "https://example.com/", "json://127.0.0.1/ nope://x"])
def test_what_is_no_url_of_apprise_is_refused(url: str) -> None:
    with pytest.raises(BadSetting) as refused:
        Apprise(url=Secret(url))
    assert url not in str(refused.value)


# In the configuration


def problems(path: Path, text: str) -> list[tuple[str, str]]:
    (path / "config.toml").write_text(text, "utf-8")
    with pytest.raises(ConfigError) as refused:
        load([path / "config.toml"], environment={}, registry=Registry.discover())
    return [(one.path, one.message) for one in refused.value.problems]


JOB = '[jobs.work]\nrun.exec = ["true"]\n'
BACK = JOB + f'callback = {{ secret = "{SECRET}", '


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        (JOB + 'notify = ["ops"]', "jobs.work.notify[0]", "no such receiver"),
        (JOB + 'notify = { to = [] }', "jobs.work.notify.to", "at least 1"),
        (JOB + 'notify = { to = ["ops"], on = ["faild"] }\n[notify.ops]\nurl = "json://a"', "jobs.work.notify.on[0]",
         "expected"),
        (JOB + 'callback = { url = "https://example.com/" }', "jobs.work.callback.secret", "missing"),
        (BACK + 'url = "http://10.0.0.1/" }', "jobs.work.callback.url",
         "can't be a target"),
        (BACK + 'url = "https://{{ data.x }}/" }', "jobs.work.callback.url",
         "template"),
        (JOB + 'callback = { url = "https://example.com/", secret = "guessed" }', "jobs.work.callback.secret",
         "shorter than 24"),
        (BACK + 'url = "https://example.com/", on = ["recovered"] }',
         "jobs.work.callback.on[0]", "expected"),
        ('[notify.ops]\nurl = "nope://x"', "notify.ops.url", "no URL of Apprise"),
        ('[notify.ops]\nurl = ""', "notify.ops.url", "empty"),
    ],
)  # fmt: skip
def test_what_can_not_be_told_is_refused_where_it_stands(tmp_path: Path, text: str, path: str, message: str) -> None:
    found = problems(tmp_path, text)
    assert [(at, message in said) for at, said in found] == [(path, True)], found


async def all_delivered(engine: Runtime, run_id: str) -> list[Delivery]:
    """Wait until all that is told of a run has arrived."""
    while True:
        found = await operations(engine).store.deliveries(DeliveryFilter(run=run_id), limit=9)
        if {one.state for one in found} == {DeliveryState.DELIVERED}:
            return found
        await asyncio.sleep(0.02)


async def test_an_engine_tells_a_callback_and_a_receiver_and_shows_that_over_a_restart(tmp_path: Path) -> None:
    up = False

    async def act(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(answer() if up else answer("503 Service Unavailable"))
        tried.set()

    tried = asyncio.Event()
    async with serving(act) as server:
        config = configured(tmp_path, f"""
[notify.ops]
url = "json://127.0.0.1:{server.port}/ops"
[jobs.work]
run.exec = ["sh", "-c", "echo rows=7 >> $ENGINE_OUTPUT; exit 3"]
notify = ["ops"]
callback = {{ url = "http://127.0.0.1:{server.port}/cb", secret = "{SECRET}", allow_private = true }}
[triggers.go]
on.manual = true
job = "work"
""")  # fmt: skip
        async with running(config) as engine:
            run = await comes_to(engine, await fire(engine, "go"), RunState.FAILED)
            await tried.wait()
        up = True
        async with running(config) as engine:
            found = await all_delivered(engine, run.id)
            assert {one.target for one in found} == {"callback:work", "notify:ops"}
            view = operations(engine).config.jobs["work"]
            assert SECRET not in str(view)
            statistics = await operations(engine).counting.statistics(job="work", over=timedelta(hours=1))
            assert statistics.ends == {RunState.FAILED: 1}
    signed = [request for request in server.requests if request.target == "/cb"]
    assert all(proves(request) for request in signed)
    assert len({request.headers["webhook-id"] for request in signed}) == 1
    assert json.loads(signed[-1].body)["data"]["outputs"] == {"rows": "7"}
    store = (config.store.path).read_bytes()
    assert SECRET.encode() not in store
