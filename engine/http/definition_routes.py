"""Routes that define: jobs and triggers of the API, and what overrides those of the configuration's files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from engine.defined import Key, Kind
from engine.errors import ConfigError, ConfigProblem, NotFound
from engine.http import shapes
from engine.http.calls import Call, creator, performer
from engine.http.described import Raw, described
from engine.http.fields import body, near, query, refuse
from engine.http.problems import Problem
from engine.http.trigger_routes import LONGEST_REASON, one_job, one_trigger
from engine.ids import is_slug
from engine.payload import parse_json
from engine.plugin import Response

_TAG = re.compile(r'(?:W/)?"([^"]*)"|(\*)')


SETTINGS = Raw(
    content={"application/json": {"type": "object", "description": "Settings, as the configuration takes them"}}
)  # fmt: skip
IF_MATCH = ("If-Match",)


@described({201: shapes.TriggerOf}, takes=SETTINGS)
async def post_trigger(call: Call) -> Response:
    """Define a trigger. Answers when it is durable, and works."""
    return await _create(call, Kind.TRIGGER)


@described({200: shapes.TriggerOf, 201: shapes.TriggerOf}, takes=SETTINGS, headers=IF_MATCH, problems=(412, 428))
async def put_trigger(call: Call) -> Response:
    """Define a trigger under a name, or another version of one of the API; that takes its ETag in If-Match."""
    return await _put(call, Kind.TRIGGER)


@described({200: shapes.TriggerOf}, takes=SETTINGS, headers=IF_MATCH, problems=(412, 428))
async def patch_trigger(call: Call) -> Response:
    """Change single settings of a trigger of the API, or override some of one of the configuration's files."""
    return await _patch(call, Kind.TRIGGER)


@described({204: None}, headers=IF_MATCH, problems=(412, 428))
async def delete_trigger(call: Call) -> Response:
    """Remove a trigger of the API. What it has brought about stays, and runs that wait will run."""
    return await _delete(call, Kind.TRIGGER)


@described({201: shapes.JobOf}, takes=SETTINGS)
async def post_job(call: Call) -> Response:
    """Define a job. Answers when it is durable."""
    return await _create(call, Kind.JOB)


@described({200: shapes.JobOf, 201: shapes.JobOf}, takes=SETTINGS, headers=IF_MATCH, problems=(412, 428))
async def put_job(call: Call) -> Response:
    """Define a job under a name, or another version of one of the API; that takes its ETag in If-Match."""
    return await _put(call, Kind.JOB)


@described({200: shapes.JobOf}, takes=SETTINGS, headers=IF_MATCH, problems=(412, 428))
async def patch_job(call: Call) -> Response:
    """Change single settings of a job of the API, or override some of one of the configuration's files."""
    return await _patch(call, Kind.JOB)


@described({204: None}, headers=IF_MATCH, problems=(412, 428))
async def delete_job(call: Call) -> Response:
    """Remove a job of the API that no trigger has; runs that wait will run."""
    return await _delete(call, Kind.JOB)


@described({200: shapes.JobOf})
async def reset_job(call: Call) -> Response:
    """Have what the configuration says of a job hold again."""
    name = call.name("job")
    query(call.request).finish()
    body(call.request, (), optional=True).finish()
    if name not in call.operations.jobs:
        raise NotFound(f"there is no job {name!r}{near(name, call.operations.jobs.keys())}")
    await call.operations.definitions.reset(Key(Kind.JOB, name), who=performer(call))
    return await _shown(call, Kind.JOB, name)


async def _create(call: Call, kind: Kind) -> Response:
    query(call.request).finish()
    settings = _settings(call)
    name = settings.pop("name", None)
    if not isinstance(name, str) or not is_slug(name):
        refuse([{"pointer": "#/name", "detail": "name must be a name: letters, digits, '_', '.' and '-', at most 128"}])
    await _define(call, kind, str(name), settings, new=True)
    return await _shown(call, kind, str(name), status=201)


async def _put(call: Call, kind: Kind) -> Response:
    name = call.name(kind)
    query(call.request).finish()
    settings = _settings(call)
    if settings.pop("name", name) != name:
        refuse([{"pointer": "#/name", "detail": "name must be the one in the path, or left out"}])
    key = Key(kind, name)
    there = call.operations.definitions.version(key) is not None
    match = _match(call) if there else None
    _audit(call, key)
    new = await _define(call, kind, name, settings, match=match, new=None if there else True)
    return await _shown(call, kind, name, status=201 if new else 200)


async def _patch(call: Call, kind: Kind) -> Response:
    name = call.name(kind)
    query(call.request).finish()
    changes = _settings(call)
    reason = changes.pop("reason", "")
    if not isinstance(reason, str) or len(reason) > LONGEST_REASON:
        refuse([{"pointer": "#/reason", "detail": f"reason must be a text of at most {LONGEST_REASON} characters"}])
    definitions, key = call.operations.definitions, Key(kind, name)
    if definitions.version(key) is None:
        raise NotFound(f"there is no {kind} of that name")
    match, who = _match(call), performer(call)
    _audit(call, key)
    try:
        await definitions.patch(key, changes, who=who, reason=reason, match=match)
    except ConfigError as error:
        _refuse(error, kind, name)
    return await _shown(call, kind, name)


async def _delete(call: Call, kind: Kind) -> Response:
    name = call.name(kind)
    query(call.request).finish()
    definitions, key = call.operations.definitions, Key(kind, name)
    if definitions.version(key) is None:
        raise NotFound(f"there is no {kind} of that name")
    match = _match(call)
    _audit(call, key)
    await definitions.remove(key, who=performer(call), match=match)
    return Response(status=204)


async def _define(
    call: Call, kind: Kind, name: str, settings: Mapping[str, Any], *, match: frozenset[str] | None = None,
    new: bool | None,
) -> bool:  # fmt: skip
    try:
        return await call.operations.definitions.define(
            Key(kind, name), settings, who=creator(call), match=match, new=new
        )
    except ConfigError as error:
        _refuse(error, kind, name)
        raise


async def _shown(call: Call, kind: Kind, name: str, *, status: int = 200) -> Response:
    shown = await (one_trigger(call, name) if kind is Kind.TRIGGER else one_job(call, name))
    headers = dict(shown.headers or {})
    if status == 201:
        headers["Location"] = f"/api/v1/{kind}s/{name}"
    return Response(status=status, body=shown.body, headers=headers)


def _audit(call: Call, key: Key) -> None:
    """Tell the audit log how it was: the settings that were given, or what was overridden."""
    about = call.operations.definitions.about(key)
    overrides = about["overrides"]
    call.audit(before=about["settings"] or (None if overrides is None else overrides["changes"]))


def _settings(call: Call) -> dict[str, Any]:
    """Return the members of the body; which of them are known shows when they are read as settings."""
    value = parse_json(call.request.body) if call.request.body else None
    known = tuple(value) if isinstance(value, dict) else ()
    fields = body(call.request, known)
    return {name: fields.value(name) for name in known}


def _match(call: Call) -> frozenset[str]:
    """Return the versions that the caller takes it for; raise Problem 428 where it does not say."""
    given = call.request.headers.get("If-Match")
    if given is None:
        raise Problem(428, 'send the ETag of what you have read in If-Match, or "*" for whatever is there')
    found = frozenset(quoted or star for quoted, star in _TAG.findall(given))
    if not found:
        raise Problem(400, 'If-Match must hold an ETag, such as "5d4a…", or *')
    return found


def _refuse(error: ConfigError, kind: Kind, name: str) -> None:
    """Raise Problem 422 with all mistakes, by their places in the body."""
    refuse([_told(problem, kind, name) for problem in error.problems])


def _told(problem: ConfigProblem, kind: Kind, name: str) -> dict[str, Any]:
    within = problem.path.removeprefix(f"{kind}s.").removeprefix(f'"{name}"').removeprefix(name)
    pointer = within.replace("[", ".").replace("]", "").replace(".", "/")
    hint = f" ({problem.hint})" if problem.hint else ""
    return {"pointer": f"#{pointer}", "detail": f"{within.lstrip('.') or f'the {kind}'}: {problem.message}{hint}"}
