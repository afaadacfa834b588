"""Routes about adapted intervals."""

from __future__ import annotations

from typing import Annotated

from engine.defined import Key, Kind
from engine.http import shapes
from engine.http.asked import Because, Reason
from engine.http.calls import Call, performer
from engine.http.described import JSON, described
from engine.http.forms import Form, Nothing
from engine.http.kinds import OneOf
from engine.http.trigger_routes import one_trigger
from engine.plugin import Response

ACTIONS = ("freeze", "unfreeze", "reset")


class Adapting(Form, frozen=True, kw_only=True):
    """What to do with an adapted interval."""

    action: Annotated[str, OneOf(ACTIONS)]
    reason: Reason = ""


@described({200: JSON}, problems=(409,))
async def get_adaptive(call: Call, query: Nothing) -> Response:
    """Answer with a trigger's interval, what it goes by, and its latest changes."""
    name = call.name("trigger")
    return Response(body=call.operations.adaptive_view(name))


@described({200: JSON}, example={"action": "freeze", "reason": "the month ends"})
async def post_adaptive(call: Call, query: Nothing, body: Adapting) -> Response:
    """Freeze, unfreeze or reset a trigger's interval. Answers when it is durable."""
    name = call.name("trigger")
    call.operations.adaptive_view(name)
    await call.operations.adapt(name, body.action, body.reason)
    return Response(body=call.operations.adaptive_view(name))


@described({200: shapes.TriggerOf})
async def reset_trigger(call: Call, query: Nothing, body: Because) -> Response:
    """Drop what overrides a trigger's configuration. Answers with the trigger when that is durable."""
    name = call.name("trigger")
    call.operations.trigger_view(name)
    await call.operations.definitions.reset(Key(Kind.TRIGGER, name), who=performer(call))
    await call.operations.reset_trigger(name, body.reason)
    return await one_trigger(call, name)
