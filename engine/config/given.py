"""Jobs and triggers that code defines, read as those of config.toml are: the same rules, and the same sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

from engine.config.build import Builder
from engine.config.document import Place, Problems, node_of
from engine.config.loader import error_of
from engine.config.model import Config, RetryTable, Root, TriggerTable
from engine.config.plugin_tables import SettingsReader, plugins_of
from engine.config.references import References
from engine.config.scalars import near
from engine.config.shapes import fields_of
from engine.errors import ConfigError, ConfigProblem
from engine.jobs import Job
from engine.registry import Registry
from engine.triggers import Trigger

TRIGGER_KEYS = frozenset(field.key for field in fields_of(TriggerTable))


class Given:
    """Reads the settings of jobs and triggers, one at a time.

    What `config` says in `[engine]` and `[defaults]` holds for them. Settings are those of config.toml as Python has
    them; None is a setting that is left out, and a plugin may also be an instance of its class.
    """

    def __init__(self, *, config: Config, registry: Registry, environment: Mapping[str, str]) -> None:
        self._config = config
        self._registry = registry
        self._environment = environment

    def job(self, name: str, settings: Mapping[str, Any], place: Place) -> Job:
        """Return a job; raise ConfigError with all that is wrong."""
        reading = self._read("jobs", name, settings, place)
        jobs = reading.builder.jobs(reading.tables, self._config.defaults)
        reading.finish()
        return jobs[name]

    def trigger(self, name: str, settings: Mapping[str, Any], place: Place, beside: Mapping[str, Trigger]) -> Trigger:
        """Return a trigger; raise ConfigError with all that is wrong.

        A setting that is no key of a trigger is the name of its source or timer: `cron="0 2 * * *"` stands for
        `on={"cron": "0 2 * * *"}`. `beside` are other triggers by source: those on the same one share its settings.
        Whether its job is there is not looked at.
        """
        reading = self._read("triggers", name, self._with_on(name, settings, place), place)
        triggers = reading.builder.triggers(beside)
        reading.finish()
        return triggers[name]

    def _with_on(self, name: str, settings: Mapping[str, Any], place: Place) -> dict[str, Any]:
        """Return the settings with the sources among them, named as keywords, in `on`."""
        rest = {key: value for key, value in settings.items() if key in TRIGGER_KEYS}
        named = {key: value for key, value in settings.items() if key not in TRIGGER_KEYS and value is not None}
        known = plugins_of(self._registry, "source")
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
        reader.timezone = self._config.engine.timezone
        reader.inherited[RetryTable] = self._config.defaults.retry
        shape = next(field.shape for field in fields_of(Root) if field.key == table)
        tables = reader.read(shape, root.value[table], (table,))
        reading = _Reading(problems=problems, references=references, builder=Builder(reader, root, {}), tables=tables)
        if len(problems):
            reading.finish()
        return reading


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


def problem(place: Place, path: str, message: str, hint: str | None = None) -> ConfigProblem:
    """Return a mistake in what code defines."""
    return ConfigProblem(file=place.file, line=place.line, path=path, message=message, hint=hint)


def unknown_job(place: Place, path: str, job: str, known: Iterable[str]) -> ConfigProblem:
    """Return the mistake that there is no such job."""
    return problem(place, path, f'found "{job}", but there is no such job', near(job, known) or "there are no jobs yet")
