"""The queue for those who look at it and change it: see `engine.http.operations.QueueOperations`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from engine.backlog import Backlog
from engine.clock import Clock
from engine.decide.attempts import AttemptEnd
from engine.decide.expected import Going, Lengths, Prospect
from engine.decide.rules import Rule
from engine.dispatch import Dispatch
from engine.errors import Conflict, InvalidEvent, NotFound
from engine.events import Accepted
from engine.foresight import past_lengths
from engine.ids import first_id_at
from engine.intake import Intake
from engine.pauses import Pauses
from engine.runs import ENDED, Lane, Run, RunState
from engine.steering import Steering
from engine.store.base import QueuePlace, RunFilter, Store
from engine.waiting import Flushed, FlushRequest, QueuePage, Retried, RetryRequest, Standing

FRONT = frozenset(Lane) - {Lane.BACKFILL}
"""The lanes that stand in one line, by rank; backfills get the slots that these leave."""


class Queueing:
    """What may be asked of the queue. `rules` are the triggers, by which past lengths of a job are found."""

    def __init__(
        self, *, clock: Clock, store: Store, dispatch: Dispatch, intake: Intake, steering: Steering, pauses: Pauses,
        backlog: Backlog, rules: Mapping[str, Rule],
    ) -> None:  # fmt: skip
        self._clock = clock
        self._store = store
        self._dispatch = dispatch
        self._intake = intake
        self._steering = steering
        self._pauses = pauses
        self._backlog = backlog
        self._rules = rules
        self._lengths = Lengths()
        self._looked_up: set[str] = set()
        """The jobs whose past runs were looked at: that reads all of them, and is done once."""
        self.cancel = steering.cancel
        self.hold = steering.hold
        self.release = steering.release
        self.set_priority = steering.set_priority

    async def flush(self, which: FlushRequest, *, reason: str, who: str = "", dry_run: bool = False) -> Flushed:
        """Cancel what waits and is meant; see `Steering.flush`. Raises NotFound for a name that is not there too."""
        self._find(which.trigger, which.job)
        return await self._steering.flush(which, reason=reason, who=who, dry_run=dry_run)

    def status(self) -> dict[str, Any]:
        """Return how many runs wait, the water marks, and whether the engine pushes back, as the API shows it."""
        backlog = self._backlog
        return {
            "waiting": backlog.total, "high": backlog.high, "low": backlog.low, "pushes_back": backlog.crowded(),
        }  # fmt: skip

    def note_end(self, run: Run, end: AttemptEnd) -> None:
        """Hear how long an attempt took."""
        if end.step.state in (RunState.SUCCEEDED, RunState.FAILED, RunState.RETRYING):
            attempt = end.attempt
            self._lengths.note(run.job, (attempt.finished_at - attempt.started_at).total_seconds())

    async def retry(self, run_id: str, *, reason: str = "", who: str = "", request_id: str | None = None) -> Accepted:
        """Run once more what an ended run was for: a new run of origin replay, durably.

        The same `request_id` again makes no second one. Raises NotFound, Conflict (it has not ended, was missed and so
        has no event, or its trigger is paused or disabled), InvalidEvent and StoreUnavailable.
        """
        run = await self._store.run(run_id)
        if run is None:
            raise NotFound(f"there is no run {run_id}")
        if run.state not in ENDED:
            raise Conflict(f"run {run_id} has not ended: it is {run.state}")
        events = await self._store.run_events(run_id)
        if not events and run.event_count:
            raise Conflict(f"the event of run {run_id} is gone: it was kept long enough; fire its trigger instead")
        if not events:
            raise Conflict(f"run {run_id} has no event to run: it is {run.state}; a backfill runs what was missed")
        pause = self._pauses.now(run.trigger)
        if pause is not None:
            raise Conflict(f"{pause.said_of(run.trigger)}; resume it first")
        said = f"run {run_id} once more, by {who or 'hand'}" + (f": {reason}" if reason else "")
        return await self._intake.again(run, events, reason=said, request_id=request_id)

    async def retry_many(
        self, which: RetryRequest, *, reason: str, who: str = "", dry_run: bool = False
    ) -> Retried:  # fmt: skip
        """Run once more what ended runs were for, the oldest of those that are meant first, at a bounded rate.

        Each is durable for itself, and each ended run is retried so once: who asks again goes on where it was left.
        Raises NotFound for a name that is not there, InvalidRequest and StoreUnavailable.
        """
        which.check()
        self._find(which.trigger, which.job)
        found = await self._ended(which)
        made: dict[str, tuple[str, ...]] = {}
        refused: dict[str, str] = {}
        known: list[str] = []
        for place, run in enumerate(reversed(found[: which.limit])):
            if dry_run:
                made[run.id] = ()
                continue
            if place:
                await self._clock.sleep(1.0 / which.rate_per_s)
            try:
                answer = await self.retry(run.id, reason=reason, who=who, request_id=f"of {run.id}")
            except (Conflict, NotFound, InvalidEvent) as error:
                refused[run.id] = str(error)
                continue
            if answer.duplicate:
                known.append(run.id)
            else:
                made[run.id] = answer.runs
        more = len(found) > which.limit
        return Retried(
            made=made, refused=refused, known=tuple(known), following=found[which.limit - 1].id if more else None
        )  # fmt: skip

    async def _ended(self, which: RetryRequest) -> list[Run]:
        """Return the runs that are meant, the newest first, and one more where there are more."""
        before = which.before if which.end is None else min(which.before or "~", first_id_at(which.end))
        triggers = None if which.trigger is None else frozenset({which.trigger})
        found = RunFilter(states=which.states, job=which.job, triggers=triggers)
        runs = await self._store.runs(found, limit=which.limit + 1, before=before)
        since = "" if which.start is None else first_id_at(which.start)
        return [run for run in runs if run.id >= since]

    def _find(self, trigger: str | None, job: str | None) -> None:
        if trigger is not None and trigger not in self._rules:
            raise NotFound(f"there is no trigger {trigger}")
        if job is not None and job not in self._dispatch.jobs:
            raise NotFound(f"there is no job {job}")

    async def page(self, *, lane: Lane | None = None, after: QueuePlace | None = None, limit: int = 50) -> QueuePage:
        """Return a page of the line of what is ready: of one lane, or of all that stand in it by rank.

        Raises StoreUnavailable.
        """
        lanes = FRONT if lane is None else frozenset({lane})
        runs = await self._store.line(lanes=lanes, after=after, limit=limit + 1)
        shown = runs[:limit]
        return QueuePage(
            items=tuple(zip(shown, await self._standing(shown, lanes), strict=True)), more=len(runs) > limit,
            counts=await self._store.counts(), slots=self._dispatch.concurrency,
        )  # fmt: skip

    async def _standing(self, runs: Sequence[Run], lanes: frozenset[Lane]) -> list[Standing]:
        """Say of runs that stand one behind the other where they do, and when they are expected to start."""
        if not runs:
            return []
        ahead = await self._store.ahead(lanes=lanes, before=QueuePlace(runs[0].rank, runs[0].id))
        going = await self._store.running()
        await self._learn({run.job for run in (*runs, *going)} | ahead.keys())
        now, jobs = self._clock.now(), self._dispatch.jobs
        line = Prospect(
            lengths=self._lengths, ahead=ahead, slots=self._dispatch.concurrency,
            going=[Going(run.job, (now - (run.started_at or now)).total_seconds()) for run in going],
            limits={
                name: job.concurrency
                for name, job in jobs.items()
                if job.concurrency is not None and job.concurrency_key is None
            },
            keyed={name for name, job in jobs.items() if job.concurrency_key is not None},
            pools=self._dispatch.slots.pools, needs={name: job.pools for name, job in jobs.items() if job.pools},
        )  # fmt: skip
        halted, first = self._pauses.engine is not None, sum(ahead.values()) + 1
        standing = []
        for place, run in enumerate(runs):
            wait_s = line.wait_s(run.job)
            expected = None if wait_s is None or halted else now + timedelta(seconds=wait_s)
            standing.append(Standing(position=first + place, expected_start_at=expected))
        return standing

    async def _learn(self, jobs: set[str]) -> None:
        """Find out from past runs how long those of jobs take of which none has ended since the start."""
        unknown = {job for job in jobs - self._looked_up if self._lengths.of(job) is None}
        triggers = [name for name, rule in self._rules.items() if rule.job.name in unknown]
        if not triggers:
            return
        past = past_lengths(await self._store.stats(triggers))
        self._looked_up |= unknown
        for job in unknown:
            mine = [past[name] for name in triggers if name in past and self._rules[name].job.name == job]
            runs = sum(length.runs for length in mine)
            if runs and self._lengths.of(job) is None:
                self._lengths.note(job, sum(length.seconds * length.runs for length in mine) / runs)
