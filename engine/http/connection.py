"""Connections: aiohttp's HTTP/1.1 protocol, with its own words for errors and a time-out for headers.

The time-outs here are about the wire, so they are the event loop's, as all of aiohttp's are.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import Awaitable
from typing import Any, TypeVar

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from engine.http.answers import Heads
from engine.http.problems import Problem
from engine.ids import new_id

HEADER_TIMEOUT_S = 10.0
"""How long a client may take to send the head of a request, from its first byte or from connecting."""

KEEPALIVE_S = 75.0
LINGER_S = 2.0
"""How long the rest of a refused body is read and thrown away, so that the sender can read the answer."""

LEAST_CONNECTIONS = 8
LEAST_RESERVE = 48
"""So many file descriptors, or a quarter of all, are not for connections: the store, runs and sources need theirs."""

T = TypeVar("T")

log = logging.getLogger("engine.http")


def most_connections() -> int | None:
    """Return how many connections there may be by the limit of open files as it is now; None: any number."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return None
    return max(limit - max(LEAST_RESERVE, limit // 4), LEAST_CONNECTIONS)


class Connection(web.RequestHandler):
    """One client's connection."""

    __slots__ = ("_header_timer", "_heads", "_listener", "gone")

    def __init__(self, manager: Listener, heads: Heads, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            manager,
            loop=loop,
            keepalive_timeout=KEEPALIVE_S,
            lingering_time=LINGER_S,
            auto_decompress=False,
            access_log=None,  # type: ignore[arg-type]
            logger=log,
        )
        self._heads = heads
        self._listener = manager
        self.gone: asyncio.Future[None] | None = None
        """Done when the client leaves; made by who waits for it."""
        self._header_timer: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing was asked for that is not answered yet; the head of a request may be on its way."""
        return self._waiter is not None and not self._waiter.done()

    @property
    def is_closing(self) -> bool:
        """Whether it ends already."""
        return self.transport is None or self.transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._listener.make_room(self)
        self._header_timer = self._loop.call_later(HEADER_TIMEOUT_S, self._header_late)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_header_timer()
        if self.gone is not None and not self.gone.done():
            self.gone.set_result(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages:
            if self._header_timer is not None:
                self._stop_header_timer()
        elif self._header_timer is None and self._waiter is not None and not self._waiter.done() and data:
            self._header_timer = self._loop.call_later(HEADER_TIMEOUT_S, self._header_late)

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _header_late(self) -> None:
        self._header_timer = None
        if self._waiter is not None and not self._waiter.done():
            self.force_close()

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

    def __init__(self, handler: Any, heads: Heads) -> None:
        super().__init__(handler)
        self._heads = heads
        self._is_full = False

    def make_room(self, newcomer: Connection) -> None:
        """Close the connection that is idle for longest where there are too many; the newcomer where all are at work.

        Without that the connections of many clients, or of one, would take the file descriptors that runs need.
        """
        most = most_connections()
        if most is None or len(self._connections) <= most:
            return
        others = (each for each in self._connections if isinstance(each, Connection) and each is not newcomer)
        chosen = next((each for each in others if each.is_idle and not each.is_closing), newcomer)
        if not self._is_full:
            self._is_full = True
            log.warning(
                "There are %d connections, as many as the limit of open files allows: idle ones are closed", most,
                extra={"action": "http_crowded", "most": most},
            )  # fmt: skip
        if chosen.transport is not None:
            chosen.transport.abort()

    def __call__(self) -> Connection:
        self._is_full = self._is_full and len(self._connections) * 2 > (most_connections() or 0)
        return Connection(self, self._heads, self._loop)
