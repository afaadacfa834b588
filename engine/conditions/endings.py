"""How runs of jobs ended last, for the checks that ask: read once, and kept up to date by each end."""

from __future__ import annotations

from collections.abc import Sequence

from engine.plugin.conditions import LastRun
from engine.runs import ENDED, Run, RunState, Step
from engine.store.base import RunFilter, Store

ATTEMPTED = frozenset(ENDED - {RunState.SKIPPED, RunState.MISSED, RunState.EXPIRED})
"""The ends that an attempt can come to."""


class LastRuns:
    """The latest end of each job by its state, for the jobs that were asked for."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, dict[RunState, LastRun | None]] = {}

    async def last(self, job: str, states: Sequence[RunState]) -> LastRun | None:
        """Return the run of a job that ended last in one of `states` (none: in any of ATTEMPTED)."""
        known = self._known.setdefault(job, {})
        wanted = set(states) or set(ATTEMPTED)
        for state in wanted - known.keys():
            found = await self._store.runs(RunFilter(states=frozenset({state}), job=job), limit=1)
            # What ended meanwhile is noted already, and later.
            known.setdefault(state, _last(found[0]) if found else None)
        ends = [end for state in wanted if (end := known[state]) is not None]
        return max(ends, key=lambda end: end.finished_at, default=None)

    def note(self, run: Run, step: Step) -> None:
        """Note how a run ended."""
        known = self._known.get(run.job)
        if known is not None and step.state in ATTEMPTED:
            known[step.state] = LastRun(run=run.id, state=step.state, finished_at=step.at, reason=step.reason)


def _last(run: Run) -> LastRun:
    return LastRun(
        run=run.id, state=run.state, finished_at=run.finished_at or run.created_at, reason=run.reason
    )  # fmt: skip
