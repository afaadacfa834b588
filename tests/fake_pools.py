"""One pool for tests of the faces, which remembers what it was asked for."""

from __future__ import annotations

from typing import Any

from engine.errors import InvalidRequest, NotFound
from engine.runs import Run, RunState


class FakePools:
    """Pools, of which there is one; a run that is queued waits for it."""

    def __init__(self) -> None:
        self.one = self._view()
        self.asked: list[dict[str, Any]] = []

    @staticmethod
    def _view(**fields: Any) -> dict[str, Any]:
        return {
            "name": "warehouse", "limit": 2, "configured": 2, "taken": 2, "queued": 3, "jobs": {"import": 2},
            "runs": [{"id": "0198b0c0-0000-7000-8000-000000000001", "job": "import", "takes": 2}], "override": None,
            **fields,
        }  # fmt: skip

    async def views(self) -> list[dict[str, Any]]:
        return [self.one]

    async def view(self, name: str) -> dict[str, Any]:
        if name != self.one["name"]:
            raise NotFound(f"there is no pool {name}; there are engine, warehouse")
        return self.one

    async def change(self, name: str, limit: int, *, reason: str, who: str = "") -> dict[str, Any]:
        await self.view(name)
        if limit > 100:
            raise InvalidRequest("a limit is 0 to 100")
        override = {"limit": limit, "since": "2026-11-21T09:32:00Z", "reason": reason, "who": who}
        self.asked.append(override)
        self.one = self._view(limit=limit, override=override)
        return self.one

    async def reset(self, name: str, *, who: str = "") -> dict[str, Any]:
        await self.view(name)
        self.asked.append({"reset": True, "who": who})
        self.one = self._view()
        return self.one

    def waits_for(self, run: Run) -> str | None:
        return "waits for pool warehouse: 2 of 2 taken by run x" if run.state is RunState.QUEUED else None
