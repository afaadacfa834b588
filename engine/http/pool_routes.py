"""Routes about pools: how much of each is taken and by whom, and what overrides their limits."""

from __future__ import annotations

from typing import Any

from engine.decide.limits import HIGHEST_LIMIT
from engine.http.calls import Call
from engine.http.fields import Fields, body, query
from engine.http.pause_routes import performer
from engine.http.trigger_routes import LONGEST_REASON
from engine.http.views import list_view
from engine.plugin import Response


async def list_pools(call: Call) -> Response:
    """Answer with all pools: the slots of the engine (`engine`) first."""
    query(call.request).finish()
    return Response(body=list_view(await call.operations.pools.views(), None))


async def get_pool(call: Call) -> Response:
    """Answer with one pool."""
    name = call.name("pool")
    query(call.request).finish()
    return Response(body=await call.operations.pools.view(name))


async def patch_pool(call: Call) -> Response:
    """Have a pool hold another amount; or (`reset`) what is configured again.

    Answers when that is durable; it holds until it is reset, also after a restart.
    """
    name = call.name("pool")
    query(call.request).finish()
    fields = body(call.request, ("limit", "reason", "reset"))
    reset = fields.value("reset")
    if reset is not None and reset is not True:
        fields.fault("reset", "reset must be true, or left out")
    limit = _limit(fields)
    reason = fields.text("reason", longest=LONGEST_REASON, required=not reset)
    if reset and "limit" in fields:
        fields.fault("reset", "reset has what is configured hold; it stands alone, without limit")
    elif not reset and fields.value("limit") is None:
        fields.fault("limit", "one of limit and reset is required")
    fields.finish()
    found = await call.operations.pools.view(name)
    call.audit(before={"limit": found["limit"], "override": found["override"]})
    if reset or limit is None:
        return Response(body=await call.operations.pools.reset(name, who=performer(call)))
    return Response(body=await call.operations.pools.change(name, limit, reason=reason or "", who=performer(call)))


def _limit(fields: Fields) -> int | None:
    value: Any = fields.value("limit")
    if value is not None and (type(value) is not int or not 0 <= value <= HIGHEST_LIMIT):
        fields.fault("limit", f"limit must be a whole number from 0 to {HIGHEST_LIMIT}")
        return None
    return value
