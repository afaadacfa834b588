"""Routes that release what is in quarantine."""

from __future__ import annotations

from datetime import timedelta

from engine.clock import rfc3339
from engine.decide.breakers import Released
from engine.http import shapes
from engine.http.asked import Because
from engine.http.calls import Call, performer
from engine.http.described import described
from engine.http.forms import Nothing
from engine.plugin import Response


@described({200: shapes.Released})
async def release_trigger(call: Call, query: Nothing, body: Because) -> Response:
    """Release a trigger from quarantine; one that is not in it is left as it is. Answers when it is durable."""
    name = call.name("trigger")
    call.operations.trigger_view(name)
    released = await call.operations.guards.release_trigger(name, who=performer(call), reason=body.reason)
    return _answer("trigger", name, released)


@described({200: shapes.Released})
async def release_source(call: Call, query: Nothing, body: Because) -> Response:
    """Release a source from quarantine."""
    found = call.operations.source_view(call.parameters["name"])
    released = await call.operations.guards.release_source(found["name"], who=performer(call), reason=body.reason)
    return _answer("source", found["shared"] or found["name"], released)


def _answer(scope: str, name: str, released: Released | None) -> Response:
    """Say what was released; from when to when its events were held back, for those who want to replay them."""
    if released is None:
        return Response(body={
            "scope": scope, "name": name, "released": False, "triggers": [], "from": None, "to": None, "was": None,
        })  # fmt: skip
    return Response(body={
        "scope": scope, "name": name, "released": True, "triggers": list(released.triggers),
        "from": rfc3339(released.quarantine.since), "to": rfc3339(released.at + timedelta(milliseconds=1)),
        "was": released.quarantine.said(),
    })  # fmt: skip
