"""The jobs and triggers that a program defines, beside those of its configuration files."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from engine.config import TRIGGER_KEYS, Config, Given, Place, load, node_of, problem
from engine.config.scalars import near
from engine.embedding.functions import Function, is_async
from engine.embedding.places import definition
from engine.errors import ConfigError, NotFound, PluginError
from engine.jobs import Job
from engine.plugin import Plugin
from engine.registry import Registry
from engine.triggers import SHAPING, Trigger

JobFunction = Callable[[Any], object]

_STAND_IN = "event.id"

_DEEPEST_NAME = 5
"""How deep functions may stand in settings in the place of names: `all={"tea": {"run": {"job": [brew]}}, …}`."""


class Definitions:
    """Jobs and triggers by name, each checked when it is defined."""

    def __init__(
        self, files: Sequence[Path], settings: Mapping[str, Any], plugins: Sequence[type[Plugin]], place: Place
    ) -> None:
        """Read the configuration: files, and settings of code over them; raise ConfigError with all that is wrong."""
        self._classes = tuple(plugins)
        self._place = place
        # Without a file the environment overrides nothing: what a program says is what holds.
        environment = os.environ if files else {}
        self.registry = Registry()
        self._files, self._settings, self._environment = tuple(files), settings, environment
        self.config = load(
            files, environment=environment, create_secrets=True, given=node_of(settings, place), discover=self._discover
        )
        self._read: Config | None = None
        self.jobs: dict[str, Job] = dict(self.config.jobs)
        self.triggers: dict[str, Trigger] = dict(self.config.triggers)
        self._given = Given(
            config=self.config, registry=self.registry, environment=os.environ, jobs=self.jobs, triggers=self.triggers
        )
        self._job_of: dict[int, tuple[JobFunction, str]] = {}

    def _discover(self, folders: Sequence[Path]) -> Registry:
        self.registry = Registry.discover(folders)
        for number, plugin in enumerate(self._classes):
            try:
                self.registry.add(plugin)
            except PluginError as error:
                raise ConfigError([problem(self._place, f"plugins[{number}]", str(error))]) from None
        return self.registry

    def add_job(self, function: JobFunction, settings: Mapping[str, Any]) -> Job:
        """Define a job that calls a function; it has the function's name where the settings give none."""
        place = definition(function, self.config.base)
        name = str(settings.get("name") or getattr(function, "__name__", type(function).__name__))
        _check_function(function, place, f"jobs.{name}")
        _refuse_second(self.jobs, name, place, "jobs")
        rest = {key: value for key, value in settings.items() if key != "name" and value is not None}
        described = {"description": _first_line(function), **rest}
        key = described.get("concurrency_key")
        if callable(key):
            _check_judge(key, place, f"jobs.{name}.concurrency_key")
            described["concurrency_key"] = _STAND_IN
        job = self._given.job(name, {**described, "run": Function(function=function)}, place)
        if callable(key):
            job = replace(job, concurrency_key=key)
        self.jobs[name] = job
        self._job_of[id(function)] = (function, name)
        return job

    def add_trigger(self, name: str, job: str | JobFunction, settings: Mapping[str, Any], place: Place) -> Trigger:
        """Define a trigger. Whether there are the jobs and triggers that it names may show later: see `check`.

        Where it is on the ends of runs, a job is also named by its function.
        """
        _refuse_second(self.triggers, name, place, "triggers")
        job = job if isinstance(job, str) else self.name_of(job, place, f"triggers.{name}.job")
        plain, functions = _apart(settings, place, f"triggers.{name}")
        sources = plain.keys() - (TRIGGER_KEYS - {"on"})
        plain |= {key: self._with_names(plain[key]) for key in sources}
        trigger = self._given.trigger(name, {**plain, "job": job}, place)
        trigger = self.triggers[name] = _with_functions(trigger, functions)
        return trigger

    def _with_names(self, value: Any, depth: int = 0) -> Any:
        """Return settings of a source in which each job's function is its name."""
        if isinstance(value, Mapping) and depth < _DEEPEST_NAME:
            return {key: self._with_names(child, depth + 1) for key, child in value.items()}
        if isinstance(value, (list, tuple)) and depth < _DEEPEST_NAME:
            return [self._with_names(child, depth + 1) for child in value]
        known = self._job_of.get(id(value))
        return value if known is None else known[1]

    def forget(self, name: str) -> None:
        """Forget a trigger."""
        if self.triggers.pop(name, None) is not None:
            self._given.forget(name)

    def name_of(self, function: JobFunction, place: Place, path: str) -> str:
        """Return the name of the job that a function is; raise ConfigError where it is none."""
        known = self._job_of.get(id(function))
        if known is None:
            shown = getattr(function, "__name__", repr(function))
            raise ConfigError(
                [problem(place, path, f"{shown} is no job", "put @engine.job on the function, nearest to it")]
            )
        return known[1]

    def trigger(self, name: str) -> Trigger:
        """Return a trigger; raise NotFound, with a near miss."""
        trigger = self.triggers.get(name)
        if trigger is None:
            hint = near(name, self.triggers) or "there are no triggers"
            raise NotFound(f'there is no trigger "{name}" ({hint})')
        return trigger

    def check(self, trigger: Trigger) -> None:
        """Raise ConfigError where a trigger names a job or a trigger that is not there."""
        self._given.check(trigger)

    @property
    def files(self) -> tuple[Path, ...]:
        """The configuration files."""
        return self._files

    def reread(self) -> Config:
        """Read the files anew, and return the configuration with all that code has defined; nothing else changes.

        Raises ConfigError with all that is wrong.
        """
        read = load(
            self._files, environment=self._environment, create_secrets=True, registry=self.registry,
            given=node_of(self._settings, self._place),
        )  # fmt: skip
        # Read in a thread: the program may define something meanwhile.
        jobs = {name: job for name, job in dict(self.jobs).items() if name not in self.config.jobs}
        triggers = {name: one for name, one in dict(self.triggers).items() if name not in self.config.triggers}
        wrong = [
            problem(self._place, f"{table}.{name}", f"{own[name].defined_in} defines one of that name, too")
            for table, own, found in (("jobs", jobs, read.jobs), ("triggers", triggers, read.triggers))
            for name in sorted(own.keys() & found.keys())
        ]
        if wrong:
            raise ConfigError(wrong)
        jobs, triggers = {**read.jobs, **jobs}, {**read.triggers, **triggers}
        given = Given(
            config=read, registry=self.registry, environment=os.environ, jobs=jobs, triggers=triggers
        )  # fmt: skip
        given.check_all()
        self._read = read
        return replace(read, jobs=jobs, triggers=triggers)

    def take_files(self) -> None:
        """Go by the files as they were read last, from now on."""
        read = self._read
        if read is None:
            return
        for name in self.config.jobs:
            self.jobs.pop(name, None)
        for name in self.config.triggers:
            self.triggers.pop(name, None)
        self.jobs.update(read.jobs)
        self.triggers.update(read.triggers)
        self.config = read
        self._given = Given(
            config=read, registry=self.registry, environment=os.environ, jobs=self.jobs, triggers=self.triggers
        )

    def whole(self) -> Config:
        """Return the configuration with all that was defined.

        Raises ConfigError for names of jobs and triggers that are not there, and for triggers that start themselves.
        """
        self._given.check_all()
        return replace(self.config, jobs=dict(self.jobs), triggers=dict(self.triggers))


def _refuse_second(known: Mapping[str, Any], name: str, place: Place, table: str) -> None:
    first = known.get(name)
    if first is not None:
        noun = table.removesuffix("s")
        message = f"there is a {noun} of that name already, in {first.defined_in}"
        raise ConfigError([problem(place, f"{table}.{name}", message, "give one of them another name: name=…")])


def _check_function(function: Any, place: Place, path: str) -> None:
    """Refuse what can't be called with one argument, or whose call does nothing yet."""
    message = None
    if not callable(function):
        message = f"found {function!r:.80}, expected a function"
    elif inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        message = "is a generator; expected a function that returns when its work is done"
    else:
        try:
            inspect.signature(function).bind(None)
        except TypeError:
            message = "can't be called with one argument, as it will be"
        except ValueError:
            return  # no signature is known of it
    if message is not None:
        raise ConfigError([problem(place, path, message)])


def _check_judge(function: Any, place: Place, path: str) -> None:
    """Refuse what does not answer at once about an event."""
    _check_function(function, place, path)
    if is_async(function):
        raise ConfigError([problem(place, path, "is asynchronous; expected a function that answers at once")])


def _apart(settings: Mapping[str, Any], place: Place, path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings without the functions that stand for expressions, and these, by their places."""
    plain = dict(settings)
    functions = {key: plain.pop(key) for key in ("filter", "data") if callable(plain.get(key))}
    for gate in (*SHAPING, "join"):
        table = plain.get(gate)
        if isinstance(table, Mapping) and callable(table.get("key")):
            # Something has to stand there where a key is required.
            plain[gate] = {**table, "key": _STAND_IN}
            functions[f"{gate}.key"] = table["key"]
    for key, function in functions.items():
        _check_judge(function, place, f"{path}.{key}")
    return plain, functions


def _with_functions(trigger: Trigger, functions: Mapping[str, Any]) -> Trigger:
    changed = {}
    for key, function in functions.items():
        name, _, member = key.partition(".")
        changed[name] = replace(getattr(trigger, name), **{member: function}) if member else function
    return replace(trigger, **changed)


def _first_line(function: JobFunction) -> str:
    return inspect.cleandoc(getattr(function, "__doc__", None) or "").split("\n", 1)[0]
