"""Questions about the future over HTTP: simulate and plan."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from engine.foresight import desk
from engine.jobs import Job
from engine.runs import RunState
from engine.triggers import Pause, Trigger
from plugins.timers.interval import Interval
from tests.fake_operations import FakeOperations, Program
from tests.http_client import Client

V1 = "/api/v1"
FROM, TO = "2026-01-05T12:00:00Z", "2026-01-05T13:00:00Z"
TOML = {"Content-Type": "application/toml"}


@pytest.fixture
def operations(tmp_path: Path) -> FakeOperations:
    made = FakeOperations(tmp_path, max_body_bytes=64 * 1024)
    on = Interval(every=60.0)
    triggers = {
        name: Trigger(name=name, job="import", source=f"timer:{name}", on=on, tags=tags)
        for name, tags in (("nightly", ()), ("office", ("office",)))
    }
    job = Job(name="import", runner=Program(command=("import", "--key=sesame-open")), concurrency=1)
    made.config = replace(made.config, triggers=triggers, jobs={"import": job})
    return made


async def simulate(client: Client, query: str = "", **body: Any) -> Any:
    got = await client.ask("POST", f"{V1}/simulate{query}", body={"from": FROM, "to": TO, **body})
    assert got.status == 200, got.json
    return got.json


async def test_simulate_answers_with_sums_hours_windows_and_a_page_of_all(client: Client) -> None:
    view = await simulate(client, "?limit=100", durations={"import": "20s"}, quiet="10m", windows=2)
    assert (view["from"], view["to"], view["instants"]) == (FROM, TO, 120)
    assert (view["total"]["due"], view["total"]["runs"], view["total"]["waited"]) == (120, 120, 60)
    assert [hour["due"] for hour in view["hours"]] == [120]
    assert len(view["quiet"]) == 2
    assert (len(view["items"]), view["next"]) == (100, "100")
    rest = await simulate(client, "?limit=100&cursor=100", durations={"import": "20s"})
    assert (len(rest["items"]), rest["next"]) == (20, None)
    starts = [item["started_at"] for item in (*view["items"], *rest["items"])]
    assert starts == sorted(starts)


async def test_without_a_body_the_next_day_is_foreseen(client: Client) -> None:
    got = await client.ask("POST", f"{V1}/simulate")
    assert got.status == 200
    start, end = (datetime.fromisoformat(got.json[name]) for name in ("from", "to"))
    assert end - start == timedelta(days=1)
    assert datetime.now(UTC) - start < timedelta(minutes=1)


async def test_past_runs_tell_how_long_runs_last_unless_they_are_not_asked(
    client: Client, operations: FakeOperations
) -> None:
    operations.add_run(state=RunState.SUCCEEDED)
    durations = [one["duration"] for one in (await simulate(client))["triggers"]]
    assert [one["origin"] for one in durations] == ["past", "past"]
    assert durations[0]["seconds"] == 1.5
    view = await simulate(client, past=False)
    assert {one["duration"]["origin"] for one in view["triggers"]} == {"default"}


async def test_pauses_that_hold_now_are_kept(client: Client, operations: FakeOperations) -> None:
    at = datetime(2026, 1, 5, 12, 30, 30, tzinfo=UTC)
    operations.paused["nightly"] = Pause(reason="we move", since=at - timedelta(days=1), until=at)
    view = await simulate(client, triggers=["nightly"])
    assert (view["total"]["missed"], view["total"]["caught_up"], view["total"]["runs"]) == (30, 1, 30)
    assert "we move" in view["examples"]["missed"][0]["reason"]


async def test_a_downtime_that_is_asked_for_is_kept(client: Client) -> None:
    down = {"from": "2026-01-05T12:10:30Z", "to": "2026-01-05T12:20:30Z"}
    view = await simulate(client, tags=["office"], down=[down], examples=1)
    assert [one["name"] for one in view["triggers"]] == ["office"]
    assert (view["total"]["missed"], view["total"]["caught_up"]) == (9, 1)
    assert len(view["examples"]["missed"]) == 1


@pytest.mark.parametrize(
    ("body", "pointer", "said"),
    [
        ({"form": FROM}, "#/form", "did you mean 'from'?"),
        ({"from": "now"}, "#/from", "must be a time in RFC 3339"),
        ({"from": TO, "to": FROM}, "#/to", "is not after the beginning"),
        ({"to": "2029-01-05T12:00:00Z"}, "#/to", "at most 366d"),
        ({"triggers": ["nigtly"]}, "#/triggers", "did you mean nightly?"),
        ({"triggers": "nightly"}, "#/triggers", "a list of at most"),
        ({"tags": [7]}, "#/tags", "a list of at most"),
        ({"durations": {"import": "soon"}}, "#/durations/import", "must be a duration"),
        ({"durations": {"export": "1s"}}, "#/durations", "there is no job export"),
        ({"durations": []}, "#/durations", "an object of jobs"),
        ({"past": 1}, "#/past", "true or false"),
        ({"down": [{"from": FROM}]}, "#/down/0/to", "to is required"),
        ({"down": {}}, "#/down", "a list of at most"),
        ({"quiet": "2d"}, "#/quiet", "no longer than the time"),
        ({"windows": 0}, "#/windows", "from 1 to 100"),
        ({"examples": True}, "#/examples", "from 0 to 1000"),
    ],
)
async def test_a_wrong_question_gets_its_mistake(client: Client, body: Any, pointer: str, said: str) -> None:
    got = await client.ask("POST", f"{V1}/simulate", body={"from": FROM, "to": TO, **body})
    assert (got.status, got.json["code"]) == (422, "invalid_fields")
    assert any(error["pointer"] == pointer and said in error["detail"] for error in got.json["errors"]), got.json


async def test_too_much_is_refused_with_how_much_it_is(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "MOST_INSTANTS", 50)
    got = await client.ask("POST", f"{V1}/simulate", body={"from": FROM, "to": TO})
    assert (got.status, got.json["code"]) == (422, "too_many")
    assert "51 instants come due until 2026-01-05T12:25:00Z already, about 122 in all" in got.json["detail"]


async def test_the_event_loop_turns_while_much_is_foreseen(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step leaves the loop to others: another request is answered before the long one is."""
    monkeypatch.setattr(desk, "STEP", 1)
    order: list[str] = []

    async def ask(name: str, method: str, path: str, **more: Any) -> None:
        assert (await client.ask(method, path, **more)).status == 200
        order.append(name)

    async with asyncio.TaskGroup() as group:
        group.create_task(ask("long", "POST", f"{V1}/simulate", body={"from": FROM, "to": TO}))
        await asyncio.sleep(0)
        group.create_task(ask("short", "GET", "/live"))
    assert order == ["short", "long"]


def toml(expression: str) -> bytes:
    return f"""
    [jobs.import]
    run.exec = ["true"]
    [triggers.office]
    on.interval = "{expression}"
    job = "import"
    """.encode()


async def test_plan_takes_toml_or_json_and_says_what_changes(client: Client) -> None:
    got = await client.ask("POST", f"{V1}/plan?days=1&count=3", body=toml("2m"), headers=TOML)
    assert got.status == 200
    assert got.json["changes"]
    changes = {one["name"]: one["change"] for one in got.json["triggers"]}
    assert changes == {"nightly": "removed", "office": "changed"}
    office = got.json["triggers"][1]["fires"]
    assert (office["before"], office["after"], len(office["first"])) == (1440, 720, 3)
    again = await client.ask("POST", f"{V1}/plan", body={"config": toml("2m").decode(), "days": 1, "count": 3})
    assert again.json["triggers"][1]["keys"] == got.json["triggers"][1]["keys"]
    assert b"sesame" not in got.body


async def test_plan_tells_all_mistakes_of_a_configuration(client: Client) -> None:
    got = await client.ask("POST", f"{V1}/plan", body=toml("soon") + b"[nonsense]\n", headers=TOML)
    assert (got.status, got.json["code"]) == (422, "invalid_config")
    assert [(error["line"], error["path"]) for error in got.json["errors"]] == [
        (5, "triggers.office.on.interval"), (7, "nonsense"),
    ]  # fmt: skip
    assert all(error["message"] and error["detail"] for error in got.json["errors"])


@pytest.mark.parametrize(
    ("body", "headers", "query", "status"),
    [
        (b"x", {"Content-Type": "text/plain"}, "", 415),
        ({"config": 7}, {}, "", 422),
        ({"config": "", "days": 0}, {}, "", 422),
        ({"config": "", "file": "/etc/passwd"}, {}, "", 422),
        (b"", TOML, "?days=9999", 422),
        (b"x" * 100_000, TOML, "", 413),
    ],
)
async def test_a_plan_that_can_t_be_read_is_refused(
    client: Client, body: Any, headers: dict[str, str], query: str, status: int
) -> None:
    got = await client.ask("POST", f"{V1}/plan{query}", body=body, headers=headers)
    assert got.status == status


@pytest.mark.parametrize("path", ["simulate", "plan"])
async def test_both_need_a_token(client: Client, path: str) -> None:
    assert (await client.ask("POST", f"{V1}/{path}", body={}, token=None)).status == 401
