"""The whole: the only place that builds the organs, connects them, and takes them down again.

**The stop ladder**, in one place (`Runtime.run`): the listener and the sources stop, so nothing new is
acknowledged; runs may end within `shutdown_grace`; those left are interrupted (their processes ended, their
attempts not counted); the journal writes what waits; the store is closed. A second signal ends the process at
once; the next start settles what was left.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import threading
from collections import ChainMap
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus
from msgspec.structs import replace

from engine import logs
from engine.adaptive import Adaptation
from engine.aftermath import Aftermath, Counting, Deliverer
from engine.alerting import facts_of
from engine.alerts import Alerts
from engine.auditing import NO_CALL, AuditLog
from engine.backfill import Backfills
from engine.backlog import Backlog
from engine.causing import Causes
from engine.changeover import Changeover, Organs
from engine.chronicle import Chronicle
from engine.clock import Clock, SystemClock
from engine.conditions import Checks, ConditionDesk, Conditions, LastRuns
from engine.config import Config, find_files, load, window_reader
from engine.decide.attempts import AttemptEnd
from engine.decide.joins import windows_of
from engine.decide.limits import ENGINE_POOL
from engine.decide.rules import Rule
from engine.decide.schedule import owner_of, timers_of
from engine.definitions import Change, Definitions
from engine.dispatch import Dispatch
from engine.errors import ConfigError, EngineError, StoreDamaged
from engine.events import Event
from engine.execution import RUN_MARK, Executor
from engine.failures import Failures
from engine.following import JOB_SOURCE, Followers
from engine.foresight import Desk, World
from engine.gates import Gates
from engine.guards import Guards
from engine.housekeeping import Housekeeping
from engine.http.keyring import Keyring
from engine.http.server import HttpServer
from engine.http.tokens import AdminToken
from engine.http.views import shown
from engine.ids import new_id
from engine.intake import MANUAL_SOURCE, Intake
from engine.jobs import Job
from engine.journal import Journal
from engine.lease import Lease
from engine.leftovers import settle_leftovers
from engine.loglevels import LogLevels
from engine.loopwatch import LoopWatch
from engine.maintenance import Maintenance
from engine.marks import MarkKeeper
from engine.measuring import Measuring
from engine.metrics import Counts
from engine.operations import Operations, on_text
from engine.outcomes import Outcomes
from engine.pauses import Pauses
from engine.plugin import Source
from engine.pools import Pools
from engine.queueing import Queueing
from engine.registry import Registry
from engine.runlogs import RunLogs
from engine.runnotes import RunNotes
from engine.runs import ENDED, Run, RunState
from engine.settling import Changes, Settling
from engine.shaping import Shaper
from engine.shared import Shared
from engine.sources import Routes, Sources
from engine.steering import Steering
from engine.store.boots import this_process
from engine.store.changes import Accept, Cursor, End, Finish, Memory
from engine.store.opening import Lock
from engine.store.sqlite import SqliteStore
from engine.strays import Strays
from engine.systemd import Notifier
from engine.timers import SOURCE_PREFIX, ZONES_SOURCE, Timers, ZoneData
from engine.tracing import tracing_of
from engine.units import format_span
from engine.vitals import Vitals

log = logging.getLogger("engine")

SWITCH_INTERVAL_S = 0.0005
"""The interpreter's: at its default (5 ms) a busy loop starves the thread that writes."""

GC_NEW_OBJECTS = 20_000
"""The collector of reference cycles looks after so many new objects; its default (700) cost an eighth of intake."""

ROUTES_S = 2.0
"""How long the listener waits, at the start, for the sources to have their routes."""

STOP_HTTP_S = 5.0

STOP_PLUGINS_S = 20.0
"""How long sources and interrupted runners may take to stop; programs get 10 s between SIGTERM and SIGKILL."""

STOP_THREADS_S = 3.0
"""How long threads that plugins started may take to end, once everything else has."""


def distribution_version() -> str:
    """Return the version of the installed distribution."""
    try:
        return version("trigger-engine")
    except PackageNotFoundError:
        return "unknown"


class Runtime:
    """An engine: built from a configuration, run until it is told to stop.

    `on_ready` is called once everything runs; `listen` tells whether it serves HTTP, `watch_loop` whether what
    blocks the event loop is noticed and named; `read` reads the configuration anew, where it comes from files.
    """

    def __init__(
        self,
        config: Config,
        *,
        registry: Registry | None = None,
        clock: Clock | None = None,
        listen: bool = True,
        watch_loop: bool = False,
        environment: Mapping[str, str] = os.environ,
        on_ready: Callable[[Runtime], None] | None = None,
        read: Callable[[], Config] | None = None,
    ) -> None:
        self.secrets = set(config.secrets)
        """All that is to be masked; what a reload brings is added."""
        self.config = config = replace(config, secrets=self.secrets, receivers=dict(config.receivers))
        self.clock = clock or SystemClock()
        self.boot = new_id()
        self._listen = listen
        self._watch_loop = watch_loop
        self._environment = environment
        self._on_ready = on_ready
        self._stop = anyio.Event()
        self.heeds_signals = False
        """Whether a second signal ends the process; see `until_signalled`."""
        self.stopping = anyio.Event()
        """Set once it stops, asked to or as something failed."""
        known = self._registry = registry or Registry.discover(config.engine.plugins)
        self.definitions = Definitions(config, clock=self.clock, registry=known, read=read)
        self._own_sources = frozenset(
            {"engine", "timer", "backfill", MANUAL_SOURCE, JOB_SOURCE, *known.sources, *known.timers}
        )
        self._dispatch: Dispatch | None = None
        self._sources: Sources | None = None
        self.operations: Operations | None = None
        self.server: HttpServer | None = None

    def stop(self) -> None:
        """Begin to stop; `run` returns when it is done."""
        self._stop.set()

    def _told_of_stop(self) -> str:
        running, grace_s = self.running, self.config.engine.shutdown_grace_s
        if not running or not grace_s:
            return "Stopping"
        has = "1 run has" if running == 1 else f"{running} runs have"
        ends = f"; a second signal (Ctrl-C) ends {'it' if running == 1 else 'them'} now" if self.heeds_signals else ""
        return f"Stopping: {has} up to {format_span(grace_s)} to end{ends}"

    def reload(self, who: str) -> None:
        """Have the configuration read anew, where it comes from files; what comes of it is logged."""
        self.definitions.ask(who)

    def kill(self) -> None:
        """Kill the processes of all running runs; the next start settles their runs."""
        for pid in self._dispatch.processes() if self._dispatch is not None else ():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)

    @property
    def running(self) -> int:
        """How many runs have a slot now."""
        return 0 if self._dispatch is None else self._dispatch.running

    @property
    def stuck_sources(self) -> list[str]:
        """The sources that ignored that they were told to stop; their tasks outlive `run`."""
        return [] if self._sources is None else self._sources.stuck()

    async def run(self) -> None:
        """Start, run until `stop`, and take everything down in order.

        Raises StoreError when the store is refused or fails for good, EngineError when the address can't be
        had.
        """
        config = self.config
        lock = Lock(config.engine.data / "engine.lock", f"the data directory {config.engine.data}")
        try:
            store = SqliteStore(config.store.path, clock=self.clock)
            await store.open()
            try:
                await store.take_over(this_process(self.boot))
                await self._run_on(store)
            finally:
                with anyio.CancelScope(shield=True):
                    await store.close()
        finally:
            lock.release()

    async def _run_on(self, store: SqliteStore) -> None:
        journal = Journal(store, self.clock)
        async with anyio.create_task_group() as group:
            group.start_soon(self._write, journal, group, name="journal")
            try:
                await self._run_organs(store, journal, group)
            finally:
                journal.close()

    async def _write(self, journal: Journal, group: TaskGroup) -> None:
        """Be the writer; it outlives everything else, and its end by damage is the end of all."""
        with anyio.CancelScope(shield=True):
            await journal.run()
        if isinstance(journal.failure, StoreDamaged):
            raise journal.failure

    async def _run_organs(self, store: SqliteStore, journal: Journal, group: TaskGroup) -> None:
        config, clock = await self.definitions.force.load(store), self.clock
        self.config = config
        rules = {name: Rule(trigger, config.jobs[trigger.job]) for name, trigger in config.triggers.items()}
        retired: dict[str, Rule] = {}
        chronicle = Chronicle(
            clock=clock, journal=journal, store=store, boot=self.boot, version=distribution_version(), rules=rules,
            describe=lambda trigger: on_text(trigger, config.secrets),
        )  # fmt: skip
        await chronicle.begin()
        pauses = Pauses(clock, journal, rules)
        await pauses.load(store)
        joins = {name: rule.joining for name, rule in rules.items() if rule.joining is not None and rule.joining.waits}
        windows = windows_of(await store.open_windows(), await store.filled(), joins)
        marks = MarkKeeper(store)
        backlog = Backlog(high=config.engine.queue.high, low=config.engine.queue.low)
        backlog.load(await store.waiting())
        run_logs = RunLogs(config.engine.data / "logs")
        changes, routes, shared, loop_watch = Changes(), Routes(), Shared(), LoopWatch(clock)
        lease = Lease(store, self.boot)
        outcomes = Outcomes(clock)
        notes = RunNotes(journal.submit)
        await notes.load(store)
        counts = Counts(most_names=config.metrics.most_names, kinds=self._own_sources)
        counting = Counting(
            clock=clock, store=store, submit=journal.submit, counts=counts,
            job_of=lambda name: None if (rule := rules.get(name)) is None else rule.job.name,
        )  # fmt: skip
        counts.on_due = counting.due
        await counting.load()
        tracing = tracing_of(config.tracing, distribution_version())
        executor = Executor(
            rules=rules, retired=retired, clock=clock, base=config.base, run_logs=run_logs, shared=shared,
            secrets=config.secrets, notes=notes, interrupted=lambda run_id: dispatch.is_interrupted(run_id),
            strays=lambda run_id: strays.ended(run_id), tracing=tracing,
        )  # fmt: skip

        def on_end(run: Run, end: AttemptEnd) -> None:
            outcomes(run, end)
            adaptation(run, end)
            counting.began(run, end.attempt)
            if end.step.state in ENDED:
                endings.note(run, end.step)
                conditions.note_end(run)
            elif end.step.state is RunState.RETRYING:
                counts.tried_again(run.job, end.attempt.state)
            queue.note_end(run, end)

        def limited(trigger: str, job: Job) -> Job:
            rule = rules.get(trigger) or retired.get(trigger)
            return job if rule is None else rule.limited(job)

        endings = LastRuns(store)
        conditions = Conditions(
            conditions=config.conditions, always=config.engine.conditions, rules=ChainMap(rules, retired), clock=clock,
            journal=journal, make_checks=lambda on_answer: Checks(
                base=config.base, clock=clock, shared=shared, endings=endings, secrets=config.secrets,
                on_answer=on_answer,
            ),
        )  # fmt: skip
        await conditions.load(store)
        maintenance = Maintenance(
            clock, journal, rules, config.maintenance,
            lambda name, settings: window_reader(self.config, self._registry, self._environment)(name, settings),
        )  # fmt: skip
        await maintenance.load(store)
        pools = Pools(
            clock, journal, store, concurrency=config.engine.concurrency, pools=config.pools,
            kept=config.engine.reserve.by_lane(),
        )  # fmt: skip
        await pools.load()
        gates = Gates(
            clock=clock, journal=journal, store=store, on_change=changes.tell,
            gates=[maintenance, conditions] if config.conditions else [maintenance],
            rule_of=lambda trigger: rules.get(trigger) or retired.get(trigger),
        )  # fmt: skip
        conditions.changed, conditions.anyone_waits = gates.changed, gates.anyone_waits
        shaper = Shaper(
            clock=clock, store=store, journal=journal, marks=marks,
            rule_of=lambda name: rules.get(name) or retired.get(name),
        )  # fmt: skip
        failures = Failures(clock, journal, rules, pauses, lambda event: intake.announce(event))

        def finish(run: Run, end: Finish | End) -> Awaitable[Any]:
            return intake.finish(run, failures.noting(run, end))

        dispatch = self._dispatch = shaper.dispatch = Dispatch(
            boot=self.boot, clock=clock, journal=journal, store=store, windows=windows, jobs=config.jobs,
            execute=executor.execute, finish=finish,
            concurrency=pools.limit(ENGINE_POOL), ageing_s=config.engine.ageing_s, on_change=changes.tell,
            on_end=on_end, on_backfilled=lambda run, step: backfills.note_end(run, step), limited=limited, gates=gates,
            reserve=config.engine.reserve.by_lane(), pools=pools.limits(), backlog=backlog, shaper=shaper,
            keeping=executor,
        )  # fmt: skip
        pools.dispatch = dispatch
        strays = Strays(clock=clock, mark=RUN_MARK, is_active=dispatch.has)
        maintenance.on_change, maintenance.cancel_running = gates.changed, dispatch.cut
        deliverer = Deliverer(
            clock=clock, store=store, submit=journal.submit, jobs=dispatch.jobs, receivers=config.receivers,
            base=config.base, secrets=config.secrets,
        )  # fmt: skip
        await deliverer.load()
        alerts = Alerts(
            clock=clock, store=store, submit=journal.submit, line=deliverer, counts=counting,
            configured=lambda: self.config.alerts, receivers=lambda: self.config.receivers, secrets=config.secrets,
        )  # fmt: skip
        await alerts.load()
        deliverer.on_given_up = alerts.note_given_up
        aftermath = Aftermath(
            notes=notes, jobs=dispatch.jobs, receivers=config.receivers, line=deliverer, counts=alerts,
            secrets=config.secrets, pausing=failures.pausing,
        )  # fmt: skip
        await aftermath.load(store)
        await shaper.catch_up()
        await marks.load()
        used = self._used_sources()

        async def announce(event: Event, *, memory: Memory | None = None) -> Any:
            return await intake.announce(event, memory=memory)

        guards = Guards(
            clock=clock, journal=journal, store=store, rules=rules, max_hops=config.engine.max_hops,
            announce=announce,
            held=lambda name: pauses.now(name) is not None or bool(maintenance.holding(name)),
        )  # fmt: skip
        await guards.load()
        intake = Intake(
            clock=clock, journal=journal, starter=dispatch, windows=windows, marks=marks, rules=rules,
            hearing=[(name, source) for name, source in used if source.hears], pauses=pauses,
            backlog=backlog, redaction=config.redaction,
            max_data_bytes=config.http.max_body_bytes, ageing_s=config.engine.ageing_s,
            followers=Followers([(name, source) for name, source in used if source.follows_runs], rules, dispatch.jobs),
            own_sources=self._own_sources, guarding=guards.guarding, after=aftermath,
            causes=Causes(store, None if tracing is None else tracing.run_of), tracing=tracing,
            counts=counts,
        )  # fmt: skip
        await failures.load(store)
        await settle_leftovers(
            store, boot=self.boot, clock=clock, jobs=config.jobs, mark=RUN_MARK, ageing_s=config.engine.ageing_s,
            journal=journal, finish=finish, is_kept=executor.is_kept, adopt=dispatch.adopt,
            ended=run_logs.ended,
        )  # fmt: skip
        backfills = Backfills(
            clock=clock, store=store, rules=rules, pause_of=pauses.now, emit=intake.backfill, submit=journal.submit,
            end_waiting=dispatch.end_backfilled,
        )  # fmt: skip

        async def begin(cursors: Sequence[Cursor]) -> Any:
            return await journal.submit(Accept(entries=(), cursors=tuple(cursors)))

        timers = Timers(
            clock=clock, triggers=[timer for one in config.triggers.values() for timer in timers_of(one)],
            emit=intake.accept_due, begin=begin, look=store.cursor, paused=lambda timer: pauses.now(owner_of(timer)),
        )  # fmt: skip

        def pauses_changed(names: Collection[str] | None) -> None:
            dispatch.hold(pauses.engine is not None)
            guards.look_again()
            named = [rules[name].trigger for name in names or () if name in rules]
            timers.look_again(None if names is None else [timer.name for one in named for timer in timers_of(one)])
            backfills.look_again()
            failures.pauses_changed(names)

        pauses.on_change = pauses_changed
        dispatch.hold(pauses.engine is not None)

        async def remember_zones(zones: Mapping[str, Any]) -> Any:
            return await journal.submit(Accept(entries=(), memory=Memory(source=ZONES_SOURCE, values=zones)))

        zone_data = ZoneData(clock, store.memory, remember_zones)
        routes_ready = anyio.Event()
        settling = Settling(store, changes, clock, self.stopping)
        sources = self._sources = Sources(
            clock=clock, sources=used, door=intake, memory=settling, base=config.base,
            files=config.engine.data / "files", max_data=config.http.max_body_bytes, routes=routes,
            on_change=lambda: routes_ready.set() if not sources.awaited() else None,
        )  # fmt: skip
        adaptation = Adaptation(clock=clock, door=intake, store=store, timers=timers, sources=sources)
        await adaptation.load()
        for trigger in config.triggers.values():
            adaptation.add(trigger)
        steering = Steering(
            clock=clock, store=store, journal=journal, hands=dispatch.hands, rules=rules, retired=retired,
            ageing_s=config.engine.ageing_s, finish=finish,
        )  # fmt: skip
        queue = Queueing(
            clock=clock, store=store, dispatch=dispatch, intake=intake, steering=steering, pauses=pauses,
            backlog=backlog, rules=rules,
        )  # fmt: skip
        housekeeping = Housekeeping(
            clock=clock, journal=journal, store=store, run_logs=run_logs, logs=config.engine.data / "logs",
            received=config.engine.data / "files", settings=config.store,
        )  # fmt: skip
        housekeeping.room.look()
        log_levels = LogLevels(clock, level=config.logs.level, levels=config.logs.levels)
        if self._listen:  # in a program, what is logged is the program's
            log_levels.apply()
        admin = AdminToken.open(config.engine.data, self._environment) if self._listen else None
        tokens, audit_log = Keyring(admin, clock, journal.submit), AuditLog(clock, store, journal.submit)
        await tokens.load(store)
        operations = self.operations = Operations(
            config=config, clock=clock, store=store, journal=journal, intake=intake, dispatch=dispatch,
            timers=timers, sources=sources, backfills=backfills, routes=routes, run_logs=run_logs, changes=changes,
            settling=settling,
            pauses=pauses, maintenance=maintenance, adaptation=adaptation, queue=queue, chronicle=chronicle,
            housekeeping=housekeeping,
            rules=rules, retired=retired, version=distribution_version(), boot=self.boot, loop_watch=loop_watch,
            guards=guards,
            prepare=lambda job: inner.start_soon(executor.prepare, [job], name="prepare"),
            pools=pools, lease=lease,
            foresight=self._desk(store, rules, dispatch.jobs, pauses, timers, maintenance, guards),
            conditions=ConditionDesk(
                conditions, store=store, clock=clock, base=config.base,
                show=lambda plugin: shown(plugin, config.secrets),
            ),
            counting=counting, definitions=self.definitions, tokens=tokens, audit_log=audit_log, alerts=alerts,
            log_levels=log_levels,
        )  # fmt: skip
        alerts.facts = facts_of(
            operations, clock=clock, rules=rules, timers=timers, conditions=conditions, guards=guards,
            counting=counting, lease=lease, loop_watch=loop_watch, backlog=backlog,
        )  # fmt: skip
        alerts.announce = operations.feed.alert
        operations.metrics = Measuring(
            aliases=lambda: operations.config.metrics.aliases, clock=clock, store=store, counts=counts,
            version=distribution_version(), rules=rules,
            journal=journal, loop_watch=loop_watch, lease=lease, intake=intake, dispatch=dispatch, pauses=pauses,
            maintenance=maintenance, conditions=conditions, pools=pools, sources=sources, timers=timers,
            adaptation=adaptation, guards=guards, counting=counting, housekeeping=housekeeping,
            windows=lambda: len(windows), backlog=backlog, health=operations.health, ready=operations.ready,
            alerts=alerts,
        )  # fmt: skip
        operations.vitals = Vitals(
            clock=clock, store=store, journal=journal, loop_watch=loop_watch, lease=lease,
            housekeeping=housekeeping, conditions=operations.conditions, counting=counting, reports=operations.reports,
            health=operations.health, source_views=operations.source_views, names=operations.trigger_names,
            trigger_view=operations.trigger_view,
        )  # fmt: skip
        changeover = Changeover(
            Organs(
                adaptation=adaptation, chronicle=chronicle, conditions=conditions, dispatch=dispatch, gates=gates,
                guards=guards, housekeeping=housekeeping, intake=intake, journal=journal, maintenance=maintenance,
                operations=operations, pools=pools, sources=sources, store=store, timers=timers, rules=rules,
                receivers=config.receivers, secrets=self.secrets,
            )
        )  # fmt: skip

        async def apply(wanted: Config) -> Change:
            try:
                return await changeover.apply(wanted)
            finally:
                self.config = operations.config

        self.definitions.announce, self.definitions.note = intake.announce, audit_log.note_reload
        self.definitions.force.apply, self.definitions.force.submit = apply, journal.submit
        chronicle.watch(operations.troubles)
        if admin is not None:
            admin.on_change = lambda: audit_log.note("admin token changed", means=NO_CALL, target="admin")
            self.server = HttpServer(operations, admin, keyring=tokens)
            self.server.bind()
        notifier = Notifier(self._environment)
        async with anyio.create_task_group() as outer:
            await outer.start(shared.run, name="shared")
            outer.start_soon(outcomes.run, name="outcomes")
            await outer.start(dispatch.run, name="dispatch")
            grace_s = 0.0
            if self._watch_loop:
                loop_watch.start()
            if isinstance(clock, SystemClock):
                lease.start()
            try:
                async with anyio.create_task_group() as inner:
                    inner.start_soon(executor.prepare, list(config.jobs.values()), name="prepare")
                    inner.start_soon(pauses.run, name="pauses")
                    inner.start_soon(failures.run, name="failures")
                    inner.start_soon(conditions.run, name="conditions")
                    inner.start_soon(guards.run, name="guards")
                    inner.start_soon(maintenance.run, store, name="maintenance")
                    inner.start_soon(shaper.run, name="shaping")
                    inner.start_soon(deliverer.run, name="deliveries")
                    inner.start_soon(counting.run, name="counting")
                    inner.start_soon(tokens.run, name="tokens")
                    inner.start_soon(audit_log.run, name="audit log")
                    inner.start_soon(strays.run, store, name="strays")
                    inner.start_soon(sources.run, name="sources")
                    inner.start_soon(adaptation.run, name="adaptive")
                    await inner.start(timers.run, await store.cursors(SOURCE_PREFIX), name="timers")
                    await inner.start(backfills.run, name="backfills")
                    if used:
                        with anyio.move_on_after(ROUTES_S):
                            await routes_ready.wait()
                    if self.server is not None:
                        await self.server.start()
                    operations.state = "running"
                    inner.start_soon(zone_data.compare, timers.states, name="time zone data")
                    inner.start_soon(chronicle.run, name="chronicle")
                    inner.start_soon(alerts.run, name="alerts")
                    inner.start_soon(log_levels.run, name="log levels")
                    inner.start_soon(notifier.watch, clock, name="watchdog")
                    inner.start_soon(self.definitions.run, name="configuration")
                    inner.start_soon(housekeeping.run, name="housekeeping")
                    if not store.checked:
                        inner.start_soon(self._check_whole, store, journal, name="store check")
                    notifier.send("READY=1")
                    log.info("The engine runs", extra={"action": "ready", "pid": os.getpid(), "boot": self.boot})
                    if self._on_ready is not None:
                        self._on_ready(self)
                    await self._stop.wait()
                    self.stopping.set()
                    operations.state = "stopping"
                    notifier.send("STOPPING=1")
                    grace_s = self.config.engine.shutdown_grace_s
                    log.info("%s", self._told_of_stop(), extra={"action": "stopping"})
                    if self.server is not None:
                        await self.server.stop(STOP_HTTP_S)
                    inner.cancel_scope.cancel()
            finally:
                # Where something failed, too: what runs is interrupted, and recorded as such.
                with anyio.CancelScope(shield=True):
                    self.stopping.set()
                    if self.server is not None:
                        await self.server.stop(STOP_HTTP_S)
                    await dispatch.drain(grace_s)
                    dispatch.stop()
                    shared.close()
                    outcomes.close()
                    loop_watch.stop()
                    lease.stop()
                    await counting.end()
                    await alerts.end()
                    if tracing is not None:
                        await tracing.close()
                    await tokens.note_uses()
                    await audit_log.end()
                    await chronicle.end(asked=self._stop.is_set())
        log.info("Stopped", extra={"action": "stopped"})

    def _desk(
        self,
        store: SqliteStore,
        rules: Mapping[str, Rule],
        jobs: Mapping[str, Job],
        pauses: Pauses,
        timers: Timers,
        maintenance: Maintenance,
        guards: Guards,
    ) -> Desk:
        def world() -> World:
            # With the intervals that are in force, where they are adapted.
            triggers = {
                name: replace(rule.trigger, schedule=timers.schedule(name) or rule.trigger.schedule)
                for name, rule in rules.items()
            }
            held = {name: pause for name in rules if (pause := pauses.now(name)) is not None}
            return World.of(
                self.config,
                triggers=triggers,
                jobs=dict(jobs),
                pauses=held,
                maintenance=maintenance.foreseen(),
                quarantined=guards.quarantined(),
            )

        return Desk(
            config=self.config, registry=self._registry, environment=self._environment, clock=self.clock, store=store,
            world=world, show=shown,
        )  # fmt: skip

    def _used_sources(self) -> list[tuple[str, Source]]:
        """Return each source that a trigger is on which works, once."""
        used: dict[str, Source] = {}
        for trigger in self.config.triggers.values():
            for source, on in trigger.works_on:
                if isinstance(on, Source):
                    used.setdefault(source, on)
        return list(used.items())

    async def _check_whole(self, store: SqliteStore, journal: Journal) -> None:
        """Check a store that was too large to be checked whole before the start."""
        findings = await store.check()
        if findings:
            journal.fail(StoreDamaged(f"{store.path} is damaged: {'; '.join(findings[:5])}"))


async def _follow_signals(runtime: Runtime, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
    """Stop at the first SIGTERM or SIGINT, end the process at the second; read the configuration anew at SIGHUP."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        runtime.heeds_signals = True
        task_status.started()
        asked = False
        async for number in signals:
            if number == signal.SIGHUP:
                runtime.reload("SIGHUP")
                continue
            if asked:
                log.warning("Second signal: ending at once", extra={"action": "ended"})
                runtime.kill()
                logs.flush()
                os._exit(128 + number)
            asked = True
            runtime.stop()


async def _limit_stop(runtime: Runtime) -> None:
    """End the process where plugins do not stop in time; the next start settles what is left."""
    await runtime.stopping.wait()
    await runtime.clock.sleep(runtime.config.engine.shutdown_grace_s + STOP_HTTP_S + STOP_PLUGINS_S)
    names = sorted(task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("source "))
    log.critical(
        "Not stopped in time (%s, runs: %d): ending at once", ", ".join(names) or "no source", runtime.running,
        extra={"action": "stop_overdue"},
    )  # fmt: skip
    runtime.kill()
    logs.flush()
    os._exit(1)


async def until_signalled(runtime: Runtime, work: Callable[[], Awaitable[None]]) -> None:
    """Await `work`, which runs the runtime; a first SIGTERM or SIGINT stops that, a second ends the process."""
    async with anyio.create_task_group() as group:
        await group.start(_follow_signals, runtime)
        group.start_soon(_limit_stop, runtime)
        await work()
        group.cancel_scope.cancel()


async def _serve(runtime: Runtime) -> tuple[int, threading.Timer]:
    """Run the engine until a signal; return the process's exit code, and what limits its end from now on."""
    code = 0
    try:
        await until_signalled(runtime, runtime.run)
    except (EngineError, BaseExceptionGroup) as error:
        found = causes(error)
        if not all(isinstance(cause, EngineError) for cause in found):
            raise
        for cause in dict.fromkeys(map(str, found)):
            log.critical("%s", cause, extra={"action": "failed"})
        code = 1
    finally:
        leave_stuck_sources(runtime, 1 if isinstance(sys.exception(), Exception) else code)
    return code, _limit_exit(code)


def leave_stuck_sources(runtime: Runtime, code: int) -> None:
    """End the process where a source did not stop: everything else has, and the event loop would wait for it."""
    if not (stuck := runtime.stuck_sources):
        return
    log.error(
        "Ending without source %s, which did not stop; all else has, and is recorded", ", ".join(stuck),
        exc_info=sys.exception(), extra={"action": "ended_without"},
    )  # fmt: skip
    logs.flush()
    os._exit(code)


def _limit_exit(code: int) -> threading.Timer:
    """End the process where threads that plugins started keep it: everything else has ended, and is recorded."""

    def end() -> None:
        names = ", ".join(thread.name for thread in _left_threads())
        log.error("Ending without threads that did not stop: %s", names, extra={"action": "ended_without"})
        logs.flush()
        os._exit(code)

    limit = threading.Timer(STOP_THREADS_S, end)
    limit.daemon = True
    limit.start()
    return limit


def _left_threads() -> list[threading.Thread]:
    """Return the threads that Python would wait for at its end."""
    return [thread for thread in threading.enumerate() if not thread.daemon and thread is not threading.main_thread()]


def causes(error: BaseException) -> list[BaseException]:
    """Return the errors that a group, or a group within, holds; an error that is no group is its own."""
    if isinstance(error, BaseExceptionGroup):
        return [cause for inner in error.exceptions for cause in causes(inner)]
    return [error]


def serve(config_files: Sequence[str], on_ready: Callable[[Runtime], None] | None = None) -> int:
    """Run an engine on configuration files until a signal; return 0, 1 (it failed) or 2 (configuration).

    `on_ready` is called once everything runs.
    """
    registry = Registry()

    def discover(folders: Sequence[Path]) -> Registry:
        # What is read anew later has the same classes: what is the same is then seen to be.
        nonlocal registry
        registry = Registry.discover(folders)
        return registry

    try:
        files = find_files(config_files, os.environ)
        config = load(files, environment=os.environ, create_secrets=True, examine=True, discover=discover)
    except ConfigError as error:
        print(error, file=sys.stderr)  # noqa: T201 - there is no log yet
        return 2
    runtime = Runtime(
        config, registry=registry, on_ready=on_ready, watch_loop=True,
        read=lambda: load(files, environment=os.environ, registry=registry, create_secrets=True, examine=True),
    )  # fmt: skip
    logs.configure(runtime.secrets, style=config.logs.format)
    log.info(
        "Read %s: triggers %d, jobs %d", ", ".join(map(str, config.files)), len(config.triggers), len(config.jobs),
        extra={"action": "config_read"},
    )  # fmt: skip
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    # What is loaded by now stays: the collector need not look at it again, nor look for every 700 new objects.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_NEW_OBJECTS, 20, 50)
    code, limit = anyio.run(_serve, runtime)
    if not _left_threads():
        limit.cancel()
    return code
