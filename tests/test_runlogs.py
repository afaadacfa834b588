"""Logs of runs: each its own file; one that was left empty is handed on, and nobody reads or writes another's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.runlogs import MOST_SPARE, RunLogs

TODAY = "019aa000-0000-7000-8000-00000000000"
TOMORROW = "019aa800-0000-7000-8000-00000000000"


@pytest.fixture
def logs(tmp_path: Path) -> RunLogs:
    return RunLogs(tmp_path / "logs")


@pytest.fixture
def stray(logs: RunLogs) -> Iterator[int]:
    """A descriptor that somebody keeps of the first run's log."""
    descriptor = logs.open(TODAY + "1")
    yield descriptor
    os.close(descriptor)


def attempt(logs: RunLogs, run_id: str, text: bytes = b"") -> int:
    """Let a run print something; return the file that it had."""
    descriptor = logs.open(run_id)
    try:
        os.write(descriptor, text)
        return os.fstat(descriptor).st_ino
    finally:
        os.close(descriptor)
        logs.ended(run_id)


def test_a_log_that_was_left_empty_is_handed_on(logs: RunLogs) -> None:
    first = attempt(logs, TODAY + "1")
    assert attempt(logs, TODAY + "2", b"two\n") == first
    assert not logs.path(TODAY + "1").exists()
    assert logs.path(TODAY + "2").read_bytes() == b"two\n"
    assert logs.path(TODAY + "2").stat().st_mode & 0o777 == 0o600


def test_a_log_that_holds_something_stays(logs: RunLogs) -> None:
    attempt(logs, TODAY + "1", b"one\n")
    attempt(logs, TODAY + "2", b"two\n")
    assert logs.path(TODAY + "1").read_bytes() == b"one\n"


def test_a_log_that_somebody_still_has_open_stays_with_its_run(logs: RunLogs, stray: int) -> None:
    logs.ended(TODAY + "1")
    attempt(logs, TODAY + "2", b"two\n")
    os.write(stray, b"late\n")
    assert logs.path(TODAY + "1").read_bytes() == b"late\n"
    assert logs.path(TODAY + "2").read_bytes() == b"two\n"


def test_a_further_attempt_appends_to_the_log_of_its_run_whatever_is_spare(logs: RunLogs) -> None:
    attempt(logs, TODAY + "1", b"one\n")
    attempt(logs, TODAY + "2")
    attempt(logs, TODAY + "1", b"again\n")
    assert logs.path(TODAY + "1").read_bytes() == b"one\nagain\n"


def test_a_further_attempt_has_its_own_empty_log_again(logs: RunLogs) -> None:
    first = attempt(logs, TODAY + "1")
    assert attempt(logs, TODAY + "1", b"again\n") == first
    attempt(logs, TODAY + "2", b"two\n")
    assert logs.path(TODAY + "1").read_bytes() == b"again\n"


def test_a_log_that_grew_after_its_run_ended_stays(logs: RunLogs, stray: int) -> None:
    logs.ended(TODAY + "1")
    os.write(stray, b"late\n")
    attempt(logs, TODAY + "2", b"two\n")
    assert logs.path(TODAY + "1").read_bytes() == b"late\n"
    assert logs.path(TODAY + "2").read_bytes() == b"two\n"


def test_the_first_run_of_a_day_makes_its_folder_and_later_ones_take_what_is_spare(logs: RunLogs) -> None:
    first, second = attempt(logs, TODAY + "1"), attempt(logs, TODAY + "2", b"two\n")
    assert first == second
    third = attempt(logs, TODAY + "3")
    attempt(logs, TOMORROW + "1", b"one\n")
    assert logs.path(TOMORROW + "1").read_bytes() == b"one\n"
    assert attempt(logs, TOMORROW + "2") != third  # it was taken for the first of the day, which had no folder


def test_no_more_than_some_are_kept(logs: RunLogs) -> None:
    ids = [f"{TODAY[:-3]}{number:03x}" + "0" for number in range(MOST_SPARE + 5)]
    for run_id in ids:
        os.close(logs.open(run_id))
    for run_id in ids:
        logs.ended(run_id)
    assert len(logs._spare) == MOST_SPARE


def test_a_spare_log_that_was_removed_by_hand_is_made_anew(logs: RunLogs) -> None:
    attempt(logs, TODAY + "1")
    logs.path(TODAY + "1").unlink()
    attempt(logs, TODAY + "2", b"two\n")
    assert logs.path(TODAY + "2").read_bytes() == b"two\n"
