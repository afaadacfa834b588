"""Routes about sources."""

from __future__ import annotations

from bisect import bisect_right

from engine.errors import NotFound
from engine.http.calls import Call
from engine.http.fields import query
from engine.http.views import list_view
from engine.plugin import Response

_REFUSALS = "/refusals"

LONGEST_NAME = 2048
"""Characters of a source's name: a plugin's name and what it is on, such as a path."""


async def list_sources(call: Call) -> Response:
    """Answer with all sources that enabled triggers are on, by name: how each is, and what it did so far."""
    fields = query(call.request, "limit", "cursor")
    limit, after = fields.limit(), fields.text("cursor", longest=LONGEST_NAME)
    fields.finish()
    views = sorted(call.operations.source_views(), key=lambda view: str(view["name"]))
    start = 0 if after is None else bisect_right([view["name"] for view in views], after)
    page = views[start : start + limit]
    return Response(body=list_view(page, page[-1]["name"] if start + limit < len(views) else None))


async def get_source(call: Call) -> Response:
    """Answer with one source, or with what it refused. Its name may hold slashes; after it may come /refusals."""
    query(call.request).finish()
    name = call.parameters["name"]
    try:
        return Response(body=call.operations.source_view(name))
    except NotFound:
        if not name.endswith(_REFUSALS):
            raise
    return Response(body=list_view(await call.operations.refusals(name.removesuffix(_REFUSALS)), None))
