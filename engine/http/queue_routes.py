"""Routes about what waits: the queue, a flush of it, and what people ask of single runs."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Annotated

from msgspec import Struct

from engine.clock import rfc3339
from engine.http import shapes
from engine.http.asked import Because, Reason
from engine.http.calls import Call, performer
from engine.http.described import described
from engine.http.fields import DEFAULT_LIMIT, Fields
from engine.http.forms import Form, Nothing
from engine.http.idempotency import request_id_of
from engine.http.kinds import ID_PATTERN, LIMIT, Flag, Line, ListOf, OneOf, Priority, Schema, Slug, words_of
from engine.http.run_routes import event_ids
from engine.http.views import accepted_view, list_view, run_summary, run_view
from engine.ids import is_id
from engine.plugin import Response
from engine.runs import ENDED, WAITING, Lane, Run, RunState
from engine.store.base import QueuePlace
from engine.waiting import FlushRequest, QueuePage

_PLACE = re.compile(r"(-?[0-9]{1,19})\.([0-9a-f-]{36})\Z")
LANE = OneOf(words_of(Lane))
_WAITING = words_of(sorted(WAITING))


class Place(Struct, frozen=True):
    """Where in the line the page before ended."""

    @property
    def schema(self) -> Schema:
        return {"type": "string", "pattern": f"^-?[0-9]{{1,19}}\\.{ID_PATTERN[1:]}"}

    def read(self, fields: Fields, name: str) -> QueuePlace | None:
        value = fields.value(name)
        if value is None:
            return None
        found = _PLACE.match(value)
        if found is None or not is_id(found[2]) or abs(int(found[1])) >= 2**63:
            fields.fault(name, f"{name} must be the `next` of the list before")
            return None
        return QueuePlace(int(found[1]), found[2])


class InLine(Form, frozen=True, kw_only=True):
    """Which page of the line of what is ready."""

    lane: Annotated[str | None, LANE, "One lane alone; without it `live` and `manual`"] = None
    limit: Annotated[int, LIMIT, "How many items the page may hold"] = DEFAULT_LIMIT
    cursor: Annotated[QueuePlace | None, Place(), "The `next` of the page before"] = None


class Flushing(Form, frozen=True, kw_only=True):
    """Which of the runs that wait are cancelled: all that is named has to hold."""

    reason: Reason
    job: Annotated[str | None, Slug()] = None
    trigger: Annotated[str | None, Slug()] = None
    tag: Annotated[str | None, Line(128)] = None
    states: Annotated[
        frozenset[str] | None,
        ListOf(
            _WAITING, "states must be a list of states in which a run waits", "nothing waits in the state", empty=False
        ),
    ] = None
    lane: Annotated[str | None, LANE] = None
    priority_below: Annotated[int | None, Priority()] = None
    all: Annotated[bool, Flag(), "All that waits"] = False
    dry_run: Annotated[bool, Flag(), "Only say which it would be"] = False


class Weighing(Form, frozen=True, kw_only=True):
    """The priority that a run is to have."""

    priority: Annotated[int, Priority()]
    reason: Reason = ""


@described({200: shapes.QueueOf})
async def get_queue(call: Call, query: InLine) -> Response:
    """Answer with what is ready and waits for a slot, in the order in which it starts, and how much waits in all."""
    page = await call.operations.queue.page(lane=_lane(query.lane), after=query.cursor, limit=query.limit)
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


@described({200: shapes.Flushed}, example={"reason": "sent by mistake", "trigger": "nightly", "dry_run": True})
async def flush_queue(call: Call, query: Nothing, body: Flushing) -> Response:
    """Cancel all runs that wait and are meant, each with the reason; or say which it would be."""
    states = WAITING if body.states is None else frozenset(map(RunState, body.states))
    which = FlushRequest(
        job=body.job, trigger=body.trigger, tag=body.tag, states=states, lane=_lane(body.lane),
        priority_below=body.priority_below, whole=body.all,
    )  # fmt: skip
    flushed = await call.operations.queue.flush(
        which, reason=body.reason, who=performer(call), dry_run=body.dry_run
    )  # fmt: skip
    return Response(body={
        "dry_run": body.dry_run, "count": flushed.count, "triggers": dict(flushed.triggers), "runs": list(flushed.runs)
    })  # fmt: skip


@described({200: shapes.RunOf, 202: shapes.RunOf})
async def cancel_run(call: Call, query: Nothing, body: Because) -> Response:
    """Cancel a run: 200 where it has ended, 202 where it ran and is being ended."""
    run = await _steer(call, call.operations.queue.cancel, body)
    return await _answer(call, run, 200 if run.state in ENDED else 202)


@described({200: shapes.RunOf})
async def hold_run(call: Call, query: Nothing, body: Because) -> Response:
    """Hold a run that waits, until it is released."""
    return await _answer(call, await _steer(call, call.operations.queue.hold, body))


@described({200: shapes.RunOf})
async def release_run(call: Call, query: Nothing, body: Because) -> Response:
    """Release a run that is held by hand."""
    return await _answer(call, await _steer(call, call.operations.queue.release, body))


@described({200: shapes.RunOf}, example={"priority": "high", "reason": "the report waits for it"})
async def patch_run(call: Call, query: Nothing, body: Weighing) -> Response:
    """Give a run that waits another priority."""
    run_id = call.id("run")
    await _note_before(call, run_id)
    run = await call.operations.queue.set_priority(run_id, body.priority, reason=body.reason, who=performer(call))
    return await _answer(call, run)


@described({202: shapes.Accepted})
async def retry_run(call: Call, query: Nothing, body: Because) -> Response:
    """Run once more what an ended run was for. Its answer comes when the new run is durable."""
    run_id = call.id("run")
    accepted = await call.operations.queue.retry(
        run_id, reason=body.reason, who=performer(call), request_id=request_id_of(call, "retry")
    )
    return Response(
        status=202, body=accepted_view(accepted), headers={"Location": f"/api/v1/events/{accepted.event}"}
    )  # fmt: skip


async def _steer(call: Call, ask: Callable[..., Awaitable[Run]], body: Because) -> Run:
    run_id = call.id("run")
    await _note_before(call, run_id)
    return await ask(run_id, reason=body.reason, who=performer(call))


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


def _lane(name: str | None) -> Lane | None:
    return None if name is None else Lane(name)
