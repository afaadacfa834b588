"""Routes about the engine's own log: how much of it is told, part by part."""

from __future__ import annotations

from typing import Any

from engine.http.calls import Call
from engine.http.fields import Fields, body, near, query
from engine.http.pause_routes import performer
from engine.loglevels import LEVELS, LONGEST_S, mistake_in
from engine.plugin import Response


async def get_levels(call: Call) -> Response:
    """Answer with the levels that hold, those that are configured, and what was changed since the start."""
    query(call.request).finish()
    return Response(body=call.operations.log_levels.view())


async def patch_levels(call: Call) -> Response:
    """Change levels, for a time or until the engine ends; null has what is configured hold again."""
    query(call.request).finish()
    fields = body(call.request, ("levels", "for"))
    levels, for_s = _levels(fields), fields.duration("for")
    if for_s is not None and for_s > LONGEST_S:
        fields.fault("for", "for must be seven days at most: else configure it in [logs] levels")
    fields.finish()
    call.operations.log_levels.change(levels, for_s=for_s, who=performer(call))
    return Response(body=call.operations.log_levels.view())


def _levels(fields: Fields) -> dict[str, Any]:
    given = fields.value("levels")
    if not isinstance(given, dict) or not given:
        fields.fault("levels", 'levels must be an object of parts and levels, such as {"engine.http": "debug"}')
        return {}
    for part, level in given.items():
        if (wrong := mistake_in(part)) is not None:
            fields.fault("levels", wrong)
        if level is not None and level not in LEVELS:
            fields.fault("levels", f"unknown level {level!r} of {part}{near(str(level), LEVELS)}")
    return given
