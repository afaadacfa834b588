"""An engine that is killed while instants overlap: limits hold, and one instant waits at most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.audit import read_runs
from tests.crash.process import end_marked, started, wait_for
from tests.crash.site import Job, Site

TRIGGERS = """
[triggers.tick]
on.interval = "1s"
job = "slow"
[triggers.watch]
on.manual = true
job = "slow"
"""

OPEN = ("pending", "queued", "held", "running", "retrying")


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[object]:
    made: list[Site] = []

    def make(overlap: str) -> Site:
        jobs = {"slow": Job(overlap=overlap, seconds=2.3)}
        made.append(Site(tmp_path, jobs=jobs, triggers=TRIGGERS, grace="100ms"))
        return made[-1]

    yield make
    for site in made:
        end_marked({run for (run,) in site.rows("select id from runs")})


def states(site: Site, overlap: str) -> Counter[str]:
    """Count the runs by state, and look that no more are open than may be."""
    counts = Counter(dict(site.rows("select state, count(*) from runs group by state")))
    assert counts["running"] <= 1
    # One that waits and gives way to a new one ends in the commit after that one's.
    giving_way = 1 if overlap == "replace" else 0
    assert counts["queued"] <= 1 + counts["retrying"] + (1 - counts["running"]) + giving_way
    return counts


@pytest.mark.parametrize("overlap", ["queue", "skip", "replace"])
def test_overlap_holds_over_a_kill(make_site: object, overlap: str) -> None:
    site: Site = make_site(overlap)  # type: ignore[operator]
    wanted = {"queue": ("skipped", "succeeded"), "skip": ("skipped", "succeeded"), "replace": ("cancelled",)}[overlap]
    for killed in (True, True, False):
        before = states(site, overlap) if site.database.exists() else Counter()
        with started(site) as engine:
            wait_for(
                lambda: all(states(site, overlap)[state] > before[state] for state in wanted) or None,  # noqa: B023
                lambda: f"more runs that are {wanted}: {states(site, overlap)}", 30, 0.05,
            )  # fmt: skip
            wait_for(lambda: states(site, overlap)["running"] or None, "a run runs")
            if killed:
                engine.kill()
            else:
                assert engine.stop() == 0
    runs = read_runs(site)
    assert not [line for line in site.witnessed() if line.what not in ("start", "stop")]
    for run in runs.values():
        codes = {"skipped": ("overlap", "replaced"), "cancelled": ("replaced",)}
        assert run.code in codes.get(run.state, (run.code,))
        if run.state in ("skipped", "cancelled"):
            (named,) = [other for other in runs if other in run.trace[-1][3]]
            assert named != run.id
    with started(site) as engine:
        found = site.ask("GET", "/api/v1/doctor").body
        assert found["ok"], found
        skipped = site.ask("GET", "/api/v1/runs?state=skipped&limit=1").body["items"]
        if "skipped" in wanted:
            stats = site.ask("GET", "/api/v1/triggers/tick").body["stats"]
            assert skipped[0]["code"] == "overlap"
            assert stats["skipped"] >= before["skipped"] > 0
