"""Connections: aiohttp's HTTP/1.1 protocol, with its own words for errors, and bounds for clients that are slow.

The time-outs here are about the wire, so they are the event loop's, as all of aiohttp's are.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable
from typing import Any, TypeVar, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import _ErrInfo

from engine.config.doors import Doors
from engine.http.answers import Heads
from engine.http.crowd import Crowd
from engine.http.doorlog import DoorLog
from engine.http.problems import Problem
from engine.ids import new_id
from engine.networks import Networks

LARGEST_HEAD_BYTES = 64 * 1024
"""A head that comes in pieces may not be larger; each of its lines is bounded by aiohttp, at 8190 bytes."""

ANSWER_TIMEOUT_S = 30.0
"""How long a client may leave an answer lying before it takes more of it."""

LINGER_S = 2.0
LINGER_BYTES = 4 * 2**20
"""How long, and how much of it, the rest of a refused body is thrown away, so that the sender can read the answer."""

READ_BYTES = 64 * 1024
"""What is read of a connection at once: in chunks of a byte each even that takes milliseconds to parse."""

T = TypeVar("T")

log = logging.getLogger("engine.http")


class HeadTooLarge(HttpProcessingError):
    """The head of a request does not end."""


class Connection(web.RequestHandler):
    """One client's connection."""

    __slots__ = (
        "_answer_timer",
        "_doors",
        "_head_bytes",
        "_header_timer",
        "_heads",
        "_linger_bytes",
        "crowd",
        "gone",
        "received_bytes",
        "receiving_since_s",
    )

    def __init__(
        self, manager: Listener, heads: Heads, doors: Doors, crowd: Crowd, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(
            manager,
            loop=loop,
            keepalive_timeout=doors.keepalive_timeout_s,
            lingering_time=LINGER_S,
            auto_decompress=False,
            access_log=None,  # type: ignore[arg-type]
            logger=log,
        )
        self._heads = heads
        self._doors = doors
        self.crowd = crowd
        self._head_bytes = 0
        self._linger_bytes: int | None = None
        self.received_bytes = 0
        """What has come since a body is awaited, on the wire."""
        self.gone: asyncio.Future[None] | None = None
        """Done when the client leaves; made by who waits for it."""
        self._header_timer: asyncio.TimerHandle | None = None
        self._answer_timer: asyncio.TimerHandle | None = None
        self.receiving_since_s: float | None = None
        """Since when a body is awaited that has not come with its head."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing was asked for that is not answered yet; the head of a request may be on its way."""
        return self._waiter is not None and not self._waiter.done()

    @property
    def is_closing(self) -> bool:
        """Whether it ends already."""
        return self.transport is None or self.transport.is_closing()

    def waits_s(self) -> float:
        """Return for how long a head, a body, or the taking of an answer is awaited; 0 where nothing is."""
        now_s = self._loop.time()
        since_s = now_s if self.receiving_since_s is None else self.receiving_since_s
        if self._header_timer is not None:
            since_s = min(since_s, self._header_timer.when() - self._doors.header_timeout_s)
        if self._answer_timer is not None:
            since_s = min(since_s, self._answer_timer.when() - ANSWER_TIMEOUT_S)
        return now_s - since_s

    def drop(self) -> None:
        """End it at once."""
        if self.transport is not None:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        if not self.crowd.enter(self, peer[0] if isinstance(peer, tuple) else "", self._loop.time()):
            self.drop()
            return
        own: socket.socket | None = transport.get_extra_info("socket")
        if own is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            # Of an answer that is left lying below the mark at which writing pauses only the kernel knows.
            own.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(ANSWER_TIMEOUT_S * 1000))
        if hasattr(transport, "max_size"):  # of asyncio's own transports
            transport.max_size = READ_BYTES
        self._header_timer = self._loop.call_later(self._doors.header_timeout_s, self._header_late)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.crowd.leave(self)
        self._stop_header_timer()
        self._stop_answer_timer()
        if self.gone is not None and not self.gone.done():
            self.gone.set_result(None)
        super().connection_lost(exc)

    def linger(self) -> None:
        """Throw away what still comes: there is an answer to a request whose body has not come whole."""
        if self._linger_bytes is None:
            self._linger_bytes = LINGER_BYTES

    def data_received(self, data: bytes) -> None:
        if self._linger_bytes is not None:
            self._linger_bytes -= len(data)
            if self._linger_bytes < 0:
                self.drop()
            return
        super().data_received(data)
        if self._messages:
            if self._header_timer is not None:
                self._stop_header_timer()
        elif self._waiter is not None and not self._waiter.done() and data:
            if self._header_timer is None:
                self._header_timer = self._loop.call_later(self._doors.header_timeout_s, self._header_late)
            self._head_bytes += len(data)
            if self._head_bytes > LARGEST_HEAD_BYTES:
                self._refuse(HeadTooLarge(message="the head is too large"))
        else:
            self.received_bytes += len(data)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._answer_timer = self._loop.call_later(ANSWER_TIMEOUT_S, self.drop)

    def resume_writing(self) -> None:
        self._stop_answer_timer()
        super().resume_writing()

    def _stop_header_timer(self) -> None:
        self._head_bytes = 0
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _stop_answer_timer(self) -> None:
        if self._answer_timer is not None:
            self._answer_timer.cancel()
            self._answer_timer = None

    def _header_late(self) -> None:
        self._header_timer = None
        if self._waiter is not None and not self._waiter.done():
            self.force_close()

    def _refuse(self, error: HttpProcessingError) -> None:
        """Have an error answered as aiohttp has those of its parser, in place of what does not come to an end."""
        self._stop_header_timer()
        told = _ErrInfo(status=400, exc=error, message=error.message)
        self._messages.append((cast("RawRequestMessage", told), EMPTY_PAYLOAD))
        self.close_after_answer()

    def close_after_answer(self) -> None:
        """Take nothing more; the connection ends with the answer to what is there."""
        self._close = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP with a problem, and close; the parser's text would echo what was sent."""
        if isinstance(exc, ConnectionError):
            raise exc
        if request.writer.output_size > 0:
            raise ConnectionResetError("the answer was begun and can't be finished")
        if status >= 500:
            log.error("A request could not be answered", exc_info=exc, extra={"action": "http_request_failed"})
            problem = Problem(500, "the engine failed to answer; its log says why", close=True)
        elif isinstance(exc, HeadTooLarge):
            limit = f"{LARGEST_HEAD_BYTES // 1024}KiB"
            problem = Problem(431, f"the head of the request is larger than {limit}", close=True)
        elif isinstance(exc, LineTooLong):
            problem = Problem(431, "the request line or a header is longer than 8190 bytes", close=True)
        else:
            problem = Problem(
                400, "what was sent is not a valid HTTP/1.1 request", code="malformed_request", close=True
            )
        return self._heads.problem(problem, "", new_id())


async def while_there(request: web.BaseRequest, answering: Awaitable[T]) -> T:
    """Return what is answered; where the client leaves before, what answers is cancelled.

    Raises ConnectionResetError where it left.
    """

    async def answer() -> T:
        return await answering

    connection = request.protocol
    assert isinstance(connection, Connection)  # noqa: S101 - the listener makes no other
    gone = connection.gone = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(answer(), name="answer for which a client waits")
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        connection.gone = None
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
    if task.cancelled():
        raise ConnectionResetError("the client left")
    return task.result()


class Listener(web.Server):
    """Makes a `Connection` for each client."""

    def __init__(
        self, handler: Any, heads: Heads, doors: Doors, told: DoorLog, proxies: Networks | None = None
    ) -> None:
        super().__init__(handler)
        self._heads = heads
        self._doors = doors
        self._crowd = Crowd(doors, told, proxies)

    def __call__(self) -> Connection:
        return Connection(self, self._heads, self._doors, self._crowd, self._loop)
