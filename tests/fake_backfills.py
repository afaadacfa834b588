"""Backfills without an engine: what HTTP and the command line ask for, kept in memory."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from engine.backfills import (
    TURNS,
    Backfill,
    BackfillPlan,
    BackfillProgress,
    BackfillRequest,
    BackfillState,
)
from engine.errors import Conflict, NotFound
from engine.ids import new_id
from engine.runs import RunState

NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
FIRST = datetime(2026, 11, 20, 0, 0, tzinfo=UTC)


class FakeBackfills:
    """Three instants are to be run, whatever is asked for; each look at one that runs finds one more of them done.

    - `asked`: all requests; `fault`: raised by everything while it is set.
    """

    def __init__(self) -> None:
        self.kept: dict[str, BackfillProgress] = {}
        self.asked: list[BackfillRequest] = []
        self.reasons: list[str] = []
        self.request_ids: list[str | None] = []
        self.fault: Exception | None = None

    async def plan(self, request: BackfillRequest) -> BackfillPlan:
        if self.fault is not None:
            raise self.fault
        self.asked.append(request)
        instants = tuple(FIRST + timedelta(hours=hour) for hour in range(3))
        skipped = ((instants[1], new_id()),) if request.only_missing else ()
        left = tuple(instant for instant in instants if not skipped or instant != skipped[0][0])
        return BackfillPlan(
            trigger=request.trigger, from_at=FIRST, to_at=NOW, timezone=request.timezone or "UTC", instants=left,
            skipped=skipped,
        )  # fmt: skip

    async def begin(self, request: BackfillRequest, *, request_id: str | None = None) -> BackfillProgress:
        self.request_ids.append(request_id)
        plan = await self.plan(request)
        backfill = Backfill(
            id=new_id(), trigger=request.trigger, from_at=plan.from_at, to_at=plan.to_at, timezone=plan.timezone,
            max_parallel=request.max_parallel, order=request.order, only_missing=request.only_missing,
            skipped=len(plan.skipped), reason=request.reason, state_reason="running: it was asked for",
            total=len(plan.instants), created_at=NOW,
        )  # fmt: skip
        return self.keep(BackfillProgress(backfill=backfill))

    def keep(self, progress: BackfillProgress) -> BackfillProgress:
        """Put one there."""
        self.kept[progress.backfill.id] = progress
        return progress

    async def get(self, backfill_id: str) -> BackfillProgress:
        found = self._one(backfill_id)
        if found.backfill.state is BackfillState.RUNNING:
            self.keep(self._further(found))
        return found

    def _further(self, found: BackfillProgress) -> BackfillProgress:
        backfill = found.backfill
        if backfill.position == backfill.total:
            done = replace(backfill, state=BackfillState.COMPLETED, state_reason="completed: all ran", finished_at=NOW)
            return replace(found, backfill=done, running=0)
        backfill = replace(backfill, position=backfill.position + 1)
        return replace(
            found, backfill=backfill, ends={RunState.SUCCEEDED: backfill.position}, current=FIRST, rate_per_s=0.5,
            expected_end_at=NOW,
        )  # fmt: skip

    async def page(self, *, limit: int, before: str | None = None) -> list[BackfillProgress]:
        found = [one for key, one in sorted(self.kept.items(), reverse=True) if before is None or key < before]
        return found[:limit]

    async def pause(self, backfill_id: str, *, reason: str = "") -> BackfillProgress:
        return self._turn(backfill_id, BackfillState.PAUSED, reason)

    async def resume(self, backfill_id: str) -> BackfillProgress:
        return self._turn(backfill_id, BackfillState.RUNNING, "")

    async def cancel(self, backfill_id: str, *, reason: str = "") -> BackfillProgress:
        return self._turn(backfill_id, BackfillState.CANCELLING, reason)

    def _turn(self, backfill_id: str, state: BackfillState, reason: str) -> BackfillProgress:
        self.reasons.append(reason)
        found = self._one(backfill_id)
        if state not in TURNS[found.backfill.state]:
            raise Conflict(f"backfill {backfill_id} is {found.backfill.state}")
        return self.keep(replace(found, backfill=replace(found.backfill, state=state, state_reason=f"{state}: asked")))

    def _one(self, backfill_id: str) -> BackfillProgress:
        if self.fault is not None:
            raise self.fault
        if backfill_id not in self.kept:
            raise NotFound(f"there is no backfill {backfill_id}")
        return self.kept[backfill_id]
