"""Deliveries and statistics over HTTP, on the command line, and in a program of one's own."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from engine import DeliveryState, Engine, NotFound, RunState
from engine.deliveries import Delivery
from engine.embedding import RunContext
from tests.fake_operations import AT, FakeOperations
from tests.http_client import Client
from tests.test_cli import Running, ask, here, running  # noqa: F401 - fixtures

V1 = "/api/v1"


async def test_deliveries_are_listed_filtered_and_shown_with_their_run(
    operations: FakeOperations, client: Client
) -> None:  # fmt: skip
    run, other = (operations.add_run(state=RunState.FAILED) for _ in range(2))
    waits = operations.add_delivery(run, reason="waiting: 503", attempts=2, due_at=AT + timedelta(minutes=5))
    done = operations.add_delivery(other, state=DeliveryState.DELIVERED, code="delivered", finished_at=AT)
    page = (await client.ask("GET", f"{V1}/deliveries")).json
    assert [one["id"] for one in page["items"]] == [done.id, waits.id]
    assert page["items"][1] == {
        "id": waits.id, "target": "notify:ops", "event": "failed", "alert": None, "run": run.id,
        "job": "import", "state": "waiting", "code": "waiting",
        "reason": "waiting: 503", "attempts": 2, "created_at": "2026-11-21T09:30:00Z",
        "due_at": "2026-11-21T09:35:00Z", "finished_at": None,
    }  # fmt: skip
    for asked, expected in (
        ("state=delivered", [done.id]), (f"run={run.id}", [waits.id]), ("target=callback:x", []), ("limit=1", [done.id])
    ):  # fmt: skip
        found = (await client.ask("GET", f"{V1}/deliveries?{asked}")).json
        assert [one["id"] for one in found["items"]] == expected
    for asked in ("state=lost", "run=x", "cursor=x", "targett=x"):
        assert (await client.ask("GET", f"{V1}/deliveries?{asked}")).status == 422
    whole = (await client.ask("GET", f"{V1}/deliveries/{waits.id}")).json
    assert whole["message"]["title"] == "import failed"
    assert (await client.ask("GET", f"{V1}/deliveries/{run.id}")).status == 404
    shown = (await client.ask("GET", f"{V1}/runs/{run.id}")).json
    assert [one["id"] for one in shown["deliveries"]] == [waits.id]


async def test_statistics_are_answered_for_triggers_and_jobs(
    operations: FakeOperations, client: Client
) -> None:  # fmt: skip
    for path, key, name in (("triggers/nightly", "trigger", "nightly"), ("jobs/import", "job", "import")):
        found = (await client.ask("GET", f"{V1}/{path}/stats?over=7d")).json
        assert found[key] == name
        assert (found["total"], found["succeeded"], found["failed"], found["skipped"]) == (3, 1, 1, 1)
        assert found["by_state"] == {"succeeded": 1, "timed_out": 1, "skipped": 1}
        assert (found["success_rate"], found["duration_mean_s"]) == (0.5, 5.0)
        assert found["duration_p95_s"] == pytest.approx(9.0, rel=0.06)
        assert found["from"] < found["to"]
        for asked in ("over=soon", "over=400d", "under=1d"):
            assert (await client.ask("GET", f"{V1}/{path}/stats?{asked}")).status == 422
    assert (await client.ask("GET", f"{V1}/jobs/nope/stats")).status == 404
    assert (await client.ask("GET", f"{V1}/triggers/nope/stats")).status == 404


def test_the_commands_show_them(running: Running) -> None:  # noqa: F811
    operations = running.operations
    run = operations.add_run(state=RunState.FAILED)
    made = operations.add_delivery(run, reason="waiting: connection refused", attempts=1, due_at=AT)
    listed = ask(running, "deliveries")
    assert listed.exit_code == 0, listed.output
    assert "connection refused" in listed.stdout
    assert made.id in listed.stdout
    one = ask(running, "deliveries", made.id)
    assert "import failed" in one.stdout
    assert ask(running, "deliveries", made.id, "--state", "waiting").exit_code == 2
    assert json.loads(ask(running, "--json", "deliveries", "--run", run.id).stdout)["items"][0]["id"] == made.id
    assert "There are none" in ask(running, "deliveries", "--target", "callback:x").stdout
    assert "notify:ops about failed: waiting: connection refused" in ask(running, "run", run.id).stdout
    shown = ask(running, "stats", "nightly", "--over", "7d")
    assert shown.exit_code == 0, shown.output
    assert "50.0% of those that were judged succeeded" in shown.stdout
    assert json.loads(ask(running, "--json", "stats", "import", "--job").stdout)["total"] == 3
    assert ask(running, "stats", "nope").exit_code == 1


async def test_a_program_has_them_too(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "data", notify={"ops": {"url": "json://127.0.0.1:1/"}})

    @engine.job(notify=["ops"])
    async def work(run: RunContext) -> dict[str, int]:
        if run.data["n"] == 1:
            raise ValueError("no ones")
        return {"n": run.data["n"]}

    engine.add_trigger("go", job=work, manual=True)
    async with engine:
        for number in (1, 2, 3):
            (run,) = await engine.wait(await engine.fire("go", {"n": number}))
        found = await engine.stats(job="work", over="1h")
        assert found.ends == {RunState.FAILED: 1, RunState.SUCCEEDED: 2}
        assert (await engine.stats(trigger="go", over=timedelta(hours=1))).ends == found.ends
        told: tuple[Delivery, ...] = await engine.deliveries(target="notify:ops")
        assert [one.event for one in told] == ["recovered", "failed"]
        assert await engine.deliveries(run=run.id) == ()
        with pytest.raises(NotFound):
            await engine.fire("nope")


async def test_who_is_told_of_failures_is_told_when_they_pause_the_trigger(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "data", notify={"ops": {"url": "json://127.0.0.1:1/"}})

    @engine.job(notify=["ops"])
    async def work(run: RunContext) -> None:
        raise ValueError("no")

    engine.add_trigger("go", job=work, manual=True, pause_after=2)
    async with engine:
        for number in (1, 2):
            await engine.wait(await engine.fire("go", {"n": number}))
        last, first = [str(one.message["text"]) for one in await engine.deliveries(target="notify:ops")]
    assert "paused" not in first
    assert last.splitlines()[-1] == ("trigger go is paused now: 2 runs failed in a row; resume it when that is mended")
