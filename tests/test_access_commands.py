"""The commands `token` and `audit`: with an engine, and without one."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from engine.cli.app import app
from engine.http.tokens import token_path
from tests.fake_operations import TOKEN
from tests.test_cli import VARIABLES, Running

CONFIG = """
[jobs.work]
run.exec = { command = ["true"] }

[triggers.nightly]
on.cron = "0 2 * * *"
job = "work"
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.toml").write_text(f'http.listen = "127.0.0.1:1"\n{CONFIG}')
    return tmp_path


@pytest.fixture
def running(here: Path) -> Iterator[Running]:
    with Running(here) as one:
        yield one


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def told(*arguments: str) -> object:
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_tokens_are_made_rotated_and_revoked_by_the_engine(running: Running) -> None:
    to = ("--url", running.url, "--token", TOKEN)
    made = call("token", "create", "reader", "--role", "operator", "--tag", "a", "--expires-in", "90d", *to)
    assert made.exit_code == 0, made.output
    secret = made.stdout.strip()
    assert secret.startswith("te_")
    assert "it is not shown again" in made.stderr
    [_, one] = told("token", "list", "--json", *to)["items"]  # type: ignore[index]
    assert (one["name"], one["role"], one["tags"], one["prefix"]) == ("reader", "operator", ["a"], secret[:8])
    rotated = call("token", "rotate", "reader", "--overlap", "1h", *to)
    assert (rotated.exit_code, rotated.stdout.strip() == secret) == (0, False)
    assert f"{secret[:8]}… opens too until" in rotated.stderr
    assert call("token", "revoke", "reader", *to).output == "Token reader is revoked\n"
    assert call("token", "revoke", "reader", *to).exit_code == 1
    for row, action in zip(running.operations.audit_log.rows, ("", "/rotate", ""), strict=False):
        assert row.action.endswith(f"/tokens{'/{name}' if action or row.action.startswith('DELETE') else ''}{action}")


def test_tokens_are_made_rotated_and_revoked_without_an_engine(here: Path) -> None:
    made = told("token", "create", "reader", "--tag", "a", "--description", "the screen", "--json")
    secret = made["token"]  # type: ignore[index]
    [one] = told("token", "list", "--json")["items"]  # type: ignore[index]
    assert (one["name"], one["role"], one["tags"], one["description"]) == ("reader", "viewer", ["a"], "the screen")
    assert "token" not in one
    assert told("token", "rotate", "reader", "--json")["token"] != secret  # type: ignore[index]
    assert call("token", "create", "reader").exit_code == 1
    assert call("token", "revoke", "reader").exit_code == 0
    assert call("token", "revoke", "reader").exit_code == 1
    assert told("token", "list", "--json")["items"] == []  # type: ignore[index]
    lines = call("audit", "--json").stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    assert [(row["action"], row["target"], row["means"]) for row in rows] == [
        ("token revoke", "reader", "command"), ("token rotate", "reader", "command"),
        ("token create", "reader", "command"),
    ]  # fmt: skip
    assert secret not in call("audit", "--json").output
    raw = (here / "data" / "engine.db").read_bytes()
    assert secret.encode() not in raw


@pytest.mark.parametrize(
    "arguments",
    [
        ("token", "create", "x", "--role", "root"),
        ("token", "create", "x", "--expires-in", "soon"),
        ("token", "create", "x", "--tag", ""),
        ("token", "rotate", "--overlap", "1h"),
        ("audit", "--check", "--who", "x"),
        ("audit", "--outcome", "gone"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(here: Path, arguments: tuple[str, ...]) -> None:
    assert call("token", "create", "first").exit_code == 0
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output


def test_an_engine_that_is_named_and_not_there_is_not_done_without(here: Path) -> None:
    for arguments in (("token", "create", "x"), ("token", "list"), ("audit",), ("audit", "--check")):
        result = call(*arguments, "--url", "http://127.0.0.1:1", "--token", "x")
        assert (result.exit_code, "no engine answers" in result.output) == (1, True)
    assert not (here / "data").exists()


def test_the_audit_log_is_listed_and_its_chain_followed(here: Path) -> None:
    assert (call("audit").exit_code, "there is no store" in call("audit").output) == (1, True)
    for name in ("one", "two"):
        assert call("token", "create", name).exit_code == 0
    listed = call("audit").output.splitlines()
    assert (len(listed), "token create" in listed[1], "two" in listed[1]) == (3, True, True)
    assert len(call("audit", "-n", "1", "--json").output.splitlines()) == 1
    assert len(call("audit", "--target", "one", "--json").output.splitlines()) == 1
    assert call("audit", "--check").output.startswith("2 rows, as they were written")
    assert told("audit", "--check", "--json")["ok"] is True  # type: ignore[index]
    raw = sqlite3.connect(here / "data" / "engine.db")
    raw.executescript("drop trigger audit_keeps; delete from audit where seq = 2")
    raw.close()
    result = call("audit", "--check")
    assert (result.exit_code, "row 2 is gone: the end was cut off" in result.output) == (1, True)
    doctor = call("doctor", "--json")
    assert doctor.exit_code == 1
    assert [one["name"] for one in json.loads(doctor.stdout)["checks"] if not one["ok"]] == ["audit"]


def test_the_audit_log_of_an_engine_is_listed(running: Running) -> None:
    to = ("--url", running.url, "--token", TOKEN)
    assert call("pause", "nightly", "--reason", "too \u202e late", *to).exit_code in (0, 2)
    assert call("pause", "nightly", "--reason", "late", *to).exit_code == 0
    rows = [json.loads(line) for line in call("audit", "--json", *to).stdout.splitlines()]
    assert (rows[0]["who"], rows[0]["target"], rows[0]["reason"]) == ("admin", "nightly", "late")
    assert "late" in call("audit", *to).output
    assert call("audit", "--check", *to).exit_code == 0


def test_the_admin_token_is_where_it_was(here: Path) -> None:
    token_path(here / "data").parent.mkdir()
    token_path(here / "data").write_text(TOKEN)
    token_path(here / "data").chmod(0o600)
    assert call("token", "--show").output.strip() == TOKEN
    # The engine does not run: with its token or without, the store's file is asked.
    assert call("token", "create", "one").exit_code == 0
