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


class Explanation(Struct, frozen=True, kw_only=True):
    """What was wrong with a request that was refused, for the source's owner alone. It holds no secret.

    - `cause`: one of a few words, such as `clock_skew` or `wrong_secret`.
    - `text`: a sentence that says it, and what to do.
    - `certain`: whether that was seen, or is only the likeliest of what it could be.
    """

    cause: str
    text: str
    certain: bool = True


class Refusal(Exception):
    """Raise in a route's handler to answer with an RFC 9457 problem.

    `detail` is shown to the sender: it must say nothing about secrets, and not which part of a proof was
    wrong. `reason` is for the source's owner instead of it: the log and `why` tell it, so it holds no secret either.
    `explain` looks closer at what was wrong. It is called, in a thread, only when an owner asks for it, and what it
    needs for that is kept until then: some tens of kilobytes at most.
    """

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        headers: Mapping[str, str] | None = None,
        *,
        reason: str = "",
        explain: Callable[[], Explanation] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.title = title
        self.detail = detail
        self.headers = dict(headers or {})
        self.reason = reason or detail
        self.explain = explain
