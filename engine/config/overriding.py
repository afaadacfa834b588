"""What may hold in the place of what a configuration file says of a job or a trigger, until it is reset."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct
from msgspec.structs import replace

from engine.config.document import Node, Place, Problems, node_of
from engine.config.loader import error_of
from engine.config.model import AdaptiveTable, Priority
from engine.config.plugin_tables import SettingsReader
from engine.config.reader import BAD
from engine.config.references import References
from engine.config.shapes import fields_of
from engine.decide.schedule import Schedule, schedule_of
from engine.errors import ConfigError, ConfigProblem, EngineError
from engine.jobs import Job
from engine.plugin import BadSetting, Source, Timer
from engine.plugin.settings import Duration
from engine.registry import Registry
from engine.triggers import PRIORITIES, Trigger

SHORTEST_POLL_S = 1.0
_NOWHERE = Path()
"""No setting of an override is a path."""


class AdaptiveChange(Struct, frozen=True, kw_only=True):
    """Bounds and thresholds of an adaptive trigger."""

    min: Annotated[Duration | None, Meta(gt=0, description="The shortest interval.")] = None
    max: Annotated[Duration | None, Meta(gt=0, description="The longest interval.")] = None
    success_rate_min: Annotated[float | None, Meta(ge=0, le=1, description="See `[triggers.NAME.adaptive]`.")] = None
    duration_max: Annotated[Duration | None, Meta(gt=0, description="The same.")] = None
    cpu_max: Annotated[float | None, Meta(gt=0, le=1, description="The same.")] = None
    memory_max: Annotated[float | None, Meta(gt=0, le=1, description="The same.")] = None
    load_max: Annotated[float | None, Meta(gt=0, description="The same.")] = None
    volume_target: Annotated[float | None, Meta(gt=0, description="The same.")] = None


class TriggerChange(Struct, frozen=True, kw_only=True):
    """What may be overridden of a trigger; what is left out stays as it is."""

    enabled: Annotated[bool | None, Meta(description="Whether it works at all.")] = None
    priority: Annotated[Priority | None, Meta(description="What its runs have when the event asks for nothing.")] = None
    interval: Annotated[
        Duration | None, Meta(gt=0, description="Of one on an interval, or on a source that polls.")
    ] = None
    expect: Annotated[Duration | None, Meta(gt=0, description="Where no event comes for so long, people are told.")] = (
        None
    )
    timeout: Annotated[Duration | None, Meta(gt=0, description="Bound of one attempt of its runs.")] = None
    max_waiting: Annotated[int | None, Meta(ge=1, description="So many of its runs may wait.")] = None
    pause_after: Annotated[int | None, Meta(ge=1, description="After so many failures in a row it is paused.")] = None
    adaptive: Annotated[AdaptiveChange | None, Meta(description="Bounds and thresholds of an adaptive one.")] = None


class JobChange(Struct, frozen=True, kw_only=True):
    """What may be overridden of a job; what is left out stays as it is."""

    enabled: Annotated[bool | None, Meta(description="Whether it works at all.")] = None
    timeout: Annotated[Duration | None, Meta(gt=0, description="Bound of one attempt, from its start.")] = None
    concurrency: Annotated[int | None, Meta(ge=1, description="Runs of this job at once.")] = None


TABLES: Mapping[str, type[Struct]] = {"trigger": TriggerChange, "job": JobChange}


def overridden_job(job: Job, changes: Mapping[str, Any], registry: Registry) -> Job:
    """Return a job as an override has it; raise ConfigError where it can't be so."""
    given = _read("job", job.name, changes, registry)
    found = {"enabled": given.enabled, "timeout_s": given.timeout, "concurrency": given.concurrency}
    return replace(job, **{key: value for key, value in found.items() if value is not None})


def overridden_trigger(trigger: Trigger, changes: Mapping[str, Any], registry: Registry, since: datetime) -> Trigger:
    """Return a trigger as an override that holds since an instant has it; raise ConfigError where it can't be so.

    Another interval begins one interval after `since`, so that every restart comes to the same instants.
    """
    given = _read("trigger", trigger.name, changes, registry)
    found = {
        "enabled": given.enabled, "expect_s": given.expect, "timeout_s": given.timeout,
        "max_waiting": given.max_waiting, "pause_after": given.pause_after,
    }  # fmt: skip
    changed = {key: value for key, value in found.items() if value is not None}
    if given.priority is not None:
        priority = given.priority
        changed["priority"] = PRIORITIES[priority] if isinstance(priority, str) else priority
        changed["priority_from"] = None
    if given.adaptive is not None:
        changed["adaptive"] = _adapted(trigger, given.adaptive)
    if given.interval is not None:
        changed |= _paced(trigger, given.interval, since)
    return replace(trigger, **changed)


def _paced(trigger: Trigger, interval_s: float, since: datetime) -> dict[str, Any]:
    on, schedule = trigger.on, schedule_of(trigger)
    if isinstance(on, Source) and on.base_interval() is not None:
        return _polled(trigger, on, interval_s)
    if not isinstance(on, Timer) or schedule is None or on.base_interval() is None:
        raise _refused(trigger.name, "interval", f"{on.name} has no interval")
    try:
        timer = on.paced(interval_s, since + timedelta(seconds=interval_s))
        made = Schedule(trigger=schedule.trigger, timer=timer, calendars=schedule.calendars)
        made.check()
    except (BadSetting, EngineError) as error:
        raise _refused(trigger.name, "interval", str(error)) from None
    return {"on": timer, "schedule": made}


def _polled(trigger: Trigger, on: Source, interval_s: float) -> dict[str, Any]:
    if trigger.shared is not None:
        said = f"is that of source {trigger.shared.name}, which others may be on, too"
        raise _refused(trigger.name, "interval", said, "change it in the configuration file")
    if interval_s < SHORTEST_POLL_S:
        raise _refused(trigger.name, "interval", "is shorter than a second")
    try:
        return {"on": on.with_interval(interval_s)}
    except BadSetting as error:
        raise _refused(trigger.name, "interval", str(error), error.hint) from None


def _adapted(trigger: Trigger, change: Any) -> Any:
    adaptive = trigger.adaptive
    if adaptive is None:
        raise _refused(trigger.name, "adaptive", "its interval is not adaptive")
    before = {
        "min": adaptive.min_s, "max": adaptive.max_s, "success_rate_min": adaptive.success_rate_min,
        "duration_max": adaptive.duration_max_s, "cpu_max": adaptive.cpu_max, "memory_max": adaptive.memory_max,
        "load_max": adaptive.load_max, "volume": adaptive.volume, "volume_target": adaptive.volume_target,
        "step": adaptive.step, "hold": adaptive.hold, "mode": adaptive.mode,
    }  # fmt: skip
    given = {field.name: getattr(change, field.name) for field in fields_of(AdaptiveChange)}
    try:
        table = AdaptiveTable(**{**before, **{key: value for key, value in given.items() if value is not None}})
    except BadSetting as error:
        raise _refused(trigger.name, f"adaptive.{error.field}", str(error), error.hint) from None
    base_s = trigger.on.base_interval()
    if base_s is not None and not table.min <= base_s <= table.max:
        raise _refused(trigger.name, "adaptive", "the interval would not be between min and max")
    return table.rule()


def _read(kind: str, name: str, changes: Mapping[str, Any], registry: Registry) -> Any:
    """Read changes as the configuration is read; raise ConfigError with all that is wrong."""
    place = Place("api", 0, _NOWHERE, 0)
    path = (f"{kind}s", name)
    problems = Problems()
    reader = SettingsReader(problems, References({}, problems), registry)
    try:
        node: Node = node_of(dict(changes), place)
    except ValueError as error:
        raise _refused(name, "", str(error)) from None
    cls = TABLES[kind]
    values = reader.read_fields(cls, node, path)
    if values is BAD or len(problems):
        raise error_of(problems, reader.references)
    return reader.build(cls, values, node, path)


def _refused(name: str, key: str, message: str, hint: str | None = None) -> ConfigError:
    path = f"triggers.{name}.{key}".rstrip(".")
    return ConfigError([ConfigProblem(file="api", line=0, path=path, message=message, hint=hint)])
