"""Runs: one execution of a job for one or more events; their states and the one table of transitions."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from msgspec import Struct

from engine.events import Cause


class RunState(StrEnum):
    """Where a run stands. Who moves it there, and where a crash leaves it:

    - `pending`: intake, while its window is open, or a throttle lets it wait. A crash keeps it, with its original
      deadline.
    - `queued`: intake, or the queue when its time has come. A crash keeps it, in its place.
    - `held`: a gate says not now. A crash keeps it; the gate is asked again.
    - `running`: dispatch, in a commit before anything is started. After a crash its processes are ended,
      and it is queued again (`on_crash = "retry"`) or failed; or they go on, and so does it (`"adopt"`).
    - `retrying`: dispatch, when an attempt failed and another is due. A crash keeps attempt and time.
    - the others are ends, and nothing leaves them.
    """

    PENDING = "pending"
    QUEUED = "queued"
    HELD = "held"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    MISSED = "missed"
    EXPIRED = "expired"


_S = RunState

ENDED = frozenset({_S.SUCCEEDED, _S.FAILED, _S.TIMED_OUT, _S.CANCELLED, _S.SKIPPED, _S.MISSED, _S.EXPIRED})
"""The states that nothing leaves."""

OUTCOMES = ENDED - {_S.MISSED}
"""How a run can end that had its turn; a missed one is the record of an instant that was not run."""

FAILURES = frozenset({_S.FAILED, _S.TIMED_OUT})
"""The ends of a run that did not do its work."""

WAITING = frozenset({_S.PENDING, _S.QUEUED, _S.HELD, _S.RETRYING})
"""The states in which a run has no process and no slot."""

TRANSITIONS: dict[RunState, frozenset[RunState]] = {
    _S.PENDING: frozenset({_S.QUEUED, _S.HELD, _S.RUNNING, _S.CANCELLED, _S.SKIPPED, _S.EXPIRED}),
    _S.QUEUED: frozenset({_S.HELD, _S.RUNNING, _S.CANCELLED, _S.SKIPPED, _S.EXPIRED, _S.FAILED}),
    _S.HELD: frozenset({_S.QUEUED, _S.HELD, _S.RUNNING, _S.CANCELLED, _S.SKIPPED, _S.EXPIRED}),
    _S.RUNNING: frozenset({_S.SUCCEEDED, _S.FAILED, _S.TIMED_OUT, _S.CANCELLED, _S.SKIPPED, _S.RETRYING, _S.QUEUED}),
    _S.RETRYING: frozenset({_S.QUEUED, _S.HELD, _S.RUNNING, _S.CANCELLED, _S.SKIPPED, _S.EXPIRED}),
    **{state: frozenset() for state in ENDED},
}
"""From each state, the states that a run may go to next."""


HELD_BY_HAND = "held_by_hand"
"""The code of a run that somebody holds; it waits until somebody releases it."""

CANCELLING = "cancelling"
"""The code of a running run that somebody has asked to cancel."""

ADOPTED = "adopted"
"""The code of a running run whose attempt an earlier engine process began."""

PRIORITY = "priority"
"""The code of a step that says that somebody gave the run another priority; it moves nothing."""


class Origin(StrEnum):
    """What made a run; part of its unique key, so a replay is a new run of the same instant."""

    SCHEDULE = "schedule"
    EVENT = "event"
    MANUAL = "manual"
    BACKFILL = "backfill"
    REPLAY = "replay"


class Lane(StrEnum):
    """Which queue a run waits in: what people ask for, what is made up for, and everything else."""

    LIVE = "live"
    MANUAL = "manual"
    BACKFILL = "backfill"


_LANES = {Origin.BACKFILL: Lane.BACKFILL, Origin.MANUAL: Lane.MANUAL}


def lane_of(origin: Origin) -> Lane:
    """Return the queue that runs of an origin wait in."""
    return _LANES.get(origin, Lane.LIVE)


class Step(Struct, frozen=True, kw_only=True):
    """One line of a run's trace: when it came to a state, and why.

    `bypass`, in the first line of a run that was fired by hand, names the gates that it passes by.
    """

    at: datetime
    state: RunState
    code: str
    reason: str
    bypass: tuple[str, ...] = ()


class Attempt(Struct, frozen=True, kw_only=True):
    """One ended attempt of a run. An attempt that a shutdown or crash interrupted has `counted` false.

    `cpu_s` is the processor time of its processes, `peak_bytes` the most memory that one had at once, as far as that
    is known.
    """

    number: int
    started_at: datetime
    finished_at: datetime
    state: RunState
    code: str
    reason: str
    exit_code: int | None = None
    counted: bool = True
    cpu_s: float | None = None
    peak_bytes: int | None = None


class Run(Struct, frozen=True, kw_only=True):
    """One execution of a job for one or more events.

    - `key`: with `trigger` and `origin` the unique key: the first event's key, or its id where it has none.
    - `rank`: its place in the queue; see `engine.decide.priority`.
    - `attempt`: attempts begun that count, the running one included; 0 before the first.
    - `due_at`: not to be started before (debounce, batch, throttle, retry); None when it is ready.
    - `closes_at`: the last instant to which joining events can put off a pending run.
    - `expires_at`: where it has not begun by then, it expires; None: it waits for ever.
    - `window`: the key of the debounce or batch whose window it keeps open while pending.
    - `throttled`: its key at its trigger's throttle, where that lets it wait, or did.
    - `limit_key`: the value of its job's `concurrency_key`, as it was when it came to be; None where it has none.
    - `event`: the latest event's id; `event_count` how many it is for; `event_bytes` of how much data in all, as far as
    that was counted while its window was open.
    - `scheduled_for`: the due instant of a timer.
    - `cause`: that of its event, or of the one of its events that has the longest chain.
    - `process`, `process_started`: process id and kernel start time (clock ticks) of its process while it
    runs.
    - `boot`: the id of the engine process that runs it.
    """

    id: str
    job: str
    trigger: str
    origin: Origin
    key: str
    event: str
    event_count: int = 1
    event_bytes: int = 0
    state: RunState
    code: str
    reason: str
    priority: int
    rank: int
    attempt: int = 0
    created_at: datetime
    due_at: datetime | None = None
    expires_at: datetime | None = None
    closes_at: datetime | None = None
    window: str | None = None
    throttled: str | None = None
    limit_key: str | None = None
    scheduled_for: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int | None = None
    outputs: dict[str, Any] | None = None
    cause: Cause | None = None
    process: int | None = None
    process_started: int | None = None
    boot: str | None = None
    trace: tuple[Step, ...] = ()
    attempts: tuple[Attempt, ...] = ()

    @property
    def lane(self) -> Lane:
        """The queue that it waits in."""
        return lane_of(self.origin)

    @property
    def instants(self) -> int:
        """How many due instants it stands for: the record of missed ones may be that of several."""
        return int((self.outputs or {}).get("instants", 1)) if self.state is RunState.MISSED else 1

    @property
    def ready_at(self) -> datetime:
        """Since when it waits for a slot alone: since it was queued (again), or its window, pause or retry was over."""
        moved = [step.at for step in self.trace if step.state is not RunState.HELD and step.code != PRIORITY]
        since = max(moved, default=self.created_at)
        return since if self.due_at is None else max(since, self.due_at)
