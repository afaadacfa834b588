"""The store in one SQLite file. See `engine.store.base` for what it promises."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import replace

from engine.audits import Audit, AuditFilter, AuditRow, Chain
from engine.backfills import Backfill
from engine.clock import Clock, SystemClock, to_microseconds
from engine.decide.joins import Filled
from engine.decide.marks import Mark, Place
from engine.deliveries import Delivery, DeliveryFilter, DeliveryHead
from engine.errors import Conflict, EngineError, StoreDamaged, StoreLost, StoreUnavailable
from engine.events import Accepted, Event, EventOutcome
from engine.runs import Lane, Run, RunState
from engine.spans import Span, SpanKind
from engine.store import (
    audits,
    backfills,
    boots,
    deliveries,
    hindsight,
    line,
    purging,
    reads,
    receipts,
    spans,
    tallies,
    tokens,
)
from engine.store.base import (
    Boot,
    Depth,
    EventFilter,
    HeldPlace,
    Ledger,
    Listed,
    Met,
    Missed,
    Old,
    OldEvent,
    OldRun,
    Purged,
    QueuePlace,
    Receipts,
    Result,
    RunFilter,
    Store,
    StoredEvent,
    StoreSize,
    Throttled,
    TriggerStats,
)
from engine.store.changes import Accept, BeginBackfill, Change, End, Entry, Finish, Postpone, accept_of
from engine.store.connection import Connection, connect
from engine.store.ledger import ledger
from engine.store.opening import Lock, prepare
from engine.store.place import FilePlace, lost_text, refuse_network
from engine.store.room import shrink, size_of
from engine.store.writes import Statement, Wave, plan
from engine.tallies import TallyRow, Width
from engine.tokens import Token

T = TypeVar("T")

IDLE_CHECKPOINT_PAGES = 1_000
"""So much in the write-ahead log is moved into the file when nothing waits; 4 MB."""

LONGEST_LOG_PAGES = 4_000
"""So much is moved even when something waits; 16 MB. The log is then written over, which costs less than growth."""


class SqliteStore(Store):
    """Events and runs in one file, written by one connection.

    `path` is the file; `read_only` opens an existing one for reading alone, beside a running engine if need
    be.
    """

    def __init__(self, path: Path, *, clock: Clock | None = None, read_only: bool = False) -> None:
        self.path = path
        self.checked = False
        """Whether the file was checked whole when it was opened."""
        self._clock = clock or SystemClock()
        self._read_only = read_only
        self._lock: Lock | None = None
        self._writer: Connection | None = None
        self._place: FilePlace | None = None
        self._readers: list[Connection] = []
        self._turn = 0
        self._boot: Boot | None = None
        self._owned = False
        """Whether its row is there."""
        self._lost: StoreLost | None = None
        self._renewed_at: datetime | None = None
        self._log_pages = 0

    async def open(self) -> None:
        if not self._read_only:
            refuse_network(self.path)
            self._lock = Lock(self.path.with_name(self.path.name + ".lock"), f"the store {self.path}")
        try:
            if not self._read_only:
                self.checked = prepare(self.path)
                self._writer = await connect(self.path, read_only=False)
            self._readers = [await connect(self.path, read_only=True) for _ in range(2)]
            if self._writer is not None:
                await self._writer.call(lambda raw: raw.execute("select count(*) from sqlite_schema").fetchone())
                self._place = FilePlace(self.path)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        connections, self._readers = self._readers, []
        for connection in connections:
            await connection.close()
        if self._writer is not None:
            writer, self._writer = self._writer, None
            if self.lost() is not None:
                # SQLite would leave the log as it is, and it may have no name any more: what it holds goes into the
                # file, wherever that is by now.
                with contextlib.suppress(StoreUnavailable, StoreDamaged):
                    await writer.call(lambda raw: raw.execute("pragma wal_checkpoint(full)").fetchall())
            await writer.close()
        if self._lock is not None:
            lock, self._lock = self._lock, None
            lock.release()

    # Owning

    async def take_over(self, boot: Boot) -> None:
        await self._read(lambda raw: boots.refuse_living(raw, self.path, boot))
        self._boot = boot
        with contextlib.suppress(StoreUnavailable):
            await self.apply([])

    def renew(self) -> None:
        if self._lost is not None:
            raise StoreLost(str(self._lost))
        if self._writer is not None and self._owned:
            # In the writer's thread, whatever holds up the event loop.
            self._writer.run_aside(self._renew)

    def _renew(self, raw: sqlite3.Connection) -> None:
        boot = self._boot
        assert boot is not None  # noqa: S101 - it is owned
        if boots.renew(raw, boot, self._clock):
            self._renewed_at = self._clock.now()
        else:
            self._lost = StoreLost(f"the lease on {self.path} is another engine's by now")

    def renewed_at(self) -> datetime | None:
        return self._renewed_at

    def _own(self, raw: sqlite3.Connection) -> None:
        """See, within a transaction, that the store is ours; or make it so with the first that can be written."""
        boot = self._boot
        if boot is None:
            return
        if self._owned:
            boots.must_own(raw, self.path, boot)
        else:
            boots.take_over(raw, boot, self._clock)

    # Writing

    async def apply(self, changes: Sequence[Change], notes: Mapping[int, Audit] | None = None) -> list[Result]:
        if self._writer is None:
            raise StoreUnavailable("the store is closed")
        if not changes and (self._owned or self._boot is None):
            await self._writer.call(_try_to_write)
            return []
        waves = plan(changes, to_microseconds(self._clock.now()))
        keys = _keys_of(changes)
        self._log_pages += 8 + sum(len(wave.rows) * 2 + wave.size_bytes // 4096 for wave in waves) + len(changes)
        full = self._log_pages > LONGEST_LOG_PAGES
        if full:
            self._log_pages = 0

        place = self._place
        # Made ready here, where all that they are of is at hand: the other thread reads no more than it has to.
        statements = [statement for wave in waves for statement in wave.statements()]

        def write(raw: sqlite3.Connection) -> list[Result] | None:
            results = _apply(raw, statements, keys, changes, self._clock, self._own, notes)
            if self._boot is not None and not self._owned:
                self._owned, self._renewed_at = True, self._clock.now()
            if place is not None and (lost := place.lost()) is not None:
                # It is in a file that nobody will look for: nothing of it is acknowledged.
                raise StoreDamaged(lost_text(lost))
            if full:
                # The changes are durable; a log that can't be moved now is moved later.
                with contextlib.suppress(sqlite3.Error):
                    _checkpoint(raw)
            return results

        results = await self._writer.call(write)
        return [_fresh(change) for change in changes] if results is None else results

    def lost(self) -> str | None:
        """Say what became of the store's files where they are not those any more that were opened."""
        return None if self._place is None else self._place.lost()

    def tidy(self) -> None:
        """Move the write-ahead log into the file while nothing waits, where it has grown."""
        if self._writer is not None and self._log_pages > IDLE_CHECKPOINT_PAGES:
            self._log_pages = 0
            self._writer.begin(_checkpoint).add_done_callback(_looked)

    # Reading

    async def _read(self, function: Callable[[sqlite3.Connection], T], *, slow: bool = False) -> T:
        """Run a query on a reading connection; slow ones have one of their own, so that others don't wait."""
        if not self._readers:
            raise StoreUnavailable("the store is closed")
        return await self._readers[1 if slow else 0].call(function)

    async def find_event(self, source: str, key: str) -> Accepted | None:
        return await self._read(lambda raw: reads.find_event(raw, source, key))

    async def event(self, event_id: str) -> StoredEvent | None:
        return await self._read(lambda raw: reads.event(raw, event_id))

    async def events(self, which: EventFilter, *, limit: int, before: str | None = None) -> list[StoredEvent]:
        return await self._read(lambda raw: reads.events(raw, which, limit, before), slow=True)

    async def events_after(
        self, which: EventFilter, *, after: str, before: str | None = None, limit: int
    ) -> list[StoredEvent]:
        return await self._read(lambda raw: reads.events(raw, which, limit, before, after), slow=True)

    async def run(self, run_id: str) -> Run | None:
        return await self._read(lambda raw: reads.run(raw, run_id))

    async def runs(self, which: RunFilter, *, limit: int, before: str | None = None) -> list[Run]:
        return await self._read(lambda raw: reads.runs(raw, which, limit, before), slow=True)

    async def nth_before(self, what: Listed, before: str | None, n: int) -> str | None:
        return await self._read(lambda raw: reads.nth_before(raw, what, before, n))

    async def run_events(self, run_id: str) -> tuple[Event, ...]:
        return await self._read(lambda raw: reads.run_events(raw, run_id))

    async def queue_head(
        self, job: str, *, after: QueuePlace | None, limit: int, lane: Lane = Lane.LIVE
    ) -> list[tuple[Run, Event]]:
        return await self._read(lambda raw: reads.queue_head(raw, job, after, limit, lane))

    async def queued_jobs(self, lane: Lane = Lane.LIVE) -> list[str]:
        return await self._read(lambda raw: reads.queued_jobs(raw, lane))

    async def line(self, *, lanes: Collection[Lane], after: QueuePlace | None = None, limit: int) -> list[Run]:
        return await self._read(lambda raw: line.line(raw, lanes, after, limit), slow=True)

    async def ahead(self, *, lanes: Collection[Lane], before: QueuePlace | None = None) -> dict[str, int]:
        return await self._read(lambda raw: line.ahead(raw, lanes, before), slow=True)

    async def due(self, *, after: tuple[datetime, str] | None, limit: int) -> list[tuple[datetime, Run]]:
        return await self._read(lambda raw: reads.due(raw, after, limit))

    async def held(self, trigger: str | None, *, after: HeldPlace | None, limit: int) -> list[Run]:
        return await self._read(lambda raw: reads.held(raw, trigger, after, limit))

    async def held_counts(self) -> dict[str, int]:
        return await self._read(reads.held_counts)

    async def open_windows(self) -> list[Run]:
        return await self._read(reads.open_windows)

    async def filled(self) -> list[Filled]:
        return await self._read(reads.filled)

    async def expiring(self, *, limit: int) -> list[Run]:
        return await self._read(lambda raw: reads.expiring(raw, limit))

    async def throttled(self, *, before: datetime) -> list[Throttled]:
        return await self._read(lambda raw: reads.throttled(raw, before), slow=True)

    async def marks(self, places: Collection[Place]) -> dict[Place, Mark]:
        return await self._read(lambda raw: reads.marks(raw, places))

    async def latest_marks(self, *, limit: int) -> dict[Place, Mark]:
        return await self._read(lambda raw: reads.latest_marks(raw, limit), slow=True)

    async def has_marks_before(self, at: datetime) -> bool:
        return await self._read(lambda raw: reads.has_marks_before(raw, at))

    async def running(self) -> list[Run]:
        return await self._read(reads.running)

    async def in_the_way(self, jobs: Collection[str], *, limit: int) -> list[Run]:
        return await self._read(lambda raw: reads.in_the_way(raw, jobs, limit))

    async def cursor(self, source: str) -> Any:
        return (await self._read(lambda raw: reads.cursors(raw, source, exact=True))).get(source)

    async def cursors(self, prefix: str) -> dict[str, Any]:
        return await self._read(lambda raw: reads.cursors(raw, prefix, exact=False))

    async def memory(self, source: str, *, after: str | None, limit: int) -> dict[str, Any]:
        return await self._read(lambda raw: reads.memory(raw, source, after, limit), slow=True)

    async def backfill(self, backfill_id: str) -> Backfill | None:
        return await self._read(lambda raw: backfills.backfill(raw, backfill_id))

    async def backfill_of_request(self, request: str) -> Backfill | None:
        return await self._read(lambda raw: backfills.backfill_of_request(raw, request))

    async def backfills(self, *, limit: int, before: str | None = None) -> list[Backfill]:
        return await self._read(lambda raw: backfills.backfills(raw, limit, before), slow=True)

    async def open_backfills(self) -> list[Backfill]:
        return await self._read(backfills.open_backfills)

    async def backfill_instants(self, backfill_id: str) -> tuple[datetime, ...]:
        return await self._read(lambda raw: backfills.backfill_instants(raw, backfill_id), slow=True)

    async def backfill_counts(self, backfill: Backfill) -> dict[RunState, int]:
        return await self._read(lambda raw: backfills.backfill_counts(raw, backfill), slow=True)

    async def backfill_runs(self, backfill: Backfill) -> list[Run]:
        return await self._read(lambda raw: backfills.backfill_runs(raw, backfill), slow=True)

    async def succeeded_instants(self, trigger: str, *, start: datetime, end: datetime) -> dict[datetime, str]:
        return await self._read(lambda raw: backfills.succeeded_instants(raw, trigger, start, end), slow=True)

    async def spans(
        self, kind: SpanKind, *, name: str | None = None, start: datetime, end: datetime, limit: int
    ) -> list[Span]:
        return await self._read(lambda raw: spans.spans(raw, kind, name, start, end, limit), slow=True)

    async def open_spans(self, kind: SpanKind, *, after: str, limit: int) -> list[Span]:
        return await self._read(lambda raw: spans.open_spans(raw, kind, after, limit), slow=True)

    async def first_span(self, kind: SpanKind, name: str) -> Span | None:
        return await self._read(lambda raw: spans.first_span(raw, kind, name), slow=True)

    async def fired(self, trigger: str, source: str, *, start: datetime, end: datetime, limit: int) -> list[Met]:
        return await self._read(lambda raw: hindsight.fired(raw, trigger, source, start, end, limit), slow=True)

    async def missed(self, trigger: str, *, start: datetime, end: datetime, limit: int) -> list[Missed]:
        return await self._read(lambda raw: hindsight.missed(raw, trigger, start, end, limit), slow=True)

    async def recorded_instants(self, trigger: str, source: str, *, start: datetime, end: datetime) -> int:
        return await self._read(lambda raw: hindsight.recorded_instants(raw, trigger, source, start, end), slow=True)

    async def met(
        self, trigger: str, *, start: datetime, end: datetime, after: tuple[datetime, int] | None = None, limit: int
    ) -> list[Met]:
        return await self._read(lambda raw: hindsight.met(raw, trigger, start, end, after, limit), slow=True)

    async def delivery(self, delivery_id: str) -> Delivery | None:
        return await self._read(lambda raw: deliveries.delivery(raw, delivery_id))

    async def deliveries(self, which: DeliveryFilter, *, limit: int, before: str | None = None) -> list[Delivery]:
        return await self._read(lambda raw: deliveries.deliveries(raw, which, limit, before), slow=True)

    async def delivery_heads(self) -> list[DeliveryHead]:
        return await self._read(deliveries.heads)

    async def due_deliveries(self, target: str, *, before: datetime, limit: int) -> list[Delivery]:
        return await self._read(lambda raw: deliveries.due(raw, target, before, limit))

    async def waiting_deliveries(self) -> dict[str, int]:
        return await self._read(deliveries.waiting, slow=True)

    async def has_deliveries_before(self, at: datetime) -> bool:
        return await self._read(lambda raw: deliveries.has_before(raw, at))

    async def tallies(
        self, *, trigger: str | None = None, job: str | None = None, width: Width, start: datetime, end: datetime
    ) -> list[TallyRow]:
        if trigger is not None:
            return await self._read(lambda raw: tallies.of_trigger(raw, trigger, width, start, end), slow=True)
        return await self._read(lambda raw: tallies.of_job(raw, job or "", width, start, end), slow=True)

    async def tallies_at(self, width: Width, began_at: datetime) -> list[TallyRow]:
        return await self._read(lambda raw: tallies.at(raw, width, began_at), slow=True)

    async def ended_since(self, at: datetime, *, limit: int) -> list[Run]:
        return await self._read(lambda raw: tallies.ended_since(raw, at, limit), slow=True)

    async def last_tallies(self, triggers: Collection[str]) -> list[TallyRow]:
        return await self._read(lambda raw: tallies.last(raw, triggers), slow=True)

    async def queue_depths(self) -> dict[Lane, Depth]:
        return await self._read(line.depths, slow=True)

    async def first_tally_at(self, width: Width) -> datetime | None:
        return await self._read(lambda raw: tallies.first_at(raw, width), slow=True)

    async def old_runs(self, *, before: datetime, after: int = 0, limit: int) -> Old[OldRun]:
        return await self._read(lambda raw: purging.old_runs(raw, before, after, limit), slow=True)

    async def old_events(
        self, *, before: datetime, keyed_before: datetime, after: int = 0, limit: int
    ) -> Old[OldEvent]:  # fmt: skip
        return await self._read(lambda raw: purging.old_events(raw, before, keyed_before, after, limit), slow=True)

    async def oldest(self) -> datetime | None:
        return await self._read(purging.oldest, slow=True)

    async def latest_ends(self) -> frozenset[str]:
        return await self._read(purging.latest_ends, slow=True)

    async def ends_of(self, runs: Collection[str]) -> dict[str, datetime | None]:
        return await self._read(lambda raw: purging.ends_of(raw, tuple(runs)), slow=True)

    async def purged(self) -> Purged:
        return await self._read(purging.purged)

    async def size(self) -> StoreSize:
        return await self._read(lambda raw: size_of(raw, self.path))

    async def shrink(self) -> int:
        if self._writer is None:
            raise StoreUnavailable("the store is closed")
        freed, pages = await self._writer.call(shrink)
        self._log_pages += 2 * pages
        return freed

    async def tokens(self) -> list[Token]:
        return await self._read(tokens.tokens)

    async def audit(self, which: AuditFilter, *, limit: int, before: int | None = None) -> list[AuditRow]:
        return await self._read(lambda raw: audits.page(raw, which, limit, before), slow=True)

    async def audit_chain(self) -> Chain:
        return await self._read(audits.check, slow=True)

    async def received(self, which: Receipts, *, limit: int) -> list[datetime]:
        return await self._read(lambda raw: receipts.received(raw, which, limit), slow=True)

    async def counts(self) -> dict[RunState, int]:
        return await self._read(reads.counts, slow=True)

    async def waiting(self) -> dict[str, int]:
        return await self._read(reads.waiting, slow=True)

    async def stats(self, triggers: Collection[str]) -> dict[str, TriggerStats]:
        return await self._read(lambda raw: reads.stats(raw, triggers), slow=True)

    async def ledger(self) -> Ledger:
        return await self._read(ledger, slow=True)

    async def check(self) -> list[str]:
        connection = await connect(self.path, read_only=True)
        try:
            findings = await connection.call(
                lambda raw: [str(row[0]) for row in raw.execute("pragma integrity_check(20)")]
            )
        except StoreDamaged as error:
            findings = [str(error)]
        finally:
            await connection.close()
        return [] if findings == ["ok"] else findings


def _try_to_write(raw: sqlite3.Connection) -> None:
    """Write what is there already, in a transaction."""
    (version,) = raw.execute("pragma user_version").fetchone()
    raw.execute("begin immediate")
    try:
        raw.execute(f"pragma user_version = {version}")
        raw.execute("commit")
    except BaseException:
        if raw.in_transaction:
            raw.execute("rollback")
        raise


def _checkpoint(raw: sqlite3.Connection) -> None:
    """Move the write-ahead log into the file, as far as no reader needs it."""
    raw.execute("pragma wal_checkpoint(passive)").fetchall()


def _looked(future: asyncio.Future[None]) -> None:
    """A checkpoint that fails is made up for by a later one."""
    if not future.cancelled():
        future.exception()


def _keys_of(changes: Sequence[Change]) -> list[tuple[str, str]]:
    return [
        (entry.event.source, entry.event.key)
        for change in changes
        if (accept := accept_of(change)) is not None
        for entry in accept.entries
        if entry.event.key is not None
    ]


def _apply(
    raw: sqlite3.Connection,
    statements: Sequence[Statement],
    keys: Sequence[tuple[str, str]],
    changes: Sequence[Change],
    clock: Clock,
    own: Callable[[sqlite3.Connection], None],
    notes: Mapping[int, Audit] | None = None,
) -> list[Result] | None:
    """Make all changes in one transaction: together where nothing is in their way, else one by one.

    Return what became of each; None where all were made together, by `statements`, and nothing of them was there.
    """
    results: list[Result] | None = None
    raw.execute("begin immediate")
    try:
        own(raw)
        if len(set(keys)) != len(keys) or reads.known_keys(raw, keys) or not _run(raw, statements):
            raw.execute("rollback")
            raw.execute("begin immediate")
            own(raw)
            results = [_apply_one(raw, change, to_microseconds(clock.now())) for change in changes]
        if notes and (made := [note for place, note in notes.items() if not _is_refused(results, place)]):
            audits.append(raw, made)
        raw.execute("commit")
    except BaseException:
        if raw.in_transaction:
            raw.execute("rollback")
        raise
    return results


def _is_refused(results: Sequence[Result] | None, place: int) -> bool:
    return results is not None and isinstance(results[place], EngineError)


def _run(raw: sqlite3.Connection, statements: Sequence[Statement]) -> bool:
    """Run statements; return False where one of them met something in its way."""
    try:
        for text, count, values, guarded in statements:
            if raw.execute(text, values).rowcount != count and guarded:
                return False
    except sqlite3.IntegrityError:
        return False
    return True


def _apply_waves(raw: sqlite3.Connection, waves: Sequence[Wave]) -> bool:
    """Run the statements of the waves; return False where one of them met something in its way."""
    return _run(raw, [statement for wave in waves for statement in wave.statements()])


def _fresh(change: Change) -> Result:
    accept = accept_of(change)
    return None if accept is None else [_answer(entry) for entry in accept.entries]


def _answer(entry: Entry) -> Accepted:
    runs = tuple([outcome.run for outcome in entry.outcomes if outcome.run is not None])
    return Accepted(event=entry.event.id, runs=runs, outcomes=entry.outcomes)


def _apply_one(raw: sqlite3.Connection, change: Change, moved_at: int) -> Result:
    """Make one change in a savepoint of its own, looking at what is there first."""
    raw.execute("savepoint one")
    try:
        accept = accept_of(change)
        if not isinstance(change, Accept):
            alone = replace(change, then=None) if isinstance(change, (Finish, End)) else change
            if not _apply_waves(raw, plan([alone], moved_at)):
                claimed = isinstance(change, Postpone) and bool(change.claims)
                raise Conflict(reads.why_not(raw, change.run) + claimed * ", or a mark of its trigger is another one")
        result: Result = None if accept is None else _accept_one(raw, accept, moved_at)
    except (Conflict, ValueError) as error:
        raw.execute("rollback to one")
        result = error if isinstance(error, Conflict) else Conflict(str(error))
    raw.execute("release one")
    return result


def _accept_one(raw: sqlite3.Connection, change: Accept, moved_at: int) -> list[Accepted]:
    answers: list[Accepted] = []
    for entry in change.entries:
        event = entry.event
        known = None if event.key is None else reads.find_event(raw, event.source, event.key)
        if known is not None:
            answers.append(known)
            continue
        entry = _without_known_runs(raw, entry)
        named = [*[join.run for join in entry.joins], *entry.in_the_way]
        if not _apply_waves(raw, plan([Accept(entries=(entry,))], moved_at)):
            raise Conflict(
                f"event {event.id} could not be stored: "
                + ("; ".join(reads.why_not(raw, run) for run in named) if named else "its id is there already")
                + bool(entry.claims) * ", or a mark of its triggers is another one"
            )
        answers.append(_answer(entry))
    backfill = change.backfill
    rest = replace(change, entries=())
    if not _apply_waves(raw, plan([rest], moved_at)):
        if change.keep_tokens:
            raise Conflict("there is a token of that name already")
        if backfill is not None:
            what = backfill.backfill.id if isinstance(backfill, BeginBackfill) else backfill.backfill
            raise Conflict(f"backfill {what} is not in the state that this change expects")
        raise StoreDamaged("a cursor or a memory could not be changed")
    return answers


def _without_known_runs(raw: sqlite3.Connection, entry: Entry) -> Entry:
    """Return the entry without runs whose trigger, origin and key have one; their outcome is `deduplicated`."""
    outcomes, runs, claims = list(entry.outcomes), [], entry.claims
    for run in entry.runs:
        known = reads.run_of_key(raw, run.trigger, run.origin, run.key)
        if known is None:
            runs.append(run)
            continue
        claims = tuple(
            replace(claim, mark=replace(claim.mark, run=known)) if claim.mark.run == run.id else claim
            for claim in claims
        )
        for place, outcome in enumerate(outcomes):
            if outcome.run == run.id:
                outcomes[place] = type(outcome)(
                    trigger=outcome.trigger,
                    outcome=EventOutcome.DEDUPLICATED,
                    run=known,
                    code="run_exists",
                    reason=f"deduplicated: this trigger has run {known} for the same key",
                )
    left = {run.id for run in entry.runs} - {run.id for run in runs}
    fills = tuple(fill for fill in entry.fills if fill.run not in left)
    return replace(entry, outcomes=tuple(outcomes), runs=tuple(runs), claims=claims, fills=fills)
