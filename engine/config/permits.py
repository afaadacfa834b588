"""What the API may define: which runners, programs and sources, and within which limits."""

from __future__ import annotations

import os.path
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Annotated, Any

from msgspec import Meta, Struct
from msgspec.structs import asdict

from engine.config.document import KeyPath, show_value
from engine.decide.schedule import schedule_of, timers_of
from engine.jobs import Job
from engine.plugin import Secret, Source, Timer
from engine.plugin.settings import Duration
from engine.triggers import Trigger
from engine.units import format_duration

INSTANTS_LOOKED_AT = 200
"""So many due instants to come tell how often a timer without a fixed interval is due."""

SHARED_PREFIX = "sources."
"""Begins the name of a source of the configuration, among those that the API may use."""

Mistake = tuple[KeyPath, str, str | None]
"""Where something is refused, why, and the way out."""


class LimitsTable(Struct, frozen=True, kw_only=True):
    """Limits to what the API defines, and to what it overrides."""

    min_interval: Annotated[
        Duration | None, Meta(gt=0, description="No trigger of the API may be due, or poll, more often. Default: none.")
    ] = None
    per_creator: Annotated[int, Meta(ge=1, description="So many may one token or user define.")] = 1000
    look_ahead: Annotated[
        Duration, Meta(gt=0, description="A trigger of the API has to be due within this time for the first time.")
    ] = 365 * 86400.0


class Permits(Struct, frozen=True, kw_only=True):
    """What the API may define; each is a list of names in which `*` stands for anything. Nothing, where they are empty.

    - `runners`, `sources`: kinds; `sources.NAME` is one that the configuration defines.
    - `commands`: programs and functions that runners start on this machine.
    """

    runners: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    limits: LimitsTable = LimitsTable()

    def refused_of_job(self, job: Job, settings: Mapping[str, Any]) -> Iterator[Mistake]:
        """Yield what a job of the API may not have."""
        runner = job.runner
        path: KeyPath = ("run", runner.name)
        if not _allowed(runner.name, self.runners):
            yield (
                path,
                f"the API may not use the runner {show_value(runner.name)}",
                _way_out("api_runners", runner.name),
            )
            return
        for program in runner.programs():
            if not _allowed(program, self.commands) or os.path.normpath(program) != program:
                yield path, f"the API may not run {show_value(program)}", _way_out("api_commands", program)
        table = settings.get("run", {}).get(runner.name)
        for key in sorted(type(runner).guarded & table.keys()) if isinstance(table, dict) else ():
            yield (*path, key), "can be set in a configuration file alone: it can do more than what is allowed", None
        if job.callback is not None:
            yield from _secrets(job.callback.channel, ("callback",))
        yield from _secrets(runner, path)

    def refused_of_trigger(self, trigger: Trigger, now: datetime) -> Iterator[Mistake]:
        """Yield what a trigger of the API may not have."""
        for one, shared, path in _sources_of(trigger):
            name = one.name if shared is None else f"{SHARED_PREFIX}{shared}"
            if not _allowed(name, self.sources):
                yield path, f"the API may not use the source {show_value(name)}", _way_out("api_sources", name)
            elif shared is None:
                yield from _secrets(one, path)
        yield from self.refused_of_pace(trigger, now)

    def refused_of_pace(self, trigger: Trigger, now: datetime) -> Iterator[Mistake]:
        """Yield what is wrong with how often a trigger is due, or when for the first time."""
        least_s, latest = self.limits.min_interval, now + timedelta(seconds=self.limits.look_ahead)
        for timer in timers_of(trigger):
            schedule = schedule_of(timer)
            first = None if schedule is None else schedule.next(now)
            if schedule is None or first is None:
                continue
            if first > latest:
                span = format_duration(self.limits.look_ahead)
                yield ("on",), f"is due more than {span} from now for the first time", "see [limits] look_ahead"
            if least_s is not None and (found_s := _shortest(schedule, first)) is not None and found_s < least_s:
                yield _too_often("on", found_s, least_s)
        if least_s is None:
            return
        for on in (trigger.on, *(one.on for one in trigger.inputs)):
            polls_s = on.base_interval() if isinstance(on, Source) else None
            if polls_s is not None and polls_s < least_s:
                yield _too_often("on", polls_s, least_s)
        if trigger.adaptive is not None and trigger.adaptive.min_s < least_s:
            yield _too_often("adaptive.min", trigger.adaptive.min_s, least_s)


def _too_often(key: str, found_s: float, least_s: float) -> Mistake:
    said = f"comes every {format_duration(found_s)}, and not less than {format_duration(least_s)} is allowed"
    return tuple(key.split(".")), said, "see [limits] min_interval"


def _shortest(schedule: Any, first: datetime) -> float | None:
    """Return the shortest time between two due instants, in seconds, as far as it is looked at."""
    instants = [first]
    while len(instants) < INSTANTS_LOOKED_AT and (due := schedule.next(instants[-1])) is not None:
        instants.append(due)
    return min(((later - earlier).total_seconds() for earlier, later in pairwise(instants)), default=None)


def _sources_of(trigger: Trigger) -> Iterator[tuple[Source | Timer, str | None, KeyPath]]:
    """Yield the sources of a trigger, with the names of those that it shares, and where they stand."""
    if not trigger.inputs:
        shared = None if trigger.shared is None else trigger.shared.name
        yield trigger.on, shared, ("on", trigger.on.name if shared is None else "source")
    for one in trigger.inputs:
        shared = None if one.shared is None else one.shared.name
        path = ("on", trigger.on.name, one.name, one.on.name if shared is None else "source")
        yield one.on, shared, path


def _allowed(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _way_out(key: str, name: str) -> str:
    return f"allow it with [security] {key} = [{show_value(name)}]"


def _secrets(value: Any, path: KeyPath) -> Iterator[Mistake]:
    """Yield where a secret stands: what the API defines is stored and exported as it is, and so holds none."""
    if isinstance(value, Secret):
        yield path, "is a secret, which can stand in a configuration file alone", None
    elif isinstance(value, Struct):
        for name, child in asdict(value).items():
            yield from _secrets(child, (*path, name))
    elif isinstance(value, Mapping):
        for name, child in value.items():
            yield from _secrets(child, (*path, str(name)))
    elif isinstance(value, (list, tuple)):
        for index, child in enumerate(value):
            yield from _secrets(child, (*path, index))
