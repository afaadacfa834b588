"""Vitals: how each part of the engine is, for those who look closer than /health does.

All of it is known already, but for how the latest runs of triggers ended before the engine started, which is looked up
once, by an index. Whether the engine as a whole is well is for /health alone to say, and said here as it is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from engine.aftermath import Counting, Reports
from engine.clock import Clock, rfc3339
from engine.conditions import ConditionDesk
from engine.errors import NotFound, StoreUnavailable
from engine.housekeeping import Housekeeping
from engine.journal import Journal
from engine.lease import Lease
from engine.loopwatch import LoopWatch
from engine.metrics import Histogram
from engine.store.base import Store
from engine.tallies import Last
from engine.units import format_span

LATE_S = 60.0
"""A timer that was due so long ago, and of which nothing came, is late."""

LOOKED_BACK = timedelta(days=1)

View = dict[str, Any]


class Vitals:
    """Tells how everything is. `trigger_view` and the others return what the API shows of one."""

    def __init__(
        self, *, clock: Clock, store: Store, journal: Journal, loop_watch: LoopWatch, lease: Lease,
        housekeeping: Housekeeping, conditions: ConditionDesk, counting: Counting, reports: Reports,
        health: Callable[[], View], source_views: Callable[[], list[View]], names: Callable[[], Sequence[str]],
        trigger_view: Callable[[str], View],
    ) -> None:  # fmt: skip
        self._clock = clock
        self._store = store
        self._journal = journal
        self._loop_watch = loop_watch
        self._lease = lease
        self._housekeeping = housekeeping
        self._conditions = conditions
        self._counting = counting
        self._reports = reports
        self._health = health
        self._source_views = source_views
        self._names = names
        self._trigger_view = trigger_view

    async def detailed(self, *, triggers: Sequence[str]) -> View:
        """Return how each part is, and of triggers those that are named. What the store can't tell now is null."""
        return {
            **self._health(),
            "store": await self._store_view(),
            "journal": self._journal_view(),
            "disk": {"free_bytes": self._housekeeping.room.free_bytes()},
            "loop": self._loop_view(),
            "lease": self._lease.view(),
            "sources": [self._source_view(view) for view in self._source_views()],
            "conditions": await self._condition_views(),
            "triggers": await self.triggers(triggers),
        }

    async def triggers(self, names: Sequence[str]) -> list[View]:
        """Return how triggers are, as far as that is known without the store where that can't be read."""
        lasts: dict[str, Last] = {}
        with suppress(StoreUnavailable):
            lasts = await self._counting.lasts(names)
        return [self._trigger(name, lasts.get(name)) for name in names]

    async def trigger(self, name: str) -> View:
        """Return how one trigger is, and how its runs of the last day were; raise NotFound and StoreUnavailable."""
        if name not in self._names():
            raise NotFound(f"there is no trigger {name}")
        [view] = await self.triggers([name])
        now = self._clock.now()
        statistics = await self._counting.statistics(trigger=name, over=LOOKED_BACK)
        [report] = await self._reports.adherence([name], start=now - LOOKED_BACK, end=now)
        return {
            **view,
            "last_day": {
                "runs": statistics.total,
                "success_rate": statistics.success_rate,
                "due": report.due,
                "ran": report.ran,
                "kept_rate": report.kept_rate,
                "late_p95_s": report.lateness.p95_s,
                "not_run": dict(report.not_run),
            },
        }

    def _trigger(self, name: str, last: Last | None) -> View:
        view = self._trigger_view(name)
        troubles = list(self._troubles(view, last))
        return {
            "name": name,
            "ok": not troubles,
            "troubles": troubles,
            "state": view["state"],
            "state_reason": view["state_reason"],
            "next_at": view["next_at"],
            "last_run": None if last is None else {
                "id": last.run, "state": last.state.value, "code": last.code, "ended_at": rfc3339(last.at)
            },
            "failures_in_a_row": 0 if last is None else last.failures,
        }  # fmt: skip

    def _troubles(self, view: View, last: Last | None) -> Iterator[str]:
        """Say what is wrong with a trigger that works. One that somebody paused does what it is for."""
        if view["state"] == "disabled":
            return
        if view["state"] == "quarantined":
            yield str(view["state_reason"])
        if last is not None and last.failures:
            runs = "run" if last.failures == 1 else f"{last.failures} runs"
            yield f"its last {runs} failed ({last.code})"
        if (trouble := view["source_problem"]) is not None:
            yield str(trouble["problem"])
        if view["expected"] is not None and view["expected"]["reason"] is not None:
            yield str(view["expected"]["reason"])
        if view["state"] == "active" and view["next_fires_at"] is not None:
            late_s = (self._clock.now() - datetime.fromisoformat(view["next_fires_at"])).total_seconds()
            if late_s > LATE_S:
                yield f"it was due {format_span(late_s)} ago, and nothing has come of it yet"

    async def _store_view(self) -> View:
        failure = self._journal.failure or self._journal.refusing
        size = None
        with suppress(StoreUnavailable):
            size = (await self._store.size()).total
        return {"ok": failure is None, "problem": None if failure is None else str(failure), "bytes": size}

    def _journal_view(self) -> View:
        journal = self._journal
        return {
            "waiting": journal.depth, "commits": journal.commits, "changes": journal.changes,
            **_percentiles("commit", journal.took_s),
        }  # fmt: skip

    def _loop_view(self) -> View:
        watch = self._loop_watch
        view = watch.view()
        return {
            "ok": watch.problem() is None, "problem": watch.problem(), "watched": view["watched"],
            "blocked": view["blocked"], "blocked_s": view["blocked_s"], "longest_s": view["longest_s"],
            **_percentiles("lag", watch.lag_s),
        }  # fmt: skip

    def _source_view(self, view: Mapping[str, Any]) -> View:
        problem = view["problem"] or view["warning"]
        kept = ("name", "plugin", "state", "since", "restarts", "lag_s", "last_event_at", "last_error", "last_error_at")
        return {**{name: view[name] for name in kept}, "ok": problem is None, "problem": problem}

    async def _condition_views(self) -> list[View] | None:
        try:
            views = await self._conditions.views()
        except StoreUnavailable:
            return None
        kept = ("name", "state", "reason", "failed", "checked_at", "waiting")
        return [{**{name: view[name] for name in kept}, "ok": not view["failed"]} for view in views]


def _percentiles(what: str, histogram: Histogram) -> View:
    """Return the bounds that half and nearly all figures do not exceed; null where there is none, or no bound."""
    found = {f"{what}_p50_s": histogram.percentile(0.5), f"{what}_p99_s": histogram.percentile(0.99)}
    return {name: None if value == float("inf") else value for name, value in found.items()}
