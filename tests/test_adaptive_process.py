"""An adaptive interval in a whole engine: it grows while the job fails, outlives kills, and comes back."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.crash.process import EngineProcess, started, wait_for
from tests.crash.site import Site

TRIGGERS = """
[jobs.check]
run.exec = ["sh", "-c", "test ! -e broken"]
[triggers.often]
on.interval = "1s"
adaptive = { min = "1s", max = "4s", success_rate_min = 0.9, load_max = 1000.0, step = 2, hold = 1 }
job = "check"
"""


def interval_s(site: Site) -> float:
    seen: float = site.ask("GET", "/api/v1/triggers/often").body["adaptive"]["interval_s"]
    return seen


def changes(site: Site) -> list[dict[str, Any]]:
    """Return the data of all events that tell of a change, in order."""
    rows = site.rows("select data from events where type = 'engine.interval.changed' order by id")
    return [json.loads(data) for (data,) in rows]


def remembered(site: Site) -> dict[str, Any]:
    [(value,)] = site.rows("select value from memory where source = 'engine:adaptive'")
    found: dict[str, Any] = json.loads(value)
    return found


def whole(site: Site) -> None:
    """Fail where the ledger, the events and what is remembered do not fit together."""
    doctor = site.ask("GET", "/api/v1/doctor").body
    assert doctor["ok"], doctor
    told, kept = changes(site), remembered(site)
    assert told[-1]["new_s"] == kept["pace"]["interval_s"]
    assert all(before["new_s"] == after["old_s"] for before, after in pairwise(told))
    assert all(0.5 <= change["new_s"] / change["old_s"] <= 2 for change in told)


@pytest.mark.timeout(150)
def test_the_interval_of_a_failing_job_grows_outlives_kills_and_comes_back_when_it_succeeds(tmp_path: Path) -> None:
    site = Site(tmp_path / "site", jobs={}, triggers=TRIGGERS)
    broken = site.path / "broken"
    broken.touch()
    engine: EngineProcess = started(site)
    try:
        wait_for(lambda: len(changes(site)) >= 1, "it grows", 30)
        engine.kill()
        before = remembered(site)
        engine = started(site)
        assert interval_s(site) == before["pace"]["interval_s"] >= 2
        wait_for(lambda: interval_s(site) == 4, "it has grown to its longest", 30)
        whole(site)
        for pause_s in (0.0, 0.3, 1.1):
            time.sleep(pause_s)
            engine.kill()
            engine = started(site)
            assert interval_s(site) == 4
            whole(site)
        broken.unlink()
        wait_for(lambda: interval_s(site) == 1, "it is the configured one again", 60)
        whole(site)
        assert [change["new_s"] for change in changes(site)] == [2, 4, 2, 1]
        assert changes(site)[-1]["inputs"]["load"]["value"] > 0
        assert site.post("/api/v1/triggers/often/adaptive", {"action": "freeze", "reason": "audit"}).status == 200
        engine.kill()
        engine = started(site)
        assert site.ask("GET", "/api/v1/triggers/often").body["adaptive"]["frozen"]["reason"] == "audit"
        assert engine.stop() == 0
    finally:
        if engine.exit_code is None:
            engine.kill()
    dues = [due for (due,) in site.rows("select scheduled_for from runs where trigger = 'often'")]
    assert len(dues) == len(set(dues))
