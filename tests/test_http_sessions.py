"""A browser's session: a cookie in place of a token, which no other site can use."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from engine.http import sessions
from engine.http.server import HttpServer
from engine.http.sessions import LONGEST_IDLE_S, LONGEST_S, Sessions
from engine.http.tokens import AdminToken
from tests.fake_operations import TOKEN, FakeOperations, serving
from tests.http_client import Client, Got, asking

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[HttpServer]:
    async with serving(FakeOperations(tmp_path)) as started:
        yield started


def cookie_of(got: Got) -> str:
    found = re.match(r"engine_session=([\w-]+);", got.headers["Set-Cookie"])
    assert found is not None
    return f"engine_session={found[1]}"


async def begin(client: Client) -> str:
    got = await client.ask("POST", "/session", body={"token": TOKEN}, token=None)
    assert got.status == 200
    return cookie_of(got)


async def test_a_session_stands_for_its_token(server: HttpServer, client: Client) -> None:
    got = await client.ask("POST", "/session", body={"token": TOKEN}, token=None)
    assert got.json == {"name": "admin", "role": "admin", "tags": []}
    assert got.headers["Set-Cookie"].endswith("; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict")
    cookie = {"Cookie": f"other=1; {cookie_of(got)}"}
    assert (await client.ask("GET", "/api/v1/status", headers=cookie, token=None)).status == 200
    own = {**cookie, "Sec-Fetch-Site": "same-origin", "Origin": server.url}
    assert (await client.ask("POST", "/api/v1/triggers/nightly/fire", headers=own, token=None)).status == 202
    who = await client.ask("GET", "/session", headers=cookie, token=None)
    assert who.json == {"name": "admin", "role": "admin", "tags": [], "means": "session"}


async def test_a_form_begins_a_session_and_goes_on_to_a_page_of_this_site(server: HttpServer, client: Client) -> None:
    for following, location in ((None, "/"), ("/runs?state=failed", "/runs?state=failed")):
        content = urlencode({"token": TOKEN, **({"next": following} if following else {})}).encode()
        from_us = {"Origin": server.url} if following else {"Origin": "null", "Sec-Fetch-Site": "same-origin"}
        headers = {**FORM, **from_us}
        got = await client.ask("POST", "/session", body=content, headers=headers, token=None)
        assert (got.status, got.headers.get("Location"), got.json) == (303, location, None)
        assert (await client.ask("GET", "/session", headers={"Cookie": cookie_of(got)}, token=None)).status == 200


@pytest.mark.parametrize(
    "following", ["https://evil.example", "//evil.example", "/\\evil.example", "runs", "/a\r\nSet-Cookie: x=1", "/é"]
)
async def test_a_form_goes_on_to_no_other_site(client: Client, following: str) -> None:
    content = urlencode({"token": TOKEN, "next": following}).encode()
    got = await client.ask("POST", "/session", body=content, headers=FORM, token=None)
    assert (got.status, got.json["errors"][0]["pointer"]) == (422, "#/next")
    assert "Set-Cookie" not in got.headers


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"},
    ],
)
async def test_no_other_site_changes_anything_with_the_cookie(client: Client, headers: dict[str, str]) -> None:
    sent = {"Cookie": await begin(client), **headers}
    got = await client.ask("POST", "/api/v1/triggers/nightly/fire", headers=sent, token=None)
    assert (got.status, got.json["code"]) == (403, "wrong_origin")


async def test_another_site_reads_nothing_and_begins_no_session(client: Client) -> None:
    sent = {"Cookie": await begin(client), "Sec-Fetch-Site": "cross-site"}
    assert (await client.ask("GET", "/api/v1/status", headers=sent, token=None)).status == 403
    content = urlencode({"token": TOKEN}).encode()
    for headers in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}):
        got = await client.ask("POST", "/session", body=content, headers={**FORM, **headers}, token=None)
        assert got.status == 403
        assert "Set-Cookie" not in got.headers


async def test_a_session_ends_when_it_is_asked_to(server: HttpServer, client: Client) -> None:
    for method, path, status in (("DELETE", "/session", 204), ("POST", "/session/end", 303)):
        cookie = {"Cookie": await begin(client), "Origin": server.url}
        got = await client.ask(method, path, headers=cookie, token=None)
        assert (got.status, "engine_session=; Path=/; Max-Age=0" in got.headers["Set-Cookie"]) == (status, True)
        assert (await client.ask("GET", "/api/v1/status", headers=cookie, token=None)).status == 401


async def test_a_wrong_token_begins_none_and_counts_as_a_guess(client: Client) -> None:
    statuses = [
        (await client.ask("POST", "/session", body={"token": f"wrong-{n}"}, token=None)).status for n in range(12)
    ]
    assert statuses == [401] * 10 + [429] * 2


async def test_a_session_ends_with_the_secret_of_its_token(tmp_path: Path) -> None:
    from engine.http.tokens import rotate_admin_token, token_path

    admin = AdminToken.open(tmp_path, {})
    server = HttpServer(FakeOperations(tmp_path), admin)
    await server.start()
    try:
        async with asking(server) as client:
            secret = token_path(tmp_path).read_text().strip()
            got = await client.ask("POST", "/session", body={"token": secret}, token=None)
            cookie = {"Cookie": cookie_of(got)}
            assert (await client.ask("GET", "/api/v1/status", headers=cookie, token=None)).status == 200
            rotate_admin_token(tmp_path)
            assert (await client.ask("GET", "/api/v1/status", headers=cookie, token=None)).status == 401
    finally:
        await server.stop(0.5)


async def test_over_tls_the_cookie_is_for_tls_alone(client: Client) -> None:
    headers = {"Host": "localhost", "Origin": "https://localhost"}
    got = await client.ask("POST", "/session", body={"token": TOKEN}, headers=headers, token=None)
    assert got.headers["Set-Cookie"].endswith("; SameSite=Strict; Secure")


@pytest.mark.parametrize(
    "cookie", ["engine_session=", "engine_session=x", "engine_session", 'engine_session="\\"', "é"]
)
async def test_odd_cookies_are_nobodys(client: Client, cookie: str) -> None:
    assert (await client.ask("GET", "/api/v1/status", headers={"Cookie": cookie}, token=None)).status == 401


def test_sessions_end_with_time_and_when_nobody_uses_them(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    known = Sessions(lambda: now_s)
    idle, busy = known.begin(b"a"), known.begin(b"b")
    while now_s < LONGEST_S:
        assert known.find(busy) == b"b"
        now_s += LONGEST_IDLE_S / 2
    assert known.find(idle) is None
    now_s += 1
    assert known.find(busy) is None
    monkeypatch.setattr(sessions, "MOST", 2)
    first, second = known.begin(b"a"), known.begin(b"b")
    assert known.find(first) == b"a"
    known.begin(b"c")
    assert known.find(second) is None
    assert known.find(first) == b"a"
