"""The route that tells why a trigger ran, or did not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

from msgspec import field

from engine.hindsight import inquire
from engine.http import shapes
from engine.http.calls import Call
from engine.http.described import described
from engine.http.fields import DEFAULT_LIMIT, refuse
from engine.http.forms import Form
from engine.http.kinds import LIMIT, Instant, Line
from engine.plugin import Response

DAY = timedelta(days=1)
LONGEST = timedelta(days=3653)
LONGEST_CURSOR = 64


class Looking(Form, frozen=True, kw_only=True):
    """From when to when, and which page of what was due."""

    start: Annotated[datetime | None, Instant(), "By default a day before `to`"] = field(name="from", default=None)
    end: Annotated[datetime | None, Instant(), "By default now"] = field(name="to", default=None)
    limit: Annotated[int, LIMIT, "How many items the page may hold"] = DEFAULT_LIMIT
    cursor: Annotated[str | None, Line(LONGEST_CURSOR), "The `next` of the page before"] = None


@described({200: shapes.Why})
async def get_why(call: Call, query: Looking) -> Response:
    """Answer with what should have run, what did, and why the rest did not; the last day where nothing is said."""
    name = call.name("trigger")
    subject = call.operations.subject(name)
    now = call.operations.clock.now()
    end = query.end or now
    start = query.start or end - DAY
    if end <= start:
        refuse([{"parameter": "to", "detail": "to must be later than from"}])
    if end - start > LONGEST:
        refuse([{"parameter": "from", "detail": "from and to may be ten years apart"}])
    return Response(
        body=await inquire(
            call.operations.store, subject, start=start.astimezone(UTC), end=end.astimezone(UTC), now=now,
            limit=query.limit, cursor=query.cursor,
        )
    )  # fmt: skip
