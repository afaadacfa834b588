"""One condition for tests of the faces, which remembers what it was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.errors import InvalidRequest, NotFound


def a_condition_view(**fields: Any) -> dict[str, Any]:
    """Return a condition as the engine shows it."""
    change = {"at": "2026-11-21T09:30:00Z", "state": "hold", "reason": "refused", "value": None, "failed": False}
    return {
        "name": "warehouse-up", "state": "hold", "reason": "connection refused (3 tries, next in 30s)", "value": None,
        "failed": False, "checked_at": "2026-11-21T09:31:00Z", "checking": False,
        "check": {"tcp": {"address": "db.internal:5432"}}, "every": "30s", "timeout": "10s", "on_error": "closed",
        "shadow": False, "enabled": True, "override": None, "always": False, "triggers": ["nightly"], "waiting": 2,
        "description": "", "tags": [], "defined_in": "config.toml:9", "changes": [change], **fields,
    }  # fmt: skip


class FakeConditions:
    """Conditions, of which there is one."""

    def __init__(self) -> None:
        self.one = a_condition_view()
        self.asked: list[dict[str, Any]] = []

    async def views(self) -> list[dict[str, Any]]:
        return [self.one]

    async def view(self, name: str) -> dict[str, Any]:
        if name != self.one["name"]:
            raise NotFound(f'there is no condition {name}; did you mean "{self.one["name"]}"?')
        return self.one

    async def override(
        self, name: str, *, reason: str, who: str, enabled: bool | None = None, shadow: bool | None = None,
        thresholds: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        await self.view(name)
        if thresholds and "address" in thresholds:
            raise InvalidRequest("'address' is no threshold of condition warehouse-up; it has none")
        override = {
            "since": "2026-11-21T09:32:00Z", "who": who, "reason": reason, "enabled": enabled, "shadow": shadow,
            "thresholds": dict(thresholds or {}),
        }  # fmt: skip
        self.asked.append(override)
        self.one = a_condition_view(override=override)
        return self.one

    async def reset(self, name: str) -> dict[str, Any]:
        await self.view(name)
        self.asked.append({"reset": True})
        self.one = a_condition_view()
        return self.one
