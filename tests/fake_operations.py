"""An engine without organs: what HTTP and the command line ask for, kept in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from engine.adherence import Adherence, adherence_of
from engine.audits import FIRST, Audit, AuditFilter, AuditRow, Chain, text_of
from engine.backfills import Backfill
from engine.clock import Clock, SystemClock, to_microseconds
from engine.config import Config, EngineSettings, HttpSettings, StoreSettings
from engine.config.doors import Doors
from engine.decide.breakers import Quarantine, Released
from engine.decide.joins import Filled
from engine.decide.marks import Mark, Place
from engine.decide.rules import Rule
from engine.decide.upcoming import Upcoming, upcoming
from engine.definitions import Definitions
from engine.deliveries import Delivery, DeliveryFilter, DeliveryHead
from engine.errors import Conflict, EngineError, NotFound
from engine.events import Accepted, Event, EventOutcome, Outcome, Seen
from engine.feed import Feed
from engine.foresight import Desk, World
from engine.hindsight import Subject, subject_of
from engine.housekeeping import Housekeeping
from engine.http.keyring import Keyring
from engine.http.server import HttpServer
from engine.http.tokens import AdminToken
from engine.http.views import pause_view, shown
from engine.ids import new_id
from engine.jobs import Job
from engine.journal import Journal
from engine.loglevels import LogLevels
from engine.metrics import FAMILIES
from engine.metrics.exposition import Exposed, expose
from engine.plugin import Handler, Runner, Secret, Settled
from engine.plugin import Outcome as Ending
from engine.plugin import RunContext as Context
from engine.previews import Found, Preview
from engine.registry import Registry
from engine.replays import REPLAY_KEY, Rehearsed
from engine.replies import Reply
from engine.runlogs import RunLogs
from engine.runs import WAITING, Attempt, Lane, Origin, Run, RunState, Step
from engine.spans import Span, SpanKind
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
from engine.store.changes import Accept, Change
from engine.tallies import Statistics, Tally, TallyRow, Width, sum_up
from engine.tokens import Token
from engine.triggers import Pause, PauseScope, Trigger, TriggerState
from plugins.timers.cron import Cron
from tests.fake_alerts import FakeAlerts
from tests.fake_backfills import FakeBackfills
from tests.fake_conditions import FakeConditions
from tests.fake_maintenance import fake_maintenance
from tests.fake_pools import FakePools
from tests.fake_queue import FakeQueue

TOKEN = "a-token-for-tests-and-nothing-else"
AT = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)


class Program(Runner, frozen=True, kw_only=True):
    """A runner that has something to hide."""

    name = "program"
    main = "command"
    command: tuple[str, ...] = ()
    password: Secret = Secret("hunter2hunter2")

    async def run(self, context: Context) -> Ending:
        return Ending.succeeded("it did nothing")


class FakeBulk:
    """Does with many triggers what `operations` does with one."""

    def __init__(self, operations: FakeOperations) -> None:
        self._operations = operations

    async def pause(self, names: Sequence[str], *, reason: str, until: datetime | None, who: str) -> None:
        for name in names:
            await self._operations.pause(PauseScope.TRIGGER, name, reason=reason, until=until, who=who)

    async def resume(self, names: Sequence[str], *, who: str) -> None:
        for name in names:
            await self._operations.resume(PauseScope.TRIGGER, name, who=who)

    async def fire(self, names: Sequence[str], **given: Any) -> list[Accepted]:
        return [await self._operations.fire(name, **given) for name in names]


class FakeReplies:
    """Answers that are kept in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, Reply] = {}
        self.is_full = False
        self.fault: EngineError | None = None

    async def find(self, digest: str) -> Reply | None:
        return self.kept.get(digest)

    async def keep(self, digest: str, *, request: str, status: int, headers: dict[str, str], body: Any) -> None:
        if self.fault is not None:
            raise self.fault
        self.kept[digest] = Reply(request=request, status=status, headers=headers, body=body, at=AT)

    def full(self) -> bool:
        return self.is_full


class FakeCounting:
    """Statistics of three runs."""

    async def statistics(self, *, trigger: str | None = None, job: str | None = None, over: timedelta) -> Statistics:
        tally = Tally()
        for state, seconds in ((RunState.SUCCEEDED, 1.0), (RunState.TIMED_OUT, 9.0), (RunState.SKIPPED, None)):
            tally.add(state, seconds)
        return sum_up([tally], AT - over, AT)


class FakeMetrics:
    """One figure."""

    async def scrape(self, *, accept: str = "", accept_encoding: str = "") -> Exposed:
        return expose(
            FAMILIES, {"trigger_engine_jobs": {(): 1.0}}, accept=accept, accept_encoding=accept_encoding
        )  # fmt: skip


class FakeVitals:
    """Vitals of an engine whose triggers all fail."""

    def __init__(self, operations: FakeOperations) -> None:
        self._operations = operations

    async def detailed(self, *, triggers: Sequence[str]) -> dict[str, Any]:
        return {
            **self._operations.health(),
            "triggers": [{"name": name, "ok": False, "troubles": ["its last run failed (exit)"]} for name in triggers],
        }

    async def trigger(self, name: str) -> dict[str, Any]:
        self._operations.subject(name)
        return {"name": name, "ok": False, "troubles": ["its last run failed (exit)"], "failures_in_a_row": 1}


class FakeReports:
    """Reports on ten due instants of each trigger: eight ran, one of them badly."""

    def __init__(self, triggers: list[str]) -> None:
        self._triggers = sorted(triggers)

    def names(self) -> list[str]:
        return self._triggers

    async def adherence(self, triggers: Sequence[str], *, start: datetime, end: datetime) -> list[Adherence]:
        tally = Tally()
        for number in range(8):
            tally.plan.end(RunState.FAILED if number == 7 else RunState.SUCCEEDED, "exit")
            tally.plan.begin(0.5 * number)
        tally.plan.end(RunState.MISSED, "down")
        tally.plan.pass_by("=cmd()")
        return [adherence_of(name, [tally], start, end) for name in triggers]


class FakeAuditLog:
    """An audit log in a list."""

    def __init__(self) -> None:
        self.rows: list[Audit] = []

    def now(self) -> int:
        return to_microseconds(AT)

    async def write(self, audit: Audit) -> None:
        self.rows.append(audit)

    def tell(self, audit: Audit) -> None: ...

    def refuse(self, audit: Audit) -> None:
        self.rows.append(audit)

    async def page(self, which: AuditFilter, *, limit: int, before: int | None = None) -> list[AuditRow]:
        rows = [AuditRow(seq=seq, text=text_of(row), hash=bytes(32)) for seq, row in enumerate(self.rows, start=1)]
        return [row for row in reversed(rows) if before is None or row.seq < before][:limit]

    async def chain(self) -> Chain:
        return Chain(rows=len(self.rows), head=FIRST)


class FakeStore(Store):
    """A store that reads from dictionaries."""

    def __init__(self) -> None:
        self.stored: dict[str, StoredEvent] = {}
        self.kept: dict[str, Run] = {}
        self.joined: dict[str, tuple[str, ...]] = {}
        self.missing: tuple[str, ...] = ()
        self.noted: list[Span] = []
        self.told: list[Delivery] = []
        self.gone = Purged()
        self.purging = False
        self.fault: EngineError | Exception | None = None

    async def open(self) -> None: ...
    async def close(self) -> None: ...
    async def take_over(self, boot: Boot) -> None: ...
    def renew(self) -> None: ...
    def renewed_at(self) -> datetime | None:
        return None

    async def apply(self, changes: Sequence[Change], notes: Mapping[int, Audit] | None = None) -> list[Result]:
        raise AssertionError("HTTP changes nothing by itself")

    async def tokens(self) -> list[Token]:
        return []

    async def audit(self, which: AuditFilter, *, limit: int, before: int | None = None) -> list[AuditRow]:
        return []

    async def audit_chain(self) -> Chain:
        return Chain(rows=0, head=FIRST)

    async def delivery(self, delivery_id: str) -> Delivery | None:
        return next((one for one in self.told if one.id == delivery_id), None)

    async def deliveries(self, which: DeliveryFilter, *, limit: int, before: str | None = None) -> list[Delivery]:
        found = [
            one
            for one in self.told
            if which.run in (None, one.run)
            and which.target in (None, one.target)
            and which.state in (None, one.state)
            and (before is None or one.id < before)
        ]
        return sorted(found, key=lambda one: one.id, reverse=True)[:limit]

    async def delivery_heads(self) -> list[DeliveryHead]:
        return []

    async def due_deliveries(self, target: str, *, before: datetime, limit: int) -> list[Delivery]:
        return []

    async def waiting_deliveries(self) -> dict[str, int]:
        return {}

    async def has_deliveries_before(self, at: datetime) -> bool:
        return False

    async def tallies(
        self, *, trigger: str | None = None, job: str | None = None, width: Width, start: datetime, end: datetime
    ) -> list[TallyRow]:
        return []

    async def ended_since(self, at: datetime, *, limit: int) -> list[Run]:
        return []

    async def first_tally_at(self, width: Width) -> datetime | None:
        return None

    async def last_tallies(self, triggers: Collection[str]) -> list[TallyRow]:
        return []

    async def queue_depths(self) -> dict[Lane, Depth]:
        return {lane: Depth(count=0) for lane in Lane}

    async def tallies_at(self, width: Width, began_at: datetime) -> list[TallyRow]:
        return []

    async def find_event(self, source: str, key: str) -> Accepted | None:
        return None

    async def event(self, event_id: str) -> StoredEvent | None:
        return self.stored.get(event_id)

    async def events(self, which: EventFilter, *, limit: int, before: str | None = None) -> list[StoredEvent]:
        found = [
            one
            for key, one in sorted(self.stored.items(), reverse=True)
            if (before is None or key < before)
            and which.source in (None, one.event.source)
            and which.type in (None, one.event.type)
            and (which.trigger is None or which.trigger in {outcome.trigger for outcome in one.outcomes})
        ]
        return found[:limit]

    async def events_after(
        self, which: EventFilter, *, after: str, before: str | None = None, limit: int
    ) -> list[StoredEvent]:
        found = await self.events(which, limit=1_000_000, before=before)
        return [one for one in reversed(found) if one.event.id > after][:limit]

    async def run(self, run_id: str) -> Run | None:
        if self.fault is not None:
            raise self.fault
        return self.kept.get(run_id)

    async def nth_before(self, what: Listed, before: str | None, n: int) -> str | None:
        return None

    async def runs(self, which: RunFilter, *, limit: int, before: str | None = None) -> list[Run]:
        found = [
            run
            for key, run in sorted(self.kept.items(), reverse=True)
            if (before is None or key < before)
            and (which.states is None or run.state in which.states)
            and which.job in (None, run.job)
            and (which.triggers is None or run.trigger in which.triggers)
            and (which.origins is None or run.origin in which.origins)
            and (
                which.text is None
                or which.text.lower() in f"{run.job}\n{run.trigger}\n{run.code}\n{run.reason}".lower()
            )
            and (which.since is None or key >= which.since)
        ]
        return found[:limit]

    async def run_events(self, run_id: str) -> tuple[Event, ...]:
        ids = self.joined.get(run_id, (self.kept[run_id].event,))
        return tuple(self.stored[one].event for one in ids)

    async def queue_head(
        self, job: str, *, after: QueuePlace | None, limit: int, lane: Lane = Lane.LIVE
    ) -> list[tuple[Run, Event]]:
        return []

    async def spans(
        self, kind: SpanKind, *, name: str | None = None, start: datetime, end: datetime, limit: int
    ) -> list[Span]:
        return [
            span for span in self.noted if span.kind is kind and name in (None, span.name) and span.meets(start, end)
        ]

    async def open_spans(self, kind: SpanKind, *, after: str, limit: int) -> list[Span]:
        return []

    async def first_span(self, kind: SpanKind, name: str) -> Span | None:
        return next((span for span in self.noted if (span.kind, span.name) == (kind, name)), None)

    async def fired(self, trigger: str, source: str, *, start: datetime, end: datetime, limit: int) -> list[Met]:
        return []

    async def missed(self, trigger: str, *, start: datetime, end: datetime, limit: int) -> list[Missed]:
        return []

    async def recorded_instants(self, trigger: str, source: str, *, start: datetime, end: datetime) -> int:
        return 0

    async def met(
        self, trigger: str, *, start: datetime, end: datetime, after: tuple[datetime, int] | None = None, limit: int
    ) -> list[Met]:
        return []

    async def queued_jobs(self, lane: Lane = Lane.LIVE) -> list[str]:
        return []

    async def line(self, *, lanes: Collection[Lane], after: QueuePlace | None = None, limit: int) -> list[Run]:
        places = sorted(
            (QueuePlace(run.rank, run.id), run)
            for run in self.kept.values()
            if run.state is RunState.QUEUED and run.lane in lanes
        )
        return [run for place, run in places if after is None or place > after][:limit]

    async def ahead(self, *, lanes: Collection[Lane], before: QueuePlace | None = None) -> dict[str, int]:
        found = [
            run.job
            for run in self.kept.values()
            if run.state is RunState.QUEUED
            and run.lane in lanes
            and (before is None or QueuePlace(run.rank, run.id) < before)
        ]
        return {job: found.count(job) for job in found}

    async def backfill(self, backfill_id: str) -> Backfill | None:
        return None

    async def backfill_of_request(self, request: str) -> Backfill | None:
        return None

    async def backfills(self, *, limit: int, before: str | None = None) -> list[Backfill]:
        return []

    async def open_backfills(self) -> list[Backfill]:
        return []

    async def backfill_instants(self, backfill_id: str) -> tuple[datetime, ...]:
        return ()

    async def backfill_counts(self, backfill: Backfill) -> dict[RunState, int]:
        return {}

    async def backfill_runs(self, backfill: Backfill) -> list[Run]:
        return []

    async def succeeded_instants(self, trigger: str, *, start: datetime, end: datetime) -> dict[datetime, str]:
        return {}

    async def due(self, *, after: tuple[datetime, str] | None, limit: int) -> list[tuple[datetime, Run]]:
        return []

    async def held(self, trigger: str | None, *, after: HeldPlace | None, limit: int) -> list[Run]:
        return []

    async def held_counts(self) -> dict[str, int]:
        return {}

    async def open_windows(self) -> list[Run]:
        return []

    async def filled(self) -> list[Filled]:
        return []

    async def expiring(self, *, limit: int) -> list[Run]:
        return []

    async def throttled(self, *, before: datetime) -> list[Throttled]:
        return []

    async def marks(self, places: Collection[Place]) -> dict[Place, Mark]:
        return {}

    async def latest_marks(self, *, limit: int) -> dict[Place, Mark]:
        return {}

    async def has_marks_before(self, at: datetime) -> bool:
        return False

    async def running(self) -> list[Run]:
        return []

    async def in_the_way(self, jobs: Collection[str], *, limit: int) -> list[Run]:
        return []

    async def cursor(self, source: str) -> Any:
        return None

    async def cursors(self, prefix: str) -> dict[str, Any]:
        return {}

    async def memory(self, source: str, *, after: str | None, limit: int) -> dict[str, Any]:
        return {}

    async def received(self, which: Receipts, *, limit: int) -> list[datetime]:
        return []

    async def counts(self) -> dict[RunState, int]:
        return {}

    async def waiting(self) -> dict[str, int]:
        found = [run.trigger for run in self.kept.values() if run.state in WAITING]
        return {trigger: found.count(trigger) for trigger in found}

    async def stats(self, triggers: Collection[str]) -> dict[str, TriggerStats]:
        found = {}
        for name in triggers:
            runs = [run for _, run in sorted(self.kept.items()) if run.trigger == name]
            states = {run.state: sum(other.state is run.state for other in runs) for run in runs}
            last = runs[-1].id if runs else None
            found[name] = TriggerStats(by_state=states, duration_mean_s=1.5 if runs else None, last_run=last)
        return found

    async def old_runs(self, *, before: datetime, after: int = 0, limit: int) -> Old[OldRun]:
        return Old(items=(), after=None)

    async def old_events(
        self, *, before: datetime, keyed_before: datetime, after: int = 0, limit: int
    ) -> Old[OldEvent]:  # fmt: skip
        found = [event for event in self.stored if self.purging]
        return Old(items=tuple(OldEvent(id=event) for event in found), after=None)

    async def oldest(self) -> datetime | None:
        return None

    async def latest_ends(self) -> frozenset[str]:
        return frozenset()

    async def ends_of(self, runs: Collection[str]) -> dict[str, datetime | None]:
        return {}

    async def purged(self) -> Purged:
        return self.gone

    async def size(self) -> StoreSize:
        return StoreSize(total=8192, free=4096)

    async def ledger(self) -> Ledger:
        return Ledger(accepted=len(self.stored), ended=len(self.stored), waiting=0, missing=self.missing)

    async def check(self) -> list[str]:
        return []


def an_adaptive_view() -> dict[str, Any]:
    """Return how an interval is that grew, in full."""
    why = "lengthened from 1h to 1h30m: 0% of the runs succeed, at least 95% should"
    change = {
        "at": "2026-11-21T09:00:00Z", "old_s": 3600.0, "new_s": 5400.0, "rule": "success_rate", "reason": why,
    }  # fmt: skip
    inputs = {
        "runs": 2,
        "success_rate": {"value": 0.5, "limit": 0.95},
        "duration_s": {"value": None, "limit": 2700.0},
    }
    return {
        "interval_s": 5400.0, "in_force_s": 5400.0, "base_s": 3600.0, "min_s": 1800.0, "max_s": 14400.0, "mode": "on",
        "frozen": None, "last_change": change, "why": why, "inputs": inputs, "changes": [change],
    }  # fmt: skip


class FakeGuards:
    """Releases what a test put into quarantine."""

    def __init__(self) -> None:
        self.quarantines: dict[tuple[str, str], Quarantine] = {}
        self.asked: list[tuple[tuple[str, str], str, str]] = []

    async def release_trigger(self, name: str, *, who: str = "", reason: str = "") -> Released | None:
        return self._release(("trigger", name), who, reason)

    async def release_source(self, source_id: str, *, who: str = "", reason: str = "") -> Released | None:
        return self._release(("source", source_id), who, reason)

    def _release(self, place: tuple[str, str], who: str, reason: str) -> Released | None:
        self.asked.append((place, who, reason))
        found = self.quarantines.pop(place, None)
        return None if found is None else Released(quarantine=found, at=AT, triggers=("nightly",))


class FakeOperations:
    """An engine that accepts everything, and remembers what it was asked for."""

    def __init__(
        self, base: Path, *, max_body_bytes: int = 1 << 20, host: str = "127.0.0.1", doors: Doors | None = None
    ) -> None:
        self.memory = FakeStore()
        self.store = self.memory
        self.clock = SystemClock()
        self.base = base
        self.heard: list[Event] = []
        self.fired: list[dict[str, Any]] = []
        self.paused: dict[str, Pause] = {}
        self.adaptive: dict[str, dict[str, Any]] = {"nightly": an_adaptive_view()}
        self.adapted: list[tuple[str, str, str]] = []
        self.routes: dict[str, dict[str, Handler]] = {}
        self.refused: list[dict[str, Any]] = []
        self.encoded: dict[str, frozenset[str]] = {}
        self.ends: dict[str, Settled] = {}
        self.waited: list[float] = []
        self.fault: Exception | None = None
        self.backfills = FakeBackfills()
        self.conditions = FakeConditions()
        self.pools = FakePools()
        self.alerts = FakeAlerts()
        self.log_levels = LogLevels(SystemClock())
        self.queue = FakeQueue(self.memory, self.memory.kept)
        self.tokens = keyring(self.clock, TOKEN)
        self.audit_log = FakeAuditLog()
        self.unready: list[str] = []
        self.ailing: list[str] = []
        self.to_come: set[str] = set()
        self.previewed: list[tuple[str, Any, int]] = []
        self.sources = ["files:inbox/new", "nightly"]
        self.state = "ok"
        self.standing_still: str | None = None
        self.due_soon: list[tuple[datetime, str]] = []
        self.fires_at: str | None = "2026-11-22T02:00:00Z"
        self.changed = asyncio.Condition()
        job = Job(name="import", runner=Program(command=("import", "--key=sesame-open")), defined_in="c:1")
        trigger = Trigger(name="nightly", job="import", source="timer:nightly", on=Cron(expression="0 2 * * *"))
        self.config = Config(
            engine=EngineSettings(data=base / "data"),
            store=StoreSettings(url="sqlite:///data/engine.db", path=base / "data/engine.db", backups=base / "backups"),
            http=HttpSettings(host=host, port=0, insecure=False, max_body_bytes=max_body_bytes, doors=doors or Doors()),
            sources={},
            jobs={"import": job},
            triggers={"nightly": trigger},
            base=base,
            files=(),
            secrets=frozenset({"sesame-open"}),
        )
        self.maintenance = fake_maintenance(self.config, self.clock)
        self.housekeeping = Housekeeping(
            clock=self.clock, journal=Journal(self.memory, self.clock), store=self.memory,
            run_logs=RunLogs(base / "data" / "logs"), logs=base / "data" / "logs",
            received=base / "data" / "files", settings=self.config.store,
        )  # fmt: skip
        self.guards = FakeGuards()
        self.bulk = FakeBulk(self)
        self.replies = FakeReplies()
        self.feed = Feed(self.clock, "boot")
        self.duplicate = False
        self.repeats = True
        """Whether what came again is what came before."""
        self.definitions = Definitions(self.config, clock=self.clock)

    @property
    def foresight(self) -> Desk:
        pauses = self.paused
        return Desk(
            config=self.config, registry=Registry.discover(), environment={}, clock=self.clock, store=self.store,
            world=lambda: World.of(
                self.config, triggers=self.config.triggers, jobs=self.jobs, pauses=pauses, maintenance=()
            ),
            show=shown,
        )  # fmt: skip

    @property
    def jobs(self) -> Mapping[str, Job]:
        return self.config.jobs

    async def hear(self, events: Sequence[Event]) -> list[Accepted]:
        if self.fault is not None:
            raise self.fault
        self.heard.extend(events)
        return [self.keep(event) for event in events]

    def test(self, trigger: str, event: Event) -> Rehearsed:
        self.subject(trigger)
        gates = (Seen("filter", "drop", {"data.size": 0}),)
        outcome = Outcome(
            trigger=trigger, outcome=EventOutcome.FILTERED, code="filter_false", reason="filtered: no", gates=gates
        )  # fmt: skip
        return Rehearsed(event=event, outcome=outcome, data=event.data)

    @property
    def metrics(self) -> FakeMetrics:
        return FakeMetrics()

    @property
    def vitals(self) -> FakeVitals:
        return FakeVitals(self)

    @property
    def reports(self) -> FakeReports:
        return FakeReports(list(self.config.triggers))

    @property
    def counting(self) -> FakeCounting:
        return FakeCounting()

    def replayable(self, stored: StoredEvent, trigger: str | None) -> list[str]:
        return [one.trigger for one in stored.outcomes if one.trigger is not None and trigger in (None, one.trigger)]

    async def replay(
        self, stored: StoredEvent, *, trigger: str | None, reason: str, request_id: str | None
    ) -> Accepted:
        if not self.replayable(stored, trigger):
            raise Conflict("it met no trigger that is there and works")
        return self.keep(replace(stored.event, key=f"{REPLAY_KEY}{stored.event.id} {request_id or new_id()}"))

    def keep(self, event: Event) -> Accepted:
        """Store an event that met no trigger."""
        outcome = Outcome(trigger=None, outcome=EventOutcome.UNMATCHED, code="unmatched", reason="no trigger hears it")
        kept = replace(event, id=new_id(), source=event.source or "api", received_at=AT)
        self.memory.stored[kept.id] = StoredEvent(event=kept, outcomes=(outcome,))
        return Accepted(event=kept.id, outcomes=(outcome,), duplicate=self.duplicate)

    async def fire(
        self,
        trigger: str,
        *,
        data: Any,
        reason: str,
        priority: int | None,
        bypass: frozenset[str],
        request_id: str | None,
        traceparent: str | None = None,
    ) -> Accepted:
        if self.fault is not None:
            raise self.fault
        self.trigger_view(trigger)
        self.fired.append(
            {
                "trigger": trigger,
                "data": data,
                "reason": reason,
                "priority": priority,
                "bypass": bypass,
                "request_id": request_id,
                "traceparent": traceparent,
            }
        )
        run = self.add_run(state=RunState.SUCCEEDED, data=data)
        return Accepted(event=run.event, runs=(run.id,), duplicate=self.duplicate)

    def add_delivery(self, run: Run, **fields: Any) -> Delivery:
        """Store that somebody is told of a run."""
        message = {
            "type": "engine.run.failed",
            "title": "import failed",
            "text": "exit 1",
            "mood": "failure",
            "data": {},
        }
        given = {"id": new_id(), "target": "notify:ops", "event": "failed", "created_at": AT, "message": message}
        made = Delivery(run=run.id, job=run.job, **{**given, **fields})
        self.memory.told.append(made)
        return made

    def add_run(
        self, *, state: RunState = RunState.RUNNING, events: int = 1, data: Any = None, reason: str = "exit 0"
    ) -> Run:
        """Store a run with its events."""
        run_id = new_id()
        outcome = Outcome(trigger="nightly", outcome=EventOutcome.RUN, run=run_id, code="matched", reason="it is time")
        ids = tuple(new_id() for _ in range(events))
        for one in ids:
            event = Event(type="manual", id=one, source="manual", data=data, received_at=AT, subject="nightly")
            self.memory.stored[one] = StoredEvent(event=event, outcomes=(outcome,))
        ended = AT + timedelta(seconds=2)
        attempt = Attempt(
            number=1,
            started_at=AT,
            finished_at=ended,
            state=state,
            code="succeeded",
            reason=reason,
            exit_code=0,
        )
        run = Run(
            id=run_id,
            job="import",
            trigger="nightly",
            origin=Origin.MANUAL,
            key=run_id,
            event=ids[-1],
            event_count=events,
            state=state,
            code=state.value,
            reason=reason,
            priority=5,
            rank=0,
            attempt=1,
            created_at=AT,
            started_at=AT,
            finished_at=ended if state is RunState.SUCCEEDED else None,
            trace=(
                Step(at=AT, state=RunState.QUEUED, code="fired", reason="fired by hand"),
                Step(at=AT, state=state, code=state.value, reason=reason),
            ),
            attempts=(attempt,),
        )
        self.memory.kept[run_id] = run
        self.memory.joined[run_id] = ids
        return run

    async def change_run(self, run_id: str, state: RunState) -> None:
        """Move a run to another state, and wake who waits for it."""
        self.memory.kept[run_id] = replace(self.memory.kept[run_id], state=state)
        async with self.changed:
            self.changed.notify_all()

    async def pause(
        self, scope: PauseScope, name: str, *, reason: str, until: datetime | None = None, who: str = ""
    ) -> Pause:
        if self.fault is not None:
            raise self.fault
        made = Pause(reason=reason, since=AT, until=until, who=who, scope=scope, name=name)
        self.paused[name if scope is PauseScope.TRIGGER else f"{scope}:{name}"] = made
        return made

    async def resume(self, scope: PauseScope, name: str, *, who: str = "") -> bool:
        return self.paused.pop(name if scope is PauseScope.TRIGGER else f"{scope}:{name}", None) is not None

    def pauses(self) -> list[Pause]:
        return list(self.paused.values())

    def held_by(self, pause: Pause) -> list[str]:
        return sorted(self.config.triggers)

    async def adapt(self, name: str, action: str, reason: str) -> None:
        self.adapted.append((name, action, reason))

    async def reset_trigger(self, name: str, reason: str) -> None:
        self.adapted.append((name, "reset", reason))

    def adaptive_view(self, name: str) -> dict[str, Any]:
        self.trigger_view(name)
        if name not in self.adaptive:
            raise Conflict(f"the interval of trigger {name} is not adaptive")
        return self.adaptive[name]

    async def status(self) -> dict[str, Any]:
        return {"state": "running", "runs": {}, "uptime_s": 1.0}

    def trigger_view(self, name: str) -> dict[str, Any]:
        if name not in self.config.triggers:
            raise NotFound(f"there is no trigger {name!r}")
        pause = self.paused.get(name)
        return {
            "name": name,
            "job": "import",
            "on": {"cron": "0 2 * * *"},
            "state": "active" if pause is None else "paused",
            "enabled": True,
            "tags": [],
            "conditions": [{"name": "warehouse-up", "state": "hold", "reason": "connection refused", "shadow": False}],
            "paused": None if pause is None else pause_view(pause),
            "pauses": [] if pause is None else [pause_view(pause)],
            "maintenance": [],
            "next_at": "2026-11-22T02:00:00Z",
            "next_fires_at": self.fires_at,
            "description": "",
            "defined_in": "config.toml:1",
            "created_at": None,
            "updated_at": None,
        }

    def upcoming(self, name: str, after: datetime) -> Iterator[Upcoming]:
        if name not in self.config.triggers:
            raise NotFound(f"there is no trigger {name!r}")
        return upcoming(self.config.triggers[name], after, pause=self.paused.get(name))

    def triggers_of(self, job: str) -> list[str]:
        return [name for name, trigger in self.config.triggers.items() if trigger.job == job]

    def soonest(self, limit: int) -> list[tuple[datetime, str]]:
        return self.due_soon[:limit]

    def source_views(self) -> list[dict[str, Any]]:
        return [self.source_view(name) for name in self.sources]

    async def preview(self, name: str, *, cursor: Any, limit: int) -> Preview:
        self.previewed.append((name, cursor, limit))
        if self.fault is not None:
            raise self.fault
        events = [Event(type="row", subject=str(n), key=str(n), data={"id": n}) for n in range(3)]
        found = (
            Found(event=events[0], duplicate=True), Found(event=events[1]), Found(event=events[2], refused="too large"),
        )  # fmt: skip
        return Preview(found=found[:limit], stored={"value": "1"}, cursor=None, more=True)

    def source_view(self, name: str) -> dict[str, Any]:
        if name not in self.sources:
            raise NotFound(f"there is no source {name}")
        counts = dict.fromkeys(("events", "duplicates", "rejected", "refused", "restarts"), 0)
        return {
            **{
                "name": name,
                "title": name.replace(":", " "),
                "state": "running",
                **counts,
                "problem": None,
                "warning": None,
                "triggers": ["nightly"],
                "shared": None,
            },
            "last_event_at": "2026-11-22T02:00:00Z",
        }

    def definition(self, name: str) -> tuple[Trigger, Job]:
        return self.config.triggers[name], self.jobs["import"]

    def standing(self, name: str) -> TriggerState:
        return TriggerState.PAUSED if name in self.paused else TriggerState.ACTIVE

    def tagged(self, tag: str) -> frozenset[str]:
        return frozenset({"nightly"} if tag == "warehouse" else ())

    def subject(self, name: str) -> Subject:
        self.trigger_view(name)
        trigger = self.config.triggers[name]
        return subject_of(Rule(trigger, self.jobs[trigger.job]), on="cron", schedule=None, zone="UTC", alive=True)

    def trigger_tags(self, name: str) -> tuple[str, ...]:
        self.trigger_view(name)
        trigger = self.config.triggers[name]
        return (*trigger.tags, *self.jobs[trigger.job].tags)

    def trigger_names(self) -> list[str]:
        return list(self.config.triggers)

    def ready(self) -> tuple[bool, list[str]]:
        return not self.unready, self.unready

    def unhealthy(self) -> list[str]:
        return self.ailing

    def may_answer(self, path: str) -> bool:
        return path in self.to_come

    def health(self) -> dict[str, Any]:
        return {
            "status": self.state,
            "paused": self.standing_still,
            "checks": [{"name": "loop", "ok": self.state == "ok", "detail": "1 ms"}],
        }

    async def is_repeat(self, accepted: Accepted, event: Event, trigger: str | None = None) -> bool:
        return self.repeats

    def note_refused(self, path: str, **refused: Any) -> None:
        self.refused.append({"path": path, **refused})

    async def refusals(self, name: str) -> list[dict[str, Any]]:
        self.source_view(name)
        return [one for one in self.refused if one["path"].endswith(name)]

    def route(self, method: str, path: str) -> Handler | tuple[str, ...] | None:
        methods = self.routes.get(path)
        if methods is None:
            return None
        return methods.get(method) or tuple(methods)

    def encodings(self, path: str) -> frozenset[str]:
        return self.encoded.get(path, frozenset())

    async def settled(self, run_ids: Sequence[str], within_s: float) -> tuple[Settled, ...]:
        self.waited.append(within_s)
        return tuple(self.ends[run_id] for run_id in run_ids)

    def log_path(self, run_id: str) -> Path:
        return self.base / f"{run_id}.log"

    async def wait_change(self, run_id: str, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s), self.changed:
                await self.changed.wait()
        except TimeoutError:
            return


def keyring(clock: Clock, token: str) -> Keyring:
    """Return tokens that are kept in memory alone, the admin's being `token`."""

    async def keep(change: Accept, audit: Audit | None) -> list[Accepted]:
        return []

    return Keyring(AdminToken.from_text(token), clock, keep)


@asynccontextmanager
async def serving(operations: FakeOperations, *, token: str = TOKEN) -> AsyncIterator[HttpServer]:
    """Serve an engine's HTTP on a free port."""
    operations.tokens = keyring(operations.clock, token)
    server = HttpServer(operations, AdminToken.from_text(token), keyring=operations.tokens)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(0.5)
