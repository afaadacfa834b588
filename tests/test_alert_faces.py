"""Alerts in the configuration, over HTTP, on the command line, and in a program of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest

from engine import ConfigError, Engine
from engine import runtime as runtime_module
from engine.alerts.organ import LOOK_S
from engine.config import load
from engine.embedding import RunContext
from engine.testing import VirtualClock
from tests.fake_alerts import DELIVERY
from tests.fake_operations import FakeOperations
from tests.http_client import Client
from tests.organs import InlineStore
from tests.test_cli import Running, ask, here, running  # noqa: F401 - fixtures

V1 = "/api/v1"

BASE = """
[jobs.a]
run.exec = ["true"]
[notify.ops]
url = "json://localhost"
[triggers.a]
on.cron = "0 2 * * *"
job = "a"
[triggers.heard]
on.event = "x"
job = "a"
"""


def mistakes(folder: Path, text: str) -> list[str]:
    file = folder / "config.toml"
    file.write_text(BASE + text)
    with pytest.raises(ConfigError) as caught:
        load([file], environment={})
    return [f"{one.path}: {one.message}" for one in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[alerts.x]\n", "alerts.x.when: is missing, and no alert of that name is built in"),
        ("[alerts.x]\nwhen = {}", "alerts.x.when.failure_rate: is missing, and so is everything else to look at"),
        ("[alerts.x]\nwhen = { failures = 2, silent = true }", "alerts.x.when.silent: stands beside failures"),
        ("[alerts.x]\nwhen = { failures = 2, over = '5m' }", "alerts.x.when.over: has no effect beside failures"),
        ("[alerts.x]\nwhen = { missed = 2, min_runs = 3 }", "alerts.x.when.min_runs: has no effect beside missed"),
        ("[alerts.x]\nwhen = { failures = 2 }\nnotify = ['opps']", "but there is no such receiver"),
        ("[alerts.x]\nwhen = { failures = 2 }\nscope.jobs = ['b']", "but there is no such job"),
        ("[alerts.disk]\nscope.jobs = ['a']", "alerts.disk.scope: has no effect on disk_share"),
        ("[alerts.x]\nwhen = { failure_rate = 1.5 }", "alerts.x.when.failure_rate: found 1.5"),
        ("[alerts.x]\nwhen = { failed = 2 }", "alerts.x.when.failed: unknown key"),
        ("[triggers.b]\non.cron = '0 2 * * *'\njob = 'a'\ndeadline = 'noon'", 'deadline: found "noon", which is none'),
        ("[triggers.b]\non.event = 'y'\njob = 'a'\ndeadline = '2h'", "triggers.b.deadline: has no effect on event"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_at_its_place(tmp_path: Path, text: str, expected: str) -> None:
    found = mistakes(tmp_path, text)
    assert len(found) == 1
    assert expected in found[0]


def test_a_table_without_a_rule_is_the_one_that_is_built_in_and_one_with_a_rule_is_another(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        f"""{BASE}
        [alerts.source]
        notify = ["ops", "ops"]
        [alerts.failing]
        when = {{ failure_rate = 0.1, over = "5m" }}
        [alerts.missed]
        enabled = false
        """
    )
    alerts = load([file], environment={}).alerts
    assert (alerts["source"].for_s, alerts["source"].notify, alerts["source"].builtin) == (300.0, ("ops",), True)
    assert (alerts["failing"].limit, alerts["failing"].over_s, alerts["failing"].builtin) == (0.1, 300.0, False)
    assert not alerts["missed"].enabled
    assert alerts["disk"].notify == ()


async def test_the_api_shows_them_and_takes_what_people_do(
    operations: FakeOperations, client: Client
) -> None:  # fmt: skip
    (one,) = (await client.ask("GET", f"{V1}/alerts")).json["items"]
    assert (one["name"], one["state"], one["open"]) == ("failing", "open", 1)
    shown = (await client.ask("GET", f"{V1}/alerts/failing")).json
    assert (shown["subjects"][0]["text"], shown["deliveries"]) == ("3 runs failed in a row", [])
    assert (await client.ask("GET", f"{V1}/alerts/faling")).status == 404
    muted = await client.ask("POST", f"{V1}/alerts/failing/mute", body={"duration": "2h", "reason": "we know"})
    assert muted.json["muted"]["reason"] == "we know"
    for wrong in ({"reason": "x"}, {"duration": "2h"}, {"duration": "soon", "reason": "x"},
                  {"duration": "400d", "reason": "x"}, {"duration": "2h", "reason": "x", "who": "y"}):  # fmt: skip
        assert (await client.ask("POST", f"{V1}/alerts/failing/mute", body=wrong)).status == 422
    assert (await client.ask("POST", f"{V1}/alerts/failing/unmute")).json["muted"] is None
    taken = await client.ask("POST", f"{V1}/alerts/failing/acknowledge", body={"reason": "on it"})
    assert taken.json["acknowledged"]["reason"] == "on it"
    tried = await client.ask("POST", f"{V1}/alerts/failing/test")
    assert (tried.status, tried.json["deliveries"]) == (202, [DELIVERY])
    assert [next(iter(asked)) for asked in operations.alerts.asked] == ["mute", "unmute", "acknowledge", "test"]
    assert operations.alerts.asked[0]["mute"] == 7200.0


def test_the_commands_show_and_change_them(running: Running) -> None:  # noqa: F811
    listed = ask(running, "alert", "list")
    assert listed.exit_code == 0, listed.output
    assert "open (1)" in listed.stdout
    assert "3 runs failed in a row" in ask(running, "alert", "show", "failing").stdout
    muted = ask(running, "alert", "mute", "failing", "--for", "2h", "--reason", "we know")
    assert "muted" in muted.stdout
    assert "we know" in muted.stdout
    assert ask(running, "alert", "mute", "failing", "--for", "2h").exit_code == 2
    assert "open (1)" in ask(running, "alert", "unmute", "failing").stdout
    assert "acknowledged" in ask(running, "alert", "acknowledge", "failing", "--reason", "on it").stdout
    assert json.loads(ask(running, "--json", "alert", "list", "--open").stdout)["items"][0]["name"] == "failing"
    assert ask(running, "alert", "show", "nope").exit_code == 1


@pytest.mark.usefixtures("inline")
async def test_a_program_has_them_too_and_what_fails_is_seen_without_configuration(tmp_path: Path) -> None:
    clock = VirtualClock()
    engine = Engine(
        tmp_path / "data", clock=clock, notify={"ops": {"url": "json://127.0.0.1:1/"}},
        alerts={"failing": {"when": {"failures": 2}, "notify": ["ops"], "gather": "0s", "scope": {"triggers": ["go"]}}},
    )  # fmt: skip

    @engine.job
    async def work(run: RunContext) -> None:
        raise ValueError("no")

    engine.add_trigger("go", job=work, manual=True, deadline="05:00")
    async with engine:
        for _ in range(2):
            await engine.wait(await engine.fire("go"))
        for _ in range(100):
            await clock.advance(5)
            if await engine.deliveries(alert="failing"):
                break
        (told,) = await engine.deliveries(alert="failing")
        assert (told.event, told.alert, told.target) == ("opened", "failing", "notify:ops")
        assert engine.alerts.status() == {"failing": {"severity": "warning", "open": 1}}
        assert {view["name"] for view in engine.alerts.views()} >= {"disk", "late", "silent"}


async def test_a_program_is_told_of_names_in_a_scope_that_are_of_nothing(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "data", alerts={"failing": {"scope": {"triggers": ["goo"]}}})

    @engine.job
    async def work(run: RunContext) -> None: ...

    engine.add_trigger("go", job=work, manual=True)
    with pytest.raises(ConfigError, match=r"alerts\.failing\.scope\.triggers: found \"goo\", but there is no"):
        async with engine:
            pass


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nothing happen behind the back of the clock that the test turns."""
    monkeypatch.setattr(runtime_module, "SqliteStore", InlineStore)


async def opened(engine: Engine, clock: VirtualClock, name: str, *, looks: int = 200) -> list[str]:
    """Turn the clock until an alert is open, and return for whom."""
    for _ in range(looks):
        await clock.advance(5)
        view = engine.alerts.view(name)
        if view["open"]:
            return [one["subject"] for one in view["subjects"] if one["state"] == "open"]
    return []


@pytest.mark.usefixtures("inline")
async def test_what_ended_before_a_start_counts_and_failures_in_a_row_are_of_each_trigger(tmp_path: Path) -> None:
    clock = VirtualClock()

    def an_engine() -> Engine:
        rate = {"when": {"failure_rate": 0.5, "over": "1h", "min_runs": 2}, "gather": "0s"}
        engine = Engine(tmp_path / "data", clock=clock, alerts={"rate": rate})

        @engine.job
        async def work(run: RunContext) -> None:
            raise ValueError("no")

        engine.add_trigger("go", job=work, manual=True)
        return engine

    async with an_engine() as engine:
        await engine.wait(await engine.fire("go"))
        await engine.wait(await engine.fire("go"))
    async with an_engine() as engine:
        assert await opened(engine, clock, "rate") == ["trigger go"]
        assert not engine.alerts.view("failing")["open"]
        await engine.wait(await engine.fire("go"))
        assert await opened(engine, clock, "failing") == ["trigger go"]


@pytest.mark.usefixtures("inline")
async def test_a_trigger_that_did_not_succeed_by_its_deadline_is_late_until_it_does(tmp_path: Path) -> None:
    clock = VirtualClock()  # Monday, noon
    works: list[bool] = []
    engine = Engine(tmp_path / "data", clock=clock, timezone="UTC")

    @engine.job
    async def work(run: RunContext) -> None:
        if not works:
            raise ValueError("no")

    engine.add_trigger("nightly", job=work, cron="0 13 * * *", deadline="13:30")
    engine.add_trigger("lazy", job=work, cron="0 13 * * *")
    async with engine:
        await clock.advance(3600 + 60)
        assert not engine.alerts.view("late")["open"]
        await clock.advance(29 * 60)
        assert await opened(engine, clock, "late") == ["trigger nightly"]
        assert "did not succeed by" in engine.alerts.view("late")["subjects"][0]["text"]
        works.append(True)
        await engine.wait(await engine.fire("nightly"))
        for _ in range(100):
            await clock.advance(5)
            if not engine.alerts.view("late")["open"]:
                break
        assert not engine.alerts.view("late")["open"]


@pytest.mark.usefixtures("inline")
async def test_runs_that_take_long_and_a_queue_that_does_not_move_are_seen(tmp_path: Path) -> None:
    clock = VirtualClock()
    engine = Engine(
        tmp_path / "data", clock=clock, shutdown_grace="0s",
        alerts={
            "long": {"when": {"duration": "30m"}}, "stuck": {"when": {"queue_age": "20m"}},
            "many": {"when": {"queue_depth": 2}},
        },
    )  # fmt: skip

    @engine.job(concurrency=1, timeout="1d")
    async def work(run: RunContext) -> None:
        await enough.wait()

    enough = anyio.Event()
    engine.add_trigger("go", job=work, manual=True)
    async with engine:
        for _ in range(3):
            await engine.fire("go")
        assert await opened(engine, clock, "many") == ["engine"]
        assert await opened(engine, clock, "stuck", looks=400) == ["engine"]
        assert not engine.alerts.view("long")["open"]
        assert await opened(engine, clock, "long", looks=400) == ["trigger go"]
        enough.set()


@pytest.mark.usefixtures("inline")
async def test_health_is_degraded_while_one_that_is_critical_is_open_and_not_for_others(tmp_path: Path) -> None:
    clock = VirtualClock()
    engine = Engine(
        tmp_path / "data", clock=clock,
        alerts={
            "some": {"when": {"failures": 1}},
            "bad": {"when": {"failures": 2}, "severity": "critical", "scope": {"triggers": ["go"]}},
        },
    )  # fmt: skip

    @engine.job
    async def work(run: RunContext) -> None:
        if run.data.get("bad"):
            raise ValueError("no")

    engine.add_trigger("go", job=work, manual=True)

    async def after(bad: bool) -> tuple[str, bool, str]:
        await engine.wait(await engine.fire("go", {"bad": bad}))
        await clock.advance(8 * LOOK_S)
        found = await engine.vitals.detailed(triggers=[])
        [check] = [one for one in found["checks"] if one["name"] == "alerts"]
        return found["status"], check["ok"], check["detail"]

    async with engine:
        assert await after(False) == ("ok", True, "none is open")
        assert await after(True) == ("ok", True, "open: 1, none of them critical")
        status, ok, said = await after(True)
        assert (status, ok) == ("degraded", False)
        assert said.startswith("bad: trigger go: 2 runs failed in a row")
        await engine.alerts.mute("bad", duration_s=600, reason="we know")
        assert (await engine.vitals.detailed(triggers=[]))["status"] == "degraded"
        assert await after(False) == ("ok", True, "none is open")
