"""Reading the bodies of requests, within their bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_exceptions import HTTPException

from engine.http.problems import Problem
from engine.units import format_size

BODY_TIMEOUT_S = 30.0
"""How long a client may take to send a body."""


async def read_body(
    request: web.BaseRequest, max_bytes: int, encodings: Callable[[], Collection[str]] = tuple
) -> bytes:
    """Return the raw body, exactly as it was sent.

    Raises Problem: 413 before more than `max_bytes` (and a buffer) were read, whatever Content-Length says;
    415 for a Content-Encoding that is none of `encodings`, which whoever asks undoes (a signature is over what was
    sent, and inflating has no bound); 408 after `BODY_TIMEOUT_S`; 400 where the transfer coding is broken.
    """
    content = request.content
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
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await _read_chunks(content, max_bytes)
    except TimeoutError:
        raise Problem(408, f"the body did not come within {BODY_TIMEOUT_S:.0f} seconds", close=True) from None
    except (HttpProcessingError, HTTPException, web.RequestPayloadError):
        raise Problem(400, "the body's transfer coding is broken", code="malformed_request", close=True) from None


async def _read_chunks(content: StreamReader, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while chunk := await content.readany():
        size += len(chunk)
        if size > max_bytes:
            raise _too_large(max_bytes)
        chunks.append(chunk)
    return b"".join(chunks)


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
