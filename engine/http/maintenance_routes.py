"""Routes of maintenance windows: what is open, making and removing them, and letting runs go in spite of one."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from engine.clock import rfc3339
from engine.config.maintenance import MaintenanceTable
from engine.config.shapes import fields_of
from engine.errors import ConfigError, ConfigProblem, NotFound
from engine.http.calls import Call
from engine.http.fields import body, query, refuse
from engine.http.pause_routes import performer
from engine.http.trigger_routes import LONGEST_REASON
from engine.ids import is_slug
from engine.payload import parse_json
from engine.plugin import Response

_KEYS = frozenset(field.key for field in fields_of(MaintenanceTable) if not field.shape.inline)
_NOT_ONCE = frozenset({"days", "start", "end", "from"})


async def list_maintenance(call: Call) -> Response:
    """Answer with all windows: those that are open first, then those that open next."""
    query(call.request).finish()
    return Response(body={"items": call.operations.maintenance.views(), "next": None})


async def get_maintenance(call: Call) -> Response:
    """Answer with one window."""
    query(call.request).finish()
    return Response(body=call.operations.maintenance.view(call.name("maintenance window")))


async def post_maintenance(call: Call) -> Response:
    """Make a window of the settings that the configuration takes, or another one of that name. Answers when it is
    durable. One that says only when it ends begins now."""
    query(call.request).finish()
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


async def delete_maintenance(call: Call) -> Response:
    """Remove a window of the API; what waits for it runs. Answers when that is durable, with how it was."""
    name = call.name("maintenance window")
    query(call.request).finish()
    maintenance = call.operations.maintenance
    view = maintenance.view(name)
    call.audit(before=view)
    await maintenance.remove(name, who=performer(call))
    return Response(body=view)


async def override_maintenance(call: Call) -> Response:
    """Have a window count as closed: until an instant, for a while, or until this opening or the next one is over."""
    name = call.name("maintenance window")
    query(call.request).finish()
    fields = body(call.request, ("until", "duration", "reason"))
    until, duration_s = fields.instant("until"), fields.duration("duration")
    reason = fields.text("reason", longest=LONGEST_REASON, required=True)
    if "until" in fields and "duration" in fields:
        fields.fault("until", "an override has one end: duration or until")
    fields.finish()
    maintenance = call.operations.maintenance
    call.audit(before={"override": maintenance.view(name).get("override")})
    await maintenance.override(name, until=until, duration_s=duration_s, reason=reason or "", who=performer(call))
    return Response(body=maintenance.view(name))


async def end_override(call: Call) -> Response:
    """End the override of a window; where there is none, nothing happens."""
    name = call.name("maintenance window")
    query(call.request).finish()
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
