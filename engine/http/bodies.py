"""Reading the bodies of requests, within their bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_exceptions import HTTPException

from engine.http.connection import Connection
from engine.http.problems import Problem
from engine.units import format_size

LEAST_RATE_BYTES = 16 * 1024
"""For so many bytes that have come a client is given a second more: it may be slow, but not as slow as it likes."""


MOST_FRAMING_BYTES = 256 * 1024
"""Sizes of chunks and their extensions may take so much, and as much as the body itself."""


async def read_body(
    request: web.BaseRequest, max_bytes: int, encodings: Callable[[], Collection[str]] = tuple, *, timeout_s: float
) -> bytes:
    """Return the raw body, exactly as it was sent.

    Raises Problem: 413 before more than `max_bytes` (and a buffer) were read, whatever Content-Length says;
    415 for a Content-Encoding that is none of `encodings`, which whoever asks undoes (a signature is over what was
    sent, and inflating has no bound); 408 where it takes longer than `timeout_s`, and a second for each
    `LEAST_RATE_BYTES`; 400 where the transfer coding is broken, and 501 where it is another than chunked.
    """
    content = request.content
    if request._message.chunked:
        _check_coding(request)
    encoding = request.headers.get("Content-Encoding")
    if (
        encoding is not None
        and (coding := encoding.strip().lower()) != "identity"
        and coding not in (taken := encodings())
    ):
        raise Problem(
            415,
            "a body with a Content-Encoding is not taken: send it as it is"
            if not taken
            else f"a body may have the Content-Encoding {' or '.join(sorted(taken))}, and no other",
            code="content_encoding",
            headers={"Accept-Encoding": ", ".join(sorted(taken)) or "identity"},
            close=True,
        )
    try:
        if content.is_eof():
            body = content.read_nowait()
            if len(body) > max_bytes:
                raise _too_large(max_bytes)
            return body
        declared = request.content_length
        if declared is not None and declared > max_bytes:
            raise _too_large(max_bytes)
        _continue(request)
        return await _receive(request, content, max_bytes, timeout_s)
    except TimeoutError:
        detail = f"the body did not come within {timeout_s:g} seconds, and one more for each {LEAST_RATE_BYTES} bytes"
        raise Problem(408, detail, close=True) from None
    except (HttpProcessingError, HTTPException, web.RequestPayloadError):
        raise Problem(400, "the body's transfer coding is broken", code="malformed_request", close=True) from None


async def _receive(request: web.BaseRequest, content: StreamReader, max_bytes: int, timeout_s: float) -> bytes:
    connection = request.protocol
    assert isinstance(connection, Connection)  # noqa: S101 - the listener makes no other
    connection.received_bytes = 0
    began_s = connection.receiving_since_s = asyncio.get_running_loop().time()
    body = bytearray()
    held = 0
    try:
        async with asyncio.timeout_at(began_s + timeout_s) as bound:
            while chunk := await content.readany():
                if len(body) + len(chunk) > max_bytes:
                    raise _too_large(max_bytes)
                held += len(chunk)
                if not connection.crowd.hold(len(chunk), max_bytes):
                    detail = "too many large bodies are on their way; send it again in a moment"
                    raise Problem(503, detail, code="too_busy", headers={"Retry-After": "2"}, close=True)
                body += chunk
                if connection.received_bytes > 2 * len(body) + MOST_FRAMING_BYTES:
                    raise Problem(413, "the chunks are too small for so large a body", code="too_large", close=True)
                bound.reschedule(began_s + timeout_s + len(body) / LEAST_RATE_BYTES)
    finally:
        connection.receiving_since_s = None
        connection.crowd.hold(-held, max_bytes)
    return bytes(body)


def _check_coding(request: web.BaseRequest) -> None:
    """Refuse what two programs may see the end of in two places (RFC 9112, section 6.1)."""
    if request.version < (1, 1):
        raise Problem(400, "HTTP/1.0 has no Transfer-Encoding", code="malformed_request", close=True)
    if request.headers.get("Transfer-Encoding", "").strip().lower() != "chunked":
        raise Problem(501, "the only Transfer-Encoding that is taken is chunked", close=True)


def _continue(request: web.BaseRequest) -> None:
    expectation = request.headers.get("Expect")
    if expectation is None or request.version < (1, 1):
        return
    if expectation.strip().lower() != "100-continue":
        raise Problem(417, "the only expectation that is met is 100-continue", close=True)
    if request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def _too_large(max_bytes: int) -> Problem:
    return Problem(
        413,
        f"the body is larger than {format_size(max_bytes)}, the most that [http] max_body allows",
        code="too_large",
        close=True,
    )
