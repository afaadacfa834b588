"""Backfills of a whole engine: killed in their midst, beside live work, followed from the command line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.crash.process import ROOT, end_marked, started, wait_for
from tests.crash.site import TOKEN, Job, Site

TRIGGERS = """
[triggers.minutely]  # on the fifth of January alone, so that nothing is due while the test runs
on.cron = { expression = "* 10-11 5 1 *", timezone = "UTC" }
job = "work"
[triggers.asked]
on.event = "wanted"
job = "work"
"""
SPAN = {"from": "2026-01-05T10:00:00Z", "to": "2026-01-05T12:00:00Z"}
INSTANTS = 120
SPAN_OF_SECONDS = ["--from", SPAN["from"], "--to", "2026-01-05T15:00:00Z", "--max-parallel", "1"]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "site", jobs={"work": Job(seconds=0.01)}, triggers=TRIGGERS, concurrency=3)
    yield made
    end_marked({run for (run,) in made.rows("select id from runs")})


def begin(site: Site, **fields: Any) -> str:
    answer = site.post("/api/v1/backfills", {"trigger": "minutely", **SPAN, "reason": "it was down", **fields})
    assert answer.status == 201, answer.body
    return str(answer.body["id"])


def state_of(site: Site, backfill: str) -> dict[str, Any]:
    body: dict[str, Any] = site.ask("GET", f"/api/v1/backfills/{backfill}").body
    return body


def runs_of(site: Site, backfill: str) -> list[tuple[str, str, int, str]]:
    return site.rows(
        "select id, state, scheduled_for, key from runs where origin = 'backfill' and key like ? order by id",
        [f"backfill:{backfill} %"],
    )


@pytest.mark.timeout(120)
def test_killed_in_its_midst_again_and_again_each_instant_is_run_exactly_once(site: Site) -> None:
    backfill, enough = "", 0
    engine = started(site)
    try:
        backfill = begin(site, max_parallel=2)
        for enough in (7, 31, 32, 80):
            wait_for(lambda: len(runs_of(site, backfill)) >= enough, f"{enough} runs are made")  # noqa: B023
            engine.kill()
            engine = started(site)
        ended = wait_for(
            lambda: found if (found := state_of(site, backfill))["state"] == "completed" else None,
            lambda: f"it ends: {state_of(site, backfill)}", 60.0,
        )  # fmt: skip
        assert (ended["total"], ended["done"], ended["outcomes"]) == (INSTANTS, INSTANTS, {"succeeded": INSTANTS})
        runs = runs_of(site, backfill)
        assert [scheduled for *_, scheduled, _ in runs] == sorted({scheduled for *_, scheduled, _ in runs})
        assert len(runs) == INSTANTS
        counted = Counter(run.run for run in site.witnessed() if run.what == "stop")
        assert set(counted) >= {run for run, *_ in runs}
        assert not [one for one in site.witnessed() if one.what.startswith("over")]
        doctor = site.ask("GET", "/api/v1/doctor").body
        assert doctor["ledger"]["missing"] == 0
        assert doctor["ledger"]["waiting"] == 0
        status = site.ask("GET", "/api/v1/status").body
        assert status["backfills"] == {"open": 0, "states": {}, "held": {}}
        assert engine.stop() == 0
    finally:
        with engine:
            pass


@pytest.mark.timeout(120)
def test_live_work_finds_a_slot_while_a_backfill_has_all_that_it_may(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", jobs={"work": Job(seconds=600.0)}, triggers=TRIGGERS, concurrency=3, grace="0s")
    with started(site) as engine:
        backfill = begin(site, max_parallel=9)
        wait_for(lambda: state_of(site, backfill)["running"] == 2, lambda: str(state_of(site, backfill)))
        assert state_of(site, backfill)["waiting"] == 7
        answer = site.post("/api/v1/events", {"type": "wanted"})
        (run,) = answer.body["runs"]
        assert site.ask("GET", f"/api/v1/runs/{run}").body["trace"][-1]["reason"] == "started: a slot was free"
        cancelled = site.post(f"/api/v1/backfills/{backfill}/cancel", {"reason": "enough seen"}).body
        assert cancelled["state"] == "cancelling"
        wait_for(lambda: state_of(site, backfill)["waiting"] == 0, lambda: str(state_of(site, backfill)))
        assert state_of(site, backfill)["outcomes"] == {"cancelled": 7}
        engine.terminate()
        engine.wait()
    end_marked({run for (run,) in site.rows("select id from runs")})


@pytest.mark.timeout(120)
def test_the_command_follows_a_backfill_in_lines_and_leaves_it_to_the_engine_when_it_is_interrupted(site: Site) -> None:
    command = [sys.executable, "-m", "engine", "--url", f"http://127.0.0.1:{site.port}", "--token", TOKEN]
    span = ["--from", SPAN["from"], "--to", "2026-01-05T10:20:00Z"]
    with started(site) as engine:
        done = subprocess.run(
            [*command, "backfill", "minutely", *span], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "completed, 20 of 20 done: succeeded 20" in done.stdout
        again = subprocess.run(
            [*command, "backfill", "minutely", *span, "--only-missing", "--json"], cwd=ROOT, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        found = json.loads(again.stdout)
        assert (found["total"], found["skipped"], found["state"]) == (0, 20, "completed")
        followed = subprocess.Popen(
            [*command, "backfill", "minutely", *SPAN_OF_SECONDS], cwd=ROOT,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert followed.stdout is not None
        followed.stdout.readline()
        followed.send_signal(signal.SIGINT)
        _, said = followed.communicate(timeout=20)
        assert followed.returncode == 130
        assert "goes on; backfills" in said
        backfill = said.split()[1]
        wait_for(lambda: state_of(site, backfill)["state"] == "completed", lambda: str(state_of(site, backfill)), 60.0)
        assert engine.stop() == 0
