"""The baseline of `timers`: APScheduler 3 with its store in memory, in a process of its own. It makes nothing durable.

`python -m tests.bench.apscheduler_peer COUNT DUE`: so many cron jobs, of which `DUE` are due in one second. Prints a
line of JSON.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from tests.bench.report import percentile
from tests.bench.timed_engine import IDLE_S, memory_mb

LEAD_S = IDLE_S + 5.0

begun: list[float] = []


def is_there() -> bool:
    """Tell whether APScheduler is installed."""
    return find_spec("apscheduler") is not None


async def work() -> None:
    """Note when a job begins."""
    begun.append(time.time())


async def measure(count: int, due: int) -> dict[str, float]:
    """Add the jobs, start, and see what is due."""
    from apscheduler.schedulers.asyncio import AsyncIOScheduler
    from apscheduler.triggers.cron import CronTrigger

    begun_s = time.monotonic()
    scheduler: Any = AsyncIOScheduler(timezone=UTC)
    berlin = ZoneInfo("Europe/Berlin")
    for number in range(count - due):
        trigger = CronTrigger(
            minute=number % 60, hour=number // 60 % 24, day=number // 1440 % 28 + 1, timezone=berlin
        )  # fmt: skip
        scheduler.add_job(work, trigger, misfire_grace_time=None)
    due_at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=LEAD_S + due // 1000)
    for _ in range(due):
        trigger = CronTrigger(second=due_at.second, minute=due_at.minute, hour=due_at.hour, timezone=UTC)
        scheduler.add_job(work, trigger, misfire_grace_time=None)
    scheduler.start()
    await asyncio.sleep(0)
    found = {"ready_s": time.monotonic() - begun_s, "resident_mb": memory_mb()}
    used_s = time.process_time()
    await asyncio.sleep(IDLE_S)
    found["idle_percent"] = (time.process_time() - used_s) / IDLE_S * 100
    while len(begun) < due:  # noqa: ASYNC110 - what is called must do nothing but note the time
        await asyncio.sleep(0.02)
    late = [at - due_at.timestamp() for at in begun]
    scheduler.shutdown(wait=False)
    return {**found, "p50_ms": percentile(late, 50) * 1e3, "p99_ms": percentile(late, 99) * 1e3}


def main() -> None:
    """Measure and print."""
    logging.disable(logging.CRITICAL)
    found = asyncio.run(measure(int(sys.argv[1]), int(sys.argv[2])))
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")


if __name__ == "__main__":
    main()
