"""Routes that release what is in quarantine."""

from __future__ import annotations

from datetime import timedelta

from engine.clock import rfc3339
from engine.decide.breakers import Released
from engine.http.calls import Call
from engine.http.fields import body, query
from engine.http.pause_routes import performer
from engine.http.trigger_routes import LONGEST_REASON
from engine.plugin import Response


async def release_trigger(call: Call) -> Response:
    """Release a trigger from quarantine; one that is not in it is left as it is. Answers when it is durable."""
    name = call.name("trigger")
    reason = _reason(call)
    call.operations.trigger_view(name)
    released = await call.operations.guards.release_trigger(name, who=performer(call), reason=reason)
    return _answer("trigger", name, released)


async def release_source(call: Call) -> Response:
    """Release a source from quarantine."""
    reason = _reason(call)
    found = call.operations.source_view(call.parameters["name"])
    released = await call.operations.guards.release_source(found["name"], who=performer(call), reason=reason)
    return _answer("source", found["shared"] or found["name"], released)


def _reason(call: Call) -> str:
    query(call.request).finish()
    fields = body(call.request, ("reason",), optional=True)
    reason = fields.text("reason", longest=LONGEST_REASON)
    fields.finish()
    return reason or ""


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
