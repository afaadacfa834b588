"""Routes about events."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated

from msgspec import field
from msgspec.structs import replace

from engine.events import EventOutcome
from engine.http import shapes
from engine.http.asked import Paging
from engine.http.calls import Call
from engine.http.described import described
from engine.http.fields import idempotency_key
from engine.http.forms import Nothing
from engine.http.gone import not_there
from engine.http.kinds import Instant, Line, OneOf, Slug, words_of
from engine.http.received import EVENTS, read_events
from engine.http.slices import before_of, page_of
from engine.http.views import event_view, list_view
from engine.http.waits import Waiting, answer_for, answer_for_batch, refuse_another
from engine.ids import first_id_at
from engine.plugin import Response
from engine.store.base import EventFilter, StoredEvent

EVENTS_TAKEN = (shapes.Waited, shapes.AcceptedBatch)


class OfEvents(Paging, frozen=True, kw_only=True):
    """Which events are meant."""

    source: Annotated[str | None, Line()] = None
    type: Annotated[str | None, Line()] = None
    trigger: Annotated[str | None, Slug(), "Those that met this trigger"] = None
    tag: Annotated[str | None, Line(128), "Those that met a trigger with this tag"] = None
    outcome: Annotated[str | None, OneOf(words_of(EventOutcome)), "Those that had this outcome at the trigger"] = None
    start: Annotated[datetime | None, Instant(), "Those that were received from then on"] = field(
        name="from", default=None
    )
    end: Annotated[datetime | None, Instant(), "Those that were received before"] = field(name="to", default=None)
    text: Annotated[str | None, Line(256), "It stands in the source, type, subject or key"] = None

    def mistakes(self) -> Iterator[tuple[str, str]]:
        if self.outcome is not None and self.trigger is None:
            yield "outcome", "outcome is that at a trigger: name it, too"


@described(
    {200: EVENTS_TAKEN, 202: EVENTS_TAKEN},
    takes=EVENTS,
    keyed="by_handler",
    example={"type": "file.arrived", "id": "orders-2026-11-21", "data": {"path": "in/orders.csv"}},
)
async def post_events(call: Call, query: Waiting) -> Response:
    """Accept one event, or a batch, all or none. The answer comes when they are durable."""
    events, batch = read_events(call.request)
    accepted = await call.operations.hear(events) if events else []
    if batch:
        return await answer_for_batch(call.operations, accepted, query.wait_s)
    await refuse_another(call.operations, accepted[0], idempotency_key(call.request.headers), events[0])
    return await answer_for(call.operations, accepted[0], query.wait_s)


@described({200: shapes.Page[shapes.EventOf]})
async def list_events(call: Call, query: OfEvents) -> Response:
    """Answer with events and their outcomes, the newest first."""
    which = EventFilter(
        source=query.source, type=query.type, trigger=query.trigger, text=query.text,
        outcome=None if query.outcome is None else EventOutcome(query.outcome),
        triggers=None if query.tag is None else call.operations.tagged(query.tag),
    )  # fmt: skip
    store = call.operations.store

    async def find(*, limit: int, before: str | None, since: str | None) -> list[StoredEvent]:
        return await store.events(replace(which, since=since), limit=limit, before=before)

    page, cursor = await page_of(
        store, call.operations.clock, "events", find, lambda stored: stored.event.id, limit=query.limit,
        before=before_of(query.cursor, query.end), narrowed=which != EventFilter(),
        since=None if query.start is None else first_id_at(query.start),
    )  # fmt: skip
    return Response(body=list_view([event_view(stored) for stored in page], cursor))


@described({200: shapes.EventOf}, problems=(410,))
async def get_event(call: Call, query: Nothing) -> Response:
    """Answer with one event and its outcomes."""
    event_id = call.id("event")
    stored = await call.operations.store.event(event_id)
    if stored is None:
        raise await not_there(call, "event", event_id)
    return Response(body=event_view(stored))
