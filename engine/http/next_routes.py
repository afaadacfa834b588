"""The route that tells when a trigger is due next."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import anyio.lowlevel

from engine.decide.upcoming import DEFAULT_COUNT, LARGEST_COUNT
from engine.http import shapes
from engine.http.calls import Call
from engine.http.described import described
from engine.http.forms import Form
from engine.http.kinds import Instant, Number
from engine.plugin import Response


class Ahead(Form, frozen=True, kw_only=True):
    """How many instants, and after when."""

    count: Annotated[int, Number(1, LARGEST_COUNT)] = DEFAULT_COUNT
    after: Annotated[datetime | None, Instant(), "By default now"] = None


@described({200: list[shapes.UpcomingOf]}, problems=(409,))
async def get_next(call: Call, query: Ahead) -> Response:
    """Answer with the due instants to come of a trigger that is on a timer; the list is empty where there are none."""
    name = call.name("trigger")
    instants = call.operations.upcoming(name, query.after or call.operations.clock.now())
    views = []
    for _, instant in zip(range(query.count), instants, strict=False):
        views.append(instant.view())
        # A timer may have to look far: others have their turn meanwhile.
        await anyio.lowlevel.checkpoint()
    return Response(body=views)
