"""Search: by id, or the end of a late one, at once; by the name of a trigger or a job, or by the type of an event."""

from __future__ import annotations

from collections.abc import Iterable

from engine.http.calls import Call
from engine.http.page.views import View, is_scoped, redirect
from engine.http.problems import Problem
from engine.ids import is_id, is_tail
from engine.plugin import Response
from engine.store.base import EventFilter, RunFilter

MOST_NAMES = 50
MOST_EVENTS = 20
LATEST = 1_000
"""So many runs, and events, are looked through for the last digits of an id."""

LONGEST = 200


async def make(call: Call) -> View | Response:
    """Make the page; what can only be one thing is shown at once."""
    operations = call.operations
    sought = call.request.query.get("q", "").strip()[:LONGEST]
    if is_id(sought.lower()):
        return redirect(await _place_of(call, sought.lower()))
    if is_tail(sought.lower()) and (places := await _places_of(call, sought.lower())):
        if len(places) > 1:
            raise Problem(404, f"the ids of {len(places)} runs and events end with {sought}: give more digits of it")
        return redirect(places[0])
    words = sought.lower().split()
    triggers = _found(operations.trigger_names(), words)
    jobs = _found(operations.jobs, words)
    events = (
        await operations.store.events(EventFilter(type=sought), limit=MOST_EVENTS)
        if sought and not is_scoped(call)
        else []
    )
    if not events and len(triggers) + len(jobs) == 1:
        return redirect(f"/triggers/{triggers[0]}" if triggers else f"/jobs/{jobs[0]}")
    return View(
        template="search.html",
        title=f"Search: {sought}" if sought else "Search",
        values={"sought": sought, "triggers": triggers, "jobs": jobs, "events": events, "most": MOST_NAMES},
    )


async def _place_of(call: Call, one: str) -> str:
    store = call.operations.store
    if await store.run(one) is not None:
        return f"/runs/{one}"
    if await store.event(one) is not None:
        return f"/events/{one}"
    raise Problem(404, f"there is no run and no event {one}, or it was removed after its time")


async def _places_of(call: Call, tail: str) -> list[str]:
    """Return where the latest runs and events are shown whose ids end so."""
    store = call.operations.store
    runs = await store.runs(RunFilter(), limit=LATEST)
    # Events are many triggers': a token for some tags finds those by their whole ids alone.
    events = [] if is_scoped(call) else await store.events(EventFilter(), limit=LATEST)
    return [
        *(f"/runs/{run.id}" for run in runs if run.id.endswith(tail)),
        *(f"/events/{stored.event.id}" for stored in events if stored.event.id.endswith(tail)),
    ]


def _found(names: Iterable[str], words: list[str]) -> list[str]:
    """Return names that hold all words, those that begin with the first one first."""
    if not words:
        return []
    held = [name for name in names if all(word in name.lower() for word in words)]
    return sorted(held, key=lambda name: (not name.lower().startswith(words[0]), name))[: MOST_NAMES + 1]
