"""The crash harness: a sample of its kills in the fast tier, all of them in the long one.

The long one is `python -m tests.crash --steps`, which prints what it does.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.steps import CALLS, steps, strace_is_there
from tests.crash.storm import storm

needs_strace = pytest.mark.skipif(
    not strace_is_there(), reason="strace is not installed: it kills the engine at its Nth system call"
)

SAMPLE = [("fdatasync", 15), ("clone3", 12)]


def test_a_few_kills_at_random_moments_lose_nothing_and_run_nothing_without_a_reason(tmp_path: Path) -> None:
    result = storm(tmp_path, kills=4, seed=20261121)
    assert result.findings == []
    assert result.counts["acknowledged"] > 0
    assert result.counts["cut off"] > 0
    assert result.counts["killed"] > 0


@needs_strace
@pytest.mark.parametrize(("call", "number"), SAMPLE)
def test_a_kill_at_a_step_loses_nothing(tmp_path: Path, call: str, number: int) -> None:
    (step,) = steps(tmp_path, call, numbers=[number])
    assert step.died
    assert step.sum.findings == []


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1, 2])
def test_two_hundred_kills_at_random_moments_add_up_to_zero(tmp_path: Path, seed: int) -> None:
    assert storm(tmp_path, kills=200, seed=seed).findings == []


@pytest.mark.full
@pytest.mark.timeout(7200)
def test_an_hour_of_kills_of_engine_and_programs_exceeds_no_limit_and_leaves_nothing_behind(tmp_path: Path) -> None:
    assert storm(tmp_path, kills=1, minutes=60.0, seed=20261126).findings == []


@needs_strace
@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("call", CALLS)
def test_kills_at_every_step_add_up_to_zero(tmp_path: Path, call: str) -> None:
    done = list(steps(tmp_path, call))
    assert any(step.died for step in done)
    assert [(step.number, step.sum.findings) for step in done if step.sum.findings] == []
