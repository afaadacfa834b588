"""What a token with tags sees and touches: triggers and jobs that have one of them, and their runs and events.

A call of such a token gets the engine through `narrowed`, which hands on what is named here, each within the scope, and
refuses everything else: what is built later is closed to these tokens until it is named here.

- A trigger is in scope where it, or its job, has one of the tags; a job where it has one itself.
- A run is in scope where its trigger is, or its job.
- An event is in scope where it met a trigger in scope; what it came to at others is left out. Events are not sent.

What is out of scope is not there: 404, as for a name that nobody knows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

from msgspec.structs import replace

from engine.adherence import Adherence
from engine.clock import Clock
from engine.decide.breakers import Released
from engine.decide.upcoming import Upcoming
from engine.defined import Key, Kind
from engine.deliveries import Delivery, DeliveryFilter
from engine.errors import NotFound
from engine.events import Accepted, Event
from engine.hindsight import Subject
from engine.http.operations import Operations
from engine.http.problems import Problem
from engine.jobs import Job
from engine.members import near
from engine.plugin import Settled
from engine.replays import Rehearsed
from engine.runs import Run
from engine.store.base import EventFilter, HeldPlace, RunFilter, StoredEvent, TriggerStats
from engine.tallies import Statistics, TallyRow, Width
from engine.triggers import Pause, PauseScope, Trigger, TriggerState
from engine.waiting import Flushed, FlushRequest, Retried, RetryRequest

if TYPE_CHECKING:
    from engine.config.keeping import KeepTable


def narrowed(operations: Operations, tags: Collection[str]) -> Operations:
    """Return the engine as a token with these tags sees it."""
    return cast("Operations", _Operations(operations, tags))


def _refuse(text: str = "") -> NoReturn:
    detail = text or "this token is for some tags alone, and this is for tokens that see everything"
    raise Problem(403, detail, code="out_of_scope")


class _Closed:
    """Refuses whatever is not named in it."""

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        _refuse()


class _Scope:
    """What of an engine is in scope."""

    def __init__(self, operations: Operations, tags: Collection[str]) -> None:
        self.inner = operations
        self.tags = frozenset(tags)

    @cached_property
    def triggers(self) -> frozenset[str]:
        return frozenset(name for name in self.inner.trigger_names() if self._meets(self.inner.trigger_tags(name)))

    @cached_property
    def jobs(self) -> dict[str, Job]:
        return {name: job for name, job in self.inner.jobs.items() if self._meets(job.tags)}

    def _meets(self, tags: Collection[str]) -> bool:
        return not self.tags.isdisjoint(tags)

    def trigger(self, name: str) -> str:
        """Return the name of a trigger; raise NotFound where it is not in scope."""
        if name not in self.triggers:
            raise NotFound(f"there is no trigger {name}{near(name, self.triggers)}")
        return name

    def job(self, name: str) -> str:
        if name not in self.jobs:
            raise NotFound(f"there is no job {name}{near(name, self.jobs)}")
        return name

    def holds(self, run: Run) -> bool:
        return run.trigger in self.triggers or run.job in self.jobs

    async def run(self, run_id: str) -> str:
        """Return the id of a run; raise NotFound where it is not in scope."""
        run = await self.inner.store.run(run_id)
        if run is None or not self.holds(run):
            raise NotFound("there is no run of that id")
        return run_id

    def named(self, trigger: str | None, job: str | None, tag: str | None = None) -> None:
        """Refuse what is said to be for more than what is in scope."""
        if trigger is not None:
            self.trigger(trigger)
        elif job is not None:
            self.job(job)
        elif tag not in self.tags:
            _refuse("this token is for some tags alone: name a trigger, a job or a tag of them")


class _Operations(_Closed):
    def __init__(self, operations: Operations, tags: Collection[str]) -> None:
        self._inner = operations
        self._scope = scope = _Scope(operations, tags)
        self.store = _Store(scope)
        self.config = _Config(operations)
        self.queue = _Queue(scope)
        self.pools = _Pools()
        self.counting = _Counting(scope)
        self.reports = _Reports(scope)
        self.vitals = _Vitals(scope)
        self.guards = _Guards(scope)
        self.bulk = _Bulk(scope)
        # The stream leaves out what is not in scope; answers that are kept are those of the same token.
        self.feed, self.replies, self.is_repeat = operations.feed, operations.replies, operations.is_repeat
        self.definitions = _Definitions(scope)

    @property
    def clock(self) -> Clock:
        return self._inner.clock

    @property
    def jobs(self) -> Mapping[str, Job]:
        return self._scope.jobs

    def trigger_names(self) -> list[str]:
        return sorted(self._scope.triggers)

    def trigger_tags(self, name: str) -> tuple[str, ...]:
        return self._inner.trigger_tags(self._scope.trigger(name))

    def tagged(self, tag: str) -> frozenset[str]:
        return self._inner.tagged(tag) & self._scope.triggers

    def definition(self, name: str) -> tuple[Trigger, Job]:
        return self._inner.definition(self._scope.trigger(name))

    def standing(self, name: str) -> TriggerState:
        return self._inner.standing(self._scope.trigger(name))

    def trigger_view(self, name: str) -> dict[str, Any]:
        return self._inner.trigger_view(self._scope.trigger(name))

    def upcoming(self, name: str, after: datetime) -> Iterator[Upcoming]:
        return self._inner.upcoming(self._scope.trigger(name), after)

    def soonest(self, limit: int) -> list[tuple[datetime, str]]:
        found = self._inner.soonest(len(self._inner.trigger_names()))
        return [one for one in found if one[1] in self._scope.triggers][:limit]

    def triggers_of(self, job: str) -> list[str]:
        return [name for name in self._inner.triggers_of(job) if name in self._scope.triggers]

    def subject(self, name: str) -> Subject:
        return self._inner.subject(self._scope.trigger(name))

    async def fire(self, trigger: str, **how: Any) -> Accepted:
        return await self._inner.fire(self._scope.trigger(trigger), **how)

    def test(self, trigger: str, event: Event) -> Rehearsed:
        return self._inner.test(self._scope.trigger(trigger), event)

    def replayable(self, stored: StoredEvent, trigger: str | None) -> list[str]:
        if trigger is not None:
            self._scope.trigger(trigger)
        found = self._inner.replayable(stored, trigger)
        if not self._scope.triggers.issuperset(found):
            _refuse("this token is for some tags alone: name the trigger at which the event is to run again")
        return found

    async def replay(
        self, stored: StoredEvent, *, trigger: str | None, reason: str, request_id: str | None
    ) -> Accepted:
        self.replayable(stored, trigger)
        return await self._inner.replay(stored, trigger=trigger, reason=reason, request_id=request_id)

    async def pause(
        self, scope: PauseScope, name: str, *, reason: str, until: datetime | None = None, who: str = ""
    ) -> Pause:
        self._pausable(scope, name)
        return await self._inner.pause(scope, name, reason=reason, until=until, who=who)

    async def resume(self, scope: PauseScope, name: str, *, who: str = "") -> bool:
        self._pausable(scope, name)
        return await self._inner.resume(scope, name, who=who)

    def _pausable(self, scope: PauseScope, name: str) -> None:
        if scope is PauseScope.TRIGGER:
            self._scope.trigger(name)
        elif scope is not PauseScope.TAG or name not in self._scope.tags:
            _refuse("this token is for some tags alone: pause one of them, or a trigger")

    def pauses(self) -> list[Pause]:
        known = {PauseScope.ENGINE: {""}, PauseScope.TAG: self._scope.tags, PauseScope.TRIGGER: self._scope.triggers}
        return [pause for pause in self._inner.pauses() if pause.name in known[pause.scope]]

    def held_by(self, pause: Pause) -> list[str]:
        return [name for name in self._inner.held_by(pause) if name in self._scope.triggers]

    async def adapt(self, name: str, action: str, reason: str) -> None:
        await self._inner.adapt(self._scope.trigger(name), action, reason)

    async def reset_trigger(self, name: str, reason: str) -> None:
        await self._inner.reset_trigger(self._scope.trigger(name), reason)

    def adaptive_view(self, name: str) -> dict[str, Any]:
        return self._inner.adaptive_view(self._scope.trigger(name))

    # Of runs and events that were looked at before

    async def settled(self, run_ids: Sequence[str], within_s: float) -> tuple[Settled, ...]:
        return await self._inner.settled(run_ids, within_s)

    def log_path(self, run_id: str) -> Path:
        return self._inner.log_path(run_id)

    async def wait_change(self, run_id: str, timeout_s: float) -> None:
        await self._inner.wait_change(run_id, timeout_s)

    # What anybody may ask

    def ready(self) -> tuple[bool, list[str]]:
        return self._inner.ready()

    def unhealthy(self) -> list[str]:
        return self._inner.unhealthy()

    def health(self) -> dict[str, Any]:
        return self._inner.health()


class _Store(_Closed):
    """The reads of it that handlers make of a run, an event or a trigger that they have found through here."""

    def __init__(self, scope: _Scope) -> None:
        self._scope = scope
        inner = scope.inner.store
        self._inner = inner
        self.purged = inner.purged
        self.nth_before = inner.nth_before  # an id tells nothing but a time
        self.run_events = inner.run_events
        # Why a trigger ran, or did not: asked with a subject, and that is one in scope.
        self.cursor, self.spans, self.first_span = inner.cursor, inner.spans, inner.first_span
        self.fired, self.missed, self.met = inner.fired, inner.missed, inner.met
        self.succeeded_instants, self.recorded_instants = inner.succeeded_instants, inner.recorded_instants

    async def run(self, run_id: str) -> Run | None:
        run = await self._inner.run(run_id)
        return run if run is not None and self._scope.holds(run) else None

    async def runs(self, which: RunFilter, *, limit: int, before: str | None = None) -> list[Run]:
        names = self._scope.triggers if which.triggers is None else which.triggers & self._scope.triggers
        return await self._inner.runs(replace(which, triggers=names), limit=limit, before=before) if names else []

    async def stats(self, triggers: Collection[str]) -> dict[str, TriggerStats]:
        return await self._inner.stats([name for name in triggers if name in self._scope.triggers])

    async def event(self, event_id: str) -> StoredEvent | None:
        stored = await self._inner.event(event_id)
        return None if stored is None else self._seen(stored)

    async def events(self, which: EventFilter, *, limit: int, before: str | None = None) -> list[StoredEvent]:
        if which.triggers is None:
            self._scope.named(which.trigger, None)
        else:
            which = replace(which, triggers=which.triggers & self._scope.triggers)
        return self._all_seen(await self._inner.events(which, limit=limit, before=before))

    async def events_after(
        self, which: EventFilter, *, after: str, before: str | None = None, limit: int
    ) -> list[StoredEvent]:
        self._scope.named(which.trigger, None)
        return self._all_seen(await self._inner.events_after(which, after=after, before=before, limit=limit))

    async def running(self) -> list[Run]:
        return [run for run in await self._inner.running() if self._scope.holds(run)]

    async def held(self, trigger: str | None, *, after: HeldPlace | None, limit: int) -> list[Run]:
        found = await self._inner.held(trigger, after=after, limit=limit)
        return [run for run in found if self._scope.holds(run)]

    async def due(self, *, after: tuple[datetime, str] | None, limit: int) -> list[tuple[datetime, Run]]:
        return [one for one in await self._inner.due(after=after, limit=limit) if self._scope.holds(one[1])]

    async def find_event(self, source: str, key: str) -> Accepted | None:
        found = await self._inner.find_event(source, key)
        return None if found is None or await self.event(found.event) is None else found

    async def tallies(
        self, *, trigger: str | None = None, job: str | None = None, width: Width, start: datetime, end: datetime
    ) -> list[TallyRow]:
        self._scope.named(trigger, job)
        return await self._inner.tallies(trigger=trigger, job=job, width=width, start=start, end=end)

    async def delivery(self, delivery_id: str) -> Delivery | None:
        found = await self._inner.delivery(delivery_id)
        return None if found is None or await self.run(found.run) is None else found

    async def deliveries(
        self, which: DeliveryFilter, *, limit: int, before: str | None = None
    ) -> list[Delivery]:  # fmt: skip
        if which.run is None:
            _refuse("this token is for some tags alone: name a run")
        await self._scope.run(which.run)
        return await self._inner.deliveries(which, limit=limit, before=before)

    def _seen(self, stored: StoredEvent) -> StoredEvent | None:
        outcomes = tuple(one for one in stored.outcomes if one.trigger in self._scope.triggers)
        return replace(stored, outcomes=outcomes) if outcomes else None

    def _all_seen(self, found: Sequence[StoredEvent]) -> list[StoredEvent]:
        return [seen for stored in found if (seen := self._seen(stored)) is not None]


class _Config(_Closed):
    """What handlers need to mask text, to write times, and to say how long things are kept."""

    def __init__(self, operations: Operations) -> None:
        self.engine = _Zone(operations.config.engine.timezone)
        self.secrets = operations.config.secrets
        self.store = _Kept(operations.config.store.keep)


class _Zone(_Closed):
    def __init__(self, timezone: str) -> None:
        self.timezone = timezone


class _Kept(_Closed):
    def __init__(self, keep: KeepTable) -> None:
        self.keep = keep


class _Queue(_Closed):
    def __init__(self, scope: _Scope) -> None:
        self._scope = scope
        self._inner = scope.inner.queue

    async def flush(self, which: FlushRequest, **how: Any) -> Flushed:
        self._scope.named(which.trigger, which.job, which.tag)
        return await self._inner.flush(which, **how)

    async def retry_many(self, which: RetryRequest, **how: Any) -> Retried:
        self._scope.named(which.trigger, which.job)
        return await self._inner.retry_many(which, **how)

    async def cancel(self, run_id: str, **how: Any) -> Run:
        return await self._inner.cancel(await self._scope.run(run_id), **how)

    async def hold(self, run_id: str, **how: Any) -> Run:
        return await self._inner.hold(await self._scope.run(run_id), **how)

    async def release(self, run_id: str, **how: Any) -> Run:
        return await self._inner.release(await self._scope.run(run_id), **how)

    async def set_priority(self, run_id: str, priority: int, **how: Any) -> Run:
        return await self._inner.set_priority(await self._scope.run(run_id), priority, **how)

    async def retry(self, run_id: str, **how: Any) -> Accepted:
        return await self._inner.retry(await self._scope.run(run_id), **how)


class _Definitions(_Closed):
    """Where triggers and jobs in scope come from; defining is for those who see everything."""

    def __init__(self, scope: _Scope) -> None:
        self._scope = scope
        self._inner = scope.inner.definitions

    def about(self, key: Key) -> dict[str, Any]:
        return self._inner.about(self._within(key))

    def version(self, key: Key) -> str | None:
        return self._inner.version(self._within(key))

    def invalid(self, kind: Kind) -> dict[str, str]:
        known: Collection[str] = self._scope.triggers if kind is Kind.TRIGGER else self._scope.jobs
        return {name: problem for name, problem in self._inner.invalid(kind).items() if name in known}

    async def reset(self, key: Key, *, who: str) -> bool:
        return await self._inner.reset(self._within(key), who=who)

    def _within(self, key: Key) -> Key:
        """Return a key; raise NotFound where what it names is not in scope."""
        return Key(key.kind, self._scope.trigger(key.name) if key.kind is Kind.TRIGGER else self._scope.job(key.name))


class _Pools(_Closed):
    def waits_for(self, run: Run) -> str | None:
        """Tell nothing: it would name runs of others."""
        return None


class _Counting(_Closed):
    def __init__(self, scope: _Scope) -> None:
        self._scope = scope

    async def statistics(
        self, *, trigger: str | None = None, job: str | None = None, over: timedelta
    ) -> Statistics:  # fmt: skip
        self._scope.named(trigger, job)
        return await self._scope.inner.counting.statistics(trigger=trigger, job=job, over=over)


class _Reports(_Closed):
    def __init__(self, scope: _Scope) -> None:
        self._scope = scope

    def names(self) -> list[str]:
        return [name for name in self._scope.inner.reports.names() if name in self._scope.triggers]

    async def adherence(self, triggers: Sequence[str], *, start: datetime, end: datetime) -> list[Adherence]:
        named = [self._scope.trigger(name) for name in triggers]
        return await self._scope.inner.reports.adherence(named, start=start, end=end)


class _Vitals(_Closed):
    def __init__(self, scope: _Scope) -> None:
        self._scope = scope

    async def trigger(self, name: str) -> dict[str, Any]:
        return await self._scope.inner.vitals.trigger(self._scope.trigger(name))


class _Guards(_Closed):
    def __init__(self, scope: _Scope) -> None:
        self._scope = scope

    async def release_trigger(self, name: str, **how: Any) -> Released | None:
        return await self._scope.inner.guards.release_trigger(self._scope.trigger(name), **how)


class _Bulk(_Closed):
    def __init__(self, scope: _Scope) -> None:
        self._scope = scope
        self._inner = scope.inner.bulk

    async def pause(self, names: Sequence[str], **how: Any) -> None:
        await self._inner.pause([self._scope.trigger(name) for name in names], **how)

    async def resume(self, names: Sequence[str], **how: Any) -> None:
        await self._inner.resume([self._scope.trigger(name) for name in names], **how)

    async def fire(self, names: Sequence[str], **how: Any) -> list[Accepted]:
        return await self._inner.fire([self._scope.trigger(name) for name in names], **how)
