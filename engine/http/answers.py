"""Answers on the wire.

aiohttp's own `Response` spends more on a header dictionary than a small JSON answer costs in all; an `Answer`
is written from a prepared head in one piece. Its body is known, so it always has a Content-Length.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from email.utils import format_datetime
from http import HTTPStatus

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from engine.clock import Clock
from engine.http.problems import PROBLEM_TYPE, Problem
from engine.plugin import Response, encode_json

JSON_TYPE = "application/json"

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
"""On every answer; a handler may give its own Cache-Control or policy instead."""

_OURS = frozenset({"content-length", "transfer-encoding", "connection", "date", "x-request-id"})
_REPLACEABLE = frozenset(name.lower() for name in SECURITY_HEADERS)
_PLAIN = frozenset({"Location", "Retry-After", "Allow", "Link"})
"""Names that are most often given, and are neither ours nor replace anything."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_HEADS: dict[int, str] = {}
_PHRASES = {status.value: status.phrase for status in HTTPStatus}


class Answer(web.StreamResponse):
    """A whole answer, with its head prepared; the connection is closed after it where `close` is true."""

    def __init__(self, status: int, head: str, body: bytes, *, close: bool = False) -> None:
        # The base class's own constructor makes the dictionaries that this class does without.
        self._status = status
        self._reason = _phrase(status)
        self._head = head
        self._content = body
        self._closes = close
        self._keep_alive = not close
        self._asked: web.BaseRequest | None = None

    def add(self, headers: Mapping[str, str]) -> None:
        """Add headers of ours, before it is sent."""
        self._head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        self._asked = request
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        request = self._asked
        if request is None or self._eof_sent:
            return
        self._eof_sent = True
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        connection = ""
        if not request.content.is_eof():
            # What is left of the body is not worth the parsing; where the next request begins is not known then.
            self._closes = True
            linger: Callable[[], None] | None = getattr(request.protocol, "linger", None)
            if linger is not None:
                linger()
        if self._closes or not request.keep_alive:
            self._keep_alive = False
            connection = "Connection: close\r\n"
        elif request.version < (1, 1):
            connection = "Connection: keep-alive\r\n"
        body = b"" if request.method == "HEAD" else self._content
        transport.write(f"{self._head}{connection}\r\n".encode() + body)
        writer = request.writer
        writer.output_size += 1  # so that an error handler knows that an answer is on its way
        if request.protocol.writing_paused:
            await writer.drain()


class Heads:
    """Writes the heads of answers."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._second = -1
        self._date = ""

    def date(self) -> str:
        """Return the Date header's value, made anew once a second."""
        second = int(self._clock.monotonic())
        if second != self._second:
            self._second = second
            now: datetime = self._clock.now()
            self._date = format_datetime(now.replace(microsecond=0), usegmt=True)
        return self._date

    def answer(self, response: Response, request_id: str, *, close: bool = False) -> Answer:
        """Return the answer for a handler's response; raise ValueError where a header can't be sent."""
        status, content, headers = response.status, response.body, response.headers
        if content is None:
            body, kind = b"", None
        elif isinstance(content, bytes):
            body, kind = content, "application/octet-stream"
        else:
            body, kind = encode_json(content), JSON_TYPE
        head = _HEADS.get(status) or _prepare(status)
        extra = ""
        if headers:
            replaced = False
            for name, value in headers.items():
                if name not in _PLAIN:
                    lower = name.lower()
                    if lower in _OURS:
                        raise ValueError(f"the header {name} is set by the engine")
                    if lower == "content-type":
                        kind = None
                    replaced = replaced or lower in _REPLACEABLE
                extra += f"{name}: {_checked(name, value)}\r\n"
            if replaced:
                head = _prepare(status, without=frozenset(name.lower() for name in headers))
        if kind is not None:
            extra += f"Content-Type: {kind}\r\n"
        if status >= 200 and status not in (204, 304):
            extra += f"Content-Length: {len(body)}\r\n"
        else:
            body = b""
        return Answer(status, f"{head}Date: {self.date()}\r\nX-Request-ID: {request_id}\r\n{extra}", body, close=close)

    def problem(self, problem: Problem, instance: str, request_id: str) -> Answer:
        """Return the answer that tells of a problem with the path `instance`."""
        response = Response(
            status=problem.status,
            body=problem.body(instance, request_id),
            headers={"Content-Type": PROBLEM_TYPE, **problem.headers},
        )
        return self.answer(response, request_id, close=problem.close)


def stream_headers(headers: Mapping[str, str], request_id: str) -> dict[str, str]:
    """Return all headers of an answer that is streamed."""
    return {**SECURITY_HEADERS, "X-Request-ID": request_id, **headers}


def _prepare(status: int, without: frozenset[str] = frozenset()) -> str:
    lines = [f"HTTP/1.1 {status} {_phrase(status)}"]
    lines += [f"{name}: {value}" for name, value in SECURITY_HEADERS.items() if name.lower() not in without]
    head = "\r\n".join(lines) + "\r\n"
    if not without:
        _HEADS[status] = head
    return head


def _checked(name: str, value: str) -> str:
    if (name not in _PLAIN and _TOKEN.match(name) is None) or (
        not value.isprintable() and _FORBIDDEN.search(value) is not None
    ):
        raise ValueError(f"the header {name!r} holds control characters, or has no valid name")
    return value


def _phrase(status: int) -> str:
    return _PHRASES.get(status, "Status")
