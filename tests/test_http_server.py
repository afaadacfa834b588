"""The listener: what it lets in, and that every answer is one."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import anyio
import pytest

from engine.config.doors import Doors
from engine.errors import EngineError, StoreDamaged, StoreUnavailable
from engine.http import connection
from engine.http.server import HttpServer
from engine.http.tokens import AdminToken
from engine.plugin import Refusal, Request, Response
from tests.fake_operations import TOKEN, FakeOperations, serving
from tests.http_client import Client, asking, raw

MIB = 1 << 20


def receive(operations: FakeOperations, path: str = "/hooks/x", method: str = "POST") -> list[Request]:
    received: list[Request] = []

    async def handle(request: Request) -> Response:
        received.append(request)
        return Response(status=202, body={"ok": True}, headers={"Location": "/there"})

    operations.routes.setdefault(path, {})[method] = handle
    return received


def problem_of(answer: bytes) -> tuple[int, bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    return int(head.split(b" ", 2)[1]), body


async def test_a_hook_gets_the_request_exactly_as_it_was_sent(operations: FakeOperations, client: Client) -> None:
    received = receive(operations, "/hooks/a/b")
    body = b'{"a":\xc3\xa9, not json at all\x00'
    got = await client.ask("POST", "/hooks/a/b?x=1&x=2&y=%C3%A9", body=body, headers={"X-Sig": "q"}, token=None)
    assert (got.status, got.json, got.headers["Location"]) == (202, {"ok": True}, "/there")
    (request,) = received
    assert request.body == body
    assert request.query == {"x": "1", "y": "é"}
    assert (request.method, request.path, request.remote) == ("POST", "/hooks/a/b", "127.0.0.1")
    assert request.headers["x-sig"] == "q"


async def test_a_hook_that_nobody_registered_is_not_found_and_other_methods_are_not_allowed(
    operations: FakeOperations, client: Client
) -> None:
    receive(operations)
    missing = await client.ask("POST", "/hooks/nobody", token=None)
    assert (missing.status, missing.json["code"]) == (404, "not_found")
    wrong = await client.ask("GET", "/hooks/x", token=None)
    assert (wrong.status, wrong.headers["Allow"]) == (405, "OPTIONS, POST")
    options = await client.ask("OPTIONS", "/hooks/x", token=None)
    assert (options.status, options.headers["Allow"], options.body) == (204, "OPTIONS, POST", b"")


async def test_head_of_a_hook_that_answers_get_has_its_head_and_no_body(
    operations: FakeOperations, client: Client
) -> None:
    receive(operations, method="GET")
    got = await client.ask("HEAD", "/hooks/x", token=None)
    assert (got.status, got.body, got.headers["Content-Length"]) == (202, b"", "11")


async def test_a_handler_that_raises_is_a_500_whose_trace_is_only_in_the_log(
    operations: FakeOperations, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    async def handle(request: Request) -> Response:
        raise RuntimeError("the inner secret")

    operations.routes["/hooks/x"] = {"POST": handle}
    got = await client.ask("POST", "/hooks/x", headers={"X-Request-ID": "mine-1"}, token=None)
    assert (got.status, got.json["request_id"]) == (500, "mine-1")
    assert got.headers["Content-Type"] == "application/problem+json"
    assert b"secret" not in got.body
    assert b"Traceback" not in got.body
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert record.__dict__["request_id"] == "mine-1"


async def test_what_a_handler_refuses_is_a_problem_with_its_words_and_headers(
    operations: FakeOperations, client: Client
) -> None:
    async def refuse(request: Request) -> Response:
        proof = {"WWW-Authenticate": "Hook"}
        raise Refusal(401, "Unauthorized", "the proof is not valid", proof, reason="for the owner alone")

    async def away(request: Request) -> Response:
        raise StoreUnavailable("the disk is full")

    async def lost(request: Request) -> Response:
        raise StoreDamaged("the file /srv/data/engine.db is not the one any more that was opened")

    operations.routes["/hooks/x"] = {"POST": refuse}
    operations.routes["/hooks/y"] = {"POST": away}
    operations.routes["/hooks/z"] = {"POST": lost}
    got = await client.ask("POST", "/hooks/x", token=None)
    assert (got.status, got.json["detail"]) == (401, "the proof is not valid")
    assert got.headers["WWW-Authenticate"] == "Hook"
    got = await client.ask("POST", "/hooks/y", token=None)
    assert (got.status, got.json["code"], got.headers["Retry-After"]) == (503, "store_unavailable", "2")
    got = await client.ask("POST", "/hooks/z", token=None)
    assert (got.status, got.json["code"], got.headers["Retry-After"]) == (503, "store_unavailable", "2")
    assert b"/srv" not in got.body
    (*others, told) = operations.refused
    assert (told["status"], told["reason"]) == (
        503,
        "the file /srv/data/engine.db is not the one any more that was opened",
    )
    assert [(one["path"], one["status"], one["reason"]) for one in others] == [
        ("/hooks/x", 401, "for the owner alone"), ("/hooks/y", 503, "the disk is full"),
    ]  # fmt: skip


async def test_a_header_with_a_line_break_is_never_sent(operations: FakeOperations, client: Client) -> None:
    async def handle(request: Request) -> Response:
        return Response(headers={"Location": "/x\r\nSet-Cookie: a=b"})

    operations.routes["/hooks/x"] = {"POST": handle}
    got = await client.ask("POST", "/hooks/x", token=None)
    assert got.status == 500
    assert "Set-Cookie" not in got.headers


@pytest.mark.parametrize("asked", ["a b~", "x" * 128])
async def test_a_sane_request_id_is_echoed(client: Client, asked: str) -> None:
    got = await client.ask("GET", "/live", headers={"X-Request-ID": asked})
    assert got.headers["X-Request-ID"] == asked


@pytest.mark.parametrize("asked", ["x" * 129, "é", ""])
async def test_another_request_id_is_replaced(client: Client, asked: str) -> None:
    got = await client.ask("GET", "/live", headers={"X-Request-ID": asked})
    assert len(got.headers["X-Request-ID"]) == 36


@pytest.mark.parametrize("path", ["/live", "/hooks/nobody", "/api/v1/status", "/api/v1/nothing", "/"])
async def test_every_answer_has_the_security_headers(client: Client, path: str) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        got = await client.ask(method, path)
        assert got.headers["X-Content-Type-Options"] == "nosniff"
        assert got.headers["Cache-Control"] == "no-store"
        assert got.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert "Server" not in got.headers


async def test_a_chunked_body_beyond_the_cap_is_refused_before_it_is_read(
    operations: FakeOperations, server: HttpServer
) -> None:
    received = receive(operations)
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(b"POST /hooks/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    for _ in range(80):  # 5 MiB, and no end
        writer.write(chunk)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"Connection: close" in head
    assert received == []
    writer.close()


async def test_a_declared_length_beyond_the_cap_is_refused_without_waiting_for_the_body(
    operations: FakeOperations, server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive(operations)
    monkeypatch.setattr(connection, "LINGER_S", 0.05)
    head = b"POST /hooks/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048577\r\n\r\n"
    status, body = problem_of(await raw(server, head))
    assert status == 413
    assert b'"too_large"' in body
    assert b"1MiB" in body


async def test_a_body_of_just_the_cap_is_taken(operations: FakeOperations, client: Client) -> None:
    received = receive(operations)
    assert (await client.ask("POST", "/hooks/x", body=b"x" * MIB, token=None)).status == 202
    assert len(received[0].body) == MIB


async def test_a_body_shorter_than_its_declared_length_reaches_no_handler(
    operations: FakeOperations, server: HttpServer
) -> None:
    received = receive(operations)
    head = b"POST /hooks/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nshort"
    answer = await raw(server, head, half_close=True)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert received == []


async def test_an_encoded_body_is_refused_and_not_inflated(operations: FakeOperations, client: Client) -> None:
    received = receive(operations)
    for encoding in ("gzip", "deflate", "br", "x-unknown", "identity, gzip"):
        got = await client.ask("POST", "/hooks/x", body=b"\x1f\x8b", headers={"Content-Encoding": encoding}, token=None)
        assert (got.status, got.json["code"]) == (415, "content_encoding"), encoding
    got = await client.ask("POST", "/hooks/x", body=b"plain", headers={"Content-Encoding": "identity"}, token=None)
    assert got.status == 202
    assert [request.body for request in received] == [b"plain"]


async def test_expect_100_continue_is_answered_before_the_body_comes(
    operations: FakeOperations, server: HttpServer
) -> None:
    receive(operations)
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(
        b"POST /hooks/x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    )
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"{}")
    assert (await reader.read()).startswith(b"HTTP/1.1 202 ")
    writer.close()


async def test_a_body_that_does_not_come_is_timed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    operations = FakeOperations(tmp_path, doors=Doors(body_timeout_s=0.05))
    receive(operations)
    monkeypatch.setattr(connection, "LINGER_S", 0.05)
    async with serving(operations) as server:
        sent = b"POST /hooks/x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1"
        status, _ = problem_of(await raw(server, sent))
    assert status == 408


async def test_a_head_that_does_not_come_closes_the_connection(tmp_path: Path) -> None:
    async with serving(FakeOperations(tmp_path, doors=Doors(header_timeout_s=0.05))) as server:
        await _without_heads(server)


async def _without_heads(server: HttpServer) -> None:
    assert await raw(server, b"GET /live HTTP/1.1\r\nHost: loc") == b""
    assert await raw(server, b"") == b""
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200 ")
    writer.write(b"GET /live HT")
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()


MALFORMED = {
    "no HTTP": b"hello there\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "two lengths": b"POST /hooks/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length and chunks": b"POST /hooks/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "negative length": b"POST /hooks/x HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "signed length": b"POST /hooks/x HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\na",
    "space before colon": b"GET /live HTTP/1.1\r\nHost : x\r\n\r\n",
    "folded header": b"GET /live HTTP/1.1\r\nHost: x\r\nX-A: b\r\n c\r\n\r\n",
    "bare CR": b"GET /live HTTP/1.1\r\nHost: x\rX-A: b\r\n\r\n",
    "NUL in header": b"GET /live HTTP/1.1\r\nHost: x\r\nX-A: \x00secret\r\n\r\n",
    "unknown coding": b"POST /hooks/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: lzw\r\n\r\n",
    "bad chunk size": b"POST /hooks/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    "old version": b"GET /live HTTP/9.9\r\n\r\n",
    "no version": b"GET /live\r\n\r\n",
    "one length twice": b"POST /hooks/x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab",
    "list of lengths": b"POST /hooks/x HTTP/1.1\r\nHost: x\r\nContent-Length: 2, 2\r\n\r\nab",
    "endless length": b"POST /hooks/x HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551617\r\n\r\na",
    "bare LF": b"GET /live HTTP/1.1\nHost: x\n\n",
    "bare LF within": b"GET /live HTTP/1.1\r\nHost: x\nX-A: b\r\n\r\n",
    "chunked twice": b"POST /hooks/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked not last": b"POST /hooks/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "nearly chunked": b"POST /hooks/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked in 1.0": b"POST /hooks/x HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunk size with underscore": b"POST /hooks/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
    "chunk size with sign": b"POST /hooks/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"+1\r\na\r\n0\r\n\r\n",
    "chunk size beyond all": b"POST /hooks/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"ffffffffffffffffff\r\na\r\n0\r\n\r\n",
    "chunk longer than its size": b"POST /hooks/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"1\r\nabc\r\n0\r\n\r\n",
    "chunk with bare LF": b"POST /hooks/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n",
    "LF in a chunk extension": b"POST /hooks/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"1;a\nb\r\na\r\n0\r\n\r\n",
    "length in a trailer": b"POST /hooks/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"1\r\na\r\n0\r\nContent-Length: 5\r\n\r\n",
    "two hosts": b"GET /live HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n",
    "header without a name": b"GET /live HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n",
    "space before the first header": b"GET /live HTTP/1.1\r\n Host: x\r\n\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_malformed_http_is_a_problem_and_the_end_of_the_connection(
    operations: FakeOperations, server: HttpServer, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    receive(operations)
    answer = await raw(server, MALFORMED[name])
    status, body = problem_of(answer)
    assert status == 400
    assert answer.count(b"HTTP/1.1 4") == 1
    assert b"Connection: close" in answer
    assert b"secret" not in answer
    assert b"Traceback" not in body
    assert [record for record in caplog.records if record.exc_info] == []


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /live HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 9000 + b"\r\n\r\n",
        b"GET /live HTTP/1.1\r\nHost: x\r\n" + b"X-A: a\r\n" * 500 + b"\r\n",
    ],
)
async def test_a_head_that_is_too_large_is_a_problem(server: HttpServer, sent: bytes) -> None:
    status, _ = problem_of(await raw(server, sent))
    assert status in (400, 431)


async def test_the_absolute_form_and_http_1_0_are_understood(server: HttpServer) -> None:
    answer = await raw(server, b"GET http://localhost/live?a=b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    answer = await raw(server, b"GET /live HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"Connection: close" in answer
    status, _ = problem_of(await raw(server, b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))
    assert status in (400, 404)


async def test_requests_on_one_connection_are_answered_in_order(operations: FakeOperations, server: HttpServer) -> None:
    received = receive(operations)
    one = b"POST /hooks/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n%d"
    last = b"POST /hooks/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nConnection: close\r\n\r\n9"
    answer = await raw(server, one % 1 + one % 2 + last)
    assert answer.count(b"HTTP/1.1 202 ") == 3
    assert [request.body for request in received] == [b"1", b"2", b"9"]


@pytest.mark.parametrize("path", ["/hooks%2Fx", "/hooks/a%2Fb", "/hooks/%00", "/api/v1/runs/..%2f..%2fx"])
async def test_encoded_slashes_and_nul_name_nothing(operations: FakeOperations, server: HttpServer, path: str) -> None:
    received = [receive(operations), receive(operations, "/hooks/a/b")]
    sent = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    status, _ = problem_of(await raw(server, sent.encode()))
    assert status == 404
    assert received == [[], []]


async def test_an_encoded_path_is_the_path_that_it_stands_for(operations: FakeOperations, server: HttpServer) -> None:
    received = receive(operations)
    await raw(server, b"POST /hooks/%78 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert [request.path for request in received] == ["/hooks/x"]


async def test_a_port_in_use_is_an_error_that_names_it_and_the_way_out(
    operations: FakeOperations, server: HttpServer
) -> None:
    second = HttpServer(operations, AdminToken.from_text(TOKEN), port=server.port)
    with pytest.raises(EngineError, match=rf"127\.0\.0\.1:{server.port} is in use.*\[http\] listen"):
        await second.start()
    await second.stop(0.1)


async def test_an_address_of_another_machine_is_an_error_that_names_it(operations: FakeOperations) -> None:
    elsewhere = HttpServer(operations, AdminToken.from_text(TOKEN), host="192.0.2.1", port=0)
    with pytest.raises(EngineError, match=r"192\.0\.2\.1 is no address of this machine"):
        await elsewhere.start()


async def test_stopping_lets_a_begun_request_end(operations: FakeOperations) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def handle(request: Request) -> Response:
        begun.set()
        await go_on.wait()
        return Response(status=202)

    operations.routes["/hooks/x"] = {"POST": handle}
    async with serving(operations) as server, asking(server) as client:
        asked = asyncio.create_task(client.ask("POST", "/hooks/x", token=None))
        await begun.wait()
        stopped = asyncio.create_task(server.stop(10))
        await asyncio.sleep(0)
        go_on.set()
        assert (await asked).status == 202
        await stopped
        with pytest.raises(OSError, match=r"refused|Connect"):
            await asyncio.open_connection(server.host, server.port)


async def test_stopping_does_not_wait_longer_than_its_grace(operations: FakeOperations) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def handle(request: Request) -> Response:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return Response()

    operations.routes["/hooks/x"] = {"POST": handle}
    async with serving(operations) as server:
        asked = asyncio.create_task(raw(server, b"POST /hooks/x HTTP/1.1\r\nHost: x\r\n\r\n"))
        await begun.wait()
        async with asyncio.timeout(5):
            await server.stop(0)
            assert await asked == b""
            await ended.wait()


async def test_who_connects_to_a_bound_server_is_answered_once_it_starts(tmp_path: Path) -> None:
    server = HttpServer(FakeOperations(tmp_path), AdminToken.from_text(TOKEN))
    server.bind()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /live HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        await server.start()
        with anyio.fail_after(5):
            assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()
        await writer.wait_closed()
    finally:
        await server.stop(0.5)


async def test_a_bound_server_that_never_starts_gives_its_address_back(tmp_path: Path) -> None:
    server = HttpServer(FakeOperations(tmp_path), AdminToken.from_text(TOKEN))
    server.bind()
    await server.stop(0.5)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.port)
