"""The routes and commands that try events and run them again, before an engine without organs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from engine.clock import rfc3339
from engine.events import Event, EventOutcome, Outcome
from engine.ids import new_id
from engine.replays import REPLAY_KEY
from engine.store.base import StoredEvent
from tests.fake_operations import FakeOperations
from tests.http_client import Client
from tests.test_cli import VARIABLES, Running, ask


def keep(operations: FakeOperations, trigger: str | None = "nightly", key: str | None = None) -> str:
    """Store an event that met a trigger, or none."""
    event = Event(id=new_id(), source="mill", type="grain.ground", key=key, received_at=operations.clock.now())
    outcome = Outcome(trigger=trigger, outcome=EventOutcome.RUN, run=new_id(), code="matched", reason="matched")
    operations.memory.stored[event.id] = StoredEvent(event=event, outcomes=(outcome,))
    return event.id


def span(operations: FakeOperations) -> dict[str, str]:
    now = operations.clock.now()
    return {"from": rfc3339(now - timedelta(hours=1)), "to": rfc3339(now + timedelta(hours=1))}


async def test_an_event_is_tried_and_its_gates_are_told(client: Client, operations: FakeOperations) -> None:
    before = len(operations.memory.stored)
    got = await client.ask("POST", "/api/v1/triggers/nightly/test", body={"type": "t", "data": {"n": 1}})
    assert got.status == 200
    assert got.json["outcome"] == "filtered"
    assert got.json["gates"] == [{"gate": "filter", "verdict": "drop", "saw": {"data.size": 0}}]
    assert got.json["would_run"] is None
    assert got.json["data"] == {"n": 1}
    assert len(operations.memory.stored) == before
    assert (await client.ask("POST", "/api/v1/triggers/unknown/test", body={"type": "t"})).status == 404
    assert (await client.ask("POST", "/api/v1/triggers/nightly/test", body=[{"type": "t"}] * 2)).status == 422


async def test_an_event_is_replayed_and_names_the_first(client: Client, operations: FakeOperations) -> None:
    first = keep(operations)
    got = await client.ask("POST", f"/api/v1/events/{first}/replay", body={"reason": "again"})
    assert got.status == 202
    assert got.json["replay_of"] == first
    assert got.headers["Location"] == f"/api/v1/events/{got.json['event']}"
    key = operations.memory.stored[got.json["event"]].event.key
    assert key is not None
    assert key.startswith(f"{REPLAY_KEY}{first} ")
    assert (await client.ask("POST", f"/api/v1/events/{new_id()}/replay", body={})).status == 404
    unmatched = keep(operations, trigger=None)
    assert (await client.ask("POST", f"/api/v1/events/{unmatched}/replay", body={})).status == 409


async def test_a_span_is_replayed_page_by_page_without_copies(client: Client, operations: FakeOperations) -> None:
    mine = [keep(operations) for _ in range(3)]
    keep(operations, key=f"{REPLAY_KEY}{mine[0]} r")
    unmatched = keep(operations, trigger=None)
    body = {**span(operations), "dry_run": True}
    dry = await client.ask("POST", "/api/v1/replay", body=body)
    assert dry.status == 200
    listed = [item["replay_of"] for item in dry.json["items"]]
    assert [one for one in listed if one in mine] == mine
    assert next(item for item in dry.json["items"] if item["replay_of"] == unmatched)["skipped"] is not None
    assert all(item["event"] is None for item in dry.json["items"])
    seen, cursor = [], None
    while True:
        more: dict[str, str] = {} if cursor is None else {"cursor": cursor}
        got = await client.ask("POST", "/api/v1/replay", body={**span(operations), "limit": 2, "reason": "r", **more})
        assert got.status == 202
        seen += [item["replay_of"] for item in got.json["items"] if item["event"] is not None]
        cursor = got.json["next"]
        if cursor is None:
            break
    assert seen == mine


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"from": "2026-01-01T00:00:00Z"},
        {"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"},
        {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z", "limit": 101},
        {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z", "cursor": "x"},
        {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z", "rate": "1/s"},
    ],
)
async def test_a_span_that_is_no_span_is_refused(client: Client, body: dict[str, object]) -> None:
    assert (await client.ask("POST", "/api/v1/replay", body=body)).status == 422


# The commands


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.chdir(tmp_path)
    with Running(tmp_path) as running:
        yield running


def test_the_command_tries_an_event_of_a_file(engine: Running, tmp_path: Path) -> None:
    file = tmp_path / "event.json"
    file.write_text('{"type": "t", "data": {"n": 1}}')
    result = ask(engine, "test", "nightly", "--event", str(file))
    assert result.exit_code == 0, result.output
    assert "filter     drop  saw {'data.size': 0}" in result.output
    assert "[filter_false]" in result.output
    file.write_text("[")
    assert ask(engine, "test", "nightly", "--event", str(file)).exit_code == 2
    assert ask(engine, "test", "nightly", "--event", str(tmp_path / "none.json")).exit_code == 2


def test_the_command_tries_an_event_by_the_configuration(engine: Running, tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text(
        '[jobs.j]\nrun.exec = { command = ["true"] }\n'
        '[triggers.t]\non.event = "order.*"\njob = "j"\nfilter = "data.n > 1"\ndefaults = { m = 1 }\n'
    )
    file = tmp_path / "event.json"

    def tried(event: dict[str, object]) -> dict[str, object]:
        file.write_text(json.dumps(event))
        result = ask(
            engine, "test", "t", "--event", str(file), "--offline", "--config", str(tmp_path / "other.toml"), "--json"
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        view: dict[str, object] = json.loads(result.output)
        return view

    passed = tried({"type": "order.created", "data": {"n": 2}})
    assert (passed["outcome"], passed["data"]) == ("run", {"n": 2, "m": 1})
    assert tried({"type": "order.created", "data": {"n": 1}})["code"] == "filter_false"
    assert tried({"type": "bill", "data": {"n": 2}})["outcome"] == "unmatched"


def test_the_command_replays_one_event_and_a_span(engine: Running) -> None:
    first = keep(engine.operations)
    one = ask(engine, "replay", first, "--reason", "again")
    assert one.exit_code == 0, one.output
    given = span(engine.operations)
    dry = ask(engine, "replay", "--from", given["from"], "--to", given["to"], "--dry-run", "--trigger", "nightly")
    assert dry.exit_code == 0, dry.output
    assert f"{first}  grain.ground  at nightly" in dry.output
    real = ask(engine, "replay", "--from", given["from"], "--to", given["to"], "--rate", "100/s", "--json")
    assert real.exit_code == 0, real.output
    assert first in [item["replay_of"] for item in json.loads(real.output)["items"] if item["event"] is not None]
    assert ask(engine, "replay").exit_code == 2
    assert ask(engine, "replay", first, "--from", given["from"]).exit_code == 2
    assert ask(engine, "replay", "--from", given["from"], "--to", given["to"], "--rate", "fast").exit_code == 2
