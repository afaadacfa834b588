"""Pools, keys and retries of many: over HTTP, on the command line, and in a whole engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine import Engine
from engine.runs import RunState
from engine.waiting import RetryRequest
from tests.fake_operations import FakeOperations
from tests.fakes import until
from tests.http_client import Client
from tests.test_cli import Running, ask, here, running  # noqa: F401 - fixtures

V1 = "/api/v1"


async def test_pools_are_listed_changed_and_reset(operations: FakeOperations, client: Client) -> None:
    (one,) = (await client.ask("GET", f"{V1}/pools")).json["items"]
    assert (one["name"], one["taken"]) == ("warehouse", 2)
    answer = await client.ask("PATCH", f"{V1}/pools/warehouse", body={"limit": 3, "reason": "the night shift"})
    assert (answer.status, answer.json["limit"]) == (200, 3)
    assert operations.pools.asked[-1]["reason"] == "the night shift"
    assert (await client.ask("PATCH", f"{V1}/pools/warehouse", body={"reset": True})).json["limit"] == 2
    assert (await client.ask("GET", f"{V1}/pools/cellar")).status == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "limit"),
        ({"limit": 3}, "reason"),
        ({"limit": -1, "reason": "x"}, "limit"),
        ({"limit": "3", "reason": "x"}, "limit"),
        ({"limit": True, "reason": "x"}, "limit"),
        ({"reset": True, "limit": 3}, "reset"),
        ({"reset": False}, "reset"),
        ({"limit": 3, "reason": "x", "weight": 1}, "weight"),
    ],
)
async def test_a_change_of_a_pool_that_makes_no_sense_is_422(
    client: Client,
    body: dict[str, Any],
    field: str,
) -> None:
    answer = await client.ask("PATCH", f"{V1}/pools/warehouse", body=body)
    assert answer.status == 422
    assert field in json.dumps(answer.json["errors"])


async def test_a_queued_run_is_shown_with_what_it_waits_for(
    operations: FakeOperations,
    client: Client,
) -> None:
    run = operations.add_run(state=RunState.QUEUED)
    assert (await client.ask("GET", f"{V1}/runs/{run.id}")).json["waits_for"].startswith("waits for pool warehouse")
    ended = operations.add_run(state=RunState.SUCCEEDED)
    assert (await client.ask("GET", f"{V1}/runs/{ended.id}")).json["waits_for"] is None


async def test_failed_runs_are_retried_together(operations: FakeOperations, client: Client) -> None:
    body = {"reason": "the disk is back", "job": "import", "limit": 50, "rate": "5/s", "states": ["failed"]}
    answer = await client.ask("POST", f"{V1}/runs/retry", body=body)
    assert answer.status == 200, answer.json
    assert (answer.json["count"], answer.json["next"]) == (1, answer.json["items"][0]["run"])
    which, reason, who, dry_run = operations.queue.retries[-1]
    assert which == RetryRequest(states=frozenset({RunState.FAILED}), job="import", limit=50, rate_per_s=5.0)
    assert (reason, who, dry_run) == ("the disk is back", "admin token", False)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "reason"),
        ({"reason": "x", "states": ["succeeded"]}, "states"),
        ({"reason": "x", "limit": 0}, "limit"),
        ({"reason": "x", "rate": "fast"}, "rate"),
        ({"reason": "x", "rate": 5}, "rate"),
        ({"reason": "x", "cursor": "there"}, "cursor"),
        ({"reason": "x", "limit": 1000, "rate": "1/s"}, "longer than a minute"),
    ],
)
async def test_a_retry_of_many_that_makes_no_sense_is_422(
    client: Client,
    body: dict[str, Any],
    told: str,
) -> None:
    answer = await client.ask("POST", f"{V1}/runs/retry", body=body)
    assert answer.status == 422
    assert told in json.dumps(answer.json)


def test_the_command_lists_and_changes_pools(running: Running) -> None:  # noqa: F811
    assert "warehouse" in ask(running, "pools").stdout
    shown = ask(running, "pools", "warehouse").stdout
    assert "Pool warehouse: 2 of 2 taken" in shown
    assert "of job import, takes 2" in shown
    changed = ask(running, "pools", "warehouse", "--limit", "3", "--reason", "the night shift").stdout
    assert "changed from 2" in changed
    assert "2 of 2 taken" in ask(running, "pools", "warehouse", "--reset").stdout
    for arguments in (("--limit", "3"), ("warehouse", "--limit", "3"), ("warehouse", "--reason", "x"),
                      ("warehouse", "--reset", "--limit", "3")):  # fmt: skip
        assert ask(running, "pools", *arguments).exit_code == 2


def test_the_command_retries_all_that_failed_page_by_page(running: Running) -> None:  # noqa: F811
    result = ask(running, "retry", "--failed", "--job", "import", "--rate", "2/s", "--reason", "the disk is back")
    assert result.exit_code == 0, result.output
    assert "2 retried; 2 were retried before" in result.stdout
    first, second = (which for which, *_ in running.operations.queue.retries)
    assert (first.job, first.limit, first.rate_per_s, first.before) == ("import", 40, 2.0, None)
    assert second.before is not None
    for arguments in ((), ("--failed",), ("--job", "import", "0198b0c0-0000-7000-8000-000000000001"),
                      ("--failed", "--reason", "x", "--rate", "fast")):  # fmt: skip
        assert ask(running, "retry", *arguments).exit_code == 2


async def test_a_program_has_keys_pools_and_retries_of_many(tmp_path: Path) -> None:
    engine = Engine(tmp_path, pools={"warehouse": 2})
    going: dict[str, anyio.Event] = {}
    fails = True

    @engine.job(pools={"warehouse": 2}, concurrency_key=lambda event: event.data["customer"], concurrency=1)
    async def ship(run: Any) -> None:
        """Ship something."""
        going[run.run_id] = anyio.Event()
        await going[run.run_id].wait()
        if fails:
            raise RuntimeError("out of stock")

    engine.add_trigger("t", job=ship, manual={})
    async with engine:
        first = await engine.fire("t", {"customer": "anna"})
        second = await engine.fire("t", {"customer": "bert"})
        run = await engine.get_run(second.runs[0])
        assert (run.state, run.limit_key) == (RunState.QUEUED, "bert")
        assert engine.pools.waits_for(run) == (
            f"waits for pool warehouse: 2 of 2 taken by run {first.runs[0]}; it needs 2"
        )
        await engine.pools.change("warehouse", 4, reason="the night shift")
        await until(lambda: len(going) == 2)
        for gate in going.values():
            gate.set()
        assert {run.state for run in await engine.wait(first, second)} == {RunState.FAILED}
        fails = False
        planned = await engine.queue.retry_many(RetryRequest(), reason="new stock", dry_run=True)
        assert list(planned.made) == [first.runs[0], second.runs[0]]
        done = await engine.queue.retry_many(RetryRequest(rate_per_s=100.0), reason="new stock")
        assert list(done.made) == [first.runs[0], second.runs[0]]
        again = [run for runs in done.made.values() for run in runs]
        await until(lambda: all(run in going for run in again))
        for run_id in again:
            going[run_id].set()
        assert {run.state for run in await engine.wait(*again)} == {RunState.SUCCEEDED}
        # Who asks again retries nothing twice.
        more = await engine.queue.retry_many(RetryRequest(rate_per_s=100.0), reason="new stock")
        assert (dict(more.made), more.known) == ({}, (first.runs[0], second.runs[0]))
