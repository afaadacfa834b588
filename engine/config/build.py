"""From tables that were read to what the engine works with; what only shows between tables is found here."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from engine.clock import EPOCH
from engine.config.addresses import is_loopback, parse_listen, parse_store_url, store_url
from engine.config.alerts import STANDARD, AlertTable, deadline_of
from engine.config.calendars import CalendarTable
from engine.config.conditions import ConditionTable, tell_circles
from engine.config.document import KeyPath, Node, show_value
from engine.config.doors import Doors, parse_quota
from engine.config.joins import JoinTable, Several, as_join, check_inputs, check_joins
from engine.config.limits import mistakes_in_pools, mistakes_in_weights, weights_of
from engine.config.loops import find_loops, said_of_loop
from engine.config.maintenance import MaintenanceTable
from engine.config.model import (
    AdaptiveTable,
    Config,
    DebounceTable,
    DefaultsTable,
    EngineSettings,
    HttpSettings,
    HttpTable,
    JobTable,
    OtherwiseTable,
    Shared,
    SourceTable,
    StoreSettings,
    StoreTable,
    TriggerTable,
)
from engine.config.payloads import Payloads
from engine.config.permits import Permits
from engine.config.plugin_tables import SettingsReader, as_table
from engine.config.source_ids import Owners, SourceIds
from engine.config.telling import CallbackTable, NotifyTable, notify_of
from engine.decide.alerts import Alert
from engine.decide.calendars import Calendar
from engine.decide.conditions import Named
from engine.decide.schedule import OF_INPUT, Schedule
from engine.decide.windows import MaintenanceWindow
from engine.deliveries import Receiver
from engine.errors import PluginError
from engine.jobs import Callback, Job, OnCrash, Overlap
from engine.networks import Networks
from engine.plugin import BadSetting, Source, Timer
from engine.triggers import (
    MISFIRE,
    NORMAL_PRIORITY,
    PRIORITIES,
    Adaptive,
    Deadline,
    Debounce,
    Input,
    Misfire,
    SharedSource,
    Trigger,
    Use,
)
from engine.units import format_duration

_log = logging.getLogger(__name__)


class Builder:
    """Makes a Config of the tables, by key, of which those that were wrong are BAD.

    `owners` are those who have sources already; `calendars` are those that there are, unless the tables define them;
    `always` the conditions that every trigger obeys, unless the tables say it.
    """

    def __init__(
        self,
        reader: SettingsReader,
        root: Node,
        tables: Mapping[str, Any],
        owners: Owners | None = None,
        calendars: Mapping[str, Calendar] | None = None,
        always: Collection[str] = (),
    ) -> None:
        self._reader = reader
        self._problems = reader.problems
        self._root = root
        self._tables = tables
        self._calendars = dict(calendars or {})
        self._always = always
        self._icals: set[Path] = set()
        self.readable: Collection[Path] | None = None
        """The files that calendars and schemas may name; None: any."""
        self._payloads = Payloads(root, self._at)
        self.pools: Mapping[str, int] = reader.sound.get(("pools",), {})
        """The pools that jobs may name."""
        self._ids = SourceIds(reader.references.origins, self._at, owners or Owners())

    def build(self, base: Path, files: tuple[Path, ...]) -> Config | None:
        """Return the configuration, or None where a table is wrong; all problems were told then."""
        engine, store, http = (self._tables[key] for key in ("engine", "store", "http"))
        self._check_exposure()
        self._check_data(engine)
        self._calendars |= self._read_calendars()
        conditions = self._conditions()
        sources = self._sources()
        triggers = self.triggers(sources)
        maintenance = self.maintenance()
        security = self._tables["security"]
        redaction = self._payloads.redaction(("security", "redact"), getattr(security, "redact", None))
        receivers = self._receivers()
        alerts = self._alerts()
        for name, job in self._reader.sound.get(("jobs",), {}).items():
            self._callback(name, job.callback)
        self._check_loops(triggers)
        self.check_pools()
        self._check_retries(triggers)
        if len(self._problems):
            return None
        return Config(
            engine=engine,
            store=self._store(store, engine.data),
            http=self._http(http),
            sources=sources,
            jobs=self.jobs(self._tables["jobs"], self._tables["defaults"]),
            triggers=triggers,
            base=base,
            files=files,
            defaults=self._tables["defaults"],
            secrets=frozenset(self._reader.references.values),
            icals=frozenset(self._icals),
            schemas=frozenset(self._payloads.schemas),
            redaction=redaction,
            calendars=self._calendars,
            conditions=conditions,
            maintenance=maintenance,
            receivers=receivers,
            alerts=alerts,
            logs=self._tables["logs"],
            tracing=self._tables["tracing"],
            pools=dict(self.pools),
            metrics=self._tables["metrics"],
            permits=Permits(
                runners=security.api_runners,
                commands=security.api_commands,
                sources=security.api_sources,
                limits=self._tables["limits"],
            ),
        )

    def _at(self, path: KeyPath, message: str, hint: str | None = None) -> None:
        self._problems.at(self._root.nearest(path), path, message, hint)

    def _text(self, path: KeyPath) -> str | None:
        """Return the text at a path, also where it is a reference; None where it is none or not there."""
        node = self._root.nearest(path)
        text = self._reader.references.resolved.get(path) if node.is_reference else node.value
        return text if isinstance(text, str) else None

    def _found(self, path: KeyPath) -> str:
        """Say what stands at a path, or that it is a reference, whose text is not shown."""
        node = self._root.nearest(path)
        return "the text it refers to" if node.is_reference else show_value(node.value)

    def _check_exposure(self) -> None:
        """Refuse to listen beyond loopback in the clear where nobody said so."""
        path = ("http", "listen")
        text = self._text(path)
        try:
            host, _ = parse_listen(text or "")
        except ValueError:
            return
        if not is_loopback(host) and self._root.nearest(("http", "insecure")).value is not True:
            self._at(
                path,
                f"found {self._found(path)}, which others can reach: tokens and data would go in the clear",
                'listen on "127.0.0.1:8080" behind a proxy that speaks TLS, or say insecure = true',
            )

    def _check_data(self, table: Any) -> None:
        """Refuse a data directory that is something else."""
        if isinstance(table, EngineSettings) and table.data.exists() and not table.data.is_dir():
            path = ("engine", "data")
            self._at(path, f"{show_value(str(table.data))} is a file", "name a directory; one that is missing is made")

    def _http(self, table: HttpTable) -> HttpSettings:
        host, port = parse_listen(table.listen)
        proxies = Networks(table.trusted_proxies) if table.trusted_proxies else None
        doors = Doors(
            header_timeout_s=table.header_timeout, body_timeout_s=table.body_timeout,
            keepalive_timeout_s=table.keepalive_timeout, max_connections=table.max_connections,
            max_connections_per_client=table.max_connections_per_client, rate=parse_quota(table.rate_limit),
        )  # fmt: skip
        return HttpSettings(
            host=host, port=port, insecure=table.insecure, max_body_bytes=table.max_body, trusted_proxies=proxies,
            doors=doors, hosts=table.hosts,
            trusted_header=None if table.trusted_header is None else table.trusted_header.trusted(),
        )  # fmt: skip

    def _store(self, table: StoreTable, data: Path) -> StoreSettings:
        url, file = table.url, data / "engine.db"
        if url is not None:
            file = parse_store_url(url, self._root.nearest(("store", "url")).place.base)
        return StoreSettings(
            url=url or store_url(file), path=file, keep=table.keep, min_free_bytes=table.min_free,
            backups=table.backups or file.parent / "backups",
        )  # fmt: skip

    def jobs(self, tables: Mapping[str, JobTable], defaults: DefaultsTable) -> dict[str, Job]:
        """Return the jobs; `defaults` hold where they say nothing."""
        return {name: self._job(name, table, defaults) for name, table in tables.items()}

    def _job(self, name: str, table: JobTable, defaults: DefaultsTable) -> Job:
        if table.on_crash is OnCrash.ADOPT and not table.run.keeps:
            self._at(
                ("jobs", name, "on_crash"),
                f'found "adopt", but attempts of the runner {table.run.name} end with the engine',
                'write "retry" or "fail"',
            )
        return Job(
            name=name,
            runner=table.run,
            timeout_s=defaults.timeout if table.timeout is None else table.timeout,
            retry=(defaults.retry if table.retry is None else table.retry).policy(),
            concurrency=table.concurrency or (1 if table.overlap or table.concurrency_key else None),
            concurrency_key=table.concurrency_key,
            overlap=table.overlap or Overlap.QUEUE,
            pools=weights_of(table.pools),
            on_crash=table.on_crash,
            notify=notify_of(table.notify),
            callback=self._callback(name, table.callback),
            log_bytes=(table.log or defaults.log).max,
            description=table.description,
            tags=table.tags,
            enabled=table.enabled,
            defined_in=self._defined_in(("jobs", name)),
        )

    def _callback(self, name: str, table: CallbackTable | None) -> Callback | None:
        """Return who is called back of a job's runs; None where nobody is, or after telling why that can't be."""
        if table is None:
            return None
        path: KeyPath = ("jobs", name, "callback")
        try:
            return table.callback(self._reader.registry)
        except BadSetting as error:
            self._reader.refuse(error, CallbackTable, self._root.nearest(path), path)
        except PluginError as error:
            self._at(path, str(error))
        return None

    def _receivers(self) -> dict[str, Receiver]:
        """Return who is told of runs, but for those that are wrong."""
        tables: Mapping[str, NotifyTable] = self._reader.sound.get(("notify",), {})
        found: dict[str, Receiver] = {}
        for name, table in tables.items():
            path: KeyPath = ("notify", name)
            try:
                found[name] = table.receiver(name, self._reader.registry, self._defined_in(path))
            except BadSetting as error:
                self._reader.refuse(error, NotifyTable, self._root.nearest(path), path)
            except PluginError as error:
                self._at(path, str(error))
        return found

    def _alerts(self) -> dict[str, Alert]:
        """Return the alerts, those that are built in among them, but for those that are wrong."""
        tables: Mapping[str, AlertTable] = self._reader.sound.get(("alerts",), {})
        found = dict(STANDARD)
        for name, table in tables.items():
            path: KeyPath = ("alerts", name)
            try:
                found[name] = table.alert(name, self._defined_in(path))
            except BadSetting as error:
                self._reader.refuse(error, AlertTable, self._root.nearest(path), path)
        return found

    def check_pools(self) -> None:
        """Tell of pools that jobs name and that are not there, or hold too little."""
        jobs: Mapping[str, JobTable] = self._reader.sound.get(("jobs",), {})
        mistakes = mistakes_in_pools(self.pools)
        for name, table in jobs.items():
            mistakes += mistakes_in_weights(("jobs", name, "pools"), table.pools, self.pools)
        for path, message, hint in mistakes:
            self._at(path, message, hint)

    def _read_calendars(self) -> dict[str, Calendar]:
        """Return the calendars, but for those that are wrong."""
        tables: Mapping[str, CalendarTable] = self._reader.sound.get(("calendars",), {})
        found: dict[str, Calendar] = {}
        for name, table in tables.items():
            path: KeyPath = ("calendars", name)
            if table.ical is not None and self.readable is not None and table.ical not in self.readable:
                message = f"the file {show_value(str(table.ical))} is not one that the engine reads already"
                self._at((*path, "ical"), message, "no other file is read for a configuration that was sent")
                continue
            if table.ical is not None:
                self._icals.add(table.ical)
            try:
                found[name] = table.calendar(name, self._defined_in(path))
            except BadSetting as error:
                self._reader.refuse(error, CalendarTable, self._root.nearest(path), path)
        return found

    def _conditions(self) -> dict[str, Named]:
        """Return the conditions, but for those that are wrong."""
        tables: Mapping[str, ConditionTable] = self._reader.sound.get(("conditions",), {})
        found = {
            name: table.condition(name, self._defined_in(("conditions", name))) for name, table in tables.items()
        }  # fmt: skip
        tell_circles(found, lambda name, message: self._at(("conditions", name), message))
        return found

    def _hold(self, name: str, table: TriggerTable) -> float | None:
        """Return how long runs of a trigger wait for its conditions; tell where it has none to wait for."""
        if table.otherwise is None:
            return None
        engine = self._tables.get("engine")
        always = self._always if engine is None else getattr(engine, "conditions", ("unread",))
        path = ("triggers", name, "otherwise")
        if not table.conditions and not always and not self._root.nearest(path).place.origin:
            self._at(path, "has no effect, as there is no condition that could keep a run", "name some in conditions")
        return table.otherwise.hold if isinstance(table.otherwise, OtherwiseTable) else None

    def maintenance(self, settings: dict[str, Any] | None = None) -> dict[str, MaintenanceWindow]:
        """Return the maintenance windows, but for those that are wrong; `settings` are what the API was given."""
        tables: Mapping[str, MaintenanceTable] = self._reader.sound.get(("maintenance",), {})
        found: dict[str, MaintenanceWindow] = {}
        for name, table in tables.items():
            path: KeyPath = ("maintenance", name)
            schedule = None
            if table.on is not None:
                schedule = self._schedule(f"maintenance {name}", table.on, (*path, table.on.name))
                if schedule is None:
                    continue
            try:
                found[name] = table.window(
                    name, schedule=schedule, timezone=self._reader.timezone, defined_in=self._defined_in(path),
                    settings=settings,
                )  # fmt: skip
            except BadSetting as error:
                self._reader.refuse(error, MaintenanceTable, self._root.nearest(path), path)
            except Exception as error:  # plugin code
                _log.warning("Window %s: its timer raised", name, exc_info=True, extra={"action": "plugin.timer"})
                self._at(path, f"its timer raised {type(error).__name__}: {error}")
        return found

    def _sources(self) -> dict[str, SharedSource]:
        """Return the sources with a name, but for those that are wrong."""
        found: dict[str, SharedSource] = {}
        tables: Mapping[str, SourceTable] = self._reader.sound.get(("sources",), {})
        for name, table in tables.items():
            source_id = self._ids.of_shared(name, table.on) if isinstance(table.on, Source) else None
            schema = self._payloads.schema(("sources", name, "schema"), table.schema, self.readable)
            redaction = self._payloads.redaction(("sources", name, "redact"), table.redact)
            if source_id is None and isinstance(table.on, Source):
                continue
            found[name] = SharedSource(
                name=name, id=source_id, on=table.on, schema=schema, redaction=redaction,
                description=table.description, tags=table.tags, enabled=table.enabled,
                defined_in=self._defined_in(("sources", name)), **self._guards(name, table),
            )  # fmt: skip
        return found

    def _guards(self, name: str, table: SourceTable) -> dict[str, Any]:
        """Return the guards of a source; tell where it is a timer, of which each trigger has its own."""
        for key in ("breaker", "expect"):
            if isinstance(table.on, Timer) and getattr(table, key) is not None:
                message = f"has no effect on {table.on.name}: each trigger that is on it has a timer of its own"
                self._at(("sources", name, key), message, "give it to the triggers")
        return {"breaker": None if table.breaker is None else table.breaker.rule(), "expect_s": table.expect}

    def triggers(self, sources: Mapping[str, SharedSource]) -> dict[str, Trigger]:
        """Return the triggers, but for those that are wrong: of the others all clashes are told at once."""
        tables: Mapping[str, TriggerTable] = self._reader.sound.get(("triggers",), {})
        made = {name: self._trigger(name, table, sources) for name, table in tables.items()}
        return {name: trigger for name, trigger in made.items() if trigger is not None}

    def _trigger(self, name: str, table: TriggerTable, sources: Mapping[str, SharedSource]) -> Trigger | None:
        on, shared, source_id = table.on, None, f"timer:{name}"
        path: KeyPath = ("triggers", name, "on", on.name)
        if isinstance(on, Shared):
            shared = sources.get(on.named)
            if shared is None:
                return None
            on, source_id = shared.on, shared.id or source_id
            path = ("sources", shared.name, on.name)
        elif isinstance(on, Several):
            source_id = f"{on.name}:{name}"
        elif isinstance(on, Source):
            found = self._ids.of_trigger(name, on)
            if found is None:
                return None
            source_id = found
        inputs = self._inputs(name, table, on, sources) if isinstance(on, Several) else ()
        if inputs is None or not check_joins(table, ("triggers", name), self._at):
            return None
        schedule = self._schedule(name, on, path) if isinstance(on, Timer) else None
        debounce, rule = table.debounce, None
        if isinstance(debounce, DebounceTable):
            rule = debounce.rule()
        elif debounce is not None:
            rule = Debounce(wait_s=debounce)
        return Trigger(
            name=name,
            job=table.job,
            source=source_id,
            on=on,
            schedule=schedule,
            misfire=self._misfire(name, table, on, inputs),
            shared=shared,
            inputs=inputs,
            join=None if table.join is None else as_join(table.join),
            preset=table.preset,
            schema=self._payloads.schema(("triggers", name, "schema"), table.schema, self.readable),
            breaker=None if table.breaker is None else table.breaker.rule(),
            max_hops=table.max_hops,
            expect_s=table.expect,
            deadline=self._deadline(name, table, on),
            filter=table.filter,
            dedupe=None if table.dedupe is None else table.dedupe.rule(),
            rate_limit=None if table.rate_limit is None else table.rate_limit.rule(),
            debounce=rule,
            batch=None if table.batch is None else table.batch.rule(),
            throttle=None if table.throttle is None else table.throttle.rule(),
            expires_s=table.expires,
            adaptive=self._adaptive(name, table.adaptive, on),
            conditions=tuple(dict.fromkeys(table.conditions)),
            hold_s=self._hold(name, table),
            priority=_priority(table.priority) if _is_constant(table.priority) else NORMAL_PRIORITY,
            priority_from=None if _is_constant(table.priority) else str(table.priority),
            priority_max=_priority(table.priority_max),
            max_waiting=table.max_waiting,
            timeout_s=table.timeout,
            retry=None if table.retry is None else table.retry.change(),
            pause_after=table.pause_after,
            data=table.data,
            defaults=table.defaults,
            description=table.description,
            tags=table.tags,
            enabled=table.enabled,
            defined_in=self._defined_in(("triggers", name)),
        )

    def _inputs(
        self, trigger: str, table: TriggerTable, on: Several, sources: Mapping[str, SharedSource]
    ) -> tuple[Input, ...] | None:
        """Return the sources of a trigger on several, or None after telling what is wrong with them."""
        made: list[Input] = []
        path: KeyPath = ("triggers", trigger, "on", on.name)
        for name, one in on.inputs.items():
            plugin, shared, source_id = one.on, None, f"timer:{trigger}{OF_INPUT}{name}"
            at: KeyPath = (*path, name, plugin.name)
            if isinstance(plugin, Shared):
                shared = sources.get(plugin.named)
                if shared is None:
                    return None
                plugin, source_id = shared.on, shared.id or source_id
                at = ("sources", shared.name, plugin.name)
            elif isinstance(plugin, Source):
                found = self._ids.of_input(trigger, on.name, name, plugin)
                if found is None:
                    return None
                source_id = found
            schedule = None
            if isinstance(plugin, Timer):
                schedule = self._schedule(f"{trigger}{OF_INPUT}{name}", plugin, at)
            use = one.use or (table.join.use if isinstance(table.join, JoinTable) else Use.LAST)
            made.append(
                Input(
                    name=name, source=source_id, on=plugin, schedule=schedule, shared=shared, filter=one.filter, use=use
                )
            )
        return tuple(made) if check_inputs(tuple(made), path, self._at) else None

    def _misfire(self, trigger: str, table: TriggerTable, on: Any, inputs: Collection[Input] = ()) -> Misfire:
        """Return the rule on due instants; of a source, which has none, only its preset may have said one."""
        path: KeyPath = ("triggers", trigger, "misfire")
        if table.misfire is None or isinstance(on, Timer) or any(isinstance(one.on, Timer) for one in inputs):
            return MISFIRE if table.misfire is None else table.misfire.rule()
        if not self._root.nearest(path).place.origin:
            self._at(
                path,
                f"has no effect on {on.name}, which has no due instants",
                "leave it out; it is for timers, such as on.cron",
            )
        return MISFIRE

    def _deadline(self, name: str, table: TriggerTable, on: Any) -> Deadline | None:
        """Return by when a trigger has to succeed; tell where there is no due instant from which that is counted."""
        found = None if table.deadline is None else deadline_of(table.deadline)
        if found is not None and found.after_s is not None and not isinstance(on, Timer):
            self._at(
                ("triggers", name, "deadline"), f"has no effect on {on.name}, which has no due instants",
                'give a time of the day, such as "05:00", by which it has to have succeeded',
            )  # fmt: skip
        return found

    def _adaptive(self, name: str, table: AdaptiveTable | None, on: Source | Timer) -> Adaptive | None:
        """Return by what a trigger's interval is adapted; tell where it has none, or one that is out of bounds."""
        if table is None or isinstance(on, Several):
            return None
        path = ("triggers", name, "adaptive")
        try:
            base_s = on.base_interval()
        except Exception as error:  # plugin code
            _log.warning("%s: its source raised", name, exc_info=True, extra={"action": "plugin.base_interval"})
            self._at(path, f"{on.name} raised when asked for its interval: {error}")
            return None
        if base_s is None:
            hint = "put it on an interval, or on a source that polls, such as http or database"
            self._at(path, f"{on.name} has no interval that could be adapted", hint)
            return None
        if isinstance(on, Timer) and on.every_nth is not None:
            self._at(path, "stands beside every_nth, which thins the interval out", "give the interval that is meant")
            return None
        if not table.min <= base_s <= table.max:
            message = f"the interval, {format_duration(base_s)}, is not between min and max"
            self._at(path, message, "it is where the adapting begins, and what it comes back to")
            return None
        try:
            if isinstance(on, Timer):
                on.paced(table.min, EPOCH)
        except BadSetting as error:
            self._at((*path, "min"), f"{on.name} can't have it: {error.field} {error}", error.hint)
        return table.rule()

    def _schedule(self, trigger: str, timer: Timer, path: KeyPath) -> Schedule | None:
        """Return when a trigger comes due, or None after telling why it can't."""
        if len(self._problems) and not self._calendars.keys() >= {*timer.except_, *timer.only}:
            return None  # one that it names is wrong, or not there, and that is told
        cls, schedule = type(timer), None
        try:
            schedule = Schedule(trigger=trigger, timer=timer, calendars=self._calendars)
            schedule.check()
        except BadSetting as error:
            node = self._root.nearest(path)
            self._reader.refuse(error, cls, node if node.value is timer else as_table(cls, node, path), path)
        except PluginError as error:
            self._at(path, str(error))
        except Exception:  # plugin code; it is asked again, and told of, when the engine runs
            _log.warning("%s: its timer raised", trigger, exc_info=True, extra={"action": "plugin.timer"})
        return schedule

    def _check_loops(self, triggers: Mapping[str, Trigger]) -> None:
        """Refuse triggers whose runs' ends start them again and again, where nobody said that this is meant."""
        jobs: Mapping[str, JobTable] = self._reader.sound.get(("jobs",), {})
        tags = {name: frozenset(table.tags) for name, table in jobs.items()}
        try:
            loops = list(find_loops(triggers, tags))
        except PluginError as error:
            _log.warning("A loop can't be looked for", exc_info=True, extra={"action": "plugin.follows"})
            self._at(("triggers",), str(error))
            return
        for names in loops:
            self._at(("triggers", names[0], "on"), *said_of_loop(names, triggers))

    def _check_retries(self, triggers: Mapping[str, Trigger]) -> None:
        """Refuse retries that trigger and job are only together wrong about."""
        tables, defaults = self._reader.sound.get(("jobs",), {}), self._tables["defaults"]
        for name, trigger in triggers.items():
            table = tables.get(trigger.job)
            if trigger.retry is None or table is None or not isinstance(defaults, DefaultsTable):
                continue
            said = said_of_retries(trigger, self._job(trigger.job, table, defaults))
            if said is not None:
                self._at(("triggers", name, "retry"), *said)

    def _defined_in(self, path: KeyPath) -> str:
        place = self._root.nearest(path).place
        return f"{place.file}:{place.line}"


def _is_constant(value: int | str) -> bool:
    return not isinstance(value, str) or value in PRIORITIES


def _priority(value: int | str) -> int:
    return PRIORITIES[value] if isinstance(value, str) else value


def said_of_retries(trigger: Trigger, job: Job) -> tuple[str, str] | None:
    """Say what is wrong with the retries of a trigger's runs, and the way out; None where nothing is."""
    if trigger.retry is None:
        return None
    policy = trigger.retry.applied(job.retry)
    if policy.delay_s <= policy.max_delay_s:
        return None
    return (
        f"with what job {job.name} says, delay is {format_duration(policy.delay_s)}, longer than max_delay, which is "
        f"{format_duration(policy.max_delay_s)}",
        "make delay shorter or max_delay longer",
    )
