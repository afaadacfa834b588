"""A server for tests of clients: it answers as a test says, byte by byte where it likes, and keeps what it got."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio


@dataclass
class Received:
    """A request as it came: the target as it stood in its first line, header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


Act = Callable[[Received, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    """What `serving` yields: `gone` is set when a client closed its connection."""

    act: Act
    port: int = 0
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    gone: anyio.Event = field(default_factory=anyio.Event)

    def url(self, rest: str = "/", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{rest}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while (request := await _read(reader)) is not None:
                self.requests.append(request)
                await self.act(request, writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # The end of the test or of the client is the end of the connection.
        finally:
            self.gone.set()
            writer.close()


def answer(status: str = "200 OK", body: str | bytes = "", *headers: str) -> bytes:
    """Return a whole answer; each header is a line."""
    content = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + content


def json_answer(body: str, *headers: str, status: str = "200 OK") -> bytes:
    return answer(status, body, "Content-Type: application/json", *headers)


def saying(*answers: bytes) -> Act:
    """Give these answers in order; the last one again and again."""
    left = list(answers)

    async def act(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(left.pop(0) if len(left) > 1 else left[0])

    return act


@asynccontextmanager
async def serving(act: Act, host: str = "127.0.0.1") -> AsyncIterator[Server]:
    """Serve on a free port of a loopback address until the block ends."""
    server = Server(act)
    listener = await asyncio.start_server(server.serve, host, 0)
    server.port = listener.sockets[0].getsockname()[1]
    tasks = asyncio.all_tasks()
    try:
        yield server
    finally:
        listener.close()
        current = asyncio.current_task()
        mine = [
            task
            for task in asyncio.all_tasks() - tasks
            if task is not current and getattr(task.get_coro(), "__qualname__", "") == "Server.serve"
        ]
        for task in mine:
            task.cancel()
        await asyncio.gather(*mine, return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> Received | None:
    head = await reader.readuntil(b"\r\n\r\n") if not reader.at_eof() else b""
    if not head:
        return None
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip().encode("latin-1").decode("utf-8")
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method, target, headers, body)
