"""An engine that is killed while a condition holds runs: they stay held, in their order, and go on when it passes."""

from __future__ import annotations

from pathlib import Path

from tests.crash.process import started, wait_for
from tests.crash.site import Job, Site
from tests.test_pauses_process import command, count

TRIGGERS = """
[conditions.open]
check.file = "open"
every = "200ms"
[conditions.calm]
check.resources = { load_max = 0.000001 }
every = "200ms"
[triggers.t]
on.manual = true
job = "quick"
conditions = ["open"]
otherwise = { hold = "1h" }
[triggers.busy]
on.manual = true
job = "quick"
conditions = ["calm"]
otherwise = { hold = "1h" }
"""


def test_held_runs_outlive_a_kill_and_go_on_when_the_condition_passes(tmp_path: Path) -> None:
    site = Site(tmp_path, jobs={"quick": Job(seconds=0.01)}, triggers=TRIGGERS)
    with started(site) as engine:
        for _ in range(5):
            site.post("/api/v1/triggers/t/fire", {})
        wait_for(lambda: count(site, "held") == 5, "they are held")
        passing = site.post("/api/v1/triggers/t/fire", {"bypass": ["conditions"]}).body["runs"][0]
        wait_for(lambda: site.ask("GET", f"/api/v1/runs/{passing}").body["state"] == "succeeded", "it passes by")
        engine.kill()
    with started(site) as engine:
        assert count(site, "held") == 5
        assert "held runs: 5" in command(site, "conditions", "open")
        (site.path / "open").touch()
        wait_for(lambda: count(site, "succeeded") == 6, "they go on")
        order = [row[0] for row in site.rows("select id from runs order by started_at, id")]
        assert order[1:] == sorted(order[1:]), "in the order in which they came"
        site.post("/api/v1/triggers/busy/fire", {})
        wait_for(lambda: count(site, "held") == 1, "the machine is never that calm")
        said = command(site, "conditions", "calm", "--set", "load_max=1000", "--reason", "it may be busy tonight")
        assert "overridden: load_max = 1000" in said
        assert "by admin token, for ann: it may be busy tonight" in said
        wait_for(lambda: count(site, "succeeded") == 7, "it goes on")
        engine.kill()
    with started(site) as engine:
        assert "overridden: load_max = 1000" in command(site, "conditions", "calm")
        assert "overridden" not in command(site, "conditions", "calm", "--reset")
        assert engine.stop() == 0
