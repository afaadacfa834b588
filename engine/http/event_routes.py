"""Routes about events."""

from __future__ import annotations

from engine.http.calls import Call
from engine.http.fields import query
from engine.http.gone import not_there
from engine.http.received import read_events
from engine.http.views import event_view, list_view
from engine.http.waits import WAIT, answer_for, answer_for_batch, wait_s
from engine.plugin import Response
from engine.store.base import EventFilter


async def post_events(call: Call) -> Response:
    """Accept one event, or a batch, all or none. The answer comes when they are durable."""
    fields = query(call.request, WAIT)
    within_s = wait_s(fields)
    fields.finish()
    events, batch = read_events(call.request)
    accepted = await call.operations.hear(events) if events else []
    if batch:
        return await answer_for_batch(call.operations, accepted, within_s)
    return await answer_for(call.operations, accepted[0], within_s)


async def list_events(call: Call) -> Response:
    """Answer with events and their outcomes, the newest first."""
    fields = query(call.request, "source", "type", "trigger", "limit", "cursor")
    which = EventFilter(source=fields.text("source"), type=fields.text("type"), trigger=fields.slug("trigger"))
    limit, before = fields.limit(), fields.cursor()
    fields.finish()
    events = await call.operations.store.events(which, limit=limit + 1, before=before)
    page = events[:limit]
    cursor = page[-1].event.id if len(events) > limit else None
    return Response(body=list_view([event_view(stored) for stored in page], cursor))


async def get_event(call: Call) -> Response:
    """Answer with one event and its outcomes."""
    event_id = call.id("event")
    query(call.request).finish()
    stored = await call.operations.store.event(event_id)
    if stored is None:
        raise await not_there(call, "event", event_id)
    return Response(body=event_view(stored))
