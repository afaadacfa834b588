"""The command `override`, up to what it sends; a recipe runs it against an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.cli.failures import CommandFailed
from engine.cli.overriding import _nested
from tests.test_cli import call, here

__all__ = ["here"]


def test_assignments_are_nested_and_text_where_they_are_no_json() -> None:
    given = ["interval=30m", "enabled=false", "priority=8", "adaptive.max=2h", "adaptive.cpu_max=0.9", "expect=null"]
    assert _nested(given) == {
        "interval": "30m", "enabled": False, "priority": 8, "adaptive": {"max": "2h", "cpu_max": 0.9}, "expect": None,
    }  # fmt: skip
    assert _nested(["a=b=c", "b="]) == {"a": "b=c", "b": ""}


@pytest.mark.parametrize(
    "given", [["interval"], ["=1"], ["a..b=1"], [".a=1"], ["a=1", "a=2"], ["a=1", "a.b=2"], ["a.b=1", "a=2"]]
)
def test_what_is_no_assignment_is_refused(given: Any) -> None:
    with pytest.raises(CommandFailed) as caught:
        _nested(given)
    assert caught.value.code == 2


@pytest.mark.parametrize(
    "arguments",
    [("interval=30m",), ("--reason", "why"), ("--reset", "--reason", "why"), ("--reset", "a=1", "--reason", "why")],
)
def test_a_change_needs_its_reason_and_a_reset_stands_alone(here: Path, arguments: tuple[str, ...]) -> None:
    assert call("override", "nightly", *arguments, "--url", "http://127.0.0.1:1", "--token", "x").exit_code == 2
