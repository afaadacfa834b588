"""Conditions in the configuration, over HTTP, on the command line, and in a whole engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine import Engine
from engine.config import load
from engine.decide.conditions import Joins, OnError
from engine.errors import ConfigError
from engine.runs import RunState
from plugins.conditions.tcp import Tcp
from tests.fake_operations import FakeOperations
from tests.http_client import Client
from tests.test_cli import Running, ask, here, running  # noqa: F401 - fixtures
from tests.test_plan import compare
from tests.test_plan import read as read_sent
from tests.test_runtime import comes_to, configured, fire, free_port
from tests.test_runtime import operations as operations_of
from tests.test_runtime import running as engine_running

V1 = "/api/v1"

WHOLE = """
[engine]
conditions = ["quiet"]
[conditions.warehouse-up]
check.tcp = "db.internal:5432"
every = "5s"
timeout = "2s"
on_error = "open"
shadow = true
description = "the warehouse"
tags = ["db"]
[conditions.quiet]
check.resources = { load_max = 100 }
[conditions.both]
all = ["warehouse-up", "quiet", "quiet"]
[conditions.either]
any = ["both"]
[conditions.neither]
not = "either"
[jobs.work]
run.exec = ["true"]
[triggers.t]
on.manual = {}
job = "work"
conditions = ["both", "neither", "both"]
otherwise = { hold = "2h" }
[triggers.u]
on.manual = {}
job = "work"
otherwise = "skip"
"""


def read(path: Path, text: str) -> Any:
    (path / "config.toml").write_text(text, "utf-8")
    return load([path / "config.toml"], environment={})


def test_conditions_are_read_with_all_that_they_say(tmp_path: Path) -> None:
    config = read(tmp_path, WHOLE)
    up = config.conditions["warehouse-up"]
    assert up.check == Tcp(address="db.internal:5432")
    assert (up.every_s, up.timeout_s, up.on_error, up.shadow) == (5.0, 2.0, OnError.OPEN, True)
    assert (up.description, up.tags, up.enabled) == ("the warehouse", ("db",), True)
    assert up.defined_in.endswith("config.toml:4")
    both, either, neither = (config.conditions[name] for name in ("both", "either", "neither"))
    assert (both.joins, both.of) == (Joins.ALL, ("warehouse-up", "quiet"))
    assert (either.joins, either.of, neither.joins, neither.of) == (Joins.ANY, ("both",), Joins.NOT, ("either",))
    assert (config.triggers["t"].conditions, config.triggers["t"].hold_s) == (("both", "neither"), 7200.0)
    assert (config.triggers["u"].conditions, config.triggers["u"].hold_s) == ((), None)
    assert config.engine.conditions == ("quiet",)


JOB = '[jobs.work]\nrun.exec = ["true"]\n'
ON = "[triggers.t]\non.manual = {}\njob = 'work'\n"


@pytest.mark.parametrize(
    ("text", "path", "message", "hint"),
    [
        ("[conditions.a]\n", "conditions.a.check", "found none of check, all, any and not", None),
        ('[conditions.a]\ncheck.tcp = "a:1"\nany = ["b"]\n[conditions.b]\ncheck.tcp = "a:1"', "conditions.a.any",
         "found check and any, expected one", None),
        ('[conditions.a]\nall = ["b"]\nevery = "5s"\n[conditions.b]\ncheck.tcp = "a:1"', "conditions.a.every",
         "has no effect beside all", None),
        ("[conditions.a]\nall = []", "conditions.a.all", "expected at least 1", None),
        ('[conditions.a]\nnot = "a"', "conditions.a", "names itself: a → a", None),
        ('[conditions.a]\nall = ["b"]\n[conditions.b]\nnot = "a"', "conditions.a", "names itself: a → b → a", None),
        ('[conditions.a]\nall = ["bee"]\n[conditions.beee]\ncheck.tcp = "a:1"', "conditions.a.all[0]",
         "there is no such condition", 'did you mean "beee"?'),
        ('[conditions.a]\ncheck.tpc = "a:1"', "conditions.a.check.tpc", "there is no condition", 'did you mean "tcp"?'),
        ('[conditions.a]\ncheck.tcp = "a"', "conditions.a.check.tcp", "is no host and port", None),
        ('[conditions.a]\ncheck.tcp = "a:1"\nevery = "1ms"', "conditions.a.every", "a duration of at least", None),
        ("[conditions.a]\ncheck.last_run = 'wrok'\n" + JOB, "conditions.a.check.last_run", "there is no such job",
         'did you mean "work"?'),
        (JOB + ON + 'conditions = ["up"]', "triggers.t.conditions[0]", "there is no such condition", None),
        (JOB + ON + 'otherwise = { hold = "2h" }', "triggers.t.otherwise", "has no effect", None),
        (JOB + ON + 'otherwise = "wait"', "triggers.t.otherwise", 'expected "skip" or a table', None),
        ('[engine]\nconditions = ["up"]', "engine.conditions[0]", "there is no such condition", None),
    ],
)  # fmt: skip
def test_a_wrong_condition_is_refused_where_it_stands(
    tmp_path: Path, text: str, path: str, message: str, hint: str | None
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    (problem,) = caught.value.problems
    assert problem.path == path
    assert message in problem.message
    assert hint is None or hint == problem.hint


# HTTP


async def test_conditions_are_listed_shown_overridden_and_reset(
    operations: FakeOperations,
    client: Client,
) -> None:
    listed = await client.ask("GET", f"{V1}/conditions")
    assert [one["name"] for one in listed.json["items"]] == ["warehouse-up"]
    assert (await client.ask("GET", f"{V1}/conditions/warehouse-up")).json["waiting"] == 2
    body = {"thresholds": {"most": "5m"}, "enabled": False, "reason": "it is night"}
    changed = await client.ask("PATCH", f"{V1}/conditions/warehouse-up", body=body)
    assert (changed.status, changed.json["override"]["reason"]) == (200, "it is night")
    assert operations.conditions.asked[0]["thresholds"] == {"most": "5m"}
    assert operations.conditions.asked[0]["who"] == "admin token"
    reset = await client.ask("PATCH", f"{V1}/conditions/warehouse-up", body={"reset": True})
    assert (reset.status, reset.json["override"]) == (200, None)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "#/reason"), ({"reason": "x"}, "#/thresholds"), ({"enabled": False}, "#/reason"),
        ({"enabled": "no", "reason": "x"}, "#/enabled"), ({"thresholds": [], "reason": "x"}, "#/thresholds"),
        ({"reset": True, "enabled": True}, "#/reset"), ({"command": ["x"], "reason": "x"}, "#/command"),
    ],
)  # fmt: skip
async def test_a_change_that_makes_no_sense_is_422(
    client: Client,
    body: Any,
    pointer: str,
) -> None:
    got = await client.ask("PATCH", f"{V1}/conditions/warehouse-up", body=body)
    assert got.status == 422
    assert pointer in [error["pointer"] for error in got.json["errors"]]


async def test_what_is_no_threshold_is_422_and_what_is_not_there_404(client: Client) -> None:
    body = {"thresholds": {"address": "evil:1"}, "reason": "x"}
    assert (await client.ask("PATCH", f"{V1}/conditions/warehouse-up", body=body)).status == 422
    assert (await client.ask("GET", f"{V1}/conditions/none")).status == 404


# The command line


def test_the_command_lists_shows_and_overrides(running: Running) -> None:  # noqa: F811
    listed = ask(running, "conditions")
    assert listed.exit_code == 0, listed.output
    assert "warehouse-up  hold" in listed.output
    shown = ask(running, "conditions", "warehouse-up")
    assert "Condition warehouse-up: hold: connection refused" in shown.output
    assert "held runs: 2" in shown.output
    changed = ask(running, "conditions", "warehouse-up", "--set", "most=5m", "--disable", "--reason", "it is night")
    assert changed.exit_code == 0, changed.output
    (asked,) = running.operations.conditions.asked
    assert (asked["thresholds"], asked["enabled"], asked["reason"]) == ({"most": "5m"}, False, "it is night")
    assert "most = 5m, enabled = false" in changed.output
    assert json.loads(ask(running, "conditions", "warehouse-up", "--reset", "--json").output)["override"] is None


@pytest.mark.parametrize(
    "arguments",
    [
        ("--set", "a=1", "--reason", "x"), ("warehouse-up", "--set", "a=1"), ("warehouse-up", "--set", "a"),
        ("warehouse-up", "--enable", "--disable", "--reason", "x"), ("warehouse-up", "--reason", "x"),
        ("warehouse-up", "--reset", "--enable"),
    ],
)  # fmt: skip
def test_the_command_refuses_what_makes_no_sense(running: Running, arguments: tuple[str, ...]) -> None:  # noqa: F811
    assert ask(running, "conditions", *arguments).exit_code == 2
    assert not running.operations.conditions.asked


# A whole engine

ENGINE = """
[conditions.open]
check.file = "open"
every = "100ms"
[jobs.work]
run.exec = ["true"]
[triggers.t]
on.manual = {}
job = "work"
conditions = ["open"]
otherwise = { hold = "1h" }
"""


async def test_an_engine_holds_runs_over_a_restart_and_lets_them_go(tmp_path: Path) -> None:
    config = configured(tmp_path, ENGINE, port=free_port())
    async with engine_running(config) as engine:
        held = await fire(engine, "t")
        run = await comes_to(engine, held, RunState.HELD)
        assert run.reason.startswith(f"held: condition open: {tmp_path}/open is not there (")
        faces = operations_of(engine)
        view = faces.trigger_view("t")
        assert [one["state"] for one in view["conditions"]] == ["hold"]
        assert view["otherwise"] == {"hold": "1h"}
        assert (await faces.status())["conditions"]["total"] == 1
        assert faces.health()["status"] == "ok", "a condition that holds does what it is for"
        check = (await faces.conditions.view("open"))["check"]
        assert check["file"]["path"] == str(tmp_path / "open")
    async with engine_running(config) as engine:
        assert (await comes_to(engine, held, RunState.HELD)).code == "condition"
        (tmp_path / "open").touch()
        await comes_to(engine, held, RunState.SUCCEEDED)


async def test_a_held_run_is_shown_with_how_its_conditions_are_now(
    operations: FakeOperations,
    client: Client,
) -> None:
    held = operations.add_run(state=RunState.HELD)
    shown = (await client.ask("GET", f"{V1}/runs/{held.id}")).json
    assert [one["name"] for one in shown["conditions"]] == ["warehouse-up"]
    ended = operations.add_run(state=RunState.SUCCEEDED)
    assert "conditions" not in (await client.ask("GET", f"{V1}/runs/{ended.id}")).json


def test_a_plan_tells_of_changed_conditions(tmp_path: Path) -> None:
    other = WHOLE.replace('every = "5s"', 'every = "6s"').replace("load_max = 100", "load_max = 200")
    other = other.replace('otherwise = { hold = "2h" }', 'otherwise = { hold = "3h" }')
    other = other.replace('not = "either"', 'not = "quiet"') + '[conditions.more]\ncheck.file = "x"\n'
    view = compare(read_sent(WHOLE, tmp_path), read_sent(other, tmp_path))
    assert view["changes"]
    keys = {change["key"]: (change["from"], change["to"]) for change in view["settings"]}
    assert keys["conditions.warehouse-up.every"] == ("5s", "6s")
    assert keys["conditions.quiet.check.resources.load_max"] == (100.0, 200.0)
    assert keys["conditions.neither.not"] == (["either"], ["quiet"])
    assert "conditions.more.check" in keys
    (trigger,) = view["triggers"]
    assert trigger["keys"] == [{"key": "otherwise.hold", "from": "2h", "to": "3h"}]


async def test_a_program_names_the_conditions_of_its_configuration(tmp_path: Path) -> None:
    engine = Engine(tmp_path, conditions={"never": {"check": {"file": str(tmp_path / "no")}}})

    @engine.job
    async def work(run: object) -> None:
        """Do nothing."""

    engine.add_trigger("t", job=work, manual={}, conditions=["never"])
    with pytest.raises(ConfigError, match="there is no such condition"):
        engine.add_trigger("u", job=work, manual={}, conditions=["nevr"])
    async with engine:
        (run,) = await engine.wait(await engine.fire("t"))
        assert (run.state, run.code) == (RunState.SKIPPED, "condition")
        (run,) = await engine.wait(await engine.fire("t", bypass=["conditions"]))
        assert run.state is RunState.SUCCEEDED
