"""The engine as a program uses it: its jobs are functions, and it lives in an `async with` block."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, overload

import anyio

from engine.aftermath import Reports
from engine.alerts import Alerts
from engine.backfill import Backfills
from engine.backfills import BackfillProgress, BackfillRequest, Order
from engine.clock import Clock, SystemClock
from engine.config import Place
from engine.config.scalars import near
from engine.decide.upcoming import Upcoming, upcoming
from engine.deliveries import Delivery, DeliveryFilter, of_alert
from engine.embedding.configuring import Configuration
from engine.embedding.definitions import Definitions, JobFunction
from engine.embedding.life import Life, single
from engine.embedding.places import caller
from engine.embedding.views import TriggerView, view_of
from engine.errors import Conflict, InvalidRequest, NotFound
from engine.events import Accepted, Event
from engine.guards import Guards
from engine.housekeeping import Housekeeping
from engine.measuring import Measuring
from engine.operations import Operations
from engine.payload import copied, survey
from engine.plugin import PRIORITIES, Plugin, Source, Timer
from engine.pools import Pools
from engine.previews import Preview
from engine.queueing import Queueing
from engine.runs import Run, RunState
from engine.runtime import Runtime, leave_stuck_sources, until_signalled
from engine.store.base import RunFilter
from engine.tallies import Statistics
from engine.triggers import GATES, Judge, Pause, PauseScope
from engine.units import parse_duration
from engine.vitals import Vitals

F = TypeVar("F", bound=JobFunction)

Span = str | timedelta
"""A duration: text as in config.toml ("500ms", "2s", "1h30m"), or a timedelta."""

PAGE = 200
_OUTSIDE = "the engine does not run: use it in `async with engine:`"


class Engine:
    """A durable trigger engine in a program: store, queue, retries, misfires and reasons, but no HTTP.

    Jobs and triggers are defined in code, and in config.toml where `config` names one; then the engine is entered:

        engine = Engine("data")

        @engine.trigger(cron="0 2 * * *")
        @engine.job(retry={"attempts": 3})
        async def nightly(run): ...

        async with engine:
            await engine.emit("order.created", {"total": 120})

    - `data`: the directory of the store and the run logs; one engine at a time works on it.
    - `config`: a configuration file, or several, later ones over earlier ones. What is given here goes over them.
    - `concurrency timezone shutdown_grace`: as in `[engine]`; `defaults`: as in `[defaults]`.
    - `conditions`: as in `[conditions.NAME]`, by name; triggers name them in `conditions=[…]`.
    - `redact`: as in `[security]`: what of every event is replaced before it is stored, matched or shown.
    - `notify`: as in `[notify.NAME]`, by name; jobs and alerts name them in `notify=[…]`.
    - `alerts`: as in `[alerts.NAME]`, by name.
    - `pools`: as in `[pools]`: how much each holds, by name; jobs name them in `pools=[…]`.
    - `tracing`: as in `[tracing]`: where traces go.
    - `store`: as in `[store]`: what is kept for how long, and how much of the disk stays free.
    - `plugins`: classes of sources, timers, runners, conditions and channels, and folders of plugin modules.
    - `clock`: time; a virtual one in tests.

    Raises ConfigError with all that is wrong. It belongs to one event loop while it runs: from threads, use
    `anyio.from_thread.run`.
    """

    def __init__(
        self,
        data: str | Path | None = None,
        *,
        config: str | Path | Sequence[str | Path] | None = None,
        concurrency: int | None = None,
        timezone: str | None = None,
        shutdown_grace: Span | None = None,
        defaults: Mapping[str, Any] | None = None,
        conditions: Mapping[str, Mapping[str, Any]] | None = None,
        redact: Sequence[str] | Mapping[str, Any] | None = None,
        notify: Mapping[str, Mapping[str, Any]] | None = None,
        alerts: Mapping[str, Mapping[str, Any]] | None = None,
        pools: Mapping[str, int] | None = None,
        tracing: Mapping[str, Any] | None = None,
        store: Mapping[str, Any] | None = None,
        plugins: Sequence[type[Plugin] | str | Path] = (),
        clock: Clock | None = None,
    ) -> None:
        files = [config] if isinstance(config, (str, Path)) else list(config or ())
        folders = [plugin for plugin in plugins if isinstance(plugin, (str, Path))]
        table = {
            "data": data, "concurrency": concurrency, "timezone": timezone, "shutdown_grace": shutdown_grace,
            "plugins": folders or None,
        }  # fmt: skip
        settings: dict[str, Any] = {"engine": {key: value for key, value in table.items() if value is not None}}
        if defaults is not None:
            settings["defaults"] = dict(defaults)
        if conditions is not None:
            settings["conditions"] = dict(conditions)
        if redact is not None:
            settings["security"] = {"redact": dict(redact) if isinstance(redact, Mapping) else list(redact)}
        if notify is not None:
            settings["notify"] = dict(notify)
        if alerts is not None:
            settings["alerts"] = dict(alerts)
        if tracing is not None:
            settings["tracing"] = dict(tracing)
        if pools is not None:
            settings["pools"] = dict(pools)
        if store is not None:
            settings["store"] = dict(store)
        classes = [plugin for plugin in plugins if not isinstance(plugin, (str, Path))]
        self._definitions = Definitions([Path(file) for file in files], settings, classes, caller(Path.cwd()))
        self._clock: Clock = clock or SystemClock()
        self._life: Life | None = None

    # Jobs and triggers

    @overload
    def job(self, function: F, /) -> F: ...

    @overload
    def job(
        self,
        *,
        name: str | None = None,
        timeout: Span | None = None,
        retry: Mapping[str, Any] | None = None,
        concurrency: int | None = None,
        concurrency_key: str | Callable[[Event], Any] | None = None,
        pools: Sequence[str] | Mapping[str, int] | None = None,
        overlap: Literal["queue", "skip", "replace"] | None = None,
        on_crash: Literal["retry", "fail"] | None = None,
        notify: Sequence[str] | Mapping[str, Any] | None = None,
        callback: Mapping[str, Any] | None = None,
        description: str | None = None,
        tags: Sequence[str] | None = None,
        enabled: bool | None = None,
        **settings: Any,
    ) -> Callable[[F], F]: ...

    def job(self, *function: Any, **settings: Any) -> Any:
        """Make a function a job: `@engine.job`, or with settings, those of `[jobs.NAME]` in config.toml.

        The function is called with a `RunContext`: asynchronous ones on the loop, plain ones in a thread. It stays as
        it is. The job's name is the function's, unless `name` gives another. Raises ConfigError.
        """

        def define(function: F) -> F:
            operations = self._running()
            job = self._definitions.add_job(function, settings)
            if operations is not None:
                try:
                    operations.add_job(job)
                except Conflict:
                    del self._definitions.jobs[job.name]
                    raise
            return function

        return define(*function) if function else define

    def trigger(
        self,
        name: str | None = None,
        *,
        on: Mapping[str, Any] | Source | Timer | None = None,
        filter: str | Judge | None = None,
        debounce: Span | Mapping[str, Any] | None = None,
        priority: int | str | None = None,
        data: Mapping[str, Any] | Judge | None = None,
        defaults: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> Callable[[F], F]:
        """Run the job below on a source: `@engine.trigger(cron="0 2 * * *")`; see `add_trigger`.

        It is put on a job, above `@engine.job`, and may be put there several times. Its name is the job's, unless
        `name` gives another.
        """
        place = caller(self._definitions.config.base)
        given = {
            "on": on, "filter": filter, "debounce": debounce, "priority": priority, "data": data,
            "defaults": defaults, **settings,
        }  # fmt: skip

        def define(function: F) -> F:
            job = self._definitions.name_of(function, place, "triggers")
            self._add_trigger(name or job, job, given, place)
            return function

        return define

    def add_trigger(
        self,
        name: str,
        *,
        job: str | JobFunction,
        on: Mapping[str, Any] | Source | Timer | None = None,
        filter: str | Judge | None = None,
        debounce: Span | Mapping[str, Any] | None = None,
        priority: int | str | None = None,
        data: Mapping[str, Any] | Judge | None = None,
        defaults: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> TriggerView:
        """Add a trigger: on a source, when its conditions hold, run a job. While the engine runs, it works at once.

        The source is `on`, as in config.toml (`on={"files": {"path": "inbox"}}`) or an instance of a plugin's class,
        or a keyword that is the name of any source or timer: `event="order.*"`, `cron="0 2 * * *"`. Every other
        keyword is a key of `[triggers.NAME]`. In the place of `filter`, of `data` and of the `key` of a debounce (or a
        batch, throttle, rate_limit, dedupe) may stand a function of the event, which answers at once: what it raises is
        recorded, and the event is not run.

        What is defined in code is not stored: it comes again with the code. What is stored under its name is its: runs,
        the cursor of a timer, a pause. Raises ConfigError with all that is wrong.
        """
        given = {
            "on": on, "filter": filter, "debounce": debounce, "priority": priority, "data": data,
            "defaults": defaults, **settings,
        }  # fmt: skip
        self._add_trigger(name, job, given, caller(self._definitions.config.base))
        return self.get(name)

    def _add_trigger(self, name: str, job: str | JobFunction, settings: Mapping[str, Any], place: Place) -> None:
        operations, definitions = self._running(), self._definitions
        trigger = definitions.add_trigger(name, job, settings, place)
        if operations is None:
            return
        try:
            definitions.check(trigger)
            operations.add_trigger(trigger)
        except BaseException:
            definitions.forget(name)
            raise

    async def remove(self, name: str) -> None:
        """Remove a trigger: from now on no event meets it. Runs that it has made stay, and those that wait will run.

        Its pause is forgotten, and a timer that is added again under its name begins anew. One that stands in
        config.toml is there again at the next start. Raises NotFound, and StoreUnavailable: then it is still there.
        """
        self._definitions.trigger(name)
        operations = self._running()
        try:
            if operations is not None:
                await operations.remove_trigger(name)
        finally:
            if operations is None or not operations.has_trigger(name):
                self._definitions.forget(name)

    def get(self, name: str) -> TriggerView:
        """Return a trigger as it stands; raise NotFound."""
        trigger = self._definitions.trigger(name)
        operations = self._running()
        if operations is not None and operations.has_trigger(name):
            trigger = operations.trigger(name)
        else:
            return view_of(trigger, job=self._definitions.jobs.get(trigger.job))
        return view_of(
            trigger, job=operations.jobs.get(trigger.job), pause=operations.pause_of(name),
            next_at=operations.next_at(name), completed=operations.why_completed(name),
            adaptive=operations.adaptive_view(name) if trigger.adaptive is not None and trigger.works else None,
            guards=operations.guards.view_of(name),
            joins=operations.open_joins(name) if trigger.join is not None else (),
        )  # fmt: skip

    def list(self) -> tuple[TriggerView, ...]:
        """Return all triggers as they stand, by name."""
        return tuple(self.get(name) for name in sorted(self._definitions.triggers))

    async def pause(
        self, name: str | None = None, *, tag: str | None = None, all: bool = False, reason: str = "",
        minutes: float | None = None, until: datetime | None = None, who: str = "",
    ) -> Pause:  # fmt: skip
        """Pause a trigger, those with a tag (their own or their job's), or, with `all`, the engine.

        For so many minutes, until an instant, or until it is resumed; it outlives the program. Events that come
        meanwhile get the outcome `paused`, with the reason, and are not run later; due instants follow the rule on
        misfires. While the engine is paused, nothing that waits is started; what runs goes on. `who` is recorded.

        It is durable when this returns. Raises NotFound, Conflict where the end is past or given twice, or where it is
        not said what to pause, and StoreUnavailable.
        """
        scope, what = self._pausable(name, tag, all)
        if minutes is not None and until is not None:
            raise Conflict("a pause has one end: give minutes or until")
        if until is not None and until.utcoffset() is None:
            raise Conflict("until is an instant with a time zone")
        if minutes is not None:
            try:
                until = self._clock.now() + timedelta(minutes=minutes)
            except (OverflowError, ValueError):
                raise Conflict(f"a pause can't be {minutes} minutes long") from None
        return await self._operations().pause(scope, what, reason=reason, until=until, who=who)

    async def resume(
        self, name: str | None = None, *, tag: str | None = None, all: bool = False, who: str = ""
    ) -> bool:
        """End the pause of a trigger, of a tag or of the engine; return whether it was paused. Other pauses stay.

        Raises NotFound, Conflict where it is not said which, and StoreUnavailable.
        """
        scope, what = self._pausable(name, tag, all)
        return await self._operations().resume(scope, what, who=who)

    def pauses(self) -> tuple[Pause, ...]:
        """Return all pauses that hold now, the widest first; `get` has those of one trigger."""
        return tuple(self._operations().pauses())

    def _pausable(self, name: str | None, tag: str | None, all: bool) -> tuple[PauseScope, str]:
        if (name is not None) + (tag is not None) + all != 1:
            raise Conflict("say what to pause or resume: the name of a trigger, tag=…, or all=True for the engine")
        if name is not None:
            return PauseScope.TRIGGER, self._definitions.trigger(name).name
        return (PauseScope.ENGINE, "") if tag is None else (PauseScope.TAG, tag)

    async def adapt(
        self, name: str, action: Literal["freeze", "unfreeze", "reset"], *, reason: str = ""
    ) -> Mapping[str, Any]:
        """Leave the interval of an adaptive trigger as it is, have it adapted again, or go back to the configured one.

        It is durable when this returns, with how the interval is then (`get` has that too). Raises NotFound, Conflict
        where the trigger is not adaptive, and StoreUnavailable.
        """
        operations = self._operations()
        self._definitions.trigger(name)
        if action not in ("freeze", "unfreeze", "reset"):
            raise Conflict(
                f"an interval is frozen, unfrozen or reset: {action!r} is none of freeze, unfreeze and reset"
            )
        await operations.adapt(name, action, reason)
        return operations.adaptive_view(name)

    def next(self, name: str, count: int = 1, *, after: datetime | None = None) -> tuple[Upcoming, ...]:
        """Return the due instants to come of a trigger that is on a timer: so many at most, later than `after`, or now.

        Fewer where no more are due. It need not run for that. Raises NotFound, Conflict where the trigger is on no
        timer or `after` is no instant with a time zone, and PluginError where the timer fails.
        """
        trigger = self._definitions.trigger(name)
        if after is not None and after.utcoffset() is None:
            raise Conflict("after is an instant with a time zone")
        operations = self._running()
        since = self._clock.now() if after is None else after
        if operations is not None and operations.has_trigger(name):
            return tuple(islice(operations.upcoming(name, since), count))
        return tuple(islice(upcoming(trigger, since, job=self._definitions.jobs.get(trigger.job)), count))

    # Events and runs

    async def emit(
        self,
        type: str,
        data: Any = None,
        *,
        subject: str | None = None,
        key: str | None = None,
        source: str = "app",
        time: datetime | None = None,
        priority: int | str | None = None,
    ) -> Accepted:
        """Send an event to the triggers that listen for it; when this returns, it and its runs are on disk.

        The same `key` from the same `source` is the same event: a repeat gets the first answer, with `duplicate` true.
        Raises InvalidEvent, and StoreUnavailable where the store can't take it now.
        """
        operations = self._operations()
        survey(data)
        # What is sent is what the data is now: the caller may go on with his own.
        event = Event(
            type=type, data=copied(data), subject=subject, key=key, source=source, time=time, priority=_number(priority)
        )
        (accepted,) = await operations.hear([event])
        return accepted

    async def fire(
        self,
        name: str,
        data: Any = None,
        *,
        reason: str = "",
        priority: int | str | None = None,
        bypass: Collection[str] = (),
        request_id: str | None = None,
    ) -> Accepted:
        """Run a trigger by hand. It obeys its filter and every gate that `bypass` does not name; see docs/shaping.md.

        The same `request_id` again is not fired again. Raises NotFound, Conflict (it is disabled), InvalidEvent and
        StoreUnavailable.
        """
        self._definitions.trigger(name)
        operations = self._operations()
        for gate in set(bypass) - GATES:
            raise NotFound(f"there is no gate {gate!r} ({near(gate, GATES)})")
        survey(data)
        return await operations.fire(
            name, data=copied(data), reason=reason, priority=_number(priority), bypass=frozenset(bypass),
            request_id=request_id,
        )  # fmt: skip

    async def backfill(
        self,
        name: str,
        start: datetime,
        end: datetime,
        *,
        timezone: str | None = None,
        max_parallel: int = 1,
        order: str = "oldest",
        only_missing: bool = False,
        reason: str = "",
        request_id: str | None = None,
    ) -> BackfillProgress:
        """Run a timer's due instants from `start` to before `end`, which have passed; it goes on by itself.

        Times without a zone are those of `timezone`, by default the timer's. At most `max_parallel` of its runs are
        open at any time; `order` is "oldest" or "newest"; `only_missing` leaves out what has run with success.
        `backfills` has the rest: what one would run, how it stands, pause, resume, cancel, and waiting for its end.
        The same `request_id` again begins no second one.

        It is durable when this returns, and goes on after a restart. Raises NotFound, Conflict (the trigger is
        disabled), InvalidRequest (it is on no timer, the span is not past, or holds too much) and StoreUnavailable.
        """
        self._definitions.trigger(name)
        if order not in set(Order):
            raise InvalidRequest(f"there is no order {order!r} ({near(order, Order)})")
        return await self.backfills.begin(
            BackfillRequest(
                trigger=name, start=start, end=end, timezone=timezone, max_parallel=max_parallel, order=Order(order),
                only_missing=only_missing, reason=reason,
            ),
            request_id=request_id,
        )  # fmt: skip

    @property
    def backfills(self) -> Backfills:
        """The backfills of the running engine; raises Conflict outside of the block."""
        return self._operations().backfills

    @property
    def queue(self) -> Queueing:
        """What waits and runs, of the running engine; raises Conflict outside of the block.

        `page()` is what is ready, in its order, with where it stands and when it may start. `cancel`, `hold`,
        `release`, `set_priority` and `retry` take the id of a run; a request says what `flush` cancels of what waits.
        """
        return self._operations().queue

    async def preview(self, source: str, *, cursor: float | str | None = None, limit: int = 20) -> Preview:
        """Have a source look once, and return at most `limit` events that it would emit; nothing is stored or run.

        `cursor`: from where, in the place of the stored one. Raises NotFound; InvalidRequest where the source can't
        tell or the cursor is of no use to it; PluginError where its look fails; Conflict outside of the block.
        """
        return await self._operations().preview(source, cursor=cursor, limit=limit)

    async def stats(self, *, trigger: str | None = None, job: str | None = None, over: Span = "1d") -> Statistics:
        """Return how the runs of a trigger, or of a job, ended in the time up to now, and how long they took.

        The time begins with an hour, or with a day (UTC) where it is longer than a week. Raises StoreUnavailable.
        """
        return await self._operations().counting.statistics(trigger=trigger, job=job, over=_span(over))

    @property
    def reports(self) -> Reports:
        """How well timers are kept: `adherence` tells; see docs/adherence.md. Raises Conflict outside of the block."""
        return self._operations().reports

    @property
    def vitals(self) -> Vitals:
        """How each part is: `detailed` and `trigger` tell; see docs/health.md. Raises Conflict outside of the block."""
        return self._operations().vitals

    @property
    def metrics(self) -> Measuring:
        """What Prometheus is told: `scrape()` writes it, `read()` returns the figures; raises Conflict likewise."""
        return self._operations().metrics

    async def deliveries(
        self, *, run: str | None = None, alert: str | None = None, target: str | None = None, limit: int = 50
    ) -> tuple[Delivery, ...]:
        """Return who was told of the end of a run or of an alert, and how that went, the newest first.

        `target` is `callback:JOB` or `notify:NAME`. Raises StoreUnavailable.
        """
        which = DeliveryFilter(run=run if alert is None else of_alert(alert), target=target)
        return tuple(await self._operations().store.deliveries(which, limit=limit))

    @property
    def alerts(self) -> Alerts:
        """The alerts of the running engine; raises Conflict outside of the block.

        `views()` shows which are open and for whom; `mute`, `unmute`, `acknowledge` and `test` take the name of one.
        """
        return self._operations().alerts

    @property
    def pools(self) -> Pools:
        """The limits that jobs share, and the engine's own; raises Conflict outside of the block.

        `views()` shows who has what, `change` has one hold another amount until `reset`.
        """
        return self._operations().pools

    @property
    def housekeeping(self) -> Housekeeping:
        """What keeps the running engine's store in bounds; raises Conflict outside of the block.

        `view()` tells what is kept for how long and what was removed, `rehearse()` what would be now, and
        `begin(patience_s=…)` has it done. `backups.make(name)` copies the store into `[store] backups`.
        """
        return self._operations().housekeeping

    @property
    def configuration(self) -> Configuration:
        """What reads configuration files anew, and overrides what is said; raises Conflict outside of the block."""
        return Configuration(self._definitions, self._operations().definitions)

    @property
    def guards(self) -> Guards:
        """What releases from quarantine; see docs/guards.md. Raises Conflict where the engine does not run."""
        return self._operations().guards

    async def wait(self, *what: Accepted | Run | str) -> tuple[Run, ...]:
        """Wait until runs have ended, however long it takes, and return them: of events, or named by their ids.

        Raises NotFound for a run that is not there, and Conflict where the engine stops before.
        """
        operations, life = self._operations(), self._life
        assert life is not None  # noqa: S101 - as there are operations
        ended = []
        for run_id in [run for one in what for run in _runs_of(one)]:
            looking = asyncio.ensure_future(operations.ended(run_id))
            try:
                await asyncio.wait([looking, life.task], return_when=asyncio.FIRST_COMPLETED)
                if not looking.done():
                    raise Conflict(f"the engine stopped before run {run_id} had ended")
                run = looking.result()
            finally:
                looking.cancel()
            if run is None:
                raise NotFound(f"there is no run {run_id}")
            ended.append(run)
        return tuple(ended)

    async def get_run(self, run_id: str) -> Run:
        """Return a run with its trace and its attempts; raise NotFound."""
        run = await self._operations().store.run(run_id)
        if run is None:
            raise NotFound(f"there is no run {run_id}")
        return run

    async def runs(
        self, *, state: str | Collection[str] | None = None, job: str | None = None, trigger: str | None = None
    ) -> AsyncIterator[Run]:
        """Go through the runs, the newest first, those in a state (or one of several), of a job, of a trigger.

        Their traces and attempts are left out; `get_run` has them. Raises NotFound for a state that there is not.
        """
        which = RunFilter(
            states=None if state is None else frozenset(map(_state, (state,) if isinstance(state, str) else state)),
            job=job, triggers=None if trigger is None else frozenset({trigger}),
        )  # fmt: skip
        before: str | None = None
        while page := await self._operations().store.runs(which, limit=PAGE, before=before):
            for run in page:
                yield run
            before = page[-1].id

    # Life

    @property
    def is_running(self) -> bool:
        """Whether it takes events: from the beginning of the block until it begins to stop."""
        return self._life is not None and _state_of(self._life) == "running"

    async def __aenter__(self) -> Self:
        """Start, and return when everything runs.

        Raises ConfigError where a trigger's job is missing, StoreInUse (with the other engine's pid), StoreDamaged,
        StoreVersion, and Conflict where it runs already.
        """
        await self._enter(self._runtime({}))
        return self

    def _runtime(self, environment: Mapping[str, str]) -> Runtime:
        def note_ready(runtime: Runtime) -> None:
            if self._life is not None:
                self._life.note_ready()

        runtime = Runtime(
            self._definitions.whole(), registry=self._definitions.registry, clock=self._clock, listen=False,
            environment=environment, on_ready=note_ready,
            read=self._definitions.reread if self._definitions.files else None,
        )  # fmt: skip
        runtime.definitions.on_taken = self._definitions.take_files
        return runtime

    async def _enter(self, runtime: Runtime) -> Life:
        if self._life is not None:
            raise Conflict("this engine runs already")
        life = self._life = Life(runtime)
        try:
            await life.start()
        except BaseException:
            self._life = None
            raise
        return life

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop: sources first, then runs may end within `shutdown_grace`; those left are interrupted, and run again
        at the next start. A plain function that does not end keeps this waiting, as a thread can't be ended."""
        life = self._life
        if life is not None:
            try:
                await life.stop(error)
            finally:
                self._life = None

    def run(self) -> None:
        """Run until SIGTERM or SIGINT, and stop; a second signal ends the process at once.

        For a program that is nothing but jobs and triggers; call it in the main thread. Where a source ignores that it
        is told to stop, the process is ended once all else has stopped. Raises what entering raises.
        """
        runtime = self._runtime(os.environ)  # with it, systemd is told how the program is

        async def live() -> None:
            life, error = await self._enter(runtime), None
            try:
                await life.ended.wait()
            except BaseException as raised:
                error = raised
                raise
            finally:
                await self.__aexit__(None, error, None)

        async def whole() -> None:
            try:
                await until_signalled(runtime, live)
            finally:
                leave_stuck_sources(runtime, 1 if isinstance(sys.exception(), Exception) else 0)

        try:
            anyio.run(whole)
        except BaseExceptionGroup as group:
            raise single(group) from None

    def _running(self) -> Operations | None:
        """Return the running engine, or None; raise Conflict in another thread or loop than its own."""
        life = self._life
        if life is None:
            return None
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        if loop is not life.loop:
            raise Conflict("the engine belongs to another event loop: from a thread, use anyio.from_thread.run")
        return life.runtime.operations

    def _operations(self) -> Operations:
        operations = self._running()
        if operations is None:
            raise Conflict(_OUTSIDE)
        return operations


def _span(over: Span) -> timedelta:
    return over if isinstance(over, timedelta) else timedelta(seconds=parse_duration(over))


def _state_of(life: Life) -> str:
    return "starting" if life.runtime.operations is None else life.runtime.operations.state


def _runs_of(what: Accepted | Run | str) -> Sequence[str]:
    if isinstance(what, Accepted):
        return what.runs
    return (what.id,) if isinstance(what, Run) else (what,)


def _state(text: str) -> RunState:
    try:
        return RunState(text)
    except ValueError:
        raise NotFound(f"there is no state {text!r} ({near(text, RunState)})") from None


def _number(priority: int | str | None) -> int | None:
    if not isinstance(priority, str):
        return priority
    if priority not in PRIORITIES:
        raise NotFound(f"there is no priority {priority!r} ({near(priority, PRIORITIES)})")
    return PRIORITIES[priority]
