"""Routes about what waits: the queue, a flush of it, and what people ask of single runs."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

from engine.clock import rfc3339
from engine.http.calls import Call
from engine.http.fields import Fields, body, idempotency_key, near, query
from engine.http.pause_routes import performer
from engine.http.run_routes import event_ids
from engine.http.trigger_routes import LONGEST_REASON
from engine.http.views import accepted_view, list_view, run_summary, run_view
from engine.ids import is_id
from engine.plugin import Response
from engine.runs import ENDED, WAITING, Lane, Run, RunState
from engine.store.base import QueuePlace
from engine.waiting import FlushRequest, QueuePage

_PLACE = re.compile(r"(-?[0-9]{1,19})\.([0-9a-f-]{36})\Z")
_FLUSH = ("job", "trigger", "tag", "states", "lane", "priority_below", "all", "reason", "dry_run")


async def get_queue(call: Call) -> Response:
    """Answer with what is ready and waits for a slot, in the order in which it starts, and how much waits in all."""
    fields = query(call.request, "lane", "limit", "cursor")
    lane, limit, after = _lane(fields), fields.limit(), _place(fields)
    fields.finish()
    page = await call.operations.queue.page(lane=lane, after=after, limit=limit)
    items = []
    for run, standing in page.items:
        items.append({
            **run_summary(run, await event_ids(call, run)),
            "lane": run.lane.value,
            "position": standing.position,
            "waits_for": call.operations.pools.waits_for(run),
            "expected_start_at": None if standing.expected_start_at is None else rfc3339(standing.expected_start_at),
        })  # fmt: skip
    waiting = {state.value: page.counts.get(state, 0) for state in sorted(WAITING)}
    running = page.counts.get(RunState.RUNNING, 0)
    return Response(body={
        **list_view(items, _cursor(page)), "waiting": waiting, "running": running, "slots": page.slots
    })  # fmt: skip


async def flush_queue(call: Call) -> Response:
    """Cancel all runs that wait and are meant, each with the reason; or say which it would be."""
    query(call.request).finish()
    fields = body(call.request, _FLUSH)
    reason = fields.text("reason", longest=LONGEST_REASON, required=True)
    which = FlushRequest(
        job=fields.slug("job"), trigger=fields.slug("trigger"), tag=fields.text("tag", longest=128),
        states=_states(fields), lane=_lane(fields), priority_below=fields.priority("priority_below"),
        whole=_flag(fields, "all"),
    )  # fmt: skip
    dry_run = _flag(fields, "dry_run")
    fields.finish()
    flushed = await call.operations.queue.flush(which, reason=reason or "", who=performer(call), dry_run=dry_run)
    return Response(body={
        "dry_run": dry_run, "count": flushed.count, "triggers": dict(flushed.triggers), "runs": list(flushed.runs)
    })  # fmt: skip


async def cancel_run(call: Call) -> Response:
    """Cancel a run: 200 where it has ended, 202 where it ran and is being ended."""
    run = await _steer(call, call.operations.queue.cancel)
    return await _answer(call, run, 200 if run.state in ENDED else 202)


async def hold_run(call: Call) -> Response:
    """Hold a run that waits, until it is released."""
    return await _answer(call, await _steer(call, call.operations.queue.hold))


async def release_run(call: Call) -> Response:
    """Release a run that is held by hand."""
    return await _answer(call, await _steer(call, call.operations.queue.release))


async def patch_run(call: Call) -> Response:
    """Give a run that waits another priority."""
    run_id = call.id("run")
    query(call.request).finish()
    fields = body(call.request, ("priority", "reason"))
    priority, reason = fields.priority(), fields.text("reason", longest=LONGEST_REASON)
    if fields.value("priority") is None:
        fields.fault("priority", "priority is required")
    fields.finish()
    await _note_before(call, run_id)
    run = await call.operations.queue.set_priority(run_id, priority or 0, reason=reason or "", who=performer(call))
    return await _answer(call, run)


async def retry_run(call: Call) -> Response:
    """Run once more what an ended run was for. Its answer comes when the new run is durable."""
    run_id = call.id("run")
    query(call.request).finish()
    fields = body(call.request, ("reason",), optional=True)
    reason = fields.text("reason", longest=LONGEST_REASON)
    fields.finish()
    accepted = await call.operations.queue.retry(
        run_id, reason=reason or "", who=performer(call), request_id=idempotency_key(call.request.headers)
    )
    return Response(
        status=202, body=accepted_view(accepted), headers={"Location": f"/api/v1/events/{accepted.event}"}
    )  # fmt: skip


async def _steer(call: Call, ask: Callable[..., Awaitable[Run]]) -> Run:
    run_id = call.id("run")
    query(call.request).finish()
    fields = body(call.request, ("reason",), optional=True)
    reason = fields.text("reason", longest=LONGEST_REASON)
    fields.finish()
    await _note_before(call, run_id)
    return await ask(run_id, reason=reason or "", who=performer(call))


async def _note_before(call: Call, run_id: str) -> None:
    """Tell the audit log how a run was."""
    run = await call.operations.store.run(run_id)
    if run is not None:
        call.audit(before={"state": run.state.value, "priority": run.priority})


async def _answer(call: Call, run: Run, status: int = 200) -> Response:
    return Response(status=status, body=run_view(run, await event_ids(call, run)))


def _cursor(page: QueuePage) -> str | None:
    if not page.more or not page.items:
        return None
    last = page.items[-1][0]
    return f"{last.rank}.{last.id}"


def _place(fields: Fields) -> QueuePlace | None:
    value = fields.value("cursor")
    if value is None:
        return None
    found = _PLACE.match(value)
    if found is None or not is_id(found[2]) or abs(int(found[1])) >= 2**63:
        fields.fault("cursor", "cursor must be the `next` of the list before")
        return None
    return QueuePlace(int(found[1]), found[2])


def _lane(fields: Fields) -> Lane | None:
    value = fields.value("lane")
    if value is None:
        return None
    if not isinstance(value, str) or value not in set(Lane):
        fields.fault("lane", f"lane must be one of {', '.join(Lane)}")
        return None
    return Lane(value)


def _states(fields: Fields) -> frozenset[RunState]:
    value: Any = fields.value("states")
    if value is None:
        return WAITING
    if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
        fields.fault("states", "states must be a list of states in which a run waits")
        return WAITING
    for one in value:
        if one not in WAITING:
            fields.fault("states", f"nothing waits in the state {one!r}{near(one, WAITING)}")
    return frozenset(RunState(one) for one in value if one in WAITING)


def _flag(fields: Fields, name: str) -> bool:
    value = fields.value(name)
    if value is not None and not isinstance(value, bool):
        fields.fault(name, f"{name} must be true or false")
    return value is True
