"""What is asked of one source: its release from quarantine, and a preview of what it would emit."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from engine.clock import rfc3339
from engine.errors import PluginError
from engine.http.calls import Call
from engine.http.fields import body, query
from engine.http.guard_routes import release_source
from engine.http.problems import Problem
from engine.plugin import Response
from engine.previews import Preview

DEFAULT_LIMIT, MOST = 20, 500
LONGEST_CURSOR = 1024


async def ask_source(call: Call) -> Response:
    """Release a source, or preview it. Its name may hold slashes; after it comes /release or /preview."""
    name, _, what = call.parameters["name"].rpartition("/")
    asked = {"release": release_source, "preview": preview_source}.get(what)
    if asked is None:
        raise Problem(404, "a source can be asked for its release or a preview: end the path with /release or /preview")
    return await asked(replace(call, parameters={**call.parameters, "name": name}))


async def preview_source(call: Call) -> Response:
    """Say what a source would emit if it looked now, from its cursor or a chosen one; nothing is stored."""
    name = call.parameters["name"]
    query(call.request).finish()
    fields = body(call.request, ("cursor", "limit"), optional=True)
    cursor, limit = fields.value("cursor"), fields.value("limit")
    if limit is not None and (type(limit) is not int or not 1 <= limit <= MOST):
        fields.fault("limit", f"limit must be a whole number from 1 to {MOST}")
    if isinstance(cursor, bool) or (cursor is not None and not isinstance(cursor, (int, float, str))):
        fields.fault("cursor", "cursor is a number or text")
    elif isinstance(cursor, str) and not 0 < len(cursor) <= LONGEST_CURSOR:
        fields.fault("cursor", f"cursor is text of 1 to {LONGEST_CURSOR} characters")
    fields.finish()
    source = call.operations.source_view(name)
    try:
        found = await call.operations.preview(name, cursor=cursor, limit=limit or DEFAULT_LIMIT)
    except PluginError as error:
        raise Problem(502, str(error), code="preview_failed") from None
    return Response(body={"source": source["name"], "from": cursor, **preview_view(found)})


def preview_view(preview: Preview) -> dict[str, Any]:
    """Return a preview as the API shows it."""
    return {
        "events": [
            {
                "type": one.event.type, "subject": one.event.subject, "key": one.event.key,
                "time": None if one.event.time is None else rfc3339(one.event.time), "data": one.event.data,
                "duplicate": one.duplicate, "refused": one.refused,
            }
            for one in preview.found
        ],
        "more": preview.more,
        "stored": preview.stored,
        "cursor": preview.cursor,
    }  # fmt: skip
