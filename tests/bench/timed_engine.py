"""The engine of `timers`, in a process of its own: its triggers are made as a program makes them, not read from TOML.

`python -m tests.bench.timed_engine FOLDER COUNT DUE LEAD_S BEGUN_S`: so many cron triggers, of which `DUE` are due in
one second, `LEAD_S` seconds from now; `BEGUN_S` is when the process was started. Prints a line of JSON.
"""

from __future__ import annotations

import gc
import resource
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import msgspec
from msgspec.structs import replace

from engine import runtime
from engine.config import Config, load
from engine.decide.schedule import Schedule
from engine.triggers import Trigger
from plugins.timers.cron import Cron
from tests.bench.report import percentile

IDLE_S = 4.0
JOB = "work"
CONFIG = f"""\
[engine]
concurrency = 2000
[http]
listen = "127.0.0.1:0"
[jobs.{JOB}]
run.python = "tests.bench.timed_engine:work"
"""

begun: list[tuple[float, datetime]] = []


async def work(context: Any) -> None:
    """Note when a run begins."""
    begun.append((time.time(), context.scheduled_for))


def cron_trigger(name: str, expression: str, timezone: str = "UTC") -> Trigger:
    """Return a trigger of the job."""
    on = Cron(expression=expression, timezone=timezone)
    schedule = Schedule(trigger=name, timer=on)
    return Trigger(name=name, job=JOB, source=f"timer:{name}", on=on, schedule=schedule)


def resting(number: int) -> str:
    """Return one of 40,320 expressions that are due once a month: each minute of each of 28 days."""
    return f"{number % 60} {number // 60 % 24} {number // 1440 % 28 + 1} * *"


def configured(folder: Path, triggers: dict[str, Trigger]) -> Config:
    """Return the configuration of an engine in a folder, with these triggers."""
    file = folder / "config.toml"
    file.write_text(CONFIG)
    return replace(load([file], environment={}), triggers=triggers)


def memory_mb() -> float:
    """Return the resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


class Watched:
    """An engine that is started and stopped, and what it came to."""

    def __init__(self, config: Config, begun_s: float) -> None:
        self.found: dict[str, float] = {}
        self._begun_s = begun_s
        self._started_s = time.monotonic()
        self._ready = anyio.Event()
        self.runtime = runtime.Runtime(config, watch_loop=True, on_ready=self._note_ready)

    def _note_ready(self, _: runtime.Runtime) -> None:
        now_s = time.monotonic()
        self.found |= {
            "ready_s": now_s - self._begun_s,
            "runtime_ready_s": now_s - self._started_s,
            "resident_mb": memory_mb(),
        }
        self._ready.set()

    async def run(self, meanwhile: Any) -> None:
        """Run the engine; stop it when `meanwhile`, which begins once it is ready, has ended."""
        sys.setswitchinterval(runtime.SWITCH_INTERVAL_S)
        gc.collect()
        gc.freeze()
        gc.set_threshold(runtime.GC_NEW_OBJECTS, 20, 50)
        async with anyio.create_task_group() as group:
            group.start_soon(self.runtime.run)
            await self._ready.wait()
            await meanwhile(self)
            self.runtime.stop()


def main() -> None:
    """Build, run, measure, print."""
    folder, count, due, lead_s = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    begun_s = float(sys.argv[5])
    due_at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=lead_s)
    second = f"{due_at.second} {due_at.minute} {due_at.hour} * * *"
    triggers = {f"due-{number}": cron_trigger(f"due-{number}", second) for number in range(due)}
    for number in range(count - due):
        triggers[f"t-{number}"] = cron_trigger(f"t-{number}", resting(number), "Europe/Berlin")
    watched = Watched(configured(folder, triggers), begun_s)

    async def look(watched: Watched) -> None:
        left_s = (due_at - datetime.now(UTC)).total_seconds() - 1.0
        if left_s < IDLE_S:
            raise SystemExit(f"it was ready {left_s + 1:.1f} s before the instant: too late to see it idle")
        await anyio.sleep(left_s - IDLE_S)
        used_s = time.process_time()
        await anyio.sleep(IDLE_S)
        watched.found["idle_percent"] = (time.process_time() - used_s) / IDLE_S * 100
        with anyio.fail_after(60):
            while sum(at == due_at for _, at in begun) < due:  # noqa: ASYNC110 - the job must only note the time
                await anyio.sleep(0.02)
        late = [began - at.timestamp() for began, at in begun if at == due_at]
        watched.found |= {
            "p50_ms": percentile(late, 50) * 1e3,
            "p99_ms": percentile(late, 99) * 1e3,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }

    anyio.run(watched.run, look)
    sys.stdout.write(msgspec.json.encode(watched.found).decode() + "\n")


if __name__ == "__main__":
    # The job's function finds this module by its name, and must find this list in it.
    sys.modules["tests.bench.timed_engine"] = sys.modules["__main__"]
    main()
