"""The API's routes about backfills: what they ask for, what they answer, and what is wrong with bad input."""

from __future__ import annotations

from typing import Any

import pytest

from engine.backfills import Order
from engine.errors import Conflict, InvalidRequest, NotFound, PluginError, StoreUnavailable
from engine.ids import new_id
from tests.fake_backfills import FakeBackfills
from tests.fake_operations import FakeOperations
from tests.http_client import Client

BACKFILLS = "/api/v1/backfills"
ASKED = {"trigger": "nightly", "from": "2026-11-20", "to": "2026-11-21T09:30:00Z"}


@pytest.fixture
def backfills(operations: FakeOperations) -> FakeBackfills:
    return operations.backfills


async def post(client: Client, path: str = BACKFILLS, body: Any = None) -> Any:
    return await client.ask("POST", path, body=body)


async def test_a_backfill_is_begun_and_its_place_is_told(client: Client, backfills: FakeBackfills) -> None:
    whole = {
        **ASKED, "timezone": "Europe/Berlin", "max_parallel": 4, "order": "newest", "only_missing": True,
        "dry_run": False, "reason": "it was down",
    }  # fmt: skip
    got = await post(client, body=whole)
    assert got.status == 201
    assert got.headers["Location"] == f"{BACKFILLS}/{got.json['id']}"
    (asked,) = backfills.asked
    assert (asked.timezone, asked.max_parallel, asked.order) == ("Europe/Berlin", 4, Order.NEWEST)
    assert (asked.only_missing, asked.reason, asked.start.tzinfo) == (True, "it was down", None)
    assert got.json == {
        "id": got.json["id"], "trigger": "nightly", "from": "2026-11-20T00:00:00Z", "to": "2026-11-21T09:30:00Z",
        "timezone": "Europe/Berlin", "max_parallel": 4, "order": "newest", "only_missing": True, "skipped": 1,
        "reason": "it was down", "state": "running", "state_reason": "running: it was asked for", "holds": None,
        "created_at": "2026-11-21T09:30:00Z", "finished_at": None, "total": 2, "done": 0, "outcomes": {}, "not_run": 0,
        "running": 0, "waiting": 0, "left": 2, "current": None, "rate_per_s": None, "expected_end_at": None,
    }  # fmt: skip


async def test_an_idempotency_key_is_handed_on(client: Client, backfills: FakeBackfills) -> None:
    await client.ask("POST", BACKFILLS, body=ASKED, headers={"Idempotency-Key": "ticket-4711"})
    await post(client, body=ASKED)
    [key, none] = backfills.request_ids
    assert key is not None
    assert (key.partition(" ")[0], none) == ("ticket-4711", None)


async def test_its_progress_is_told(client: Client) -> None:
    begun = await post(client, body=ASKED)
    await client.ask("GET", f"{BACKFILLS}/{begun.json['id']}")
    got = await client.ask("GET", f"{BACKFILLS}/{begun.json['id']}")
    assert got.json["outcomes"] == {"succeeded": 1}
    assert (got.json["done"], got.json["left"], got.json["rate_per_s"]) == (1, 2, 0.5)
    assert (got.json["current"], got.json["expected_end_at"]) == ("2026-11-20T00:00:00Z", "2026-11-21T09:30:00Z")


async def test_a_dry_run_answers_with_the_plan_and_begins_nothing(client: Client, backfills: FakeBackfills) -> None:
    got = await post(client, body={**ASKED, "dry_run": True, "only_missing": True, "timezone": "Europe/Berlin"})
    assert got.status == 200
    assert got.json == {
        "dry_run": True, "trigger": "nightly", "from": "2026-11-20T00:00:00Z", "to": "2026-11-21T09:30:00Z",
        "timezone": "Europe/Berlin", "total": 2, "first": "2026-11-20T00:00:00Z", "last": "2026-11-20T02:00:00Z",
        "instants": [
            {"at": "2026-11-20T00:00:00Z", "local": "2026-11-20 01:00:00+01:00"},
            {"at": "2026-11-20T02:00:00Z", "local": "2026-11-20 03:00:00+01:00"},
        ],
        "skipped": {
            "total": 1,
            "instants": [
                {
                    "at": "2026-11-20T01:00:00Z", "local": "2026-11-20 02:00:00+01:00",
                    "run": got.json["skipped"]["instants"][0]["run"],
                }
            ],
        },
    }  # fmt: skip
    assert not backfills.kept


async def test_backfills_are_listed_in_pages_the_newest_first(client: Client) -> None:
    made = [(await post(client, body=ASKED)).json["id"] for _ in range(3)]
    page = (await client.ask("GET", f"{BACKFILLS}?limit=2")).json
    assert [one["id"] for one in page["items"]] == [made[2], made[1]]
    rest = (await client.ask("GET", f"{BACKFILLS}?limit=2&cursor={page['next']}")).json
    assert ([one["id"] for one in rest["items"]], rest["next"]) == ([made[0]], None)
    assert (await client.ask("GET", f"{BACKFILLS}?cursor=x")).status == 422


async def test_one_is_paused_resumed_and_cancelled(client: Client, backfills: FakeBackfills) -> None:
    one = f"{BACKFILLS}/{(await post(client, body=ASKED)).json['id']}"
    assert (await post(client, f"{one}/pause", {"reason": "month end"})).json["state"] == "paused"
    assert (await post(client, f"{one}/resume")).json["state"] == "running"
    assert (await post(client, f"{one}/cancel", {"reason": "wrong month"})).json["state"] == "cancelling"
    assert backfills.reasons == ["month end", "", "wrong month"]
    refused = await post(client, f"{one}/resume")
    assert (refused.status, refused.json["code"]) == (409, "conflict")
    assert (await post(client, f"{one}/resume", {"reason": "no"})).status == 422
    assert (await post(client, f"{one}/pause", {"until": "no"})).status == 422


@pytest.mark.parametrize(
    ("change", "pointer", "said"),
    [
        ({"trigger": None}, "#/trigger", "trigger is required"),
        ({"trigger": "a/b"}, "#/trigger", "must be a name"),
        ({"from": None}, "#/from", "from is required"),
        ({"from": "yesterday"}, "#/from", "from must be a date or a time, such as"),
        ({"to": 7}, "#/to", "to must be a date or a time"),
        ({"timezone": 7}, "#/timezone", "timezone must be text"),
        ({"max_parallel": 0}, "#/max_parallel", "a whole number from 1 to 100"),
        ({"max_parallel": True}, "#/max_parallel", "a whole number from 1 to 100"),
        ({"max_parallel": "2"}, "#/max_parallel", "a whole number from 1 to 100"),
        ({"order": "random"}, "#/order", "order must be one of oldest, newest"),
        ({"order": ["newest"]}, "#/order", "order must be one of"),
        ({"only_missing": "yes"}, "#/only_missing", "must be true or false"),
        ({"dry_run": 1}, "#/dry_run", "must be true or false"),
        ({"reason": ""}, "#/reason", "reason must be text"),
        ({"oder": "newest"}, "#/oder", "did you mean 'order'?"),
    ],
)
async def test_what_is_wrong_with_a_request_is_pointed_at(
    client: Client, backfills: FakeBackfills, change: dict[str, Any], pointer: str, said: str
) -> None:
    body = {name: value for name, value in {**ASKED, **change}.items() if value is not None}
    got = await post(client, body=body)
    assert (got.status, got.json["code"]) == (422, "invalid_fields")
    assert [error["pointer"] for error in got.json["errors"]] == [pointer]
    assert said in got.json["errors"][0]["detail"]
    assert not backfills.asked


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (NotFound("there is no trigger x"), 404, "not_found"),
        (InvalidRequest("trigger x has 12,000 due instants"), 422, "invalid_request"),
        (Conflict("trigger x is disabled"), 409, "conflict"),
        (StoreUnavailable("the disk is full"), 503, "store_unavailable"),
        (PluginError("its timer raised"), 500, "internal_server_error"),
    ],
)
async def test_what_the_engine_refuses_is_a_problem_of_its_kind(
    client: Client, backfills: FakeBackfills, fault: Exception, status: int, code: str
) -> None:
    backfills.fault = fault
    got = await post(client, body=ASKED)
    assert (got.status, got.json["code"], got.json["detail"]) == (status, code, str(fault))


async def test_a_backfill_that_is_not_there_is_not_found(client: Client) -> None:
    for one in (new_id(), "x"):
        assert (await client.ask("GET", f"{BACKFILLS}/{one}")).status == 404
        assert (await post(client, f"{BACKFILLS}/{one}/cancel")).status == 404
