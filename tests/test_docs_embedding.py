"""docs/embedding.md and the example, as programs that run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs_tables import DOCS, ROOT
from tests.fakes import until
from tests.test_docs import blocks

PROGRAMS = {text.split()[1]: text for text in blocks(DOCS / "embedding.md", "python")}
PRINTED = {
    "app.py": "succeeded {'parcels': 3}\n",
    "triggers.py": "ann succeeded\nbob succeeded\npaused stock-taking\n[]\n2\n",
}


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ENGINE_")}
    return {**kept, "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize("name", PRINTED)
def test_a_program_of_the_page_runs_and_prints_what_it_should(name: str, tmp_path: Path) -> None:
    assert set(PROGRAMS) == set(PRINTED)
    (tmp_path / name).write_text(PROGRAMS[name], "utf-8")
    command = [sys.executable, "-W", "error", name]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=50)
    assert (done.stdout, done.stderr, done.returncode) == (PRINTED[name], "", 0)
    again = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=50)
    assert again.returncode == 0, again.stderr


def test_the_programs_of_the_page_pass_the_style_of_the_project(tmp_path: Path) -> None:
    for name, text in PROGRAMS.items():
        (tmp_path / name).write_text(text, "utf-8")
    ruff = [sys.executable, "-m", "ruff"]
    settings = ["--config", str(ROOT / "pyproject.toml")]
    for command in (
        [*ruff, "check", *settings, "--ignore", "T20,I", "."],
        [*ruff, "format", *settings, "--check", "."],
    ):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def start_example(directory: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("w") as stream:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "examples/embedded.py")], cwd=directory, env=environment(), stderr=stream
        )


async def test_the_example_runs_until_it_is_told_to_stop(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with start_example(tmp_path, log) as process:
        try:
            await until(lambda: "The engine runs" in log.read_text(), within_s=30)
            process.send_signal(signal.SIGINT)
            await until(lambda: process.poll() is not None, within_s=20)
        finally:
            process.kill()
    assert process.returncode == 0
    assert log.read_text().endswith("engine Stopped\n")
    assert (tmp_path / "data/embedded/engine.db").exists()
