"""Routes about conditions: how they are, who waits for them, and what overrides them."""

from __future__ import annotations

from typing import Any

from engine.http.calls import Call
from engine.http.fields import Fields, body, query
from engine.http.pause_routes import performer
from engine.http.trigger_routes import LONGEST_REASON
from engine.http.views import list_view
from engine.plugin import Response


async def list_conditions(call: Call) -> Response:
    """Answer with all conditions, by name: what they say, since when, and who waits for them."""
    query(call.request).finish()
    return Response(body=list_view(await call.operations.conditions.views(), None))


async def get_condition(call: Call) -> Response:
    """Answer with one condition."""
    name = call.name("condition")
    query(call.request).finish()
    return Response(body=await call.operations.conditions.view(name))


async def patch_condition(call: Call) -> Response:
    """Override a condition's thresholds, or whether it counts; or (`reset`) let its configuration hold again.

    Answers when that is durable; it holds until it is reset, also after a restart.
    """
    name = call.name("condition")
    query(call.request).finish()
    fields = body(call.request, ("reason", "enabled", "shadow", "thresholds", "reset"))
    reset = _flag(fields, "reset")
    enabled, shadow, thresholds = _flag(fields, "enabled"), _flag(fields, "shadow"), _thresholds(fields)
    reason = fields.text("reason", longest=LONGEST_REASON, required=not reset)
    changes = [key for key in ("enabled", "shadow", "thresholds") if key in fields]
    if reset and changes:
        fields.fault("reset", f"reset drops every override; it stands alone, without {changes[0]}")
    elif not reset and not changes:
        fields.fault("thresholds", "one of enabled, shadow, thresholds and reset is required")
    fields.finish()
    desk = call.operations.conditions
    call.audit(before={"override": (await desk.view(name)).get("override")})
    if reset:
        return Response(body=await desk.reset(name))
    return Response(body=await desk.override(
        name, reason=reason or "", who=performer(call), enabled=enabled, shadow=shadow, thresholds=thresholds,
    ))  # fmt: skip


def _flag(fields: Fields, name: str) -> bool | None:
    value: Any = fields.value(name)
    if value is not None and not isinstance(value, bool):
        fields.fault(name, f"{name} must be true or false")
        return None
    return value


def _thresholds(fields: Fields) -> dict[str, Any]:
    value: Any = fields.value("thresholds")
    if value is None:
        return {}
    if not isinstance(value, dict):
        fields.fault("thresholds", "thresholds must be an object of settings and their values")
        return {}
    return value
