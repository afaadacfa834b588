"""The route that tells why a trigger ran, or did not."""

from __future__ import annotations

from datetime import UTC, timedelta

from engine.hindsight import inquire
from engine.http.calls import Call
from engine.http.fields import query
from engine.plugin import Response

DAY = timedelta(days=1)
LONGEST = timedelta(days=3653)
LONGEST_CURSOR = 64


async def get_why(call: Call) -> Response:
    """Answer with what should have run, what did, and why the rest did not; the last day where nothing is said."""
    name = call.name("trigger")
    subject = call.operations.subject(name)
    fields = query(call.request, "from", "to", "limit", "cursor")
    now = call.operations.clock.now()
    end = fields.instant("to") or now
    start = fields.instant("from") or end - DAY
    limit, cursor = fields.limit(), fields.text("cursor", longest=LONGEST_CURSOR)
    if end <= start:
        fields.fault("to", "to must be later than from")
    elif end - start > LONGEST:
        fields.fault("from", "from and to may be ten years apart")
    fields.finish()
    return Response(
        body=await inquire(
            call.operations.store, subject, start=start.astimezone(UTC), end=end.astimezone(UTC), now=now, limit=limit,
            cursor=cursor,
        )
    )  # fmt: skip
