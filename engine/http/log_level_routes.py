"""Routes about the engine's own log: how much of it is told, part by part."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from msgspec import Struct, field

from engine.http import surroundings
from engine.http.calls import Call, performer
from engine.http.described import described
from engine.http.fields import Fields, near
from engine.http.forms import Form, Nothing
from engine.http.kinds import Schema, Span
from engine.loglevels import LEVELS, LONGEST_S, mistake_in
from engine.plugin import Response


class Levels(Struct, frozen=True):
    """Levels of parts of the engine; null for the configured one."""

    @property
    def schema(self) -> Schema:
        return {
            "type": "object", "minProperties": 1, "additionalProperties": {"enum": [*LEVELS, None]},
            "examples": [{"engine.http": "debug"}],
        }  # fmt: skip

    def read(self, fields: Fields, name: str) -> dict[str, Any] | None:
        given: Any = fields.value(name)
        if given is None:
            return None
        if not isinstance(given, dict) or not given:
            fields.fault(name, f'{name} must be an object of parts and levels, such as {{"engine.http": "debug"}}')
            return None
        for part, level in given.items():
            if (wrong := mistake_in(part)) is not None:
                fields.fault(name, wrong)
            if level is not None and not (isinstance(level, str) and level in LEVELS):
                fields.fault(name, f"unknown level {level!r} of {part}{near(str(level), LEVELS)}")
        return given


class Levelling(Form, frozen=True, kw_only=True):
    """Which levels are changed, and for how long."""

    levels: Annotated[dict[str, Any], Levels(), "By part; null has what is configured hold again"]
    for_s: Annotated[float | None, Span(), "By default until the engine ends"] = field(name="for", default=None)

    def mistakes(self) -> Iterator[tuple[str, str]]:
        if self.for_s is not None and self.for_s > LONGEST_S:
            yield "for", "for must be seven days at most: else configure it in [logs] levels"


@described({200: surroundings.LogLevels})
async def get_levels(call: Call, query: Nothing) -> Response:
    """Answer with the levels that hold, those that are configured, and what was changed since the start."""
    return Response(body=call.operations.log_levels.view())


@described({200: surroundings.LogLevels}, example={"levels": {"engine.http": "debug"}, "for": "1h"})
async def patch_levels(call: Call, query: Nothing, body: Levelling) -> Response:
    """Change levels, for a time or until the engine ends; null has what is configured hold again."""
    call.audit(before={"changed": call.operations.log_levels.view()["changed"]})
    call.operations.log_levels.change(body.levels, for_s=body.for_s, who=performer(call))
    return Response(body=call.operations.log_levels.view())
