"""What people see of guards: configuration, routes, commands."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from engine.cli.client import _origin
from engine.cli.why import guards_of, sentences
from engine.config import load
from engine.decide.breakers import Quarantine
from engine.errors import ConfigError
from engine.ids import new_id
from engine.triggers import Breaker
from tests.fake_operations import FakeOperations
from tests.http_client import Client

V1 = "/api/v1"
SINCE = datetime(2026, 11, 21, 12, 0, 5, tzinfo=UTC)


def quarantine(scope: str = "trigger", name: str = "nightly", title: str = "") -> Quarantine:
    return Quarantine(place=(scope, name), since=SINCE, limit=1000, per_s=60.0, event=new_id(), title=title)


# Configuration

CONFIG = """
[jobs.work]
run.exec = ["true"]
[sources.orders]
breaker = { limit = 5, per = "10s" }
expect = "2h"
event = "order.*"
[triggers.ship]
on.source = "orders"
job = "work"
breaker = { limit = 1000, per = "1m" }
max_hops = 0
expect = "25h"
[triggers.plain]
on.manual = true
job = "work"
"""


def read(path: Path, text: str) -> Any:
    (path / "config.toml").write_text(text, "utf-8")
    return load([path / "config.toml"], environment={})


def refused(path: Path, text: str) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as error:
        read(path, text)
    return [(problem.path, problem.message) for problem in error.value.problems]


def test_guards_are_read(tmp_path: Path) -> None:
    config = read(tmp_path, CONFIG)
    ship, plain = config.triggers["ship"], config.triggers["plain"]
    assert (ship.breaker, ship.max_hops, ship.expect_s) == (Breaker(limit=1000, per_s=60.0), 0, 90_000.0)
    assert (plain.breaker, plain.max_hops, plain.expect_s) == (None, None, None)
    assert (ship.shared.breaker, ship.shared.expect_s) == (Breaker(limit=5, per_s=10.0), 7200.0)
    assert config.engine.max_hops == 16


@pytest.mark.parametrize(
    ("line", "path", "said"),
    [
        ("breaker = { limit = 0, per = '1m' }", "triggers.plain.breaker.limit", "0"),
        ("breaker = { limit = 100001, per = '1m' }", "triggers.plain.breaker.limit", "100001"),
        ("breaker = { limit = 5 }", "triggers.plain.breaker", "per"),
        ("breaker = { limit = 5, per = '2d' }", "triggers.plain.breaker.per", "2d"),
        ("breaker = { limit = 5, per = '1m', burst = 2 }", "triggers.plain.breaker.burst", "unknown key"),
        ("max_hops = -1", "triggers.plain.max_hops", "-1"),
        ("expect = '0s'", "triggers.plain.expect", "0s"),
    ],
)
def test_what_is_no_guard_is_told(tmp_path: Path, line: str, path: str, said: str) -> None:
    ((where, message),) = refused(tmp_path, CONFIG + line)
    assert where.startswith(path.rpartition(".")[0])
    assert said in f"{where} {message}"


@pytest.mark.parametrize("key", ["breaker = { limit = 5, per = '1m' }", "expect = '1h'"])
def test_a_timer_that_several_triggers_share_has_no_guard_of_its_own(tmp_path: Path, key: str) -> None:
    text = CONFIG + f'[sources.nights]\n{key}\ncron = "0 2 * * *"\n[triggers.n]\non.source = "nights"\njob = "work"\n'
    ((where, message),) = refused(tmp_path, text)
    assert where == f"sources.nights.{key.split()[0]}"
    assert "each trigger that is on it has a timer of its own" in message


# Routes


@pytest.fixture
def operations(tmp_path: Path) -> FakeOperations:
    made = FakeOperations(tmp_path)
    made.sources = ["webhook:team/release"]
    return made


@pytest.mark.anyio
async def test_a_trigger_is_released_and_once_more_is_no_mistake(operations: FakeOperations, client: Client) -> None:
    operations.guards.quarantines["trigger", "nightly"] = quarantine()
    got = await client.ask(
        "POST", f"{V1}/triggers/nightly/release", body={"reason": "mended"}, headers={"X-Performed-By": "ann"}
    )
    assert (got.status, got.json["released"], got.json["triggers"]) == (200, True, ["nightly"])
    assert (got.json["from"], got.json["was"][:33]) == ("2026-11-21T12:00:05Z", "trigger nightly is in quarantine ")
    assert got.json["to"] == "2026-11-21T09:30:00.001000Z"
    assert operations.guards.asked == [(("trigger", "nightly"), "admin token, for ann", "mended")]
    again = await client.ask("POST", f"{V1}/triggers/nightly/release")
    assert (again.status, again.json["released"], again.json["was"]) == (200, False, None)


@pytest.mark.anyio
async def test_a_source_is_released_whatever_its_name(operations: FakeOperations, client: Client) -> None:
    name = "webhook:team/release"
    operations.guards.quarantines["source", name] = quarantine("source", name)
    got = await client.ask("POST", f"{V1}/sources/{name}/release")
    assert (got.status, got.json["released"], got.json["name"]) == (200, True, name)
    assert (await client.ask("GET", f"{V1}/sources/{name}")).status == 200


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("triggers/none/release", {}, 404),
        ("triggers/nightly/release", {"who": "me"}, 422),
        ("triggers/nightly/release", {"reason": 7}, 422),
        ("sources/none/release", {}, 404),
        ("sources/webhook:team/release", {}, 404),
        ("sources/webhook:team/release/nothing", {}, 405),
        ("sources/webhook:team/release/release", {"limit": 9}, 422),
    ],
)
async def test_what_can_not_be_released_is_refused(client: Client, path: str, body: Any, status: int) -> None:
    assert (await client.ask("POST", f"{V1}/{path}", body=body)).status == status


@pytest.mark.anyio
async def test_a_replay_by_outcome_names_its_trigger(client: Client) -> None:
    span = {"from": "2026-11-21T12:00:00Z", "to": "2026-11-21T13:00:00Z"}
    for more in ({"outcome": "quarantined"}, {"outcome": "sick", "trigger": "nightly"}, {"outcome": 7}):
        got = await client.ask("POST", f"{V1}/replay", body={**span, **more})
        assert got.status == 422
        assert "#/outcome" in str(got.json)


@pytest.mark.anyio
async def test_what_a_caller_says_of_its_run_goes_on_to_the_door(operations: FakeOperations, client: Client) -> None:
    claim = {"Traceparent": f"00-{new_id().replace('-', '')}-00f067aa0ba902b7-01"}
    await client.ask("POST", f"{V1}/events", body=[{"type": "a"}, {"type": "b"}], headers=claim)
    assert [event.traceparent for event in operations.heard] == [claim["Traceparent"]] * 2
    await client.ask("POST", f"{V1}/triggers/nightly/fire", headers=claim)
    assert operations.fired[-1]["traceparent"] == claim["Traceparent"]


@pytest.mark.anyio
@pytest.mark.parametrize("member", ["cause", "hops", "via", "run", "traceparent", "max_hops", "breaker", "source_id"])
async def test_no_member_of_an_event_says_what_caused_it(client: Client, member: str) -> None:
    got = await client.ask("POST", f"{V1}/events", body={"type": "a", member: {"run": "x", "hops": 0, "via": []}})
    assert got.status == 422


# The command line


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, False),
        ({"TRACEPARENT": "rubbish\r\nX: y"}, False),
        ({"TRACEPARENT": "00-" + "7" * 32 + "-" + "1" * 16 + "-01"}, True),
        ({"ENGINE_RUN_ID": "0198f0aa-0000-7000-8000-00000000b007"}, True),
        ({"ENGINE_RUN_ID": "../x"}, False),
    ],
)
def test_commands_in_a_runs_process_say_so(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: bool
) -> None:
    for name in ("TRACEPARENT", "ENGINE_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert ("Traceparent" in _origin()) is expected


def test_why_tells_of_the_chain_and_of_guards() -> None:
    run: dict[str, Any] = {
        "id": "r", "job": "j", "trigger": "t", "origin": "event", "state": "succeeded", "reason": "it exited with 0",
        "scheduled_for": None, "trace": [], "attempts": [], "due_at": None, "finished_at": "x",
        "cause": {"run": "q", "hops": 7, "via": ["b", "a"]},
    }  # fmt: skip
    assert "  It was caused by run q, after 7 runs in a chain: … → b → a." in list(
        sentences({"run": run, "events": [], "gone": []})
    )
    view = {"quarantine": {"reason": "it is ill"}, "expected": {"reason": None}}
    assert list(guards_of(view)) == ["it is ill"]
    assert list(guards_of({"quarantine": None, "expected": None})) == []
