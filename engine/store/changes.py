"""Changes: the only way in which anything in the store changes. The journal hands them to the store in batches."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct

from engine.backfills import Backfill, BackfillState
from engine.decide.attempts import AttemptEnd
from engine.decide.marks import Claim
from engine.deliveries import Delivery, Tried
from engine.events import Cause, Event, Outcome
from engine.runs import Attempt, Run, RunState, Step
from engine.spans import Span
from engine.tallies import TallyRow, Width
from engine.tokens import Token, TokenUse


class Join(Struct, frozen=True, kw_only=True):
    """An event joins a pending run: the run gets the event as its latest, a new due time and priority.

    `size_bytes` is how much its data adds to what the run counts, `count` how many events: 0 where it takes the place
    of another one. A run that expires does so as much later as it is due later. `cause` is that of the run from now
    on; None: it stays as it is.
    """

    run: str
    event: str
    due_at: datetime
    priority: int
    reason: str
    size_bytes: int = 0
    cause: Cause | None = None
    count: int = 1


class Fill(Struct, frozen=True, kw_only=True):
    """An event of a run came by an input of its trigger."""

    run: str
    event: str
    input: str


class Supersede(Struct, frozen=True, kw_only=True):
    """An event takes the place of an earlier one, `old`, in a run that waits: that one is none of the run's any more.

    What became of the earlier one is then `deduplicated`, with this code and reason; where it is not stored the change
    is a conflict. `first`: it was the first event of the run, which the later one is now.
    """

    run: str
    trigger: str
    old: str
    event: str
    code: str
    reason: str
    first: bool = False


class Entry(Struct, frozen=True, kw_only=True):
    """One event with all that it brings about: its outcomes, new runs, and the pending runs that it joins.

    `data` is the event's data as JSON. Each new run is in `outcomes` too. `in_the_way` are the runs, by id, for which
    a new one is skipped, or whose place it takes: where one of them is not there, or has ended, the change is a
    conflict. `claims` are what becomes of the marks of gates: where one is refused, the change is a conflict. `fills`
    say by which inputs it came, `supersedes` which events it takes the place of. `memory` is remembered where the event
    is stored, and not where it came before.
    """

    event: Event
    data: bytes
    outcomes: tuple[Outcome, ...]
    runs: tuple[Run, ...] = ()
    joins: tuple[Join, ...] = ()
    in_the_way: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    memory: Memory | None = None
    fills: tuple[Fill, ...] = ()
    supersedes: tuple[Supersede, ...] = ()


class Cursor(Struct, frozen=True, kw_only=True):
    """How far a source has come: any JSON value, kept for its id."""

    source: str
    value: Any


class Memory(Struct, frozen=True, kw_only=True):
    """What a source remembers: any JSON value by key, kept for its id; None forgets the key."""

    source: str
    values: Mapping[str, Any]


class BeginBackfill(Struct, frozen=True, kw_only=True):
    """A backfill begins: it is to run `instants`, in this order."""

    backfill: Backfill
    instants: tuple[datetime, ...]


class MoveBackfill(Struct, frozen=True, kw_only=True):
    """A running backfill, of whose instants `before` had become events, comes to `position`."""

    backfill: str
    before: int
    position: int


class TurnBackfill(Struct, frozen=True, kw_only=True):
    """A backfill comes to another state, for a reason in words; with an end, `ends` counts how its runs ended."""

    backfill: str
    state: BackfillState
    at: datetime
    reason: str
    ends: Mapping[RunState, int] | None = None


class Shift(Struct, frozen=True, kw_only=True):
    """All runs that wait for one clock of a throttle are due later; its mark then has an effect until `until`."""

    trigger: str
    key: str
    by: timedelta
    until: datetime


class Purge(Struct, frozen=True, kw_only=True):
    """Events and runs, by id, are removed with all that they brought, as they are older than `before`."""

    before: datetime
    events: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()


class Accept(Struct, frozen=True, kw_only=True):
    """Events are accepted, their source's cursor moves and its memory changes, and so does a backfill, all or nothing.
    Its result is a list of `Accepted`.

    `missed` are runs of due instants that were not run: they begin and end as missed, without an event. `cursors` and
    `memories` are those of further sources. `spans` are noted, or changed where they are there; those that ended before
    `forget_spans` are forgotten. Of the marks that have had no effect since `forget_marks`, the first thousand are
    forgotten. `shift` moves runs at a throttle. `deliveries` are stored, `tried` says how some of them went; of those
    that ended before `forget_deliveries`, the first thousand are forgotten. `tallies` are stored in the place of those
    of the same key; of each width in `forget_tallies`, the first thousand that began before that are forgotten.
    `purge` removes what is old. `keep_tokens` are stored in the place of those with the same id, `drop_tokens` are
    removed by id, and `token_uses` noted.
    """

    entries: tuple[Entry, ...]
    missed: tuple[Run, ...] = ()
    cursor: Cursor | None = None
    cursors: tuple[Cursor, ...] = ()
    memory: Memory | None = None
    memories: tuple[Memory, ...] = ()
    forget_marks: datetime | None = None
    shift: Shift | None = None
    backfill: BeginBackfill | MoveBackfill | TurnBackfill | None = None
    spans: tuple[Span, ...] = ()
    forget_spans: datetime | None = None
    deliveries: tuple[Delivery, ...] = ()
    tried: tuple[Tried, ...] = ()
    forget_deliveries: datetime | None = None
    tallies: tuple[TallyRow, ...] = ()
    forget_tallies: Mapping[Width, datetime] | None = None
    purge: Purge | None = None
    keep_tokens: tuple[Token, ...] = ()
    drop_tokens: tuple[str, ...] = ()
    token_uses: tuple[TokenUse, ...] = ()


class SetPriority(Struct, frozen=True, kw_only=True):
    """A waiting run has another priority, and the place in the queue that it would have had with that from the start.

    Its state and code stay. `ageing_us` is how much earlier each step of priority moves it (microseconds).
    """

    run: str
    step: Step
    priority: int
    ageing_us: int


class AskCancel(Struct, frozen=True, kw_only=True):
    """The running run is to be cancelled: `step` says by whom, and its code tells so a start after a crash."""

    run: str
    step: Step


class Adopt(Struct, frozen=True, kw_only=True):
    """The running run, which another engine process began, goes on in the engine process `boot`."""

    run: str
    step: Step
    boot: str


class Enqueue(Struct, frozen=True, kw_only=True):
    """A pending, retrying or held run is ready: it becomes queued at `rank`."""

    run: str
    step: Step
    rank: int


class Postpone(Struct, frozen=True, kw_only=True):
    """A pending run waits for something else: its window is closed, it is due at `due_at`; see `Entry` for `claims`."""

    run: str
    step: Step
    due_at: datetime
    throttled: str | None = None
    claims: tuple[Claim, ...] = ()


class Start(Struct, frozen=True, kw_only=True):
    """A waiting run becomes running, in the engine process `boot`, as attempt number `attempt`."""

    run: str
    step: Step
    attempt: int
    boot: str


class Hold(Struct, frozen=True, kw_only=True):
    """A waiting run becomes held, or is held for another reason; at `until` (None: at no time) it is due."""

    run: str
    step: Step
    until: datetime | None = None


class NoteProcess(Struct, frozen=True, kw_only=True):
    """The running run has the process `pid`, whose kernel start time is `started` (clock ticks since boot)."""

    run: str
    pid: int
    started: int


class Finish(Struct, frozen=True, kw_only=True):
    """An attempt ended. The run goes to `step.state`: an end, `retrying` (with `due_at`) or `queued` (with
    `rank`).

    `attempt_count` is the run's number of counted attempts afterwards: an interrupted one is taken back. `then` are
    the events that follow from the run's end, with their runs; its result is then that of an `Accept`.
    """

    run: str
    step: Step
    attempt: Attempt
    attempt_count: int
    due_at: datetime | None = None
    rank: int | None = None
    outputs: dict[str, Any] | None = None
    then: Accept | None = None

    @staticmethod
    def of(run: str, end: AttemptEnd) -> Finish:
        """Return the change that records what was decided to follow an attempt."""
        return Finish(
            run=run, step=end.step, attempt=end.attempt, attempt_count=end.attempt_count,
            due_at=end.due_at, rank=end.rank, outputs=end.outputs,
        )  # fmt: skip


class End(Struct, frozen=True, kw_only=True):
    """A waiting run comes to an end without being started again; `then` as in `Finish`."""

    run: str
    step: Step
    then: Accept | None = None


Change = Accept | Postpone | Hold | SetPriority | Enqueue | Start | NoteProcess | AskCancel | Adopt | Finish | End


def accept_of(change: Change) -> Accept | None:
    """Return the events that a change accepts: itself, or what follows from the end of its run."""
    if isinstance(change, Accept):
        return change
    return change.then if isinstance(change, (Finish, End)) else None


HOLDABLE = frozenset({RunState.PENDING, RunState.QUEUED, RunState.HELD, RunState.RETRYING})
ENQUEUEABLE = frozenset({RunState.PENDING, RunState.RETRYING, RunState.HELD})
STARTABLE = frozenset({RunState.PENDING, RunState.QUEUED, RunState.HELD, RunState.RETRYING})
"""The states from which `Hold`, `Enqueue` and `Start` take a run; from any other they are a conflict."""
