"""A real engine that is paused, killed, stopped for minutes and busy: `why` explains each due instant afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.crash.fakedtime import FakedTime, library
from tests.crash.process import ROOT, started, wait_for
from tests.crash.site import TOKEN, Job, Site

needs_faketime = pytest.mark.skipif(
    library() is None, reason="libfaketime is not installed: it sets the clock of a living engine"
)

TRIGGERS = """
[calendars.closed]
dates = ["2026-07-01"]
[triggers.minutely]
on.cron = { expression = "* * * * *", except = ["closed"] }
job = "work"
[triggers.busy]
on.cron = { expression = "* * * * *", except = ["closed"] }
job = "slow"
[triggers.off]
on.cron = "* * * * *"
job = "work"
enabled = false
[triggers.beat]
on.cron = "* * * * * *"
misfire = { catch_up = "none", grace = "1s" }
job = "beat"
"""
"""`beat` wakes the timers each second, so that a test need not wait half a minute until they look at the clock."""

MIDNIGHT = datetime(2026, 7, 2, tzinfo=UTC)


def minute(number: float) -> datetime:
    return MIDNIGHT + timedelta(minutes=number)


def count(site: Site, trigger: str, state: str) -> int:
    query = "select count(*) from runs where trigger = ? and state = ?"
    return int(site.rows(query, [trigger, state])[0][0])


def busy_at(site: Site, at: datetime) -> str | None:
    query = "select state from runs where trigger = 'busy' and scheduled_for = ?"
    found = site.rows(query, [int(at.timestamp() * 1_000_000)])
    return None if not found else str(found[0][0])


def explained(site: Site, trigger: str, upto: datetime) -> dict[str, Any]:
    since, until = quote("2026-07-01T23:50:00Z"), quote(upto.isoformat())
    found = site.ask("GET", f"/api/v1/triggers/{trigger}/why?from={since}&to={until}&limit=1000").body
    assert found["next"] is None
    return dict(found)


def by_minute(found: dict[str, Any]) -> dict[str, str]:
    """Return what became of each due minute of the day, as `HH:MM`; each has exactly one line."""
    told: dict[str, str] = {}
    for one in found["items"]:
        at, last = (datetime.fromisoformat(one[side] or one["at"]) for side in ("at", "until"))
        while at <= last:
            assert f"{at:%H:%M}" not in told, one
            told[f"{at:%H:%M}"] = one["verdict"]
            at += timedelta(minutes=1)
    return told


def say_why(site: Site, clock: FakedTime, trigger: str, upto: datetime) -> str:
    environment = {**os.environ, "ENGINE_TOKEN": TOKEN, "PYTHONPATH": str(ROOT), **clock.environment}
    done = subprocess.run(
        [sys.executable, "-m", "engine", "why", trigger, "--from", "2026-07-01T23:50:00Z", "--to", upto.isoformat()],
        cwd=site.path, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_faketime
def test_why_explains_each_due_instant_of_a_night_with_everything_in_it(tmp_path: Path) -> None:
    jobs = {"work": Job(seconds=0), "beat": Job(seconds=0), "slow": Job(seconds=6, limit=1, overlap="skip")}
    site = Site(tmp_path / "site", jobs=jobs, triggers=TRIGGERS)
    clock = FakedTime(site.path / "clock", minute(-3))
    with started(site, more=clock.environment) as engine:
        clock.set(minute(0) - timedelta(seconds=2))
        wait_for(lambda: count(site, "minutely", "succeeded") == 1, "midnight is run")
        # Paused over two minutes.
        assert site.post("/api/v1/triggers/minutely/pause", {"reason": "stock-taking"}).status == 200
        clock.set(minute(2.5))
        wait_for(lambda: "due_while_paused" in engine.logged(), "it comes due while it is paused", 35.0)
        assert site.post("/api/v1/triggers/minutely/resume", {}).status == 200
        wait_for(lambda: count(site, "minutely", "succeeded") == 2, "the latest is run")
        # Busy: the run of one minute is still at it when the next one comes.
        wait_for(lambda: not count(site, "busy", "running"), "nothing runs")
        clock.set(minute(3) - timedelta(seconds=2))
        wait_for(lambda: count(site, "busy", "running") == 1, "a slow run has begun")
        clock.set(minute(4) - timedelta(seconds=2))
        wait_for(lambda: busy_at(site, minute(4)) == "skipped", "another one is skipped")
        wait_for(lambda: count(site, "minutely", "succeeded") == 4, "the fourth minute is run")
        engine.kill()
    # Killed, and away for four minutes; then stopped, and away for four more.
    clock.set(minute(8.3))
    with started(site, more=clock.environment) as engine:
        wait_for(lambda: count(site, "minutely", "succeeded") == 5, "the latest is run")
        assert engine.stop() == 0
    clock.set(minute(12.3))
    with started(site, more=clock.environment) as engine:
        wait_for(lambda: count(site, "minutely", "succeeded") == 6, "the latest is run")
        found = explained(site, "minutely", minute(14))
        wait_for(lambda: not count(site, "busy", "running"), "nothing runs")
        busy = explained(site, "busy", minute(13))
        off = explained(site, "off", minute(13))
        said = say_why(site, clock, "minutely", minute(14))
        assert engine.stop() == 0

    good, missed = "succeeded", "missed"
    verdicts = by_minute(found)
    assert verdicts["23:59"] == "excluded"
    assert {at: verdict for at, verdict in verdicts.items() if verdict != "excluded"} == {
        "00:00": good, "00:01": missed, "00:02": good, "00:03": good, "00:04": good, "00:05": missed, "00:06": missed,
        "00:07": missed, "00:08": good, "00:09": missed, "00:10": missed, "00:11": missed, "00:12": good,
        "00:13": "to_come",
    }  # fmt: skip
    because = {f"{datetime.fromisoformat(one['at']):%H:%M}": " ".join(one["because"]) for one in found["items"]}
    assert "was paused: stock-taking" in because["00:01"]
    assert "was paused: stock-taking" in because["00:02"], "what is late says why"
    for killed in ("00:05", "00:07", "00:08"):
        assert "the engine was not running: it was killed (as by a second Ctrl-C), or its machine" in because[killed]
        assert "and was started at 2026-07-02T00:08:" in because[killed]
    for stopped in ("00:09", "00:11", "00:12"):
        assert "the engine was not running: it was stopped at 2026-07-02T00:08:" in because[stopped]
    assert because["00:03"] == because["00:00"] == ""
    excluded = next(one for one in found["items"] if one["verdict"] == "excluded")
    assert "closed" in excluded["reason"]

    skipped = next(one for one in busy["items"] if one["at"] == "2026-07-02T00:04:00Z")
    assert (skipped["verdict"], skipped["code"]) == ("skipped", "overlap")
    assert [seen["gate"] for seen in skipped["gates"]] == ["overlap"]
    assert {at for at in by_minute(busy) if at < "23"} == {f"00:{number:02}" for number in range(13)}

    assert [one["code"] for one in off["items"]] == ["not_there", "disabled"]
    assert sum(one["count"] for one in off["items"]) == 23
    assert "trigger off was disabled from 2026-07-01T23:5" in off["items"][-1]["reason"]

    assert "The engine was not running: it was killed (as by a second Ctrl-C), or its machine went down" in said
    assert "Trigger minutely was paused: stock-taking" in said
    assert "To run now what did not: python -m engine backfill minutely --from 2026-07-02T00:01:00Z" in said
    # The store alone tells the same.
    offline = say_why(site, clock, "minutely", minute(14))
    assert offline.startswith("No engine answers; this is what its store")
    assert "Trigger minutely was paused: stock-taking" in offline
    assert "has not been started since" in offline
