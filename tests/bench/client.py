"""The load client for machines without wrk: connections of asyncio, ready-made requests, answers counted."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tests.bench.report import percentile
from tests.bench.wire import HOST, request, split_answer


class Sender(asyncio.Protocol):
    """One connection: sends the next request when the answer to the last one is there."""

    def __init__(self, requests: Iterator[bytes]) -> None:
        self._requests = requests
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
        self._transport.write(next(self._requests))


def requests_of(path: str, body: bytes, signatures: Path | None) -> Iterator[bytes]:
    """Return the requests to send, without end: one and the same, or each with the next line of `signatures`."""
    plain = request("POST", path, body)
    if signatures is None:
        return itertools.repeat(plain)
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    first, _, rest = plain.partition(b"\r\n")
    heads = [
        "".join(f"\r\n{name}: {value}" for name, value in zip(names, line.split(), strict=True)).encode()
        for line in signatures.read_text().splitlines()
    ]
    return itertools.cycle(first + head + b"\r\n" + rest for head in heads)


async def load(
    port: int, path: str, body: bytes, connections: int, seconds: float, signatures: Path | None = None
) -> dict[str, float]:
    """Keep `connections` busy for so long and return the fields of a `tests.bench.load.Load`."""
    loop, requests = asyncio.get_running_loop(), requests_of(path, body, signatures)
    senders = []
    begun_s = time.perf_counter()
    for _ in range(connections):
        _, sender = await loop.create_connection(lambda: Sender(requests), HOST, port)
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
    """Load as the arguments say: core, port, path, file of the body, connections, seconds, file of signatures."""
    core, port, path, body, connections, seconds, *more = sys.argv[1:]
    os.sched_setaffinity(0, {int(core)})
    signatures = Path(more[0]) if more else None
    found = asyncio.run(load(int(port), path, Path(body).read_bytes(), int(connections), float(seconds), signatures))
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")


if __name__ == "__main__":
    main()
