"""Programs that do what they like, side by side in one engine: each ends as recorded, and the others run on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.crash.process import EngineProcess, marked, started, wait_for
from tests.crash.site import Site

DISK_MIB = 400
"""So large is the disk that all of it is on: less than half of what one of them writes."""

FILL = "dd if=/dev/zero of=filling bs=1M 2>/dev/null; sleep 0.5; rm filling; exit 4"
DAEMONS = (
    'setsid sh -c "echo \\$\\$ >>daemons; exec sleep 300" & (setsid sh -c "echo \\$\\$ >>daemons; exec sleep 300" &) ; '
    "sh -c 'exec sleep 300' & while [ \"$(cat daemons 2>/dev/null | wc -l)\" -lt 2 ]; do sleep 0.05; done; exit 0"
)
BAD: dict[str, tuple[list[str], str, str]] = {
    "deaf": (["sh", "-c", "trap '' TERM; while :; do sleep 1; done"], "timed_out", "timed_out"),
    "daemons": (["sh", "-c", DAEMONS], "succeeded", "succeeded"),
    "closes": (["sh", "-c", "exec <&- >&- 2>&-; sleep 0.5; exit 5"], "failed", "exit_code"),
    "chatters": (["sh", "-c", "yes a line that says nothing | head -c 1000000000; echo end"], "succeeded", "succeeded"),
    "noise": (["sh", "-c", "head -c 1000000 /dev/urandom"], "succeeded", "succeeded"),
    "reads-not": (["sleep", "0.5"], "succeeded", "succeeded"),
    "missing": (["no-such-program"], "failed", "start_failed"),
    "fills": (["sh", "-c", FILL], "failed", "exit_code"),
}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.getuid() != 0:
        pytest.skip("only root can mount a small disk")
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", folder], check=False)
    if made.returncode != 0:
        pytest.skip("no disk can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def memory_kib(engine: EngineProcess) -> int:
    text = Path(f"/proc/{engine.pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0])


@pytest.mark.timeout(180)
def test_each_ends_as_recorded_and_memory_and_disk_stay_bounded(disk: Path) -> None:
    (disk / "work").mkdir()
    jobs = "\n".join(
        f'[jobs.{name}]\ntimeout = "{"2s" if name == "deaf" else "1m"}"\nlog = {{ max = "1MiB" }}\n'
        f"run.exec = {{ command = {json.dumps(command)}, cwd = 'work' }}\n"
        f'[triggers.{name}]\non.manual = true\njob = "{name}"'
        for name, (command, _, _) in BAD.items()
    )
    beat = '[jobs.beat]\nrun.exec = ["true"]\n[triggers.beat]\non.interval = "1s"\njob = "beat"\n'
    site = Site(disk, jobs={}, triggers=jobs + "\n" + beat, concurrency=12)
    with started(site) as engine:
        before_kib = memory_kib(engine)
        begun_s = time.monotonic()
        data = {"text": "x" * 500_000}
        # The disk is filled when the others are over: while it is full, nothing can be recorded.
        first = {name: _fire(site, name, data) for name in BAD if name != "fills"}
        ended = {name: _end(site, run) for name, run in first.items()}
        ended["fills"] = _end(site, _fire(site, "fills", None))
        took_s = time.monotonic() - begun_s
        grown_kib = memory_kib(engine) - before_kib
        beats = site.ask("GET", "/api/v1/runs?job=beat&state=succeeded&limit=500").body["items"]
        daemons = [int(line) for line in (disk / "work" / "daemons").read_text().split()]
        wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in daemons), "no daemon is left", 20)
        assert "action=strays_ended" in engine.logged()
        # That the disk has room again is noticed at the next look at it.
        wait_for(lambda: site.ask("GET", "/api/v1/doctor").body["ok"], "doctor finds all well", 30)
        logs = {name: site.ask_text(f"/api/v1/runs/{run['id']}/log") for name, run in ended.items()}
    assert {name: (run["state"], run["code"]) for name, run in ended.items()} == {
        name: (state, code) for name, (_, state, code) in BAD.items()
    }
    assert len(daemons) == 2
    assert grown_kib < 50 * 1024
    assert len(beats) >= took_s / 2 - 2
    assert logs["chatters"].count("left out") == 1
    assert logs["chatters"].endswith("end\n")
    assert len(logs["chatters"]) < 1.1 * 1024 * 1024
    assert "\\x" in logs["noise"]
    assert not marked({run["id"] for run in ended.values()})
    assert shutil.disk_usage(disk).free > (DISK_MIB - 60) * 2**20


def _fire(site: Site, trigger: str, data: Any) -> str:
    answer = site.post(f"/api/v1/triggers/{trigger}/fire", {"data": data})
    assert answer.status == 202, answer
    return str(answer.body["runs"][0])


def _end(site: Site, run: str) -> Any:
    def look() -> Any:
        found = site.ask("GET", f"/api/v1/runs/{run}").body
        return found if found["finished_at"] else None

    return wait_for(look, f"the end of {run}", 90, 0.05)
