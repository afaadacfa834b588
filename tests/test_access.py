"""Tokens, scopes and the audit log, at a whole engine with its store."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import aiohttp
import anyio
import pytest
from msgspec import Struct
from msgspec.structs import replace

from engine.auditing import COUNTED_FOR_S, AuditLog
from engine.audits import Audit, AuditFilter, AuditOutcome
from engine.clock import from_microseconds
from engine.config import load
from engine.http import keyring
from engine.http.routes import ROUTES, Route
from engine.runtime import Runtime
from engine.store.base import EventFilter
from engine.store.changes import Accept
from engine.testing import VirtualClock
from engine.tokens import Role
from tests.test_runtime import Gate, a_registry, configured, operations, running

ADMIN = "t" * 43
V1 = "/api/v1"

CONFIG = """
[jobs.bake]
tags = ["bread"]
run.gate = "held"

[jobs.clean]
run.gate = "held"

[triggers.oven]
on.event = { type = "oven.*" }
job = "bake"

[triggers.mill]
tags = ["grain"]
on.event = { type = "*" }
job = "clean"

[triggers.floor]
on.event = { type = "floor.*" }
job = "clean"
"""


@pytest.fixture(autouse=True)
def _fresh() -> None:
    Gate.begun.clear()
    Gate.open.clear()


class Got(Struct):
    status: int
    json: Any
    headers: Any


class Asker:
    """Asks an engine, with one token or another."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self.url = url

    async def ask(
        self, method: str, path: str, body: Any = None, *, token: str | None = ADMIN,
        headers: Mapping[str, str] | None = None,
    ) -> Got:  # fmt: skip
        sent = {**({} if token is None else {"Authorization": f"Bearer {token}"}), **(headers or {})}
        url = self.url + (path if path.startswith(("/session", "/hooks", "/api")) else V1 + path)
        async with self._session.request(method, url, json=body, headers=sent) as answer:
            text = await answer.text()
            told = json.loads(text) if text and "json" in answer.headers.get("Content-Type", "") else text
            return Got(answer.status, told, answer.headers)

    async def make(self, name: str, role: str, **more: Any) -> str:
        got = await self.ask("POST", "/tokens", {"name": name, "role": role, **more})
        assert got.status == 201, got.json
        token: str = got.json["token"]
        return token

    async def refused(self, count: int) -> list[dict[str, Any]]:
        """Wait until so many refusals are written; nobody waits for them but who looks."""
        while len(rows := await self.audit(outcome="refused")) < count:  # noqa: ASYNC110 - nothing is set then
            await anyio.sleep(0.005)
        return rows

    async def audit(self, **query: str) -> list[dict[str, Any]]:
        got = await self.ask("GET", "/audit?" + "&".join(f"{name}={value}" for name, value in query.items()))
        items: list[dict[str, Any]] = got.json["items"]
        return items


@asynccontextmanager
async def engine(path: Path, more: str = "") -> AsyncIterator[tuple[Runtime, Asker]]:
    config = configured(path, more + CONFIG)
    async with aiohttp.ClientSession() as session, running(config, listen=True) as started:
        assert started.server is not None
        try:
            yield started, Asker(session, started.server.url)
        finally:
            Gate.open.add("held")


# Tokens


async def test_a_token_opens_what_its_role_may_until_it_is_revoked(tmp_path: Path) -> None:
    async with engine(tmp_path) as (_, asker):
        viewer, operator = await asker.make("reader", "viewer"), await asker.make("worker", "operator")
        for token, fired, listed in ((viewer, 403, 403), (operator, 202, 403), (ADMIN, 202, 200)):
            assert (await asker.ask("GET", "/status", token=token)).status == 200
            assert (await asker.ask("POST", "/triggers/oven/fire", {}, token=token)).status == fired
            assert (await asker.ask("GET", "/tokens", token=token)).status == listed
        assert (await asker.ask("DELETE", "/tokens/worker")).status == 204
        assert (await asker.ask("GET", "/status", token=operator)).status == 401
        assert (await asker.ask("GET", "/status", token=viewer)).status == 200
        assert (await asker.ask("DELETE", "/tokens/worker")).status == 404


async def test_tokens_outlive_the_engine_and_only_digests_are_stored(tmp_path: Path) -> None:
    async with engine(tmp_path) as (started, asker):
        token = await asker.make("reader", "viewer", tags=["bread"], description="for the screen")
        path = started.config.store.path
        data = started.config.engine.data
    assert all(token.encode() not in file.read_bytes() for file in data.rglob("*") if file.is_file())
    async with engine(tmp_path) as (_, asker):
        assert (await asker.ask("GET", "/triggers", token=token)).status == 200
        [own, one] = (await asker.ask("GET", "/tokens")).json["items"]
        assert (own["name"], own["role"], own["prefix"]) == ("admin", "admin", None)
        assert one["used_at"] is not None
        assert one == {
            **one, "name": "reader", "role": "viewer", "tags": ["bread"], "description": "for the screen",
            "prefix": token[:8], "created_by": "admin token", "expires_at": None, "former": None,
        }  # fmt: skip
        assert not {"token", "digest"} & set(one)
    raw = sqlite3.connect(path)
    [(used_at, used_from)] = raw.execute("select used_at, used_from from tokens").fetchall()
    raw.close()
    assert (used_at > 0, used_from) == (True, "127.0.0.1")


async def test_a_rotated_token_has_two_secrets_for_a_while_and_never_three(tmp_path: Path) -> None:
    async with engine(tmp_path) as (_, asker):
        first = await asker.make("worker", "operator")
        got = await asker.ask("POST", "/tokens/worker/rotate", {"overlap": "1h"})
        second = got.json["token"]
        assert (got.status, got.json["former"]["prefix"], first == second) == (200, first[:8], False)
        assert [(await asker.ask("GET", "/status", token=one)).status for one in (first, second)] == [200, 200]
        third = (await asker.ask("POST", "/tokens/worker/rotate", {})).json["token"]
        statuses = [(await asker.ask("GET", "/status", token=one)).status for one in (first, second, third)]
        assert statuses == [401, 200, 200]
        fourth = (await asker.ask("POST", "/tokens/worker/rotate", {"overlap": "0s"})).json["token"]
        statuses = [(await asker.ask("GET", "/status", token=one)).status for one in (second, third, fourth)]
        assert statuses == [401, 401, 200]


async def test_a_token_and_a_former_secret_end_with_their_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    async with engine(tmp_path) as (started, asker):
        short, long = await asker.make("short", "viewer", expires_in="1h"), await asker.make("long", "viewer")
        await asker.ask("POST", "/tokens/long/rotate", {"overlap": "1h"})
        tokens = operations(started).tokens
        later = started.clock.now().timestamp() + 3601
        monkeypatch.setattr(tokens, "_now", lambda: from_microseconds(int(later * 1e6)))
        got = await asker.ask("GET", "/status", token=short)
        assert (got.status, got.json["code"]) == (401, "token_expired")
        got = await asker.ask("GET", "/status", token=long)
        assert (got.status, got.json["code"]) == (401, "unauthorized")
        [_, long_view, short_view] = (await asker.ask("GET", "/tokens")).json["items"]
        assert (long_view["former"], short_view["expired"]) == (None, True)
        assert (await asker.ask("POST", "/tokens/short/rotate", {})).status == 409


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"role": "viewer"}, "#/name"),
        ({"name": "a b", "role": "viewer"}, "#/name"),
        ({"name": "x", "role": "root"}, "#/role"),
        ({"name": "x"}, "#/role"),
        ({"name": "x", "role": "viewer", "tags": []}, "#/tags"),
        ({"name": "x", "role": "viewer", "tags": [""]}, "#/tags"),
        ({"name": "x", "role": "viewer", "tags": "bread"}, "#/tags"),
        ({"name": "x", "role": "viewer", "tags": [f"t{n}" for n in range(33)]}, "#/tags"),
        ({"name": "x", "role": "viewer", "expires_in": "soon"}, "#/expires_in"),
        ({"name": "x", "role": "viewer", "expires_in": "1h", "expires_at": "2030-01-01T00:00:00Z"}, "#/expires_at"),
        ({"name": "x", "role": "viewer", "secret": "mine"}, "#/secret"),
    ],
)
async def test_a_token_that_can_not_be_is_told_what_is_wrong(tmp_path: Path, body: Any, pointer: str) -> None:
    async with engine(tmp_path) as (_, asker):
        got = await asker.ask("POST", "/tokens", body)
        assert (got.status, got.json["errors"][0]["pointer"]) == (422, pointer)


async def test_names_of_tokens_are_theirs_alone_and_there_are_not_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with engine(tmp_path) as (_, asker):
        await asker.make("one", "viewer")
        assert (await asker.ask("POST", "/tokens", {"name": "one", "role": "admin"})).status == 409
        for name, role in (("admin", "viewer"), ("admin", "admin")):
            assert (await asker.ask("POST", "/tokens", {"name": name, "role": role})).status == 422
        past = {"name": "past", "role": "viewer", "expires_at": "2020-01-01T00:00:00Z"}
        assert (await asker.ask("POST", "/tokens", past)).status == 422
        assert (await asker.ask("DELETE", "/tokens/admin")).status == 409
        assert (await asker.ask("POST", "/tokens/admin/rotate", {})).status == 409
        monkeypatch.setattr(keyring, "MOST_TOKENS", 1)
        assert (await asker.ask("POST", "/tokens", {"name": "two", "role": "viewer"})).status == 409


async def test_a_token_that_is_revoked_ends_its_sessions(tmp_path: Path) -> None:
    async with engine(tmp_path) as (_, asker):
        token = await asker.make("reader", "viewer", tags=["bread"])
        got = await asker.ask("POST", "/session", {"token": token}, token=None)
        assert got.json == {"name": "reader", "role": "viewer", "tags": ["bread"]}
        cookie = {"Cookie": got.headers["Set-Cookie"].partition(";")[0]}
        assert (await asker.ask("GET", "/triggers", token=None, headers=cookie)).status == 200
        assert (await asker.ask("GET", "/status", token=None, headers=cookie)).status == 403
        await asker.ask("DELETE", "/tokens/reader")
        assert (await asker.ask("GET", "/triggers", token=None, headers=cookie)).status == 401


# Scopes


async def test_a_scoped_token_sees_what_has_its_tags_and_nothing_else(tmp_path: Path) -> None:
    async with engine(tmp_path) as (started, asker):
        bread = await asker.make("baker", "operator", tags=["bread"])
        for kind in ("oven.hot", "floor.dirty"):
            await asker.ask("POST", "/events", {"type": kind, "source": "test", "data": {}})
        events = await operations(started).store.events(EventFilter(), limit=9)
        hot = next(stored for stored in events if stored.event.type == "oven.hot")
        dirty = next(stored for stored in events if stored.event.type == "floor.dirty")

        async def seen(path: str) -> Any:
            return (await asker.ask("GET", path, token=bread)).json

        assert [one["name"] for one in (await seen("/triggers"))["items"]] == ["oven"]
        assert [one["name"] for one in (await seen("/jobs"))["items"]] == ["bake"]
        assert [one["trigger"] for one in (await seen("/runs"))["items"]] == ["oven"]
        assert (await seen("/runs?job=clean"))["items"] == []
        assert [one["id"] for one in (await seen("/events?trigger=oven"))["items"]] == [hot.event.id]
        assert [one["trigger"] for one in (await seen(f"/events/{hot.event.id}"))["outcomes"]] == ["oven"]
        runs = {one.trigger: one.run for one in (*hot.outcomes, *dirty.outcomes)}
        for path, status in (
            ("/triggers/oven", 200), ("/triggers/oven/runs", 200), ("/triggers/oven/stats", 200),
            ("/triggers/oven/health", 200), ("/triggers/oven/adherence", 200), ("/triggers/floor/health", 404),
            ("/triggers/floor/adherence", 404), ("/health", 403), ("/adherence", 200),
            ("/triggers/oven/why", 200), ("/jobs/bake", 200), ("/jobs/bake/stats", 200),
            (f"/runs/{runs['oven']}", 200), (f"/runs/{runs['oven']}/log", 200),
            ("/triggers/mill", 404), ("/triggers/floor/runs", 404), ("/triggers/floor/stats", 404),
            ("/triggers/floor/why", 404), ("/triggers/floor/next", 404), ("/jobs/clean", 404),
            ("/jobs/clean/stats", 404),
            (f"/runs/{runs['mill']}", 404), (f"/runs/{runs['floor']}/log", 404), (f"/events/{dirty.event.id}", 404),
            ("/events?trigger=floor", 404), ("/runs?trigger=floor", 200), ("/events", 403),
        ):  # fmt: skip
            got = await asker.ask("GET", path, token=bread)
            assert got.status == status, (path, got.json)
        assert (await seen("/runs?trigger=floor"))["items"] == []
        # No hint at names that it may not see.
        assert "floor" not in json.dumps(await seen("/triggers/floo"))


async def test_a_scoped_token_touches_what_has_its_tags_and_nothing_else(tmp_path: Path) -> None:
    async with engine(tmp_path) as (started, asker):
        token = await asker.make("miller", "operator", tags=["grain", "none"])
        await asker.ask("POST", "/events", {"type": "floor.dirty", "source": "test", "data": {}})
        [stored] = await operations(started).store.events(EventFilter(), limit=9)
        runs = {one.trigger: one.run for one in stored.outcomes}
        for method, path, body, status in (
            ("POST", "/triggers/mill/fire", {}, 202), ("POST", "/triggers/floor/fire", {}, 404),
            ("POST", "/triggers/mill/pause", {}, 200), ("POST", "/triggers/floor/pause", {}, 404),
            ("POST", "/triggers/mill/resume", {}, 200), ("POST", "/triggers/mill/reset", {}, 200),
            ("POST", "/triggers/mill/release", {}, 200), ("POST", "/triggers/floor/release", {}, 404),
            ("POST", "/pause", {"tag": "grain"}, 200), ("POST", "/resume", {"tag": "grain"}, 200),
            ("POST", "/pause", {"tag": "bread"}, 403), ("POST", "/pause", {}, 403), ("POST", "/resume", {}, 403),
            ("POST", f"/runs/{runs['floor']}/cancel", {}, 404), ("POST", f"/runs/{runs['floor']}/retry", {}, 404),
            ("PATCH", f"/runs/{runs['floor']}", {"priority": 9}, 404),
            ("POST", f"/runs/{runs['mill']}/cancel", {}, 202),
            ("POST", f"/events/{stored.event.id}/replay", {"trigger": "floor"}, 404),
            ("POST", f"/events/{stored.event.id}/replay", {"trigger": "mill"}, 202),
            ("POST", "/events", {"type": "x", "source": "y"}, 403),
            ("POST", "/queue/flush", {"all": True, "reason": "x"}, 403),
            ("POST", "/queue/flush", {"job": "clean", "reason": "x"}, 404),
            ("POST", "/queue/flush", {"tag": "grain", "reason": "x"}, 200),
            ("POST", "/queue/flush", {"tag": "bread", "reason": "x"}, 403),
            ("POST", "/runs/retry", {"reason": "x"}, 403),
            ("POST", "/maintenance", {"name": "w", "from": "2030-01-01T00:00:00Z", "to": "2030-01-02T00:00:00Z"}, 403),
        ):  # fmt: skip
            got = await asker.ask(method, path, body, token=token)
            assert got.status == status, (method, path, body, got.json)


@pytest.mark.parametrize("role", ["viewer", "operator", "admin"])
async def test_a_scoped_token_gets_nothing_of_any_route_that_is_not_within_its_tags(tmp_path: Path, role: str) -> None:
    async with engine(tmp_path) as (started, asker):
        token = await asker.make("nobody", role, tags=["no such tag"])
        await asker.ask("POST", "/events", {"type": "floor.dirty", "source": "test", "data": {}})
        [stored] = await operations(started).store.events(EventFilter(), limit=9)
        for route in ROUTES:
            if route.pattern == f"{V1}/stream":
                continue  # it goes on, and tells nothing: see the next test
            one = stored.event.id if "/events/" in route.pattern else str(stored.outcomes[0].run)
            name = {"/jobs/": "clean", "/pools/": "engine", "/tokens/": "nobody"}
            known = next((found for part, found in name.items() if part in route.pattern), "floor")
            path = route.pattern.replace("{id}", one).replace("{name}", known).replace("{name*}", known)
            got = await asker.ask(route.method, path, None, token=token)
            if route.role is None or (got.status, got.json) == (200, {"items": [], "next": None}):
                continue
            assert got.status in (403, 404, 415, 422), (route, got.status, got.json)
        done = {row["action"] for row in await asker.audit(who="nobody", outcome="done")}
        assert done <= {"DELETE /session", "POST /session/end"}


async def test_a_scoped_token_hears_of_what_has_its_tags_alone(tmp_path: Path) -> None:
    async with engine(tmp_path) as (started, asker):
        assert started.server is not None
        token = await asker.make("miller", "viewer", tags=["grain"])
        url, headers = f"{started.server.url}{V1}/stream", {"Authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
            assert (await answer.content.readuntil(b"\n\n")).startswith(b"retry")
            await asker.ask("POST", "/triggers/floor/pause", {})
            await asker.ask("POST", "/events", {"type": "floor.dirty", "source": "test"})
            heard: list[dict[str, Any]] = []
            while len(heard) < 2:
                block = (await answer.content.readuntil(b"\n\n")).decode()
                heard += [json.loads(line[6:]) for line in block.splitlines() if line.startswith("data: ")]
        assert [one["trigger"] for one in heard[0]["outcomes"]] == ["mill"]
        assert heard[1]["trigger"] == "mill"


# Roles


WRONG = {None: 401, "wrong": 401}


async def test_every_route_refuses_every_role_below_its_own(tmp_path: Path) -> None:
    async with engine(tmp_path) as (_, asker):
        tokens = {Role.VIEWER: await asker.make("v", "viewer"), Role.OPERATOR: await asker.make("o", "operator")}
        for route in ROUTES:
            path = route.pattern.replace("{id}", "0" * 8 + "-0000-7000-8000-" + "0" * 12)
            path = path.replace("{name}", "nobody").replace("{name*}", "nobody")
            for role, token in tokens.items():
                if route.role is None or role >= route.role:
                    continue
                got = await asker.ask(route.method, path, None, token=token)
                assert (got.status, got.json["code"]) == (403, "role_needed"), route
            if route.role is not None:
                assert (await asker.ask(route.method, path, None, token=None)).status == 401


def test_every_route_says_which_role_it_takes() -> None:
    changing = [route for route in ROUTES if route.method != "GET" and route.pattern.startswith(V1)]
    assert changing
    assert all(isinstance(route, Route) and route.role is not None for route in changing)
    assert all(route.role is Role.ADMIN for route in ROUTES if "/tokens" in route.pattern or "/audit" in route.pattern)
    # A viewer changes nothing.
    assert all(route.role is not Role.VIEWER for route in changing)


# The audit log


async def test_a_change_is_in_the_audit_log_with_who_and_why(tmp_path: Path) -> None:
    async with engine(tmp_path) as (_, asker):
        token = await asker.make("worker", "operator")
        headers = {"X-Performed-By": "Ada", "X-Request-ID": "r-1", "X-Created-By": "bad\u202e"}
        await asker.ask("POST", "/triggers/oven/pause", {"reason": "too hot"}, token=token, headers=headers)
        [row] = await asker.audit(who="worker")
        assert row.pop("at").endswith("Z")
        assert len(row.pop("hash")) == 64
        assert row == {
            "seq": 2, "who": "worker", "role": "operator", "means": "token", "prefix": token[:8],
            "claims": {"performed_by": "Ada"}, "address": "127.0.0.1",
            "action": "POST /api/v1/triggers/{name}/pause", "target": "oven", "outcome": "done", "status": None,
            "code": None, "reason": "too hot", "count": 1, "before": None, "after": {"reason": "too hot"},
            "request_id": "r-1",
        }  # fmt: skip
        [made] = await asker.audit(action="POST /api/v1/tokens")
        assert (made["who"], made["target"], made["after"]) == (
            "admin",
            "worker",
            {"name": "worker", "role": "operator"},
        )
        assert token not in json.dumps(await asker.audit())


async def test_a_row_is_in_the_same_commit_as_its_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with engine(tmp_path) as (started, asker):
        store: Any = operations(started).store
        apply, seen = store.apply, []

        async def watched(changes: Any, notes: Any = None) -> Any:
            seen.append((changes, notes))
            return await apply(changes, notes)

        monkeypatch.setattr(store, "apply", watched)
        await asker.ask("POST", "/triggers/oven/pause", {})
        await asker.ask("POST", "/triggers/oven/fire", {})
        carried = [changes[place] for changes, notes in seen for place in notes or ()]
        assert len(carried) == 2
        paused, fired = carried
        assert isinstance(paused, Accept)
        assert paused.memory is not None or paused.memories
        assert isinstance(fired, Accept)
        assert fired.entries


async def test_what_is_refused_is_in_the_audit_log_and_what_only_asks_is_not(tmp_path: Path) -> None:
    async with engine(tmp_path) as (_, asker):
        token = await asker.make("reader", "viewer")
        await asker.ask("POST", "/triggers/oven/fire", {}, token=token)
        await asker.ask("GET", "/audit", token=token)
        await asker.ask("GET", "/status", token="x" * 40)
        await asker.ask("POST", "/triggers/nothing/fire", {})
        await asker.ask("POST", "/triggers/oven/fire", {"priority": 99})
        await asker.ask("GET", "/triggers/nothing")
        await asker.ask("POST", "/triggers/oven/test", {"type": "oven.hot", "source": "x"})
        await asker.ask("POST", "/events", {"type": "oven.hot", "source": "x"})
        rows = await asker.refused(5)
        found = {(row["who"], row["action"].partition(" ")[2].removeprefix(V1), row["status"]) for row in rows}
        assert found == {
            ("reader", "/triggers/{name}/fire", 403), ("reader", "/audit", 403), (None, "/status", 401),
            ("admin", "/triggers/{name}/fire", 404), ("admin", "/triggers/{name}/fire", 422),
        }  # fmt: skip
        assert next(row["prefix"] for row in rows if row["who"] is None) == "x" * 8
        assert {row["action"] for row in await asker.audit(outcome="done")} == {"POST /api/v1/tokens"}


async def test_refusals_that_are_alike_are_counted(tmp_path: Path) -> None:
    async with engine(tmp_path) as (started, asker):
        assert (await asker.ask("GET", "/status")).status == 200  # who has a right one is not locked out
        for number in range(30):
            await asker.ask("GET", "/status", token=f"guess-{number}-{'x' * 40}")
        log: Any = operations(started).audit_log
        log._close_minute()
        rows = await asker.refused(4)
        counts = sorted((row["code"], row["count"]) for row in rows)
    assert counts == [
        ("too_many_wrong_tokens", 1), ("too_many_wrong_tokens", 19), ("unauthorized", 1), ("unauthorized", 9),
    ]  # fmt: skip


async def test_nobody_can_write_a_line_into_the_log_or_a_row(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO, "engine.audit")
    odd = "x\r\n\x1b[31m2026-01-01T00:00:00Z error fake\u2028"
    async with engine(tmp_path) as (started, asker):
        await asker.ask("POST", "/triggers/oven/fire", {"reason": odd})
        await asker.ask("POST", "/triggers/oven/fire", {"reason": "x", odd: 1})
        await asker.ask("POST", "/triggers/oven%0d%0a%1b[31m/fire", {})
        await asker.refused(2)
        rows = await operations(started).store.audit(AuditFilter(), limit=9)
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{asker.url}{V1}/audit/export", headers={"Authorization": f"Bearer {ADMIN}"}) as answer,
        ):
            lines = (await answer.text()).splitlines()
    assert not [row for row in rows if not row.text.isascii() and "\x1b" in row.text]
    assert all("\n" not in row.text and "\r" not in row.text and "\x1b" not in row.text for row in rows)
    assert len([json.loads(line) for line in lines if line]) == len(rows)
    from engine.logs import LineFormatter, Masker

    for record in caplog.records:
        told = LineFormatter(Masker()).format(record)
        assert "\n" not in told
        assert "\x1b" not in told


async def test_secrets_and_payloads_are_not_in_the_audit_log(tmp_path: Path) -> None:
    more = '[notify.ops]\nurl = "json://canary-canary.example"\n'
    async with engine(tmp_path, more) as (_, asker):
        token = await asker.make("reader", "viewer")
        body = {"data": {"password": "hunter2", "card": 4711}, "reason": "see json://canary-canary.example"}
        await asker.ask("POST", "/triggers/oven/fire", body)
        await asker.ask("POST", "/session", {"token": token}, headers={"Cookie": "engine_session=x"})
        rows = await asker.audit()
        told = json.dumps(rows)
        assert not [text for text in ("hunter2", "4711", "canary", token, ADMIN) if text in told]
        fired = next(row for row in rows if row["action"].endswith("/fire"))
        assert fired["after"] == {"data": "(not shown)", "reason": "see ***"}
        entered = next(row for row in rows if row["action"] == "POST /session")
        assert (entered["who"], entered["means"]) == ("reader", "session")


async def test_the_audit_log_survives_the_token_and_is_for_admins(tmp_path: Path) -> None:
    async with engine(tmp_path) as (_, asker):
        token = await asker.make("worker", "operator")
        await asker.ask("POST", "/triggers/oven/pause", {}, token=token)
        await asker.ask("DELETE", "/tokens/worker")
        assert [row["action"].partition(" ")[2] for row in await asker.audit(who="worker")] == [
            f"{V1}/triggers/{{name}}/pause"
        ]
        [gone] = await asker.audit(action="DELETE%20/api/v1/tokens/{name}")
        assert (gone["before"]["name"], gone["before"]["role"]) == ("worker", "operator")
        chain = (await asker.ask("GET", "/audit/chain")).json
        assert (chain["ok"], chain["rows"]) == (True, 3)
        doctor = (await asker.ask("GET", "/doctor")).json
        assert next(check for check in doctor["checks"] if check["name"] == "audit")["ok"] is True


async def test_the_audit_log_is_read_page_by_page(tmp_path: Path) -> None:
    async with engine(tmp_path) as (_, asker):
        for _ in range(3):
            await asker.ask("POST", "/triggers/oven/pause", {})
        first = (await asker.ask("GET", "/audit?limit=2")).json
        second = (await asker.ask("GET", f"/audit?limit=2&cursor={first['next']}")).json
        assert [row["seq"] for row in (*first["items"], *second["items"])] == [3, 2, 1]
        assert second["next"] is None
        for query in ("cursor=0", "cursor=x", "cursor=99999999999999999999", "outcome=gone", "from=now", "x=1"):
            assert (await asker.ask("GET", f"/audit?{query}")).status == 422


async def test_a_change_that_the_store_refuses_leaves_a_word_in_the_engines_own_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from engine.errors import StoreUnavailable

    async with engine(tmp_path) as (started, asker):
        store: Any = operations(started).store

        async def full(changes: Any, notes: Any = None) -> Any:
            raise StoreUnavailable("the disk is full")

        with monkeypatch.context() as patched:
            patched.setattr(store, "apply", full)
            got = await asker.ask("POST", "/triggers/oven/pause", {"reason": "why"})
            assert got.status == 503
        assert operations(started).audit_log.lost == 1
    assert [record.__dict__["reason"] for record in caplog.records if record.__dict__.get("action") == "audit_lost"]


async def test_rows_that_a_store_that_is_away_loses_are_told_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    from engine.errors import StoreUnavailable

    def refuse(change: Any, audit: Any) -> Any:
        future = asyncio.get_running_loop().create_future()
        future.set_exception(StoreUnavailable("the disk is full"))
        return future

    def told() -> list[tuple[str, int]]:
        lost = [record for record in caplog.records if record.__dict__.get("action") == "audit_lost"]
        return [(record.__dict__["target"], record.__dict__.get("count", 1)) for record in lost]

    clock = VirtualClock()
    log = AuditLog(clock, cast(Any, None), refuse)
    failed = Audit(at=1, action="POST /x", outcome=AuditOutcome.FAILED, who="ann", target="oven", code="store_full")
    async with anyio.create_task_group() as group:
        group.start_soon(log.run)
        for _ in range(30):
            await log.write(failed)
        await log.write(replace(failed, target="stove"))
        for _ in range(2):  # what was done is told of each, whatever is counted
            await log.write(replace(failed, outcome=AuditOutcome.DONE, target="level"))
        assert told() == [("oven", 1), ("stove", 1), ("level", 1), ("level", 1)]
        await clock.advance(COUNTED_FOR_S)
        assert told()[4:] == [("oven", 29)]
        assert "the last of 29 that are alike: the disk is full" in caplog.records[-1].getMessage()
        for _ in range(3):
            await log.write(failed)
        group.cancel_scope.cancel()
    log.refuse(replace(failed, outcome=AuditOutcome.REFUSED))  # its row is lost at the end, and no less told
    await log.end()
    assert told()[5:] == [("oven", 1), ("oven", 2), ("oven", 1)]
    assert log.lost == 37


# Who a proxy says is asking

PROXY = (
    'http.trusted_header = { name = "X-Remote-User", networks = ["%s"], roles = { ada = "admin", "*" = "viewer" } }\n'
)


async def test_a_trusted_proxy_says_who_asks(tmp_path: Path) -> None:
    async with engine(tmp_path, PROXY % "127.0.0.0/8") as (_, asker):
        ada, bob = {"X-Remote-User": "ada"}, {"X-Remote-User": "bob"}
        own = {"Sec-Fetch-Site": "same-origin", "Origin": asker.url}
        assert (await asker.ask("GET", "/tokens", token=None, headers=ada)).status == 200
        assert (await asker.ask("GET", "/tokens", token=None, headers=bob)).status == 403
        assert (await asker.ask("GET", "/status", token=None, headers=bob)).status == 200
        assert (await asker.ask("POST", "/triggers/oven/pause", {}, token=None, headers={**ada, **own})).status == 200
        # A proxy signs in whatever a browser is made to ask.
        got = await asker.ask("POST", "/triggers/oven/pause", {}, token=None, headers=ada)
        assert (got.status, got.json["code"]) == (403, "wrong_origin")
        [row] = await asker.audit(who="ada", outcome="done")
        assert (row["means"], row["role"]) == ("proxy", "admin")
        paused = (await asker.ask("GET", "/triggers/oven")).json["paused"]
        assert paused["who"] == "ada"


async def test_nobody_else_is_believed(tmp_path: Path) -> None:
    async with engine(tmp_path, PROXY % "10.0.0.0/8") as (_, asker):
        headers = {"X-Remote-User": "ada", "X-Forwarded-For": "10.0.0.1"}
        assert (await asker.ask("GET", "/status", token=None, headers=headers)).status == 401


async def test_a_proxy_that_names_two_or_a_stranger_names_nobody(tmp_path: Path) -> None:
    more = (PROXY % "127.0.0.0/8").replace(', "*" = "viewer"', "")
    async with engine(tmp_path, more) as (_, asker):
        got = await asker.ask("GET", "/status", token=None, headers={"X-Remote-User": "bob"})
        assert (got.status, got.json["code"]) == (403, "no_role")
        for user in ("a" * 129, "ad\xe9\u2028"):
            got = await asker.ask("GET", "/status", token=None, headers={"X-Remote-User": user})
            assert got.status in (400, 403)
        async with aiohttp.ClientSession() as session:
            twice = [("X-Remote-User", "bob"), ("X-Remote-User", "ada")]
            async with session.get(f"{asker.url}{V1}/status", headers=twice) as answer:
                assert (await answer.json())["code"] == "unknown_user"
        assert (await asker.ask("GET", "/api/v1/status", headers={"X-Remote-User": "bob"})).status == 200
        assert (await asker.ask("GET", "/session", token=None, headers={"X-Remote-User": "bob"})).status == 401


async def test_names_by_which_it_is_reached_are_taken_and_others_are_not(tmp_path: Path) -> None:
    async with engine(tmp_path, 'http.hosts = ["Engine.example"]\n') as (_, asker):
        for host, status in (("engine.example", 200), ("localhost", 200), ("127.0.0.1", 200), ("evil.example", 403)):
            assert (await asker.ask("GET", "/status", headers={"Host": host})).status == status
        headers = {"Host": "engine.example", "Origin": "https://engine.example"}
        assert (await asker.ask("POST", "/triggers/oven/pause", {}, headers=headers)).status == 200


async def test_how_it_was_before_is_in_the_audit_log(tmp_path: Path) -> None:
    more = "[pools]\nwarehouse = 3\n"
    async with engine(tmp_path, more) as (_, asker):
        await asker.ask("POST", "/triggers/oven/fire", {})
        [run] = (await asker.ask("GET", "/runs?trigger=oven")).json["items"]
        window = {"name": "week", "from": "2031-01-01T00:00:00Z", "to": "2031-01-02T00:00:00Z"}
        for method, path, body in (
            ("POST", "/pause", {"reason": "first"}), ("POST", "/pause", {"reason": "second"}), ("POST", "/resume", {}),
            ("PATCH", "/pools/warehouse", {"limit": 1, "reason": "slow"}),
            ("POST", f"/runs/{run['id']}/cancel", {}),
            ("POST", "/maintenance", window), ("POST", "/maintenance", {**window, "to": "2031-01-03T00:00:00Z"}),
            ("DELETE", "/maintenance/week", None),
        ):  # fmt: skip
            got = await asker.ask(method, path, body)
            assert got.status < 300, (path, got.json)
        rows = list(reversed(await asker.audit(outcome="done")))[1:]
    first, second, resumed, pool, cancelled, made, remade, removed = rows
    assert [row["target"] for row in (first, second, resumed)] == ["engine"] * 3
    assert (first["before"], second["before"]["reason"], resumed["before"]["reason"]) == (None, "first", "second")
    assert pool["before"] == {"limit": 3, "override": None}
    assert cancelled["before"]["state"] in ("queued", "running")
    assert (made["before"], made["target"]) == (None, "week")
    assert remade["before"]["name"] == removed["before"]["name"] == "week"


async def test_another_admin_token_in_the_file_is_in_the_audit_log(tmp_path: Path) -> None:
    from engine.http.tokens import AdminToken, rotate_admin_token, token_path

    AdminToken.open(tmp_path / "data", {})
    config = configured(tmp_path, CONFIG)
    async with aiohttp.ClientSession() as session:
        ready = anyio.Event()
        started = Runtime(config, registry=a_registry(), environment={}, on_ready=lambda _: ready.set())
        async with anyio.create_task_group() as group:
            group.start_soon(started.run)
            await ready.wait()
            assert started.server is not None
            asker = Asker(session, started.server.url)
            first = token_path(config.engine.data).read_text().strip()
            assert (await asker.ask("GET", "/status", token=first)).status == 200
            rotate_admin_token(config.engine.data)
            assert (await asker.ask("GET", "/status", token=first)).status == 401
            log = operations(started).audit_log
            while len(rows := await log.page(AuditFilter(), limit=9)) < 2:  # noqa: ASYNC110 - nothing is set then
                await anyio.sleep(0.005)
            started.stop()
    assert {(row.audit.action, row.audit.means) for row in rows} == {
        ("admin token changed", "file"), ("GET /api/v1/status", ""),
    }  # fmt: skip


async def test_a_reload_that_no_call_asked_for_is_in_the_audit_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO, "engine.audit")
    config = configured(tmp_path, CONFIG)
    file, right = tmp_path / "config.toml", (tmp_path / "config.toml").read_text()
    ready = anyio.Event()
    started = Runtime(
        config, registry=a_registry(), environment={}, listen=False, on_ready=lambda _: ready.set(),
        read=lambda: load([file], environment={}, registry=a_registry()),
    )  # fmt: skip
    async with anyio.create_task_group() as group:
        group.start_soon(started.run)
        await ready.wait()
        log = operations(started).audit_log
        for count, more in enumerate(("on.event = { type = 'x' }\njob = 'clean'", "job = 'nothing'"), start=1):
            file.write_text(f"{right}\n[triggers.later]\n{more}\n")
            started.reload("SIGHUP")
            while len(rows := await log.page(AuditFilter(), limit=9)) < count:  # noqa: ASYNC110 - nothing is set then
                await anyio.sleep(0.005)
        started.stop()
    wrong, done = (row.audit for row in rows)
    assert (done.action, done.outcome.value, done.reason) == ("configuration reload", "done", "SIGHUP")
    assert "later" in json.dumps(done.after)
    assert (wrong.outcome.value, wrong.reason.startswith(f"SIGHUP: {file}:")) == ("refused", True)
    assert [record.getMessage() for record in caplog.records if record.name == "engine.audit"] == [
        "configuration reload: done, by no call", "configuration reload: refused, by no call",
    ]  # fmt: skip


async def test_a_reload_by_a_call_that_is_wrong_is_told_once_and_as_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO, "engine.audit")
    config = configured(tmp_path, CONFIG)
    file, ready = tmp_path / "config.toml", anyio.Event()
    started = Runtime(
        config, registry=a_registry(), environment={"ENGINE_ADMIN_TOKEN": ADMIN}, on_ready=lambda _: ready.set(),
        read=lambda: load([file], environment={}, registry=a_registry()),
    )  # fmt: skip
    async with aiohttp.ClientSession() as session, anyio.create_task_group() as group:
        group.start_soon(started.run)
        await ready.wait()
        assert started.server is not None
        asker = Asker(session, started.server.url)
        file.write_text("[jobs.x]\nodd = 1\n")
        assert (await asker.ask("POST", "/config/reload")).status == 422
        [row] = await asker.refused(1)
        assert await asker.audit() == [row], "it is told once"
        events = (await asker.ask("GET", "/events?type=engine.config.rejected")).json["items"]
        assert len(events) == 1, "and the event that tells of it is stored all the same"
        started.stop()
    assert (row["status"], row["action"]) == (422, "POST /api/v1/config/reload")
    [record] = [one for one in caplog.records if one.name == "engine.audit"]
    assert record.getMessage() == "POST /api/v1/config/reload: refused, asked by admin"


async def test_the_log_names_what_a_call_was_about_in_its_path(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO, "engine.audit")
    async with engine(tmp_path) as (_, asker):
        await asker.ask("POST", "/triggers/oven/pause", {"reason": "hot"})
        await asker.ask("POST", "/triggers/oven/resume", token="x" * 40)
        await asker.refused(1)
    assert [record.getMessage() for record in caplog.records if record.name == "engine.audit"] == [
        "POST /api/v1/triggers/oven/pause: done, asked by admin",
        "POST /api/v1/triggers/{name}/resume: refused, asked by somebody unknown",
    ]


async def test_a_later_token_of_the_same_name_is_not_given_what_the_first_was_answered(tmp_path: Path) -> None:
    key, body = {"Idempotency-Key": "k-1"}, {"action": "pause", "names": ["oven"], "reason": "hot"}
    async with engine(tmp_path) as (_, asker):
        first = await asker.make("worker", "operator")
        done = await asker.ask("POST", "/triggers/bulk", body, token=first, headers=key)
        again = await asker.ask("POST", "/triggers/bulk", body, token=first, headers=key)
        assert (again.status, again.json) == (200, done.json)
        await asker.ask("DELETE", "/tokens/worker")
        later = await asker.make("worker", "operator", tags=["nothing"])
        got = await asker.ask("POST", "/triggers/bulk", body, token=later, headers=key)
        assert got.json["items"][0]["status"] == 404
