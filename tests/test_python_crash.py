"""An engine that dies while Python functions run: no worker survives it, and none runs beside its successor."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.crash.audit import read_runs
from tests.crash.process import end_marked, marked, started, wait_for
from tests.crash.site import Site
from tests.python_runs import write

SOURCE = """
import fcntl

def say(run, what):
    with open("witness/functions", "a") as file:
        file.write(f"{what} {run.run_id} {run.attempt} {os.getpid()} {os.getppid()}\\n")

def work(run):
    os.chdir(os.path.dirname(__file__))
    lock = os.open(f"witness/run.{run.run_id}", os.O_CREAT | os.O_RDWR)
    os.set_inheritable(lock, True)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say(run, "overlap")
    # The lock lives as long as any of them.
    program = subprocess.Popen(["sleep", "3600"], close_fds=False, start_new_session=True)
    say(run, "start")
    with open("witness/programs", "a") as file:
        file.write(f"{program.pid}\\n")
    time.sleep(3600)
"""

CONFIG = """
[jobs.work]
run.python = "shop:work"
on_crash = "{on_crash}"
[triggers.by-hand]
on.manual = true
job = "work"
"""


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[Any]:
    made: list[Site] = []

    def make(on_crash: str = "retry") -> Site:
        write(tmp_path, SOURCE)
        made.append(Site(tmp_path, jobs={}, triggers=CONFIG.format(on_crash=on_crash), grace="100ms"))
        return made[-1]

    yield make
    for site in made:
        end_marked({run for (run,) in site.rows("select id from runs")})


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def begun(site: Site, times: int = 1) -> list[list[str]]:
    """Wait until functions began so often; return what they said."""
    file = site.path / "witness" / "functions"

    def look() -> list[list[str]] | None:
        said = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
        programs = site.path / "witness" / "programs"
        told = len(programs.read_text().splitlines()) if programs.exists() else 0
        return said if len(said) >= times and told >= times else None

    return wait_for(look, f"functions begin: {times}")


def fire(site: Site) -> str:
    return str(site.post("/api/v1/triggers/by-hand/fire", {}).body["runs"][0])


def processes_of(site: Site) -> list[int]:
    """Return the workers and the programs that they started so far."""
    programs = (site.path / "witness" / "programs").read_text().split()
    return [*(int(line[3]) for line in begun(site)), *map(int, programs)]


def test_no_worker_and_nothing_that_it_started_survives_a_killed_engine(sites: Any) -> None:
    site = sites()
    with started(site) as engine:
        run = fire(site)
        ((_, _, _, worker, helper),) = begun(site)
        left = processes_of(site)
        assert set(marked({run})) == set(left)
        engine.kill()
    wait_for(lambda: all(map(is_gone, left)), "the worker and its program are ended")
    wait_for(lambda: is_gone(int(helper)), "the helper is ended")
    with started(site) as engine:
        said = begun(site, 2)
        assert [line[0] for line in said] == ["start", "start"]
        assert [(line[1], line[2]) for line in said] == [(run, "1"), (run, "1")]
        assert worker != said[1][3]
        engine.kill()


@pytest.mark.parametrize("on_crash", ["retry", "fail"])
def test_workers_that_did_survive_are_found_and_ended_before_the_run_is_started_again(
    sites: Any, on_crash: str
) -> None:
    site = sites(on_crash)
    with started(site) as engine:
        run = fire(site)
        ((*_, helper),) = begun(site)
        left = processes_of(site)
        # A helper that can't act: its workers stay.
        os.kill(int(helper), signal.SIGSTOP)
        engine.kill()
    try:
        assert not any(map(is_gone, left))
        with started(site) as engine:
            assert all(map(is_gone, left))
            if on_crash == "retry":
                assert [line[0] for line in begun(site, 2)] == ["start", "start"]
            else:
                assert read_runs(site)[run].code == "engine_died"
                assert marked({run}) == {}
            engine.kill()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(helper), signal.SIGKILL)


def test_a_stop_interrupts_functions_and_the_next_start_takes_them_up(sites: Any) -> None:
    site = sites()
    with started(site) as engine:
        run = fire(site)
        ((*_, helper),) = begun(site)
        left = processes_of(site)
        assert engine.stop() == 0
        assert all(map(is_gone, [*left, int(helper)]))
    assert read_runs(site)[run].state == "queued"
    with started(site) as engine:
        assert [line[0] for line in begun(site, 2)] == ["start", "start"]
        assert "RunCancelled" in next(site.path.glob(f"data/logs/*/{run}.log")).read_text()
        engine.kill()


def test_a_second_signal_ends_the_engine_at_once_and_its_functions_with_it(sites: Any) -> None:
    site = sites()
    (site.path / "config.toml").write_text((site.path / "config.toml").read_text().replace("100ms", "60s"))
    with started(site) as engine:
        fire(site)
        begun(site)
        engine.terminate()
        wait_for(lambda: "action=stopping" in engine.logged(), "it stops")
        engine.terminate()
        assert engine.wait(5.0) == 128 + 15
        wait_for(lambda: all(map(is_gone, processes_of(site))), "its processes are ended")
