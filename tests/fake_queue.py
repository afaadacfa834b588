"""A queue without an engine: what HTTP and the command line ask of it, kept in memory."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace

from engine.errors import NotFound
from engine.events import Accepted
from engine.ids import new_id
from engine.runs import CANCELLING, HELD_BY_HAND, Lane, Run, RunState, Step
from engine.store.base import QueuePlace, Store
from engine.waiting import Flushed, FlushRequest, QueuePage, Retried, RetryRequest, Standing

NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)

FLUSHED = tuple(f"01a00000-0000-7000-8000-00000000000{digit}" for digit in (1, 2, 3))
"""Runs that a flush cancels."""


class FakeQueue:
    """Whatever is asked is done; runs are those of a store in memory.

    - `asked`: what was asked, of which run, why, by whom; `fault`: raised by everything while it is set.
    """

    def __init__(self, store: Store, runs: dict[str, Run]) -> None:
        self._store = store
        self._runs = runs
        self.asked: list[tuple[str, Any, str, str]] = []
        self.lanes: list[Lane | None] = []
        self.flushes: list[tuple[FlushRequest, bool]] = []
        self.retries: list[tuple[RetryRequest, str, str, bool]] = []
        self.request_ids: list[str | None] = []
        self.fault: Exception | None = None

    async def page(self, *, lane: Lane | None = None, after: QueuePlace | None = None, limit: int = 50) -> QueuePage:
        self.lanes.append(lane)
        runs = await self._store.line(lanes=list(Lane) if lane is None else [lane], after=after, limit=limit + 1)
        items = [
            (run, Standing(position=place, expected_start_at=NOW + timedelta(seconds=place) if place > 1 else None))
            for place, run in enumerate(runs[:limit], 1)
        ]
        counts = {RunState.QUEUED: len(self._runs), RunState.RUNNING: 2}
        return QueuePage(items=tuple(items), more=len(runs) > limit, counts=counts, slots=4)

    async def flush(self, which: FlushRequest, *, reason: str, who: str = "", dry_run: bool = False) -> Flushed:
        which.check()
        self._take("flush", "", reason, who)
        self.flushes.append((which, dry_run))
        return Flushed(count=3, triggers={"nightly": 3}, runs=FLUSHED)

    async def cancel(self, run_id: str, *, reason: str = "", who: str = "") -> Run:
        run = self._take("cancel", run_id, reason, who)
        if run.state is RunState.RUNNING:
            return self._moved(run, RunState.RUNNING, CANCELLING)
        return self._moved(run, RunState.CANCELLED, "cancelled")

    async def hold(self, run_id: str, *, reason: str = "", who: str = "") -> Run:
        return self._moved(self._take("hold", run_id, reason, who), RunState.HELD, HELD_BY_HAND)

    async def release(self, run_id: str, *, reason: str = "", who: str = "") -> Run:
        return self._moved(self._take("release", run_id, reason, who), RunState.QUEUED, "released")

    async def set_priority(self, run_id: str, priority: int, *, reason: str = "", who: str = "") -> Run:
        run = self._take("priority", run_id, reason, who)
        self.asked[-1] = ("priority", (run_id, priority), reason, who)
        self._runs[run_id] = replace(run, priority=priority)
        return self._runs[run_id]

    async def retry(self, run_id: str, *, reason: str = "", who: str = "", request_id: str | None = None) -> Accepted:
        self._take("retry", run_id, reason, who)
        self.request_ids.append(request_id)
        return Accepted(event=new_id(), runs=(new_id(),))

    async def retry_many(
        self, which: RetryRequest, *, reason: str, who: str = "", dry_run: bool = False
    ) -> Retried:  # fmt: skip
        which.check()
        if self.fault is not None:
            raise self.fault
        self.retries.append((which, reason, who, dry_run))
        run, other = new_id(), new_id()
        following = None if which.before is not None else run
        return Retried(made={run: (new_id(),)}, refused={}, known=(other,), following=following)

    def _take(self, what: str, run_id: str, reason: str, who: str) -> Run:
        if self.fault is not None:
            raise self.fault
        self.asked.append((what, run_id, reason, who))
        run = self._runs.get(run_id)
        if run is None and what != "flush":
            raise NotFound(f"there is no run {run_id}")
        return run or next(iter(self._runs.values()), None)  # type: ignore[return-value]

    def _moved(self, run: Run, state: RunState, code: str) -> Run:
        step = Step(at=NOW, state=state, code=code, reason=f"{state}: by hand")
        moved = replace(run, state=state, code=code, reason=step.reason, trace=(*run.trace, step))
        self._runs[run.id] = moved
        return moved
