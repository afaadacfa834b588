"""The commands about what waits, against a real listener with an engine without organs behind it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.cli import queueing
from engine.errors import Conflict
from engine.ids import new_id
from engine.runs import Lane, RunState
from tests.test_cli import VARIABLES, Running, ask


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("LOGNAME", "ann")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(queueing, "LOOK_S", 0.0)
    with Running(tmp_path) as running:
        yield running


def a_run(engine: Running, state: RunState = RunState.QUEUED) -> str:
    return engine.operations.add_run(state=state).id


def test_the_queue_is_listed_with_what_is_taken_and_what_waits(engine: Running) -> None:
    runs = sorted(a_run(engine) for _ in range(3))
    result = ask(engine, "queue", "--limit", "2")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [[runs[0], "1"], [runs[1], "2"]]
    assert "2026-11-21 09:30:02+00:00" in lines[2]
    assert lines[-1] == "2 of 4 slots are taken; waiting: queued 3"
    ask(engine, "queue", "--lane", "backfill")
    assert engine.operations.queue.lanes == [None, Lane.BACKFILL]
    assert ask(engine, "queue", "--lane", "fast").exit_code == 2


@pytest.mark.parametrize(
    ("command", "said"), [("cancel", "cancelled: by hand"), ("hold", "held: by hand"), ("release", "queued: by hand")]
)
def test_runs_are_steered_by_their_ids(engine: Running, command: str, said: str) -> None:
    runs = [a_run(engine), a_run(engine)]
    result = ask(engine, command, *runs, "--reason", "stock-taking")
    assert result.exit_code == 0, result.output
    assert result.output.splitlines() == [f"Run {run_id} {said}" for run_id in runs]
    who = "admin token, for ann"
    assert engine.operations.queue.asked == [(command, run_id, "stock-taking", who) for run_id in runs]
    one = ask(engine, command, runs[0], "--json")
    assert json.loads(one.output)["id"] == runs[0]


def test_where_one_of_several_can_not_be_steered_the_others_are(engine: Running) -> None:
    there = a_run(engine)
    gone = new_id()
    result = ask(engine, "cancel", gone, there)
    assert result.exit_code == 1
    assert f"Run {there} cancelled" in result.output
    assert f"there is no run {gone}" in result.output
    assert ask(engine, "hold", gone).exit_code == 1


def test_the_end_of_what_runs_is_waited_for(engine: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = a_run(engine, RunState.RUNNING)
    assert "running: by hand" in ask(engine, "cancel", run_id, "--detach").output
    monkeypatch.setattr(queueing, "LONGEST_LOOK_S", 0.0)
    assert "running: by hand" in ask(engine, "cancel", run_id).output


def test_a_priority_is_given_to_runs(engine: Running) -> None:
    run_id = a_run(engine)
    assert ask(engine, "priority", "high", run_id).exit_code == 0
    assert ask(engine, "priority", "0", run_id).exit_code == 0
    assert [asked[1] for asked in engine.operations.queue.asked] == [(run_id, 8), (run_id, 0)]
    assert ask(engine, "priority", "12", run_id).exit_code == 2
    assert ask(engine, "priority", "urgent", run_id).exit_code == 2
    engine.operations.queue.fault = Conflict("it is running")
    refused = ask(engine, "priority", "5", run_id)
    assert (refused.exit_code, "it is running" in refused.output) == (1, True)


def test_a_run_is_run_once_more(engine: Running) -> None:
    run_id = a_run(engine, RunState.FAILED)
    result = ask(engine, "retry", run_id, "--reason", "the disk is back")
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"Run {run_id} once more: run ")
    assert engine.operations.queue.asked[-1][:3] == ("retry", run_id, "the disk is back")


def test_a_flush_says_how_many_of_which_trigger(engine: Running) -> None:
    options = ("--trigger", "nightly", "--state", "queued", "--state", "held", "--below", "5", "--reason", "flood")
    result = ask(engine, "flush", *options, "--dry-run")
    assert result.output.strip() == "3 runs would be cancelled: nightly 3"
    assert ask(engine, "flush", *options).output.strip() == "3 runs are cancelled: nightly 3"
    ((which, _), (_, dry_run)) = engine.operations.queue.flushes
    assert (which.trigger, which.priority_below, sorted(which.states), dry_run) == (
        "nightly", 5, ["held", "queued"], False,
    )  # fmt: skip
    assert ask(engine, "flush", "--reason", "flood").exit_code == 2
    assert ask(engine, "flush", "--all").exit_code == 2
