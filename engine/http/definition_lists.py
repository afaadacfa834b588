"""Lists of what is defined, narrowed: triggers and jobs, in the order of their names."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection
from typing import Annotated

import anyio.lowlevel

from engine.clock import Clock
from engine.http.asked import PagingByName
from engine.http.kinds import Line, OneOf, Slug, Switch, words_of
from engine.http.operations import Operations
from engine.jobs import Job
from engine.triggers import TriggerState

SLICE = 100
"""So many are looked at until others have their turn."""

PATIENCE_S = 0.02
"""So long a request looks for more, at least at a slice."""


class OfJobs(PagingByName, frozen=True, kw_only=True):
    """Which jobs are meant: all that is named has to hold."""

    enabled: Annotated[bool | None, Switch()] = None
    tag: Annotated[str | None, Line(128)] = None
    text: Annotated[str | None, Line(256), "It stands in the name or the description, whatever its case"] = None


class OfTriggers(OfJobs, frozen=True, kw_only=True):
    """Which triggers are meant: all that is named has to hold."""

    state: Annotated[str | None, OneOf(words_of(TriggerState))] = None
    job: Annotated[str | None, Slug()] = None


async def page_of_names(
    clock: Clock, names: Collection[str], query: PagingByName, wanted: Callable[[str], bool]
) -> tuple[list[str], str | None]:
    """Return the names of a page, and the cursor of the next one; None at the end.

    The page may hold fewer than it may, or none, and still have a next one: a request has an end to its patience.
    """
    ordered = sorted(names)
    start = 0 if query.cursor is None else bisect_right(ordered, query.cursor)
    found: list[str] = []
    began_s = clock.monotonic()
    for place in range(start, len(ordered)):
        if len(found) == query.limit:
            return found, ordered[place - 1]
        if place > start and (place - start) % SLICE == 0:
            await anyio.lowlevel.checkpoint()
            if clock.monotonic() - began_s > PATIENCE_S:
                return found, ordered[place - 1]
        if wanted(ordered[place]):
            found.append(ordered[place])
    return found, None


def wants_trigger(operations: Operations, query: OfTriggers) -> Callable[[str], bool]:
    """Return what tells whether a trigger is meant."""
    text = None if query.text is None else query.text.casefold()
    if (query.enabled, query.tag, text, query.state, query.job) == (None,) * 5:
        return lambda name: True

    def wanted(name: str) -> bool:
        trigger, job = operations.definition(name)
        return (
            query.job in (None, trigger.job)
            and query.enabled in (None, trigger.enabled)
            and (query.tag is None or query.tag in trigger.tags or query.tag in job.tags)
            and _holds(text, name, trigger.description)
            and query.state in (None, operations.standing(name).value if query.state is not None else None)
        )

    return wanted


def wants_job(job: Job, query: OfJobs) -> bool:
    """Tell whether a job is meant."""
    return (
        query.enabled in (None, job.enabled)
        and (query.tag is None or query.tag in job.tags)
        and _holds(None if query.text is None else query.text.casefold(), job.name, job.description)
    )


def _holds(text: str | None, *places: str) -> bool:
    return text is None or any(text in place.casefold() for place in places)
