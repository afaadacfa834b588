"""Routes that pause and resume: the engine, all triggers with a tag, one trigger."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

from engine.http.calls import Call
from engine.http.fields import Fields, body, query
from engine.http.trigger_routes import LONGEST_REASON, one_trigger
from engine.http.views import pause_view
from engine.plugin import Response
from engine.triggers import PauseScope

CLAIM = "X-Performed-By"
"""The header in which a caller says on whose behalf it asks; it is recorded as a claim, and gives no rights."""

_CLAIM = re.compile(r"[\x20-\x7e]{1,128}\Z")


async def pause(call: Call) -> Response:
    """Pause the engine, or all triggers with a tag. Answers when it is durable."""
    query(call.request).finish()
    fields = body(call.request, ("reason", "duration", "until", "tag"), optional=True)
    scope, name = _scope(fields)
    reason, until = _reason_and_end(call, fields)
    _note_before(call, scope, name)
    made = await call.operations.pause(scope, name, reason=reason, until=until, who=performer(call))
    return Response(body={**pause_view(made), "triggers": call.operations.held_by(made)})


async def resume(call: Call) -> Response:
    """End the pause of the engine, or of a tag; where there is none, nothing happens."""
    query(call.request).finish()
    fields = body(call.request, ("tag",), optional=True)
    scope, name = _scope(fields)
    fields.finish()
    _note_before(call, scope, name)
    resumed = await call.operations.resume(scope, name, who=performer(call))
    return Response(body={
        "scope": scope.value, "name": name, "resumed": resumed,
        "pauses": [pause_view(one) for one in call.operations.pauses()],
    })  # fmt: skip


async def pause_trigger(call: Call) -> Response:
    """Pause a trigger: for a while, until an instant, or until it is resumed. Answers when it is durable."""
    name = call.name("trigger")
    query(call.request).finish()
    call.operations.trigger_view(name)
    fields = body(call.request, ("reason", "duration", "until"), optional=True)
    reason, until = _reason_and_end(call, fields)
    _note_before(call, PauseScope.TRIGGER, name)
    await call.operations.pause(PauseScope.TRIGGER, name, reason=reason, until=until, who=performer(call))
    return await one_trigger(call, name)


async def resume_trigger(call: Call) -> Response:
    """End the pause of a trigger; one that is not paused is left as it is, and other pauses stay."""
    name = call.name("trigger")
    query(call.request).finish()
    body(call.request, (), optional=True).finish()
    call.operations.trigger_view(name)
    _note_before(call, PauseScope.TRIGGER, name)
    await call.operations.resume(PauseScope.TRIGGER, name, who=performer(call))
    return await one_trigger(call, name)


def _note_before(call: Call, scope: PauseScope, name: str) -> None:
    """Tell the audit log which pause held, and, where the path does not say it, what this is about."""
    held = [pause_view(one) for one in call.operations.pauses() if (one.scope, one.name) == (scope, name)]
    call.audit(before=held[0] if held else None, what=name or scope.value)


def performer(call: Call) -> str:
    """Return who asks: the token or the user, and on whose behalf where the caller says so."""
    owner = "nobody" if call.who is None else call.who.said()
    claim = call.request.headers.get(CLAIM)
    return f"{owner}, for {claim}" if claim is not None and _CLAIM.match(claim) else owner


def _scope(fields: Fields) -> tuple[PauseScope, str]:
    tag: Any = fields.text("tag", longest=128)
    return (PauseScope.ENGINE, "") if tag is None else (PauseScope.TAG, tag)


def _reason_and_end(call: Call, fields: Fields) -> tuple[str, datetime | None]:
    """Return why and until when; raise Problem 422 with all that is wrong."""
    reason, duration_s, until = (
        fields.text("reason", longest=LONGEST_REASON), fields.duration("duration"), fields.instant("until")
    )  # fmt: skip
    if "duration" in fields and "until" in fields:
        fields.fault("until", "a pause has one end: duration or until")
    fields.finish()
    if duration_s is not None:
        until = call.operations.clock.now() + timedelta(seconds=duration_s)
    return reason or "", until
