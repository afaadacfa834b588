"""The limits at the door: rates, guesses, connections, time."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from engine.config.doors import Doors, parse_quota
from engine.errors import ConfigError
from engine.http import bodies, connection, crowd
from engine.http.access import NOT_GUESSED
from engine.http.clients import counted_as
from engine.http.crowd import Crowd
from engine.http.doorlog import DoorLog
from engine.http.quotas import GUESSES, Guesses, Quota
from engine.http.server import TOLD, HttpServer
from engine.networks import Networks
from engine.plugin import BadSetting
from engine.triggers import Rate
from tests.fake_operations import TOKEN, FakeOperations, serving
from tests.http_client import Client, asking, raw
from tests.test_config_plugins import load_text
from tests.test_http_server import problem_of, receive

WRONG = "a-wrong-token-that-somebody-made-up"


class Time:
    """A monotonic clock that stands still."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


async def until(server: HttpServer, *, connected: bool) -> None:
    """Wait until somebody is connected, or nobody is."""
    assert server._listener is not None
    async with asyncio.timeout(30):
        while bool(server._listener.connections) is not connected:  # noqa: ASYNC110 - aiohttp tells nobody
            await asyncio.sleep(0.01)


def a_quota(limit: int = 3, per_s: float = 1.0) -> tuple[Quota, Time]:
    time = Time()
    return Quota(Rate(limit=limit, per_s=per_s, burst=limit), time), time


def test_a_client_may_ask_so_often_at_once_and_again_as_time_goes_by() -> None:
    quota, time = a_quota()
    assert [quota.take("a").passes for _ in range(4)] == [True, True, True, False]
    assert quota.take("b").remaining == 2
    refused = quota.take("a")
    assert (refused.passes, refused.remaining, round(refused.wait_s, 3)) == (False, 0, 0.333)
    time.now_s += 0.34
    assert [quota.take("a").passes for _ in range(2)] == [True, False]
    time.now_s += 10
    assert quota.take("a").remaining == 2


@given(st.lists(st.tuples(st.floats(0, 3), st.sampled_from("abc")), max_size=60))
def test_in_no_span_of_time_do_more_pass_than_burst_and_rate_allow(steps: list[tuple[float, str]]) -> None:
    quota, time = a_quota(3, 2.0)
    passed: dict[str, list[float]] = {}
    for pause_s, who in steps:
        time.now_s += pause_s
        if quota.take(who).passes:
            passed.setdefault(who, []).append(time.now_s)
    for times in passed.values():
        for first in range(len(times)):
            for last in range(first, len(times)):
                assert last - first + 1 <= 3 + (times[last] - times[first]) * 3 / 2.0 + 1e-3


def test_clients_without_number_take_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.http.quotas.MOST_CLIENTS", 10)
    quota, time = a_quota()
    for number in range(1000):
        quota.take(f"client-{number}")
    assert len(quota._tats) == 10
    time.now_s += 100
    quota.take("another")
    assert len(quota._tats) == 1


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::1"),
        ("", ""),
    ],
)
def test_addresses_of_one_host_are_one_client(address: str, client: str) -> None:
    assert counted_as(address) == client


@pytest.mark.parametrize("text", ["", "100", "100/d", "0/s", "-1/s", "1.5/s", "100/s/s", "٣/s"])
def test_what_is_no_rate_is_refused_with_the_way_out(text: str) -> None:
    with pytest.raises(BadSetting, match="no rate"):
        parse_quota(text)


async def test_beyond_its_rate_a_client_gets_429_and_is_told_when_to_come_back(tmp_path: Path) -> None:
    operations = FakeOperations(tmp_path, doors=Doors(rate=parse_quota("5/h")))
    received = receive(operations)
    async with serving(operations) as server, asking(server) as client:
        for left in (4, 3, 2, 1, 0):
            got = await client.ask("POST", "/hooks/x", body={}, token=None)
            assert got.status == 202
            assert got.headers["RateLimit"].startswith(f'"client";r={left};t=')
            assert got.headers["RateLimit-Policy"] == '"client";q=5;w=3600'
        got = await client.ask("POST", "/hooks/x", body={}, token=None)
        assert (got.status, got.json["code"]) == (429, "rate_limited")
        assert 0 < int(got.headers["Retry-After"]) <= 720
        assert got.headers["RateLimit"].startswith('"client";r=0;t=')
        assert len(received) == 5
        assert (await client.ask("GET", "/api/v1/status", token=WRONG)).status == 429
        assert [(await client.ask("GET", path, token=None)).status for path in ("/live", "/ready")] == [200, 200]


async def test_a_valid_token_is_a_client_of_its_own(tmp_path: Path) -> None:
    operations = FakeOperations(tmp_path, doors=Doors(rate=parse_quota("3/h")))
    receive(operations)
    async with serving(operations) as server, asking(server) as client:
        assert (await client.ask("GET", "/api/v1/status")).status == 200  # by its address, until the token is known
        assert [(await client.ask("POST", "/hooks/x", body={}, token=None)).status for _ in range(3)] == [202, 202, 429]
        assert [(await client.ask("GET", "/api/v1/status")).status for _ in range(4)] == [200, 200, 200, 429]


async def test_without_a_limit_nothing_is_counted(operations: FakeOperations, client: Client) -> None:
    receive(operations)
    for _ in range(30):
        got = await client.ask("POST", "/hooks/x", body={}, token=None)
        assert got.status == 202
        assert "RateLimit" not in got.headers


async def test_ten_thousand_guesses_are_429_and_one_line_of_the_log(
    operations: FakeOperations, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "engine.http")
    async with serving(operations) as server:
        reader, writer = await asyncio.open_connection(server.host, server.port)
        answers = []
        for number in range(10_000):
            writer.write(
                f"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nX-API-Key: guess-{number:x}\r\n\r\n".encode()
            )
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length))
            answers.append(head[9:12])
        writer.close()
    assert GUESSES.burst <= answers.count(b"401") < 200
    assert answers.count(b"401") + answers.count(b"429") == 10_000
    (wrong,) = [record for record in caplog.records if record.__dict__.get("action") == "http_wrong_token"]
    (unseen,) = [record for record in caplog.records if record.__dict__.get("action") == "http_token_guessing"]
    assert wrong.__dict__["count"] + unseen.__dict__["count"] == 10_000
    assert "127.0.0.1" in wrong.getMessage()
    assert "guess-" not in caplog.text


async def test_who_had_the_right_token_before_is_not_locked_out_by_a_guesser(client: Client) -> None:
    assert (await client.ask("GET", "/api/v1/status")).status == 200
    statuses = [(await client.ask("GET", "/api/v1/status", token=f"{number}{WRONG}")).status for number in range(12)]
    assert statuses[-1] == 429
    assert (await client.ask("GET", "/api/v1/status")).status == 200


@pytest.mark.parametrize(("wrong", "status"), [(NOT_GUESSED, 200), (10**6, 429)])
async def test_after_wrong_tokens_the_right_one_passes_unless_it_could_be_guessed(
    client: Client, monkeypatch: pytest.MonkeyPatch, wrong: int, status: int
) -> None:
    monkeypatch.setattr("engine.http.access.NOT_GUESSED", wrong)
    for number in range(12):
        got = await client.ask("GET", "/api/v1/status", token=f"{number}{WRONG}")
    assert (got.status, got.json["code"]) == (429, "too_many_wrong_tokens")
    assert 0 < int(got.headers["Retry-After"]) <= 6
    assert (await client.ask("GET", "/api/v1/status", token=TOKEN)).status == status


async def test_tokens_that_begin_alike_are_limited_from_all_addresses_together() -> None:
    time = Time()
    guesses = Guesses(time, DoorLog(TOLD))
    for number in range(60):
        guesses.check(f"192.0.2.{number}", f"te_known{number}")
        guesses.failed(f"192.0.2.{number}", f"te_known{number}")
    with pytest.raises(Exception, match="too many wrong tokens"):
        guesses.check("192.0.2.99", "te_known-last")
    guesses.check("192.0.2.99", "te_other-last")
    time.now_s += 61
    guesses.check("192.0.2.99", "te_known-last")


class Someone(Struct, eq=False):
    """A connection that waits, or not."""

    is_idle: bool = False
    waits: float = 0.0
    is_closing: bool = False

    def waits_s(self) -> float:
        return self.waits

    def drop(self) -> None:
        self.is_closing = True


def a_crowd(most: int = 10, per_client: int = 4) -> Crowd:
    return Crowd(Doors(max_connections=most, max_connections_per_client=per_client), DoorLog(TOLD))


async def test_room_is_made_by_the_slow_then_by_the_idle_then_by_who_is_awaited_longest() -> None:
    crowd = a_crowd()
    busy, idle, slow, late = Someone(), Someone(is_idle=True), Someone(waits=3.0), Someone(waits=0.5)
    everybody = [busy, idle, slow, late, *(Someone() for _ in range(6))]
    for number, each in enumerate(everybody):
        assert crowd.enter(each, f"192.0.2.{number}", 0.0)
    for number, expected in enumerate((slow, idle, late)):
        assert crowd.enter(Someone(), f"198.51.100.{number}", 0.0)
        assert [each for each in everybody if each.is_closing] == [expected]
        everybody.remove(expected)
    refused = Someone()
    assert not crowd.enter(refused, "198.51.100.9", 0.0)
    crowd.leave(refused)
    crowd.leave(busy)
    assert crowd.enter(Someone(), "198.51.100.10", 0.0)


async def test_one_client_makes_room_for_itself_and_not_at_the_cost_of_others() -> None:
    crowd = a_crowd()
    other = Someone(is_idle=True)
    crowd.enter(other, "192.0.2.1", 0.0)
    own = [Someone(is_idle=True) for _ in range(5)]
    for each in own:
        assert crowd.enter(each, "198.51.100.1", 0.0)
    assert [each.is_closing for each in own] == [True, False, False, False, False]
    assert not other.is_closing


async def test_loopback_may_have_nearly_all() -> None:
    crowd = a_crowd(most=80)
    own = [Someone() for _ in range(71)]
    entered = [crowd.enter(each, "127.0.0.1", 0.0) for each in own]
    assert entered == [True] * 70 + [False]


async def test_a_trusted_proxy_may_have_nearly_all() -> None:
    crowd = Crowd(Doors(max_connections=80, max_connections_per_client=4), DoorLog(TOLD), Networks(["10.0.0.0/8"]))
    assert [crowd.enter(Someone(), "10.1.2.3", 0.0) for _ in range(71)] == [True] * 70 + [False]
    assert [crowd.enter(Someone(), "192.0.2.1", 0.0) for _ in range(5)] == [True] * 4 + [False]


async def test_what_left_is_not_counted() -> None:
    crowd = a_crowd()
    for _ in range(100):
        each = Someone()
        assert crowd.enter(each, "192.0.2.1", 0.0)
        crowd.leave(each)
        crowd.leave(each)
    assert (crowd._all, crowd._by_client) == ({}, {})


async def test_a_client_that_sends_slowly_is_closed_and_the_next_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd, "SLOW_S", 0.0)
    operations = FakeOperations(tmp_path, doors=Doors(max_connections=8))
    receive(operations)
    async with serving(operations) as server:
        opened = []
        for _ in range(20):
            reader, writer = await asyncio.open_connection(server.host, server.port)
            writer.write(b"POST /hooks/x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1")
            opened.append((reader, writer))
        sent = b"POST /hooks/x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
        assert (await raw(server, sent)).startswith(b"HTTP/1.1 202 ")
        for _, writer in opened:
            writer.close()


async def test_a_body_that_goes_on_coming_is_given_more_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "LEAST_RATE_BYTES", 1)
    operations = FakeOperations(tmp_path, doors=Doors(body_timeout_s=0.2))
    receive(operations)
    async with serving(operations) as server:
        reader, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(
            b"POST /hooks/x HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\nConnection: close\r\n\r\n" + b"1" * 99
        )
        await asyncio.sleep(0.5)  # longer than the time-out, which 99 bytes have put off
        writer.write(b"1")
        assert (await reader.read()).startswith(b"HTTP/1.1 202 ")
        writer.close()


async def test_an_answer_that_nobody_takes_is_not_kept(
    operations: FakeOperations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "ANSWER_TIMEOUT_S", 0.2)
    async with serving(operations) as server:
        _, writer = await asyncio.open_connection(server.host, server.port, limit=1024)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        ask = b"GET /api/v1/triggers HTTP/1.1\r\nHost: localhost\r\nX-API-Key: " + TOKEN.encode() + b"\r\n\r\n"
        writer.write(ask * 20_000)
        await until(server, connected=True)
        await until(server, connected=False)
        writer.transport.abort()


async def test_a_head_without_end_is_431(server: HttpServer) -> None:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(b"GET /live HTTP/1.1\r\nHost: x\r\n")
    async with asyncio.timeout(10):
        for number in range(9):  # 72 kB, in pieces
            writer.write(f"X-{number}: {'a' * 8000}\r\n".encode())
            await asyncio.sleep(0.005)
        status, _ = problem_of(await reader.readuntil(b"}"))
    assert status == 431
    writer.close()


async def test_a_body_in_chunks_of_a_byte_each_costs_little(operations: FakeOperations, server: HttpServer) -> None:
    received = receive(operations)
    head = b"POST /hooks/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    answer = await raw(server, head + b"1\r\nx\r\n" * 1000 + b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 202 ")
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(head + b"1\r\nx\r\n" * 500_000)
    status, body = problem_of(await reader.readuntil(b"}"))
    assert (status, b"chunks are too small" in body) == (413, True)
    assert len(received) == 1
    writer.transport.abort()


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"identity, chunked", b"x, chunked"])
async def test_a_transfer_coding_that_is_not_undone_is_501(
    operations: FakeOperations, server: HttpServer, coding: bytes
) -> None:
    received = receive(operations)
    sent = b"POST /hooks/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: " + coding + b"\r\n\r\n0\r\n\r\n"
    status, _ = problem_of(await raw(server, sent))
    assert (status, received) == (501, [])


async def test_bodies_on_their_way_have_a_bound_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "MOST_HELD_BYTES", 300_000)
    operations = FakeOperations(tmp_path, max_body_bytes=200_000)
    receive(operations)
    async with serving(operations) as server:
        assert b"HTTP/1.1 202 " in await first_of_several_bodies(server, 3)  # four of the largest have room
        assert b"HTTP/1.1 503 " in await first_of_several_bodies(server, 9)


async def first_of_several_bodies(server: HttpServer, count: int) -> bytes:
    """Begin so many bodies at once, then end them; return the answer that comes first."""
    opened = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(b"POST /hooks/x HTTP/1.1\r\nHost: x\r\nContent-Length: 150000\r\n\r\n" + b"1" * 149_999)
        opened.append((reader, writer))
    answers = {asyncio.ensure_future(reader.readuntil(b"}")) for reader, _ in opened}
    try:
        # Where there is no room for all of them one is answered before any is whole.
        early, _ = await asyncio.wait(answers, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
        if not early:
            for _, writer in opened:
                writer.write(b"1")
            async with asyncio.timeout(10):
                early, _ = await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
        return early.pop().result()
    finally:
        for each in answers:
            each.cancel()
        await asyncio.gather(*answers, return_exceptions=True)
        for _, writer in opened:
            writer.transport.abort()


def test_the_limits_are_read_from_http(tmp_path: Path) -> None:
    text = (
        "[http]\nheader_timeout = '5s'\nbody_timeout = '1m'\nkeepalive_timeout = '2m'\n"
        "max_connections = 50\nmax_connections_per_client = 7\nrate_limit = '600/m'\n"
    )
    assert load_text(tmp_path, text).http.doors == Doors(
        header_timeout_s=5.0, body_timeout_s=60.0, keepalive_timeout_s=120.0, max_connections=50,
        max_connections_per_client=7, rate=Rate(limit=600, per_s=60.0, burst=600),
    )  # fmt: skip
    assert load_text(tmp_path, "").http.doors == Doors()
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, "[http]\nrate_limit = 'fast'\n")
    assert [one.path for one in caught.value.problems] == ["http.rate_limit"]


async def test_a_page_of_another_site_may_not_use_a_hook(operations: FakeOperations, client: Client) -> None:
    received = receive(operations)
    forged = [
        {"Origin": "https://evil.example", "Content-Type": "application/x-www-form-urlencoded"},
        {"Origin": "https://evil.example", "Content-Type": "text/plain"},
        {"Origin": "null"},
        {"Origin": "http://evil.example", "Host": "evil.example"},  # by DNS rebinding it is the same site
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    ]
    for headers in forged:
        got = await client.ask("POST", "/hooks/x", body=b"{}", headers=headers, token=None)
        assert (got.status, got.json["code"] in ("wrong_origin", "wrong_host")) == (403, True), headers
    assert received == []
    for headers in ({"Host": "tunnel.example"}, {"Sec-Fetch-Site": "none"}, {"Origin": client._url}):
        assert (await client.ask("POST", "/hooks/x", body=b"{}", headers=headers, token=None)).status == 202, headers


async def test_a_form_or_text_of_a_page_is_nothing_to_the_api(operations: FakeOperations, client: Client) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a"):
        got = await client.ask("POST", "/api/v1/events", body=b'{"type": "a"}', headers={"Content-Type": kind})
        assert got.status == 415
    assert operations.heard == []
