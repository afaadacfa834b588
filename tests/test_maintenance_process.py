"""An engine that is killed while a window is open: the window is there again, what waits still waits, and then runs."""

from __future__ import annotations

from pathlib import Path

from tests.crash.process import started, wait_for
from tests.crash.site import Job, Site
from tests.test_pauses_process import command, count

TRIGGERS = """
[maintenance.sundays]
days = ["sunday"]
start = "02:00"
end = "04:00"
scope = { jobs = ["slow"] }
[triggers.by-hand]
on.manual = true
job = "quick"
tags = ["import"]
[triggers.long]
on.manual = true
job = "slow"
"""


def test_a_window_of_the_api_and_what_waits_for_it_outlive_a_kill(tmp_path: Path) -> None:
    site = Site(tmp_path, jobs={"quick": Job(seconds=0.01), "slow": Job(seconds=60)}, triggers=TRIGGERS)
    with started(site) as engine:
        long = site.post("/api/v1/triggers/long/fire", {}).body["runs"][0]
        wait_for(lambda: count(site, "running") == 1, "the long run runs")
        said = command(site, "maintenance", "add", "swap", "--for", "1h", "--tag", "import", "--job", "slow",
                       "--running", "cancel", "--description", "disks")  # fmt: skip
        assert said.startswith("Window swap is open; closes ")
        wait_for(lambda: site.ask("GET", f"/api/v1/runs/{long}").body["state"] == "cancelled", "it is cancelled")
        assert site.ask("GET", f"/api/v1/runs/{long}").body["code"] == "maintenance"
        held = [site.post("/api/v1/triggers/by-hand/fire", {}).body["runs"][0] for _ in range(20)]
        wait_for(lambda: count(site, "held") == 20, "they are held")
        engine.kill()
    with started(site) as engine:
        told = wait_for(lambda: log if "Ctrl-C stops" in (log := engine.logged()) else "", "the console is told")
        assert "Runs wait for\n  Maintenance swap until" in told
        run = site.ask("GET", f"/api/v1/runs/{held[0]}").body
        assert (run["state"], run["code"]) == ("held", "maintenance")
        shown = site.ask("GET", "/api/v1/triggers/by-hand").body["maintenance"]
        assert [(one["name"], one["description"]) for one in shown] == [("swap", "disks")]
        assert [one["name"] for one in site.ask("GET", "/api/v1/status").body["maintenance"]] == ["swap"]
        passing = site.post("/api/v1/triggers/by-hand/fire", {"bypass": ["maintenance"]}).body["runs"][0]
        wait_for(lambda: site.ask("GET", f"/api/v1/runs/{passing}").body["state"] == "succeeded", "it passes by")
        listed = command(site, "maintenance", "list")
        assert "swap" in listed
        assert "sunday 02:00 to 04:00 (UTC)" in listed
        assert "Overridden until" in command(site, "maintenance", "override", "swap", "--reason", "x", "--for", "1s")
        wait_for(lambda: count(site, "succeeded") == 21, "they run while it is overridden")
        wait_for(lambda: "closes" in command(site, "maintenance", "show", "swap"), "it is open again")
        last = site.post("/api/v1/triggers/by-hand/fire", {}).body["runs"][0]
        wait_for(lambda: site.ask("GET", f"/api/v1/runs/{last}").body["state"] == "held", "it is held")
        assert command(site, "maintenance", "remove", "swap") == "Window swap is removed\n"
        wait_for(lambda: site.ask("GET", f"/api/v1/runs/{last}").body["state"] == "succeeded", "it runs")
        assert site.ask("GET", "/api/v1/doctor").body["ok"]
        assert engine.stop() == 0
