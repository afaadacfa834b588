"""Loops: triggers on the ends of runs that start, perhaps by way of each other, what they follow."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter

from engine.plugin import OUTCOMES, PluginError, RunEnd, Source
from engine.triggers import Trigger


def find_loops(triggers: Mapping[str, Trigger], tags: Mapping[str, frozenset[str]]) -> Iterator[list[str]]:
    """Yield the names of the triggers of each loop, in the order in which they start one another.

    `tags` are those of the jobs. A trigger whose source says that loops are meant breaks every loop through it. For
    each trigger in a loop one is told, and none twice. Raises PluginError where a source can't be asked.
    """
    following = _following(triggers, tags)
    try:
        TopologicalSorter(following).prepare()
    except CycleError:
        yield from _loops(following)


def _loops(following: Mapping[str, list[str]]) -> Iterator[list[str]]:
    told: set[str] = set()
    for name in following:
        loop = None if name in told else _way_back(following, name)
        if loop is not None:
            told.update(loop)
            yield loop


def _following(triggers: Mapping[str, Trigger], tags: Mapping[str, frozenset[str]]) -> dict[str, list[str]]:
    """Return, for each trigger on ends of runs, those that the ends of its own runs start."""
    followers = {
        name: trigger.on
        for name, trigger in triggers.items()
        if isinstance(trigger.on, Source) and trigger.on.follows_runs and not trigger.on.may_loop()
    }
    found: dict[str, list[str]] = {}
    for name in followers:
        job = triggers[name].job
        ends = [
            RunEnd(job=job, trigger=name, outcome=outcome, tags=tags.get(job, frozenset()))
            for outcome in sorted(OUTCOMES)
        ]
        found[name] = [other for other, source in followers.items() if _follows_any(other, source, ends)]
    return found


def _follows_any(name: str, source: Source, ends: list[RunEnd]) -> bool:
    try:
        return any(source.follows(end) for end in ends)
    except Exception as error:  # follows is plugin code
        raise PluginError(f"the source of trigger {name} failed with {type(error).__name__}: {error}") from error


def _way_back(following: Mapping[str, list[str]], start: str) -> list[str] | None:
    """Return the shortest way from a trigger to itself, without its end, or None (breadth first)."""
    came_from: dict[str, str] = {}
    waiting = deque([start])
    while waiting:
        name = waiting.popleft()
        for other in following[name]:
            if other == start:
                way = [name]
                while way[-1] != start:
                    way.append(came_from[way[-1]])
                return way[::-1]
            if other not in came_from:
                came_from[other] = name
                waiting.append(other)
    return None
