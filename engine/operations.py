"""What the outside may ask of a running engine: the implementation of `engine.http.operations.Operations`."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import anyio

from engine.adaptive import Adaptation
from engine.aftermath import Counting, Reports
from engine.alerts import Alerts
from engine.auditing import AuditLog
from engine.backfill import Backfills
from engine.bulk import Bulk
from engine.chronicle import Chronicle
from engine.clock import Clock, rfc3339
from engine.conditions import ConditionDesk
from engine.config import Config
from engine.config.scalars import near
from engine.decide.functions import text_of
from engine.decide.joins import JoinWindow
from engine.decide.rules import Rule, why_disabled
from engine.decide.schedule import timers_of
from engine.decide.upcoming import Upcoming, upcoming
from engine.defined import Key, Kind
from engine.definitions import Definitions
from engine.dispatch import Dispatch
from engine.errors import Conflict, NotFound, StoreUnavailable
from engine.events import Accepted, Event
from engine.feed import Feed
from engine.foresight import Desk
from engine.guards import Guards, breaker_view
from engine.hindsight import Subject, subject_of
from engine.housekeeping import Housekeeping
from engine.http.definition_views import invalid_trigger
from engine.http.join_views import joins_view, settings_view
from engine.http.keyring import Keyring
from engine.http.views import limits_view, otherwise_view, pause_view, said_of_conditions, title_of
from engine.intake import Intake
from engine.jobs import Job
from engine.journal import Journal
from engine.lease import Lease
from engine.loglevels import LogLevels
from engine.logs import Masker
from engine.loopwatch import LoopWatch
from engine.maintenance import Maintenance
from engine.measuring import Measuring
from engine.pauses import Pauses, tags_of
from engine.payload import encode_json
from engine.plugin import Handler, Settled, Source
from engine.pools import Pools
from engine.previews import Preview
from engine.queueing import Queueing
from engine.registry import SHARED_KEY
from engine.replays import Rehearsed
from engine.replies import Replies
from engine.runlogs import RunLogs
from engine.runs import ENDED, Run, RunState
from engine.settling import Changes, Settling, ended
from engine.sources import Previews, RefusedRequest, Routes, Sources, SourceState, Trouble
from engine.store.base import RunFilter, Store, StoredEvent
from engine.store.changes import Accept
from engine.timers import SOURCE_PREFIX, Timers
from engine.triggers import Pause, PauseScope, SharedSource, Trigger, TriggerState, merged
from engine.vitals import Vitals

OPEN = frozenset(RunState) - ENDED
RETIRED_LOOKED_AT = 16


class Operations:
    """The running engine, for its faces.

    `rules` are the triggers as they are now. `retired` holds those that were removed and may have runs that wait or
    run: their data is still merged as the trigger said.
    """

    def __init__(
        self, *, config: Config, clock: Clock, store: Store, journal: Journal, intake: Intake, dispatch:
        Dispatch, timers: Timers, sources: Sources, backfills: Backfills, routes: Routes, run_logs: RunLogs,
        changes: Changes, settling: Settling, pauses: Pauses, maintenance: Maintenance, adaptation: Adaptation,
        queue: Queueing, chronicle: Chronicle, rules: Mapping[str, Rule], retired: dict[str, Rule],
        prepare: Callable[[Job], object], version: str, boot: str, loop_watch: LoopWatch, foresight: Desk,
        conditions: ConditionDesk, pools: Pools, lease: Lease, housekeeping: Housekeeping, guards: Guards,
        counting: Counting, definitions: Definitions, tokens: Keyring, audit_log: AuditLog, alerts: Alerts,
        log_levels: LogLevels,
    ) -> None:  # fmt: skip
        self.config = config
        self.clock = clock
        self.store = store
        self._journal = journal
        self._intake = intake
        self._dispatch = dispatch
        self._timers = timers
        self._sources = sources
        self.backfills = backfills
        self.queue = queue
        self._routes = routes
        self._run_logs = run_logs
        self._changes = changes
        self.settling = settling
        self._pauses = pauses
        self.maintenance = maintenance
        self._adaptation = adaptation
        self._chronicle = chronicle
        self._rules = rules
        self._retired = retired
        self._prepare = prepare
        self._version = version
        self._boot = boot
        self._loop_watch = loop_watch
        self.foresight = foresight
        self.conditions = conditions
        self.counting = counting
        self.alerts = alerts
        self.log_levels = log_levels
        self.pools = pools
        self._lease = lease
        self.housekeeping = housekeeping
        self.guards = guards
        self.replies = Replies(store, journal, clock)
        self.feed, self.bulk = Feed(clock, boot), Bulk(clock, pauses, intake)
        journal.on_written = self.feed.written
        self.metrics: Measuring
        """It is put here before anything is asked."""
        self.vitals: Vitals
        """So is this."""
        self.reports = Reports(counting=counting, store=store, clock=clock, rules=rules)
        self.definitions = definitions
        self.tokens = tokens
        self.audit_log = audit_log
        self._mask = Masker(config.secrets).mask
        self._previews = Previews(
            clock=clock, store=store, as_stored=intake.as_stored, base=config.base,
            files=config.engine.data / "files", max_data=config.http.max_body_bytes,
        )  # fmt: skip
        self._started_at: datetime = clock.now()
        self.state = "starting"
        """`starting`, `running` or `stopping`."""

    async def hear(self, events: Sequence[Event]) -> list[Accepted]:
        return await self._intake.hear(events)

    async def is_repeat(self, accepted: Accepted, event: Event, trigger: str | None = None) -> bool:
        stored = await self.store.event(accepted.event)
        return stored is None or self._intake.says_the_same(stored.event, event, trigger)

    async def fire(
        self, trigger: str, *, data: Any, reason: str, priority: int | None, bypass: frozenset[str],
        request_id: str | None, traceparent: str | None = None,
    ) -> Accepted:  # fmt: skip
        self._rule(trigger)
        return await self._intake.fire(
            trigger, data=data, reason=reason, priority=priority, bypass=bypass, request_id=request_id,
            traceparent=traceparent,
        )  # fmt: skip

    def test(self, trigger: str, event: Event) -> Rehearsed:
        self._rule(trigger)
        return self._intake.rehearsal.test(trigger, event)

    def replayable(self, stored: StoredEvent, trigger: str | None) -> list[str]:
        return [rule.trigger.name for rule in self._intake.rehearsal.met(stored, trigger)]

    async def replay(
        self, stored: StoredEvent, *, trigger: str | None, reason: str, request_id: str | None
    ) -> Accepted:
        return await self._intake.rehearsal.replay(stored, trigger=trigger, reason=reason, request_id=request_id)

    async def status(self) -> dict[str, Any]:
        counts = await self.store.counts()
        return {
            "state": self.state,
            "version": self._version,
            "pid": os.getpid(),
            "boot": self._boot,
            "started_at": rfc3339(self._started_at),
            "uptime_s": round((self.clock.now() - self._started_at).total_seconds(), 3),
            "data": str(self.config.engine.data),
            "timezone": self.config.engine.timezone,
            "concurrency": self._dispatch.concurrency,
            "runs": {state.value: count for state, count in sorted(counts.items())},
            "triggers": len(self._rules),
            "jobs": len(self.jobs),
            "sources": self.source_views(),
            "backfills": self.backfills.status(),
            "queue": self.queue.status(),
            "conditions": self.conditions.summary(),
            **self.guards.status(),
            "alerts": self.alerts.status(),
            "loop": self._loop_watch.view(),
            "lease": self._lease.view(),
            "paused": None if self._pauses.engine is None else pause_view(self._pauses.engine),
            "pauses": [pause_view(pause) for pause in self._pauses.all()],
            "maintenance": self.maintenance.open_views(),
            "housekeeping": self.housekeeping.status(),
            "store": {
                "url": self.config.store.url,
                "commits": self._journal.commits,
                "changes": self._journal.changes,
                "waiting": self._journal.depth,
            },
        }

    def take_config(self, config: Config) -> None:
        """Go by another configuration from now on; what it changes is changed by whoever calls this."""
        self.config = config
        self.foresight.take_config(config)

    @property
    def jobs(self) -> Mapping[str, Job]:
        """The jobs by name, as they are now."""
        return self._dispatch.jobs

    def add_job(self, job: Job) -> None:
        """Take in a job, or another version of one, for the attempts that begin from now on; its runner prepares it.

        Raises Conflict where the engine does not run.
        """
        self._must_run()
        self._dispatch.add_job(job)
        self._intake.renew(job)
        self._prepare(job)

    def add_trigger(self, trigger: Trigger) -> None:
        """Take in a trigger: events that come from now on meet it, and its source or timer begins.

        Nothing is stored; what is stored under its name (runs, cursor, pause) is its. Raises Conflict where there
        is one of that name or the engine does not run, and NotFound where its job is not there.
        """
        self._must_run()
        if trigger.name in self._rules:
            raise Conflict(f"there is a trigger {trigger.name} already")
        job = self.jobs.get(trigger.job)
        if job is None:
            raise NotFound(f"there is no job {trigger.job}")
        self._take_in(Rule(trigger, job))

    def _take_in(self, rule: Rule) -> None:
        trigger = rule.trigger
        self._intake.add(rule)
        if not trigger.works:
            return
        for timer in timers_of(trigger):
            if timer.works:
                self._timers.add(timer)
        for source, on in trigger.works_on:
            if isinstance(on, Source):
                self._sources.add(source, on)
        self._adaptation.add(trigger)
        self._chronicle.add(rule)
        self.guards.add(rule)

    async def remove_trigger(self, name: str) -> None:
        """Remove a trigger: from now on no event meets it, and its timer is not due any more.

        When it returns, the store has forgotten its pause, a timer that is added again begins anew, and its source
        has stopped or is left alone, where no other trigger is on it. Runs that it has made stay, and those that wait
        will run. Raises NotFound, Conflict where the engine does not run, and StoreUnavailable: then it is there as
        before.
        """
        self._must_run()
        rule = self._rule(name)
        cursors = [self._timers.remove(timer.name) for timer in timers_of(rule.trigger)]
        change = Accept(
            entries=(), cursors=tuple(one for one in cursors if one is not None), memory=self._pauses.forgetting(name),
            spans=(*self._chronicle.leaving(name), *self._pauses.leaving(name)),
        )  # fmt: skip
        self._intake.remove(name)
        self._retired[name] = rule
        stored = self._journal.submit(change)
        adapted = self._adaptation.forgetting(name)
        if adapted is not None:
            # In the order of the journal it is forgotten with the trigger, or not at all.
            self._journal.submit(adapted).add_done_callback(lambda done: done.exception())
        try:
            await stored
        finally:  # it is done, also where who asked is gone
            over: list[anyio.Event | None] = []
            if stored.exception() is None:
                self._pauses.forget(name)
                self._adaptation.forget(name)
                self._chronicle.forget(name)
                self.guards.removed(rule)
                unused = {source for source, _ in rule.trigger.feeds if not self._intake.is_used(source)}
                over = [self._sources.drop(source) for source in unused]
            elif name not in self._rules:
                self._retired.pop(name, None)
                self._take_in(rule)
        for stopped in over:
            if stopped is not None:
                await stopped.wait()
        await self._forget_retired(name)

    async def _forget_retired(self, latest: str) -> None:
        """Forget triggers that were removed and have no more runs that need them: this one, and some before it."""
        for name in dict.fromkeys([latest, *islice(self._retired, RETIRED_LOOKED_AT)]):
            which = RunFilter(states=OPEN, triggers=frozenset({name}))
            with suppress(StoreUnavailable):  # it is looked at again
                if name in self._rules or not await self.store.runs(which, limit=1):
                    self._retired.pop(name, None)

    async def pause(
        self, scope: PauseScope, name: str, *, reason: str, until: datetime | None = None, who: str = ""
    ) -> Pause:
        """Pause a trigger, all with a tag, or the engine, until an instant or until it is resumed.

        It is durable when this returns. Events that come meanwhile are recorded as `paused`, with the reason, and are
        not run later; due instants follow the rule on misfires. While the engine is paused, nothing that waits is
        started.
        Raises NotFound, Conflict where `until` is past, and StoreUnavailable.
        """
        self._check_pausable(scope, name)
        if until is not None:
            what = "the engine" if scope is PauseScope.ENGINE else f"{scope} {name}"
            if until <= self.clock.now():
                raise Conflict(f"{what} can't be paused until {until.isoformat()}: that is past")
            try:
                until = until.astimezone(UTC)
            except OverflowError:
                raise Conflict(f"{what} can't be paused until {until.isoformat()}: out of range") from None
        return await self._pauses.pause(scope, name, reason=reason, until=until, who=who)

    async def resume(self, scope: PauseScope, name: str, *, who: str = "") -> bool:
        """End a pause, durably, and return whether it held; others, of other scopes, stay.

        Raises NotFound and StoreUnavailable.
        """
        if not any(pause.scope is scope and pause.name == name for pause in self._pauses.all()):
            self._check_pausable(scope, name)
        return await self._pauses.resume(scope, name, who=who)

    def _check_pausable(self, scope: PauseScope, name: str) -> None:
        """Raise NotFound where there is nothing of that name: a pause that holds for nothing is a mistake."""
        if scope is PauseScope.TRIGGER:
            self._rule(name)
        elif scope is PauseScope.TAG:
            tags = {tag for rule in self._rules.values() for tag in tags_of(rule)}
            if name not in tags:
                hint = near(name, tags)
                raise NotFound(f"no trigger, and no job of one, has the tag {name}" + (f"; {hint}" if hint else ""))

    def pauses(self) -> list[Pause]:
        """Return all pauses that hold now, the widest first."""
        return self._pauses.all()

    def held_by(self, pause: Pause) -> list[str]:
        """Return the triggers, by name, for which a pause holds."""
        return self._pauses.held_by(pause.scope, pause.name)

    def pauses_of(self, name: str) -> tuple[Pause, ...]:
        """Return the pauses that hold for a trigger now, the widest first."""
        return self._pauses.of(name)

    async def adapt(self, name: str, action: str, reason: str) -> None:
        """Freeze, unfreeze or reset the interval of an adaptive trigger, durably.

        Raises NotFound, Conflict where it is not adaptive or does not work, and StoreUnavailable.
        """
        self._rule(name)
        await self._adaptation.act(name, action, reason)

    async def reset_trigger(self, name: str, reason: str) -> None:
        """Drop what it has learnt: its adapted interval. Raises NotFound and StoreUnavailable."""
        self._rule(name)
        if self._adaptation.view(name) is not None:
            await self._adaptation.act(name, "reset", reason)

    def adaptive_view(self, name: str) -> dict[str, Any]:
        """Return how the interval of an adaptive trigger is; raise NotFound, and Conflict where it is not adaptive."""
        self._rule(name)
        return self._adaptation.whole_view(name)

    def pause_of(self, name: str) -> Pause | None:
        """Return the pause that holds for a trigger now."""
        return self._pauses.now(name)

    def next_at(self, name: str) -> datetime | None:
        """Return a trigger's next due instant, where it, or one of its inputs, has one."""
        rule = self._rules.get(name)
        timers = () if rule is None else timers_of(rule.trigger)
        return min((at for timer in timers if (at := self._timers.next_at(timer.name)) is not None), default=None)

    def next_fires_at(self, name: str) -> datetime | None:
        """Return when a trigger, or one of its inputs, fires next by the clock: with its jitter, after it is due."""
        rule = self._rules.get(name)
        timers = () if rule is None else timers_of(rule.trigger)
        return min((at for timer in timers if (at := self._timers.fires_at(timer.name)) is not None), default=None)

    def open_joins(self, name: str) -> Sequence[JoinWindow]:
        """Return the joins of a trigger that wait for inputs, as they began."""
        return self._intake.open_joins(name)

    def upcoming(self, name: str, after: datetime) -> Iterator[Upcoming]:
        """Return the due instants to come of a trigger; see `engine.decide.upcoming.upcoming`. Raises NotFound too."""
        rule = self._rule(name)
        return upcoming(
            rule.trigger, after, schedule=self._timers.schedule(name), pause=self._pauses.now(name), job=rule.job,
            default_zone=self.config.engine.timezone, windows=self.maintenance.windows_of(rule),
        )  # fmt: skip

    def triggers_of(self, job: str) -> list[str]:
        return [name for name, rule in self._rules.items() if rule.trigger.job == job]

    def soonest(self, limit: int) -> list[tuple[datetime, str]]:
        return self._timers.soonest(limit)

    def definition(self, name: str) -> tuple[Trigger, Job]:
        rule = self._rule(name)
        return rule.trigger, rule.job

    def standing(self, name: str) -> TriggerState:
        rule, pause = self._rule(name), self.pause_of(name)
        state, _ = state_of(
            rule.trigger, pause, completed=self._timers.why_completed(name), job=rule.job,
            quarantine=self.guards.quarantine_of(rule),
        )  # fmt: skip
        return state

    def tagged(self, tag: str) -> frozenset[str]:
        return frozenset(name for name, rule in self._rules.items() if tag in tags_of(rule))

    def subject(self, name: str) -> Subject:
        """Return a trigger as hindsight asks about it; raise NotFound."""
        rule = self._rule(name)
        return subject_of(
            rule, on=on_text(rule.trigger, self.config.secrets), schedule=self._timers.schedule(name),
            zone=self.config.engine.timezone, alive=True,
        )  # fmt: skip

    def why_completed(self, name: str) -> str | None:
        """Say why nothing more of a trigger's timer comes due; None where something does."""
        return self._timers.why_completed(name)

    async def ended(self, run_id: str) -> Run | None:
        """Wait until a run has ended, and return it; None where there is no such run any more."""
        return await ended(run_id, store=self.store, changes=self._changes, clock=self.clock)

    def trigger(self, name: str) -> Trigger:
        """Return a trigger as it is now; raise NotFound."""
        return self._rule(name).trigger

    def has_trigger(self, name: str) -> bool:
        """Tell whether there is a trigger of that name."""
        return name in self._rules

    def _must_run(self) -> None:
        if self.state != "running":
            raise Conflict(f"the engine is {self.state}")

    def _rule(self, name: str) -> Rule:
        rule = self._rules.get(name)
        if rule is None:
            hint = near(name, self._rules)
            raise NotFound(f"there is no trigger {name}" + (f"; {hint}" if hint else ""))
        return rule

    def source_views(self) -> list[dict[str, Any]]:
        """Return how each source is: those that run, and the shared ones that do not."""
        views = {state.id: self._source_view(state) for state in self._sources.states}
        for key, source in self._shared_sources().items():
            if key not in views:
                view = self._source_view(SourceState(id=key, source=source.on))
                # A timer with a name runs in the triggers that use it.
                used = any(self._rules[name].trigger.works for name in view["triggers"])
                state = "disabled" if not source.enabled else "running" if used else "unused"
                views[key] = {**view, "state": state, "problem": None}
        return list(views.values())

    def source_view(self, name: str) -> dict[str, Any]:
        for view in self.source_views():
            if name in (view["name"], view["shared"]):
                return view
        hint = near(name, [view["name"] for view in self.source_views()])
        raise NotFound(f"there is no source {name}" + (f"; {hint}" if hint else ""))

    async def preview(self, name: str, *, cursor: Any, limit: int) -> Preview:
        source_id = self.source_view(name)["name"]
        state, shared = self._sources.state(source_id), self._shared_sources().get(source_id)
        source = state.source if state is not None else None if shared is None else shared.on
        return await self._previews.look(source_id, source, cursor=cursor, limit=limit)

    def _source_view(self, state: SourceState) -> dict[str, Any]:
        shown = {**state.view(), "problem": state.problem(self.clock)}
        named = self._shared_sources().get(state.id)
        return {
            # What plugins say went wrong may quote their settings.
            **{name: self._mask(value) if isinstance(value, str) else value for name, value in shown.items()},
            "name": state.id,
            "title": (
                title_of(state.source, self.config.base, self.config.secrets)
                if named is None
                else f"{state.source.name} {named.name}"
            ),
            "triggers": [
                name
                for name, rule in self._rules.items()
                if any(source == state.id for source, _ in rule.trigger.feeds)
                or (named is not None and rule.trigger.shared == named)
            ],
            "shared": None if named is None else named.name,
            "description": "" if named is None else named.description,
            "tags": [] if named is None else list(named.tags),
            "breaker": None if named is None else breaker_view(named.breaker),
            **self.guards.source_view(state.id),
        }

    def _trouble(self, trigger: Trigger) -> dict[str, Any] | None:
        """Return what is wrong with the source or timer that a trigger is on, and since when."""
        if not trigger.works:
            return None
        problems = self._timers.problems()
        troubles = [Trouble(text=problems[one.name]) for one in timers_of(trigger) if one.name in problems]
        for source, _ in trigger.feeds:
            state = self._sources.state(source)
            if state is not None and (found := state.trouble(self.clock)) is not None:
                troubles.append(found)
        if not troubles:
            return None
        trouble = troubles[0]
        since = None if trouble.since is None else rfc3339(trouble.since)
        return {"problem": self._mask(trouble.text), "since": since}

    def troubles(self) -> dict[str, tuple[str, datetime | None]]:
        """Return what is wrong with sources and timers now, by the id of each, and since when."""
        found: dict[str, tuple[str, datetime | None]] = {
            SOURCE_PREFIX + name: (self._mask(problem), None) for name, problem in self._timers.problems().items()
        }
        for state in self._sources.states:
            if (trouble := state.trouble(self.clock)) is not None:
                found[state.id] = (self._mask(trouble.text), trouble.since)
        return found

    def _shared_sources(self) -> dict[str, SharedSource]:
        return {source.id or source.name: source for source in self.config.sources.values()}

    def trigger_tags(self, name: str) -> tuple[str, ...]:
        if name not in self._rules and name in self.definitions.invalid(Kind.TRIGGER):
            tags = self.definitions.about(Key(Kind.TRIGGER, name))["settings"].get("tags")
            return tuple(str(tag) for tag in tags) if isinstance(tags, list) else ()
        return tags_of(self._rule(name))

    def trigger_names(self) -> list[str]:
        return [*self._rules, *(name for name in self.definitions.invalid(Kind.TRIGGER) if name not in self._rules)]

    def trigger_view(self, name: str) -> dict[str, Any]:
        if name not in self._rules and (problem := self.definitions.invalid(Kind.TRIGGER).get(name)) is not None:
            return invalid_trigger(name, self.definitions.about(Key(Kind.TRIGGER, name))["settings"], problem)
        rule = self._rule(name)
        trigger = rule.trigger
        source = self._sources.state(trigger.source)
        next_at, fires_at, pauses = self.next_at(name), self.next_fires_at(name), self._pauses.of(name)
        pause = merged(pauses)
        state, why = state_of(
            trigger, pause, completed=self._timers.why_completed(name), job=rule.job,
            quarantine=self.guards.quarantine_of(rule),
        )  # fmt: skip
        return {
            "name": trigger.name,
            "job": trigger.job,
            "preset": trigger.preset,
            "on": _on(trigger, self.config.secrets),
            "source": trigger.source,
            **joins_view(trigger, self._intake.open_joins(name), self.config.secrets),
            "state": state.value,
            "state_reason": why,
            "source_problem": self._trouble(trigger),
            "refused_requests": None if source is None else source.refusals.view(),
            "enabled": trigger.enabled,
            "paused": None if pause is None else pause_view(pause),
            "pauses": [pause_view(one) for one in pauses],
            "maintenance": self.maintenance.holding(name),
            "filter": text_of(trigger.filter) if callable(trigger.filter) else trigger.filter,
            "conditions": self.conditions.of_trigger(self._rule(name)),
            "otherwise": otherwise_view(trigger),
            "priority": trigger.priority,
            **limits_view(trigger),
            **self.guards.trigger_view(rule),
            "tags": list(trigger.tags),
            "description": trigger.description,
            "defined_in": trigger.defined_in,
            "next_at": None if next_at is None else rfc3339(next_at),
            "next_fires_at": None if fires_at is None else rfc3339(fires_at),
            "adaptive": self._adaptation.view(name),
        }

    def ready(self) -> tuple[bool, list[str]]:
        if self.state != "running":
            return False, [f"the engine is {self.state}"]
        problems = [self._mask(problem) for problem in self._sources.awaited()]
        if (failure := self._journal.failure or self._journal.refusing) is not None:
            problems.append(str(failure))
        return not problems, problems

    def unhealthy(self) -> list[str]:
        timers = [f"timer {name}: {problem}" for name, problem in self._timers.problems().items()]
        return [self._mask(text) for text in (*self._sources.not_ready(), *self._sources.warnings(), *timers)]

    def may_answer(self, path: str) -> bool:
        return self.state != "running" or self._sources.may_answer(path)

    def health(self) -> dict[str, Any]:
        failure = self._journal.failure
        sources = [self._mask(text) for text in (*self._sources.not_ready(), *self._sources.warnings())]
        timers = [f"{name}: {problem}" for name, problem in self._timers.problems().items()]
        blocked, pauses = self._loop_watch.problem(), self._pauses.all()
        checks = [
            {"name": "store", "ok": failure is None, "detail": str(failure or "writes")},
            {"name": "sources", "ok": not sources, "detail": "; ".join(sources) or "all run"},
            {"name": "timers", "ok": not timers, "detail": "; ".join(timers) or "all run"},
            self._lease.check(self.clock.now()),
            {"name": "loop", "ok": blocked is None, "detail": blocked or "turns"},
            # One that holds runs does what it is for.
            {"name": "conditions", "ok": True, "detail": said_of_conditions(self.conditions.summary())},
            {"name": "pauses", "ok": True, "detail": "; ".join(pause.said() for pause in pauses) or "none"},
            self.maintenance.check(),
            *self.housekeeping.checks(),
            *self.guards.checks(),
            self.definitions.check(),
            self.alerts.check(),
        ]
        status = (
            "failing"
            if failure or self._journal.refusing
            else "ok"
            if all(check["ok"] for check in checks)
            else "degraded"
        )
        stopped = next((pause for pause in pauses if pause.scope is PauseScope.ENGINE), None)
        return {"status": status, "paused": None if stopped is None else stopped.said(), "checks": checks}

    def note_refused(self, path: str, *, reason: str, **said: Any) -> None:
        self._routes.note_refused(path, RefusedRequest(reason=self._mask(reason), **said))

    async def refusals(self, name: str) -> list[dict[str, Any]]:
        state = self._sources.state(self.source_view(name)["name"])
        return [] if state is None else await state.refusals.explained(self._mask)

    def route(self, method: str, path: str) -> Handler | tuple[str, ...] | None:
        return self._routes.find(method, path)

    def log_path(self, run_id: str) -> Path:
        return self._run_logs.path(run_id)

    def encodings(self, path: str) -> frozenset[str]:
        return self._routes.encodings(path)

    async def settled(self, run_ids: Sequence[str], within_s: float) -> tuple[Settled, ...]:
        return await self.settling.settled(run_ids, within_s)

    async def wait_change(self, run_id: str, timeout_s: float) -> None:
        await self._changes.wait(run_id, timeout_s)


def state_of(
    trigger: Trigger,
    pause: Pause | None,
    *,
    completed: str | None,
    job: Job | None = None,
    quarantine: str | None = None,
) -> tuple[TriggerState, str | None]:
    """Return where a trigger stands, and why it is not active. One whose job is disabled is, too."""
    why = why_disabled(trigger, job)
    if why is not None:
        return TriggerState.DISABLED, why
    if completed is not None:
        return TriggerState.COMPLETED, completed
    if quarantine is not None:
        return TriggerState.QUARANTINED, quarantine
    if pause is not None:
        return TriggerState.PAUSED, pause.said_of(trigger.name)
    return TriggerState.ACTIVE, None


def _on(trigger: Trigger, secrets: Collection[str]) -> dict[str, Any]:
    """Return a trigger's source as the configuration writes it; secrets are masked."""
    if trigger.shared is not None:
        return {SHARED_KEY: trigger.shared.name}
    return {trigger.on.name: settings_view(trigger, secrets)}


def on_text(trigger: Trigger, secrets: Collection[str]) -> str:
    """Return what a trigger is on in one short line: one with another line has another schedule or source."""
    return encode_json({trigger.on.name: settings_view(trigger, secrets)}).decode()
