"""The documentation, against the code: its tables, codes, examples and links; and the README, pasted."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.config import load
from engine.config import schema as schema_of
from engine.config.model import EngineSettings
from engine.registry import Registry
from engine.runtime import Runtime
from engine.testing import VirtualClock, check_timer
from tests.bench.processes import free_port
from tests.docs_tables import DOCS, MARKED, ROOT, definitions, tables
from tests.reason_codes import codes_in_code

README = ROOT / "README.md"
PAGES = [README, *sorted(DOCS.rglob("*.md")), ROOT / "CHANGELOG.md"]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def blocks(page: Path, language: str) -> list[str]:
    return [body for found, body in BLOCK.findall(page.read_text("utf-8")) if found == language]


# Tables and codes


@pytest.mark.parametrize("name", sorted(tables()))
def test_a_table_says_what_the_code_says(name: str) -> None:
    found = {match["name"]: match["body"] for page in PAGES for match in MARKED.finditer(page.read_text("utf-8"))}
    assert found.get(name) == tables()[name], "run: python -m tests.docs_tables"


def test_every_key_of_the_schema_stands_in_the_reference_with_its_default() -> None:
    text = (DOCS / "configuration.md").read_text("utf-8")
    rows = {match["name"]: match["body"].splitlines() for match in MARKED.finditer(text)}
    schema = schema_of(Registry.discover())
    assert set(definitions()) == set(schema["$defs"]) - {"reference"}
    for name, described in schema["$defs"].items():
        if name == "reference":
            continue
        listed = rows[name][2:] + (rows["every-timer"][2:] if name.startswith("timer.") else [])
        keys = {row.split("`")[1]: row for row in listed}
        assert set(keys) == set(described["properties"])
        for key, known in described["properties"].items():
            if isinstance(known.get("default"), (str, int, float, bool)):
                assert json.dumps(known["default"]) in keys[key].split("|")[3]


def test_every_reason_code_stands_in_the_reference_and_no_other_does() -> None:
    text = (DOCS / "reasons.md").read_text("utf-8")
    cells = [row.split("|")[1] for row in text.splitlines() if row.startswith("| `")]
    written = {code for cell in cells for code in re.findall(r"`(\w+)`", cell)}
    known = codes_in_code()
    patterns = [re.compile(code.replace("*", r"\w+") + r"\Z") for code in known]
    assert len(known) > 20
    assert not [code for code in sorted(written) if not any(pattern.match(code) for pattern in patterns)]
    assert not [pattern.pattern for pattern in patterns if not any(pattern.match(code) for code in sorted(written))]


def test_every_code_of_an_http_problem_stands_in_the_reference() -> None:
    text = (DOCS / "http.md").read_text("utf-8")
    for file in (ROOT / "engine" / "http").glob("*.py"):
        for code in re.findall(r'\bcode\s?=\s?"(\w+)"', file.read_text("utf-8")):
            assert f"`{code}`" in text, f"{file.name} answers with the code {code}"


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in LINK.findall(page.read_text("utf-8")):
            path, _, anchor = target.partition("#")
            if "://" in target:
                continue
            linked = page.parent / path if path else page
            assert linked.exists(), f"{page.name}: {target}"
            if anchor:
                titles = re.findall(r"^#+ (.+)$", linked.read_text("utf-8"), re.MULTILINE)
                assert anchor in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


def test_decisions_are_numbered_without_gaps_and_short() -> None:
    pages = sorted((DOCS / "decisions").glob("[0-9]*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        text = page.read_text("utf-8")
        assert text.startswith(f"# {int(page.name[:4])}. ")
        assert all(part in text for part in ("**Chosen.**", "**Against.**", "**What would change our mind.**"))
        assert len(text.splitlines()) <= 20


def test_the_systemd_unit_gives_the_engine_the_time_that_it_takes_to_stop() -> None:
    (text,) = blocks(DOCS / "operations.md", "ini")
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(text)
    service = unit["Service"]
    assert service["Type"] == "notify"
    assert int(service["WatchdogSec"].removesuffix("s")) > 0
    ten_seconds_to_end_a_process = 10
    stop_s = int(service["TimeoutStopSec"].removesuffix("s"))
    assert stop_s > EngineSettings().shutdown_grace_s + ten_seconds_to_end_a_process


# Configurations that are shown


def test_the_shipped_configuration_is_right_and_check_makes_no_files(tmp_path: Path) -> None:
    shutil.copy(ROOT / "config.toml", tmp_path)
    config = load([tmp_path / "config.toml"], environment={})
    assert config.jobs
    assert {trigger.on.name for trigger in config.triggers.values()} >= {"cron", "trigger_dir", "webhook"}
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]


def test_files_that_the_shipped_configuration_runs_are_there() -> None:
    shipped = tomllib.loads((ROOT / "config.toml").read_text("utf-8"))
    runs = [job["run"] for job in shipped["jobs"].values()]
    named = {part for run in runs for part in run.get("exec", ()) if "/" in part}
    assert named == {str(path.relative_to(ROOT)) for path in (ROOT / "examples").glob("*.sh")}
    assert {run["python"].partition(":")[0] for run in runs if "python" in run} == {"examples.shop"}
    assert shipped["triggers"].keys() == load([ROOT / "config.toml"], environment={}, examine=True).triggers.keys()


def test_the_shipped_configuration_shows_every_source_timer_and_runner() -> None:
    config = load([ROOT / "config.toml"], environment={})
    known = Registry.discover()
    shown = {trigger.on.name for trigger in config.triggers.values()}
    assert shown == {*known.sources, *known.timers}
    needs_a_server = {"airflow"}  # which nobody has who tries the engine
    assert {job.runner.name for job in config.jobs.values()} == known.runners.keys() - needs_a_server


def test_the_configuration_in_the_readme_is_right(tmp_path: Path) -> None:
    (text,) = blocks(README, "toml")
    (tmp_path / "config.toml").write_text(text, "utf-8")
    config = load([tmp_path / "config.toml"], environment={"GITHUB_SECRET": "a secret of some length"})
    assert set(config.triggers) == {"nightly", "pushed"}


def test_the_configurations_in_the_reference_are_right_together(tmp_path: Path) -> None:
    text = "".join(blocks(DOCS / "configuration.md", "toml"))
    for key in ("orders.key", "reports.key"):
        (tmp_path / key).write_text("another secret\n", "utf-8")
    jobs = {first or second for first, second in re.findall(r'^job = "(.+?)"|job = "(import-csv)"', text, re.MULTILINE)}
    defined = set(re.findall(r"^\[jobs\.([^.\]]+)", text, re.MULTILINE))
    named = "".join(f'[jobs.{name}]\nrun.exec = ["true"]\n' for name in sorted(jobs - defined))
    (tmp_path / "config.toml").write_text(text + named, "utf-8")
    secrets = {"SHOP_SECRET": "a secret", "ORDERS_TOKEN": "a token", "AIRFLOW_PASSWORD": "a password"}
    config = load([tmp_path / "config.toml"], environment=secrets)
    assert {"ship", "invoice", "report", "alarm", "again"} <= set(config.triggers)


# The README, pasted


def test_the_two_commands_of_the_readme_are_one_line_each() -> None:
    start, tests, *_ = blocks(README, "sh")
    for command in (start, tests):
        assert command.count("\n") == 1
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install -q ")
    assert start.endswith("&& .venv/bin/python -m engine\n")
    assert tests.endswith("&& .venv/bin/python -m pytest -n 3\n")


@contextmanager
def serving(directory: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Run the engine as a process on the configuration in a directory; yield its address and an environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ENGINE_")}
    listen = f"127.0.0.1:{free_port()}"
    environment["ENGINE__HTTP__LISTEN"] = listen
    environment["ENGINE__TRIGGERS__HEALTH__ON__HTTP__URL"] = f"http://{listen}/health"
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    process = subprocess.Popen(
        [sys.executable, "-m", "engine"], cwd=directory, env=environment, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    url, lines = "", []
    try:
        for line in process.stderr:
            lines.append(line)
            url = line.partition(" url=")[2].strip() or url
            if "action=ready" in line:
                break
        assert url, "".join(lines)
        yield url, {**environment, "ENGINE_URL": url}
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.stderr.close()
        process.wait()


@pytest.mark.timeout(180)  # some twenty commands, each with a start of Python
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_lines_of_the_readme_work_when_they_are_pasted(tmp_path: Path) -> None:
    shutil.copy(ROOT / "config.toml", tmp_path)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    lines = blocks(README, "sh")[2]
    assert lines.startswith(". .venv/bin/activate\n")
    with serving(tmp_path) as (url, environment):
        script = lines.replace(". .venv/bin/activate\n", "set -euo pipefail\n").replace("http://127.0.0.1:8080", url)
        pasted = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert pasted.returncode == 0, pasted.stdout + pasted.stderr
    printed = pasted.stdout
    assert '"duplicate":false' in printed, printed
    assert "big-orders: filtered" in printed, printed
    assert "attempt 2 of 3" in printed, printed
    assert "\nattempt 3\n" in printed, printed
    assert re.search(r"accepted \d+  ended \d+  waiting \d+  purged \d+  missing 0", printed)
    assert not list((tmp_path / "triggers").glob("*.json"))


# The plugins that are shown


def write_plugins(directory: Path) -> None:
    """Write the page's plugins, and the configuration that uses them, as the page says."""
    page = DOCS / "plugins.md"
    files = {}
    for text in blocks(page, "python"):
        if match := re.match(r"# ((?:plugins|tests)/\w+\.py)\n", text):
            files[match[1]] = text
    for folder in ("plugins", "tests"):
        (directory / folder).mkdir()
    for name, text in files.items():
        (directory / name).write_text(text, "utf-8")
    (config,) = blocks(page, "toml")
    (directory / "config.toml").write_text(config, "utf-8")


async def test_the_plugins_of_the_page_run_together(tmp_path: Path) -> None:
    write_plugins(tmp_path)
    config = load([tmp_path / "config.toml"], environment={})
    clock, ready = VirtualClock(), anyio.Event()
    notes = tmp_path / "notes.txt"

    async def noted(line: str) -> None:
        while not notes.exists() or line not in notes.read_text("utf-8").splitlines():
            await clock.advance(1)
            await anyio.sleep(0.001)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            runtime = Runtime(config, clock=clock, listen=False, on_ready=lambda _: ready.set())
            group.start_soon(runtime.run)
            await ready.wait()
            await noted("beat: engine.timer ")
            (tmp_path / "app.log").write_text("first\nsecond\nhalf a li", "utf-8")
            await noted("lines: line.added second")
            with (tmp_path / "app.log").open("a", encoding="utf-8") as file:
                file.write("ne\n")
            await noted("lines: line.added half a line")
            runtime.stop()
    lines = [line for line in notes.read_text("utf-8").splitlines() if line.startswith("lines")]
    assert sorted(lines) == sorted(f"lines: line.added {text}" for text in ("first", "second", "half a line"))


def test_the_plugins_of_the_page_are_listed_and_documented(tmp_path: Path) -> None:
    write_plugins(tmp_path)
    registry = Registry.discover([tmp_path / "plugins"])
    assert {"lines"} <= set(registry.sources)
    assert {"beat"} <= set(registry.timers)
    assert {"note"} <= set(registry.runners)
    assert {"backlog"} <= set(registry.conditions)
    schema: dict[str, Any] = schema_of(registry)["$defs"]
    for name in ("source.lines", "timer.beat", "runner.note", "condition.backlog"):
        assert all("description" in known for known in schema[name]["properties"].values())


def test_the_tests_of_the_page_pass(tmp_path: Path) -> None:
    write_plugins(tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "tests"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


def test_the_plugin_of_the_readme_is_the_example_and_that_of_the_page() -> None:
    example = (ROOT / "examples" / "plugins" / "lines.py").read_text("utf-8")
    assert example in blocks(README, "python")
    assert f"# plugins/lines.py\n{example}" in blocks(DOCS / "plugins.md", "python")


def test_the_program_of_the_readme_runs(tmp_path: Path) -> None:
    (program,) = [text for text in blocks(README, "python") if "asyncio.run" in text]
    done = subprocess.run(
        [sys.executable, "-"], input=program, cwd=tmp_path, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("ship succeeded {'parcels': 3}\n", 0), done.stderr


def test_the_timer_of_the_page_agrees_with_itself(tmp_path: Path) -> None:
    write_plugins(tmp_path)
    beat: Any = Registry.discover([tmp_path / "plugins"]).timers["beat"]
    assert (
        len(check_timer(beat(every=7.0), [VirtualClock().now() + timedelta(seconds=second) for second in range(70)]))
        >= 10
    )


def test_the_plugins_of_the_page_pass_the_style_of_the_project(tmp_path: Path) -> None:
    write_plugins(tmp_path)
    settings = ["--config", str(ROOT / "pyproject.toml")]
    ruff = [sys.executable, "-m", "ruff"]
    for command in (
        [*ruff, "check", *settings, "--ignore", "I,S", "plugins", "tests"],
        [*ruff, "format", *settings, "--check", "plugins", "tests"],
    ):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, textwrap.indent(done.stdout + done.stderr, "    ")
