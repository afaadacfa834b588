"""The baseline of `runs`: huey on SQLite, as it comes, with a consumer of four threads in a process of its own."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from tests.bench.processes import ROOT
from tests.bench.report import BenchFailed

WORKERS = 4
"""The number with which huey was fastest on two cores."""

LONGEST_S = 120.0


def is_there() -> bool:
    """Tell whether huey is installed."""
    return find_spec("huey") is not None


def open_queue(database: Path) -> tuple[Any, Any]:
    """Return huey on a file, and a task that counts its calls; results are not stored."""
    from huey import SqliteHuey

    huey = SqliteHuey("bench", filename=str(database))
    calls = itertools.count(1)

    def nothing(data: dict[str, Any]) -> None:
        task.calls = next(calls)

    task: Any = huey.task()(nothing)
    task.calls = 0
    return huey, task


def seconds_of(folder: Path, orders: list[dict[str, Any]]) -> float:
    """Enqueue a task for each order while the consumer works; return seconds from the first to the last end."""
    folder.mkdir()
    database = folder / "huey.db"
    _, task = open_queue(database)
    consumer = subprocess.Popen(
        # Imported and not run as a script: huey knows a task by its module.
        [sys.executable, "-c", "from tests.bench.huey_peer import main; main()", str(database), str(len(orders))],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert consumer.stdout is not None
    try:
        consumer.stdout.readline()
        begun_s = time.time()
        for order in orders:
            task(order)
        out, _ = consumer.communicate(timeout=LONGEST_S)
    except subprocess.TimeoutExpired:
        raise BenchFailed(f"huey did not run {len(orders)} tasks within {LONGEST_S:g} s") from None
    finally:
        consumer.kill()
        consumer.wait()
        consumer.stdout.close()
    ended_s: float = msgspec.json.decode(out, type=float)
    return ended_s - begun_s


def main() -> None:
    """Be the consumer until so many tasks were run; print when that was."""
    database, count = Path(sys.argv[1]), int(sys.argv[2])
    huey, task = open_queue(database)
    consumer = huey.create_consumer(workers=WORKERS, periodic=False)
    consumer.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while task.calls < count:
        time.sleep(0.001)
    ended_s = time.time()
    sys.stdout.write(f"{ended_s!r}\n")
    sys.stdout.flush()
    stopping = threading.Thread(target=consumer.stop, kwargs={"graceful": True})
    stopping.start()
    stopping.join()
