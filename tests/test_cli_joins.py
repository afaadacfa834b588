"""Joins that wait, in words."""

from __future__ import annotations

import pytest

from engine.cli.joins import MOST_LINES, say_joins


def waiting(run: str, *, key: str | None = None, missing: tuple[str, ...] = ("stock",)) -> dict[str, object]:
    return {
        "run": run, "key": key, "until": "2026-11-26T03:00:00Z", "has": {"sales": ["e1"], "orders": ["e2"]},
        "missing": list(missing),
    }  # fmt: skip


def test_a_join_that_waits_says_what_it_has_and_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    items = [waiting("r1"), waiting("r2", key="7", missing=())]
    say_joins({"name": "reconcile", "joins": {"open": 2, "items": items}})
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("reconcile: run r1 has sales and orders, waits for stock until 2026-11-2")
    assert second.startswith('reconcile: run r2 of key "7" has sales and orders, has all of its inputs until')


def test_of_many_joins_some_are_told_and_the_others_counted(capsys: pytest.CaptureFixture[str]) -> None:
    items = [waiting(f"r{number}") for number in range(MOST_LINES + 2)]
    say_joins({"name": "reconcile", "joins": {"open": 40, "items": items}})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == MOST_LINES + 1
    assert lines[-1] == f"reconcile: {40 - MOST_LINES} more joins wait"


@pytest.mark.parametrize("joins", [None, {"open": 0, "items": []}])
def test_a_trigger_without_joins_says_nothing(capsys: pytest.CaptureFixture[str], joins: object) -> None:
    say_joins({"name": "nightly", "joins": joins})
    assert capsys.readouterr().out == ""
