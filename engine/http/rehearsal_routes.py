"""Routes that try an event without storing it, and that run events again."""

from __future__ import annotations

from typing import Any

from engine.clock import rfc3339
from engine.errors import Conflict
from engine.http.calls import Call
from engine.http.fields import Fields, body, idempotency_key, query
from engine.http.gone import not_there
from engine.http.problems import Problem
from engine.http.received import read_events
from engine.http.views import accepted_view, outcome_view
from engine.ids import first_id_at, is_id
from engine.plugin import Response
from engine.replays import Rehearsed, is_copy
from engine.store.base import EventFilter, StoredEvent

LONGEST_REASON = 1000
MOST_AT_ONCE = 100
"""So many events are looked at in one request; the next one goes on where it ended."""


async def try_event(call: Call) -> Response:
    """Say what an event would become at a trigger now; nothing is stored or run."""
    name = call.name("trigger")
    query(call.request).finish()
    events, batch = read_events(call.request)
    if batch or len(events) != 1:
        raise Problem(422, "send one event: it is tried alone")
    return Response(body=rehearsed_view(call.operations.test(name, events[0])))


async def replay_event(call: Call) -> Response:
    """Run one event again. The answer comes when its copy is durable."""
    event_id = call.id("event")
    query(call.request).finish()
    fields = body(call.request, ("trigger", "reason"), optional=True)
    trigger, reason = fields.slug("trigger"), fields.text("reason", longest=LONGEST_REASON)
    fields.finish()
    stored = await call.operations.store.event(event_id)
    if stored is None:
        raise await not_there(call, "event", event_id)
    accepted = await call.operations.replay(
        stored, trigger=trigger, reason=reason or "", request_id=idempotency_key(call.request.headers)
    )
    return Response(
        status=202,
        body={**accepted_view(accepted), "replay_of": event_id},
        headers={"Location": f"/api/v1/events/{accepted.event}"},
    )


async def replay_events(call: Call) -> Response:
    """Run the events of a span again, the oldest first, a bounded number of them; `next` says where to go on."""
    query(call.request).finish()
    fields = body(call.request, ("from", "to", "trigger", "limit", "cursor", "dry_run", "reason"))
    which, after, before, limit = _span(fields)
    dry_run, reason = _flag(fields, "dry_run"), fields.text("reason", longest=LONGEST_REASON)
    fields.finish()
    found = await call.operations.store.events_after(which, after=after, before=before, limit=limit + 1)
    request_id = idempotency_key(call.request.headers)
    # What was run again is not run again beside what it is a copy of.
    page = [stored for stored in found[:limit] if not is_copy(stored.event, stored.outcomes)]
    items = [
        await _replay_one(call, stored, which.trigger, reason or "", request_id, dry_run=dry_run) for stored in page
    ]
    following = found[limit - 1].event.id if len(found) > limit else None
    return Response(status=200 if dry_run else 202, body={"items": items, "next": following, "dry_run": dry_run})


def _span(fields: Fields) -> tuple[EventFilter, str, str, int]:
    """Return which events are meant, and after and before which ids."""
    start, end = fields.instant("from"), fields.instant("to")
    which, cursor = EventFilter(trigger=fields.slug("trigger")), fields.text("cursor")
    limit = fields.value("limit")
    if limit is None:
        limit = MOST_AT_ONCE
    elif type(limit) is not int or not 1 <= limit <= MOST_AT_ONCE:
        fields.fault("limit", f"limit must be a whole number from 1 to {MOST_AT_ONCE}")
    for name, instant in (("from", start), ("to", end)):
        if instant is None and name not in fields:
            fields.fault(name, f"{name} is missing: say from when to when events were received")
    if cursor is not None and not is_id(cursor):
        fields.fault("cursor", "cursor is what `next` said")
    if start is not None and end is not None and end <= start:
        fields.fault("to", "to must be later than from")
    fields.finish()
    assert start is not None  # noqa: S101 - finish has raised
    assert end is not None  # noqa: S101 - finish has raised
    return which, cursor or first_id_at(start), first_id_at(end), limit


def _flag(fields: Fields, name: str) -> bool:
    value = fields.value(name)
    if value is not None and not isinstance(value, bool):
        fields.fault(name, f"{name} must be true or false")
    return value is True


async def _replay_one(
    call: Call, stored: StoredEvent, trigger: str | None, reason: str, request_id: str | None, *, dry_run: bool
) -> dict[str, Any]:
    triggers = call.operations.replayable(stored, trigger)
    event = stored.event
    item: dict[str, Any] = {
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


def rehearsed_view(rehearsed: Rehearsed) -> dict[str, Any]:
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
