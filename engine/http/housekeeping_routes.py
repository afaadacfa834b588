"""Routes of housekeeping: how it stands, a round of it now, and copies of the store."""

from __future__ import annotations

from engine.http.calls import Call
from engine.http.fields import body, query
from engine.http.views import list_view
from engine.plugin import Response

PATIENCE_S = 20.0
"""How long the answer waits for a round to be over."""


async def get_housekeeping(call: Call) -> Response:
    """Answer with what is kept for how long, what was removed, ever and in the last round, and the store's size."""
    query(call.request).finish()
    return Response(body=await call.operations.housekeeping.view())


async def post_housekeeping(call: Call) -> Response:
    """Have a round done now; or, with `dry_run`, say what it would remove. 202 where it takes longer than the answer
    can wait: it goes on, and `GET` tells of it."""
    query(call.request).finish()
    fields = body(call.request, ("dry_run",), optional=True)
    dry_run = fields.value("dry_run")
    if not (dry_run is None or isinstance(dry_run, bool)):
        fields.fault("dry_run", "dry_run must be true or false")
    fields.finish()
    housekeeping = call.operations.housekeeping
    if dry_run:
        return Response(body={**await housekeeping.view(), "would_remove": await housekeeping.rehearse()})
    over = await housekeeping.begin(patience_s=PATIENCE_S)
    return Response(status=200 if over else 202, body=await housekeeping.view())


async def list_backups(call: Call) -> Response:
    """Answer with the copies of the store that are there, the newest first."""
    query(call.request).finish()
    return Response(body=list_view(await call.operations.housekeeping.backups.copies(), None))


async def post_backup(call: Call) -> Response:
    """Copy the store into the directory for backups. Answers when the copy is durable and was checked."""
    query(call.request).finish()
    fields = body(call.request, ("name",), optional=True)
    name = fields.slug("name")
    fields.finish()
    return Response(status=201, body=await call.operations.housekeeping.backups.make(name))
