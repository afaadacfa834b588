"""From what files say and what the API defines to one configuration; what no longer fits is left out, and told."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from engine.clock import Clock
from engine.config import Config, Given, Place, problem
from engine.config.document import show_path
from engine.config.model import JobTable, TriggerTable
from engine.config.origins import API
from engine.config.overriding import overridden_job, overridden_trigger
from engine.config.permits import Mistake
from engine.config.scalars import near
from engine.config.shapes import fields_of
from engine.defined import Key, Kind
from engine.definitions.kept import Kept, Shelf
from engine.definitions.text import has_no_form
from engine.errors import ConfigError, ConfigProblem
from engine.jobs import Job
from engine.plugin import BadSetting, Runner, Source
from engine.registry import Registry
from engine.triggers import Trigger

log = logging.getLogger("engine.config")

_KEYS = {Kind.JOB: frozenset(field.key for field in fields_of(JobTable)),
         Kind.TRIGGER: frozenset(field.key for field in fields_of(TriggerTable))}  # fmt: skip


class Assembled(Struct, frozen=True, kw_only=True):
    """A configuration with what the API defines, and what of that is wrong: `dropped` are overrides."""

    config: Config
    invalid: Mapping[Key, tuple[ConfigProblem, ...]] = {}
    dropped: Mapping[Key, tuple[ConfigProblem, ...]] = {}

    @property
    def wrong(self) -> dict[Key, tuple[ConfigProblem, ...]]:
        """Return all that is wrong, definitions and overrides."""
        return {**self.invalid, **self.dropped}


class Assembler:
    """Reads definitions of the API beside a configuration. What was read once is read again where that is another."""

    def __init__(self, *, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._base: Config | None = None
        self._made: dict[Key, tuple[Kept, Job | Trigger]] = {}

    def assemble(self, base: Config, shelf: Shelf) -> Assembled:
        """Return the configuration of `base` and all definitions that fit."""
        if base is not self._base:
            self._base, self._made = base, {}
        invalid: dict[Key, tuple[ConfigProblem, ...]] = {}
        jobs, triggers, dropped = self._overridden(base, shelf)
        place = Place(file=API, line=0, base=base.base, order=0)
        for key, kept in shelf.kept.items():
            known = self._made.get(key)
            if known is not None and known[0] is kept:
                (jobs if key.kind is Kind.JOB else triggers)[key.name] = known[1]  # type: ignore[assignment]
        given = Given(config=base, registry=self._registry, environment={}, jobs=jobs, triggers=triggers)
        for key, kept in sorted(shelf.kept.items()):
            there: Mapping[str, Any] = base.jobs if key.kind is Kind.JOB else base.triggers
            if key.name in there:
                message = f"{there[key.name].defined_in} defines a {key.kind} of that name, which holds"
                invalid[key] = (problem(place, show_path((key.kind.table, key.name)), message),)
                continue
            known = self._made.get(key)
            if known is not None and known[0] is kept:
                continue
            try:
                one = self._read(given, key, kept.settings, place, base)
            except ConfigError as error:
                self._made.pop(key, None)
                (jobs if key.kind is Kind.JOB else triggers).pop(key.name, None)
                invalid[key] = error.problems
                continue
            self._made[key] = (kept, one)
            (jobs if key.kind is Kind.JOB else triggers)[key.name] = one  # type: ignore[assignment]
        self._check_names(given, shelf, triggers, invalid)
        for gone in self._made.keys() - shelf.kept.keys():
            del self._made[gone]
        config = replace(base, jobs=jobs, triggers=triggers)
        return Assembled(config=config, invalid=invalid, dropped=dropped)

    def _read(
        self, given: Given, key: Key, settings: Mapping[str, Any], place: Place, base: Config
    ) -> Job | Trigger:  # fmt: skip
        path = (key.kind.table, key.name)
        known = _KEYS[key.kind]
        wrong = [
            problem(place, show_path((*path, name)), "unknown key", near(name, known))
            for name in settings
            if name not in known
        ] + [
            problem(place, show_path((*path, *at)), message, None)
            for at, message in _without_form(settings, ())
        ]  # fmt: skip
        if not wrong and (said := has_no_form(settings, key)) is not None:
            wrong = [problem(place, show_path(path), said)]
        if wrong:
            raise ConfigError(wrong)
        refused: list[Mistake]
        one: Job | Trigger
        if key.kind is Kind.JOB:
            one = given.job(key.name, settings, place)
            refused = list(base.permits.refused_of_job(one, settings))
        else:
            one = given.trigger(key.name, settings, place)
            refused = list(base.permits.refused_of_trigger(one, self._clock.now()))
            if refused:
                given.forget(key.name)
        if refused:
            raise ConfigError([problem(place, show_path((*path, *at)), message, hint) for at, message, hint in refused])
        return replace(one, defined_in=API)

    def examined(self, config: Config, keys: Iterable[Key]) -> dict[Key, tuple[ConfigProblem, ...]]:
        """Let the runners of jobs look at what their settings name outside of them; return what is wrong.

        It may take its time.
        """
        by_kind: dict[type[Runner], dict[str, Any]] = {}
        for key in keys:
            if key.kind is Kind.JOB and (job := config.jobs.get(key.name)) is not None:
                by_kind.setdefault(type(job.runner), {})[key.name] = job.runner
        place = Place(file=API, line=0, base=config.base, order=0)
        wrong: dict[Key, tuple[ConfigProblem, ...]] = {}
        for cls, runners in by_kind.items():
            try:
                found = dict(cls.examine(runners, config.base))
            except Exception as error:  # examine is plugin code
                log.warning("%s: examine failed", cls.name, exc_info=True, extra={"action": "plugin.examine"})
                said = f"looking at what it names failed with {type(error).__name__}: {error}"
                found = {next(iter(runners)): BadSetting("", said)}
            for name, bad in found.items():
                path = show_path(("jobs", name, "run", cls.name, *([bad.field] if bad.field else [])))
                wrong[Key(Kind.JOB, name)] = (problem(place, path, str(bad), bad.hint),)
        return wrong

    def _check_names(
        self, given: Given, shelf: Shelf, triggers: dict[str, Trigger], invalid: dict[Key, tuple[ConfigProblem, ...]]
    ) -> None:
        """Take away what names a job or a trigger that is not there, and what names that, until all names are."""
        again = True
        while again:
            again = False
            for key in shelf.kept:
                if key.kind is Kind.TRIGGER and key not in invalid and key.name in triggers:
                    try:
                        given.check(triggers[key.name])
                    except ConfigError as error:
                        invalid[key] = error.problems
                        given.forget(key.name)
                        del triggers[key.name]
                        again = True

    def _overridden(
        self, base: Config, shelf: Shelf
    ) -> tuple[dict[str, Job], dict[str, Trigger], dict[Key, tuple[ConfigProblem, ...]]]:
        jobs, triggers = dict(base.jobs), dict(base.triggers)
        dropped: dict[Key, tuple[ConfigProblem, ...]] = {}
        for key, override in shelf.overrides.items():
            try:
                if key.kind is Kind.JOB and key.name in jobs:
                    jobs[key.name] = overridden_job(jobs[key.name], override.changes, self._registry)
                elif key.kind is Kind.TRIGGER and key.name in triggers:
                    triggers[key.name] = overridden_trigger(
                        triggers[key.name], override.changes, self._registry, override.at
                    )
            except ConfigError as error:
                dropped[key] = error.problems
        _share_sources(shelf, base.triggers, triggers)
        return jobs, triggers, dropped


def _share_sources(shelf: Shelf, before: Mapping[str, Trigger], triggers: dict[str, Trigger]) -> None:
    """Give the source of a trigger whose interval is overridden to all that are on it: it is one."""
    for key in shelf.overrides:
        changed = triggers.get(key.name) if key.kind is Kind.TRIGGER else None
        if changed is None or not isinstance(changed.on, Source) or changed.on == before[key.name].on:
            continue
        for name, one in triggers.items():
            if one.source == changed.source and one.shared is None:
                triggers[name] = replace(one, on=changed.on)
            elif any(each.source == changed.source and each.shared is None for each in one.inputs):
                inputs = (
                    replace(each, on=changed.on) if each.source == changed.source and each.shared is None else each
                    for each in one.inputs
                )  # fmt: skip
                triggers[name] = replace(one, inputs=tuple(inputs))


def _without_form(value: Any, path: tuple[str | int, ...]) -> list[tuple[tuple[str | int, ...], str]]:
    """Return where something stands that a configuration can't hold: a reference, or nothing at all."""
    if value is None:
        return [(path, "is null, which has no form in a configuration; leave it out")]
    found: list[tuple[tuple[str | int, ...], str]] = []
    if isinstance(value, Mapping):
        if value and value.keys() <= {"env", "file", "generate"} and path[:1] not in (("data",), ("defaults",)):
            return [(path, "refers to the environment or a file, which only a configuration file may")]
        for name, child in value.items():
            found += _without_form(child, (*path, name))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            found += _without_form(child, (*path, index))
    return found
