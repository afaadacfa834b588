"""Routes about the configuration as a whole: how it stands, and reading it anew."""

from __future__ import annotations

from engine.http.calls import Call
from engine.http.fields import body, query
from engine.http.pause_routes import performer
from engine.plugin import Response


async def get_config(call: Call) -> Response:
    """Answer with where the configuration comes from, how the last reload went, and what only a restart changes."""
    query(call.request).finish()
    return Response(body=call.operations.definitions.view())


async def post_reload(call: Call) -> Response:
    """Read the configuration anew, and take it up. Answers when that is done, with what it changed."""
    query(call.request).finish()
    body(call.request, (), optional=True).finish()
    change = await call.operations.definitions.reload(performer(call))
    return Response(body={**call.operations.definitions.view(), "change": change.view()})
