"""Runs that outlive the engine: it is killed or stopped, their programs go on, and the next one takes them up."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.crash.process import end_marked, marked, started, wait_for
from tests.crash.site import Job, Site

TRIGGERS = """
[triggers.go]
on.manual = true
job = "slow"
"""

MakeSite = Callable[..., Site]


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[MakeSite]:
    made: list[Site] = []

    def make(**fields: Any) -> Site:
        job = Job(**{"on_crash": "adopt", "limit": 1, "seconds": 2.0, **fields})
        made.append(Site(tmp_path, jobs={"slow": job}, triggers=TRIGGERS, grace="20s"))
        return made[-1]

    yield make
    for site in made:
        end_marked({run for (run,) in site.rows("select id from runs")})


def fire(site: Site) -> str:
    answer = site.post("/api/v1/triggers/go/fire", {})
    assert answer.status == 202, answer
    return str(answer.body["runs"][0])


def run_of(site: Site, run: str) -> Any:
    return site.ask("GET", f"/api/v1/runs/{run}").body


def seen(site: Site, what: str) -> list[str]:
    return [line.run for line in site.witnessed() if line.what == what]


def comes(site: Site, what: str, run: str) -> None:
    wait_for(lambda: run in seen(site, what), f"{what} of {run}")


def ends(site: Site, run: str) -> Any:
    wait_for(lambda: run_of(site, run)["finished_at"], lambda: f"the end of {run_of(site, run)}", 30)
    return run_of(site, run)


def codes(found: Any) -> list[str]:
    return [step["code"] for step in found["trace"]]


def kept_files(site: Site) -> list[str]:
    return [path.name for path in (site.path / "data" / "logs").rglob("*.kept*")]


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_run_goes_on_while_the_engine_is_away_and_has_its_slot_from_the_first_moment(
    make_site: MakeSite, how: str
) -> None:
    site = make_site()
    with started(site) as engine:
        first, second = fire(site), fire(site)
        comes(site, "start", first)
        begun_s = time.monotonic()
        if how == "killed":
            engine.kill()
        else:
            assert engine.stop() == 0
            assert time.monotonic() - begun_s < 1.9  # it was not waited for
    with started(site):
        found = ends(site, first)
        assert (found["state"], found["attempt"], len(found["attempts"])) == ("succeeded", 1, 1)
        assert codes(found)[-2:] == ["adopted", "succeeded"]
        assert ends(site, second)["state"] == "succeeded"
        wait_for(lambda: not kept_files(site), "what it was taken up by is removed")
    # The second came after the first, and neither began twice.
    assert [(line.what, line.run) for line in site.witnessed()] == [
        ("start", first), ("stop", first), ("start", second), ("stop", second),
    ]  # fmt: skip


def test_an_end_that_came_while_the_engine_was_away_is_recorded_as_it_was(make_site: MakeSite) -> None:
    site = make_site(seconds=0.5, failing=1)
    with started(site) as engine:
        run = fire(site)
        comes(site, "start", run)
        engine.kill()
    comes(site, "fail", run)
    wait_for(lambda: not marked({run}), "its launcher is gone")
    time.sleep(1)  # so long is it over before anybody looks
    with started(site):
        found = ends(site, run)
    assert (found["state"], found["exit_code"], codes(found)[-2:]) == ("failed", 3, ["adopted", "exit_code"])
    attempt = found["attempts"][0]
    assert attempt["cpu_s"] is not None
    assert attempt["finished_at"] < found["finished_at"]
    assert seen(site, "start") == [run]


def test_an_adopted_run_is_timed_out_by_its_first_deadline(make_site: MakeSite) -> None:
    site = make_site(seconds=60, timeout="3s")
    with started(site) as engine:
        run = fire(site)
        comes(site, "start", run)
        began_s = time.monotonic()
        engine.kill()
    with started(site):
        found = ends(site, run)
        assert (found["state"], found["reason"]) == ("timed_out", "timed out after 3s")
        assert time.monotonic() - began_s < 20
    assert not marked({run})


def test_an_adopted_run_can_be_cancelled(make_site: MakeSite) -> None:
    site = make_site(seconds=60)
    with started(site) as engine:
        run = fire(site)
        comes(site, "start", run)
        engine.kill()
    with started(site):
        wait_for(lambda: run_of(site, run)["code"] == "adopted", "it is adopted")
        assert site.post(f"/api/v1/runs/{run}/cancel", {"reason": "enough"}).status == 202
        assert ends(site, run)["state"] == "cancelled"
    assert not marked({run})


def test_a_run_whose_launcher_is_gone_is_ended_and_tried_again(make_site: MakeSite) -> None:
    site = make_site(seconds=2)
    with started(site) as engine:
        run = fire(site)
        comes(site, "start", run)
        (program,) = [line.pid for line in site.witnessed()]
        launcher = os.getpgid(program)
        engine.kill()
        os.killpg(launcher, signal.SIGSTOP)  # else it may be over before the next engine looks
        os.kill(launcher, signal.SIGKILL)
    with started(site):
        found = ends(site, run)
    assert (found["state"], [attempt["counted"] for attempt in found["attempts"]]) == ("succeeded", [False, True])
    assert "nothing was left of it that could be adopted" in found["attempts"][0]["reason"]
    # Only the second came to its end, and the two never met.
    assert [line.what for line in site.witnessed()] == ["start", "start", "stop"]


def test_a_job_that_does_not_adopt_any_more_has_its_run_ended(make_site: MakeSite) -> None:
    site = make_site(seconds=60)
    with started(site) as engine:
        run = fire(site)
        comes(site, "start", run)
        engine.kill()
    text = (site.path / "config.toml").read_text()
    (site.path / "config.toml").write_text(text.replace('on_crash = "adopt"', 'on_crash = "fail"'))
    with started(site):
        assert ends(site, run)["code"] == "engine_died"
    assert not marked({run})


@pytest.mark.parametrize("kills", [2, pytest.param(50, marks=pytest.mark.full)])
@pytest.mark.timeout(600)
def test_an_engine_that_is_killed_as_its_program_ends_loses_no_end(make_site: MakeSite, kills: int) -> None:
    site, chance = make_site(seconds=0.3), random.Random(kills)
    recovered = again = 0
    for _ in range(kills):
        with started(site) as engine:
            run = fire(site)
            comes(site, "start", run)
            time.sleep(0.3 + chance.uniform(-0.01, 0.03))
            engine.kill()
        with started(site):
            found = ends(site, run)
        assert found["state"] == "succeeded"
        recovered += "adopted" in codes(found)
        again += len(found["attempts"]) - 1
    assert again == 0, f"{kills} kills: {recovered} recovered, {again} run again"
    assert not [line for line in site.witnessed() if line.what not in ("start", "stop")]
    assert len(site.witnessed()) == 2 * kills
