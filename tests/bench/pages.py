"""`pages`: how long each page of the web page takes, and how much of it goes over the wire, with a large store.

There are 10,000 triggers and 100,000 runs. What counts is the worst page; the baseline is `/live`, asked the same way.
"""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

import msgspec
from msgspec import Struct

from tests.bench.processes import TOKEN, Server, free_port
from tests.bench.report import BenchFailed, Figure, Options, Report
from tests.browser.past import Habit, fill

TRIGGERS, QUICK_TRIGGERS = 10_000, 200
RUNS, QUICK_RUNS = 100_000, 2_000
JOBS = 50
DAYS = 6.0
BUSY = 20
"""So many of the triggers have most of the runs, as it is."""

MOST_MS, MOST_KB = 300, 200
LIVE = "/live"

PLACES = (
    "/", "/timeline", "/timeline?over=1d", "/runs", "/runs?state=failed,timed_out", "/runs?trigger=t00003",
    "/runs?trigger=t09999", "/runs?job=job-7", "/queue", "/events", "/events?trigger=t00003", "/triggers",
    "/triggers?q=t0999", "/triggers?over=month", "/triggers/t00003", "/triggers/t00003/why", "/triggers/t09999",
    "/jobs", "/jobs/job-7", "/sources", "/calendar", "/conditions", "/maintenance", "/backfills", "/doctor",
    "/configuration", "/audit", "/tokens", "/search?q=t0999",
)  # fmt: skip


class Seen(Struct, kw_only=True):
    """How long a page took in each round, and how large it was."""

    took_ms: list[float] = []
    kb: float = 0.0


def measure(options: Options) -> Report:
    """Look at every page."""
    triggers, runs = (QUICK_TRIGGERS, QUICK_RUNS) if options.quick else (TRIGGERS, RUNS)
    port = free_port()
    _prepare(options.folder, port, triggers, runs)
    server = Server(["-m", "engine"], options.folder, port)
    seen: dict[str, Seen] = {}
    live_ms: list[float] = []
    try:
        places = [place for place in PLACES if "t09999" not in place or triggers > 9999]
        for _ in range(options.rounds + 1):
            live_ms.append(_look(port, LIVE)[0])
            for place in places:
                took_ms, kb = _look(port, place)
                known = seen.setdefault(place, Seen(took_ms=[]))
                known.took_ms.append(took_ms)
                known.kb = kb
    finally:
        server.stop()
    # The first look at a page reads its template, and what of the store is not in memory yet.
    figures = {place: Figure(title=place, unit="ms", values=one.took_ms[1:]) for place, one in seen.items()}
    worst = max(figures.values(), key=lambda one: one.value)
    largest = max(seen, key=lambda place: seen[place].kb)
    return Report(
        bench="pages",
        figures=[
            Figure(
                title=f"slowest: {worst.title}",
                unit="ms",
                values=worst.values,
                baselines=live_ms[1:],
                target=f"below {MOST_MS} ms",
            ),
            Figure(title=f"largest: {largest}", unit="kB", values=[seen[largest].kb], target=f"below {MOST_KB} kB"),
            *sorted(figures.values(), key=lambda one: -one.value),
        ],
        extra={"triggers": triggers, "runs": runs, "page": worst.title, "largest_kb": seen[largest].kb},
    )


def _prepare(folder: Path, port: int, triggers: int, runs: int) -> None:
    lines = ["[http]", f'listen = "127.0.0.1:{port}"', "[engine]", "concurrency = 4"]
    for number in range(JOBS):
        lines += [f"[jobs.job-{number}]", 'run.exec = ["true"]']
    for number in range(triggers):
        # They are due in a year's time: what is measured is what is read.
        lines += [f"[triggers.t{number:05}]", f'on.cron = "{number % 60} {number % 24} 29 2 *"']
        lines += [f'job = "job-{number % JOBS}"']
    (folder / "config.toml").write_text("\n".join(lines), "utf-8")
    (folder / "data").mkdir(parents=True)
    # Most runs are of some triggers, and all others have one.
    often = max(runs - triggers, BUSY) / BUSY
    habits = [
        Habit(f"t{number:05}", f"job-{number % JOBS}", DAYS * 86_400 / (often if number < BUSY else 1), 5.0, 3)
        for number in range(triggers)
    ]
    asyncio.run(fill(folder / "data" / "engine.db", habits, days=DAYS))


def _look(port: int, place: str) -> tuple[float, float]:
    """Return how long a page took until all of it was there, in milliseconds, and its size on the wire, in kB."""
    asked = (
        f"GET {place} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {TOKEN}\r\nAccept: text/html\r\n"
        "Accept-Encoding: gzip\r\nConnection: close\r\n\r\n"
    ).encode()
    begun_s = time.perf_counter()
    received = bytearray()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as wire:
        wire.sendall(asked)
        while part := wire.recv(1 << 16):
            received += part
    took_ms = (time.perf_counter() - begun_s) * 1000
    if not received.startswith(b"HTTP/1.1 200"):
        raise BenchFailed(f"{place}: {msgspec.json.encode(bytes(received[:300]).decode(errors='replace')).decode()}")
    return took_ms, len(received) / 1000
