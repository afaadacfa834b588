"""The description of the API in OpenAPI 3.1, made from the table of routes.

There is no second description: parameters and bodies come from the forms that read them, answers from the shapes that
the views are made in, roles from the table.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from functools import cache
from http import HTTPStatus
from typing import Any

import msgspec

from engine.http.claims import LONGEST_CLAIM, PERFORMED_BY
from engine.http.described import Media
from engine.http.fields import LONGEST_KEY
from engine.http.forms import Form, forms_of, parameters_of, schema_of
from engine.http.kinds import ID_PATTERN, SLUG_PATTERN
from engine.http.problems import PROBLEM_TYPE
from engine.http.route import Route
from engine.http.sessions import COOKIE
from engine.http.shapes import ProblemDetails

API = "/api/v1"
_REFERENCE = "#/components/schemas/{name}"
_PARAMETER = re.compile(r"\{(\w+)(\*?)\}")
_CHANGES = frozenset({"POST", "PUT", "PATCH", "DELETE"})

_PROBLEMS = {
    400: "The request is none, or what it holds is no JSON.",
    401: "No token was given, or a wrong one.",
    403: "The token may not, or the request came by a way that is not allowed.",
    404: "There is nothing of that name or id.",
    408: "The body took too long.",
    409: "The state of things forbids it, or a request with this Idempotency-Key is in progress.",
    410: "It may have been there, and was removed after its time.",
    412: "It has changed meanwhile: its ETag is another.",
    413: "The body is too large.",
    415: "The body is of a kind that is not taken.",
    422: "Something that was sent is wrong; `errors` names each mistake, with its pointer or parameter.",
    428: "The request has to say which version it changes: If-Match.",
    429: "Asked, or guessed, too often; Retry-After says how long to wait.",
    502: "What the engine asked for it failed.",
    503: "The engine, or its store, can't take it now; Retry-After says when to try again.",
}

_TAGS = {
    "": "engine", "status": "engine", "doctor": "engine", "pause": "engine", "resume": "engine", "plan": "foresight",
    "simulate": "foresight", "replay": "events", "backup": "housekeeping", "backups": "housekeeping",
}  # fmt: skip

INTRODUCTION = """\
JSON in and out. Errors are problem details (RFC 9457) with a stable `code`, the `request_id` under which the log tells
more, and each mistake in what was sent. Lists page with `limit` and `cursor`; times are RFC 3339 in UTC. Every path
that takes GET takes HEAD, and all take OPTIONS. More members than are described may stand in an answer.

What is needed stands beside each route: a **viewer** reads; an **operator** also fires, pauses, cancels, retries,
replays, backfills; an **admin** also defines and configures.

An `Idempotency-Key` makes a POST safe to send again: the same request gets the same answer, another one with the key of
the first 422, and one that comes while the first is in progress 409.
"""


@cache
def describe(routes: tuple[Route, ...], version: str) -> dict[str, Any]:
    """Return the description of routes, as OpenAPI 3.1 has it."""
    answers = _answers(routes)
    (schemas, components) = msgspec.json.schema_components([ProblemDetails, *answers], ref_template=_REFERENCE)
    found = {id(kind): schema for kind, schema in zip(answers, schemas[1:], strict=True)}
    forms = {form.__name__: schema_of(form) for form in _bodies(routes)}
    if clash := forms.keys() & components.keys():
        raise ValueError(f"two descriptions have the name {min(clash)}")
    paths: dict[str, dict[str, Any]] = {}
    names: set[str] = set()
    for route in routes:
        name = route.handler.__name__
        if name in names:  # the same by another path
            name += "_at_" + re.sub(r"\W+", "_", route.pattern).strip("_")
        names.add(name)
        paths.setdefault(_path(route.pattern), {})[route.method.lower()] = {
            **_operation(route, found),
            "operationId": name,
        }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "trigger-engine", "version": version, "description": INTRODUCTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in sorted({_tag(route) for route in routes})],
        "paths": paths,
        "components": {
            "schemas": dict(sorted({**components, **forms}.items())),
            "responses": {_problem_name(status): _problem(status) for status in _PROBLEMS},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "session": {"type": "apiKey", "in": "cookie", "name": COOKIE},
            },
        },
    }  # fmt: skip


def _answers(routes: Iterable[Route]) -> list[Any]:
    """Return the types of all JSON answers."""
    return [
        kind
        for route in routes
        for given in route.description.gives.values()
        for kind in (given if isinstance(given, tuple) else (given,))
        if kind is not None and not isinstance(kind, Media)
    ]


def _bodies(routes: Iterable[Route]) -> list[type[Form]]:
    """Return the forms of all bodies that have members; raise ValueError where two have one name."""
    found: dict[str, type[Form]] = {}
    for route in routes:
        form = forms_of(route.handler).get("body")
        if form is not None and form.__struct_fields__ and found.setdefault(form.__name__, form) is not form:
            raise ValueError(f"two forms have the name {form.__name__}")
    return list(found.values())


def _operation(route: Route, answers: Mapping[int, Any]) -> dict[str, Any]:
    forms, said = forms_of(route.handler), route.description
    query = forms.get("query") or said.query
    operation: dict[str, Any] = {
        "summary": route.summary,
        "description": inspect.cleandoc(route.handler.__doc__ or route.summary),
        "tags": [_tag(route)],
        "parameters": [*_in_path(route), *(parameters_of(query) if query is not None else []), *_headers(route)],
        "responses": {
            **{str(status): _answer(status, kind, answers) for status, kind in said.gives.items()},
            **{
                str(status): {"$ref": f"#/components/responses/{_problem_name(status)}"}
                for status in _problems(route)
                if status not in said.gives
            },
        },
        "security": [] if route.role is None else [{"token": []}, {"key": []}, {"session": []}],
        "x-role": None if route.role is None else route.role.name.lower(),
    }
    if (body := _body(route, forms.get("body"))) is not None:
        operation["requestBody"] = body
    return operation


def _body(route: Route, form: type[Form] | None) -> dict[str, Any] | None:
    said = route.description
    if said.takes is not None:
        content = {kind: {"schema": schema} for kind, schema in said.takes.content.items()}
        required = not said.takes.optional
    elif form is not None:
        schema = {"$ref": f"#/components/schemas/{form.__name__}"} if form.__struct_fields__ else schema_of(form)
        content, required = {"application/json": {"schema": schema}}, not form.optional
    else:
        return None
    if said.example is not None:
        content["application/json"] = {**content["application/json"], "example": said.example}
    return {"required": required, "content": content}


def _in_path(route: Route) -> list[dict[str, Any]]:
    found = []
    for name, open_ended in _PARAMETER.findall(route.pattern):
        if name == "id":
            schema: dict[str, Any] = {"type": "string", "pattern": ID_PATTERN}
        elif open_ended:
            schema = {"type": "string", "minLength": 1}
        else:
            schema = {"type": "string", "pattern": SLUG_PATTERN}
        parameter = {"name": name, "in": "path", "required": True, "schema": schema}
        if open_ended:
            parameter["description"] = "It may hold slashes, as they are"
        found.append(parameter)
    return found


def _headers(route: Route) -> list[dict[str, Any]]:
    if route.role is None:
        return []
    text = {"type": "string", "minLength": 1}
    claim = {
        "name": PERFORMED_BY, "in": "header", "required": False, "schema": {**text, "maxLength": LONGEST_CLAIM},
        "description": "On whose behalf; it is recorded as a claim",
    }  # fmt: skip
    key = {
        "name": "Idempotency-Key", "in": "header", "required": False,
        "schema": {**text, "maxLength": LONGEST_KEY, "pattern": r"^[\x20-\x7e]+$"},
        "description": "Makes it safe to send again",
    }  # fmt: skip
    own = [
        {"name": name, "in": "header", "required": False, "schema": text, "description": "What was read, by its ETag"}
        for name in route.description.headers
    ]
    return [*([key] if route.method == "POST" else []), *([claim] if route.method in _CHANGES else []), *own]


def _answer(status: int, kind: Any, answers: Mapping[int, Any]) -> dict[str, Any]:
    headers: dict[str, Any] = {"X-Request-ID": {"schema": {"type": "string"}, "description": "What the log calls it"}}
    answer: dict[str, Any] = {"description": _phrase(status), "headers": headers}
    if isinstance(kind, Media):
        answer["description"] = kind.what
        answer["content"] = {kind.kind: {"schema": {"type": "string"}}}
    elif isinstance(kind, tuple):
        as_json = [answers[id(one)] for one in kind if not isinstance(one, Media)]
        answer["content"] = {
            **({"application/json": {"schema": {"anyOf": as_json}}} if as_json else {}),
            **{one.kind: {"schema": {"type": "string"}} for one in kind if isinstance(one, Media)},
        }
    elif kind is not None:
        answer["content"] = {"application/json": {"schema": answers[id(kind)]}}
    if status in (201, 202):
        headers["Location"] = {"schema": {"type": "string"}, "description": "Where it is, or what became of it"}
    return answer


def _problems(route: Route) -> list[int]:
    """Return the statuses of the problems that a route may answer with."""
    statuses = {404, 503, *route.description.problems}
    if route.role is not None:
        statuses |= {400, 401, 403, 422, 429}
    if route.method in _CHANGES:
        statuses |= {408, 409, 413, 415}
    if route.pattern.startswith(API) is False:
        statuses -= {404}
    return sorted(statuses)


def _problem(status: int) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "description": _PROBLEMS[status],
        "content": {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}},
        "headers": {"X-Request-ID": {"schema": {"type": "string"}}},
    }
    if status in (429, 503):
        answer["headers"]["Retry-After"] = {"schema": {"type": "string"}, "description": "Seconds"}
    return answer


def _problem_name(status: int) -> str:
    return f"Problem{status}"


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase


def _path(pattern: str) -> str:
    return _PARAMETER.sub(r"{\1}", pattern)


def _tag(route: Route) -> str:
    part = route.pattern.removeprefix(API).strip("/").partition("/")[0] if route.pattern.startswith(API) else ""
    return _TAGS.get(part, part)
