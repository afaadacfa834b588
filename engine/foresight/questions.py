"""What may be asked of the simulation, and what is wrong with a question."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta
from itertools import pairwise

from msgspec import Struct

from engine.clock import rfc3339
from engine.foresight.simulation import Downtime, World
from engine.units import format_span

SHORTEST_QUIET_S = 60.0


class Question(Struct, frozen=True, kw_only=True):
    """What would happen from `start` until before `end`.

    - `triggers`, `tags`: what is told of; all triggers have their part in the simulation, as they share the slots.
    - `durations`: seconds by job; `past`: whether past runs tell of the other jobs.
    - `downtimes`: when the engine is stopped.
    - `quiet_s`: how long the windows are that are looked for, None for none; `windows` how many.
    - `first`: how many examples of each kind are told.
    """

    start: datetime
    end: datetime
    triggers: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    durations: Mapping[str, float] = {}
    past: bool = True
    downtimes: tuple[Downtime, ...] = ()
    quiet_s: float | None = None
    windows: int = 3
    first: int = 10

    def only(self, world: World) -> frozenset[str] | None:
        """Return the names of the triggers that are told of, None for all."""
        if not self.triggers and not self.tags:
            return None
        tagged = {name for name in world.triggers if self.tags & _tags(world, name)}
        return self.triggers | frozenset(tagged)

    def mistakes(self, world: World, longest: timedelta) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with it: the member, and a sentence."""
        if self.end <= self.start:
            yield "to", f"the end, {rfc3339(self.end)}, is not after the beginning, {rfc3339(self.start)}"
        elif self.end - self.start > longest:
            yield "to", f"it is {format_span((self.end - self.start).total_seconds())} long; at most {longest.days}d"
        for name in sorted(self.triggers - world.triggers.keys()):
            yield "triggers", f"there is no trigger {name}{_near(name, world.triggers)}"
        tags = {tag for name in world.triggers for tag in _tags(world, name)}
        for tag in sorted(self.tags - tags):
            yield "tags", f"no trigger has the tag {tag}{_near(tag, tags)}"
        for job in sorted(self.durations.keys() - world.jobs.keys()):
            yield "durations", f"there is no job {job}{_near(job, world.jobs)}"
        for downtime in self.downtimes:
            if downtime.end <= downtime.start:
                yield "down", f"a downtime ends, {rfc3339(downtime.end)}, before it begins"
        ordered = sorted(self.downtimes, key=lambda downtime: downtime.start)
        for before, after in pairwise(ordered):
            if after.start < before.end:
                yield "down", f"the downtimes from {rfc3339(before.start)} and {rfc3339(after.start)} overlap"
        if self.quiet_s is not None and not SHORTEST_QUIET_S <= self.quiet_s <= (self.end - self.start).total_seconds():
            yield "quiet", "a window is at least a minute long, and no longer than the time that is asked for"


def _tags(world: World, name: str) -> set[str]:
    """Return the tags of a trigger and of its job, as a pause by tag counts them."""
    trigger = world.triggers[name]
    return {*trigger.tags, *world.jobs[trigger.job].tags}


def _near(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
