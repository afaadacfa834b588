"""Priorities that are computed from events: bounded by the trigger, and recorded where they fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.triggers import Debounce
from tests.organs import bench, event, trigger


async def priority_and_reason(
    tmp_path: Path, data: Any = None, asked: int | None = None, **fields: Any
) -> tuple[int, str]:
    async with bench(tmp_path / "e.db", triggers=[trigger(**fields)], dispatching=False) as desk:
        answer = await desk.emit_one(event(data=data, priority=asked))
        run = await desk.run_of(answer.runs[0])
        return run.priority, run.trace[0].reason


@pytest.mark.parametrize(
    ("text", "data", "expected"),
    [
        ("{{ data.urgent ? 8 : 2 }}", {"urgent": True}, 8),
        ("{{ data.urgent ? 8 : 2 }}", {"urgent": False}, 2),
        ("{{ data.level }}", {"level": "low"}, 2),
        ("{{ data.level }}", {"level": "7"}, 7),
        ("{{ data.level }}", {"level": 3.0}, 3),
        ("{{ event.subject == '' ? 1 : 4 }}", None, 4),
    ],
)
async def test_a_priority_may_be_computed_from_the_event(tmp_path: Path, text: str, data: Any, expected: int) -> None:
    found, reason = await priority_and_reason(tmp_path, data, priority_from=text)
    assert (found, reason) == (expected, "matched; waits for a slot")


@pytest.mark.parametrize("level", [9, "critical", "9"])
async def test_what_data_asks_for_is_at_most_what_the_trigger_allows(tmp_path: Path, level: Any) -> None:
    found, _ = await priority_and_reason(tmp_path, {"level": level}, priority_from="{{ data.level }}", priority_max=6)
    assert found == 6


@pytest.mark.parametrize("level", [10, -1, "urgent", True, None, 2.5, [5], "99999999999999999999", {"a": 1}])
async def test_what_is_no_priority_is_recorded_and_the_run_is_a_normal_one(tmp_path: Path, level: Any) -> None:
    found, reason = await priority_and_reason(tmp_path, {"level": level}, priority_from="{{ data.level }}")
    assert found == 5
    assert "matched; priority 5, as its expression fails: " in reason


async def test_an_expression_that_fails_never_stops_an_event(tmp_path: Path) -> None:
    found, reason = await priority_and_reason(tmp_path, {"a": 1}, priority_from="{{ data.level }}")
    assert found == 5
    assert "priority 5, as its expression fails: " in reason
    found, reason = await priority_and_reason(
        tmp_path, None, priority_from="{{ data.level }}", debounce=Debounce(wait_s=5.0)
    )
    assert reason.startswith("pending: gathers events for 5s (debounce); priority 5, as its expression fails")


async def test_what_the_sender_asks_for_wins_within_its_bound(tmp_path: Path) -> None:
    found, _ = await priority_and_reason(tmp_path, {"level": 3}, 9, priority_from="{{ data.level }}", priority_max=7)
    assert found == 7
