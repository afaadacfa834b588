"""Routes about conditions: how they are, who waits for them, and what overrides them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from engine.http import shapes, surroundings
from engine.http.asked import LONGEST_REASON
from engine.http.calls import Call, performer
from engine.http.described import described
from engine.http.forms import Form, Nothing
from engine.http.kinds import Flag, Line, Members
from engine.http.views import list_view
from engine.plugin import Response


class Overriding(Form, frozen=True, kw_only=True):
    """What is to hold in the place of a condition's configuration; or `reset`, alone."""

    reason: Annotated[str | None, Line(LONGEST_REASON), "Why; required unless it is reset"] = None
    enabled: Annotated[bool | None, Flag()] = None
    shadow: Annotated[bool | None, Flag(), "Whether it is only watched, and holds nothing"] = None
    thresholds: Annotated[
        dict[str, Any] | None, Members("thresholds must be an object of settings and their values")
    ] = None
    reset: Annotated[bool, Flag(), "Let its configuration hold again"] = False

    def mistakes(self) -> Iterator[tuple[str, str]]:
        changes = [key for key in ("enabled", "shadow", "thresholds") if getattr(self, key) is not None]
        if not self.reset and self.reason is None:
            yield "reason", "reason is required"
        if self.reset and changes:
            yield "reset", f"reset drops every override; it stands alone, without {changes[0]}"
        elif not self.reset and not changes:
            yield "thresholds", "one of enabled, shadow, thresholds and reset is required"


@described({200: shapes.Page[surroundings.Condition]})
async def list_conditions(call: Call, query: Nothing) -> Response:
    """Answer with all conditions, by name: what they say, since when, and who waits for them."""
    return Response(body=list_view(await call.operations.conditions.views(), None))


@described({200: surroundings.Condition})
async def get_condition(call: Call, query: Nothing) -> Response:
    """Answer with one condition."""
    name = call.name("condition")
    return Response(body=await call.operations.conditions.view(name))


@described({200: surroundings.Condition}, example={"reason": "the probe is broken", "enabled": False})
async def patch_condition(call: Call, query: Nothing, body: Overriding) -> Response:
    """Override a condition's thresholds, or whether it counts; or (`reset`) let its configuration hold again.

    Answers when that is durable; it holds until it is reset, also after a restart.
    """
    name = call.name("condition")
    desk = call.operations.conditions
    call.audit(before={"override": (await desk.view(name)).get("override")})
    if body.reset:
        return Response(body=await desk.reset(name))
    return Response(body=await desk.override(
        name, reason=body.reason or "", who=performer(call), enabled=body.enabled, shadow=body.shadow,
        thresholds=body.thresholds or {},
    ))  # fmt: skip
