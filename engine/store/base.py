"""The contract of a store, in prose. Each sentence of it has a case in `engine.testing.store_contract`.

A store keeps events, their outcomes, runs, cursors and what sources remember. It changes only through `apply`,
which takes a batch of changes and makes them durable in one transaction; everything else reads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from msgspec import Struct

from engine.audits import Audit, AuditFilter, AuditRow, Chain
from engine.backfills import Backfill
from engine.decide.joins import Filled
from engine.decide.marks import Mark, Place
from engine.deliveries import Delivery, DeliveryFilter, DeliveryHead
from engine.errors import EngineError
from engine.events import Accepted, Event, EventOutcome, Outcome
from engine.runs import Lane, Origin, Run, RunState, Step
from engine.spans import Span, SpanKind
from engine.store.changes import Change
from engine.tallies import TallyRow, Width
from engine.tokens import Token

T = TypeVar("T")

Result = list[Accepted] | None | EngineError
"""What came of one change: the answers of what it accepts, None where that is nothing, or why it had no effect."""


class StoredEvent(Struct, frozen=True, kw_only=True):
    """An event with its outcomes."""

    event: Event
    outcomes: tuple[Outcome, ...]


class Boot(Struct, frozen=True, kw_only=True):
    """An engine process as the owner of a store: its boot id, its process with the kernel's start time, its machine.

    `started` is 0, and `machine` empty, where they are not known.
    """

    id: str
    pid: int
    started: int
    machine: str


class RunFilter(Struct, frozen=True, kw_only=True):
    """Which runs a list holds; what is None does not restrict.

    `text` stands somewhere in the names, the code or the trace, whatever its case (of ASCII letters). `since` is the
    id from which on they are, or what `engine.ids.first_id_at` gives.
    """

    states: frozenset[RunState] | None = None
    job: str | None = None
    triggers: frozenset[str] | None = None
    origins: frozenset[Origin] | None = None
    text: str | None = None
    since: str | None = None


class EventFilter(Struct, frozen=True, kw_only=True):
    """Which events a list holds; what is None does not restrict. `outcome` is that at `trigger`, which it goes with.

    They met one of `triggers`; `text` stands somewhere in the source, the type, the subject or the key, whatever its
    case (of ASCII letters); `since` is as in `RunFilter`.
    """

    source: str | None = None
    type: str | None = None
    trigger: str | None = None
    outcome: EventOutcome | None = None
    triggers: frozenset[str] | None = None
    text: str | None = None
    since: str | None = None


Listed = Literal["events", "runs"]
"""What lists are made of."""


class Receipts(Struct, frozen=True, kw_only=True):
    """Which events count as ones that triggers received.

    Those with one of `outcomes` at one of `triggers` that came since `since`; copies of events and those of backfills
    never do, nor does what a disabled trigger met. `by_hand` tells whether what people fired does.
    """

    triggers: frozenset[str]
    outcomes: frozenset[EventOutcome]
    since: datetime
    by_hand: bool = True


class Throttled(Struct, frozen=True, kw_only=True):
    """A clock of a throttle, by trigger and key, with the due times of the first and the last run that wait for it."""

    trigger: str
    key: str
    first_at: datetime
    last_at: datetime


class QueuePlace(Struct, frozen=True, order=True):
    """A place in a job's queue: rank first, then id."""

    rank: int
    run: str


class Depth(Struct, frozen=True, kw_only=True):
    """How many runs are queued in a lane, and the id of the one of them that was made first; None: there is none."""

    count: int
    oldest: str | None = None


class HeldPlace(Struct, frozen=True, order=True):
    """A place among the held runs: by trigger, then by rank, then by id."""

    trigger: str
    rank: int
    run: str


class TriggerStats(Struct, frozen=True, kw_only=True):
    """How the runs of one trigger ended. A missed run counts as the `instants` of its outputs, if it has such."""

    by_state: Mapping[RunState, int]
    duration_mean_s: float | None
    last_run: str | None


class Met(Struct, frozen=True, kw_only=True):
    """An event that a trigger met, with its outcome there, and where the run that came of it stands now.

    - `state`, `last`: the run's, and the last step of its trace; None where there is no run.
    - `place`: orders what was received at the same instant.
    """

    event: Event
    outcome: Outcome
    place: int
    state: RunState | None = None
    last: Step | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


class Missed(Struct, frozen=True, kw_only=True):
    """The record of one missed due instant, or of `count` from the first to the last."""

    run: Run
    first: datetime
    last: datetime
    count: int


class OldRun(Struct, frozen=True, kw_only=True):
    """A run that ended long ago."""

    id: str
    job: str
    trigger: str
    origin: Origin
    state: RunState


class OldEvent(Struct, frozen=True, kw_only=True):
    """An event that came long ago."""

    id: str


class Old(Struct, Generic[T], frozen=True, kw_only=True):
    """A page of what is old, and the place from which the next one goes on; None where there is none."""

    items: tuple[T, ...]
    after: int | None


class Purged(Struct, frozen=True, kw_only=True):
    """What was removed after its time.

    - `events`, `runs`, and `outcomes` by trigger: how many, ever.
    - `last_event`, `last_run`: the greatest id that is gone; empty where none is.
    - `before`: what came later than that is all there; None where nothing was removed.
    """

    events: int = 0
    runs: int = 0
    outcomes: Mapping[str, int] = {}
    last_event: str = ""
    last_run: str = ""
    before: datetime | None = None


class StoreSize(Struct, frozen=True, kw_only=True):
    """How large the store is, in bytes: its files, and what of them is free for what comes.

    `unused` is what of that could be given back to the disk, and `shrinks` whether that is done while it is open.
    """

    total: int
    free: int
    unused: int = 0
    shrinks: bool = True


class TriggerLedger(Struct, frozen=True, kw_only=True):
    """The sums of a `Ledger` for one trigger; for events that met none its name is empty."""

    trigger: str
    accepted: int
    ended: int
    waiting: int
    purged: int = 0


class Ledger(Struct, frozen=True, kw_only=True):
    """The sum of all promises: each accepted event comes to one outcome for each trigger that it met.

    `accepted` counts pairs of event and trigger (and events that met none); `ended` those whose story is
    over, `waiting` those whose run is yet to end, `purged` those that were removed after their time. `missing` tells,
    in words, of the rows that break the rule: of each kind the first hundred. `triggers` are the sums for each trigger,
    by name.
    """

    accepted: int
    ended: int
    waiting: int
    missing: tuple[str, ...]
    purged: int = 0
    triggers: tuple[TriggerLedger, ...] = ()


class Store(ABC):
    """A place where events and runs are durable.

    **Opening.** `open` makes a new store, or opens an existing one after checking it. A store that is damaged
    (StoreDamaged) or written by a newer engine (StoreVersion) is refused and left as it is. An older one is
    first copied beside itself, then migrated; interrupted migrations leave it as it was. A store that another
    engine has open is refused with StoreInUse, which names that engine's process.

    **Owner.** The engine that took the store over last owns it. What another one writes is refused from then on with
    StoreLost, however long it stood still, and nothing of it is stored. An owner that lives is not succeeded
    (StoreInUse), whatever the age of its lease.

    **Durability.** When `apply` returns, its changes survive the death of the process and of the machine's
    power. When it raises StoreUnavailable, none of them was made, and the same call may be made again.

    **Order.** Changes take effect in the order in which they are given.

    **Each for itself.** A change is made whole or not at all. One that can't be made (its run is unknown, or
    in a state that forbids it) has an error as its result, and no effect; the others are made all the same.

    **Events.** An event whose source and key came before, in an earlier call or in the same one, is not
    stored, nor are its outcomes, runs and joins: its answer is that of the first time, with `duplicate` true.
    Events without a key are never duplicates. Equal keys of different sources are different events.

    **Runs.** There is at most one run for a trigger, origin and key. An event whose run there is already gets
    the outcome `deduplicated`, with that run, in place of a second one. A missed run that is there already is
    left.

    **In the way.** An entry whose run is skipped for another run, or takes its place, names that one. Where it is not
    there, or has ended, the change can't be made: so nothing is skipped for a run that is not open.

    **Transitions.** A run leaves a state only for one that `engine.runs.TRANSITIONS` allows; what has ended
    stays.

    **Priority.** A waiting run that gets another priority stays in its state, and its rank moves by the ageing for each
    step, so that it is as if it had had that priority from the start. What was asked of a running run stands in its
    trace, and its code tells it, until its attempt ends. A running run that goes on in another engine process is that
    one's, and its trace tells it.

    **Follow-ups.** The events that follow from a run's end (`then` of `Finish` and `End`) are accepted in the same
    change as the end: neither is there without the other. The change's result is the answers of these events.

    **Cursors.** The cursor of an `Accept` moves in the same transaction as its events, also when all of them
    are duplicates. So do the `cursors` of further sources.

    **Marks.** A claim on a mark is made in the same transaction as the events or the run that it comes with. Where
    there is another mark that has an effect at the claim's `now`, and that is not the `seen` one, the whole change is a
    conflict; so it is where one that is to be extended is not the seen one, or not there.

    **Shift.** With `shift`, all pending runs at that clock of a throttle are due so much later, and its mark holds
    until then, in the same transaction.

    **Memory.** What an `Accept` has a source remember or forget changes in the same transaction as its events.
    So do the `memories` of further sources. A key that is remembered again has the later value; one that is forgotten
    and was not there is no error.

    **Backfills.** What an `Accept` does to a backfill is made in the same transaction as its events. Where the
    backfill can't take it (its id or request is there already, or it is in another place or state), the whole `Accept`
    is a conflict: nothing of it is stored.

    **Spans.** The spans of an `Accept` are noted in the same transaction as its events, in place of those of the same
    kind, name and beginning. Those that ended before its `forget_spans` are gone afterwards.

    **Deliveries.** The `deliveries` of an `Accept` are stored in the same transaction as what it comes with: the end of
    a run and what is told of it. What `tried` says of a delivery that does not wait, or is not there, has no effect.
    Those that ended before `forget_deliveries` are gone afterwards, but for more than a thousand.

    **Tallies.** The `tallies` of an `Accept` are stored in the place of those with the same key. Those of a width that
    began before what `forget_tallies` says of it are gone afterwards, but for more than a thousand.

    **Purging.** What an `Accept` purges is gone with all that it brought: an event with its outcomes, and a run. It is
    counted in the same transaction. A run that has not ended stays, and so does an event of one.

    **Tokens.** A token that an `Accept` keeps is stored in the place of that with its id; where another one has its
    name the change is a conflict. Its last use is noted where it is there.

    **Audit.** A row of the audit log is there if, and only if, the change that it came with was made. Rows have the
    numbers from 1 on, in the order of the changes, and each the hash of `engine.audits.linked`; none is changed or
    removed.

    **Reading.** Reads see what was durable when they began. They never wait for a writer for longer than it
    takes to commit.
    """

    @abstractmethod
    async def open(self) -> None:
        """Open the store; see above for what is refused, and how."""

    @abstractmethod
    async def close(self) -> None:
        """Close the store. What was applied is durable already; closing twice does nothing."""

    @abstractmethod
    async def take_over(self, boot: Boot) -> None:
        """Own the store from now on; where that can't be written now, it is with the first change that can."""

    @abstractmethod
    def renew(self) -> None:
        """Renew the owner's lease, from whichever thread; what was lost is told with StoreLost from then on."""

    @abstractmethod
    def renewed_at(self) -> datetime | None:
        """When the lease was renewed last; None where the store has no owner."""

    @abstractmethod
    async def apply(self, changes: Sequence[Change], notes: Mapping[int, Audit] | None = None) -> list[Result]:
        """Make changes durable in one transaction; return a result for each, in their order.

        `notes` are rows of the audit log, by the place of the change that each goes with: it is added in the same
        transaction, unless that change could not be made.
        Without changes it only finds out whether the store can be written, and raises where it can't.
        """

    def tidy(self) -> None:  # noqa: B027 - most stores have nothing to do
        """Start to tidy up; called when nothing waits to be written."""

    @abstractmethod
    async def find_event(self, source: str, key: str) -> Accepted | None:
        """Return the answer that the event of this source and key got, as a duplicate, or None."""

    @abstractmethod
    async def event(self, event_id: str) -> StoredEvent | None:
        """Return an event with its outcomes, or None."""

    @abstractmethod
    async def events(self, which: EventFilter, *, limit: int, before: str | None = None) -> list[StoredEvent]:
        """Return at most `limit` events, the newest first; those before the id `before` where it is given."""

    @abstractmethod
    async def events_after(
        self, which: EventFilter, *, after: str, before: str | None = None, limit: int
    ) -> list[StoredEvent]:
        """Return at most `limit` events later than the id `after`, the oldest first; those before `before`, if given.

        `after` and `before` may also be what `engine.ids.first_id_at` gives.
        """

    @abstractmethod
    async def run(self, run_id: str) -> Run | None:
        """Return a run with its trace and attempts, or None."""

    @abstractmethod
    async def runs(self, which: RunFilter, *, limit: int, before: str | None = None) -> list[Run]:
        """Return at most `limit` runs, the newest first; those before the id `before` where it is given."""

    @abstractmethod
    async def nth_before(self, what: Listed, before: str | None, n: int) -> str | None:
        """Return the id of the n-th event or run before an id, or from the newest on; None where there are fewer.

        A list that is narrowed is looked for in so many at a time, so that it never reads them all.
        """

    @abstractmethod
    async def run_events(self, run_id: str) -> tuple[Event, ...]:
        """Return all events of a run, oldest first."""

    @abstractmethod
    async def queue_head(
        self, job: str, *, after: QueuePlace | None, limit: int, lane: Lane = Lane.LIVE
    ) -> list[tuple[Run, Event]]:
        """Return at most `limit` queued runs of a job with their latest events, in queue order, from a place
        on.

        `after` None means from the head; the run at `after` itself is not returned. Runs of backfills are in a lane
        of their own, all others in the live one.
        """

    @abstractmethod
    async def queued_jobs(self, lane: Lane = Lane.LIVE) -> list[str]:
        """Return the names of all jobs that have queued runs in a lane, at a cost that does not grow with their
        number."""

    @abstractmethod
    async def line(self, *, lanes: Collection[Lane], after: QueuePlace | None = None, limit: int) -> list[Run]:
        """Return at most `limit` queued runs of these lanes, of all jobs, in queue order, from a place on.

        `after` None means from the head. The cost grows with the limit and the number of jobs, not with what waits.
        """

    @abstractmethod
    async def ahead(self, *, lanes: Collection[Lane], before: QueuePlace | None = None) -> dict[str, int]:
        """Return, for each job that has any, how many queued runs of these lanes stand before a place; None: all."""

    @abstractmethod
    async def due(self, *, after: tuple[datetime, str] | None, limit: int) -> list[tuple[datetime, Run]]:
        """Return at most `limit` pending, retrying and held runs with their due times, the earliest first.

        Those that have none are left out. `after` None means from the earliest on, else those later than that due time
        and id.
        """

    @abstractmethod
    async def held(self, trigger: str | None, *, after: HeldPlace | None, limit: int) -> list[Run]:
        """Return at most `limit` held runs of a trigger (None: of any), in the order of `HeldPlace`, from a place
        on."""

    @abstractmethod
    async def held_counts(self) -> dict[str, int]:
        """Return how many runs are held, by trigger; those without any are left out."""

    @abstractmethod
    async def open_windows(self) -> list[Run]:
        """Return all pending runs whose window (of a debounce, a batch or a join) is open."""

    @abstractmethod
    async def filled(self) -> list[Filled]:
        """Return by which inputs the events of joins came that still wait, of each join the oldest first."""

    @abstractmethod
    async def expiring(self, *, limit: int) -> list[Run]:
        """Return at most `limit` pending, queued and held runs that expire, the first to do so first."""

    @abstractmethod
    async def throttled(self, *, before: datetime) -> list[Throttled]:
        """Return the clocks of throttles for which a run waits that was due before that instant."""

    @abstractmethod
    async def marks(self, places: Collection[Place]) -> dict[Place, Mark]:
        """Return the marks at these places, where there are any."""

    @abstractmethod
    async def latest_marks(self, *, limit: int) -> dict[Place, Mark]:
        """Return at most `limit` marks, those that have an effect for the longest time."""

    @abstractmethod
    async def has_marks_before(self, at: datetime) -> bool:
        """Tell whether there are marks that have no effect from that instant on."""

    @abstractmethod
    async def running(self) -> list[Run]:
        """Return all running runs."""

    @abstractmethod
    async def in_the_way(self, jobs: Collection[str], *, limit: int) -> list[Run]:
        """Return, for each of the jobs, its runs that wait for another attempt, and those by due instants that wait.

        At most `limit` of each job, the oldest first; at a cost that does not grow with what else waits.
        """

    @abstractmethod
    async def cursor(self, source: str) -> Any:
        """Return a source's cursor, or None."""

    @abstractmethod
    async def cursors(self, prefix: str) -> dict[str, Any]:
        """Return the cursors of all sources whose id begins with `prefix`."""

    @abstractmethod
    async def memory(self, source: str, *, after: str | None, limit: int) -> dict[str, Any]:
        """Return at most `limit` of the values that a source remembers, in the order of their keys.

        `after` None means from the first key on, else from the first key later than that one.
        """

    @abstractmethod
    async def backfill(self, backfill_id: str) -> Backfill | None:
        """Return a backfill, or None."""

    @abstractmethod
    async def backfill_of_request(self, request: str) -> Backfill | None:
        """Return the backfill that a request began, or None."""

    @abstractmethod
    async def backfills(self, *, limit: int, before: str | None = None) -> list[Backfill]:
        """Return at most `limit` backfills, the newest first; those before the id `before` where it is given."""

    @abstractmethod
    async def open_backfills(self) -> list[Backfill]:
        """Return all backfills that have something left to do, the oldest first."""

    @abstractmethod
    async def backfill_instants(self, backfill_id: str) -> tuple[datetime, ...]:
        """Return the instants of a backfill, in the order in which it runs them."""

    @abstractmethod
    async def backfill_counts(self, backfill: Backfill) -> dict[RunState, int]:
        """Return how many runs of a backfill stand in each state."""

    @abstractmethod
    async def backfill_runs(self, backfill: Backfill) -> list[Run]:
        """Return all runs of a backfill that have not ended."""

    @abstractmethod
    async def succeeded_instants(self, trigger: str, *, start: datetime, end: datetime) -> dict[datetime, str]:
        """Return the due instants of a trigger, from `start` to before `end`, that have run with success, each with
        its latest such run.

        Runs of the schedule and of backfills count.
        """

    @abstractmethod
    async def spans(
        self, kind: SpanKind, *, name: str | None = None, start: datetime, end: datetime, limit: int
    ) -> list[Span]:
        """Return the spans of a kind, and of one name where it is given, that meet a time, by their beginnings.

        Where there are more than `limit`, the last ones.
        """

    @abstractmethod
    async def open_spans(self, kind: SpanKind, *, after: str, limit: int) -> list[Span]:
        """Return at most `limit` spans of a kind that still hold, by their names, of names later than `after`."""

    @abstractmethod
    async def first_span(self, kind: SpanKind, name: str) -> Span | None:
        """Return the first span of a kind and name that is known, or None."""

    @abstractmethod
    async def fired(self, trigger: str, source: str, *, start: datetime, end: datetime, limit: int) -> list[Met]:
        """Return at most `limit` events of a timer by their due instants, from `start` to before `end`, in their order.

        `source` is the timer's id; each comes with what came of it at the trigger.
        """

    @abstractmethod
    async def missed(self, trigger: str, *, start: datetime, end: datetime, limit: int) -> list[Missed]:
        """Return what is recorded of missed due instants of a trigger, from `start` to before `end`, in their order.

        At most `limit` that begin there, and one that begins before and ends there.
        """

    @abstractmethod
    async def recorded_instants(self, trigger: str, source: str, *, start: datetime, end: datetime) -> int:
        """Return how many due instants of a timer are recorded, from `start` to before `end`: as events, or as missed.

        Those that are told of together count if the first of them lies there.
        """

    @abstractmethod
    async def met(
        self, trigger: str, *, start: datetime, end: datetime, after: tuple[datetime, int] | None = None, limit: int
    ) -> list[Met]:
        """Return at most `limit` events that a trigger met, received from `start` to before `end`, the oldest first.

        `after` is when the last of the page before was received, and its place.
        """

    @abstractmethod
    async def delivery(self, delivery_id: str) -> Delivery | None:
        """Return a delivery, or None."""

    @abstractmethod
    async def deliveries(self, which: DeliveryFilter, *, limit: int, before: str | None = None) -> list[Delivery]:
        """Return at most `limit` deliveries, the newest first; those before the id `before` where it is given."""

    @abstractmethod
    async def delivery_heads(self) -> list[DeliveryHead]:
        """Return each target for which a delivery waits, and when the first is due; a step for each target."""

    @abstractmethod
    async def due_deliveries(self, target: str, *, before: datetime, limit: int) -> list[Delivery]:
        """Return at most `limit` deliveries to a target that wait and are due by then, the first due first."""

    @abstractmethod
    async def waiting_deliveries(self) -> dict[str, int]:
        """Return how many deliveries wait, by target. Reads all of these."""

    @abstractmethod
    async def has_deliveries_before(self, at: datetime) -> bool:
        """Tell whether a delivery ended before an instant."""

    @abstractmethod
    async def tallies(
        self, *, trigger: str | None = None, job: str | None = None, width: Width, start: datetime, end: datetime
    ) -> list[TallyRow]:
        """Return the tallies of a trigger, or of a job, that begin from `start` to before `end`, in that order."""

    @abstractmethod
    async def tallies_at(self, width: Width, began_at: datetime) -> list[TallyRow]:
        """Return all tallies that begin at an instant."""

    @abstractmethod
    async def ended_since(self, at: datetime, *, limit: int) -> list[Run]:
        """Return the runs that ended after an instant, of the latest `limit` made since an hour before it."""

    @abstractmethod
    async def last_tallies(self, triggers: Collection[str]) -> list[TallyRow]:
        """Return, for each of the triggers, its tallies of the latest day that it has any of."""

    @abstractmethod
    async def first_tally_at(self, width: Width) -> datetime | None:
        """Return when the oldest tally of a width begins; None where there is none."""

    @abstractmethod
    async def old_runs(self, *, before: datetime, after: int = 0, limit: int) -> Old[OldRun]:
        """Return a page of the runs that ended before an instant, in the order in which they were stored.

        At most `limit` runs are looked at. The newest run of all is never among them.
        """

    @abstractmethod
    async def old_events(
        self, *, before: datetime, keyed_before: datetime, after: int = 0, limit: int
    ) -> Old[OldEvent]:
        """Return a page of the events that were received before an instant, in the order in which they were stored.

        Those with a key were received before `keyed_before`, and all runs of each have ended. At most `limit` events
        are looked at. The newest event of all is never among them.
        """

    @abstractmethod
    async def oldest(self) -> datetime | None:
        """Return when the first event or run that is there was stored, or None."""

    @abstractmethod
    async def latest_ends(self) -> frozenset[str]:
        """Return the ids of the newest run of each job in each state that is an end. Reads all runs."""

    @abstractmethod
    async def ends_of(self, runs: Collection[str]) -> dict[str, datetime | None]:
        """Return, of those runs that are there, when each ended; None for one that has not."""

    @abstractmethod
    async def purged(self) -> Purged:
        """Return what was purged, ever."""

    @abstractmethod
    async def size(self) -> StoreSize:
        """Return how large the store is."""

    async def shrink(self) -> int:
        """Give some free room back to the disk, in a short while; return how many bytes. Most stores have none."""
        return 0

    def lost(self) -> str | None:
        """Say what became of the store where it is not the one any more that was opened, or None."""
        return None

    @abstractmethod
    async def tokens(self) -> list[Token]:
        """Return all tokens, by name."""

    @abstractmethod
    async def audit(self, which: AuditFilter, *, limit: int, before: int | None = None) -> list[AuditRow]:
        """Return at most `limit` rows of the audit log, the newest first; those before the number `before`."""

    @abstractmethod
    async def audit_chain(self) -> Chain:
        """Follow the chain of the audit log. Reads all of it."""

    @abstractmethod
    async def received(self, which: Receipts, *, limit: int) -> list[datetime]:
        """Return when the events that triggers received came, the newest first, at most `limit`."""

    @abstractmethod
    async def counts(self) -> dict[RunState, int]:
        """Return how many runs stand in each state that is not an end; cheap at any size of the store."""

    @abstractmethod
    async def queue_depths(self) -> dict[Lane, Depth]:
        """Return how many runs are queued in each lane, and which was made first. Reads an index of all of these."""

    @abstractmethod
    async def waiting(self) -> dict[str, int]:
        """Return how many runs of each trigger wait: are pending, queued, held or retrying. Reads all of these."""

    @abstractmethod
    async def stats(self, triggers: Collection[str]) -> dict[str, TriggerStats]:
        """Return statistics for each of the triggers."""

    @abstractmethod
    async def ledger(self) -> Ledger:
        """Add up all events and runs; see `Ledger`. Reads the whole store."""

    @abstractmethod
    async def check(self) -> list[str]:
        """Check the store's whole integrity; return what is wrong, in words. Reads the whole store."""
