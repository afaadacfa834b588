"""Plugins that hang, block and break, in a real engine: they are named, and nobody else is harmed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.crash.audit import read_runs
from tests.crash.process import EngineProcess, started, wait_for
from tests.crash.site import Job, Site

BY_HAND = '[triggers.by-hand]\non.manual = true\njob = "work"\n'

HEAD = """
import asyncio, contextlib, time
import anyio
from engine.plugin import Event, Source, SourceContext
"""

SHIELDS = """
class Shields(Source, frozen=True, kw_only=True):
    name = "shields"
    async def run(self, context: SourceContext) -> None:
        context.ready()
        with anyio.CancelScope(shield=True):
            await anyio.sleep_forever()
"""

SWALLOWS = """
class Swallows(Source, frozen=True, kw_only=True):
    name = "swallows"
    async def run(self, context: SourceContext) -> None:
        context.ready()
        while True:
            with contextlib.suppress(BaseException):
                await asyncio.sleep(3600)
"""

IN_A_THREAD = """
class Threads(Source, frozen=True, kw_only=True):
    name = "threads"
    async def run(self, context: SourceContext) -> None:
        context.ready()
        await asyncio.to_thread(time.sleep, 600)
"""

NAPS = """
class Naps(Source, frozen=True, kw_only=True):
    name = "naps"
    async def run(self, context: SourceContext) -> None:
        context.ready()
        await asyncio.sleep(0.1)
        time.sleep(2)
        await context.emit(Event(type="napped"))
        await asyncio.sleep(3600)
"""

RAISES = """
class Raises(Source, frozen=True, kw_only=True):
    name = "raises"
    async def run(self, context: SourceContext) -> None:
        context.ready()
        raise RuntimeError("no route to host")
"""


def site_with(path: Path, *plugins: str, job: Job | None = None) -> Site:
    """Make a site whose triggers are on plugins, each given by its code."""
    (path / "plugins").mkdir()
    triggers = BY_HAND
    for code in plugins:
        name = code.partition('name = "')[2].partition('"')[0]
        (path / "plugins" / f"{name}.py").write_text(HEAD + code)
        triggers += f'[triggers.{name}]\non.{name} = {{}}\njob = "work"\n'
    return Site(path, jobs={"work": job or Job()}, triggers=triggers, plugins=path / "plugins")


def fire(site: Site) -> str:
    answer = site.post("/api/v1/triggers/by-hand/fire", {})
    assert answer.status == 202, answer
    return str(answer.body["runs"][0])


def source(site: Site, plugin: str) -> dict[str, Any]:
    items: list[dict[str, Any]] = site.ask("GET", "/api/v1/sources").body["items"]
    return next(item for item in items if item["plugin"] == plugin)


def stopped_while_it_works(site: Site, engine: EngineProcess) -> int:
    """Stop the engine while a run is going on; return the exit code once the run was seen to have ended well."""
    run = fire(site)
    wait_for(lambda: any(line.what == "start" for line in site.witnessed()), "the run starts")
    code = engine.stop()
    assert (read_runs(site)[run].state, len(read_runs(site)[run].attempts)) == ("succeeded", 1), engine.logged()
    return code


@pytest.mark.parametrize("code", [SHIELDS, SWALLOWS], ids=["shields", "swallows"])
def test_a_source_that_does_not_stop_is_left_behind_when_all_else_has_ended_in_order(tmp_path: Path, code: str) -> None:
    site = site_with(tmp_path, code, job=Job(seconds=1.0))
    with started(site) as engine:
        assert stopped_while_it_works(site, engine) == 0
        log = engine.logged()
    assert "action=source_stuck" in log
    assert "action=ended_without" in log
    assert "not stopped within 5s, it waits at " in log


def test_a_thread_of_a_plugin_that_does_not_end_is_left_behind_too(tmp_path: Path) -> None:
    site = site_with(tmp_path, IN_A_THREAD, job=Job(seconds=1.0))
    with started(site) as engine:
        assert stopped_while_it_works(site, engine) == 0
        assert "Ending without threads that did not stop: " in engine.logged()


def test_a_source_that_blocks_the_loop_is_named_with_its_stack_and_the_engine_goes_on(tmp_path: Path) -> None:
    site = site_with(tmp_path, NAPS)
    with started(site) as engine:
        wait_for(lambda: "action=loop_blocked" in engine.logged(), engine.logged)
        [known] = [
            culprit
            for culprit in site.ask("GET", "/api/v1/status").body["loop"]["culprits"]
            if culprit["name"].startswith("source naps:")
        ]
        assert known["place"].endswith(" in run")
        assert f"{tmp_path / 'plugins' / 'naps.py'}:" in known["place"]
        assert known["longest_s"] > 1
        health = site.ask("GET", "/health").body
        [loop] = [check for check in health["checks"] if check["name"] == "loop"]
        assert (health["status"], loop["ok"]) == ("degraded", False)
        assert "by source naps:" in loop["detail"]
        assert "time.sleep(2)" in engine.logged()
        wait_for(lambda: source(site, "naps")["events"] == 1, "it goes on where it was")
        run = fire(site)
        wait_for(lambda: site.unfinished() == 0, "all runs end")
        assert read_runs(site)[run].state == "succeeded"
        assert engine.stop() == 0


def test_a_source_that_raises_is_red_and_the_engine_and_the_others_are_not(tmp_path: Path) -> None:
    site = site_with(tmp_path, RAISES, NAPS.replace("time.sleep(2)", "pass"))
    with started(site) as engine:
        wait_for(lambda: source(site, "raises")["restarts"] >= 2, "it is started again")
        seen = source(site, "raises")
        assert (seen["state"], seen["last_error"]) in (
            ("failed", "RuntimeError: no route to host"), ("running", "RuntimeError: no route to host"),
        )  # fmt: skip
        assert (source(site, "naps")["state"], source(site, "naps")["restarts"]) == ("running", 0)
        run = fire(site)
        wait_for(lambda: site.unfinished() == 0, "all runs end")
        assert read_runs(site)[run].state == "succeeded"
        assert engine.stop() == 0
