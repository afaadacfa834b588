"""Jobs and triggers that code defines, read as those of config.toml are: the same rules, and the same sentences."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from engine.config.build import Builder, said_of_retries
from engine.config.document import KeyPath, Node, Place, Problems, node_of, show_path, show_value
from engine.config.loader import DEFINED_BY_CODE, error_of
from engine.config.loops import find_loops, loop_through, said_of_loop
from engine.config.mentions import Mention, mentions
from engine.config.model import Config, RetryTable, Root, TriggerTable
from engine.config.plugin_tables import SettingsReader, plugins_of
from engine.config.presets import lay_under, tell_missing
from engine.config.references import References
from engine.config.scalars import near
from engine.config.shapes import NAME_KINDS, fields_of
from engine.config.source_ids import Owners
from engine.decide.windows import MaintenanceWindow
from engine.errors import ConfigError, ConfigProblem, PluginError
from engine.jobs import Job
from engine.plugin import Source
from engine.registry import Registry
from engine.triggers import Trigger

_log = logging.getLogger(__name__)

_REFERENCE_KEYS = frozenset({"env", "file", "generate"})

TRIGGER_KEYS = frozenset(field.key for field in fields_of(TriggerTable))


class Given:
    """Reads the settings of jobs and triggers, one at a time, beside those that there are.

    What `config` says in `[engine]`, `[defaults]` and `[sources]` holds for them. Settings are those of config.toml as
    Python has them; None is a setting that is left out, and a plugin may also be an instance of its class. `jobs` and
    `triggers` are those that there are by now, by name; who keeps them tells `forget` which trigger is there no more.
    """

    def __init__(
        self,
        *,
        config: Config,
        registry: Registry,
        environment: Mapping[str, str],
        jobs: Mapping[str, Job],
        triggers: Mapping[str, Trigger],
    ) -> None:
        self._config = config
        self._registry = registry
        self._environment = environment
        self._jobs = jobs
        self._triggers = triggers
        self._owners = Owners()
        for source in config.sources.values():
            self._owners.add_shared(source)
        for trigger in triggers.values():
            self._owners.add_trigger(trigger)

    def job(self, name: str, settings: Mapping[str, Any], place: Place) -> Job:
        """Return a job; raise ConfigError with all that is wrong."""
        reading = self._read("jobs", name, settings, place)
        jobs = reading.builder.jobs(reading.tables, self._config.defaults)
        reading.builder.check_pools()
        reading.finish()
        return jobs[name]

    def trigger(self, name: str, settings: Mapping[str, Any], place: Place) -> Trigger:
        """Return a trigger; raise ConfigError with all that is wrong.

        A setting that is no key of a trigger is the name of its source or timer: `cron="0 2 * * *"` stands for
        `on={"cron": "0 2 * * *"}`. Triggers on the same source share its settings. Whether the jobs and triggers that
        it names are there is not looked at, as they may come later: see `check`.
        """
        reading = self._read("triggers", name, self._with_on(name, settings, place), place)
        try:
            triggers = reading.builder.triggers(self._config.sources)
            reading.finish()
            self._refuse_loop(triggers[name], place)
        except BaseException:
            self.forget(name)
            raise
        return triggers[name]

    def maintenance(self, name: str, settings: Mapping[str, Any], place: Place) -> MaintenanceWindow:
        """Return a maintenance window; raise ConfigError with all that is wrong.

        Its settings come from outside, so no text of them may refer to the environment or to a file. Whether the
        triggers and jobs of its scope are there is not looked at.
        """
        if (path := _reference_in(settings, f"maintenance.{name}")) is not None:
            message = "refers to the environment or a file, which only a configuration file may"
            raise ConfigError([problem(place, path, message)])
        reading = self._read("maintenance", name, settings, place)
        windows = reading.builder.maintenance(dict(settings))
        reading.finish()
        return windows[name]

    def forget(self, trigger: str) -> None:
        """Forget a trigger: its source is no longer its."""
        self._owners.forget_trigger(trigger)

    def check(self, trigger: Trigger) -> None:
        """Raise ConfigError where a trigger names a job or a trigger that is not there."""
        wrong = list(self._unmet_of(trigger))
        if wrong:
            raise ConfigError(wrong)

    def check_all(self) -> None:
        """Raise ConfigError where a name is that of nothing, or triggers start themselves again without end."""
        wrong: list[ConfigProblem] = []
        for source in self._config.sources.values():
            wrong += self._unmet(mentions(source.on, ("sources", source.name, source.on.name)), source.defined_in)
        for one in self._config.conditions.values():
            if one.check is not None:
                path = ("conditions", one.name, "check", one.check.name)
                wrong += self._unmet(mentions(one.check, path), one.defined_in)
        for alert in self._config.alerts.values():
            scope, at = alert.scope, ("alerts", alert.name, "scope")
            found = [Mention(kind="trigger", name=name, path=(*at, "triggers")) for name in sorted(scope.triggers)]
            found += [Mention(kind="job", name=name, path=(*at, "jobs")) for name in sorted(scope.jobs)]
            wrong += self._unmet(found, alert.defined_in)
        for trigger in self._triggers.values():
            wrong += self._unmet_of(trigger)
        if not wrong:
            wrong = [self._told_of_loop(names) for names in self._loops()]
        if wrong:
            raise ConfigError(wrong)

    def _unmet_of(self, trigger: Trigger) -> Iterator[ConfigProblem]:
        path: KeyPath = ("triggers", trigger.name)
        yield from self._unmet([Mention(kind="job", name=trigger.job, path=(*path, "job"))], trigger.defined_in)
        job = self._jobs.get(trigger.job)
        said = None if job is None else said_of_retries(trigger, job)
        if said is not None:
            yield _problem(trigger.defined_in, (*path, "retry"), *said)
        for one in trigger.inputs:
            if one.shared is None:
                at = (*path, "on", trigger.on.name, one.name, one.on.name)
                yield from self._unmet(mentions(one.on, at), trigger.defined_in)
        if trigger.shared is None and not trigger.inputs:
            yield from self._unmet(mentions(trigger.on, (*path, "on", trigger.on.name)), trigger.defined_in)

    def _unmet(self, found: Iterator[Mention] | Sequence[Mention], defined_in: str) -> Iterator[ConfigProblem]:
        known: dict[str, Mapping[str, Any]] = {"job": self._jobs, "trigger": self._triggers}
        for mention in found:
            names = known.get(mention.kind)
            if names is not None and mention.name not in names:
                table = NAME_KINDS[mention.kind]
                message = f"found {show_value(mention.name)}, but there is no such {table.removesuffix('s')}"
                hint = near(mention.name, names) or f"there are no {table} yet"
                yield _problem(defined_in, mention.path, message, hint)

    def _refuse_loop(self, trigger: Trigger, place: Place) -> None:
        if not any(isinstance(on, Source) and on.follows_runs for _, on in trigger.feeds):
            return
        triggers = {**self._triggers, trigger.name: trigger}
        try:
            names = loop_through(trigger.name, triggers, self._tags())
        except PluginError as error:
            _log.warning("A loop can't be looked for", exc_info=True, extra={"action": "plugin.follows"})
            raise ConfigError([problem(place, f"triggers.{trigger.name}.on", str(error))]) from error
        if names is not None:
            raise ConfigError([problem(place, f"triggers.{trigger.name}.on", *said_of_loop(names, triggers))])

    def _loops(self) -> list[list[str]]:
        try:
            return list(find_loops(self._triggers, self._tags()))
        except PluginError as error:
            _log.warning("A loop can't be looked for", exc_info=True, extra={"action": "plugin.follows"})
            raise ConfigError([ConfigProblem(file="", line=0, path="triggers", message=str(error))]) from error

    def _told_of_loop(self, names: Sequence[str]) -> ConfigProblem:
        first = self._triggers[names[0]]
        return _problem(first.defined_in, ("triggers", first.name, "on"), *said_of_loop(names, self._triggers))

    def _tags(self) -> dict[str, frozenset[str]]:
        return {name: frozenset(job.tags) for name, job in self._jobs.items()}

    def _with_on(self, name: str, settings: Mapping[str, Any], place: Place) -> dict[str, Any]:
        """Return the settings with the sources among them, named as keywords, in `on`."""
        rest = {key: value for key, value in settings.items() if key in TRIGGER_KEYS}
        named = {key: value for key, value in settings.items() if key not in TRIGGER_KEYS and value is not None}
        known = plugins_of(self._registry, "on")
        wrong = [key for key in named if key not in known and self._registry.broken(key, "source", "timer") is None]
        if wrong:
            words = TRIGGER_KEYS | known.keys()
            raise ConfigError(
                [problem(place, f"triggers.{name}.{key}", "unknown key", near(key, words)) for key in wrong]
            )
        on = rest.get("on")
        if named and on is not None:
            found = " and ".join(["on", *named])
            raise ConfigError([problem(place, f"triggers.{name}", f"found {found}, expected one of them")])
        return {**rest, "on": named} if named else rest

    def _read(self, table: str, name: str, settings: Mapping[str, Any], place: Place) -> _Reading:
        given = {key: value for key, value in settings.items() if value is not None}
        try:
            root = node_of({table: {name: given}}, place)
        except ValueError as error:
            raise ConfigError([problem(place, f"{table}.{name}", str(error))]) from None
        problems = Problems()
        references = References(self._environment, problems)
        reader = SettingsReader(problems, references, self._registry)
        reader.named["preset"] = self._config.presets.keys()
        if table == "triggers":
            self._lay_preset(root, name, reader)
        reader.timezone = self._config.engine.timezone
        reader.inherited[RetryTable] = self._config.defaults.retry
        reader.elsewhere = DEFINED_BY_CODE
        reader.named["source_name"] = self._config.sources.keys()
        reader.named["calendar"] = self._config.calendars.keys()
        reader.named["condition"] = self._config.conditions.keys()
        reader.named["notify"] = self._config.receivers.keys()
        reader.sound[("sources",)] = dict(self._config.sources)
        shape = next(field.shape for field in fields_of(Root) if field.key == table)
        tables = reader.read(shape, root.value[table], (table,))
        builder = Builder(reader, root, {}, self._owners, self._config.calendars, self._config.engine.conditions)
        builder.pools = self._config.pools
        reading = _Reading(problems=problems, references=references, builder=builder, tables=tables)
        if len(problems):
            reading.finish()
        return reading

    def _lay_preset(self, root: Node, name: str, reader: SettingsReader) -> None:
        """Lay the preset that a trigger names, if it is one, under its settings."""
        path: KeyPath = ("triggers", name)
        table = root.nearest(path)
        named = table.value.get("preset")
        if named is None:
            return
        preset = self._config.presets.get(named.value) if isinstance(named.value, str) else None
        if preset is not None:
            table = root.value["triggers"].value[name] = lay_under(
                table, path, preset, plugins_of(self._registry, "on")
            )
        if preset is None or tell_missing(table, path, preset, reader.problems):
            reader.unfinished.add(path)


class _Reading(Struct):
    """What was read of one table."""

    problems: Problems
    references: References
    builder: Builder
    tables: Any

    def finish(self) -> None:
        """Raise what is wrong; else make the secrets' files that are to be made."""
        if not len(self.problems):
            self.references.write_generated()
        if len(self.problems):
            raise error_of(self.problems, self.references)


def window_reader(
    config: Config, registry: Registry, environment: Mapping[str, str]
) -> Callable[[str, dict[str, Any]], MaintenanceWindow]:
    """Return what makes maintenance windows of their names and settings; it raises ConfigError."""
    place = Place(file="", line=0, base=config.base, order=0)

    def read(name: str, settings: dict[str, Any]) -> MaintenanceWindow:
        given = Given(config=config, registry=registry, environment=environment, jobs=config.jobs, triggers={})
        return given.maintenance(name, settings, place)

    return read


def _reference_in(value: Any, path: str) -> str | None:
    """Return the path of a reference within settings, where there is one."""
    if isinstance(value, Mapping):
        if value and value.keys() <= _REFERENCE_KEYS:
            return path
        children = [(f"{path}.{key}", child) for key, child in value.items()]
    elif isinstance(value, list):
        children = [(f"{path}[{index}]", child) for index, child in enumerate(value)]
    else:
        return None
    return next((found for at, child in children if (found := _reference_in(child, at)) is not None), None)


def problem(place: Place, path: str, message: str, hint: str | None = None) -> ConfigProblem:
    """Return a mistake in what code defines."""
    return ConfigProblem(file=place.file, line=place.line, path=path, message=message, hint=hint)


def _problem(defined_in: str, path: KeyPath, message: str, hint: str | None = None) -> ConfigProblem:
    """Return a mistake in what was defined at a file and line."""
    file, _, line = defined_in.rpartition(":")
    if not line.isdecimal():  # the API, which has no lines
        file, line = defined_in, "0"
    return ConfigProblem(file=file, line=int(line), path=show_path(path), message=message, hint=hint)
