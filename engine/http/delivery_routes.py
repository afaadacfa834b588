"""Routes about deliveries: who was told of the ends of runs, and how that went."""

from __future__ import annotations

from typing import Annotated

from engine.clock import rfc3339
from engine.deliveries import Delivery, DeliveryFilter, DeliveryState
from engine.http import shapes
from engine.http.asked import Paging
from engine.http.calls import Call
from engine.http.described import described
from engine.http.forms import Nothing
from engine.http.kinds import Id, Line, OneOf, words_of
from engine.http.problems import Problem
from engine.http.views import list_view
from engine.plugin import Response

OF_A_RUN = 50
"""So many of the deliveries of a run are shown with it."""


class Telling(Paging, frozen=True, kw_only=True):
    """Which deliveries are meant."""

    state: Annotated[str | None, OneOf(words_of(DeliveryState))] = None
    target: Annotated[str | None, Line(256), "Who is told: `callback`, or a channel's name"] = None
    run: Annotated[str | None, Id("run must be the id of a run")] = None


@described({200: shapes.Page[shapes.DeliveryOf]})
async def list_deliveries(call: Call, query: Telling) -> Response:
    """Answer with deliveries, the newest first, without what was told."""
    state = None if query.state is None else DeliveryState(query.state)
    which = DeliveryFilter(state=state, target=query.target, run=query.run)
    found = await call.operations.store.deliveries(which, limit=query.limit + 1, before=query.cursor)
    page = found[: query.limit]
    following = page[-1].id if len(found) > query.limit else None
    return Response(body=list_view([delivery_view(one) for one in page], following))


@described({200: shapes.WholeDelivery})
async def get_delivery(call: Call, query: Nothing) -> Response:
    """Answer with one delivery and its message."""
    delivery_id = call.id("delivery")
    found = await call.operations.store.delivery(delivery_id)
    if found is None:
        raise Problem(404, "there is no delivery of that id")
    return Response(body={**delivery_view(found), "message": found.message})


async def deliveries_of(call: Call, run_id: str) -> list[shapes.DeliveryOf]:
    """Return the deliveries of a run, the oldest first."""
    found = await call.operations.store.deliveries(DeliveryFilter(run=run_id), limit=OF_A_RUN)
    return [delivery_view(one) for one in reversed(found)]


def delivery_view(one: Delivery) -> shapes.DeliveryOf:
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
