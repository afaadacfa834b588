"""Routes that try an event without storing it, and that run events again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, ClassVar

from msgspec import field

from engine.clock import rfc3339
from engine.errors import Conflict
from engine.events import EventOutcome
from engine.http import shapes
from engine.http.asked import Reason
from engine.http.calls import Call
from engine.http.described import described
from engine.http.forms import Form, Nothing
from engine.http.gone import not_there
from engine.http.idempotency import request_id_of
from engine.http.kinds import Flag, Id, Instant, OneOf, Slug, Whole, words_of
from engine.http.problems import Problem
from engine.http.received import ONE_EVENT, read_events
from engine.http.views import accepted_view, outcome_view
from engine.ids import first_id_at
from engine.plugin import Response
from engine.replays import Rehearsed, is_copy
from engine.store.base import EventFilter, StoredEvent

MOST_AT_ONCE = 100
"""So many events are looked at in one request; the next one goes on where it ended."""


class Again(Form, frozen=True, kw_only=True):
    """At which trigger an event is run again, of those that it met."""

    optional: ClassVar[bool] = True

    trigger: Annotated[str | None, Slug(), "By default all that it met"] = None
    reason: Reason = ""


class Replaying(Form, frozen=True, kw_only=True):
    """Which events are run again: those that were received in a span."""

    start: Annotated[datetime, Instant(), "When the first was received"] = field(name="from")
    end: Annotated[datetime, Instant(), "Before when the last was"] = field(name="to")
    trigger: Annotated[str | None, Slug(), "Those that met this trigger, and there alone"] = None
    outcome: Annotated[str | None, OneOf(words_of(EventOutcome)), "Those that had this outcome at the trigger"] = None
    limit: Annotated[int, Whole(1, MOST_AT_ONCE)] = MOST_AT_ONCE
    cursor: Annotated[str | None, Id("cursor is what `next` said")] = None
    dry_run: Annotated[bool, Flag(), "Only say which it would be"] = False
    reason: Reason = ""

    def mistakes(self) -> Iterator[tuple[str, str]]:
        if self.outcome is not None and self.trigger is None:
            yield "outcome", "outcome is that at a trigger: name it, too"
        if self.end <= self.start:
            yield "to", "to must be later than from"


@described(
    {200: shapes.Rehearsed}, takes=ONE_EVENT, example={"type": "file.arrived", "data": {"path": "in/orders.csv"}}
)
async def try_event(call: Call, query: Nothing) -> Response:
    """Say what an event would become at a trigger now; nothing is stored or run."""
    name = call.name("trigger")
    events, batch = read_events(call.request)
    if batch or len(events) != 1:
        raise Problem(422, "send one event: it is tried alone")
    return Response(body=rehearsed_view(call.operations.test(name, events[0])))


@described({202: shapes.ReplayOfEvent}, problems=(410,))
async def replay_event(call: Call, query: Nothing, body: Again) -> Response:
    """Run one event again. The answer comes when its copy is durable."""
    event_id = call.id("event")
    stored = await call.operations.store.event(event_id)
    if stored is None:
        raise await not_there(call, "event", event_id)
    accepted = await call.operations.replay(
        stored, trigger=body.trigger, reason=body.reason, request_id=request_id_of(call, "replay")
    )
    return Response(
        status=202,
        body={**accepted_view(accepted), "replay_of": event_id},
        headers={"Location": f"/api/v1/events/{accepted.event}"},
    )


@described(
    {200: shapes.Replayed, 202: shapes.Replayed},
    keyed="by_handler",
    example={"from": "2026-11-20T00:00:00Z", "to": "2026-11-21T00:00:00Z", "dry_run": True},
)
async def replay_events(call: Call, query: Nothing, body: Replaying) -> Response:
    """Run the events of a span again, the oldest first, a bounded number of them; `next` says where to go on."""
    which = EventFilter(
        trigger=body.trigger, outcome=None if body.outcome is None else EventOutcome(body.outcome)
    )  # fmt: skip
    after, before, limit = body.cursor or first_id_at(body.start), first_id_at(body.end), body.limit
    found = await call.operations.store.events_after(which, after=after, before=before, limit=limit + 1)
    request_id = request_id_of(call, "replay")
    # What was run again is not run again beside what it is a copy of.
    page = [stored for stored in found[:limit] if not is_copy(stored.event, stored.outcomes)]
    items = [
        await _replay_one(call, stored, which.trigger, body.reason, request_id, dry_run=body.dry_run) for stored in page
    ]
    following = found[limit - 1].event.id if len(found) > limit else None
    return Response(
        status=200 if body.dry_run else 202, body={"items": items, "next": following, "dry_run": body.dry_run}
    )


async def _replay_one(
    call: Call, stored: StoredEvent, trigger: str | None, reason: str, request_id: str | None, *, dry_run: bool
) -> shapes.ReplayedItem:
    triggers = call.operations.replayable(stored, trigger)
    event = stored.event
    item: shapes.ReplayedItem = {
        "replay_of": event.id, "type": event.type, "subject": event.subject, "received_at": rfc3339(event.received_at),
        "triggers": triggers, "event": None, "runs": [], "duplicate": False, "skipped": None,
    }  # fmt: skip
    if not triggers:
        item["skipped"] = "it met no trigger that is there and works"
    elif not dry_run:
        try:
            accepted = await call.operations.replay(stored, trigger=trigger, reason=reason, request_id=request_id)
            item |= {"event": accepted.event, "runs": list(accepted.runs), "duplicate": accepted.duplicate}
        except Conflict as error:
            item["skipped"] = str(error)
    return item


def rehearsed_view(rehearsed: Rehearsed) -> shapes.Rehearsed:
    """Return what an event would become, as the API shows it."""
    event, run = rehearsed.event, rehearsed.run
    shown = outcome_view(rehearsed.outcome)
    # The run that it would join is there; its own would be made.
    would_join = rehearsed.run is None
    return {
        **shown,
        "run": shown["run"] if would_join else None,
        "event": {"source": event.source, "type": event.type, "subject": event.subject, "key": event.key},
        "would_run": None
        if run is None
        else {
            "job": run.job,
            "state": run.state.value,
            "priority": run.priority,
            "due_at": None if run.due_at is None else rfc3339(run.due_at),
        },
        "data": rehearsed.data,
    }
