"""What is done with many triggers in one commit: with all of them, or none."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from engine.clock import Clock
from engine.errors import Conflict
from engine.events import Accepted
from engine.intake import Intake
from engine.pauses import Pauses


class Bulk:
    """Pauses, resumes and fires many triggers at once. All raise StoreUnavailable."""

    def __init__(self, clock: Clock, pauses: Pauses, intake: Intake) -> None:
        self._clock = clock
        self._pauses = pauses
        self._intake = intake

    async def pause(self, names: Sequence[str], *, reason: str, until: datetime | None, who: str) -> None:
        """Pause triggers, durably; raise Conflict where `until` is past."""
        if until is not None and until <= self._clock.now():
            raise Conflict(f"nothing can be paused until {until.isoformat()}: that is past")
        await self._pauses.pause_all(names, reason=reason, until=until, who=who)

    async def resume(self, names: Sequence[str], *, who: str) -> None:
        """End the pauses of triggers, durably; one that is not paused is left as it is."""
        await self._pauses.resume_all(names, who=who)

    async def fire(
        self, names: Sequence[str], *, data: Any, reason: str, priority: int | None, bypass: frozenset[str],
        request_id: str | None,
    ) -> list[Accepted]:  # fmt: skip
        """Fire triggers by hand, durably; raise as `Intake.fire` does."""
        return await self._intake.fire_all(
            names, data=data, reason=reason, priority=priority, bypass=bypass, request_id=request_id
        )  # fmt: skip
