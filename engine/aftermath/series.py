"""Series: how often a job has failed in a row, so that its recovery can be told, over a restart too."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import Struct

from engine.clock import rfc3339
from engine.runnotes import SOURCE
from engine.runs import FAILURES, RunState
from engine.store.base import Store

PREFIX = "job:"
"""Under this and the name of the job a series is remembered, beside the notes of runs."""

PAGE = 1_000


class Series(Struct, frozen=True, kw_only=True):
    """How many runs of a job failed, since when; none has succeeded between them."""

    count: int
    since: datetime


class AllSeries:
    """The series of the jobs that fail now. Cancelled, skipped and expired runs neither begin one nor end it."""

    def __init__(self) -> None:
        self._series: dict[str, Series] = {}

    async def load(self, store: Store) -> None:
        """Read what is remembered; raise StoreError."""
        after = PREFIX
        while page := await store.memory(SOURCE, after=after, limit=PAGE):
            for key, (count, since) in page.items():
                if not key.startswith(PREFIX):
                    return
                self._series[key.removeprefix(PREFIX)] = Series(count=count, since=datetime.fromisoformat(since))
            after = max(page)

    def note(self, job: str, state: RunState, at: datetime) -> tuple[Series | None, dict[str, Any]]:
        """Note how a run of a job ended; return the series that it ends, and what is to be remembered."""
        if state in FAILURES:
            before = self._series.get(job)
            series = Series(count=1, since=at) if before is None else Series(count=before.count + 1, since=before.since)
            self._series[job] = series
            return None, {f"{PREFIX}{job}": [series.count, rfc3339(series.since)]}
        if state is RunState.SUCCEEDED and (ended := self._series.pop(job, None)) is not None:
            return ended, {f"{PREFIX}{job}": None}
        return None, {}
