"""What the listener asks the engine for; the runtime hands it over."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from engine.adherence import Adherence
from engine.audits import Audit, AuditFilter, AuditRow, Chain
from engine.backfills import BackfillPlan, BackfillProgress, BackfillRequest
from engine.clock import Clock
from engine.decide.breakers import Released
from engine.decide.upcoming import Upcoming
from engine.defined import Key, Kind
from engine.events import Accepted, Event
from engine.feed import Feed
from engine.foresight import Desk
from engine.hindsight import Subject
from engine.http.keyring import Keyring
from engine.jobs import Job
from engine.loglevels import LogLevels
from engine.plugin import Explanation, Handler, Settled
from engine.previews import Preview
from engine.replays import Rehearsed
from engine.replies import Reply
from engine.runs import Lane, Run
from engine.store.base import QueuePlace, Store, StoredEvent
from engine.tallies import Statistics
from engine.triggers import Pause, PauseScope, Trigger, TriggerState
from engine.waiting import Flushed, FlushRequest, QueuePage, Retried, RetryRequest

if TYPE_CHECKING:
    from engine.config import Config
    from engine.config.origins import Setting
    from engine.metrics.exposition import Exposed


class BackfillOperations(Protocol):
    """What may be asked of backfills. All raise StoreUnavailable; what names one that is not there, NotFound."""

    async def plan(self, request: BackfillRequest) -> BackfillPlan:
        """Return what a backfill would run; raise NotFound, Conflict or InvalidRequest where it can't be."""
        ...

    async def begin(self, request: BackfillRequest, *, request_id: str | None = None) -> BackfillProgress:
        """Begin a backfill, durably; raise as `plan` does. A request id that came before begins no second one."""
        ...

    async def get(self, backfill_id: str) -> BackfillProgress:
        """Return a backfill, and how far it has come."""
        ...

    async def page(self, *, limit: int, before: str | None = None) -> list[BackfillProgress]:
        """Return at most `limit` backfills, the newest first; those before the id `before` where it is given."""
        ...

    async def pause(self, backfill_id: str, *, reason: str = "") -> BackfillProgress:
        """Have it make no more runs until it is resumed; raise Conflict where its state forbids that."""
        ...

    async def resume(self, backfill_id: str) -> BackfillProgress:
        """Let it go on; raise Conflict where its state forbids that."""
        ...

    async def cancel(self, backfill_id: str, *, reason: str = "") -> BackfillProgress:
        """Have it make no more runs, and end those that wait; raise Conflict where its state forbids that."""
        ...


class ConditionOperations(Protocol):
    """What may be asked of conditions. What names one that is not there raises NotFound; all raise StoreUnavailable."""

    async def views(self) -> list[dict[str, Any]]:
        """Return all conditions as the API shows them, by name."""
        ...

    async def view(self, name: str) -> dict[str, Any]:
        """Return one condition."""
        ...

    async def override(
        self, name: str, *, reason: str, who: str, enabled: bool | None = None, shadow: bool | None = None,
        thresholds: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Let something hold in the place of its configuration, durably; raise InvalidRequest for what can't be."""
        ...

    async def reset(self, name: str) -> dict[str, Any]:
        """Let its configuration hold again."""
        ...


class PoolOperations(Protocol):
    """What may be asked of pools. What names one that is not there raises NotFound; all raise StoreUnavailable."""

    async def views(self) -> list[dict[str, Any]]:
        """Return all pools as the API shows them, the engine's slots first."""
        ...

    async def view(self, name: str) -> dict[str, Any]:
        """Return one pool."""
        ...

    async def change(self, name: str, limit: int, *, reason: str, who: str = "") -> dict[str, Any]:
        """Have it hold another amount, durably; raise InvalidRequest for what can't be."""
        ...

    async def reset(self, name: str, *, who: str = "") -> dict[str, Any]:
        """Have it hold what is configured."""
        ...

    def waits_for(self, run: Run) -> str | None:
        """Say which limit a run that is ready waits for, and who has it; None where it waits for none."""
        ...


class QueueOperations(Protocol):
    """What may be asked of what waits and runs. All raise StoreUnavailable, and NotFound for what is not there.

    What they change is durable when they return; `who` asked and why stands in the runs' traces.
    """

    async def page(self, *, lane: Lane | None = None, after: QueuePlace | None = None, limit: int = 50) -> QueuePage:
        """Return a page of the line of what is ready: of one lane, or of all that stand in it by rank."""
        ...

    async def flush(self, which: FlushRequest, *, reason: str, who: str = "", dry_run: bool = False) -> Flushed:
        """Cancel all runs that wait and are meant; raise InvalidRequest where it is not said which."""
        ...

    async def retry_many(
        self, which: RetryRequest, *, reason: str, who: str = "", dry_run: bool = False
    ) -> Retried:  # fmt: skip
        """Run once more what ended runs were for; raise InvalidRequest where it asks for what can't be."""
        ...

    async def cancel(self, run_id: str, *, reason: str = "", who: str = "") -> Run:
        """Cancel a run; one that runs is being ended when this returns. Raise Conflict where it has ended."""
        ...

    async def hold(self, run_id: str, *, reason: str = "", who: str = "") -> Run:
        """Hold a run that waits; raise Conflict where it runs or has ended."""
        ...

    async def release(self, run_id: str, *, reason: str = "", who: str = "") -> Run:
        """Release a run that is held by hand; raise Conflict where it is not."""
        ...

    async def set_priority(self, run_id: str, priority: int, *, reason: str = "", who: str = "") -> Run:
        """Give a run that waits another priority; raise Conflict where it runs or has ended."""
        ...

    async def retry(self, run_id: str, *, reason: str = "", who: str = "", request_id: str | None = None) -> Accepted:
        """Run once more what an ended run was for; raise Conflict where that can't be."""
        ...


class GuardOperations(Protocol):
    """What may be asked of guards. All raise StoreUnavailable."""

    async def release_trigger(self, name: str, *, who: str = "", reason: str = "") -> Released | None:
        """End the quarantine of a trigger, durably; return None where it has none of its own; raise NotFound."""
        ...

    async def release_source(self, source_id: str, *, who: str = "", reason: str = "") -> Released | None:
        """End the quarantine of a source, by its id or name, durably; return None where there is none."""
        ...


class MaintenanceOperations(Protocol):
    """What may be asked of maintenance windows. What names one that is not there raises NotFound."""

    def views(self) -> list[dict[str, Any]]:
        """Return all windows as the API shows them."""
        ...

    def view(self, name: str) -> dict[str, Any]:
        """Return a window as the API shows it."""
        ...

    async def define(self, name: str, settings: dict[str, Any], *, who: str) -> None:
        """Make a window, durably; raise ConfigError, InvalidRequest, Conflict or StoreUnavailable."""
        ...

    async def remove(self, name: str, *, who: str) -> None:
        """Remove a window of the API, durably; raise Conflict or StoreUnavailable."""
        ...

    async def override(
        self, name: str, *, until: datetime | None, duration_s: float | None = None, reason: str, who: str
    ) -> None:
        """Have a window count as closed, durably; raise Conflict or StoreUnavailable."""
        ...

    async def end_override(self, name: str, *, who: str) -> bool:
        """End its override, durably; return whether it held; raise StoreUnavailable."""
        ...


class Shown(Protocol):
    """What the API shows as an object."""

    def view(self) -> dict[str, Any]:
        """Return it as the API shows it."""
        ...


class DefinitionOperations(Protocol):
    """What may be asked of the configuration as a whole."""

    def view(self) -> dict[str, Any]:
        """Return where it comes from, and how the last reload went."""
        ...

    async def reload(self, who: str) -> Shown:
        """Read it anew, and take it up; raise ConfigError, Conflict or StoreUnavailable."""
        ...

    async def define(
        self, key: Key, settings: Mapping[str, Any], *, who: str, match: Collection[str] | None = None,
        new: bool | None = None,
    ) -> bool:  # fmt: skip
        """Define something, durably, or another version of it; return whether it is new. For what it raises see
        `engine.definitions`."""
        ...

    async def patch(
        self, key: Key, changes: Mapping[str, Any], *, who: str, reason: str = "", match: Collection[str] | None = None
    ) -> None:
        """Change single settings, durably, or override those of files."""
        ...

    async def patch_all(self, keys: Collection[Key], changes: Mapping[str, Any], *, who: str, reason: str = "") -> None:
        """Change the same settings of many, in one commit: of all or none."""
        ...

    async def remove(self, key: Key, *, who: str, match: Collection[str] | None = None) -> None:
        """Remove a definition of the API, durably."""
        ...

    async def reset(self, key: Key, *, who: str) -> bool:
        """Have what files say hold again, durably; return whether something overrode it."""
        ...

    def version(self, key: Key) -> str | None:
        """Return what tells a definition from every other version of it; None where there is none."""
        ...

    def about(self, key: Key) -> dict[str, Any]:
        """Return where a definition comes from."""
        ...

    def settings(
        self, table: str, name: str | None, *, config: Config, show: Callable[[Any, Any], Any]
    ) -> Sequence[Setting]:
        """Return each setting of a table with where it comes from; raise NotFound where there is no such table."""
        ...

    def invalid(self, kind: Kind) -> Mapping[str, str]:
        """Return what is wrong with the definitions of the API that do not work, by name."""
        ...

    def export(self) -> str:
        """Return all definitions of the API as TOML."""
        ...

    async def import_text(
        self, content: bytes, *, who: str, replace: bool = False, dry_run: bool = False
    ) -> tuple[dict[str, Any], Config]:
        """Define all that a TOML text says, or none of it."""
        ...


class StatisticsOperations(Protocol):
    """What may be asked of the statistics."""

    async def statistics(self, *, trigger: str | None = None, job: str | None = None, over: timedelta) -> Statistics:
        """Return how the runs of a trigger, or of a job, ended in the time up to now; raise StoreUnavailable."""
        ...


class AlertOperations(Protocol):
    """What may be asked of alerts. What names one that is not there raises NotFound; what changes, StoreUnavailable."""

    def views(self) -> list[dict[str, Any]]:
        """Return all alerts as the API shows them: those that are open first, then by name."""
        ...

    def view(self, name: str) -> dict[str, Any]:
        """Return one alert."""
        ...

    async def mute(self, name: str, *, duration_s: float, reason: str, who: str = "") -> dict[str, Any]:
        """Have nobody told of an alert for a time, durably."""
        ...

    async def unmute(self, name: str, *, who: str = "") -> dict[str, Any]:
        """End a mute, durably."""
        ...

    async def acknowledge(self, name: str, *, reason: str, who: str = "") -> dict[str, Any]:
        """Take on what is open, so that it is not told again; raise Conflict where nothing is."""
        ...

    async def test(self, name: str, *, who: str = "") -> tuple[str, ...]:
        """Tell all who are told of an alert that this is a test; return the ids of the deliveries."""
        ...


class ReportOperations(Protocol):
    """What may be asked about how well timers were kept."""

    def names(self) -> list[str]:
        """Return the triggers that are on a timer, by name."""
        ...

    async def adherence(self, triggers: Sequence[str], *, start: datetime, end: datetime) -> list[Adherence]:
        """Return what became of the due instants of triggers; raise NotFound, or StoreUnavailable."""
        ...


class VitalOperations(Protocol):
    """What may be asked about how the parts of the engine are."""

    async def detailed(self, *, triggers: Sequence[str]) -> dict[str, Any]:
        """Return how each part is, and of triggers those that are named."""
        ...

    async def trigger(self, name: str) -> dict[str, Any]:
        """Return how one trigger is; raise NotFound and StoreUnavailable."""
        ...


class MetricsOperations(Protocol):
    """What Prometheus may ask."""

    async def scrape(self, *, accept: str = "", accept_encoding: str = "") -> Exposed:
        """Return all metrics as they are now, in the form and the coding that are asked for."""
        ...


class BackupOperations(Protocol):
    """What may be asked of copies of the store."""

    async def make(self, name: str | None = None) -> dict[str, Any]:
        """Copy the store, and return the copy; raise InvalidRequest, Conflict, StoreUnavailable or StoreDamaged."""
        ...

    async def copies(self) -> list[dict[str, Any]]:
        """Return the copies that are there, the newest first."""
        ...


class HousekeepingOperations(Protocol):
    """What may be asked of housekeeping. All raise StoreUnavailable."""

    @property
    def backups(self) -> BackupOperations: ...

    async def view(self) -> dict[str, Any]:
        """Return what is kept for how long, what was removed, and how large the store is."""
        ...

    async def begin(self, *, patience_s: float) -> bool:
        """Have a round done now; return whether it was over within `patience_s`."""
        ...

    async def rehearse(self) -> dict[str, Any]:
        """Return what a round would remove now."""
        ...


class BulkOperations(Protocol):
    """What is done with many triggers in one commit. All raise StoreUnavailable, and NotFound for one that is none."""

    async def pause(self, names: Sequence[str], *, reason: str, until: datetime | None, who: str) -> None:
        """Pause triggers, durably; raise Conflict where `until` is past."""
        ...

    async def resume(self, names: Sequence[str], *, who: str) -> None:
        """End the pauses of triggers, durably."""
        ...

    async def fire(
        self, names: Sequence[str], *, data: Any, reason: str, priority: int | None, bypass: frozenset[str],
        request_id: str | None,
    ) -> list[Accepted]:  # fmt: skip
        """Fire triggers by hand, durably; raise InvalidEvent, and Conflict where one of them is disabled."""
        ...


class ReplyOperations(Protocol):
    """What may be asked of answers that are kept. Both raise StoreUnavailable."""

    async def find(self, digest: str) -> Reply | None:
        """Return the answer that is kept; None where there is none, or it is too old."""
        ...

    async def keep(self, digest: str, *, request: str, status: int, headers: dict[str, str], body: Any) -> None:
        """Keep an answer, durably."""
        ...

    def full(self) -> bool:
        """Tell whether so many are kept that there may be no more now."""
        ...


class AuditOperations(Protocol):
    """What may be asked of the audit log."""

    def now(self) -> int:
        """Return the instant as rows tell it."""
        ...

    async def write(self, audit: Audit) -> None:
        """Store a row by itself, or else tell it in the engine's own log."""
        ...

    def tell(self, audit: Audit) -> None:
        """Tell of a row that was stored with a change, in the engine's own log."""
        ...

    def refuse(self, audit: Audit) -> None:
        """Have a refusal written, with those that are alike."""
        ...

    async def page(self, which: AuditFilter, *, limit: int, before: int | None = None) -> list[AuditRow]:
        """Return rows, the newest first; raise StoreUnavailable."""
        ...

    async def chain(self) -> Chain:
        """Follow the whole chain; raise StoreUnavailable."""
        ...


class Operations(Protocol):
    """The engine, as far as HTTP may use it: the store is for reading, and changes go through the methods."""

    @property
    def store(self) -> Store: ...

    @property
    def config(self) -> Config: ...

    @property
    def clock(self) -> Clock: ...

    @property
    def jobs(self) -> Mapping[str, Job]:
        """The jobs by name, as they are now."""
        ...

    @property
    def tokens(self) -> Keyring: ...

    @property
    def audit_log(self) -> AuditOperations: ...

    @property
    def backfills(self) -> BackfillOperations: ...

    @property
    def conditions(self) -> ConditionOperations: ...

    @property
    def pools(self) -> PoolOperations: ...

    @property
    def queue(self) -> QueueOperations: ...

    @property
    def counting(self) -> StatisticsOperations: ...

    @property
    def alerts(self) -> AlertOperations: ...

    @property
    def log_levels(self) -> LogLevels:
        """How much the log tells."""
        ...

    @property
    def metrics(self) -> MetricsOperations: ...

    @property
    def reports(self) -> ReportOperations: ...

    @property
    def vitals(self) -> VitalOperations: ...

    @property
    def maintenance(self) -> MaintenanceOperations: ...

    @property
    def housekeeping(self) -> HousekeepingOperations: ...

    @property
    def guards(self) -> GuardOperations: ...

    @property
    def bulk(self) -> BulkOperations: ...

    @property
    def feed(self) -> Feed: ...

    @property
    def replies(self) -> ReplyOperations: ...

    @property
    def definitions(self) -> DefinitionOperations: ...

    @property
    def foresight(self) -> Desk:
        """What answers questions about the future."""
        ...

    async def hear(self, events: Sequence[Event]) -> list[Accepted]:
        """Accept events that came in through the API, all or none; raise InvalidEvent or StoreUnavailable."""
        ...

    async def is_repeat(self, accepted: Accepted, event: Event, trigger: str | None = None) -> bool:
        """Tell whether an event, or a fire of a trigger, says what the one said whose answer this is."""
        ...

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
        """Fire a trigger by hand; raise NotFound, InvalidEvent, Conflict or StoreUnavailable.

        `request_id` makes it idempotent: the same one again gets the first answer, as a duplicate.
        """
        ...

    def test(self, trigger: str, event: Event) -> Rehearsed:
        """Return what an event would become now, and store nothing; raise NotFound or InvalidEvent."""
        ...

    def replayable(self, stored: StoredEvent, trigger: str | None) -> list[str]:
        """Return the triggers at which an event can be run again, of all or of one; raise NotFound."""
        ...

    async def replay(
        self, stored: StoredEvent, *, trigger: str | None, reason: str, request_id: str | None
    ) -> Accepted:
        """Run an event again, durably; raise NotFound, InvalidEvent, Conflict or StoreUnavailable."""
        ...

    async def pause(
        self, scope: PauseScope, name: str, *, reason: str, until: datetime | None = None, who: str = ""
    ) -> Pause:
        """Pause something, durably; raise NotFound, Conflict where `until` is past, or StoreUnavailable."""
        ...

    async def resume(self, scope: PauseScope, name: str, *, who: str = "") -> bool:
        """End a pause, durably; return whether it held; raise NotFound or StoreUnavailable."""
        ...

    def pauses(self) -> list[Pause]:
        """Return all pauses that hold now, the widest first."""
        ...

    def held_by(self, pause: Pause) -> list[str]:
        """Return the triggers, by name, for which a pause holds."""
        ...

    async def adapt(self, name: str, action: str, reason: str) -> None:
        """Freeze, unfreeze or reset an adapted interval; raise NotFound, Conflict or StoreUnavailable."""
        ...

    async def reset_trigger(self, name: str, reason: str) -> None:
        """Drop what overrides a trigger's configuration; raise NotFound or StoreUnavailable."""
        ...

    def adaptive_view(self, name: str) -> dict[str, Any]:
        """Return how an adapted interval is; raise NotFound, and Conflict where it is not adaptive."""
        ...

    async def status(self) -> dict[str, Any]:
        """Return the engine's state, counts, sources and uptime."""
        ...

    def trigger_view(self, name: str) -> dict[str, Any]:
        """Return a trigger as the API shows it, but for its statistics; raise NotFound."""
        ...

    def upcoming(self, name: str, after: datetime) -> Iterator[Upcoming]:
        """Return the due instants to come of a trigger.

        Raises NotFound, Conflict where it is on no timer, and on the way PluginError where its timer fails.
        """
        ...

    def triggers_of(self, job: str) -> list[str]:
        """Return the names of the triggers that run a job."""
        ...

    def soonest(self, limit: int) -> list[tuple[datetime, str]]:
        """Return the triggers that come due first, and when; those that are paused are not among them."""
        ...

    def definition(self, name: str) -> tuple[Trigger, Job]:
        """Return a trigger and its job; raise NotFound."""
        ...

    def standing(self, name: str) -> TriggerState:
        """Return where a trigger stands; raise NotFound. It costs less than its view."""
        ...

    def tagged(self, tag: str) -> frozenset[str]:
        """Return the names of all triggers with a tag, their own or their job's."""
        ...

    def subject(self, name: str) -> Subject:
        """Return a trigger as hindsight asks about it; raise NotFound."""
        ...

    def trigger_names(self) -> list[str]:
        """Return the names of all triggers."""
        ...

    def trigger_tags(self, name: str) -> tuple[str, ...]:
        """Return the tags of a trigger and of its job; raise NotFound."""
        ...

    def source_views(self) -> list[dict[str, Any]]:
        """Return all sources as the API shows them."""
        ...

    def source_view(self, name: str) -> dict[str, Any]:
        """Return one source as the API shows it; raise NotFound."""
        ...

    async def preview(self, name: str, *, cursor: Any, limit: int) -> Preview:
        """Return what a source would emit now; raise NotFound, InvalidRequest, Conflict, PluginError."""
        ...

    def ready(self) -> tuple[bool, list[str]]:
        """Tell whether the engine takes events, and what it waits for, in words.

        Each source is waited for until it has had its chance, at the engine's start: see `unhealthy`.
        """
        ...

    def unhealthy(self) -> list[str]:
        """Return what is wrong with single sources and timers now, in words; it keeps no events of others away."""
        ...

    def may_answer(self, path: str) -> bool:
        """Tell whether a path that no source answers at now may be one of a source that is about to run, or failed."""
        ...

    def health(self) -> dict[str, Any]:
        """Return `{"status": "ok" | "degraded" | "failing", "checks": [{"name", "ok", "detail"}]}`."""
        ...

    def note_refused(
        self, path: str, *, status: int, reason: str, remote: str, request_id: str,
        explain: Callable[[], Explanation] | None,
    ) -> None:  # fmt: skip
        """Note that a request to a source's path was refused; `reason` and `explain` are for the source's owner."""
        ...

    async def refusals(self, name: str) -> list[dict[str, Any]]:
        """Return the last requests that a source refused, with what was wrong with each; raise NotFound."""
        ...

    def route(self, method: str, path: str) -> Handler | tuple[str, ...] | None:
        """Return the handler that a source registered, or the methods that its path allows, or None."""
        ...

    def log_path(self, run_id: str) -> Path:
        """Return the path of a run's log file, which need not be there."""
        ...

    def encodings(self, path: str) -> frozenset[str]:
        """Return the content codings of bodies that a source undoes itself at its path."""
        ...

    async def settled(self, run_ids: Sequence[str], within_s: float) -> tuple[Settled, ...]:
        """Return how runs stand when all have ended, or when the time is up; raise StoreUnavailable."""
        ...

    async def wait_change(self, run_id: str, timeout_s: float) -> None:
        """Return when the run has changed its state, or after `timeout_s` seconds."""
        ...
