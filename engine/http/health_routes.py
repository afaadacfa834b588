"""Routes about health: the probes, and how each part is."""

from __future__ import annotations

from bisect import bisect_right
from typing import Annotated, Any

from engine.http import shapes
from engine.http.asked import PagingByName
from engine.http.calls import Call
from engine.http.described import JSON, described
from engine.http.fields import query
from engine.http.kinds import Switch
from engine.plugin import Response


class OfVitals(PagingByName, frozen=True, kw_only=True):
    """Which triggers are told of."""

    trouble: Annotated[bool, Switch(), "Those that are not well alone"] = False


@described({200: shapes.Live})
async def get_live(call: Call) -> Response:
    """Answer as long as the event loop turns."""
    return Response(body={"status": "ok"})


@described({200: shapes.Ready, 503: shapes.Ready})
async def get_ready(call: Call) -> Response:
    """Answer 200 when the engine takes events, else 503 with what it waits for; and which sources are not well."""
    ready, waiting_for = call.operations.ready()
    body = {"ready": ready, "waiting_for": waiting_for, "unhealthy": call.operations.unhealthy()}
    return Response(body=body) if ready else Response(status=503, body=body, headers={"Retry-After": "1"})


@described({200: shapes.Health, 503: shapes.Health})
async def get_health(call: Call) -> Response:
    """Answer with the engine's checks; 503 where it is failing, 200 also where it is degraded."""
    health = call.operations.health()
    return Response(status=503 if health["status"] == "failing" else 200, body=health)


@described({200: shapes.Vitals, 503: shapes.Vitals}, query=OfVitals)
async def get_detailed(call: Call) -> Response:
    """Answer with how each part is, with a page of the triggers; with the status of /health."""
    found = await _detailed(call)
    return Response(status=503 if found["status"] == "failing" else 200, body=found)


@described({200: shapes.Vitals}, query=OfVitals)
async def get_vitals(call: Call) -> Response:
    """Answer as `get_detailed` does, and with 200 in any case: for those who ask the API, and read the answer."""
    return Response(body=await _detailed(call))


async def _detailed(call: Call) -> dict[str, Any]:
    fields = query(call.request, "limit", "cursor", "trouble")
    limit, after, troubled = fields.limit(), fields.slug("cursor"), fields.flag("trouble")
    fields.finish()
    operations = call.operations
    names = sorted(operations.trigger_names())
    first = 0 if after is None else bisect_right(names, after)
    page = names[first : first + limit]
    found = await operations.vitals.detailed(triggers=page)
    if troubled:
        found["triggers"] = [view for view in found["triggers"] if not view["ok"]]
    return {**found, "next": page[-1] if first + limit < len(names) else None}


@described({200: JSON})
async def get_trigger_health(call: Call) -> Response:
    """Answer with how one trigger is."""
    name = call.name("trigger")
    query(call.request).finish()
    return Response(body=await call.operations.vitals.trigger(name))
