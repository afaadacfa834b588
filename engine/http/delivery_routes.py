"""Routes about deliveries: who was told of the ends of runs, and how that went."""

from __future__ import annotations

from typing import Any

from engine.clock import rfc3339
from engine.deliveries import Delivery, DeliveryFilter, DeliveryState
from engine.http.calls import Call
from engine.http.fields import Fields, near, query
from engine.http.problems import Problem
from engine.http.views import list_view
from engine.ids import is_id
from engine.plugin import Response

OF_A_RUN = 50
"""So many of the deliveries of a run are shown with it."""

_STATES = frozenset(state.value for state in DeliveryState)


async def list_deliveries(call: Call) -> Response:
    """Answer with deliveries, the newest first, without what was told."""
    fields = query(call.request, "state", "target", "run", "limit", "cursor")
    state, target, run = _state(fields), fields.text("target", longest=256), fields.value("run")
    if run is not None and not is_id(run):
        fields.fault("run", "run must be the id of a run")
    limit, before = fields.limit(), fields.cursor()
    fields.finish()
    which = DeliveryFilter(state=state, target=target, run=run)
    found = await call.operations.store.deliveries(which, limit=limit + 1, before=before)
    page = found[:limit]
    return Response(body=list_view([delivery_view(one) for one in page], page[-1].id if len(found) > limit else None))


async def get_delivery(call: Call) -> Response:
    """Answer with one delivery and its message."""
    delivery_id = call.id("delivery")
    query(call.request).finish()
    found = await call.operations.store.delivery(delivery_id)
    if found is None:
        raise Problem(404, "there is no delivery of that id")
    return Response(body={**delivery_view(found), "message": found.message})


async def deliveries_of(call: Call, run_id: str) -> list[dict[str, Any]]:
    """Return the deliveries of a run, the oldest first."""
    found = await call.operations.store.deliveries(DeliveryFilter(run=run_id), limit=OF_A_RUN)
    return [delivery_view(one) for one in reversed(found)]


def delivery_view(one: Delivery) -> dict[str, Any]:
    """Return a delivery as the API shows it."""
    return {
        "id": one.id,
        "target": one.target,
        "event": one.event,
        "alert": one.alert,
        "run": one.run if one.alert is None else None,
        "job": one.job if one.alert is None else None,
        "state": one.state.value,
        "code": one.code,
        "reason": one.reason,
        "attempts": one.attempts,
        "created_at": rfc3339(one.created_at),
        "due_at": None if one.due_at is None else rfc3339(one.due_at),
        "finished_at": None if one.finished_at is None else rfc3339(one.finished_at),
    }


def _state(fields: Fields) -> DeliveryState | None:
    value = fields.value("state")
    if value is None or value in _STATES:
        return None if value is None else DeliveryState(value)
    fields.fault("state", f"unknown state {value!r}{near(value, _STATES)}")
    return None
