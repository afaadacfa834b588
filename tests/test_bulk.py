"""One thing done with many triggers: item by item, or all or none."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from engine.defined import Key
from engine.definitions.force import InForce
from engine.definitions.kept import Shelf
from engine.errors import ConfigError, ConfigProblem, Conflict
from engine.journal import Journal
from engine.pauses import PAUSES_SOURCE
from engine.store.changes import Accept, Change
from tests.fake_operations import FakeOperations
from tests.http_client import Client
from tests.test_runtime import Gate
from tests.test_waits import engine

BULK = "/api/v1/triggers/bulk"
HEARD = "/api/v1/triggers/heard"


async def test_each_trigger_has_its_answer_and_one_that_fails_stops_no_other(
    operations: FakeOperations, client: Client
) -> None:
    body = {"action": "pause", "names": ["none", "nightly"], "reason": "the upgrade", "duration": "120m"}
    got = await client.ask("POST", BULK, body=body)
    assert (got.status, got.json["count"], got.json["failed"]) == (200, 1, 1)
    missing, paused = got.json["items"]
    assert (missing["name"], missing["ok"], missing["status"], missing["code"]) == ("none", False, 404, "not_found")
    assert paused == {"name": "nightly", "ok": True}
    assert operations.paused["nightly"].reason == "the upgrade"
    assert operations.paused["nightly"].until is not None


async def test_those_with_a_tag_or_all_are_meant(operations: FakeOperations, client: Client) -> None:
    for which in ({"tag": "warehouse"}, {"all": True}):
        got = await client.ask("POST", BULK, body={"action": "resume", **which})
        assert [item["name"] for item in got.json["items"]] == ["nightly"]
    assert (await client.ask("POST", BULK, body={"action": "resume", "tag": "nobody's"})).status == 404


async def test_each_action_does_what_it_does_with_one(operations: FakeOperations, client: Client) -> None:
    fired = await client.ask(
        "POST", BULK, body={"action": "fire", "all": True, "data": 7, "priority": "high", "bypass": ["pause"]},
        headers={"Idempotency-Key": "k"},
    )  # fmt: skip
    assert fired.json["items"][0]["runs"]
    assert operations.fired[0] | {"traceparent": None} == {
        "trigger": "nightly", "data": 7, "reason": "", "priority": 8, "bypass": frozenset({"pause"}),
        "request_id": operations.fired[0]["request_id"], "traceparent": None,
    }  # fmt: skip
    assert re.fullmatch(r"k \([0-9a-f]{32}\) nightly", operations.fired[0]["request_id"])
    reset = await client.ask("POST", BULK, body={"action": "reset", "all": True, "reason": "r"})
    assert (reset.json["count"], operations.adapted) == (1, [("nightly", "reset", "r")])
    released = await client.ask("POST", BULK, body={"action": "release", "all": True})
    assert [item["code"] for item in released.json["items"]] == ["conflict"]


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, ["#/action"]),
        ({"action": "melt", "all": True}, ["#/action"]),
        ({"action": "pause"}, ["#/names"]),
        ({"action": "pause", "names": ["a"], "all": True}, ["#/names"]),
        ({"action": "pause", "names": []}, ["#/names"]),
        ({"action": "pause", "names": ["a", "a/b", "a"]}, ["#/names/1", "#/names/2"]),
        ({"action": "pause", "names": ["x"] * 1001}, ["#/names"]),
        ({"action": "reset", "all": True, "atomic": True}, ["#/atomic"]),
        ({"action": "fire", "all": True, "duration": "1h"}, ["#/duration"]),
        ({"action": "pause", "all": True, "data": 1}, ["#/data"]),
        ({"action": "pause", "all": True, "until": "2999-01-01T00:00:00Z", "duration": "1h"}, ["#/until"]),
    ],
)
async def test_what_is_wrong_is_told_all_at_once(client: Client, body: Any, pointers: list[str]) -> None:
    got = await client.ask("POST", BULK, body=body)
    assert (got.status, [error["pointer"] for error in got.json["errors"]]) == (422, pointers)


async def test_more_than_a_request_may_mean_are_refused(
    operations: FakeOperations, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.http.bulk_routes.MOST", 0)
    got = await client.ask("POST", BULK, body={"action": "resume", "all": True})
    assert (got.status, got.json["code"]) == (422, "too_many")


async def test_with_all_or_none_nothing_is_done_where_one_can_not_be(
    operations: FakeOperations, client: Client
) -> None:
    for action in ("pause", "resume", "fire"):
        body = {"action": action, "names": ["nightly", "none"], "atomic": True}
        got = await client.ask("POST", BULK, body=body)
        assert (got.status, [error["pointer"] for error in got.json["errors"]]) == (409, ["#/names/1"])
    assert (operations.paused, operations.fired) == ({}, [])
    operations.fault = Conflict("its job is disabled")
    got = await client.ask("POST", BULK, body={"action": "fire", "all": True, "atomic": True})
    assert got.status == 409


async def test_a_whole_engine_does_it_in_one_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Gate.open.add("held")
    names = ["heard", "hooked", "plain"]
    submit, stored = Journal.submit, []

    def noting(self: Journal, change: Change, *more: Any) -> asyncio.Future[Any]:
        if isinstance(change, Accept) and change.memory is not None and change.memory.source == PAUSES_SOURCE:
            stored.append(list(change.memory.values))
        return submit(self, change, *more)

    monkeypatch.setattr(Journal, "submit", noting)
    async with engine(tmp_path) as (_, sender):
        status, done = await sender.ask(BULK, {"action": "pause", "names": names, "atomic": True, "reason": "r"})
        assert (status, done["count"], stored) == (200, 3, [names])
        refused = await sender.ask(BULK, {"action": "fire", "names": [*names, "none"], "atomic": True})
        assert refused[0] == 409
        status, resumed = await sender.ask(BULK, {"action": "resume", "all": True, "atomic": True})
        assert (status, resumed["count"]) == (200, 3)
        key = {"Idempotency-Key": "k"}
        status, fired = await sender.ask(BULK, {"action": "fire", "names": names, "atomic": True}, headers=key)
        assert (status, [len(item["runs"]) for item in fired["items"]]) == (200, [1, 1, 1])
        again = await sender.ask(BULK, {"action": "fire", "names": names, "atomic": True}, headers=key)
        assert again == (200, fired)
    async with engine(tmp_path) as (_, sender):
        status, trigger = await sender.ask(HEARD, method="GET")
        assert (trigger["state"], trigger["stats"]["total"]) == ("active", 1)


async def test_a_whole_engine_enables_and_disables_in_one_commit_and_for_admins_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Gate.open.add("held")
    names, commit, commits = ["heard", "hooked", "plain"], InForce.commit, []

    async def noting(self: InForce, shelf: Shelf, touched: Collection[Key]) -> None:
        commits.append([key.name for key in touched])
        await commit(self, shelf, touched)

    monkeypatch.setattr(InForce, "commit", noting)
    async with engine(tmp_path) as (_, sender):
        off = {"action": "disable", "names": ["none", *names], "reason": "the move"}
        status, done = await sender.ask(BULK, off)
        assert (status, done["count"], done["failed"], commits) == (200, 3, 1, [names])
        assert (done["items"][0]["name"], done["items"][0]["status"]) == ("none", 404)
        _, trigger = await sender.ask(HEARD, method="GET")
        assert (trigger["state"], trigger["overrides"]["changes"]) == ("disabled", {"enabled": False})
        refused = await sender.ask(BULK, {"action": "enable", "names": [*names, "none"], "atomic": True})
        assert (refused[0], len(commits)) == (409, 1)
        _, made = await sender.ask("/api/v1/tokens", {"name": "on-call", "role": "operator"})
        operator = {"Authorization": f"Bearer {made['token']}"}
        status, problem = await sender.ask(BULK, {"action": "enable", "all": True}, headers=operator)
        assert (status, problem["code"]) == (403, "role_needed")
    async with engine(tmp_path) as (_, sender):
        _, trigger = await sender.ask(HEARD, method="GET")
        assert trigger["state"] == "disabled"
        status, done = await sender.ask(BULK, {"action": "enable", "names": names, "atomic": True})
        assert (status, done["count"], commits[1:]) == (200, 3, [names])
        _, trigger = await sender.ask(HEARD, method="GET")
        assert trigger["state"] == "active"
        status, done = await sender.ask(BULK, {"action": "reset", "names": names})
        assert done["count"] == 3
        _, trigger = await sender.ask(HEARD, method="GET")
        assert trigger["overrides"] is None


async def test_where_one_can_not_be_disabled_the_others_are(
    operations: FakeOperations, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def patch_all(keys: Collection[Key], changes: Any, *, who: str, reason: str = "") -> None:
        asked.append([key.name for key in keys])
        raise ConfigError([ConfigProblem(file="", line=0, path="triggers.nightly", message="it has a mistake")])

    monkeypatch.setattr(operations.definitions, "patch_all", patch_all)
    got = await client.ask("POST", BULK, body={"action": "disable", "names": ["nightly", "none"]})
    assert [item["status"] for item in got.json["items"]] == [422, 404]
    assert "it has a mistake" in got.json["items"][0]["detail"]
    assert asked == [["nightly"], ["nightly"]]
