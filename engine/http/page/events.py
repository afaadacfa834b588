"""Events: the list, newest first, and one with all that came of it."""

from __future__ import annotations

from typing import Any

from engine.http.calls import Call
from engine.http.event_routes import get_event, list_events
from engine.http.page.lineage import ancestors_of, tree_of
from engine.http.page.views import View, ask, is_scoped

LIMIT = 50
MOST_OUTCOMES = 4
"""So many outcomes of an event the list shows."""


async def make_list(call: Call) -> View:
    """Make the list."""
    asked = call.request.query
    # A token for some tags alone sees the events that a trigger of them met: it has to be named.
    unnamed = is_scoped(call) and not asked.get("trigger")
    none: dict[str, Any] = {"items": [], "next": None}
    found = none if unnamed else await ask(call, list_events, {"limit": str(LIMIT), **asked})
    return View(
        template="events.html",
        values={
            "events": found["items"],
            "following": found["next"],
            "first": "cursor" not in asked,
            "asked": {name: asked.get(name, "") for name in ("type", "source", "trigger", "text")},
            "most_outcomes": MOST_OUTCOMES,
            "unnamed": unnamed,
        },
    )


async def make_one(call: Call) -> View:
    """Make the page of one event."""
    event = await ask(call, get_event)
    stored = await call.operations.store.event(event["id"])
    return View(
        template="event.html",
        title=f"{event['type'][:60]} {event['id'][-8:]}",
        values={
            "event": event,
            "tree": None if stored is None else await tree_of(call.operations, stored),
            "above": [] if stored is None else await ancestors_of(call.operations, stored),
            "met": sorted({one["trigger"] for one in event["outcomes"] if one["trigger"]}),
        },
    )
