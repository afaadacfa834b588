"""Clients that mean harm, or are just bad: what a listener has to bear. `python -m tests.hostile PORT SECONDS KINDS`.

They run in a process of their own, so that whoever measures beside them is not slowed by them. When the time is up
the process prints one line of JSON: for each kind how often it connected, and how many bytes it got rid of.
"""

from __future__ import annotations

import asyncio
import sys
import zlib
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from msgspec import Struct

HOST = "127.0.0.1"
SLOW = 500
CHUNKERS, BOMBERS, FLOODERS = 4, 2, 16
CHUNK = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
GIB = 1 << 30
DRIP_S = 1.0
LONGEST_ANSWER = 1 << 16

HEADERS = b"Host: 127.0.0.1\r\nContent-Type: application/json\r\n"


class Done(Struct, kw_only=True):
    """What the clients of one kind came to."""

    connected: int = 0
    sent_bytes: int = 0
    answered: int = 0
    accepted: int = 0


Client = Callable[[asyncio.StreamReader, asyncio.StreamWriter, Done, int], Coroutine[Any, Any, None]]


async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, done: Done, number: int) -> None:
    """Send a byte a second of a head, or of a body; or ask without end, and take no answer."""
    if number % 3 == 0:
        writer.write(b"POST /hooks/order HTTP/1.1\r\n" + HEADERS + b"X-Slow: ")
    elif number % 3 == 1:
        writer.write(b"POST /hooks/order HTTP/1.1\r\n" + HEADERS + b"Content-Length: 100000\r\n\r\n")
    else:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"GET /live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 200)
    while not writer.is_closing():
        await asyncio.sleep(DRIP_S)
        writer.write(b"x")
        done.sent_bytes += 1


async def chunks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, done: Done, number: int) -> None:
    """Send a gigabyte of chunks, or as much as is taken; every second client in chunks of one byte."""
    writer.write(b"POST /hooks/order HTTP/1.1\r\n" + HEADERS + b"Transfer-Encoding: chunked\r\n\r\n")
    piece = CHUNK if number % 2 else b"1\r\nx\r\n" * 10_000
    sent = 0
    while sent < GIB and not writer.is_closing():
        writer.write(piece)
        await writer.drain()
        sent += len(piece)
        done.sent_bytes += len(piece)


def bomb(size_bytes: int) -> bytes:
    """Return so many zeros as gzip: a gigabyte is a megabyte then."""
    deflating = zlib.compressobj(9, wbits=31)
    zeros = bytes(1 << 20)
    return b"".join(deflating.compress(zeros) for _ in range(size_bytes >> 20)) + deflating.flush()


def bomber(content: bytes) -> Client:
    """Return a client that posts what inflates to far more."""

    async def post(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, done: Done, number: int) -> None:
        writer.write(
            b"POST /hooks/order HTTP/1.1\r\n" + HEADERS + b"Content-Encoding: gzip\r\n"
            b"Content-Length: %d\r\n\r\n" % len(content) + content
        )
        await reader.readuntil(b"\r\n\r\n")
        done.sent_bytes += len(content)
        done.answered += 1
        await asyncio.sleep(0.02)

    return post


async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, done: Done, number: int) -> None:
    """Post as fast as answers come; every fourth client connects anew for each, and asks for what is not there."""
    again = number % 4 != 0
    path = b"/hooks/flood" if again else b"/hooks/nobody"
    request = b"POST " + path + b" HTTP/1.1\r\n" + HEADERS + b'Content-Length: 7\r\n\r\n{"a":1}'
    while True:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        done.sent_bytes += len(request)
        done.answered += 1
        done.accepted += head.startswith(b"HTTP/1.1 202")
        if not again:
            return
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(length))


async def keep_on(port: int, client: Client, done: Done, number: int) -> None:
    """Be one client for ever: connect anew whenever it is thrown out."""
    while True:
        try:
            reader, writer = await asyncio.open_connection(HOST, port, limit=LONGEST_ANSWER)
        except OSError:
            await asyncio.sleep(0.1)
            continue
        done.connected += 1
        try:
            await client(reader, writer, done, number)
        except (OSError, asyncio.IncompleteReadError):
            await asyncio.sleep(0.01)
        finally:
            writer.transport.abort()


async def attack(port: int, seconds: float, kinds: list[str], bomb_bytes: int) -> dict[str, Done]:
    """Let all clients of these kinds loose for so long."""
    clients: dict[str, tuple[int, Client]] = {"slow": (SLOW, slow), "chunks": (CHUNKERS, chunks)}
    clients |= {"flood": (FLOODERS, flood)}
    if "bombs" in kinds:
        clients["bombs"] = (BOMBERS, bomber(bomb(bomb_bytes)))
    found = {kind: Done() for kind in kinds}
    try:
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
            for kind in kinds:
                count, client = clients[kind]
                for number in range(count):
                    group.create_task(keep_on(port, client, found[kind], number))
    except TimeoutError:
        pass
    return found


def main(arguments: list[str]) -> int:
    """Attack, and print what came of it."""
    port, seconds, kinds, bomb_bytes = arguments
    found = asyncio.run(attack(int(port), float(seconds), kinds.split(","), int(bomb_bytes)))
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
