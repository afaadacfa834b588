"""An engine that is paused, killed and started again: it stays paused, says so, and goes on when the pause is over."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.crash.process import ROOT, started, wait_for
from tests.crash.site import TOKEN, Job, Site

TRIGGERS = """
[triggers.tick]
on.interval = "1s"
job = "quick"
tags = ["clock"]
[triggers.by-hand]
on.manual = true
job = "quick"
"""


def command(site: Site, *arguments: str) -> str:
    """Run a command of the engine and return what it says."""
    environment = {**os.environ, "ENGINE_TOKEN": TOKEN, "PYTHONPATH": str(ROOT), "LOGNAME": "ann"}
    done = subprocess.run(
        [sys.executable, "-m", "engine", *arguments], cwd=site.path, env=environment, check=True, capture_output=True,
        text=True, timeout=30,
    )  # fmt: skip
    return done.stdout


def count(site: Site, state: str) -> int:
    return int(site.rows("select count(*) from runs where state = ?", [state])[0][0])


def test_a_pause_outlives_a_kill_and_is_said_until_it_is_over(tmp_path: Path) -> None:
    site = Site(tmp_path, jobs={"quick": Job(seconds=0.01)}, triggers=TRIGGERS)
    with started(site) as engine:
        wait_for(lambda: count(site, "succeeded"), "a first run")
        paused_s = time.time()
        said = command(site, "pause", "--all", "--reason", "the warehouse moves", "--for", "1h")
        assert "The engine is paused until" in said
        assert "It holds for by-hand, tick" in said
        assert "It holds for tick\n" in command(site, "pause", "--tag", "clock")
        wait_for(lambda: count(site, "succeeded") and not count(site, "running"), "what runs has ended")
        engine.kill()
    before = count(site, "succeeded")
    with started(site) as engine:
        told = wait_for(lambda: log if "Ctrl-C stops" in (log := engine.logged()) else "", "the console is told")
        assert "2 triggers are paused: by-hand, tick" in told
        assert ", by admin token, for ann: the warehouse moves" in told
        shown = site.ask("GET", "/api/v1/triggers/tick").body
        assert [one["scope"] for one in shown["pauses"]] == ["engine", "tag"]
        fired = site.post("/api/v1/triggers/by-hand/fire", {}).body
        assert fired["outcomes"][0]["code"] == "engine_paused"
        passing = site.post("/api/v1/triggers/by-hand/fire", {"bypass": ["pause"]}).body["runs"][0]
        wait_for(lambda: site.ask("GET", f"/api/v1/runs/{passing}").body["state"] == "succeeded", "it passes the pause")
        assert count(site, "succeeded") == before + 1
        wait_for(lambda: time.time() > paused_s + 3, "several instants of the clock have passed")
        assert "Still: tag clock is paused" in command(site, "resume", "--all")
        assert count(site, "succeeded") == before + 1
        assert command(site, "resume", "--tag", "clock") == "Tag clock is resumed\n"
        wait_for(lambda: count(site, "succeeded") > before + 1, "the clock runs again")
        assert count(site, "missed") > 0
        assert engine.stop() == 0
