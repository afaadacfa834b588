"""Polls: what is a change, that each is one event whatever happens, and what is asked of a server."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.config import load
from engine.errors import ConfigError
from engine.plugin import BadSetting, Secret
from engine.registry import Registry
from engine.runtime import Runtime
from plugins.runners.http import Http
from plugins.sources.http import Poll
from tests.evil_server import Act, Received, Server, answer, json_answer, saying, serving
from tests.fakes import FakeSourceContext, until

TIMEOUT_S = 86_400.0


class Paced:
    """A clock that lets each pause between two looks end when the test says so; no deadline ever comes."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self._passed_s = 0.0
        self._go = anyio.Semaphore(0)

    def now(self) -> datetime:
        return datetime(2026, 11, 21, 12, 0, tzinfo=UTC)

    def monotonic(self) -> float:
        return self._passed_s

    async def sleep(self, seconds: float) -> None:
        if seconds >= TIMEOUT_S:
            await anyio.sleep_forever()
        self.pauses.append(seconds)
        await self._go.acquire()
        self._passed_s += seconds

    def go(self) -> None:
        self._go.release()


class Polled:
    """A poll that runs against a server; `looks(n)` returns when it has looked n times in all."""

    def __init__(self, server: Server, context: FakeSourceContext, clock: Paced) -> None:
        self.server = server
        self.context = context
        self.clock = clock

    async def looks(self, count: int) -> None:
        while len(self.clock.pauses) < count:
            before = len(self.clock.pauses)
            if before:
                self.clock.go()
            await until(lambda before=before: len(self.clock.pauses) > before)  # type: ignore[misc]

    @property
    def keys(self) -> list[str | None]:
        return [event.key for event in self.context.emitted]

    @property
    def bodies(self) -> list[Any]:
        return [event.data["body"] for event in self.context.emitted]


@asynccontextmanager
async def polling(
    act: Act, rest: str = "/", *, cursor: Any = None, before: FakeSourceContext | None = None, **settings: Any
) -> AsyncIterator[Polled]:
    async with serving(act) as server:
        url: Any = server.url(rest)
        if settings.pop("secret", False):
            url = Secret(url)
        poll = Poll(url=url, **{"timeout": TIMEOUT_S, "allow_private": ("127.0.0.1",), **settings})
        clock = Paced()
        context = FakeSourceContext(clock=clock) if before is None else before.restarted()
        context.clock = clock
        context.store.position = cursor
        async with context.running(poll):
            yield Polled(server, context, clock)


def bodies(*texts: str) -> Act:
    return saying(*(answer("200 OK", text) for text in texts))


# What is a change


async def test_the_first_answer_is_taken_for_known_and_each_other_one_is_an_event() -> None:
    async with polling(bodies("a", "a", "b", "b", "c"), "/feed?x=1") as polled:
        await polled.looks(6)
        assert polled.bodies == ["b", "c"]
        first = polled.context.emitted[0]
        assert (first.type, first.subject) == ("http.changed", polled.server.url("/feed?x=1"))
        assert first.data["status"] == 200
        assert first.key == f"1:sha256:{hashlib.sha256(b'b').hexdigest()}"


async def test_the_first_answer_can_be_an_event_too() -> None:
    async with polling(bodies("a", "a", "b"), start="beginning") as polled:
        await polled.looks(3)
        assert polled.bodies == ["a", "b"]


async def test_there_and_back_are_two_events_of_their_own() -> None:
    async with polling(bodies("a", "b", "a", "b", "a")) as polled:
        await polled.looks(5)
        assert polled.bodies == ["b", "a", "b", "a"]
        assert len(set(polled.keys)) == 4


async def test_json_is_parsed_and_headers_are_kept_but_for_cookies() -> None:
    act = saying(json_answer('{"n": 1}'), json_answer('{"n": 2}', 'ETag: "2"', "Set-Cookie: session=1"))
    async with polling(act) as polled:
        await polled.looks(2)
        (event,) = polled.context.emitted
    assert event.data["body"] == {"n": 2}
    assert event.data["headers"]["etag"] == '"2"'
    assert "set-cookie" not in event.data["headers"]


@pytest.mark.parametrize(
    ("headers", "changes"),
    [
        (["ETag: 1", "ETag: 1", "ETag: 2"], 1),
        (['ETag: W/"1"', 'ETag: "1"', 'ETag: W/"2"'], 1),
        (["Last-Modified: A", "Last-Modified: A", "Last-Modified: B"], 1),
        (["ETag: 1", "Last-Modified: B", "ETag: 1", "X-None: 1"], 0),
        (["ETag: " + "x" * 500, "ETag: " + "x" * 500, "ETag: " + "y" * 500], 1),
    ],
)
async def test_validators_tell_versions_and_where_they_come_and_go_the_body_does(
    headers: list[str], changes: int
) -> None:
    async with polling(saying(*(answer("200 OK", "same", header) for header in headers))) as polled:
        await polled.looks(len(headers))
        assert len(polled.keys) == changes


async def test_an_etag_that_changes_without_cause_can_be_left_out_of_it() -> None:
    answers = [answer("200 OK", body, f"ETag: {tag}") for body, tag in (("a", 1), ("a", 2), ("b", 2))]
    async with polling(saying(*answers), compare="body") as polled:
        await polled.looks(3)
        assert polled.bodies == ["b"]


async def test_an_expression_says_what_counts() -> None:
    answers = [json_answer(text) for text in ('{"v":1,"t":1}', '{"v":1,"t":2}', '{"v":2,"t":3}', '{"v":2,"t":4}')]
    async with polling(saying(*answers), changed="body.v") as polled:
        await polled.looks(4)
        assert polled.bodies == [{"v": 2, "t": 3}]


async def test_a_status_can_be_what_counts() -> None:
    act = saying(answer("200 OK", "a", "ETag: 1"), answer("503 Sorry", "", "ETag: 2"), answer("200 OK", "a", "ETag: 1"))
    async with polling(act, changed="status") as polled:
        await polled.looks(4)
        assert [event.data["status"] for event in polled.context.emitted] == [503, 200]
        assert ["if-none-match" in request.headers for request in polled.server.requests] == [False, True, False, True]


async def test_head_goes_by_the_validators() -> None:
    act = saying(answer("200 OK", "", "ETag: 1"), answer("200 OK", "", "ETag: 2"), answer("200 OK"))
    async with polling(act, method="HEAD") as polled:
        await polled.looks(3)
        assert [request.method for request in polled.server.requests] == ["HEAD"] * 3
        assert polled.keys == ["1:etag:2"]
        assert polled.clock.pauses == [60.0, 60.0, 120.0]


# What is asked


async def test_requests_are_conditional_and_304_is_no_change() -> None:
    act = saying(
        answer("200 OK", "a", 'ETag: W/"1"', "Last-Modified: Sat, 21 Nov 2026 12:00:00 GMT"),
        b"HTTP/1.1 304 Not Modified\r\n\r\n",
        answer("200 OK", "b", 'ETag: "2"'),
        b"HTTP/1.1 304 Not Modified\r\n\r\n",
    )
    async with polling(act, bearer=Secret("t-123456"), headers={"Accept": "text/plain"}) as polled:
        await polled.looks(4)
        assert polled.bodies == ["b"]
        asked = [request.headers for request in polled.server.requests]
    assert "if-none-match" not in asked[0]
    assert asked[1]["if-none-match"] == 'W/"1"'
    assert asked[1]["if-modified-since"] == "Sat, 21 Nov 2026 12:00:00 GMT"
    assert asked[3]["if-none-match"] == '"2"'
    assert "if-modified-since" not in asked[3]
    assert {headers["authorization"] for headers in asked} == {"Bearer t-123456"}
    assert {headers["accept"] for headers in asked} == {"text/plain"}


async def test_one_connection_serves_all_looks() -> None:
    async with polling(bodies("a")) as polled:
        await polled.looks(4)
        assert polled.server.connections == 1
    assert polled.server.gone.is_set()


# Restarts, crashes and a store that is away


async def test_a_restart_goes_on_from_what_was_seen() -> None:
    async with polling(bodies("a", "b")) as polled:
        await polled.looks(2)
        cursor = json.loads(json.dumps(await polled.context.cursor()))
        before = polled.context
    async with polling(bodies("b", "c"), cursor=cursor, before=before) as polled:
        await polled.looks(2)
        assert polled.bodies == ["b", "c"]
        assert [key and key.partition(":")[0] for key in polled.keys] == ["1", "2"]


async def test_what_changed_while_the_engine_was_away_is_an_event() -> None:
    async with polling(bodies("a")) as polled:
        await polled.looks(1)
        cursor = await polled.context.cursor()
    async with polling(bodies("b"), cursor=cursor) as polled:
        await polled.looks(1)
        assert polled.bodies == ["b"]


@pytest.mark.parametrize("committed", [False, True])
async def test_a_crash_between_event_and_answer_neither_doubles_nor_loses(committed: bool) -> None:
    crashed = anyio.Event()

    async def crash() -> None:
        crashed.set()
        await anyio.sleep_forever()

    async with polling(bodies("a", "b", "b")) as polled:
        await polled.looks(1)
        cursor, before = await polled.context.cursor(), polled.context
        before.before_answer = crash
        polled.clock.go()
        await crashed.wait()
        if committed:
            cursor = await before.cursor()
    if not committed:
        before.store.clear()
    async with polling(bodies("b", "b", "a"), cursor=cursor, before=before) as polled:
        await polled.looks(3)
        assert polled.bodies == ["b", "a"]


async def test_a_change_that_the_store_can_not_take_is_offered_again() -> None:
    async with polling(bodies("a", "b", "c")) as polled:
        await polled.looks(1)
        polled.context.failures = 2
        polled.clock.go()
        await until(lambda: len(polled.clock.pauses) == 2)
        polled.clock.go()
        await until(lambda: len(polled.clock.pauses) == 3)
        assert polled.keys == []
        polled.clock.go()
        await until(lambda: len(polled.clock.pauses) == 4)
        assert polled.bodies == ["b"]
        assert len(polled.server.requests) == 2
        assert polled.clock.pauses == [60.0, 5.0, 5.0, 50.0]


# Errors


async def test_after_errors_the_pauses_double_and_end_with_the_first_good_answer() -> None:
    bad = answer("500 Internal Server Error", "sorry")
    async with polling(saying(answer("200 OK", "a"), *[bad] * 7, answer("200 OK", "b")), backoff_max=1000.0) as polled:
        await polled.looks(9)
        assert polled.clock.pauses == [60.0, 120.0, 240.0, 480.0, 960.0, 1000.0, 1000.0, 1000.0, 60.0]
        assert polled.bodies == ["b"]


async def test_a_server_that_asks_to_wait_is_not_asked_sooner() -> None:
    act = saying(answer("429 Too Many Requests", "", "Retry-After: 700"), answer("429 No", "", "Retry-After: 99999"))
    async with polling(act) as polled:
        await polled.looks(2)
        assert polled.clock.pauses == [700.0, 3600.0]


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        answer("200 OK", b"x" * 2000),
        answer("200 OK", b"x", "Content-Encoding: gzip"),
        answer("302 Found", "", "Location: /"),
        b"HTTP/1.1 304 Not Modified\r\n\r\n",
    ],
)
async def test_what_is_no_whole_good_answer_is_no_change(sent: bytes) -> None:
    async def act(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        await writer.drain()
        writer.close()

    async with polling(act, max_body=1000, start="beginning") as polled:
        await polled.looks(2)
        assert polled.keys == []
        assert polled.clock.pauses == [120.0, 240.0]
        assert await polled.context.cursor() is None


async def test_data_that_no_event_can_hold_is_an_error_and_not_the_end(caplog: pytest.LogCaptureFixture) -> None:
    async with polling(bodies("a", "b" * 2000, "c")) as polled:
        polled.context.max_data = 1000
        await polled.looks(3)
        assert polled.bodies == ["c"]
    assert "at most 1000B of JSON" in caplog.text


# Secrets


async def test_secrets_are_in_no_event_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    async def act(request: Received, writer: asyncio.StreamWriter) -> None:
        if len(server_requests) % 2:
            writer.write(answer("500 hunter22"))
        else:
            writer.write(
                json_answer(json.dumps([len(server_requests), request.headers["authorization"], request.target]))
            )

    server_requests: list[Received] = []
    async with polling(act, "/feed/k-7777777777", bearer=Secret("hunter22"), secret=True, start="beginning") as polled:
        server_requests = polled.server.requests
        await polled.looks(4)
        assert len(polled.keys) == 2
        for event in polled.context.emitted:
            assert event.subject == f"http://127.0.0.1:{polled.server.port}"
            assert "hunter22" not in repr(event)
            assert "k-7777777" not in repr(event)
    assert "polls have no result" in caplog.text
    assert "hunter22" not in caplog.text
    assert "k-7777777" not in caplog.text


# Settings


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"url": "http://169.254.169.254/"}, "url"),
        ({"url": "http://127.1/"}, "url"),
        ({"url": "https://example.com/{{ now }}"}, "url"),
        ({"url": "https://me:pw@example.com/"}, "url"),
        ({"url": Secret("https://me:pw@example.com/")}, "url"),
        ({"headers": {"X": "{{ now }}"}}, "headers.X"),
        ({"headers": {"If-None-Match": "1"}}, "headers.If-None-Match"),
        ({"headers": {"Host": "1"}}, "headers.Host"),
        ({"changed": "data.x"}, "changed"),
        ({"changed": "body ="}, "changed"),
        ({"changed": "body", "compare": "body"}, "compare"),
        ({"method": "HEAD", "compare": "body"}, "compare"),
        ({"allow_private": ("x",)}, "allow_private[0]"),
    ],
)
def test_a_setting_that_can_do_harm_or_nothing_is_refused(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(BadSetting) as refused:
        Poll(**{"url": "https://example.com/", **settings})
    assert refused.value.field == field
    assert "pw" not in str(refused.value)


def test_it_is_the_same_source_when_only_its_pace_or_its_secrets_change() -> None:
    first = Poll(url="https://example.com/a", bearer=Secret("a"), headers={"X": Secret("1")})
    assert first.identity() == Poll(url="https://example.com/a", bearer=Secret("b"), every=5.0).identity()
    others = [
        Poll(url="https://example.com/b"),
        Poll(url="https://example.com/a", changed="body.x"),
        Poll(url="https://example.com/a", compare="body"),
        Poll(url="https://example.com/a", method="HEAD"),
        Poll(url="https://example.com/a", headers={"Accept": "text/csv"}),
    ]
    assert len({first.identity(), *(poll.identity() for poll in others)}) == 6


# The whole engine


def registry() -> Registry:
    known = Registry()
    for plugin in (Http, Poll):
        known.add(plugin)
    return known


CONFIG = """
[jobs.tell.run.http]
url = "{target}/versions/{{{{ data.body.version }}}}"
json = {{ was = "{{{{ event.key }}}}" }}
allow_private = true
[triggers.feed]
on.http = {{ url = "{feed}/feed", every = "1s", allow_private = true }}
job = "tell"
"""


async def test_a_change_is_told_to_another_server_and_a_restart_tells_nothing_twice(tmp_path: Path) -> None:
    versions = [1]

    async def feed(request: Received, writer: asyncio.StreamWriter) -> None:
        version = versions[-1]
        if request.headers.get("if-none-match") == f'"{version}"':
            writer.write(b"HTTP/1.1 304 Not Modified\r\n\r\n")
        else:
            writer.write(json_answer(json.dumps({"version": version}), f'ETag: "{version}"'))

    async def engine(done: Any) -> None:
        ready = anyio.Event()
        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                runtime = Runtime(config, registry=registry(), listen=False, on_ready=lambda _: ready.set())
                group.start_soon(runtime.run)
                await ready.wait()
                await done()
                runtime.stop()

    async with serving(feed) as polled, serving(saying(answer())) as told:
        text = CONFIG.format(target=told.url(""), feed=polled.url(""))
        (tmp_path / "config.toml").write_text(text, "utf-8")
        config = load([tmp_path / "config.toml"], environment={}, registry=registry())

        async def change() -> None:
            await until(lambda: polled.requests)
            await until(lambda: len(polled.requests) > 1)
            versions.append(2)
            await until(lambda: told.requests)

        async def rest() -> None:
            count = len(polled.requests)
            await until(lambda: len(polled.requests) > count + 1)

        await engine(change)
        await engine(rest)
        versions.append(1)
        await engine(lambda: until(lambda: len(told.requests) > 1))
    assert [request.target for request in told.requests] == ["/versions/2", "/versions/1"]
    assert [json.loads(request.body)["was"] for request in told.requests] == ['1:etag:"2"', '2:etag:"1"']


def test_two_triggers_on_one_url_with_another_pace_are_told_to_agree(tmp_path: Path) -> None:
    trigger = '[triggers.{}]\njob = "tell"\non.http = {{ url = "https://example.com/", every = "{}" }}\n'
    text = '[jobs.tell]\nrun.http = "https://example.com/"\n' + trigger.format("a", "1m") + trigger.format("b", "2m")
    (tmp_path / "config.toml").write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=r"is already used with other settings by trigger a"):
        load([tmp_path / "config.toml"], environment={}, registry=registry())
