"""Measuring: it reads, when Prometheus asks, what the rooms count and know; see `engine.metrics` for the names.

Figures are read on the event loop, in slices; writing them down takes a thread. What names something is a name of the
configuration, of which a bounded number is told apart: no sender makes a label.
"""

from __future__ import annotations

import os
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from itertools import islice
from typing import Any

import anyio
import anyio.to_thread

from engine.adaptive import Adaptation
from engine.aftermath import Counting
from engine.alerts import Alerts
from engine.backlog import Backlog
from engine.clock import Clock
from engine.conditions import Conditions
from engine.decide.limits import ENGINE_POOL
from engine.decide.rules import Rule
from engine.decide.schedule import timers_of
from engine.dispatch import Dispatch
from engine.errors import StoreUnavailable
from engine.guards import Guards
from engine.housekeeping import Housekeeping
from engine.ids import made_at
from engine.intake import Intake
from engine.journal import Journal
from engine.lease import Lease
from engine.loopwatch import LoopWatch
from engine.maintenance import Maintenance
from engine.metrics import ALIASES, FAMILIES, Counts, Histogram
from engine.metrics.catalogue import PREFIX
from engine.metrics.counts import OTHERS
from engine.metrics.exposition import Exposed, Figures, Labels, expose
from engine.pauses import Pauses
from engine.plugin import Source, Timer
from engine.plugin.conditions import Answer
from engine.pools import Pools
from engine.runs import RunState
from engine.sources import Sources
from engine.store.base import Store
from engine.timers import Timers
from engine.triggers import TriggerState

SLICE = 200
"""So many triggers are looked at in one turn of the event loop."""

Reading = dict[str, dict[Labels, float | Histogram]]
Told = tuple[tuple[str, ...], float | Histogram]


class Measuring:
    """Reads the figures; see `MetricsOperations`. `config` and `rules` are what holds now."""

    def __init__(
        self, *, aliases: Callable[[], bool], clock: Clock, store: Store, counts: Counts, version: str,
        rules: Mapping[str, Rule],
        journal: Journal, loop_watch: LoopWatch, lease: Lease, intake: Intake, dispatch: Dispatch, pauses: Pauses,
        maintenance: Maintenance, conditions: Conditions, pools: Pools, sources: Sources, timers: Timers,
        adaptation: Adaptation, guards: Guards, counting: Counting, housekeeping: Housekeeping,
        windows: Callable[[], int], backlog: Backlog, health: Callable[[], Mapping[str, Any]],
        ready: Callable[[], tuple[bool, Any]], alerts: Alerts,
    ) -> None:  # fmt: skip
        self._aliases = aliases
        self._clock = clock
        self._store = store
        self._counts = counts
        self._version = version
        self._rules = rules
        self._journal = journal
        self._loop_watch = loop_watch
        self._lease = lease
        self._intake = intake
        self._dispatch = dispatch
        self._pauses = pauses
        self._maintenance = maintenance
        self._conditions = conditions
        self._pools = pools
        self._sources = sources
        self._timers = timers
        self._adaptation = adaptation
        self._guards = guards
        self._counting = counting
        self._housekeeping = housekeeping
        self._windows = windows
        self._backlog = backlog
        self._health = health
        self._ready = ready
        self._alerts = alerts
        self._one_at_a_time = anyio.Lock()

    async def scrape(self, *, accept: str = "", accept_encoding: str = "") -> Exposed:
        """Return all metrics as they are now, as text; where the store can't be read, without what is only there."""
        families = (*FAMILIES, *ALIASES) if self._aliases() else FAMILIES
        async with self._one_at_a_time:
            figures: Figures = await self.read()
            return await anyio.to_thread.run_sync(
                lambda: expose(families, figures, accept=accept, accept_encoding=accept_encoding)
            )

    async def read(self) -> Reading:
        """Return all figures, by the names of the families and the values of their labels."""
        found: Reading = defaultdict(dict)
        for part in (
            self._engine(), self._counted(), self._waiting(), self._conditions_and_windows(), self._of_sources(),
            self._ground(),
        ):  # fmt: skip
            for name, (labels, figure) in part:
                found[PREFIX + name][labels] = figure.copy() if isinstance(figure, Histogram) else figure
        with suppress(StoreUnavailable):
            await self._from_store(found)
        await self._from_triggers(found)
        self._for_aliases(found)
        return found

    def _engine(self) -> Iterator[tuple[str, Told]]:
        yield "info", ((self._version,), 1)
        yield "ready", ((), self._ready()[0])
        for check in self._health()["checks"]:
            yield "check_ok", ((check["name"],), check["ok"])
        yield "jobs", ((), len(self._dispatch.jobs))
        yield "threads", ((), _threads())

    def _counted(self) -> Iterator[tuple[str, Told]]:
        counts = self._counts
        for name, counter in (
            ("events_total", counts.events), ("runs_total", counts.runs), ("runs_not_done_total", counts.codes),
            ("run_retries_total", counts.retried),
        ):  # fmt: skip
            for labels, count in counter.items():
                yield name, (labels, count)
        yield "events_duplicate_total", ((), self._intake.duplicates)
        for job, count in counts.attempts().items():
            yield "run_attempts_total", ((job,), count)
        for job, took_s in counts.durations.items():
            yield "run_duration_seconds", ((job,), took_s)
        for trigger, late_s in counts.lateness.items():
            yield "run_lateness_seconds", ((trigger,), late_s)

    def _waiting(self) -> Iterator[tuple[str, Told]]:
        slots = self._dispatch.slots
        yield "pool_limit", ((ENGINE_POOL,), self._dispatch.concurrency)
        yield "pool_taken", ((ENGINE_POOL,), slots.taken)
        for pool, limit in self._pools.limits().items():
            yield "pool_limit", ((pool,), limit)
            yield "pool_taken", ((pool,), slots.taken_of_pool(pool))
        yield "queue_pushes_back", ((), self._backlog.crowded())
        yield "windows_open", ((), self._windows())
        of_scope = Counter(pause.scope.value for pause in self._pauses.all())
        for scope in ("engine", "tag", "trigger"):
            yield "pauses", ((scope,), of_scope[scope])

    def _conditions_and_windows(self) -> Iterator[tuple[str, Told]]:
        for name, one in self._conditions.all.items():
            reading = self._conditions.reading(name)
            now = "disabled" if not one.enabled else "unknown" if reading is None else reading.answer.value
            for state in (*[answer.value for answer in Answer], "unknown", "disabled"):
                yield "condition_state", ((name, state), state == now)
        opened = {view["name"] for view in self._maintenance.open_views()}
        for name in self._maintenance.all():
            yield "maintenance_open", ((name,), name in opened)
        for name, severity, count in self._alerts.counted_open():
            yield "alerts_open", ((name, severity.value), count)

    def _of_sources(self) -> Iterator[tuple[str, Told]]:
        for state in self._sources.states:
            name = self._counts.sources.label(state.id)
            if name == OTHERS:
                continue
            yield "source_up", ((name, state.source.name), state.trouble(self._clock) is None)
            yield "source_restarts_total", ((name,), state.restarts)
            if not (isinstance(state.source, Source) and state.source.emits):
                continue
            yield "source_events_total", ((name,), state.events)
            yield "source_rejected_total", ((name,), state.rejected + state.refused)
            yield "source_pushed_back_total", ((name,), state.pushed_back)
            if state.lag_s is not None:
                yield "source_lag_seconds", ((name,), max(state.lag_s, 0.0))
            if state.last_event_at is not None:
                yield "source_last_event_timestamp_seconds", ((name,), state.last_event_at.timestamp())

    def _ground(self) -> Iterator[tuple[str, Told]]:
        journal, watch = self._journal, self._loop_watch
        yield "store_writable", ((), journal.failure is None and journal.refusing is None)
        yield "store_commit_seconds", ((), journal.took_s)
        yield "store_commit_changes", ((), journal.sizes)
        yield "store_changes_waiting", ((), journal.depth)
        renewed_at = self._store.renewed_at()
        if renewed_at is not None:
            yield "store_lease_age_seconds", ((), self._age_s(renewed_at))
        free = self._housekeeping.room.free_bytes()
        if free is not None:
            yield "disk_free_bytes", ((), free)
        blocked = watch.view()
        yield "loop_lag_seconds", ((), watch.lag_s)
        yield "loop_blocked_total", ((), blocked["blocked"])
        yield "loop_blocked_seconds_total", ((), blocked["blocked_s"])

    async def _from_store(self, found: Reading) -> None:
        counts = await self._store.counts()
        for state in (RunState.PENDING, RunState.QUEUED, RunState.HELD, RunState.RUNNING, RunState.RETRYING):
            found[PREFIX + "runs"][state.value,] = counts.get(state, 0)
        for lane, depth in (await self._store.queue_depths()).items():
            found[PREFIX + "queue_runs"][lane.value,] = depth.count
            age_s = 0.0 if depth.oldest is None else self._age_s(made_at(depth.oldest))
            found[PREFIX + "queue_oldest_age_seconds"][lane.value,] = age_s
        found[PREFIX + "store_size_bytes"][()] = (await self._store.size()).total

    async def _from_triggers(self, found: Reading) -> None:
        """Read what is known of each trigger, a slice of them in each turn of the event loop."""
        states: Counter[str] = Counter()
        kinds: Counter[tuple[str, str]] = Counter()
        quarantined, paused = self._guards.quarantined(), bool(self._pauses.all())
        names = iter(list(self._rules))
        while slice_ := list(islice(names, SLICE)):
            there = [name for name in slice_ if name in self._rules]
            shown = [name for name in there if self._counts.triggers.label(name) != OTHERS]
            for name in there:
                state = self._state_of(self._rules[name], name in quarantined, paused)
                states[state] += 1
                if isinstance(on := self._rules[name].trigger.on, Timer):
                    kinds[on.name, state] += 1
            for name in shown:
                self._read_trigger(found, name)
            with suppress(StoreUnavailable):
                for name, last in (await self._counting.lasts(shown)).items():
                    found[PREFIX + "trigger_failures_in_a_row"][name,] = last.failures
                    found[PREFIX + "trigger_last_end_timestamp_seconds"][name,] = last.at.timestamp()
            await self._clock.sleep(0)
        for one in TriggerState:
            found[PREFIX + "triggers"][one.value,] = states[one.value]
        for labels, count in kinds.items():
            found["schedules_total"][labels] = count

    def _read_trigger(self, found: Reading, name: str) -> None:
        rule = self._rules[name]
        due = [at for one in timers_of(rule.trigger) if (at := self._timers.next_at(one.name)) is not None]
        if due:
            found[PREFIX + "trigger_next_due_timestamp_seconds"][name,] = min(due).timestamp()
        if rule.trigger.adaptive is not None and (view := self._adaptation.view(name)) is not None:
            found[PREFIX + "adaptive_interval_seconds"][name,] = view["interval_s"]

    def _state_of(self, rule: Rule, quarantined: bool, paused: bool) -> str:
        name = rule.trigger.name
        if rule.disabled is not None:
            return TriggerState.DISABLED.value
        if self._timers.is_completed(name):
            return TriggerState.COMPLETED.value
        if quarantined:
            return TriggerState.QUARANTINED.value
        return (TriggerState.PAUSED if paused and self._pauses.of(name) else TriggerState.ACTIVE).value

    def _for_aliases(self, found: Reading) -> None:
        counts = self._counts
        for state, count in counts.scheduled.items():
            found["schedule_executions_total"][state,] = count
        found["schedule_execution_duration_seconds"][()] = counts.scheduled_durations.copy()
        found["schedule_misfires_total"][()] = counts.scheduled[RunState.MISSED.value]
        found["distributed_locks_acquired_total"][()] = 1 + self._lease.renewals

    def _age_s(self, at: datetime) -> float:
        return max((self._clock.now() - at).total_seconds(), 0.0)


def _threads() -> int:
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return threading.active_count()
