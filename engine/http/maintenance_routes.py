"""Routes of maintenance windows: what is open, making and removing them, and letting runs go in spite of one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any

from msgspec import field

from engine.clock import rfc3339
from engine.config.maintenance import MaintenanceTable
from engine.config.shapes import fields_of
from engine.errors import ConfigError, ConfigProblem, NotFound
from engine.http import shapes, surroundings
from engine.http.asked import Reason
from engine.http.calls import Call, performer
from engine.http.described import Raw, described
from engine.http.fields import body, refuse
from engine.http.forms import Form, Nothing
from engine.http.kinds import Instant, Slug, Span
from engine.ids import is_slug
from engine.payload import parse_json
from engine.plugin import Response

_KEYS = frozenset(field.key for field in fields_of(MaintenanceTable) if not field.shape.inline)
_NOT_ONCE = frozenset({"days", "start", "end", "from"})


WINDOW = Raw(
    content={
        "application/json": {
            "type": "object", "properties": {"name": Slug().schema}, "required": ["name"],
            "description": "The settings of a window, as the configuration takes them, and its name",
        }
    }
)  # fmt: skip
"""A maintenance window, as the description tells of it."""


class OverridingWindow(Form, frozen=True, kw_only=True):
    """For how long a window counts as closed: by default until this opening, or the next one, is over."""

    until: Annotated[datetime | None, Instant()] = None
    duration_s: Annotated[float | None, Span()] = field(name="duration", default=None)
    reason: Reason

    def mistakes(self) -> Iterator[tuple[str, str]]:
        if self.until is not None and self.duration_s is not None:
            yield "until", "an override has one end: duration or until"


@described({200: shapes.Page[surroundings.Window]})
async def list_maintenance(call: Call, query: Nothing) -> Response:
    """Answer with all windows: those that are open first, then those that open next."""
    return Response(body={"items": call.operations.maintenance.views(), "next": None})


@described({200: surroundings.Window})
async def get_maintenance(call: Call, query: Nothing) -> Response:
    """Answer with one window."""
    return Response(body=call.operations.maintenance.view(call.name("maintenance window")))


@described(
    {201: surroundings.Window}, takes=WINDOW, example={"name": "upgrade", "duration": "2h", "tags": ["warehouse"]}
)
async def post_maintenance(call: Call, query: Nothing) -> Response:
    """Make a window of the settings that the configuration takes, or another one of that name. Answers when it is
    durable. One that says only when it ends begins now."""
    fields = body(call.request, (*_sent(call), "name"))
    name = fields.value("name")
    if not isinstance(name, str) or not is_slug(name):
        fields.fault("name", "name must be a name: letters, digits, '_', '.' and '-', at most 128")
    fields.finish()
    settings = {key: fields.value(key) for key in _sent(call) if key != "name"}
    given = settings.keys()
    if given & {"to", "duration"} and not given & _NOT_ONCE and given <= _KEYS:
        settings["from"] = rfc3339(call.operations.clock.now())
    maintenance = call.operations.maintenance
    with suppress(NotFound):
        call.audit(before=maintenance.view(str(name)))
    call.audit(what=str(name))
    try:
        await maintenance.define(str(name), settings, who=performer(call))
    except ConfigError as error:
        refuse([_told(problem, str(name)) for problem in error.problems])
    view = maintenance.view(str(name))
    return Response(status=201, body=view, headers={"Location": f"/api/v1/maintenance/{name}"})


@described({200: surroundings.Window})
async def delete_maintenance(call: Call, query: Nothing) -> Response:
    """Remove a window of the API; what waits for it runs. Answers when that is durable, with how it was."""
    name = call.name("maintenance window")
    maintenance = call.operations.maintenance
    view = maintenance.view(name)
    call.audit(before=view)
    await maintenance.remove(name, who=performer(call))
    return Response(body=view)


@described({200: surroundings.Window}, example={"reason": "one import has to run", "duration": "30m"})
async def override_maintenance(call: Call, query: Nothing, body: OverridingWindow) -> Response:
    """Have a window count as closed: until an instant, for a while, or until this opening or the next one is over."""
    name = call.name("maintenance window")
    maintenance = call.operations.maintenance
    call.audit(before={"override": maintenance.view(name).get("override")})
    await maintenance.override(
        name, until=body.until, duration_s=body.duration_s, reason=body.reason, who=performer(call)
    )
    return Response(body=maintenance.view(name))


@described({200: surroundings.Window})
async def end_override(call: Call, query: Nothing) -> Response:
    """End the override of a window; where there is none, nothing happens."""
    name = call.name("maintenance window")
    call.audit(before={"override": call.operations.maintenance.view(name).get("override")})
    await call.operations.maintenance.end_override(name, who=performer(call))
    return Response(body=call.operations.maintenance.view(name))


def _sent(call: Call) -> tuple[str, ...]:
    """Return the members of the body: the names of timers are among them, so what is known shows when it is read."""
    value = parse_json(call.request.body) if call.request.body else None
    return tuple(value) if isinstance(value, dict) else ()


def _told(problem: ConfigProblem, name: str) -> dict[str, Any]:
    """Return a mistake as the API tells it, by its place in the body."""
    within = problem.path.removeprefix("maintenance.").removeprefix(f'"{name}"').removeprefix(name)
    pointer = within.replace("[", ".").replace("]", "").replace(".", "/")
    hint = f" ({problem.hint})" if problem.hint else ""
    where = within.lstrip(".") or "the window"
    return {"pointer": f"#{pointer}", "detail": f"{where}: {problem.message}{hint}"}
