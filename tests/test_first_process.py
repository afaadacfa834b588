"""The engine as the first process of a container: nothing that others leave behind stays as a zombie."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.cli.first_process import stand_beside
from tests.crash.process import wait_for

APART = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")

BEGIN = """
import os, signal, subprocess, sys, time
from engine.cli.first_process import stand_beside
stand_beside()
assert os.getpid() != 1
"""
REAPED = """
subprocess.run(["sh", "-c", "setsid sh -c 'sleep 0.1' & exit 0"], check=True)
until_s = time.monotonic() + 20
while [name for name in os.listdir("/proc") if name.isdigit() and int(name) not in (1, os.getpid())]:
    assert time.monotonic() < until_s, os.listdir("/proc")
    time.sleep(0.01)
sys.exit(7)
"""
TOLD = """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
os.kill(1, signal.SIGTERM)
time.sleep(20)
"""


@pytest.fixture
def apart() -> Callable[..., subprocess.Popen[str]]:
    """Give what starts a program as the first process of a namespace."""
    if subprocess.run([*APART, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no PID namespace can be made here")

    def start(*arguments: str, cwd: Path | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*APART, sys.executable, *arguments], cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        )  # fmt: skip

    return start


def test_a_process_that_is_not_the_first_goes_on_by_itself() -> None:
    pid = os.getpid()
    stand_beside()
    assert os.getpid() == pid


@pytest.mark.parametrize(
    ("what", "code"),
    [(REAPED, 7), (TOLD, 5), ("os.kill(os.getpid(), signal.SIGKILL)", 128 + signal.SIGKILL)],
    ids=["orphans are reaped", "signals are passed on", "its end is that of its child"],
)
def test_the_first_process_of_a_container_looks_after_the_others(
    apart: Callable[..., subprocess.Popen[str]], what: str, code: int
) -> None:
    with apart("-c", BEGIN + what) as process:
        said, _ = process.communicate(timeout=30)
    assert (process.returncode, said) == (code, "")


def test_an_engine_in_a_container_is_not_its_first_process_and_stops_as_that_is_told(
    apart: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    (tmp_path / "config.toml").write_text('[http]\nlisten = "127.0.0.1:0"\n')
    log = tmp_path / "log"
    with apart("-c", "import os, sys; os.dup2(os.open('log', os.O_WRONLY | os.O_CREAT), 1); os.dup2(1, 2); "
               "os.execv(sys.executable, [sys.executable, '-m', 'engine'])", cwd=tmp_path) as process:  # fmt: skip
        try:
            wait_for(lambda: log.exists() and "action=ready" in log.read_text(), "it runs", 30)
            (first,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(first), signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
    (ready,) = [line for line in log.read_text().splitlines() if "action=ready" in line]
    assert "pid=1 " not in ready
    assert "action=stopped" in log.read_text()
