"""The command `settings`: each setting of the configuration, and where it comes from, without an engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.test_cli import call, here

__all__ = ["here"]

CONFIG = """
[http]
listen = "127.0.0.1:9000"

[notify.ops]
url = { env = "OPS_URL" }

[jobs."a.b"]
run.exec = ["true"]
"""


@pytest.fixture
def written(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (here / "config.toml").write_text(CONFIG, "utf-8")
    monkeypatch.setenv("OPS_URL", "json://the-secret@127.0.0.1/")
    monkeypatch.setenv("ENGINE__HTTP__MAX_BODY", "2MiB")
    return here


@pytest.mark.usefixtures("written")
def test_what_somebody_has_said_is_told_with_where() -> None:
    lines = call("settings").stdout.splitlines()
    assert lines[1].split() == ["http.listen", '"127.0.0.1:9000"', "config.toml:3"]
    assert lines[2].split() == ["http.max_body", '"2MiB"', "ENGINE__HTTP__MAX_BODY"]
    assert len(lines) == 3
    assert len(call("settings", "http", "--all").stdout.splitlines()) > 10


@pytest.mark.usefixtures("written")
def test_one_of_those_with_names_is_told_alone_and_no_secret_with_it() -> None:
    shown = call("settings", "notify.ops").stdout
    assert "variable OPS_URL, named in config.toml:6" in shown
    assert "the-secret" not in shown
    (command,) = json.loads(call("settings", "jobs.a.b", "--json").stdout)["items"]
    assert (command["key"], command["value"], command["origin"]) == ('jobs."a.b".run.exec.command', ["true"], "file")


@pytest.mark.usefixtures("written")
@pytest.mark.parametrize(
    ("name", "code", "hint"),
    [("job", 2, "jobs"), ("jobs", 2, "jobs.NAME"), ("http.listen", 2, "(http)"), ("notify.opps", 1, "ops")],
)
def test_what_is_not_there_is_told_with_what_is(name: str, code: int, hint: str) -> None:
    result = call("settings", name)
    assert result.exit_code == code
    assert hint in result.stderr
