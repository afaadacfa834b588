"""Who is let in: tokens, roles, and the browsers of others."""

from __future__ import annotations

import logging
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.errors import EngineError
from engine.http.access import is_loopback
from engine.http.routes import ROUTES, Route
from engine.http.server import HttpServer
from engine.http.session_routes import get_session
from engine.http.tokens import AdminToken, read_admin_token, rotate_admin_token, token_path
from engine.ids import new_id
from tests.fake_operations import TOKEN, FakeOperations, serving
from tests.http_client import Client, raw

PUBLIC = frozenset({
    "/live", "/ready", "/health", "/livez", "/readyz", "/healthz", "/session", "/session/end",
    "/openapi.json", "/docs", "/docs/reference.js", "/docs/reference.css"
})  # fmt: skip
"""What needs no role; a route that is to be one of them is put here by hand."""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[HttpServer]:
    async with serving(FakeOperations(tmp_path)) as started:
        yield started


def path_of(pattern: str) -> str:
    return pattern.replace("{name}", "nightly").replace("{id}", new_id())


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.pattern}")
async def test_every_route_asks_for_a_token_or_is_public(client: Client, route: Route) -> None:
    got = await client.ask(route.method, path_of(route.pattern), token=None)
    assert (got.status == 401) == (route.role is not None or route.handler is get_session)
    assert (route.role is None) == (route.pattern in PUBLIC)
    if got.status == 401:
        assert got.headers["WWW-Authenticate"].startswith("Bearer")


async def test_what_is_no_route_below_api_asks_for_a_token_too(client: Client) -> None:
    assert (await client.ask("GET", "/api/v1/nothing", token=None)).status == 401
    assert (await client.ask("GET", "/api/v1/nothing")).status == 404


async def test_both_headers_carry_the_token(client: Client) -> None:
    for headers in (
        {"Authorization": f"Bearer {TOKEN}"},
        {"Authorization": f"bearer  {TOKEN}"},
        {"X-API-Key": TOKEN},
        {"Authorization": "Basic eDp5", "X-API-Key": TOKEN},
    ):
        assert (await client.ask("GET", "/api/v1/status", headers=headers, token=None)).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": "Bearer é"},
        {"Authorization": "Bearer wrong", "X-API-Key": TOKEN},
        {"X-API-Key": ""},
        {"X-API-Key": TOKEN.upper()},
        {"X-API-Key": "x" * 8000},
    ],
)
async def test_odd_credentials_are_401(client: Client, headers: dict[str, str]) -> None:
    got = await client.ask("GET", "/api/v1/status", headers=headers, token=None)
    assert (got.status, got.json["code"]) == (401, "unauthorized")
    assert TOKEN.encode() not in got.body


async def test_a_token_that_is_not_utf_8_is_401(server: HttpServer) -> None:
    sent = b"GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nX-API-Key: \xff\xfe\r\nConnection: close\r\n\r\n"
    assert (await raw(server, sent)).startswith(b"HTTP/1.1 401 ")


async def test_tokens_are_not_logged(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await client.ask("GET", "/api/v1/status")
    await client.ask("GET", "/api/v1/status", token="canary-canary-canary")
    assert TOKEN not in caplog.text
    assert "canary" not in caplog.text


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "10.0.0.1"])
async def test_another_name_for_this_machine_is_refused_by_the_api(client: Client, host: str) -> None:
    got = await client.ask("GET", "/api/v1/status", headers={"Host": host})
    assert (got.status, got.json["code"]) == (403, "wrong_host")
    assert (await client.ask("POST", "/hooks/x", headers={"Host": host})).status == 404


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:80", "127.9.9.9", "[::1]:8080"])
async def test_loopback_names_are_taken(client: Client, host: str) -> None:
    assert (await client.ask("GET", "/api/v1/status", headers={"Host": host})).status == 200


@pytest.mark.parametrize("host", ["", "a@localhost", "localhost:port", "localhost/x"])
async def test_a_host_that_is_none_is_400(server: HttpServer, host: str) -> None:
    sent = f"GET /api/v1/status HTTP/1.1\r\nHost: {host}\r\nX-API-Key: {TOKEN}\r\nConnection: close\r\n\r\n"
    assert (await raw(server, sent.encode())).startswith(b"HTTP/1.1 400 ")


async def test_a_request_without_a_host_is_400(server: HttpServer) -> None:
    sent = f"GET /api/v1/status HTTP/1.1\r\nX-API-Key: {TOKEN}\r\nConnection: close\r\n\r\n"
    assert (await raw(server, sent.encode())).startswith(b"HTTP/1.1 400 ")


async def test_web_pages_of_other_sites_may_not_use_the_api(server: HttpServer, client: Client) -> None:
    for origin in ("https://evil.example", "null", "file://", "http://127.0.0.1:1"):
        for method in ("GET", "POST", "OPTIONS"):
            got = await client.ask(method, "/api/v1/events", headers={"Origin": origin})
            assert (got.status, got.json["code"]) == (403, "wrong_origin"), (method, origin)
            assert "Access-Control-Allow-Origin" not in got.headers
    same = await client.ask("GET", "/api/v1/status", headers={"Origin": server.url})
    assert same.status == 200


def test_loopback_is_told_from_other_addresses() -> None:
    assert all(map(is_loopback, ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost", "a.localhost"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "localhost.evil.example", "128.0.0.1", "127.1", ""]))


def test_the_first_start_makes_a_private_token_and_the_next_one_keeps_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    AdminToken.open(data, {})
    path = token_path(data)
    token = path.read_text().strip()
    assert len(token) == 43
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = AdminToken.open(data, {})
    assert again.matches(token.encode())
    assert not again.matches(token.encode() + b"\n")
    assert [file.name for file in data.iterdir()] == ["admin.token"]


def test_a_token_that_others_can_read_is_tightened_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = token_path(tmp_path)
    path.write_text(TOKEN)
    path.chmod(0o644)
    AdminToken.open(tmp_path, {})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "could be read by others" in caplog.text
    assert TOKEN not in caplog.text


def test_the_environment_gives_the_token_and_no_file_is_made(tmp_path: Path) -> None:
    admin = AdminToken.open(tmp_path, {"ENGINE_ADMIN_TOKEN": TOKEN})
    assert admin.matches(TOKEN.encode())
    assert admin.origin == "the environment variable ENGINE_ADMIN_TOKEN"
    assert list(tmp_path.iterdir()) == []


def test_an_empty_token_never_opens_the_door(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="ENGINE_ADMIN_TOKEN is set but empty"):
        AdminToken.open(tmp_path, {"ENGINE_ADMIN_TOKEN": " "})
    token_path(tmp_path).write_text("\n")
    with pytest.raises(EngineError, match="is empty: remove it"):
        AdminToken.open(tmp_path, {})


def test_a_token_file_that_is_a_link_or_no_text_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"\xff\xfe")
    token_path(tmp_path).symlink_to(other)
    with pytest.raises(EngineError, match=r"admin\.token can't be read"):
        AdminToken.open(tmp_path, {})
    token_path(tmp_path).unlink()
    other.rename(token_path(tmp_path))
    with pytest.raises(EngineError, match="holds no token"):
        AdminToken.open(tmp_path, {})


def test_without_a_token_the_error_says_who_makes_one(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="the engine makes one when it starts"):
        read_admin_token(tmp_path, {})


def test_after_a_rotation_the_new_token_counts_and_the_old_one_does_not(tmp_path: Path) -> None:
    admin = AdminToken.open(tmp_path, {})
    old = token_path(tmp_path).read_bytes().strip()
    assert admin.matches(old)
    new = rotate_admin_token(tmp_path).read_bytes().strip()
    assert admin.matches(new)
    assert not admin.matches(old)
    assert stat.S_IMODE(token_path(tmp_path).stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["admin.token"]


def test_a_token_file_that_vanishes_leaves_the_last_token_in_force(tmp_path: Path) -> None:
    admin = AdminToken.open(tmp_path, {})
    token = token_path(tmp_path).read_bytes().strip()
    assert admin.matches(token)
    token_path(tmp_path).unlink()
    assert admin.matches(token)
