"""The API's routes about what waits: what they ask for, what they answer, and what is wrong with bad input."""

from __future__ import annotations

from typing import Any

import pytest

from engine.errors import Conflict, NotFound, StoreUnavailable
from engine.ids import new_id
from engine.runs import Lane, RunState
from tests.fake_operations import FakeOperations
from tests.fake_queue import FLUSHED, FakeQueue
from tests.http_client import Client

V1 = "/api/v1"


@pytest.fixture
def queue(operations: FakeOperations) -> FakeQueue:
    return operations.queue


async def test_the_queue_is_told_in_its_order_and_in_pages(operations: FakeOperations, client: Client) -> None:
    runs = sorted(operations.add_run(state=RunState.QUEUED).id for _ in range(3))
    got = await client.ask("GET", f"{V1}/queue?limit=2")
    assert got.status == 200
    assert [one["id"] for one in got.json["items"]] == runs[:2]
    first, second = got.json["items"]
    assert (first["position"], first["lane"], first["expected_start_at"]) == (1, "manual", None)
    assert second["expected_start_at"] == "2026-11-21T09:30:02Z"
    assert got.json["waiting"] == {"held": 0, "pending": 0, "queued": 3, "retrying": 0}
    assert (got.json["running"], got.json["slots"], got.json["next"]) == (2, 4, f"0.{runs[1]}")
    rest = await client.ask("GET", f"{V1}/queue?limit=2&cursor={got.json['next']}")
    assert ([one["id"] for one in rest.json["items"]], rest.json["next"]) == (runs[2:], None)
    await client.ask("GET", f"{V1}/queue?lane=backfill")
    assert operations.queue.lanes == [None, None, Lane.BACKFILL]


@pytest.mark.parametrize(
    "asked", ["lane=fast", "limit=0", "cursor=5", "cursor=x.y", "cursor=" + "9" * 30 + ".a", "job=a"]
)
async def test_a_query_that_makes_no_sense_is_told_so(client: Client, asked: str) -> None:
    got = await client.ask("GET", f"{V1}/queue?{asked}")
    assert got.status == 422
    assert got.json["errors"][0]["parameter"] == asked.partition("=")[0]


@pytest.mark.parametrize(("what", "state"), [("cancel", "cancelled"), ("hold", "held"), ("release", "queued")])
async def test_a_run_is_steered_and_told(operations: FakeOperations, client: Client, what: str, state: str) -> None:
    run = operations.add_run(state=RunState.QUEUED)
    got = await client.ask(
        "POST", f"{V1}/runs/{run.id}/{what}", body={"reason": "why not"}, headers={"X-Performed-By": "ann"}
    )
    assert (got.status, got.json["state"], got.json["id"]) == (200, state, run.id)
    assert operations.queue.asked == [(what, run.id, "why not", "admin token, for ann")]
    got = await client.ask("POST", f"{V1}/runs/{new_id()}/{what}")
    assert got.status == 404


async def test_the_end_of_a_running_run_is_yet_to_come(operations: FakeOperations, client: Client) -> None:
    run = operations.add_run(state=RunState.RUNNING)
    got = await client.ask("POST", f"{V1}/runs/{run.id}/cancel")
    assert (got.status, got.json["state"], got.json["code"]) == (202, "running", "cancelling")


async def test_a_priority_is_given_by_number_or_name(operations: FakeOperations, client: Client) -> None:
    run = operations.add_run(state=RunState.QUEUED)
    for given, number in ((0, 0), ("high", 8)):
        got = await client.ask("PATCH", f"{V1}/runs/{run.id}", body={"priority": given, "reason": "boss"})
        assert (got.status, got.json["priority"]) == (200, number)
        assert operations.queue.asked[-1][1] == (run.id, number)
    for wrong in ({}, {"priority": 10}, {"priority": "urgent"}, {"priority": None}, {"priority": 5, "state": "queued"}):
        got = await client.ask("PATCH", f"{V1}/runs/{run.id}", body=wrong)
        assert got.status == 422, wrong
        assert got.json["errors"][0]["pointer"] in ("#/priority", "#/state")
    assert len(operations.queue.asked) == 2


async def test_a_run_is_run_once_more(operations: FakeOperations, client: Client) -> None:
    run = operations.add_run(state=RunState.FAILED)
    got = await client.ask("POST", f"{V1}/runs/{run.id}/retry", headers={"Idempotency-Key": "k"})
    assert got.status == 202
    assert got.headers["Location"] == f"{V1}/events/{got.json['event']}"
    assert [(key or "").partition(" ")[0] for key in operations.queue.request_ids] == ["k"]


@pytest.mark.parametrize(("fault", "status"), [(Conflict("it is running"), 409), (StoreUnavailable("full"), 503)])
async def test_what_can_not_be_now_has_its_status(
    operations: FakeOperations, client: Client, fault: Exception, status: int
) -> None:
    run = operations.add_run(state=RunState.QUEUED)
    operations.queue.fault = fault
    asked: list[tuple[str, str, Any]] = [("POST", what, {}) for what in ("cancel", "hold", "release", "retry")]
    for method, what, body in [*asked, ("PATCH", "", {"priority": 1})]:
        got = await client.ask(method, f"{V1}/runs/{run.id}/{what}".rstrip("/"), body=body)
        assert (got.status, got.json["detail"]) == (status, str(fault))


async def test_a_flush_says_what_is_meant_and_why(operations: FakeOperations, client: Client) -> None:
    body = {
        "trigger": "nightly", "tag": "import", "states": ["queued", "held"], "lane": "live", "priority_below": "normal",
        "reason": "flood", "dry_run": True,
    }  # fmt: skip
    got = await client.ask("POST", f"{V1}/queue/flush", body=body)
    assert got.json == {"dry_run": True, "count": 3, "triggers": {"nightly": 3}, "runs": [*FLUSHED]}
    ((which, dry_run),) = operations.queue.flushes
    assert (which.trigger, which.tag, which.job, which.lane, which.priority_below) == (
        "nightly", "import", None, Lane.LIVE, 5,
    )  # fmt: skip
    assert which.states == frozenset({RunState.QUEUED, RunState.HELD})
    assert (which.whole, dry_run) == (False, True)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"all": True}, "#/reason"),
        ({"all": 1, "reason": "r"}, "#/all"),
        ({"states": ["running"], "reason": "r"}, "#/states"),
        ({"states": "queued", "reason": "r"}, "#/states"),
        ({"lane": "fast", "reason": "r"}, "#/lane"),
        ({"lane": ["live"], "reason": "r"}, "#/lane"),
        ({"priority_below": 99, "reason": "r"}, "#/priority_below"),
        ({"jobs": "a", "reason": "r"}, "#/jobs"),
    ],
)
async def test_a_flush_that_makes_no_sense_flushes_nothing(
    queue: FakeQueue, client: Client, body: Any, pointer: str
) -> None:
    got = await client.ask("POST", f"{V1}/queue/flush", body=body)
    assert got.status == 422
    assert got.json["errors"][0]["pointer"] == pointer
    assert queue.flushes == []


async def test_a_flush_of_everything_has_to_be_said(queue: FakeQueue, client: Client) -> None:
    got = await client.ask("POST", f"{V1}/queue/flush", body={"reason": "r"})
    assert (got.status, got.json["code"]) == (422, "invalid_request")
    assert (await client.ask("POST", f"{V1}/queue/flush", body={"reason": "r", "all": True})).status == 200


async def test_what_is_not_there_is_404(queue: FakeQueue, client: Client) -> None:
    queue.fault = NotFound("there is no trigger x")
    got = await client.ask("POST", f"{V1}/queue/flush", body={"trigger": "x", "reason": "r"})
    assert got.status == 404
