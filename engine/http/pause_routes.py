"""Routes that pause and resume: the engine, all triggers with a tag, one trigger."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Annotated, ClassVar

from msgspec import field

from engine.http import shapes
from engine.http.asked import Reason
from engine.http.calls import Call, performer
from engine.http.described import described
from engine.http.forms import Form, Nothing
from engine.http.kinds import Instant, Line, Span
from engine.http.trigger_routes import one_trigger
from engine.http.views import pause_view
from engine.plugin import Response
from engine.triggers import PauseScope

Tag = Annotated[str | None, Line(128), "All triggers with this tag; without it the engine"]


class TriggerPausing(Form, frozen=True, kw_only=True):
    """For how long a pause holds: by default until it is ended."""

    optional: ClassVar[bool] = True

    reason: Reason = ""
    duration_s: Annotated[float | None, Span()] = field(name="duration", default=None)
    until: Annotated[datetime | None, Instant()] = None

    def mistakes(self) -> Iterator[tuple[str, str]]:
        if self.duration_s is not None and self.until is not None:
            yield "until", "a pause has one end: duration or until"

    def end(self, now: datetime) -> datetime | None:
        """Return until when it holds, where that is said."""
        return self.until if self.duration_s is None else now + timedelta(seconds=self.duration_s)


class Pausing(TriggerPausing, frozen=True, kw_only=True):
    """What is paused, the engine or all triggers with a tag, and for how long."""

    tag: Tag = None


class Resuming(Form, frozen=True, kw_only=True):
    """Which pause ends: that of the engine, or that of a tag."""

    optional: ClassVar[bool] = True

    tag: Tag = None


@described({200: shapes.Paused}, example={"reason": "the nightly copy", "duration": "2h"})
async def pause(call: Call, query: Nothing, body: Pausing) -> Response:
    """Pause the engine, or all triggers with a tag. Answers when it is durable."""
    scope, name = _scope(body.tag)
    until = body.end(call.operations.clock.now())
    _note_before(call, scope, name)
    made = await call.operations.pause(scope, name, reason=body.reason, until=until, who=performer(call))
    return Response(body={**pause_view(made), "triggers": call.operations.held_by(made)})


@described({200: shapes.Resumed})
async def resume(call: Call, query: Nothing, body: Resuming) -> Response:
    """End the pause of the engine, or of a tag; where there is none, nothing happens."""
    scope, name = _scope(body.tag)
    _note_before(call, scope, name)
    resumed = await call.operations.resume(scope, name, who=performer(call))
    return Response(body={
        "scope": scope.value, "name": name, "resumed": resumed,
        "pauses": [pause_view(one) for one in call.operations.pauses()],
    })  # fmt: skip


@described({200: shapes.TriggerOf}, example={"reason": "maintenance of the warehouse", "duration": "120m"})
async def pause_trigger(call: Call, query: Nothing, body: TriggerPausing) -> Response:
    """Pause a trigger: for a while, until an instant, or until it is resumed. Answers when it is durable."""
    name = call.name("trigger")
    until = body.end(call.operations.clock.now())
    call.operations.trigger_view(name)
    _note_before(call, PauseScope.TRIGGER, name)
    await call.operations.pause(PauseScope.TRIGGER, name, reason=body.reason, until=until, who=performer(call))
    return await one_trigger(call, name)


@described({200: shapes.TriggerOf})
async def resume_trigger(call: Call, query: Nothing, body: Nothing) -> Response:
    """End the pause of a trigger; one that is not paused is left as it is, and other pauses stay."""
    name = call.name("trigger")
    call.operations.trigger_view(name)
    _note_before(call, PauseScope.TRIGGER, name)
    await call.operations.resume(PauseScope.TRIGGER, name, who=performer(call))
    return await one_trigger(call, name)


def _note_before(call: Call, scope: PauseScope, name: str) -> None:
    """Tell the audit log which pause held, and, where the path does not say it, what this is about."""
    held = [pause_view(one) for one in call.operations.pauses() if (one.scope, one.name) == (scope, name)]
    call.audit(before=held[0] if held else None, what=name or scope.value)


def _scope(tag: str | None) -> tuple[PauseScope, str]:
    return (PauseScope.ENGINE, "") if tag is None else (PauseScope.TAG, tag)
