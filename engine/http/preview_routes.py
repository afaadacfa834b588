"""What is asked of one source: its release from quarantine, and a preview of what it would emit."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from msgspec import Struct

from engine.clock import rfc3339
from engine.errors import PluginError
from engine.http import shapes
from engine.http.calls import Call
from engine.http.described import described
from engine.http.fields import Fields
from engine.http.forms import Form, Nothing
from engine.http.kinds import Schema, Whole
from engine.http.problems import Problem
from engine.plugin import Response
from engine.previews import Preview

DEFAULT_LIMIT, MOST = 20, 500
LONGEST_CURSOR = 1024


class Cursor(Struct, frozen=True):
    """From where a source looks: a number, or text."""

    @property
    def schema(self) -> Schema:
        return {"anyOf": [{"type": "number"}, {"type": "string", "minLength": 1, "maxLength": LONGEST_CURSOR}]}

    def read(self, fields: Fields, name: str) -> int | float | str | None:
        value: Any = fields.value(name)
        if isinstance(value, bool) or (value is not None and not isinstance(value, (int, float, str))):
            fields.fault(name, f"{name} is a number or text")
            return None
        if isinstance(value, str) and not 0 < len(value) <= LONGEST_CURSOR:
            fields.fault(name, f"{name} is text of 1 to {LONGEST_CURSOR} characters")
            return None
        return value


class Previewing(Form, frozen=True, kw_only=True):
    """From where to look, and how many events to tell of."""

    optional: ClassVar[bool] = True

    cursor: Annotated[int | float | str | None, Cursor(), "By default what is stored"] = None
    limit: Annotated[int, Whole(1, MOST)] = DEFAULT_LIMIT


@described({200: shapes.Previewed}, problems=(502,))
async def preview_source(call: Call, query: Nothing, body: Previewing) -> Response:
    """Say what a source would emit if it looked now, from its cursor or a chosen one; nothing is stored."""
    name = call.parameters["name"]
    source = call.operations.source_view(name)
    try:
        found = await call.operations.preview(name, cursor=body.cursor, limit=body.limit)
    except PluginError as error:
        raise Problem(502, str(error), code="preview_failed") from None
    return Response(body={"source": source["name"], "from": body.cursor, **preview_view(found)})


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
