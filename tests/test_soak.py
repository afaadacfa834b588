"""A day of running: memory, open files, threads and tasks come back to where they were.

The whole engine with a hundred triggers lives through it under a clock that is turned: timers, events that join,
filters, failures that are tried again, programs as real processes; with what is old removed, and a scrape and a look at
its health each quarter of an hour. The base is taken when two hours have passed, as caches are filled by then.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from msgspec import Struct

from engine import runtime as runtime_module
from engine.plugin import Event
from engine.runtime import Runtime
from engine.testing import VirtualClock
from tests.organs import InlineStore
from tests.test_adherence import running
from tests.test_runtime import _fresh, configured  # noqa: F401 - a fixture
from tests.test_runtime import operations as of

MINUTES, QUARTER = 60, 15
_DAY = timedelta(days=1)
WARM_HOURS = 2

MOST_GROWTH_BYTES = 12 * 2**20
"""Of the resident memory, without SQLite's caches (32 MiB for each connection, which a store fills that grows all day).
A hundred triggers have some KiB of tallies each, and the heap has holes. A leak of 300 bytes a run would be 15 MB."""

MOST_OBJECTS = 20_000
"""That the collector knows: bins and codes that are seen for the first time, and what is under way. A leak of one
object a run would be 50,000."""


class Taken(Struct, frozen=True, kw_only=True):
    """What the process has."""

    resident_bytes: int
    objects: int
    files: int
    threads: int
    tasks: int

    @classmethod
    async def now(cls, store: InlineStore) -> Taken:
        """Look, when what is only kept to be fast was given back: SQLite's caches, and what the allocator has free."""
        for connection in (store._writer, *store._readers):
            if connection is not None:
                await connection.execute("pragma shrink_memory")
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        process = psutil.Process()
        return cls(
            resident_bytes=process.memory_info().rss, objects=len(gc.get_objects()), files=process.num_fds(),
            threads=threading.active_count(), tasks=len(asyncio.all_tasks()),
        )  # fmt: skip


def hundred_triggers() -> str:
    parts = ["""
[engine]
shutdown_grace = "0s"
[store]
keep = { events = "72h", runs = "1h", logs = "1h" }
[jobs.work]
run.gate = "open"
[jobs.one]
run.gate = "open"
concurrency = 1
[jobs.program]
run.exec = ["/bin/true"]
[jobs.fails]
run.exec = ["/bin/false"]
retry = { attempts = 3, delay = "1m" }
"""]  # fmt: skip
    for count, text in (
        (20, '[triggers.minute-{0}]\non.interval = "1m"\njob = "work"\n'),
        (50, '[triggers.five-{0}]\non.interval = "5m"\njob = "one"\n'),
        (10, '[triggers.filtered-{0}]\non.interval = "10m"\njob = "work"\nfilter = "false"\n'),
        (10, '[triggers.joins-{0}]\non.event = "order.{0}"\njob = "work"\ndebounce = "30s"\n'),
        (5, '[triggers.programs-{0}]\non.cron = "{0} * * * *"\njob = "program"\n'),
        (5, '[triggers.fails-{0}]\non.cron = "3{0} * * * *"\njob = "fails"\n'),
    ):
        parts += [text.format(number) for number in range(count)]
    return "".join(parts)


async def live(engine: Runtime, clock: VirtualClock, minutes: int) -> None:
    operations = of(engine)
    for minute in range(minutes):
        await clock.advance(30)
        sent = [Event(type=f"order.{number % 10}", source="shop", data={"n": number}) for number in range(20)]
        await operations.hear(sent)
        await clock.advance(30)
        with anyio.fail_after(30):
            while engine.running:
                # Programs end by the machine's time, and what waits for the rest of one goes by this clock.
                await anyio.sleep(0.005)
                await clock.advance(0.01)
        if minute % QUARTER == 0:
            await operations.metrics.scrape(accept_encoding="gzip")
            await operations.vitals.detailed(triggers=operations.trigger_names())


@pytest.mark.parametrize("hours", [pytest.param(1, id="an hour"), pytest.param(22, id="a day", marks=pytest.mark.full)])
@pytest.mark.timeout(1800)
async def test_a_day_leaves_memory_files_threads_and_tasks_where_they_were(
    hours: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(runtime_module, "SqliteStore", InlineStore)
    monkeypatch.setattr("tests.test_runtime.IN_TIME_S", 1700.0)
    monkeypatch.setattr("tests.test_runtime.Gate.begun", _Nothing())
    config, clock = configured(tmp_path, hundred_triggers()), VirtualClock()
    assert len(config.triggers) == 100
    async with running(config, clock) as engine:
        store = of(engine).store
        assert isinstance(store, InlineStore)
        store.batches = _Nothing()
        await live(engine, clock, MINUTES * (WARM_HOURS if hours > 1 else 1))
        before = await Taken.now(store)
        await live(engine, clock, MINUTES * hours)
        after = await Taken.now(store)
        ledger = await store.ledger()
        counts = of(engine).metrics._counts
        told = f"{sum(counts.runs.values())} runs, {sum(counts.events.values())} outcomes: {before} -> {after}"
        assert ledger.missing == ()
        assert ledger.accepted == sum(counts.events.values())
        [one] = await of(engine).reports.adherence(["minute-0"], start=clock.now() - _DAY, end=clock.now())
        assert one.due == one.ran > MINUTES * hours - 2
    print(told)  # noqa: T201 - what `-s` shows
    assert after.files <= before.files, told
    assert after.threads <= before.threads, told
    assert after.tasks <= before.tasks, told
    assert after.objects - before.objects < MOST_OBJECTS, told
    assert after.resident_bytes - before.resident_bytes < MOST_GROWTH_BYTES, told
    assert len(os.listdir(config.engine.data / "logs")) < 200


class _Nothing(list[Any]):
    """What tests remember of runs and commits would grow without end."""

    def append(self, item: Any) -> None: ...
