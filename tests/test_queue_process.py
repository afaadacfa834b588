"""An engine that is killed while people steer its queue: what was answered holds, and the order is kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.crash.process import ROOT, started, wait_for
from tests.crash.site import TOKEN, Job, Site

TRIGGERS = """
[triggers.go]
on.manual = true
job = "slow"
priority_max = 9
"""

JOBS = {"slow": Job(seconds=30, limit=1)}


def command(site: Site, *arguments: str, code: int = 0) -> str:
    """Run a command of the engine and return what it says."""
    environment = {**os.environ, "ENGINE_TOKEN": TOKEN, "PYTHONPATH": str(ROOT), "LOGNAME": "ann"}
    done = subprocess.run(
        [sys.executable, "-m", "engine", *arguments], cwd=site.path, env=environment, check=False, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def run(site: Site, run_id: str) -> dict[str, Any]:
    found: dict[str, Any] = site.ask("GET", f"/api/v1/runs/{run_id}").body
    return found


def fire(site: Site, **body: Any) -> str:
    (run_id,) = site.post("/api/v1/triggers/go/fire", body).body["runs"]
    return str(run_id)


def line(site: Site) -> list[str]:
    return [one["id"] for one in site.ask("GET", "/api/v1/queue").body["items"]]


def test_what_was_asked_of_the_queue_holds_after_a_kill_and_the_order_is_kept(tmp_path: Path) -> None:
    site = Site(tmp_path, jobs=JOBS, triggers=TRIGGERS)
    with started(site) as engine:
        running = fire(site)
        wait_for(lambda: run(site, running)["state"] == "running", "the first one runs")
        runs = [fire(site, priority=number % 10) for number in range(20)]
        command(site, "hold", runs[3], "--reason", "stock-taking")
        command(site, "priority", "9", runs[0], runs[1])
        command(site, "cancel", runs[5])
        flushed = command(site, "flush", "--trigger", "go", "--below", "2", "--reason", "old")
        assert flushed == "2 runs are cancelled: go 2\n"
        before = line(site)
        asked = site.post(f"/api/v1/runs/{running}/cancel", {"reason": "enough"})
        assert asked.status in (200, 202)
        engine.kill()
    with started(site) as engine:
        ended = wait_for(lambda: one if (one := run(site, running))["state"] == "cancelled" else None, "it has ended")
        assert ended["reason"].startswith("cancelled: by admin token: enough")
        following = wait_for(
            lambda: [one for one in before if run(site, one)["state"] == "running"], "the next one runs"
        )
        assert following == before[:1]
        assert line(site) == before[1:]
        assert (run(site, runs[3])["state"], run(site, runs[3])["code"]) == ("held", "held_by_hand")
        assert run(site, runs[5])["state"] == "cancelled"
        assert run(site, runs[0])["priority"] == 9
        assert f"Run {following[0]} cancelled: by admin token, for ann" in command(site, "cancel", following[0])
        again = command(site, "retry", runs[5])
        assert "once more" in again
        command(site, "release", runs[3])
        assert runs[3] in line(site)
        doctor = site.ask("GET", "/api/v1/doctor").body
        assert doctor["ok"], doctor
        engine.kill()


ORDERED = """
[triggers.first]
on.manual = true
job = "blocker"
[triggers.go]
on.event = "go"
job = "quick"
priority_max = 9
"""

MANY = 1_000


def whole_line(site: Site) -> list[str]:
    """Return the whole line, page by page."""
    runs: list[str] = []
    cursor = ""
    while True:
        page = site.ask("GET", f"/api/v1/queue?limit=200{cursor}").body
        runs += [one["id"] for one in page["items"]]
        if page["next"] is None:
            return runs
        cursor = f"&cursor={page['next']}"


def test_a_thousand_runs_of_mixed_priorities_start_in_the_same_order_after_a_kill(tmp_path: Path) -> None:
    """Fault row A7."""
    jobs = {"blocker": Job(seconds=60, on_crash="fail"), "quick": Job(runner="loop", seconds=0.0)}
    site = Site(tmp_path, jobs=jobs, triggers=ORDERED, concurrency=1)
    with started(site) as engine:
        (blocker,) = site.post("/api/v1/triggers/first/fire", {}).body["runs"]
        wait_for(lambda: run(site, blocker)["state"] == "running", "nothing else can run")
        for first in range(0, MANY, 100):
            events = [
                {"type": "go", "source": "test", "priority": number * 7919 % 10, "data": {"n": number}}
                for number in range(first, first + 100)
            ]
            assert site.post("/api/v1/events", events).status == 202
        before = whole_line(site)
        assert len(before) == MANY
        assert before == [row[0] for row in site.rows("select id from runs where job = 'quick' order by rank, id")]
        engine.kill()
    with started(site) as engine:
        left = "select 1 from runs where job = 'quick' and state <> 'succeeded' limit 1"
        wait_for(lambda: not site.rows(left), "all have run", within_s=60.0, pause_s=0.1)
        assert [
            row[0] for row in site.rows("select id from runs where job = 'quick' order by started_at, id")
        ] == before
        assert run(site, blocker)["state"] == "failed"
        engine.kill()
