"""One thing done with many triggers: answered item by item, or, where that is asked, done with all or none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from engine.defined import Key, Kind
from engine.errors import ConfigError, Conflict, EngineError, InvalidRequest, NotFound
from engine.http import shapes
from engine.http.access import Role
from engine.http.calls import Call, performer
from engine.http.described import described
from engine.http.forms import Nothing
from engine.http.idempotency import request_id_of
from engine.http.kinds import Anything, Flag, Line, Names, OneOf, Priority, words_of
from engine.http.pause_routes import TriggerPausing
from engine.http.problems import Problem, problem_of
from engine.http.trigger_routes import BYPASS
from engine.plugin import Response
from engine.triggers import PauseScope

MOST = 1_000
"""Triggers in one request."""


class Action(StrEnum):
    """What is done with each of the triggers."""

    PAUSE = "pause"
    RESUME = "resume"
    FIRE = "fire"
    RELEASE = "release"
    RESET = "reset"
    ENABLE = "enable"
    DISABLE = "disable"


SWITCHES = frozenset({Action.ENABLE, Action.DISABLE})
"""What changes a setting: as with PATCH it is overridden or, where the API defines the trigger, changed for good."""

AT_ONCE = SWITCHES | {Action.PAUSE, Action.RESUME, Action.FIRE}
"""What can be done with all of them or none."""

_OF_PAUSES = ("duration", "until")
_OF_FIRES = ("data", "priority", "bypass")


class Bulk(TriggerPausing, frozen=True, kw_only=True):
    """What is done, and with which triggers: `names`, those with a `tag`, or `all`."""

    optional = False

    action: Annotated[str, OneOf(words_of(Action))]
    names: Annotated[tuple[str, ...] | None, Names(MOST, 1)] = None
    tag: Annotated[str | None, Line(128), "Those with this tag, their own or their job's"] = None
    all: Annotated[bool, Flag(), "All that there are"] = False
    atomic: Annotated[bool, Flag(), "All or none; not for release and reset"] = False
    data: Annotated[Any, Anything(), "The data of the event; for fire"] = None
    priority: Annotated[int | None, Priority(), "For fire"] = None
    bypass: Annotated[frozenset[str], BYPASS, "For fire"] = frozenset()

    def mistakes(self) -> Iterator[tuple[str, str]]:
        yield from super().mistakes()
        if (self.names is not None) + (self.tag is not None) + self.all != 1:
            yield "names", "say which triggers: one of names, tag and all"
        if self.atomic and self.action not in AT_ONCE:
            yield "atomic", f"{self.action} is not done with all or none"
        if self.action != Action.PAUSE and (self.duration_s is not None or self.until is not None):
            yield "duration", f"duration and until go with {Action.PAUSE}"
        if self.action != Action.FIRE and (self.data is not None or self.priority is not None or self.bypass):
            yield "data", f"{', '.join(_OF_FIRES)} go with {Action.FIRE}"


@described(
    {200: shapes.BulkDone},
    example={"action": "pause", "tag": "warehouse", "duration": "2h", "reason": "the upgrade", "atomic": True},
)
async def post_bulk(call: Call, query: Nothing, body: Bulk) -> Response:
    """Pause, resume, fire, release, reset, enable or disable many triggers; the latter two take the role admin.

    Each of them has its answer in `items`; one that fails keeps none of the others from being done. With `atomic` it is
    one commit: nothing is done where one of them can't be, and the problem names each that can't.
    """
    if body.action in SWITCHES and (call.who is None or call.who.role < Role.ADMIN):
        raise Problem(403, f"to {body.action} triggers takes the role admin", code="role_needed")
    names = _named(call, body)
    until = body.end(call.operations.clock.now())
    if body.atomic:
        items = await _at_once(call, body, names, until)
    elif body.action in SWITCHES:
        items = await _switch(call, body, names)
    else:
        items = [await _one(call, body, name, until) for name in names]
    failed = sum(not item["ok"] for item in items)
    return Response(body={"action": body.action, "atomic": body.atomic, "count": len(items) - failed, "failed": failed,
                          "items": items})  # fmt: skip


def _named(call: Call, body: Bulk) -> list[str]:
    """Return the triggers that are meant; raise Problem 422 where there are too many."""
    if body.names is not None:
        return list(body.names)
    found = call.operations.trigger_names() if body.tag is None else call.operations.tagged(body.tag)
    if not found:
        raise NotFound("there is no trigger" if body.tag is None else f"no trigger has the tag {body.tag}")
    if len(found) > MOST:
        raise Problem(422, f"{len(found)} triggers are meant, and {MOST} may be: name them", code="too_many")
    return sorted(found)


async def _one(call: Call, body: Bulk, name: str, until: datetime | None) -> shapes.BulkItem:
    try:
        call.operations.trigger_view(name)
        return await _DOES[Action(body.action)](call, body, name, until)
    except EngineError as error:
        problem = problem_of(error)
        return {"name": name, "ok": False, "status": problem.status, "code": problem.code, "detail": problem.detail}


async def _switch(call: Call, body: Bulk, names: list[str]) -> list[shapes.BulkItem]:
    """Enable or disable triggers in one commit, without those with which that can't be done."""
    why_not = {name: why for name in names if (why := _why_not(call, body, name)) is not None}
    wanted = [name for name in names if name not in why_not]
    with suppress(ConfigError, Conflict, NotFound):  # one of them keeps all from it
        await _switch_all(call, body, wanted)
        return [await _one(call, body, name, None) if name in why_not else {"name": name, "ok": True} for name in names]
    return [await _one(call, body, name, None) for name in names]


async def _switch_all(call: Call, body: Bulk, names: list[str]) -> None:
    keys = [Key(Kind.TRIGGER, name) for name in names]
    enabled = body.action == Action.ENABLE
    await call.operations.definitions.patch_all(keys, {"enabled": enabled}, who=performer(call), reason=body.reason)


async def _at_once(call: Call, body: Bulk, names: list[str], until: datetime | None) -> list[shapes.BulkItem]:
    wrong = [
        {"pointer": f"#/names/{index}" if body.names else "#/names", "detail": f"{name}: {why}"}
        for index, name in enumerate(names)
        if (why := _why_not(call, body, name)) is not None
    ]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise Problem(409, f"nothing is done: {wrong[0]['detail']}{more}", errors=wrong)
    bulk = call.operations.bulk
    if body.action == Action.PAUSE:
        await bulk.pause(names, reason=body.reason, until=until, who=performer(call))
    elif body.action == Action.RESUME:
        await bulk.resume(names, who=performer(call))
    elif body.action in SWITCHES:
        await _switch_all(call, body, names)
    else:
        accepted = await bulk.fire(
            names, data=body.data, reason=body.reason, priority=body.priority, bypass=body.bypass,
            request_id=request_id_of(call, "bulk"),
        )  # fmt: skip
        return [
            {"name": name, "ok": True, "event": one.event, "runs": list(one.runs)}
            for name, one in zip(names, accepted, strict=True)
        ]
    return [{"name": name, "ok": True} for name in names]


def _why_not(call: Call, body: Bulk, name: str) -> str | None:
    """Say why something can't be done with a trigger; None where it can."""
    try:
        view = call.operations.trigger_view(name)
    except NotFound:
        return "there is no such trigger"
    return str(view["state_reason"]) if body.action == Action.FIRE and view["state"] == "disabled" else None


async def _pause(call: Call, body: Bulk, name: str, until: datetime | None) -> shapes.BulkItem:
    await call.operations.pause(PauseScope.TRIGGER, name, reason=body.reason, until=until, who=performer(call))
    return {"name": name, "ok": True}


async def _resume(call: Call, body: Bulk, name: str, until: datetime | None) -> shapes.BulkItem:
    await call.operations.resume(PauseScope.TRIGGER, name, who=performer(call))
    return {"name": name, "ok": True}


async def _fire(call: Call, body: Bulk, name: str, until: datetime | None) -> shapes.BulkItem:
    key = request_id_of(call, "bulk")
    accepted = await call.operations.fire(
        name, data=body.data, reason=body.reason, priority=body.priority, bypass=body.bypass,
        request_id=None if key is None else f"{key} {name}",
    )  # fmt: skip
    return {"name": name, "ok": True, "event": accepted.event, "runs": list(accepted.runs)}


async def _release(call: Call, body: Bulk, name: str, until: datetime | None) -> shapes.BulkItem:
    if await call.operations.guards.release_trigger(name, who=performer(call), reason=body.reason) is None:
        raise Conflict(f"trigger {name} is not in quarantine")
    return {"name": name, "ok": True}


async def _reset(call: Call, body: Bulk, name: str, until: datetime | None) -> shapes.BulkItem:
    await call.operations.definitions.reset(Key(Kind.TRIGGER, name), who=performer(call))
    await call.operations.reset_trigger(name, body.reason)
    return {"name": name, "ok": True}


async def _switch_one(call: Call, body: Bulk, name: str, until: datetime | None) -> shapes.BulkItem:
    try:
        await _switch_all(call, body, [name])
    except ConfigError as error:
        raise InvalidRequest(str(error)) from error
    return {"name": name, "ok": True}


_DOES: dict[Action, Callable[[Call, Bulk, str, datetime | None], Awaitable[shapes.BulkItem]]] = {
    Action.PAUSE: _pause, Action.RESUME: _resume, Action.FIRE: _fire, Action.RELEASE: _release, Action.RESET: _reset,
    Action.ENABLE: _switch_one, Action.DISABLE: _switch_one,
}  # fmt: skip
