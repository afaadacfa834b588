"""The route that tells when a trigger is due next."""

from __future__ import annotations

import anyio.lowlevel

from engine.decide.upcoming import DEFAULT_COUNT, LARGEST_COUNT
from engine.http.calls import Call
from engine.http.fields import query
from engine.plugin import Response


async def get_next(call: Call) -> Response:
    """Answer with the due instants to come of a trigger that is on a timer; the list is empty where there are none."""
    name = call.name("trigger")
    fields = query(call.request, "count", "after")
    count, after = fields.number("count", 1, LARGEST_COUNT), fields.instant("after")
    fields.finish()
    instants = call.operations.upcoming(name, after or call.operations.clock.now())
    views = []
    for _, instant in zip(range(count or DEFAULT_COUNT), instants, strict=False):
        views.append(instant.view())
        # A timer may have to look far: others have their turn meanwhile.
        await anyio.lowlevel.checkpoint()
    return Response(body=views)
