"""Errors as the API tells them: problem details for HTTP APIs (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from engine.errors import (
    Changed,
    ConfigError,
    Conflict,
    EngineError,
    InvalidEvent,
    InvalidRequest,
    NotFound,
    QueueFull,
    StoreDamaged,
    StoreUnavailable,
)
from engine.plugin import Refusal, encode_json

PROBLEM_TYPE = "application/problem+json"
RETRY_AFTER_S = 2
"""What a client is told to wait when the store can't take it now."""


class Problem(Exception):
    """Raise to answer a request with a problem.

    - `detail`: a sentence for the sender: what is wrong and the way out; never a secret.
    - `code`: stable, for programs; by default the status's own name, such as `not_found`.
    - `errors`: each mistake in the input, with a `pointer` (RFC 6901, as a URI fragment) or a `parameter`.
    - `close`: whether the connection can't be used any further.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        code: str | None = None,
        title: str | None = None,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[Mapping[str, Any]] = (),
        close: bool = False,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.code = code or _name(status)
        self.title = title or _phrase(status)
        self.headers = dict(headers or {})
        self.errors = tuple(errors)
        self.close = close

    def body(self, instance: str, request_id: str) -> bytes:
        """Return the problem as JSON; `instance` is the path that was asked for."""
        members: dict[str, Any] = {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
            "code": self.code,
            "request_id": request_id,
        }
        if self.errors:
            members["errors"] = list(self.errors)
        return encode_json(members)


def problem_of(error: EngineError | Refusal) -> Problem:
    """Return the problem that tells of an error which a handler raised on purpose."""
    if isinstance(error, Refusal):
        return Problem(error.status, error.detail, title=error.title, headers=error.headers)
    if isinstance(error, InvalidEvent):
        code = "too_large" if error.status == 413 else "invalid_event"
        return Problem(error.status, str(error), code=code)
    if isinstance(error, ConfigError):
        errors = [problem.view() for problem in error.problems]
        return Problem(422, "the configuration has mistakes", code="invalid_config", errors=errors)
    if isinstance(error, NotFound):
        return Problem(404, str(error))
    if isinstance(error, Changed):
        return Problem(412, str(error))
    if isinstance(error, Conflict):
        return Problem(409, str(error))
    if isinstance(error, InvalidRequest):
        return Problem(422, str(error), code="invalid_request")
    if isinstance(error, (StoreUnavailable, StoreDamaged)):
        # A damaged store takes nothing any more: who sends again finds the engine that is started with a sound one.
        code = "queue_full" if isinstance(error, QueueFull) else "store_unavailable"
        return Problem(503, str(error), code=code, headers={"Retry-After": str(RETRY_AFTER_S)})
    return Problem(500, str(error))


_RENAMED = {413: "request_entity_too_large", 422: "unprocessable_entity"}
"""Codes of statuses that Python 3.13 calls by other names: a code is stable."""


def _name(status: int) -> str:
    try:
        return _RENAMED.get(status) or HTTPStatus(status).name.lower()
    except ValueError:
        return f"status_{status}"


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return str(status)
