"""Routes about pools: how much of each is taken and by whom, and what overrides their limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from engine.decide.limits import HIGHEST_LIMIT
from engine.http import shapes, surroundings
from engine.http.asked import LONGEST_REASON
from engine.http.calls import Call, performer
from engine.http.described import described
from engine.http.forms import Form, Nothing
from engine.http.kinds import Flag, Line, Whole
from engine.http.views import list_view
from engine.plugin import Response


class Resizing(Form, frozen=True, kw_only=True):
    """How much a pool is to hold; or `reset`, alone."""

    limit: Annotated[int | None, Whole(0, HIGHEST_LIMIT)] = None
    reason: Annotated[str | None, Line(LONGEST_REASON), "Why; required unless it is reset"] = None
    reset: Annotated[bool, Flag(), "Let what is configured hold again"] = False

    def mistakes(self) -> Iterator[tuple[str, str]]:
        if not self.reset and self.reason is None:
            yield "reason", "reason is required"
        if self.reset and self.limit is not None:
            yield "reset", "reset has what is configured hold; it stands alone, without limit"
        elif not self.reset and self.limit is None:
            yield "limit", "one of limit and reset is required"


@described({200: shapes.Page[surroundings.Pool]})
async def list_pools(call: Call, query: Nothing) -> Response:
    """Answer with all pools: the slots of the engine (`engine`) first."""
    return Response(body=list_view(await call.operations.pools.views(), None))


@described({200: surroundings.Pool})
async def get_pool(call: Call, query: Nothing) -> Response:
    """Answer with one pool."""
    name = call.name("pool")
    return Response(body=await call.operations.pools.view(name))


@described({200: surroundings.Pool}, example={"limit": 2, "reason": "the warehouse is slow today"})
async def patch_pool(call: Call, query: Nothing, body: Resizing) -> Response:
    """Have a pool hold another amount; or (`reset`) what is configured again.

    Answers when that is durable; it holds until it is reset, also after a restart.
    """
    name = call.name("pool")
    found = await call.operations.pools.view(name)
    call.audit(before={"limit": found["limit"], "override": found["override"]})
    if body.reset or body.limit is None:
        return Response(body=await call.operations.pools.reset(name, who=performer(call)))
    return Response(
        body=await call.operations.pools.change(name, body.limit, reason=body.reason or "", who=performer(call))
    )
