"""Routes about adapted intervals."""

from __future__ import annotations

from engine.defined import Key, Kind
from engine.http.calls import Call
from engine.http.fields import body, query
from engine.http.pause_routes import performer
from engine.http.trigger_routes import LONGEST_REASON, get_trigger
from engine.plugin import Response

ACTIONS = ("freeze", "unfreeze", "reset")


async def get_adaptive(call: Call) -> Response:
    """Answer with a trigger's interval, what it goes by, and its latest changes."""
    name = call.name("trigger")
    query(call.request).finish()
    return Response(body=call.operations.adaptive_view(name))


async def post_adaptive(call: Call) -> Response:
    """Freeze, unfreeze or reset a trigger's interval. Answers when it is durable."""
    name = call.name("trigger")
    query(call.request).finish()
    call.operations.adaptive_view(name)
    fields = body(call.request, ("action", "reason"))
    action, reason = fields.text("action", required=True), fields.text("reason", longest=LONGEST_REASON)
    if action is not None and action not in ACTIONS:
        fields.fault("action", f"action must be one of {', '.join(ACTIONS)}")
    fields.finish()
    await call.operations.adapt(name, action or "", reason or "")
    return Response(body=call.operations.adaptive_view(name))


async def reset_trigger(call: Call) -> Response:
    """Drop what overrides a trigger's configuration. Answers with the trigger when that is durable."""
    name = call.name("trigger")
    query(call.request).finish()
    call.operations.trigger_view(name)
    fields = body(call.request, ("reason",), optional=True)
    reason = fields.text("reason", longest=LONGEST_REASON)
    fields.finish()
    await call.operations.definitions.reset(Key(Kind.TRIGGER, name), who=performer(call))
    await call.operations.reset_trigger(name, reason or "")
    return await get_trigger(call)
