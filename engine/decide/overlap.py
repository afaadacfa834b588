"""Overlap: what becomes of a new run of a job that has as many open runs as it may have at once.

A run is *open* from the event that brings it about until its end. It has *begun* once an attempt of it was started:
then it has a slot, or waits for its next attempt. The limit counts both, and what waits for its first attempt; so what
is decided holds also where the engine has no slot free. Where the limit is by key, only runs with the same value count.

- `queue`: the new run waits. A due instant has room for one: where one of its trigger waits already, it is skipped.
- `skip`: the new run is skipped.
- `replace`: the new run takes the place of the one that began first, and of what waits for the same trigger.

Runs of a backfill, and those that make up for missed instants (`catch_up = "all"`), are *exempt*: they wait as long as
it takes, put nobody off, and are not replaced. A backfill's is in nobody's way either once it has begun: what happens
now is not skipped for what is made up for. (The policies are those of Temporal's schedules: BufferOne, Skip and
CancelOther.)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum

from msgspec import Struct

from engine.jobs import Job, Overlap
from engine.runs import Origin, Run

CAUGHT_UP = "caught_up"
"""The first code of a run that makes up for a missed instant."""

REPLACES = "replaces"
"""The code of a run that waits for the end of the one whose place it takes."""


class Action(StrEnum):
    """What becomes of a new run. One that may start needs a slot all the same; one that replaces waits for it."""

    START = "start"
    QUEUE = "queue"
    SKIP = "skip"
    REPLACE = "replace"


class Decision(Struct, frozen=True, kw_only=True):
    """What becomes of a new run.

    - `run`: the run in its way, by id: the one for which it is skipped, or that it replaces.
    - `cancels`: of one that replaces: the run that has begun and is to be ended, None where no one is.
    - `drops`: of one that replaces: the runs that wait and are to be skipped.
    """

    action: Action
    run: str | None = None
    cancels: str | None = None
    drops: tuple[str, ...] = ()


class OpenRun(Struct, kw_only=True):
    """A run that is open, as far as a new one has to know; `leaving` means that it is being ended already."""

    id: str
    trigger: str
    begun: bool
    scheduled: bool
    exempt: bool
    leaving: bool = False


START, QUEUE = Decision(action=Action.START), Decision(action=Action.QUEUE)


def decide(
    overlap: Overlap, *, limit: int | None, trigger: str, scheduled: bool, exempt: bool, open_runs: Sequence[OpenRun]
) -> Decision:
    """Return what becomes of a new run of a job.

    `limit` is the job's, None for none; `scheduled` tells whether the run is by a due instant, `exempt` whether it is
    exempt; `open_runs` are those of the job, the oldest first, without exempt ones that have not begun.
    """
    if limit is None or len(open_runs) < limit:
        return START
    if exempt:
        return QUEUE
    if overlap is Overlap.SKIP:
        first = next((one for one in open_runs if one.begun), open_runs[0])
        return Decision(action=Action.SKIP, run=first.id)
    if overlap is Overlap.REPLACE:
        return _replace(limit, trigger, open_runs)
    if scheduled:
        for one in open_runs:
            if one.scheduled and not one.exempt and not one.begun and one.trigger == trigger:
                return Decision(action=Action.SKIP, run=one.id)
    return QUEUE


def _replace(limit: int, trigger: str, open_runs: Sequence[OpenRun]) -> Decision:
    """Return whom a new run replaces: what waits of its trigger, and one that has begun where that is not enough."""
    staying = [one for one in open_runs if not one.leaving]
    drops = tuple([one.id for one in staying if not one.begun and not one.exempt and one.trigger == trigger])
    cancels = None
    if len(staying) - len(drops) >= limit:
        cancels = next((one.id for one in staying if one.begun and not one.exempt), None)
    if cancels is None and not drops:
        return QUEUE
    # It waits for the end of one that is being ended already, where there is such a one.
    leaving = next((one.id for one in open_runs if one.leaving), None)
    return Decision(action=Action.REPLACE, run=cancels or leaving or drops[-1], cancels=cancels, drops=drops)


def said_of_skip(decision: Decision, key: str | None) -> str:
    """Say why a run is skipped; `key` is its own where the limit is by key."""
    of = "the job" if key is None else f"key {key!r}" if key else "its key"
    return f"skipped: run {decision.run} is in its way, and the limit of {of} is reached"


def said_of_place(decision: Decision) -> str:
    """Say whose place a run takes."""
    return f"takes the place of run {decision.run}, and waits for its end"


def takes_place_of(run: Run, other: str) -> bool:
    """Tell whether a run that waits with the code `replaces` does so for the end of that other one."""
    return any(f"takes the place of run {other}," in step.reason for step in run.trace if step.code == REPLACES)


def is_exempt(run: Run) -> bool:
    """Tell whether a run is of a backfill, or makes up for a missed instant."""
    return exempt(run.origin, caught_up=bool(run.trace) and run.trace[0].code == CAUGHT_UP)


def exempt(origin: Origin, *, caught_up: bool) -> bool:
    """Tell whether a run of this origin is exempt; `caught_up` where it makes up for a missed instant."""
    return caught_up or origin is Origin.BACKFILL


def has_begun(run: Run) -> bool:
    """Tell whether an attempt of a run was started, be it one that does not count."""
    return run.attempt > 0 or bool(run.attempts)


class _Lane:
    """The open runs of one job with a limit, in the order in which they came: all together, or by the key of each."""

    __slots__ = ("keys", "limit", "of_key", "overlap")

    def __init__(self, job: Job) -> None:
        self.limit = job.concurrency or 0
        self.overlap = job.overlap
        self.of_key: dict[str | None, dict[str, tuple[OpenRun, Run]]] = {}
        self.keys: dict[str, str | None] | None = {} if job.concurrency_key is not None else None
        """The key of each run, where the limit is by key."""

    def runs(self, key: str | None) -> Mapping[str, tuple[OpenRun, Run]]:
        """Return the runs that count for one with that key."""
        return self.of_key.get(None if self.keys is None else key, {})

    def beside(self, run_id: str) -> Mapping[str, tuple[OpenRun, Run]]:
        """Return the runs that count with one that does."""
        return self.of_key.get(None if self.keys is None else self.keys.get(run_id), {})

    def put(self, one: OpenRun, run: Run) -> None:
        key = None
        if self.keys is not None:
            key = self.keys[run.id] = run.limit_key
        self.of_key.setdefault(key, {})[run.id] = (one, run)

    def pop(self, run_id: str) -> None:
        key = None if self.keys is None else self.keys.pop(run_id, None)
        runs = self.of_key.get(key)
        if runs is not None:
            runs.pop(run_id, None)
            if not runs:
                del self.of_key[key]


class OpenRuns:
    """The open runs of all jobs with a limit, as far as a decision needs them.

    What waits and can be in nobody's way is left out: so a long queue is not held in memory.
    """

    def __init__(self, jobs: Iterable[Job] = ()) -> None:
        self._lanes: dict[str, _Lane] = {}
        for job in jobs:
            self.limit(job)

    def limit(self, job: Job) -> None:
        """Take in a job, or another version of one, with its limit."""
        before = self._lanes.pop(job.name, None)
        if job.concurrency is None:
            return
        lane = self._lanes[job.name] = _Lane(job)
        for runs in before.of_key.values() if before is not None else ():
            for one, run in runs.values():
                lane.put(one, run)

    @property
    def jobs(self) -> list[str]:
        """The names of the jobs that have a limit."""
        return list(self._lanes)

    def whole(self) -> list[str]:
        """Return the names of the jobs of which everything that waits may be in the way, not only due instants."""
        return [name for name, lane in self._lanes.items() if lane.overlap is not Overlap.QUEUE]

    def decide(
        self, job: str, trigger: str, origin: Origin, *, key: str | None = None, caught_up: bool = False,
        without: Collection[str] = (), queued: Callable[[], Iterable[Run]] = tuple,
    ) -> Decision:  # fmt: skip
        """Return what becomes of a new run with that `limit_key`; those in `without` do not count.

        `queued` yields the runs of the job at the head of the queue, as far as they are known: where due instants wait
        behind them, those that are left out here count, too.
        """
        lane = self._lanes.get(job)
        if lane is None:
            return START
        scheduled, runs = origin is Origin.SCHEDULE, lane.runs(key)
        if len(runs) < lane.limit and not (
            lane.overlap is Overlap.QUEUE and scheduled and self._is_full(lane, key, trigger, queued)
        ):
            return START
        if lane.overlap is Overlap.QUEUE and not scheduled:
            return QUEUE
        open_runs = [one for one, _ in runs.values() if one.id not in without]
        return decide(
            lane.overlap, limit=min(lane.limit, len(runs)), trigger=trigger, scheduled=scheduled,
            exempt=exempt(origin, caught_up=caught_up), open_runs=open_runs,
        )  # fmt: skip

    @staticmethod
    def _is_full(lane: _Lane, key: str | None, trigger: str, queued: Callable[[], Iterable[Run]]) -> bool:
        """Tell whether a job has no room with what waits and is left out, where a due instant of the trigger waits."""
        runs = lane.runs(key)
        if not any(one.scheduled and not one.begun and one.trigger == trigger for one, _ in runs.values()):
            return False
        count = len(runs)
        for run in queued():
            counts = lane.keys is None or run.limit_key == key
            # One that has begun and waits again, as the engine died, is not taken up as in the way at the next start.
            if counts and run.id not in runs and (has_begun(run) or not is_exempt(run)):
                count += 1
                if count >= lane.limit:
                    return True
        return False

    def add(self, run: Run) -> None:
        """Take in a run that is open, or how it stands now."""
        lane = self._lanes.get(run.job)
        if lane is None or run.origin is Origin.BACKFILL:
            return
        scheduled, free = run.origin is Origin.SCHEDULE, is_exempt(run)
        begun = has_begun(run)
        if not begun and (free or (lane.overlap is Overlap.QUEUE and not scheduled)):
            return
        known = lane.beside(run.id).get(run.id)
        leaving = known is not None and known[0].leaving
        one = OpenRun(
            id=run.id, trigger=run.trigger, begun=begun, scheduled=scheduled, exempt=free, leaving=leaving
        )  # fmt: skip
        lane.put(one, run)

    def leave(self, job: str, run_id: str) -> None:
        """Note that a run is being ended: it counts until it has ended, and is not ended twice."""
        if (lane := self._lanes.get(job)) is not None and (known := lane.beside(run_id).get(run_id)) is not None:
            known[0].leaving = True

    def end(self, job: str, run_id: str) -> None:
        """Forget a run that has ended, or was not stored."""
        if (lane := self._lanes.get(job)) is not None:
            lane.pop(run_id)

    def since(self, job: str, run_id: str) -> set[str]:
        """Return a run that counts, and those that came after it."""
        lane = self._lanes.get(job)
        names = [] if lane is None else list(lane.beside(run_id))
        return set(names[names.index(run_id) :]) if run_id in names else set()

    def find(self, job: str, run_id: str) -> Run | None:
        """Return a run that counts as it stood when it was taken in last."""
        lane = self._lanes.get(job)
        known = None if lane is None else lane.beside(run_id).get(run_id)
        return None if known is None else known[1]

    def before(self, run: Run) -> OpenRun | None:
        """Return the run whose place this one takes; None where that has ended."""
        lane = self._lanes.get(run.job)
        others = () if lane is None else [one for one, _ in lane.runs(run.limit_key).values()]
        return next((one for one in others if takes_place_of(run, one.id)), None)

    def replacing(self) -> Iterator[Run]:
        """Yield the runs that wait to take the place of another one, the oldest first."""
        for lane in list(self._lanes.values()):
            for runs in list(lane.of_key.values()):
                yield from [run for one, run in runs.values() if run.code == REPLACES and not one.begun]
