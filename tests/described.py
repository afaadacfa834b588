"""Holds the answers that tests get against the description of the API: none may be outside of it."""

from __future__ import annotations

from functools import cache
from typing import Any
from urllib.parse import unquote

import jsonschema_rs

from engine.http.openapi import describe
from engine.http.routes import ROUTES, Router

ANYWHERE = frozenset({400, 405, 408, 417, 431, 500, 501})
"""Statuses that a path's description does not name: of requests that are none, and of faults that tests put in."""

JSON_KINDS = frozenset({"application/json", "application/problem+json"})
_ROUTER = Router(ROUTES)  # pages for people are not of the API


@cache
def description() -> dict[str, Any]:
    """Return the description of the whole table."""
    return describe(ROUTES, "test")


@cache
def _checker(path: str, method: str, status: int) -> tuple[frozenset[str], Any] | None:
    """Return the media types of an answer and what checks its JSON; None where no such answer is described."""
    document = description()
    answer = document["paths"][path][method]["responses"].get(str(status))
    if answer is None:
        return None
    if "$ref" in answer:
        answer = document["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    content = answer.get("content", {})
    if not content:
        return frozenset(), None
    for kind in JSON_KINDS & content.keys():
        schema = {**content[kind]["schema"], "components": document["components"]}
        return frozenset(content), jsonschema_rs.Draft202012Validator(schema)
    return frozenset(content), None


def hold_against_description(method: str, target: str, status: int, kind: str, value: Any) -> None:
    """Raise AssertionError where an answer of the API is not as its description says."""
    path = unquote(target.partition("?")[0], errors="replace")
    found = _ROUTER.find(path, method)
    if found is None or (route := found[0].get(method)) is None or status in ANYWHERE:
        return
    where = f"{method} {route.pattern} {status}"
    checker = _checker(route.pattern.replace("*}", "}"), method.lower(), status)
    assert checker is not None, f"{where} is not described"
    kinds, validator = checker
    said = kind.partition(";")[0]
    assert said in kinds or (not kinds and not said), f"{where}: {said or 'no content'}, and not {sorted(kinds)}"
    if validator is not None and said in JSON_KINDS:
        wrong = [f"{list(error.instance_path)}: {error.message}" for error in validator.iter_errors(value)]
        assert not wrong, f"{where}: {wrong}"
