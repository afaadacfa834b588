"""What webhooks take besides plain JSON, and what they answer."""

from __future__ import annotations

import gzip
import hashlib
import hmac
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from multidict import CIMultiDict

from engine.config import load
from engine.errors import InvalidEvent, StoreUnavailable
from engine.plugin import BadSetting, Refusal, Request, Response, RunState, Secret
from engine.testing import VirtualClock
from plugins.sources.webhook import Hmac, Respond, Verify, Webhook
from plugins.sources.webhook.bodies import MOST_FILES, inflated
from plugins.sources.webhook.files import MARK
from plugins.sources.webhook.multipart import read_parts
from tests.docs_tables import DOCS
from tests.fake_operations import FakeOperations, serving
from tests.fakes import FakeSourceContext
from tests.http_client import asking
from tests.test_docs import blocks

FORM = "application/x-www-form-urlencoded"
CLOUD = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"


class Hook:
    """A webhook that runs, without its listener."""

    def __init__(self, base: Path = Path("/nonexistent"), **given: Any) -> None:
        self.webhook = Webhook(**{"path": "in", "verify": "none", **given})
        self.context = FakeSourceContext(base, clock=VirtualClock())

    async def ask(
        self, body: bytes = b"{}", content_type: str | None = None, *, method: str = "POST",
        headers: Mapping[str, str] | None = None, query: Mapping[str, str] | None = None,
    ) -> Response:  # fmt: skip
        if not self.context.routes:
            async with self.context.running(self.webhook):
                self.routes = dict(self.context.routes)
        sent = CIMultiDict(headers or {})
        if content_type is not None:
            sent["Content-Type"] = content_type
        request = Request(
            method=method, path="/hooks/in", query=query or {}, headers=sent, remote="192.0.2.1", body=body
        )  # fmt: skip
        return await self.context.routes[method, "/hooks/in"](request)

    async def event(self, *arguments: Any, **named: Any) -> Any:
        await self.ask(*arguments, **named)
        return self.context.emitted[-1]

    async def refusal(self, *arguments: Any, **named: Any) -> Refusal:
        before = len(self.context.emitted)
        with pytest.raises(Refusal) as caught:
            await self.ask(*arguments, **named)
        assert len(self.context.emitted) == before
        return caught.value


def cloud(**attributes: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": "7", "source": "/shop", "type": "order.created", **attributes}


# Forms and text


async def test_a_forms_fields_are_the_data() -> None:
    event = await Hook().event(b"name=Ada+L.&tag=a&tag=%C3%A9&empty=", FORM)
    assert event.data == {"name": "Ada L.", "tag": ["a", "é"], "empty": ""}
    assert event.type == "webhook.in"


async def test_a_field_of_a_form_may_hold_the_data_as_json() -> None:
    hook = Hook(json_field="payload")
    assert (await hook.event(b"payload=%7B%22action%22%3A%22opened%22%7D", FORM)).data == {"action": "opened"}
    assert (await hook.refusal(b"other=1", FORM)).status == 400
    assert (await hook.refusal(b"payload=%7B%22a%22%3A1%2C%22a%22%3A2%7D", FORM)).status == 400


@pytest.mark.parametrize("body", [b"name=%ff", b"name=\xff", b"&".join(b"f%d=1" % n for n in range(1001))])
async def test_a_form_that_is_none_is_refused(body: bytes) -> None:
    assert (await Hook().refusal(body, FORM)).status in (400, 413)


@pytest.mark.parametrize(
    "content_type", ["text/plain", "text/plain; charset=UTF-8", "text/xml", "application/soap+xml"]
)
async def test_text_is_the_data_as_it_is(content_type: str) -> None:
    assert (await Hook().event("déjà vu <a/>".encode(), content_type)).data == "déjà vu <a/>"


async def test_text_in_another_charset_is_415_and_no_utf8_is_400() -> None:
    assert (await Hook().refusal(b"caf\xe9", "text/plain; charset=iso-8859-1")).status == 415
    assert (await Hook().refusal(b"caf\xe9", "text/plain")).status == 400


async def test_what_bodies_leaves_out_is_415() -> None:
    hook = Hook(bodies=("json",))
    assert (await hook.ask(b"{}")).status == 202
    for content_type in (FORM, "text/plain", "multipart/form-data; boundary=x", CLOUD):
        assert (await hook.refusal(b"{}", content_type)).status == 415


# Methods


async def test_the_query_of_a_get_is_its_data() -> None:
    hook = Hook(methods=("GET", "PUT"))
    assert (await hook.event(b"", method="GET", query={"branch": "main"})).data == {"branch": "main"}
    assert (await hook.event(b'{"a": 1}', method="PUT")).data == {"a": 1}
    assert ("POST", "/hooks/in") not in hook.context.routes


async def test_a_head_makes_no_event() -> None:
    hook = Hook(methods=("GET",))
    await hook.ask(b"", method="GET")
    handler = hook.context.routes["GET", "/hooks/in"]
    head = Request(method="HEAD", path="/hooks/in", query={}, headers=CIMultiDict(), remote="", body=b"")
    with pytest.raises(Refusal) as caught:
        await handler(head)
    assert caught.value.status == 405
    assert len(hook.context.emitted) == 1


async def test_what_nobody_signed_is_no_data() -> None:
    signed = Verify(hmac=Hmac(secret=Secret("k" * 32), header="X-Mac"))
    with pytest.raises(BadSetting) as caught:
        Webhook(path="in", verify=signed, methods=("GET",))
    assert caught.value.field == "methods"
    hook = Hook(verify=signed, methods=("DELETE",))
    mac = hmac.new(b"k" * 32, b"", "sha256").hexdigest()
    refusal = await hook.refusal(b"", method="DELETE", query={"all": "1"}, headers={"X-Mac": mac})
    assert refusal.status == 400


async def test_a_repeat_of_a_signed_request_is_a_duplicate_whatever_its_headers_say() -> None:
    verify = Verify(hmac=Hmac(secret=Secret("k" * 32), header="X-Mac", signed="{timestamp}.{body}", timestamp="X-Time"))
    hook = Hook(verify=verify)
    time = str(int(hook.context.clock.now().timestamp()))
    mac = hmac.new(b"k" * 32, f"{time}.{{}}".encode(), "sha256").hexdigest()
    headers = {f"ce-{name}": value for name, value in cloud().items()} | {"X-Mac": mac, "X-Time": time}
    assert (await hook.ask(b"{}", headers=headers)).body["duplicate"] is False
    assert (await hook.ask(b"{}", headers={**headers, "ce-id": "another"})).body["duplicate"] is True


# Files


async def form_data(build: aiohttp.FormData) -> tuple[bytes, str]:
    """Write a form as aiohttp does: an implementation that is not ours."""
    payload = build()
    return await payload.as_bytes(), payload.headers["Content-Type"]


def content_of(file: dict[str, Any]) -> bytes:
    return Path(file["path"]).read_bytes()


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


async def test_files_of_a_form_are_kept_beside_the_event(tmp_path: Path) -> None:
    hook = Hook(tmp_path)
    form = aiohttp.FormData(quote_fields=True)
    form.add_field("title", "Report é")
    form.add_field("file", b"\x00\xffone\r\n--x", filename="../../etc/passwd", content_type="image/png")
    form.add_field("file", b"two", filename="b.txt")
    event = await hook.event(*await form_data(form))
    first, second = event.data["file"]
    assert event.data["title"] == "Report é"
    assert (first["content_type"], first["size"]) == ("image/png", 10)
    assert first["filename"].endswith("passwd")
    assert first["sha256"] == hashlib.sha256(b"\x00\xffone\r\n--x").hexdigest()
    assert [content_of(one) for one in (first, second)] == [b"\x00\xffone\r\n--x", b"two"]
    directory = Path(first["path"]).parent
    assert directory.parent == tmp_path / "files"
    assert [path.name for path in sorted(directory.iterdir())] == ["1", "2", MARK]
    assert (directory / MARK).read_text() == event.id
    assert [mode_of(path) for path in (directory, directory / "1")] == [0o700, 0o600]


async def test_files_of_what_was_not_taken_are_not_kept(tmp_path: Path) -> None:
    hook = Hook(tmp_path)
    form = aiohttp.FormData()
    form.add_field("file", b"one", filename="a")
    body, content_type = await form_data(form)
    hook.context.failures = 1
    assert (await hook.refusal(body, content_type)).status == 503
    assert list((tmp_path / "files").iterdir()) == []
    first = await hook.ask(body, content_type, headers={"Idempotency-Key": "k"})
    again = await hook.ask(body, content_type, headers={"Idempotency-Key": "k"})
    assert (first.body["duplicate"], again.body["duplicate"]) == (False, True)
    assert len(list((tmp_path / "files").iterdir())) == 1


async def test_a_disk_that_takes_no_files_is_503(tmp_path: Path) -> None:
    (tmp_path / "files").write_text("in the way")
    form = aiohttp.FormData()
    form.add_field("file", b"one", filename="a")
    refusal = await Hook(tmp_path).refusal(*await form_data(form))
    assert (refusal.status, refusal.headers["Retry-After"]) == (503, "5")


async def test_too_many_files_are_413(tmp_path: Path) -> None:
    form = aiohttp.FormData()
    for number in range(MOST_FILES + 1):
        form.add_field("file", b"x", filename=f"{number}")
    assert (await Hook(tmp_path).refusal(*await form_data(form))).status == 413
    assert not (tmp_path / "files").exists()


PART = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'


@pytest.mark.parametrize(
    "body",
    [
        b"", b"--y--", b"--x", PART, PART + b"--x", PART[:-2] + b"--x--", b"--x\r\n\r\n1\r\n--x--",
        b"--x\r\nContent-Disposition: attachment\r\n\r\n1\r\n--x--",
        b"--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--",
        b'--x\r\nContent-Disposition: form-data; name=""\r\n\r\n1\r\n--x--',
        b'--x\r\nContent-Disposition: form-data; name="\xff"\r\n\r\n1\r\n--x--',
        b'--x\r\nContent-Disposition: form-data; name="a"; name="b"\r\n\r\n1\r\n--x--',
        b'--x\r\nContent-Disposition: form-data; name="a"\r\nContent-Transfer-Encoding: base64\r\n\r\n1\r\n--x--',
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n folded: 1\r\n\r\n1\r\n--x--',
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\xff\r\n--x--', PART * 201 + b"--x--",
    ],
)  # fmt: skip
async def test_a_broken_multipart_body_is_refused(body: bytes) -> None:
    assert (await Hook().refusal(body, "multipart/form-data; boundary=x")).status in (400, 413)


@pytest.mark.parametrize(
    "kind", ["multipart/form-data", "multipart/form-data; boundary=", 'multipart/form-data; boundary="a']
)
async def test_multipart_without_a_boundary_is_refused(kind: str) -> None:
    assert (await Hook().refusal(PART + b"--x--", kind)).status == 400


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.text('abc"é;=% \\', min_size=1, max_size=8), st.binary(max_size=64)), min_size=1, max_size=5)
)
async def test_what_aiohttp_writes_is_read_back(fields: list[tuple[str, bytes]]) -> None:
    form = aiohttp.FormData(quote_fields=False)
    for name, content in fields:
        form.add_field(name, content, filename="f", content_type="application/octet-stream")
    body, content_type = await form_data(form)
    assert [part.content for part in read_parts(body, content_type)] == [content for _, content in fields]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([b"--x", b"\r\n", b"--", PART, b'name="', b":", b"\x00", b"form-data;"]), max_size=12))
def test_no_multipart_body_is_a_fault(pieces: list[bytes]) -> None:
    with suppress(InvalidEvent):
        read_parts(b"".join(pieces), "multipart/form-data; boundary=x")


# Packed bodies


async def test_a_packed_body_is_taken_where_it_is_allowed() -> None:
    packed = gzip.compress(b'{"a": ') + gzip.compress(b"1}")
    hook = Hook(gzip=True)
    assert (await hook.event(packed, headers={"Content-Encoding": "gzip"})).data == {"a": 1}
    assert (await Hook().refusal(packed, headers={"Content-Encoding": "gzip"})).status == 415
    assert (await hook.refusal(packed, headers={"Content-Encoding": "br"})).status == 415


def test_what_unpacks_to_more_than_is_allowed_is_never_unpacked_whole() -> None:
    bomb = gzip.compress(b"0" * 50_000_000)
    with pytest.raises(InvalidEvent) as caught:
        inflated(bomb * 3, 1000)
    assert caught.value.status == 413
    assert inflated(gzip.compress(b"0" * 1000), 1000) == b"0" * 1000


@pytest.mark.parametrize(
    "body", [b"{}", gzip.compress(b"{}", mtime=0)[:-1], gzip.compress(b"{}", mtime=0) + b"x", b"\x1f\x8b"]
)
async def test_a_packed_body_that_is_none_is_400(body: bytes) -> None:
    assert (await Hook(gzip=True).refusal(body, headers={"Content-Encoding": "gzip"})).status == 400


# CloudEvents


async def test_a_structured_cloudevent_is_taken_as_it_says() -> None:
    hook = Hook()
    given_event = cloud(data={"n": 1}, subject="order/7", time="2026-11-25T01:02:03Z", priority=8, traceparent="x")
    event = await hook.event(json.dumps(given_event).encode(), CLOUD)
    assert (event.type, event.subject, event.key, event.priority) == ("order.created", "order/7", "/shop 7", 8)
    assert event.data == {"n": 1}
    assert event.time.isoformat() == "2026-11-25T01:02:03+00:00"
    assert event.http["cloudevent"] == {name: value for name, value in given_event.items() if name != "data"}
    again = await hook.ask(json.dumps(given_event).encode(), CLOUD)
    assert again.body["duplicate"] is True


async def test_a_cloudevent_in_binary_mode_has_its_attributes_in_headers() -> None:
    headers = {f"CE-{name}": value for name, value in cloud(subject="Gr%C3%BC%C3%9Fe").items()}
    event = await Hook().event(b'{"n": 1}', "application/json", headers=headers)
    assert (event.type, event.subject, event.key, event.data) == ("order.created", "Grüße", "/shop 7", {"n": 1})
    text = await Hook().event(b"plain", "text/plain", headers=headers)
    assert text.data == "plain"
    assert (await Hook().event(b"", headers=headers)).data is None


async def test_a_batch_of_cloudevents_is_taken_whole_or_not_at_all() -> None:
    hook = Hook()
    batch = [cloud(id="1"), cloud(id="2"), cloud(id="1")]
    answer = await hook.ask(json.dumps(batch).encode(), BATCH)
    assert [item["duplicate"] for item in answer.body["items"]] == [False, False, True]
    assert [event.key for event in hook.context.emitted] == ["/shop 1", "/shop 2"]
    refusal = await hook.refusal(json.dumps([cloud(id="3"), cloud(id="4", type="")]).encode(), BATCH)
    assert refusal.status == 422
    assert "#/1/type" in refusal.detail
    assert (await hook.ask(b"[]", BATCH)).body["items"] == []


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"[]", CLOUD, 422), (b"{}", BATCH, 422), (b"{}", CLOUD, 422), (b"1", CLOUD, 422), (b"{", CLOUD, 400),
        (b"[1]", BATCH, 422), (json.dumps(cloud(type="engine.run.failed")).encode(), CLOUD, 422),
        (json.dumps(cloud(specversion="0.3")).encode(), CLOUD, 422),
        (json.dumps([cloud()] * 1001).encode(), BATCH, 413),
    ],
)  # fmt: skip
async def test_a_cloudevent_that_is_none_is_refused(body: bytes, content_type: str, status: int) -> None:
    assert (await Hook().refusal(body, content_type)).status == status


@pytest.mark.parametrize("headers", [{"ce-specversion": "1.0"}, {f"ce-{k}": v for k, v in cloud(id="%ff").items()}])
async def test_binary_mode_with_wrong_headers_is_refused(headers: dict[str, str]) -> None:
    assert (await Hook().refusal(b"{}", headers=headers)).status in (400, 422)


async def test_the_handshake_of_cloudevents_is_answered_to_whom_it_may_concern() -> None:
    asked = {"WebHook-Request-Origin": "eventemitter.example.com", "WebHook-Request-Rate": "120"}
    answer = await Hook().ask(b"", method="OPTIONS", headers=asked)
    assert answer.status == 204
    assert answer.headers == {
        "Allow": "OPTIONS, POST", "WebHook-Allowed-Origin": "eventemitter.example.com", "WebHook-Allowed-Rate": "*",
    }  # fmt: skip
    other = await Hook(origins=("a.example",)).ask(b"", method="OPTIONS", headers=asked)
    assert other.headers == {"Allow": "OPTIONS, POST"}
    evil = await Hook().ask(b"", method="OPTIONS", headers={"WebHook-Request-Origin": "a\r\nX: y"})
    assert evil.headers == {"Allow": "OPTIONS, POST"}


# Idempotency


async def test_another_body_under_the_same_key_is_422() -> None:
    hook = Hook()
    headers = {"Idempotency-Key": "k"}
    assert (await hook.ask(b'{"a": 1}', headers=headers)).status == 202
    assert (await hook.ask(b'{ "a":1 }', headers=headers)).body["duplicate"] is True
    for other in (b'{"a": 2}', b'{"a": true}', b"{}"):
        assert (await hook.refusal(other, headers=headers)).status == 422


async def test_a_key_whose_first_request_is_in_progress_is_409() -> None:
    hook = Hook()
    held, headers = anyio.Event(), {"Idempotency-Key": "k"}
    hook.context.before_answer = held.wait
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: hook.ask(headers=headers))
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(Refusal) as caught:
            await hook.ask(headers=headers)
        assert (caught.value.status, caught.value.headers["Retry-After"]) == (409, "1")
        held.set()
    assert (await hook.ask(headers=headers)).body["duplicate"] is True


# Rates


async def test_a_rate_is_kept_and_told() -> None:
    hook = Hook(rate="2/m")
    first = await hook.ask()
    assert first.headers["RateLimit-Policy"] == '"hook";q=2;w=60'
    assert first.headers["RateLimit"] == '"hook";r=1;t=30'
    assert (await hook.ask()).headers["RateLimit"] == '"hook";r=0;t=60'
    refusal = await hook.refusal()
    assert refusal.status == 429
    assert refusal.headers == {
        "RateLimit-Policy": '"hook";q=2;w=60', "RateLimit": '"hook";r=0;t=60', "Retry-After": "30",
    }  # fmt: skip
    clock = hook.context.clock
    assert isinstance(clock, VirtualClock)
    await clock.advance(30)
    assert (await hook.ask()).status == 202
    assert (await hook.refusal()).status == 429


@pytest.mark.parametrize("rate", ["", "10", "0/s", "-1/s", "1/y", "1.5/s", "99999999/s"])
def test_a_rate_that_is_none_is_refused(rate: str) -> None:
    with pytest.raises(BadSetting) as caught:
        Webhook(path="in", verify="none", rate=rate)
    assert caught.value.field == "rate"


# Answers of one's own


async def test_an_answer_of_ones_own_is_made_from_event_and_ids() -> None:
    respond = Respond(
        status=201, body={"text": "{{ data.name }}", "runs": "{{ size(runs) }}", "id": "{{ event.id }}"},
        headers={"X-Name": "{{ data.name }}"},
    )  # fmt: skip
    hook = Hook(respond=respond)
    answer = await hook.ask(b'{"name": "\\"} A\\r\\nX-Evil: 1"}')
    assert answer.status == 201
    assert answer.body == {"text": '"} A\r\nX-Evil: 1', "runs": 1, "id": hook.context.emitted[0].id}
    assert answer.headers == {"X-Name": '"} A X-Evil: 1', "Content-Type": "application/json"}


async def test_what_a_sender_wrote_is_text_in_an_answer_of_markup() -> None:
    hook = Hook(respond=Respond(body="<p>{{ data.name }}</p>", content_type="text/html; charset=utf-8"))
    answer = await hook.ask(b'{"name": "<script>alert(1)</script>&\\""}')
    assert answer.body == b"<p>&lt;script&gt;alert(1)&lt;/script&gt;&amp;&quot;</p>"


async def test_an_answer_that_cant_be_made_is_the_ordinary_one() -> None:
    hook = Hook(respond=Respond(body="{{ data.name }}"))
    answer = await hook.ask(b"{}")
    assert answer.status == 202
    assert answer.body["event"] == hook.context.emitted[0].id
    assert "no such" in (hook.context.warning or "") or "there is no" in (hook.context.warning or "")


@pytest.mark.parametrize(
    ("respond", "field"),
    [
        ({"status": 301}, "respond.status"), ({"status": 204, "body": "x"}, "respond.body"),
        ({"body": "{{ oops }}"}, "respond"), ({"headers": {"A B": "x"}}, "respond.headers"),
        ({"headers": {"Content-Length": "1"}}, "respond.headers"), ({"headers": {"X": "{{ data."}}, "respond"),
        ({"content_type": "text"}, "respond.content_type"),
        ({"content_type": "text/javascript"}, "respond.content_type"),
        ({"body": "{}", "content_type": "application/json"}, "respond.body"),
    ],
)  # fmt: skip
def test_an_answer_that_never_could_be_made_is_refused(respond: dict[str, Any], field: str) -> None:
    with pytest.raises(BadSetting) as caught:
        Webhook(path="in", verify="none", respond=Respond(**respond))
    assert caught.value.field == field


# Waiting


async def test_an_answer_waits_for_the_ends_of_runs() -> None:
    hook = Hook()
    answers: list[Response] = []
    async with anyio.create_task_group() as group:

        async def ask() -> None:
            answers.append(await hook.ask(query={"wait": "30s"}, headers={"Idempotency-Key": "k"}))

        group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        assert answers == []
        hook.context.store.settle(hook.context.store.answer("k"), RunState.FAILED)
    (answer,) = answers
    assert answer.status == 200
    assert answer.body["states"] == {"run-1": "failed"}


async def test_when_the_time_is_up_the_answer_is_202_with_states() -> None:
    answer = await Hook().ask(query={"wait": "10ms"})
    assert answer.status == 202
    assert answer.body["states"] == {"run-1": "running"}


async def test_a_store_that_is_away_afterwards_does_not_take_back_that_the_event_was_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hook = Hook()

    async def settled(run_ids: Any, within_s: float | None = None) -> Any:
        raise StoreUnavailable("away")

    monkeypatch.setattr(hook.context.store, "settled", settled)
    answer = await hook.ask(query={"wait": "1s"})
    assert (answer.status, answer.body["event"]) == (202, hook.context.emitted[0].id)


@pytest.mark.parametrize("wait", ["", "soon", "-1s", "0s", "0"])
async def test_a_wait_that_is_no_time_is_422(wait: str) -> None:
    assert (await Hook().refusal(query={"wait": wait})).status == 422


# Other sites


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, 403), ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "https://evil.example", "Host": "localhost"}, 403), ({"Origin": "null", "Host": "localhost"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 202), ({"Origin": "http://localhost", "Host": "localhost"}, 202), ({}, 202),
    ],
)  # fmt: skip
async def test_a_page_of_another_site_cant_post_to_an_open_hook(headers: dict[str, str], status: int) -> None:
    try:
        answered = (await Hook().ask(b"a=1", FORM, headers=headers)).status
    except Refusal as refusal:
        answered = refusal.status
    assert answered == status


# On the wire


@asynccontextmanager
async def listening(operations: FakeOperations, hook: Hook) -> AsyncIterator[Any]:
    """Serve a hook by the engine's own listener."""
    await hook.ask(b"{}")
    hook.context.emitted.clear()
    operations.routes["/hooks/in"] = {
        method: handler for (method, path), handler in hook.context.routes.items() if path == "/hooks/in"
    }
    if hook.webhook.gzip:
        operations.encoded["/hooks/in"] = frozenset({"gzip"})
    async with serving(operations) as server, asking(server) as client:
        yield client


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not condition():  # noqa: ASYNC110 - nothing is set when a client has left
            await anyio.sleep(0.001)


def malformed() -> list[bytes]:
    """Return a few hundred texts that are no JSON by RFC 8259, or no JSON that all read alike."""
    strings = [
        b'"\xff"',
        b'"\xc0\x80"',
        b'"\xed\xa0\x80"',
        b'"\\ud800"',
        b'"\\udc00\\ud800"',
        b'"\\x41"',
        b'"\x00"',
        b'"\n"',
    ]
    numbers = [
        b"01",
        b"+1",
        b"1.",
        b".5",
        b"1e",
        b"0x10",
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"1e999",
        b"-",
        b"9" * 5000,
    ]
    words = [
        b'"',
        b"nul",
        b"True",
        b"None",
        b"undefined",
        b"'a'",
        b"// c",
        b"/* c */ 1",
        b"\x00",
        b"\xef\xbb\xbf1",
        b",",
    ]
    shells = [b"%s", b"[%s]", b'{"a":%s}', b"[1,%s]", b'{"a":[%s]}', b'{"a":{"b":%s}}', b" %s ", b"[[%s],1]"]
    pairs = [
        '{"role":"a","role":"b"}',
        '[{"a":1,"\\u0061":2}]',
        "{}{}",
        "[1,]",
        '{"a":1,}',
        "[,1]",
        "{,}",
        '{"a"}',
        '{"a":}',
    ]
    others = ["", " ", "{a:1}", "{1:1}", "[1 2]", "[1", "]", "}", "[" * 100_000, '{"a":' * 100_000, "[" * 65 + "]" * 65]
    codings = ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
    return [
        *(shell.replace(b"%s", one) for shell in shells for one in (*strings, *numbers, *words)),
        *(text.encode() for text in (*pairs, *others)),
        *(text.encode(coding) for text in ('{"a":1}', "[]") for coding in codings),
    ]


async def test_no_malformed_text_is_taken_and_none_is_a_fault(
    operations: FakeOperations, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.sources.context.REFUSED_PAUSE_S", 0.0)
    hook, texts = Hook(), malformed()
    assert len(texts) > 250
    with caplog.at_level(logging.ERROR):
        async with listening(operations, hook) as client:
            statuses = {
                text: (
                    await client.ask("POST", "/hooks/in", body=text, headers={"Content-Type": "application/json"})
                ).status
                for text in texts
            }
            fine = await client.ask("POST", "/hooks/in", body={"a": 1})
    assert {text[:60]: status for text, status in statuses.items() if status not in (400, 422)} == {}
    assert fine.status == 202
    assert len(hook.context.emitted) == 1
    assert caplog.records == []


async def test_a_bomb_is_413_on_the_wire_and_415_where_none_may_be_packed(operations: FakeOperations) -> None:
    bomb = gzip.compress(b"0" * 30_000_000)
    async with listening(operations, Hook(gzip=True)) as client:
        got = await client.ask("POST", "/hooks/in", body=bomb, headers={"Content-Encoding": "gzip"})
        assert got.status == 413
        packed = gzip.compress(b'{"a": 1}')
        assert (await client.ask("POST", "/hooks/in", body=packed, headers={"Content-Encoding": "gzip"})).status == 202
        got = await client.ask("POST", "/hooks/in", body=packed, headers={"Content-Encoding": "br"})
        assert (got.status, got.headers["Accept-Encoding"]) == (415, "gzip")


async def test_no_query_chooses_what_the_answer_is(operations: FakeOperations) -> None:
    async with listening(operations, Hook()) as client:
        for query in (
            "callback=alert",
            "format=html&callback=%3Cscript%3E",
            "content_type=text/html",
            "jsonp=x",
            "respond=x",
        ):
            got = await client.ask("POST", f"/hooks/in?{query}", body={"a": "<script>"})
            assert got.headers["Content-Type"] == "application/json"
            assert got.headers["X-Content-Type-Options"] == "nosniff"
            assert b"script" not in got.body


async def test_a_client_that_leaves_ends_its_wait(operations: FakeOperations) -> None:
    hook = Hook()
    async with listening(operations, hook) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: client.ask("POST", "/hooks/in?wait=60s", body={}))
            await until(lambda: hook.context.state.settling == 1)
            group.cancel_scope.cancel()
        await until(lambda: hook.context.state.settling == 0)
        assert (await client.ask("POST", "/hooks/in", body={})).status == 202


async def test_the_answers_that_the_page_on_webhooks_shows_are_made(tmp_path: Path) -> None:
    text = blocks(DOCS / "webhooks.md", "toml")[1]
    given_secrets = {"SLACK_SECRET": "8f742231b10e8888abcd99yyyzzz85a5", "CALL_TOKEN": "a-token-of-some-length"}
    (tmp_path / "config.toml").write_text(text, "utf-8")
    config = load([tmp_path / "config.toml"], environment=given_secrets)
    shown = {}
    for name, body in (("command", b"text=deploy"), ("call", b"CallerName=%3CAda%3E")):
        on = config.triggers[name].on
        assert isinstance(on, Webhook)
        open_hook = structs.replace(on, verify="none", path="in")
        hook = Hook(**structs.asdict(open_hook))
        answer = await hook.ask(body, FORM)
        shown[name] = (answer.status, answer.headers["Content-Type"], answer.body)
        event = hook.context.emitted[0]
    assert shown["command"][:2] == (200, "application/json")
    assert shown["command"][2]["text"].startswith("deploy: on its way as ")
    assert shown["call"] == (200, "text/xml", b"<Response><Say>Thank you, &lt;Ada&gt;.</Say></Response>")
    assert event.data == {"CallerName": "<Ada>"}
