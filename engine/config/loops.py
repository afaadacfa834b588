"""Loops: triggers on the ends of runs that start, perhaps by way of each other, what they follow."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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


def loop_through(name: str, triggers: Mapping[str, Trigger], tags: Mapping[str, frozenset[str]]) -> list[str] | None:
    """Return the names of the triggers of a loop that begins with this one, or None; see `find_loops`."""
    followers = _followers(triggers)
    if name not in followers:
        return None
    return _way_back(lambda other: _started_by(triggers[other], followers, tags), name)


def said_of_loop(names: Sequence[str], triggers: Mapping[str, Trigger]) -> tuple[str, str]:
    """Say what is wrong with a loop, and what to do about it."""
    way = " → ".join([*(f"{name} (job {triggers[name].job})" for name in names), names[0]])
    hint = f"narrow what one of them follows, or say in on.{triggers[names[0]].on.name} that the loop is meant"
    return f"the ends of its own runs start it again, without end: {way}", hint


def _loops(following: Mapping[str, list[str]]) -> Iterator[list[str]]:
    told: set[str] = set()
    for name in following:
        loop = None if name in told else _way_back(following.__getitem__, name)
        if loop is not None:
            told.update(loop)
            yield loop


def _following(triggers: Mapping[str, Trigger], tags: Mapping[str, frozenset[str]]) -> dict[str, list[str]]:
    """Return, for each trigger on ends of runs, those that the ends of its own runs start."""
    followers = _followers(triggers)
    return {name: _started_by(triggers[name], followers, tags) for name in followers}


def _followers(triggers: Mapping[str, Trigger]) -> dict[str, list[Source]]:
    """Return the sources of the triggers on ends of runs, but for those that say that loops are meant.

    One that waits for something else as well does not start itself without end.
    """
    found: dict[str, list[Source]] = {}
    for name, trigger in triggers.items():
        sources = [on for _, on in trigger.feeds if isinstance(on, Source) and on.follows_runs]
        if trigger.join is not None and len(sources) < len(trigger.inputs):
            continue
        with _asking(name):
            looping = [on for on in sources if not on.may_loop()]
        if looping:
            found[name] = looping
    return found


def _started_by(
    trigger: Trigger, followers: Mapping[str, Sequence[Source]], tags: Mapping[str, frozenset[str]]
) -> list[str]:
    """Return the triggers that the ends of a trigger's runs start."""
    ends, found = _ends(trigger, tags), []
    for other, sources in followers.items():
        with _asking(other):
            if any(source.follows(end) for source in sources for end in ends):
                found.append(other)
    return found


def _ends(trigger: Trigger, tags: Mapping[str, frozenset[str]]) -> list[RunEnd]:
    """Return all kinds of ends that a trigger's runs can have."""
    known = tags.get(trigger.job, frozenset())
    return [RunEnd(job=trigger.job, trigger=trigger.name, outcome=outcome, tags=known) for outcome in sorted(OUTCOMES)]


@contextmanager
def _asking(trigger: str) -> Iterator[None]:
    """Say whose source it was that raised."""
    try:
        yield
    except Exception as error:  # what is asked is plugin code
        raise PluginError(f"the source of trigger {trigger} failed with {type(error).__name__}: {error}") from error


def _way_back(following: Callable[[str], list[str]], start: str) -> list[str] | None:
    """Return the shortest way from a trigger to itself, without its end, or None (breadth first)."""
    came_from: dict[str, str] = {}
    waiting = deque([start])
    while waiting:
        name = waiting.popleft()
        for other in following(name):
            if other == start:
                way = [name]
                while way[-1] != start:
                    way.append(came_from[way[-1]])
                return way[::-1]
            if other not in came_from:
                came_from[other] = name
                waiting.append(other)
    return None
