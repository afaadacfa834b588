"""Routes about sources."""

from __future__ import annotations

from bisect import bisect_right
from typing import Annotated, Any

from engine.http import shapes
from engine.http.calls import Call
from engine.http.described import described
from engine.http.fields import DEFAULT_LIMIT
from engine.http.forms import Form, Nothing
from engine.http.kinds import LIMIT, Line
from engine.http.views import list_view
from engine.plugin import Response

LONGEST_NAME = 2048
"""Characters of a source's name: a plugin's name and what it is on, such as a path."""


class SourcePaging(Form, frozen=True, kw_only=True):
    """Which page of a list of sources."""

    limit: Annotated[int, LIMIT, "How many items the page may hold"] = DEFAULT_LIMIT
    cursor: Annotated[str | None, Line(LONGEST_NAME), "The `next` of the page before"] = None


@described({200: shapes.Page[shapes.Source]})
async def list_sources(call: Call, query: SourcePaging) -> Response:
    """Answer with all sources that enabled triggers are on, by name: how each is, and what it did so far."""
    views = sorted(call.operations.source_views(), key=lambda view: str(view["name"]))
    start = 0 if query.cursor is None else bisect_right([view["name"] for view in views], query.cursor)
    page = views[start : start + query.limit]
    return Response(body=list_view(page, page[-1]["name"] if start + query.limit < len(views) else None))


@described({200: shapes.Source})
async def get_source(call: Call, query: Nothing) -> Response:
    """Answer with one source. Its name may hold slashes."""
    return Response(body=call.operations.source_view(call.parameters["name"]))


@described({200: shapes.Page[Any]})
async def list_refusals(call: Call, query: Nothing) -> Response:
    """Answer with what a source refused last, of each kind, and what was wrong with it."""
    return Response(body=list_view(await call.operations.refusals(call.parameters["name"]), None))
