"""HTTP as a source sees it: a request that came to one of its routes, and its answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from msgspec import Struct

Headers = Mapping[str, str]
"""Header fields; names are looked up without regard to case."""


class Request(Struct, frozen=True, kw_only=True):
    """A request: its raw body is bounded by `[http] max_body` and is exactly what was sent."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Headers
    remote: str
    body: bytes


class Response(Struct, frozen=True, kw_only=True):
    """An answer: `body` is sent as JSON where it is no bytes; None sends nothing."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = {}


Handler = Callable[[Request], Awaitable[Response]]


class Refusal(Exception):
    """Raise in a route's handler to answer with an RFC 9457 problem.

    `detail` is shown to the sender: it must say nothing about secrets, and not which part of a proof was
    wrong. `reason` is for the source's owner instead of it: the log and `why` tell it, so it holds no secret either.
    """

    def __init__(
        self, status: int, title: str, detail: str, headers: Mapping[str, str] | None = None, *, reason: str = ""
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.title = title
        self.detail = detail
        self.headers = dict(headers or {})
        self.reason = reason or detail
