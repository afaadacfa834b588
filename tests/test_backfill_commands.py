"""The commands about backfills, against a real listener with an engine without organs behind it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from engine.backfills import BackfillState, Order
from engine.cli import backfilling
from engine.cli.backfilling import follow, follow_shown, lines
from engine.cli.client import Client
from engine.errors import InvalidRequest
from engine.ids import new_id
from engine.runs import RunState
from tests.fake_operations import TOKEN
from tests.test_cli import VARIABLES, Running, ask

SPAN = ("--from", "2026-11-20", "--to", "2026-11-21T09:30:00Z")


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(backfilling, "LOOK_S", 0.0)
    with Running(tmp_path) as running:
        yield running


def test_a_backfill_is_followed_in_lines_to_its_end(engine: Running) -> None:
    options = ("--zone", "Europe/Berlin", "--max-parallel", "3", "--order", "newest", "--reason", "it was down")
    result = ask(engine, "backfill", "nightly", *SPAN, *options)
    assert result.exit_code == 0, result.output
    (asked,) = engine.operations.backfills.asked
    assert (asked.trigger, asked.timezone, asked.max_parallel) == ("nightly", "Europe/Berlin", 3)
    assert (asked.order, asked.only_missing, asked.reason) == (Order.NEWEST, False, "it was down")
    assert asked.start.utcoffset() is None
    assert asked.end.utcoffset() is not None
    said = result.output.splitlines()
    assert said[:2] == ["0 of 3 done; running", "1 of 3 done; 30 a minute, 4s left"]
    (backfill,) = engine.operations.backfills.kept
    assert said[-1] == f"Backfill {backfill} of nightly is completed, 3 of 3 done: succeeded 3"


def test_on_a_terminal_there_is_a_bar(
    engine: Running, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    client = Client(engine.url, TOKEN, "the test")
    begun = client.post("backfills", body={"trigger": "nightly", "from": "2026-11-20", "to": "2026-11-21"})
    ended = follow_shown(client, begun, quiet=False)
    shown = capsys.readouterr().out
    assert ended["state"] == "completed"
    assert "━" in shown
    assert "3/3" in shown


def test_json_is_one_value_at_the_end(engine: Running) -> None:
    result = ask(engine, "backfill", "nightly", *SPAN, "--json")
    found = json.loads(result.output)
    assert (result.exit_code, found["state"], found["done"]) == (0, "completed", 3)
    assert found["outcomes"] == {"succeeded": 3}


def test_detached_it_says_where_to_look(engine: Running) -> None:
    result = ask(engine, "backfill", "nightly", *SPAN, "--detach")
    (backfill,) = engine.operations.backfills.kept
    assert result.output == (
        f"Backfill {backfill} of nightly is running, 0 of 3 done; backfills {backfill} tells how it goes on\n"
    )
    found = json.loads(ask(engine, "backfill", "nightly", *SPAN, "--detach", "--json").output)
    assert found["state"] == "running"


def test_a_dry_run_says_what_would_be_run_and_what_is_left_out(engine: Running) -> None:
    result = ask(engine, "backfill", "nightly", *SPAN, "--only-missing", "--dry-run", "--zone", "Europe/Berlin")
    assert result.output.splitlines() == [
        "Would run 2 instants of nightly, from 2026-11-20 00:00:00+00:00 to 2026-11-20 02:00:00+00:00; left out, as "
        "they have run with success: 1",
        "  2026-11-20 01:00:00+01:00 (Europe/Berlin)  2026-11-20T00:00:00Z",
        "  2026-11-20 03:00:00+01:00 (Europe/Berlin)  2026-11-20T02:00:00Z",
    ]
    assert not engine.operations.backfills.kept
    assert json.loads(ask(engine, "backfill", "nightly", *SPAN, "--dry-run", "--json").output)["total"] == 3


def test_it_fails_where_runs_of_it_failed_or_it_was_cancelled(engine: Running) -> None:
    backfills = engine.operations.backfills

    def fail(found: Any) -> Any:
        done = replace(found.backfill, state=BackfillState.COMPLETED, position=3)
        return replace(found, backfill=done, ends={RunState.FAILED: 1, RunState.SUCCEEDED: 2})

    backfills._further = fail  # type: ignore[method-assign]
    result = ask(engine, "backfill", "nightly", *SPAN)
    assert result.exit_code == 1
    assert "3 of 3 done: failed 1, succeeded 2" in result.output


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("backfill", "nightly", "--from", "2026-11-20"), 2, "Missing option '--to'"),
        (("backfill", "nightly", "--from", "soon", "--to", "2026-11-21"), 2, "from must be a date or a time"),
        (("backfill", "nightly", *SPAN, "--order", "random"), 2, "order must be one of oldest, newest"),
        (("backfill", "nightly", *SPAN, "--max-parallel", "1000"), 2, "from 1 to 100"),
        (("backfills", new_id()), 1, "there is no backfill"),
        (("backfills", "--pause"), 2, "name one backfill"),
        (("backfills", "x", "--pause", "--cancel"), 2, "name one backfill, and one of"),
        (("backfills", "x", "--reason", "why"), 2, "--reason goes with --pause or --cancel"),
    ],
)
def test_what_is_wrong_is_said_with_its_exit_code(
    engine: Running, arguments: tuple[str, ...], code: int, words: str
) -> None:
    result = ask(engine, *arguments)
    assert result.exit_code == code, result.output
    assert words in result.output


def test_what_the_engine_refuses_is_said_as_it_says_it(engine: Running) -> None:
    engine.operations.backfills.fault = InvalidRequest("trigger nightly has 40,000 due instants in that span")
    result = ask(engine, "backfill", "nightly", *SPAN)
    assert (result.exit_code, result.output) == (2, "trigger nightly has 40,000 due instants in that span\n")


def test_backfills_are_listed_shown_paused_resumed_and_cancelled(engine: Running) -> None:
    assert ask(engine, "backfill", "nightly", *SPAN, "--detach", "--reason", "it was down").exit_code == 0
    (backfill,) = engine.operations.backfills.kept
    listed = ask(engine, "backfills").output.splitlines()
    assert listed[0].split() == ["BACKFILL", "TRIGGER", "STATE", "FROM", "TO", "REASON"]
    assert listed[1].startswith(f"{backfill}  nightly  running 0/3  ")
    assert json.loads(ask(engine, "backfills", "--json").output)["items"][0]["id"] == backfill
    paused = ask(engine, "backfills", backfill, "--pause", "--reason", "month end")
    assert f"Backfill {backfill} of nightly is paused" in paused.output
    assert engine.operations.backfills.reasons == ["month end"]
    assert json.loads(ask(engine, "backfills", backfill, "--resume", "--json").output)["state"] == "running"
    assert "is cancelling" in ask(engine, "backfills", backfill, "--cancel").output
    shown = ask(engine, "backfills", backfill).output
    assert "max_parallel" in shown
    refused = ask(engine, "backfills", backfill, "--resume")
    assert (refused.exit_code, refused.output) == (1, f"backfill {backfill} is cancelling\n")


def test_a_paused_backfill_is_not_waited_for() -> None:
    class Paused:
        def get(self, *path: str) -> dict[str, Any]:
            return {"id": path[1], "state": "paused"}

    slept: list[float] = []
    found = follow(Paused(), {"id": "x"}, lambda found: None, sleep=slept.append)  # type: ignore[arg-type]
    assert (found["state"], slept) == ("paused", [])


def test_lines_are_printed_where_something_has_changed(capsys: pytest.CaptureFixture[str]) -> None:
    show = lines()
    found: dict[str, Any] = {
        "state": "running", "total": 100, "done": 0, "holds": None, "outcomes": {}, "rate_per_s": None
    }  # fmt: skip
    for done in range(0, 40):
        show({**found, "done": done})
    show({**found, "done": 39, "holds": "trigger nightly is paused"})
    show({**found, "done": 40, "rate_per_s": 79.0})
    assert capsys.readouterr().out.splitlines() == [
        "0 of 100 done; running",
        "10 of 100 done; running",
        "20 of 100 done; running",
        "30 of 100 done; running",
        "39 of 100 done; waits: trigger nightly is paused",
        "40 of 100 done; 4,740 a minute, 759ms left",
    ]
