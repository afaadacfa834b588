"""Metrics of an engine that is killed: its counters begin anew, and what is stored says the same as before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.crash.process import started, wait_for
from tests.crash.site import Job, Site

TRIGGERS = """
[triggers.hook]
on.webhook = { path = "in", verify = "none" }
job = "quick"
filter = "data.n % 2 == 0"
[triggers.tick]
on.interval = "1s"
job = "quick"
"""


def figures(site: Site, name: str) -> dict[tuple[str, ...], float]:
    """Return what a scrape says of a metric, by the values of its labels in the order of their names."""
    found: dict[tuple[str, ...], float] = {}
    read: Any = text_string_to_metric_families
    for family in read(site.ask_text("/metrics")):
        for one in family.samples:
            if one.name == f"trigger_engine_{name}":
                found[tuple(value for _, value in sorted(one.labels.items()))] = one.value
    return found


def test_the_figures_are_the_ledgers_before_a_kill_and_of_what_came_after_it(tmp_path: Path) -> None:
    site = Site(tmp_path, jobs={"quick": Job(seconds=0.01)}, triggers=TRIGGERS)
    with started(site) as engine:
        for number in range(10):
            assert site.post("/hooks/in", {"n": number}).status == 202
        wait_for(lambda: figures(site, "runs_total").get(("quick", "succeeded"), 0) >= 6, "runs have ended")
        site.post("/api/v1/pause", {"reason": "a look"})
        wait_for(lambda: not site.rows("select 1 from runs where state in ('queued', 'running')"), "nothing runs")
        ledger = site.ask("GET", "/api/v1/doctor").body["ledger"]
        told = figures(site, "events_total")
        assert told["run", "webhook"] == told["filtered", "webhook"] == 5
        assert ledger["missing"] == 0
        assert sum(told.values()) == ledger["accepted"]
        before = int(site.rows("select count(*) from runs where state = 'succeeded'")[0][0])
        assert figures(site, "runs_total")["quick", "succeeded"] == before
        started_s = figures_of_process(site)
        engine.kill()
    with started(site) as engine:
        assert figures_of_process(site) > started_s
        assert ("quick", "succeeded") not in figures(site, "runs_total")
        assert sum(figures(site, "events_total").values()) == 0
        report = site.ask("GET", "/api/v1/triggers/tick/adherence?over=1d").body
        rows = site.rows("select count(*) from runs where trigger = 'tick' and state = 'succeeded'")
        assert report["succeeded"] == rows[0][0] > 0
        assert report["late_p95_s"] is not None
        site.post("/api/v1/resume", {})
        site.post("/hooks/in", {"n": 2})
        wait_for(lambda: figures(site, "events_total").get(("run", "webhook")) == 1, "what comes is counted")
        assert engine.stop() == 0


def figures_of_process(site: Site) -> float:
    text = site.ask_text("/metrics")
    [line] = [line for line in text.splitlines() if line.startswith("process_start_time_seconds ")]
    return float(line.split()[1])
