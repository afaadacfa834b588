"""The load client for machines without wrk: connections of asyncio, ready-made requests, answers counted."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import msgspec

from tests.bench.report import percentile
from tests.bench.wire import HOST, request, split_answer


class Sender(asyncio.Protocol):
    """One connection: sends the next request when the answer to the last one is there."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._received = b""
        self._sent_s = 0.0
        self._transport: asyncio.Transport | None = None
        self.times_s: list[float] = []
        self.refused = 0
        self.broken = 0
        self.closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        answer = split_answer(self._received)
        if answer is None or self.closing:
            return
        status, _, self._received = answer
        self.times_s.append(time.perf_counter() - self._sent_s)
        self.refused += status >= 400
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        self.broken += not self.closing

    def close(self) -> None:
        """Take no more answers."""
        self.closing = True
        if self._transport is not None:
            self._transport.abort()

    def _send(self) -> None:
        assert self._transport is not None
        self._sent_s = time.perf_counter()
        self._transport.write(self._data)


async def load(port: int, path: str, body: bytes, connections: int, seconds: float) -> dict[str, float]:
    """Keep `connections` busy for so long and return the fields of a `tests.bench.load.Load`."""
    loop, data = asyncio.get_running_loop(), request("POST", path, body)
    senders = []
    begun_s = time.perf_counter()
    for _ in range(connections):
        _, sender = await loop.create_connection(lambda: Sender(data), HOST, port)
        senders.append(sender)
    await asyncio.sleep(seconds)
    ended_s = time.perf_counter()
    for sender in senders:
        sender.close()
    times_s = [time_s for sender in senders for time_s in sender.times_s] or [0.0]
    return {
        "requests": sum(len(sender.times_s) for sender in senders),
        "seconds": ended_s - begun_s,
        "refused": sum(sender.refused for sender in senders),
        "broken": sum(sender.broken for sender in senders),
        "p50_ms": percentile(times_s, 50) * 1e3,
        "p99_ms": percentile(times_s, 99) * 1e3,
    }


def main() -> None:
    """Load as the arguments say: core, port, path, file of the body, connections, seconds."""
    core, port, path, body, connections, seconds = sys.argv[1:]
    os.sched_setaffinity(0, {int(core)})
    found = asyncio.run(load(int(port), path, Path(body).read_bytes(), int(connections), float(seconds)))
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")


if __name__ == "__main__":
    main()
