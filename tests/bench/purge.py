"""`purge`: how long accepting takes while a million finished runs are removed, against the same load without that.

A store is filled with runs that ended long ago. One engine works on it with housekeeping, another one keeps all. Both
get the same events, 200 per second on one connection; measured is each from request to answer, while a round of
housekeeping goes on.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import msgspec

from engine.store.sqlite import SqliteStore
from tests.bench.material import order_json
from tests.bench.processes import TOKEN, Server, start_engine
from tests.bench.report import BenchFailed, Figure, Options, Report, percentile
from tests.bench.wire import Wire, request

MANY, QUICK_MANY = 1_000_000, 3_000
PER_SECOND = 200.0
MEASURED_S, QUICK_MEASURED_S = 30.0, 2.0
BATCH = 20_000
DAY_US = 86_400_000_000

CONFIG = """\
[engine]
shutdown_grace = "0s"
[http]
listen = "127.0.0.1:{port}"
[store]
keep = {keep}
[jobs.nothing]
run.exec = ["true"]
concurrency = 1
[triggers.hook]
on.webhook = { path = "bench", verify = "none" }
job = "nothing"
filter = "false"
"""
KEEPS = {"purging": '{ events = "30d", runs = "30d" }', "keeping": '{ events = "3650d", runs = "3650d" }'}


def fill(database: Path, count: int) -> None:
    """Put runs that ended a year ago, with their events, into a new store: by SQL, in large batches."""

    async def make() -> None:
        store = SqliteStore(database)
        await store.open()
        await store.close()

    anyio.run(make)
    began_us = int(time.time() * 1e6) - 400 * DAY_US
    data = order_json(1).decode()
    with closing(sqlite3.connect(database, isolation_level=None)) as raw:
        raw.execute("pragma synchronous = off")
        raw.execute("pragma cache_size = -262144")
        for first in range(0, count, BATCH):
            numbers = range(first, min(first + BATCH, count))
            raw.execute("begin")
            raw.executemany(
                "insert into events (id, source, type, time, received_at, data) "
                "values (?, 'webhook:bench', 'webhook.bench', ?2, ?2, ?3)",
                [(_id(number, began_us, "e"), began_us + number * 1000, data) for number in numbers],
            )
            raw.executemany(
                "insert into outcomes (event, trigger, outcome, run, code, reason) "
                "values (?, 'hook', 'run', ?, 'matched', 'matched')",
                [(_id(number, began_us, "e"), _id(number, began_us, "f")) for number in numbers],
            )
            raw.executemany(
                "insert into runs (id, job, trigger, origin, key, first_event, event, event_count, state, code, "
                "priority, rank, attempt, created_at, started_at, finished_at, trace) values "
                "(?1, 'nothing', 'hook', 'event', ?2, ?2, ?2, 1, 'succeeded', 'succeeded', 5, 0, 1, ?3, ?3, ?3, ?4)",
                [
                    (
                        _id(number, began_us, "f"), _id(number, began_us, "e"), began_us + number * 1000,
                        f'[{began_us + number * 1000},"queued","matched","matched; waits for a slot"],'
                        f'[{began_us + number * 1000},"running","started","started: attempt 1"],'
                        f'[{began_us + number * 1000},"succeeded","succeeded","exit 0"]',
                    )
                    for number in numbers
                ],
            )  # fmt: skip
            raw.execute("commit")
        raw.execute("pragma wal_checkpoint(truncate)").fetchall()


def _id(number: int, began_us: int, kind: str) -> str:
    """Return an id of that time, as they are made: UUIDs of version 7."""
    milliseconds = (began_us + number * 1000) // 1000
    text = f"{milliseconds:012x}7{kind}{number % 256:02x}8{number:015x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def measure(options: Options) -> Report:
    """Fill both stores, and measure both engines."""
    count = QUICK_MANY if options.quick else MANY
    seconds = QUICK_MEASURED_S if options.quick else MEASURED_S
    filled = options.folder / "filled" / "engine.db"
    filled.parent.mkdir(parents=True)
    fill(filled, count)
    p99: dict[str, list[float]] = {name: [] for name in KEEPS}
    most: dict[str, list[float]] = {name: [] for name in KEEPS}
    purged, lasted_s = 0, 0.0
    for number in range(options.rounds):
        for name, keep in KEEPS.items():
            folder = options.folder / f"{name}{number}"
            (folder / "data").mkdir(parents=True)
            shutil.copyfile(filled, folder / "data" / "engine.db")
            with start_engine(folder, CONFIG.replace("{keep}", keep)) as server:
                taken, tally, took_s = _load(server, seconds, purges=name == "purging")
            p99[name].append(percentile(taken, 99) * 1000)
            most[name].append(max(taken) * 1000)
            if name == "purging":
                purged, lasted_s = purged + tally["runs"] + tally["events"], lasted_s + took_s
    return Report(
        bench="purge",
        figures=[
            Figure(
                title="accepting an event, p99", unit="ms", values=p99["purging"], baselines=p99["keeping"],
                target="below 100 ms",
            ),
            Figure(title="- the longest", unit="ms", values=most["purging"], baselines=most["keeping"]),
            Figure(title="rows removed per second", unit="1/s", values=[purged / lasted_s]),
        ],
        extra={"runs": count, "max_ms": max(most["purging"]), "removed": purged, "per_second": purged / lasted_s},
    )  # fmt: skip


def _load(server: Server, seconds: float, *, purges: bool) -> tuple[list[float], dict[str, Any], float]:
    """Send events for so long; return how long each took, what was purged meanwhile, and in what time."""
    ask = request("POST", "/hooks/bench", order_json(1))
    round_of_it = threading.Thread(target=_purge, args=(server.port,), daemon=True)
    with Wire(server.port) as wire:
        wire.send(ask)
        if purges:
            round_of_it.start()
        taken: list[float] = []
        began_s = time.monotonic()
        while (now_s := time.monotonic()) - began_s < seconds:
            due_s = began_s + len(taken) / PER_SECOND
            if due_s > now_s:
                time.sleep(due_s - now_s)
            sent_s = time.monotonic()
            status, _ = wire.send(ask)
            if status != 202:
                raise BenchFailed(f"an event was answered {status}")
            taken.append(time.monotonic() - sent_s)
        took_s = time.monotonic() - began_s
        status, body = wire.ask("GET", "/api/v1/housekeeping", token=TOKEN)
    if status != 200:
        raise BenchFailed(f"the engine answered {status}: {body.decode()}")
    state = msgspec.json.decode(body)
    tally = state["running"] or state["last"] or {"runs": 0, "events": 0}
    if purges and not tally["runs"]:
        raise BenchFailed("nothing was purged meanwhile")
    return taken, tally, took_s


def _purge(port: int) -> None:
    """Have a round begin; it goes on when this gives up waiting for its end."""
    with contextlib.suppress(OSError), Wire(port) as wire:
        wire.ask("POST", "/api/v1/housekeeping", b"{}", token=TOKEN)
