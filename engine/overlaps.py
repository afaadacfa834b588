"""Overlaps: the open runs of jobs with a limit, and who gives his place to whom.

What becomes of a new run is decided in `engine.decide.overlap`. One that takes another's place is durable first, as
queued; then the other is ended, and its slot goes to the new one when its processes are gone. Where the engine dies
between the two, the next start goes on from here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import datetime

from engine.clock import Clock
from engine.decide.attempts import said_of_replacement
from engine.decide.overlap import REPLACES, Decision, OpenRuns
from engine.jobs import Job
from engine.lanes import Front
from engine.queue import Timeline
from engine.runs import Lane, Origin, Run, RunState, Step
from engine.store.base import Store

MOST_KNOWN = 1_000
"""So many runs of a job that wait are taken up at the start to see who is in the way of a new one."""


class Overlaps:
    """What dispatch knows of open runs, for the jobs that have a limit.

    `cancel` ends the attempt of a run that has a slot, for another run, and tells whether it has one; `end` ends a run
    that waits; `is_moving` tells whether a run is on its way from one state to the next.
    """

    def __init__(
        self, *, clock: Clock, jobs: Iterable[Job], queue: Front, timeline: Timeline, is_moving: Callable[[str], bool],
        cancel: Callable[[str, str], bool], end: Callable[[Run, Step], None],
    ) -> None:  # fmt: skip
        self._clock = clock
        self._runs = OpenRuns(jobs)
        self._queue = queue
        self._timeline = timeline
        self._is_moving = is_moving
        self._cancel = cancel
        self._end = end
        self._given_up: dict[str, str] = {}
        """Those that are stored as running and about to be launched, with the runs that take their places."""
        self._replaced: set[str] = set()
        """Those that were ended while they were on their way to where they would have waited."""

    def limit(self, job: Job) -> None:
        """Take in a job, or another version of one, with its limit."""
        self._runs.limit(job)

    def decide(
        self, job: str, trigger: str, origin: Origin, *, key: str | None = None, caught_up: bool = False,
        without: Collection[str] = (),
    ) -> Decision:  # fmt: skip
        """Return what becomes of a new run with that `limit_key`; those in `without` do not count."""
        return self._runs.decide(
            job, trigger, origin, key=key, caught_up=caught_up, without=without,
            queued=lambda: self._queue.waiting(job),
        )  # fmt: skip

    def add(self, run: Run) -> None:
        """Take in a run that is open, or how it stands now."""
        self._runs.add(run)

    def remove(self, run: Run) -> None:
        """Forget a run that has ended, or was not stored."""
        self._runs.end(run.job, run.id)
        self._given_up.pop(run.id, None)

    async def load(self, store: Store) -> None:
        """Take up what may be in the way of new runs."""
        found = await store.in_the_way(self._runs.jobs, limit=MOST_KNOWN)
        for job in self._runs.whole():
            for lane in (Lane.LIVE, Lane.MANUAL):
                found += [run for run, _ in await store.queue_head(job, after=None, limit=MOST_KNOWN, lane=lane)]
        for run in sorted(found, key=lambda run: run.id):
            self._runs.add(run)

    def go_on(self) -> None:
        """End those whose place others were to take when the engine stopped."""
        for run in list(self._runs.replacing()):
            self.make_room(run)

    def make_room(self, run: Run) -> None:
        """End the runs whose place a run takes, where it is one that does; it is durable and waits in the queue.

        Once they have ended it takes no other's place, however often it comes back to the queue.
        """
        before = self._runs.before(run) if run.code == REPLACES else None
        if before is None:
            return
        now = self._clock.now()
        later = self._runs.since(run.job, run.id)
        met = self._runs.decide(run.job, run.trigger, run.origin, key=run.limit_key, without=later)
        for run_id in met.drops:
            self._drop(run.job, run_id, RunState.SKIPPED, run.id, now)
        if met.cancels is None or before.leaving:
            return
        known = self._runs.find(run.job, met.cancels)
        if self._cancel(met.cancels, run.id):
            self._runs.leave(run.job, met.cancels)
        elif known is not None and known.state is RunState.RUNNING:
            self._runs.leave(run.job, met.cancels)
            self._given_up[met.cancels] = run.id
        else:
            self._drop(run.job, met.cancels, RunState.CANCELLED, run.id, now)

    def replaced_by(self, run_id: str) -> str | None:
        """Return the run that takes the place of one that is launched now, where one does."""
        return self._given_up.pop(run_id, None)

    def was_replaced(self, run_id: str) -> bool:
        """Tell whether a run was ended while it was on its way to where it would have waited."""
        replaced = run_id in self._replaced
        self._replaced.discard(run_id)
        return replaced

    def _drop(self, job: str, run_id: str, state: RunState, by: str, now: datetime) -> None:
        """End a run that waits, as another takes its place."""
        run = self._runs.find(job, run_id)
        if run is None:
            return
        self._queue.remove(job, run_id)
        self._timeline.remove(run_id)
        if self._is_moving(run_id):
            self._replaced.add(run_id)
        self._end(run, Step(at=now, state=state, code="replaced", reason=said_of_replacement(state, by)))
