"""Backfills: due instants of a timer that have passed, to be run now; what is asked for, and how far it has come."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

from msgspec import Struct

from engine.runs import Run, RunState

SOURCE_PREFIX = "backfill:"
"""The source of a backfill's events is this and its id."""

MOST_INSTANTS = 10_000
"""Due instants that one backfill may hold."""

MOST_PARALLEL = 100
"""Runs of one backfill that may be open at once."""


class BackfillState(StrEnum):
    """Where a backfill stands. A crash keeps each of them.

    - `running`: it makes runs, as its earlier ones end.
    - `paused`: somebody said not now; the runs that it has made go on.
    - `cancelling`: it makes no more, and what waits of it is ended; it becomes cancelled when its last run has ended.
    - `completed`, `cancelled`: ends, which nothing leaves.
    """

    RUNNING = "running"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    CANCELLED = "cancelled"


_S = BackfillState

TURNS: dict[BackfillState, frozenset[BackfillState]] = {
    _S.RUNNING: frozenset({_S.PAUSED, _S.CANCELLING, _S.COMPLETED}),
    _S.PAUSED: frozenset({_S.RUNNING, _S.CANCELLING}),
    _S.CANCELLING: frozenset({_S.CANCELLED}),
    _S.COMPLETED: frozenset(),
    _S.CANCELLED: frozenset(),
}
"""From each state, the states that a backfill may go to next."""

OPEN_STATES = frozenset(state for state, following in TURNS.items() if following)
"""The states in which a backfill has something left to do."""


class Order(StrEnum):
    """Which of its instants a backfill runs first."""

    OLDEST = "oldest"
    NEWEST = "newest"


class Backfill(Struct, frozen=True, kw_only=True):
    """Due instants of a trigger from `from_at` (inclusive) to `to_at` (exclusive), to be run now.

    Its instants are fixed when it begins, in the order in which they are run, whatever becomes of the timer.

    - `timezone`: in which its span was given, an IANA name.
    - `max_parallel`: runs of it that may be open at once.
    - `only_missing`: it left out what had run with success; `skipped` is how many instants that were.
    - `total`: how many instants it has; `position`: how many of them have become events.
    - `state_reason`: why it stands where it stands, in words.
    - `ends`: once it has ended, how many of its runs ended in which state.
    - `request`: the id that whoever asked gave to his request; there is one backfill of each.
    """

    id: str
    trigger: str
    request: str | None = None
    from_at: datetime
    to_at: datetime
    timezone: str = "UTC"
    max_parallel: int = 1
    order: Order = Order.OLDEST
    only_missing: bool = False
    skipped: int = 0
    reason: str = ""
    state: BackfillState = BackfillState.RUNNING
    state_reason: str = ""
    total: int
    position: int = 0
    created_at: datetime
    finished_at: datetime | None = None
    ends: Mapping[RunState, int] = {}

    @property
    def source(self) -> str:
        """The source of its events."""
        return SOURCE_PREFIX + self.id

    @property
    def is_open(self) -> bool:
        """Whether it has something left to do."""
        return self.state in OPEN_STATES


class BackfillProgress(Struct, frozen=True, kw_only=True):
    """A backfill, and how far it has come.

    - `ends`: how many of its runs ended in which state; `not_run`: instants of which no run came (a filter said no).
    - `running`, `waiting`: its open runs.
    - `current`: the instant that it began last; None before the first.
    - `rate_per_s`: runs that end in a second, lately; None where too few have since the engine started.
    - `expected_end_at`: when it ends where it goes on so; None where that is not known, or it is paused.
    - `holds`: why it makes no run now though it could (its trigger is paused, or gone); None where nothing is wrong.
    """

    backfill: Backfill
    ends: Mapping[RunState, int] = {}
    not_run: int = 0
    running: int = 0
    waiting: int = 0
    current: datetime | None = None
    rate_per_s: float | None = None
    expected_end_at: datetime | None = None
    holds: str | None = None

    @property
    def done(self) -> int:
        """How many of its instants need nothing more."""
        return sum(self.ends.values()) + self.not_run


class BackfillPlan(Struct, frozen=True, kw_only=True):
    """What a backfill would run: its instants in their order, and those that it leaves out, each with its run."""

    trigger: str
    from_at: datetime
    to_at: datetime
    timezone: str
    instants: tuple[datetime, ...]
    skipped: tuple[tuple[datetime, str], ...] = ()


class BackfillRequest(Struct, frozen=True, kw_only=True):
    """What somebody asks to have run; see `Backfill`.

    `start` and `end` are aware, or wall times in `timezone`; that is None for the timer's own zone.
    """

    trigger: str
    start: datetime
    end: datetime
    timezone: str | None = None
    max_parallel: int = 1
    order: Order = Order.OLDEST
    only_missing: bool = False
    reason: str = ""


def id_of_run(run: Run) -> str:
    """Return the id of the backfill that a run belongs to: its key begins with the source of its event."""
    return run.key.partition(" ")[0].removeprefix(SOURCE_PREFIX)
