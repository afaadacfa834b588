"""The http runner: what is sent, what comes of the answer, and what a server can't do to the engine."""

from __future__ import annotations

import asyncio
import base64
import errno
import gzip
import json
import shutil
import ssl
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import anyio
import pytest

from engine.config import load
from engine.errors import ConfigError
from engine.execution import _checked
from engine.expressions import JOB_NAMES
from engine.jobs import RetryPolicy
from engine.plugin import BadSetting, Outcome, Secret
from engine.registry import Registry
from engine.runs import RunState
from plugins.runners.exec import Exec
from plugins.runners.http import KEPT_BODY_BYTES, Http
from plugins.sources.manual import Manual
from tests.evil_server import Received, Server, answer, json_answer, saying, serving
from tests.exec_runs import Context, context, until
from tests.fakes import SteppedClock
from tests.organs import bench, event, job

LOOPBACK = ("127.0.0.1",)


async def send(base: Path, url: str | Secret, data: Any = None, **settings: Any) -> tuple[Outcome, Context]:
    """Run a request to a server of the test's own; nothing takes longer than the test allows."""
    made = context(base, data)
    runner = Http(url=url, **{"allow_private": LOOPBACK, "timeout": 20.0, **settings})
    runner.check(JOB_NAMES)
    with anyio.fail_after(20):
        return await runner.run(made), made


# What is sent


async def test_a_request_has_its_method_url_headers_and_body(tmp_path: Path) -> None:
    async with serving(saying(answer())) as server:
        outcome, made = await send(
            tmp_path, server.url("/orders/{{ data.id }}?by={{ data.by }}"), {"id": 7, "by": "me"},
            method="PUT", headers={"X-Kind": "{{ event.type }}"}, body="it is {{ data.id }}",
        )  # fmt: skip
    (request,) = server.requests
    assert (request.method, request.target, request.body) == ("PUT", "/orders/7?by=me", b"it is 7")
    assert request.headers["x-kind"] == "file.created"
    assert request.headers["content-type"] == "text/plain; charset=utf-8"
    assert request.headers["idempotency-key"] == made.run_id
    assert request.headers["traceparent"] == made.traceparent
    assert request.headers["user-agent"] == "trigger-engine"
    assert (outcome.state, outcome.code, outcome.reason) == (RunState.SUCCEEDED, "succeeded", "answered 200 OK")


async def test_json_holds_values_and_not_their_text(tmp_path: Path) -> None:
    data = {"id": 7, "tags": ["a", "b"], "evil": '","admin":true,"x":"'}
    template = {
        "order": "{{ data.id }}",
        "all": "{{ data }}",
        "text": "no. {{ data.id }}: {{ data.evil }}",
        "n": [None, 1],
    }
    async with serving(saying(answer())) as server:
        await send(tmp_path, server.url(), data, json=template)
    (request,) = server.requests
    assert json.loads(request.body) == {
        "order": 7, "all": data, "text": 'no. 7: ","admin":true,"x":"', "n": [None, 1],
    }  # fmt: skip
    assert request.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "value",
    ["a b", "a/b", "a?b=c&d#e", "%2F", "ä€", "a+b", '"<>\\^`{|}', "https://evil.example/", "{{ data.x }}", "@evil"],
)
async def test_a_value_stays_in_its_place_of_the_url_whatever_it_is(tmp_path: Path, value: str) -> None:
    async with serving(saying(answer())) as server:
        outcome, _ = await send(tmp_path, server.url("/a/{{ data.x }}/b?q={{ data.x }}&r=1"), {"x": value})
    assert outcome.code == "succeeded", outcome
    path, _, query = server.requests[0].target.partition("?")
    assert [unquote(segment) for segment in path.split("/")] == ["", "a", value, "b"]
    assert [unquote(parameter) for parameter in query.split("&")] == [f"q={value}", "r=1"]


async def test_what_the_author_wrote_is_sent_as_it_stands(tmp_path: Path) -> None:
    async with serving(saying(answer())) as server:
        await send(tmp_path, server.url("/a%2Fb/%7Eme/./ü x/100%?q=%41+b&r={{ data.x }}"), {"x": 1})
    assert server.requests[0].target == "/a%2Fb/%7Eme/./%C3%BC%20x/100%25?q=%41+b&r=1"


@pytest.mark.parametrize(
    "value", ["", ".", "..", "../admin", "x/../../admin", "%2e%2e", "..;x", "a\\..\\b", "..%2fadmin", "\0", "a\r\nb"]
)
async def test_a_value_that_would_lead_elsewhere_sends_nothing(tmp_path: Path, value: str) -> None:
    async with serving(saying(answer())) as server:
        outcome, _ = await send(tmp_path, server.url("/orders/{{ data.x }}"), {"x": value}, method="DELETE")
    assert (outcome.state, outcome.code) == (RunState.FAILED, "unsafe_url")
    assert server.requests == []


async def test_dots_that_meet_in_a_segment_are_seen(tmp_path: Path) -> None:
    async with serving(saying(answer())) as server:
        outcome, _ = await send(tmp_path, server.url("/a/.{{ data.x }}/b"), {"x": "."})
    assert (outcome.code, server.requests) == ("unsafe_url", [])


async def test_what_a_template_lacks_fails_the_attempt_and_sends_nothing(tmp_path: Path) -> None:
    async with serving(saying(answer())) as server:
        for settings in (
            {"url": server.url("/{{ data.none }}")},
            {"url": server.url(), "headers": {"X-A": "{{ data.none }}"}},
            {"url": server.url(), "headers": {"X-A": "{{ data.lines }}"}},
            {"url": server.url(), "body": "{{ data.none }}"},
            {"url": server.url(), "json": {"a": ["{{ data.none }}"]}},
        ):
            outcome, _ = await send(tmp_path, data={"lines": "a\r\nX-Admin: 1"}, **settings)
            assert outcome.code == "template_error", outcome
    assert server.requests == []


# What check refuses


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("{{ data.url }}", "data can't choose the target"),
        ("{{ data.scheme }}://example.com/", "data can't choose the target"),
        ("https://{{ data.host }}/", "data can't choose the target"),
        ("https://{{ data.tenant }}.example.com/", "data can't choose the target"),
        ("https://example.com{{ data.more }}", "data can't choose the target"),
        ("https://example.com:{{ data.port }}/", "data can't choose the target"),
        ("https://example.com/?{{ data.name }}=1", "data can't choose the parameter"),
        ("https://example.com/?a=1&{{ data.name }}=1", "data can't choose the parameter"),
        ("https://example.com/?{{ data.query }}", "data can't choose the parameter"),
        ("https://example.com/#{{ data.x }}", "fragment"),
        ("https://me:secret@example.com/", "user or password"),
        ("ftp://example.com/", "no http or https URL"),
        ("example.com", "no http or https URL"),
        ("https:///path", "names no host"),
        ("https://example.com:99999/", "no URL"),
        ("https://example.com/{{ data.x", "never closed"),
        ("https://example.com/{{ dta.x }}", "unknown name `dta`"),
    ],
)
def test_a_url_in_which_data_could_choose_the_target_is_refused(url: str, words: str) -> None:
    with pytest.raises(BadSetting, match=words) as refused:
        Http(url=url).check(JOB_NAMES)
    assert refused.value.field == "url"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "0x7f000001", "2130706433", "0177.0.0.1", "0", "localhost", "a.localhost", "LOCALHOST.",
        "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "[64:ff9b::a9fe:a9fe]", "10.0.0.1",
        "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.100.100.200", "[fd00:ec2::254]", "[fe80::1]", "[::]",
        "0.0.0.0", "[2002:7f00:1::]", "[::127.0.0.1]", "224.0.0.1", "255.255.255.255", "100.64.0.1", "[fc00::1]",
    ],
)  # fmt: skip
def test_an_address_that_is_no_public_one_is_refused_before_anything_runs(host: str) -> None:
    with pytest.raises(BadSetting, match="can't be a target"):
        Http(url=f"http://{host}/").check(JOB_NAMES)


@pytest.mark.parametrize("host", ["169.254.169.254", "[fd00:ec2::254]", "100.100.100.200", "[::ffff:169.254.169.254]"])
def test_metadata_services_have_to_be_listed(host: str) -> None:
    with pytest.raises(BadSetting, match="can't be a target"):
        Http(url=f"http://{host}/", allow_private=True).check(JOB_NAMES)
    listed = host.strip("[]").removeprefix("::ffff:")
    Http(url=f"http://{host}/", allow_private=(listed,)).check(JOB_NAMES)


@pytest.mark.parametrize("host", ["127.0.0.1", "10.1.2.3", "localhost", "[::1]", "[fd12::1]", "100.64.1.1"])
def test_private_networks_are_opened_by_saying_so(host: str) -> None:
    Http(url=f"http://{host}/", allow_private=True).check(JOB_NAMES)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"headers": {"Host": "a"}}, "headers.Host"),
        ({"headers": {"Transfer-Encoding": "chunked"}}, "headers.Transfer-Encoding"),
        ({"headers": {"A b": "c"}}, "headers.A b"),
        ({"headers": {"A": "b\r\nC: d"}}, "headers.A"),
        ({"headers": {"A": Secret("b\nC: d")}}, "headers.A"),
        ({"headers": {"A": "1", "a": "2"}}, "headers.a"),
        ({"headers": {"X-HTTP-Method-Override": "{{ data.x }}"}}, "headers.X-HTTP-Method-Override"),
        ({"headers": {"X-Forwarded-Host": "{{ data.x }}"}}, "headers.X-Forwarded-Host"),
        ({"headers": {"A": "{{ nope }}"}}, "headers.A"),
        ({"headers": {"Authorization": "a"}, "bearer": Secret("b")}, "bearer"),
        ({"body": "{{ nope }}"}, "body"),
        ({"body": '{"a": "{{ data.x }}"}'}, "body"),
        ({"body": "a={{ data.x }}", "headers": {"Content-Type": "application/ld+json"}}, "body"),
        ({"json": {"{{ data.x }}": 1}}, "json"),
        ({"json": {"a": ["{{ nope }}"]}}, "json.a[0]"),
        ({"json": 1, "body": "a"}, "json"),
        ({"json": 1, "method": "GET"}, "json"),
        ({"success": "nope == 1"}, "success"),
        ({"success": ()}, "success"),
        ({"success": (2,)}, "success"),
        ({"allow_private": ("10.0.0.1/8",)}, "allow_private[0]"),
        ({"allow_private": ("example.com",)}, "allow_private[0]"),
    ],
)
def test_a_setting_that_can_do_harm_or_nothing_is_refused(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(BadSetting) as refused:
        Http(url="https://example.com/", **settings).check(JOB_NAMES)
    assert refused.value.field == field


def test_a_secret_url_that_is_wrong_is_not_told() -> None:
    with pytest.raises(BadSetting) as refused:
        Http(url=Secret("https://hooks.example.com:hunter22/T0/B0")).check(JOB_NAMES)
    assert "hunter22" not in str(refused.value)


# What becomes of the answer


@pytest.mark.parametrize(
    ("status", "success", "code"),
    [
        ("200 OK", None, "succeeded"),
        ("204 No Content", None, "succeeded"),
        ("302 Found", None, "http_status"),
        ("404 Not Found", None, "http_status"),
        ("503 Service Unavailable", None, "http_status"),
        ("409 Conflict", (200, 409), "succeeded"),
        ("204 No Content", (200,), "http_status"),
        ("409 Conflict", "status == 409", "succeeded"),
        ("200 OK", "status == 409", "success_false"),
        ("200 OK", "body.ok", "success_error"),
    ],
)
async def test_the_status_or_an_expression_tells_success(tmp_path: Path, status: str, success: Any, code: str) -> None:
    async with serving(saying(answer(status))) as server:
        outcome, _ = await send(tmp_path, server.url(), success=success)
    assert outcome.code == code, outcome
    assert outcome.reason.startswith(f"answered {status}")


async def test_an_expression_sees_the_answer_and_what_the_job_sees(tmp_path: Path) -> None:
    success = 'body.ok && headers["x-id"] == string(data.id) && event.type == "file.created"'
    async with serving(saying(json_answer('{"ok": true}', "X-Id: 7"))) as server:
        outcome, _ = await send(tmp_path, server.url(), {"id": 7}, success=success)
    assert outcome.code == "succeeded", outcome


async def test_an_answer_can_make_no_expression_take_long(tmp_path: Path) -> None:
    body = json.dumps(list(range(300)))
    success = "body.all(a, body.all(b, body.all(c, a + b + c >= 0)))"
    async with serving(saying(json_answer(body))) as server:
        outcome, _ = await send(tmp_path, server.url(), success=success)
    assert outcome.code == "success_error"
    assert "steps" in outcome.reason


async def test_the_answer_is_kept_in_outputs_and_log(tmp_path: Path) -> None:
    headers = ("X-Request-Id: r1", "Set-Cookie: session=1")
    async with serving(saying(json_answer('{"id": 9}', *headers, status="201 Created"))) as server:
        outcome, made = await send(tmp_path, server.url("/a"))
    assert outcome.outputs is not None
    assert outcome.outputs["status"] == 201
    assert outcome.outputs["body"] == {"id": 9}
    assert outcome.outputs["headers"]["x-request-id"] == "r1"
    assert "set-cookie" not in outcome.outputs["headers"]
    logged = made.logged()
    assert logged.startswith(f"> POST {server.url('/a')}\n< 201 Created\n")
    assert '{"id": 9}' in logged
    assert "session" not in logged


@pytest.mark.parametrize(
    "body", [b"\xff\xfe\x00", b"[" * 100 + b"]" * 100, b'{"a":1,"a":2}', b'"\\ud800"', b"{", b"NaN"]
)
async def test_a_body_that_is_no_good_json_is_kept_as_text(tmp_path: Path, body: bytes) -> None:
    async with serving(saying(answer("200 OK", body, "Content-Type: application/json"))) as server:
        outcome, _ = await send(tmp_path, server.url())
    assert outcome.outputs is not None
    assert outcome.outputs["body"] == body.decode("utf-8", "replace")


async def test_a_large_body_is_cut_in_the_outputs(tmp_path: Path) -> None:
    async with serving(saying(answer("200 OK", b"\x01" * 60_000))) as server:
        outcome, made = await send(tmp_path, server.url())
    assert outcome.outputs is not None
    assert outcome.outputs["truncated"] is True
    assert KEPT_BODY_BYTES // 2 < len(json.dumps(outcome.outputs["body"])) <= KEPT_BODY_BYTES
    assert made.logged().count("\x01") == 60_000


async def test_a_log_that_can_not_be_written_does_not_undo_the_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Context) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Context, "open_log", full)
    async with serving(saying(answer())) as server:
        outcome, _ = await send(tmp_path, server.url())
    assert outcome.code == "succeeded"


async def test_the_log_tells_who_answered_after_a_redirect(tmp_path: Path) -> None:
    async with serving(saying(answer())) as other:
        async with serving(saying(answer("307 Go", "", f"Location: {other.url('/there')}"))) as server:
            outcome, made = await send(tmp_path, server.url(), redirects=1)
    assert outcome.code == "succeeded"
    assert f"\n> redirected to http://127.0.0.1:{other.port}\n< 200 OK\n" in made.logged()


# Retry-After


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (("Retry-After: 120",), 120.0),
        (("Retry-After: 0",), 0.0),
        (("Retry-After: 999999",), 3600.0),
        (("Date: Sat, 21 Nov 2026 12:00:00 GMT", "Retry-After: Sat, 21 Nov 2026 12:05:00 GMT"), 300.0),
        (("Retry-After: Sat, 21 Nov 1999 12:05:00 GMT",), 0.0),
        (("Retry-After: soon",), None),
        (("Retry-After: -5",), None),
        ((), None),
    ],
)
async def test_a_server_says_when_to_come_again(
    tmp_path: Path, headers: tuple[str, ...], seconds: float | None
) -> None:
    async with serving(saying(answer("503 Service Unavailable", "", *headers))) as server:
        outcome, _ = await send(tmp_path, server.url())
    assert outcome.code == "http_status"
    assert outcome.retry_after_s == seconds


async def test_the_next_attempt_waits_as_long_as_the_outcome_asks(tmp_path: Path) -> None:
    async def act(*_: Any) -> Outcome:
        return Outcome.failed("http_status", "answered 503", retry_after_s=90.0)

    retry = RetryPolicy(attempts=2, delay_s=5.0, max_delay_s=60.0, jitter=0.0)
    async with bench(tmp_path / "engine.db", jobs=[job(retry=retry)], act=act) as engine:
        answered = await engine.emit_one(event())
        await engine.settle()
        run = await engine.run_of(answered.runs[0])
        assert run.state is RunState.RETRYING
        assert run.due_at == engine.clock.now() + timedelta(seconds=90)
        await engine.advance(89)
        assert len(engine.script.begun) == 1
        await engine.advance(2)
        assert len(engine.script.begun) == 2


@pytest.mark.parametrize("pause", [-1, float("nan"), float("inf"), "60", True])
def test_a_pause_that_is_none_breaks_the_contract_of_runners(pause: Any) -> None:
    checked = _checked(Outcome.failed("http_status", "answered 503", retry_after_s=pause))
    assert (checked.code, checked.retry_after_s) == ("runner_broke_contract", None)


# Servers that mean harm


async def timed_out(base: Path, server: Server, **settings: Any) -> Outcome:
    """Run a request, let its time pass once the server has it, and return the outcome."""
    clock = SteppedClock()
    made = context(base, clock=clock)
    outcomes: list[Outcome] = []
    runner = Http(url=server.url(), allow_private=LOOPBACK, timeout=30.0, **settings)

    async def run() -> None:
        outcomes.append(await runner.run(made))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await until(lambda: server.requests)
            clock.advance(29.0)
            await anyio.sleep(0.02)
            assert outcomes == []
            clock.advance(1.1)
    return outcomes[0]


async def test_a_server_that_does_not_answer_is_given_up_in_time(tmp_path: Path) -> None:
    async def act(request: Received, writer: asyncio.StreamWriter) -> None:
        await anyio.sleep_forever()

    async with serving(act) as server:
        outcome = await timed_out(tmp_path, server)
        await until(lambda: server.connections == 1)
    assert outcome.code == "http_timeout"
    assert outcome.reason == f"http://127.0.0.1:{server.port} did not answer in whole within 30s"


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n"])
async def test_a_server_that_sends_byte_by_byte_is_given_up_in_time(tmp_path: Path, head: bytes) -> None:
    async def act(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(b"x")
            await writer.drain()
            await anyio.sleep(0.005)

    async with serving(act) as server:
        outcome = await timed_out(tmp_path, server)
        assert outcome.code == "http_timeout"
        with anyio.fail_after(10):
            await server.gone.wait()


@pytest.mark.parametrize(
    "head", [b"Transfer-Encoding: chunked\r\n\r\n", b"Content-Length: 99999999999\r\n\r\n", b"\r\n"]
)
async def test_an_endless_body_is_cut_off_and_the_connection_closed(tmp_path: Path, head: bytes) -> None:
    piece = b"y" * 4096
    piece = b"1000\r\n" + piece + b"\r\n" if b"chunked" in head else piece

    async def act(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n" + head)
        while True:
            writer.write(piece)
            await writer.drain()

    async with serving(act) as server:
        outcome, made = await send(tmp_path, server.url(), max_body=10_000)
        with anyio.fail_after(10):
            await server.gone.wait()
        later, _ = await send(tmp_path, server.url(), max_body=10_000, success="body != ''")
    assert outcome.code == "succeeded"
    assert outcome.outputs is not None
    assert outcome.outputs["truncated"] is True
    assert len(outcome.outputs["body"]) == 10_000
    assert len(made.logged()) < 11_000 * 2
    assert later.code == "success_error"


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 200 OK\r\nX-Huge: " + b"a" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: a\r\n" % n for n in range(10_000)) + b"\r\n",
        b"HTTP/1.1 200 " + b"a" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nContent-Length: 20\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nabc",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ],
)
async def test_an_answer_that_is_no_whole_http_fails_the_attempt(tmp_path: Path, sent: bytes) -> None:
    async def act(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        await writer.drain()
        writer.close()

    async with serving(act) as server:
        outcome, made = await send(tmp_path, server.url())
    assert (outcome.state, outcome.code) == (RunState.FAILED, "http_broken"), outcome
    assert len(outcome.reason) < 400
    assert "\n! http://127.0.0.1" in made.logged()


async def test_headers_without_end_are_given_up(tmp_path: Path) -> None:
    async def act(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X-More: " + b"a" * 1000 + b"\r\n")
            await writer.drain()

    async with serving(act) as server:
        outcome, _ = await send(tmp_path, server.url())
    assert outcome.code == "http_broken", outcome


async def test_a_compressed_answer_is_not_inflated(tmp_path: Path) -> None:
    body = gzip.compress(b"a" * 1_000_000)
    async with serving(saying(answer("200 OK", body, "Content-Encoding: gzip"))) as server:
        outcome, made = await send(tmp_path, server.url())
        told, _ = await send(tmp_path, server.url(), success="body != ''")
    assert b"aaaa" not in (made.base / "log").read_bytes()
    assert outcome.outputs is not None
    assert (outcome.code, outcome.outputs["body"]) == ("succeeded", "")
    assert told.code == "success_error"
    assert server.requests[0].headers["accept-encoding"] == "identity"


async def test_nobody_there_is_told_without_the_path(tmp_path: Path) -> None:
    async with serving(saying(answer())) as server:
        pass
    outcome, _ = await send(tmp_path, server.url("/secret-path"))
    assert outcome.code == "http_unreachable"
    assert outcome.reason.startswith(f"http://127.0.0.1:{server.port} can't be reached: no connection")
    assert "secret-path" not in outcome.reason


async def test_a_server_that_speaks_no_tls_is_no_server(tmp_path: Path) -> None:
    async def act(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer("400 Bad Request"))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(act, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        outcome, _ = await send(tmp_path, f"https://127.0.0.1:{port}/")
    assert outcome.code == "http_unreachable"
    assert "no TLS connection" in outcome.reason


def self_signed(folder: Path) -> ssl.SSLContext:
    """Return what a server of 127.0.0.1 needs to speak TLS with a certificate of its own making."""
    key, certificate = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-keyout", key, "-out", certificate, "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    return tls


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
async def test_a_certificate_that_nobody_vouches_for_is_not_accepted(tmp_path: Path) -> None:
    tls = self_signed(tmp_path)

    def act(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(act, "127.0.0.1", 0, ssl=tls) as server:
        port = server.sockets[0].getsockname()[1]
        outcome, _ = await send(tmp_path, f"https://127.0.0.1:{port}/")
    assert outcome.code == "http_unreachable"
    assert "no TLS connection: self-signed certificate" in outcome.reason


async def test_a_cancelled_attempt_closes_its_connection(tmp_path: Path) -> None:
    async def act(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")

    async with serving(act) as server:
        runner = Http(url=server.url(), allow_private=LOOPBACK)
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                group.start_soon(runner.run, context(tmp_path))
                await until(lambda: server.requests)
                group.cancel_scope.cancel()
            await server.gone.wait()


# Secrets


async def test_secrets_are_sent_and_shown_nowhere_however_a_server_repeats_them(tmp_path: Path) -> None:
    token, key = "hunter2-tö/ken+1", 'ke"y/22'
    forms = [
        token, key, f"Bearer {token}", "hunter2-t%C3%B6%2Fken%2B1", json.dumps(token), json.dumps(key),
        base64.b64encode(f"a{token}b".encode()).decode(), base64.b64encode(f"ab{token}".encode()).decode(),
    ]  # fmt: skip
    headers = (f"Location: /{token}", f"X-Request-Id: {key}")

    async def act(request: Received, writer: asyncio.StreamWriter) -> None:
        if request.target == "/json":
            writer.write(json_answer(json.dumps({token: forms, "more": {"a": key}}), *headers))
        else:
            writer.write(answer(f"400 {token}", "\n".join(forms), *headers))

    async with serving(act) as server:
        for path in ("/json", "/text"):
            outcome, made = await send(
                tmp_path, server.url(path), bearer=Secret(token), headers={"X-Key": Secret(key)}, success="body == '1'"
            )
            request = server.requests[-1]
            assert request.headers["authorization"] == f"Bearer {token}"
            assert request.headers["x-key"] == key
            everything = repr(outcome) + json.dumps(outcome.outputs, ensure_ascii=False) + made.logged()
            for part in ("hunter2", "ken", 'ke"y', "y/22", "y\\/22"):
                assert part not in everything, everything
            for form in forms[-2:]:
                assert form[4:-6] not in everything


async def test_a_secret_that_is_cut_off_at_the_end_is_not_shown_in_part(tmp_path: Path) -> None:
    body = "x" * 990 + "hunter2-hunter3-hunter4"
    async with serving(saying(answer("200 OK", body))) as server:
        outcome, made = await send(tmp_path, server.url(), bearer=Secret("hunter2-hunter3-hunter4"), max_body=1000)
    assert "hunter" not in repr(outcome) + made.logged()


async def test_a_secret_url_is_shown_by_its_origin_alone(tmp_path: Path) -> None:
    async with serving(
        saying(answer("404 Not Found", "no /services/T00000000/B00000000?k=v here: B00000000000"))
    ) as server:
        url = Secret(server.url("/services/T00000000/B00000000000?k=v"))
        outcome, made = await send(tmp_path, url)
    assert server.requests[0].target == "/services/T00000000/B00000000000?k=v"
    assert "B00000000000" not in repr(outcome) + made.logged()
    assert f"> POST http://127.0.0.1:{server.port}\n" in made.logged()


def registry() -> Registry:
    known = Registry()
    for plugin in (Http, Manual, Exec):
        known.add(plugin)
    return known


def test_what_stands_elsewhere_is_a_secret_of_the_runner(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(
        """
        [jobs.tell.run.http]
        url = { env = "TARGET" }
        headers = { X-Key = { env = "KEY" }, X-Kind = "{{ event.type }}" }
        json = { order = "{{ data.id }}" }
        allow_private = ["10.0.0.0/8"]
        success = [200, 409]
        [jobs.ping]
        run.http = "https://example.com/ping/{{ data.id }}"
        """
    )
    environment = {"TARGET": "https://example.com/T0/B0", "KEY": "k-123456"}
    config = load([tmp_path / "config.toml"], environment=environment, registry=registry())
    tell, ping = config.jobs["tell"].runner, config.jobs["ping"].runner
    assert isinstance(tell, Http)
    assert isinstance(ping, Http)
    assert tell.url == Secret("https://example.com/T0/B0")
    assert tell.headers == {"X-Key": Secret("k-123456"), "X-Kind": "{{ event.type }}"}
    assert config.secrets == {"https://example.com/T0/B0", "k-123456"}
    assert ping.url == "https://example.com/ping/{{ data.id }}"


def test_a_configuration_in_which_data_chooses_the_host_is_refused_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[jobs.ping]\nrun.http = "https://{{ data.host }}/"\n')
    with pytest.raises(ConfigError, match=r"config.toml:2: jobs.ping.run.http.*data can't choose the target"):
        load([tmp_path / "config.toml"], environment={}, registry=registry())
