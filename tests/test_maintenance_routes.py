"""The API's routes of maintenance windows, and the commands that use them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from engine.decide.windows import MaintenanceWindow, Once, Opening
from engine.errors import StoreUnavailable
from tests.fake_maintenance import StoresNothing, fake_maintenance
from tests.fake_operations import FakeOperations
from tests.http_client import Client

V1 = "/api/v1/maintenance"


@pytest.fixture
def operations(tmp_path: Path) -> FakeOperations:
    made = FakeOperations(tmp_path)
    now = datetime.now(UTC)
    opening = Opening(start=now - timedelta(hours=1), end=now + timedelta(hours=1))
    fixed = MaintenanceWindow(name="fixed", pattern=Once(opening=opening), when="once", defined_in="config.toml:3")
    made.config.maintenance["fixed"] = fixed
    made.maintenance = fake_maintenance(made.config, made.clock)
    return made


async def test_a_window_is_made_shown_overridden_and_removed(client: Client) -> None:
    body = {
        "name": "nights", "cron": "0 2 * * *", "duration": "2h", "timezone": "Europe/Berlin", "after": "latest",
        "scope": {"triggers": ["nightly"]}, "description": "backups",
    }  # fmt: skip
    made = await client.ask("POST", V1, body=body, headers={"X-Performed-By": "ann"})
    assert (made.status, made.headers["Location"]) == (201, f"{V1}/nights")
    assert made.json["when"] == "cron 0 2 * * * (Europe/Berlin) for 2h"
    assert (made.json["who"], made.json["triggers"]) == ("admin token, for ann", ["nightly"])
    listed = (await client.ask("GET", V1)).json["items"]
    assert (listed[0]["name"], listed[0]["state"]) == ("fixed", "open")
    overridden = await client.ask("POST", f"{V1}/fixed/override", body={"reason": "a hotfix", "duration": "5m"})
    assert (overridden.json["state"], overridden.json["override"]["reason"]) == ("overridden", "a hotfix")
    restored = await client.ask("DELETE", f"{V1}/fixed/override")
    assert (restored.json["state"], restored.json["override"]) == ("open", None)
    assert (await client.ask("DELETE", f"{V1}/nights")).json["name"] == "nights"
    assert (await client.ask("GET", f"{V1}/nights")).status == 404
    assert (await client.ask("DELETE", f"{V1}/fixed")).status == 409


async def test_one_that_says_only_when_it_ends_begins_now(client: Client) -> None:
    made = await client.ask("POST", V1, body={"name": "swap", "duration": "2h"})
    assert made.json["state"] == "open"
    until = datetime.fromisoformat(made.json["closes_at"]) - datetime.now(UTC)
    assert timedelta(minutes=119) < until <= timedelta(hours=2)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"days": ["sundy"]}, '#/days/0 days[0]: found "sundy"'),
    ({"cron": "0 99 * * *", "duration": "2h"}, "#/cron "),
    ({"cron": {"expression": "0 2 * * *", "jitter": "5m"}, "duration": "2h"}, "has no effect here"),
    ({"cron": "0 2 * * *"}, "is missing beside cron"),
    ({"days": ["sunday"], "from": "2026-12-24 18:00", "to": "2026-12-25 18:00"}, "expected one of them"),
    ({"days": ["sunday"], "start": "25:00"}, "#/start "),
    ({"start": "2:00"}, "no time of day"),
    ({"from": "2026-12-24 18:00", "to": "2026-12-24 17:00"}, "never be open"),
    ({}, "it never opens"),
    ({"interval": "1h", "duration": "1h"}, "nothing would ever run"),
    ({"duraton": "2h"}, "unknown key"),
    ({"days": ["sunday"], "timezone": {"env": "HOME"}}, "refers to the environment or a file"),
    ({"days": ["sunday"], "description": {"file": "/etc/passwd"}}, "refers to the environment or a file"),
    ({"days": ["sunday"], "name": "no/name"}, "must be a name"),
]


@pytest.mark.parametrize(("body", "expected"), BAD)
async def test_what_is_wrong_is_422_and_makes_nothing(client: Client, body: dict[str, Any], expected: str) -> None:
    got = await client.ask("POST", V1, body={"name": "odd", **body})
    assert (got.status, got.json["code"]) == (422, "invalid_fields")
    told = [f"{error['pointer']} {error['detail']}" for error in got.json["errors"]]
    assert any(expected in one for one in told), told
    assert len((await client.ask("GET", V1)).json["items"]) == 1


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ({"triggers": ["nihgtly"]}, 'there is no trigger nihgtly; did you mean "nightly"?'),
        ({"tags": ["import"]}, "no trigger, and no job of one, has the tag import"),
        ({"jobs": ["ship"]}, "no trigger has the job ship"),
    ],
)
async def test_a_window_for_nothing_is_refused(client: Client, scope: dict[str, Any], expected: str) -> None:
    got = await client.ask("POST", V1, body={"name": "odd", "duration": "2h", "scope": scope})
    assert got.status == 422
    assert expected in got.json["detail"]


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        ({}, 422, "reason is required"),
        ({"reason": "x", "until": "2026-01-01T00:00:00Z"}, 409, "that is past"),
        ({"reason": "x", "until": "2036-01-01T00:00:00Z", "duration": "1h"}, 422, "one end"),
    ],
)
async def test_an_override_needs_a_reason_and_an_end_to_come(
    client: Client, body: dict[str, Any], status: int, expected: str
) -> None:
    got = await client.ask("POST", f"{V1}/fixed/override", body=body)
    assert got.status == status
    assert expected in got.json["detail"]
    assert (await client.ask("GET", f"{V1}/fixed")).json["state"] == "open"


async def test_a_store_that_is_away_is_503_and_nothing_is_changed(operations: FakeOperations, client: Client) -> None:
    journal = StoresNothing()
    journal.fault = StoreUnavailable("the disk is full")
    operations.maintenance = fake_maintenance(operations.config, operations.clock, journal)
    assert (await client.ask("POST", V1, body={"name": "swap", "duration": "2h"})).status == 503
    assert (await client.ask("GET", f"{V1}/swap")).status == 404
