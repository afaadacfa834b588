"""Health: the probes and their other names, how each part is, and that it is told as it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from engine import runtime as runtime_module
from engine.config import load
from engine.errors import StoreUnavailable
from engine.runs import RunState
from engine.testing import VirtualClock
from engine.triggers import PauseScope
from tests.fake_operations import FakeOperations
from tests.fakes import until
from tests.http_client import Client
from tests.organs import InlineStore
from tests.test_adherence import pass_time
from tests.test_adherence import running as quiet_end
from tests.test_cli import Running, ask, here  # noqa: F401 - a fixture
from tests.test_cli import running as served  # noqa: F401 - a fixture
from tests.test_runtime import Gate, _fresh, a_registry, configured, fire  # noqa: F401 - a fixture
from tests.test_runtime import operations as of

V1 = "/api/v1"

PARTS = """
[engine]
shutdown_grace = "0s"
[jobs.work]
run.gate = "open"
[jobs.bad]
run.exec = ["false"]
[triggers.tick]
on.interval = "10m"
job = "work"
[triggers.go]
on.manual = true
job = "bad"
[triggers.off]
on.manual = true
job = "bad"
enabled = false
[triggers.held]
on.interval = "10m"
job = "work"
[triggers.tapped]
on.tap = { label = "a" }
job = "work"
[conditions.never]
check.file = "nowhere"
every = "1m"
"""


@pytest.fixture(autouse=True)
def _inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_module, "SqliteStore", InlineStore)


async def test_each_part_is_told_of_and_only_what_fails_is_in_trouble(tmp_path: Path) -> None:
    config, clock = configured(tmp_path, PARTS), VirtualClock()
    async with quiet_end(config, clock) as engine:
        await of(engine).pause(PauseScope.TRIGGER, "held", reason="a test")
        for _ in range(2):
            await fire(engine, "go")
        await pass_time(engine, clock, 660)
        await until(lambda: of(engine).metrics._counts.runs["bad", "failed"] == 2)
        found = await of(engine).vitals.detailed(triggers=of(engine).trigger_names())
        whole = of(engine).health()
        for one in (*found["checks"], *whole["checks"]):
            if one["name"] == "disk":
                one["detail"] = one["detail"].partition(" ")[2]  # others write to it meanwhile
        assert (found["status"], found["checks"]) == (whole["status"], whole["checks"])
        assert found["store"]["ok"] is True
        assert found["store"]["bytes"] > 0
        assert found["journal"]["commits"] > 0
        assert found["journal"]["commit_p99_s"] is not None
        assert found["disk"]["free_bytes"] > 0
        assert found["loop"]["ok"] is True
        sources = {one["plugin"]: (one["ok"], one["state"]) for one in found["sources"]}
        assert sources == dict.fromkeys(("manual", "tap"), (True, "running"))
        assert [one["name"] for one in found["conditions"]] == ["never"]
        told = {one["name"]: one for one in found["triggers"]}
        assert {name for name, one in told.items() if not one["ok"]} == {"go"}
        assert told["go"]["troubles"] == ["its last 2 runs failed (exit_code)"]
        assert told["go"]["failures_in_a_row"] == 2
        assert told["go"]["last_run"]["state"] == "failed"
        assert told["tick"]["last_run"]["state"] == "succeeded"
        assert told["tick"]["next_at"] is not None
        assert (told["held"]["state"], told["held"]["last_run"]) == ("paused", None)
        one = await of(engine).vitals.trigger("tick")
        assert (one["last_day"]["due"], one["last_day"]["ran"], one["last_day"]["success_rate"]) == (1, 1, 1.0)
    async with quiet_end(config, VirtualClock(clock.now())) as engine:
        [again] = await of(engine).vitals.triggers(["go"])
        assert (again["failures_in_a_row"], again["last_run"]) == (2, told["go"]["last_run"])
        assert (await of(engine).counting.lasts(["go", "off"])).keys() == {"go"}


async def test_a_good_run_ends_the_row_of_failures(tmp_path: Path) -> None:
    config, clock = configured(tmp_path, PARTS.replace('["false"]', '["sh", "-c", "test -e there"]')), VirtualClock()
    async with quiet_end(config, clock) as engine:
        run = of(engine)
        for number in range(3):
            if number == 2:
                (config.base / "there").touch()
            await fire(engine, "go")
            await until(lambda: sum(run.metrics._counts.runs.values()) == number + 1)  # noqa: B023 - awaited at once
        [told] = await run.vitals.triggers(["go"])
        assert (told["ok"], told["failures_in_a_row"], told["last_run"]["state"]) == (True, 0, RunState.SUCCEEDED)


async def test_a_trigger_whose_events_do_not_come_is_in_trouble(tmp_path: Path) -> None:
    text = PARTS.replace('on.tap = { label = "a" }', 'on.tap = { label = "a" }\nexpect = "5m"')
    clock = VirtualClock()
    async with quiet_end(configured(tmp_path, text), clock) as engine:
        await clock.advance(310)
        [told] = await of(engine).vitals.triggers(["tapped"])
        [trouble] = told["troubles"]
        assert trouble.startswith("trigger tapped expects an event every 5m, and none came since")


async def test_a_timer_that_was_due_long_ago_is_in_trouble(tmp_path: Path) -> None:
    clock = VirtualClock()
    async with quiet_end(configured(tmp_path, PARTS), clock) as engine:
        clock.step(700)
        [told] = await of(engine).vitals.triggers(["tick"])
        assert told["troubles"] == ["it was due 1m40s ago, and nothing has come of it yet"]
        await clock.advance(31)


async def test_a_store_that_is_away_is_told_of_and_the_rest_is_known(
    tmp_path: Path,
) -> None:
    clock = VirtualClock()
    async with quiet_end(configured(tmp_path, PARTS), clock) as engine:
        run = of(engine)
        store = run.store
        assert isinstance(store, InlineStore)
        store.read_error = store.write_error = StoreUnavailable("the disk is gone")
        with pytest.raises(StoreUnavailable):
            await fire(engine, "tick")
        found = await run.vitals.detailed(triggers=["tick"])
        assert found["status"] == "failing"
        assert found["store"] == {"ok": False, "problem": "the disk is gone", "bytes": found["store"]["bytes"]}
        assert found["conditions"] is None
        assert found["triggers"][0]["name"] == "tick"
        assert (await run.metrics.scrape()).body.count(b"trigger_engine_store_writable 0.0") == 1
        assert run.ready() == (False, ["the disk is gone"])
        store.read_error = store.write_error = None
        await clock.advance(10)
        assert run.ready() == (True, [])
        assert (await run.vitals.detailed(triggers=[]))["status"] == "ok"


# Over HTTP, and on the command line


@pytest.mark.parametrize(("alias", "name"), [("/livez", "/live"), ("/readyz", "/ready"), ("/healthz", "/health")])
async def test_probes_have_the_names_that_kubernetes_uses(
    operations: FakeOperations, client: Client, alias: str, name: str
) -> None:  # fmt: skip
    for unready in ([], ["the store is away"]):
        operations.unready = unready
        operations.state = "failing" if unready else "ok"
        first, second = await client.ask("GET", alias, token=None), await client.ask("GET", name, token=None)
        assert (first.status, first.json) == (second.status, second.json)
    assert second.status == (200 if name == "/live" else 503)


async def test_details_are_for_viewers_and_have_the_status_of_health(
    operations: FakeOperations, client: Client
) -> None:  # fmt: skip
    assert (await client.ask("GET", "/health/detailed", token=None)).status == 401
    assert (await client.ask("GET", "/health/detailed", headers={"Host": "evil.example"})).status == 403
    assert (await client.ask("GET", "/health/detailed", headers={"Origin": "https://evil.example"})).status == 403
    assert (await client.ask("GET", "/health/detailed?x=1")).status == 422
    got = await client.ask("GET", "/health/detailed")
    assert (got.status, got.json["triggers"][0]["name"], got.json["next"]) == (200, "nightly", None)
    operations.state = "failing"
    assert (await client.ask("GET", "/health/detailed")).status == 503
    assert (await client.ask("GET", f"{V1}/health")).status == 200
    one = (await client.ask("GET", f"{V1}/triggers/nightly/health")).json
    assert one["failures_in_a_row"] == 1
    assert (await client.ask("GET", f"{V1}/triggers/nope/health")).status == 404


def test_the_command_ends_with_1_where_something_is_not_well(served: Running, monkeypatch: Any) -> None:  # noqa: F811
    shown = ask(served, "health")
    assert shown.exit_code == 1
    assert "  NOT WELL  trigger nightly: its last run failed (exit)" in shown.stdout
    assert shown.stdout.startswith("The engine is ok; in trouble: trigger nightly\n")
    assert json.loads(ask(served, "--json", "health").stdout)["next"] is None


def test_the_first_line_of_health_says_what_is_not_well_and_that_all_is_paused(
    served: Running,  # noqa: F811
    monkeypatch: Any,
) -> None:
    async def detailed(_: object, *, triggers: Sequence[str]) -> dict[str, Any]:
        return {**served.operations.health(), "triggers": []}

    monkeypatch.setattr(type(served.operations.vitals), "detailed", detailed)
    shown = ask(served, "health")
    assert (shown.exit_code, shown.stdout.splitlines()[0]) == (0, "The engine is ok; no trigger is in trouble")
    served.operations.standing_still = "the engine is paused: a new version"
    shown = ask(served, "health")
    first = "The engine is paused: a new version; nothing starts; it is ok; no trigger is in trouble"
    assert (shown.exit_code, shown.stdout.splitlines()[0]) == (0, first)
    served.operations.standing_still, served.operations.state = None, "degraded"
    shown = ask(served, "health")
    assert shown.exit_code == 1
    assert shown.stdout.splitlines()[0] == "The engine is degraded; not well: loop; no trigger is in trouble"


async def test_a_pause_of_the_whole_engine_stands_beside_its_status(tmp_path: Path) -> None:
    async with quiet_end(configured(tmp_path, PARTS), VirtualClock()) as engine:
        await of(engine).pause(PauseScope.TRIGGER, "held", reason="a test")
        assert of(engine).health()["paused"] is None
        await of(engine).pause(PauseScope.ENGINE, "", reason="a new version")
        found = await of(engine).vitals.detailed(triggers=[])
        assert (found["status"], found["paused"]) == ("ok", "the engine is paused: a new version")


async def test_no_secret_stands_in_metrics_or_details(tmp_path: Path) -> None:
    text = """
[jobs.work]
run.gate = "open"
[sources.shop.http]
url = "http://127.0.0.1:9/orders"
allow_private = true
headers = { Authorization = { env = "CANARY" } }
every = "1s"
[triggers.poll]
on.source = "shop"
job = "work"
[triggers.hook]
on.webhook = { path = "in", verify = { token = { env = "CANARY" } } }
job = "work"
"""
    file = tmp_path / "config.toml"
    file.write_text(text, "utf-8")
    canary = "canary-sesame-4711"
    config = load([file], environment={"CANARY": canary}, registry=a_registry(), create_secrets=True)
    clock = VirtualClock()
    async with quiet_end(config, clock) as engine:
        await until(lambda: any(one["warning"] for one in of(engine).source_views()))
        told = await of(engine).vitals.detailed(triggers=of(engine).trigger_names())
        exposed = (await of(engine).metrics.scrape()).body.decode()
        assert 'source="http:shop"' in exposed
        for text in (json.dumps(told), exposed):
            assert canary not in text
