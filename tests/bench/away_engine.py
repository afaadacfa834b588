"""The engine of `timers` that was away for a month, in a process of its own.

`python -m tests.bench.away_engine FOLDER COUNT BEGUN_S`: so many triggers that are due each minute; `BEGUN_S` is when
the process was started. Prints a line of JSON.
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import msgspec

from engine.clock import rfc3339
from tests.bench.timed_engine import Watched, configured, cron_trigger

MINUTES = 30 * 24 * 60


def main() -> None:
    """Build, run, measure, print."""
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    begun_s = float(sys.argv[3])
    names = [f"away-{number}" for number in range(count)]
    begun_at = rfc3339(datetime.now(UTC) - timedelta(minutes=2))
    watched = Watched(configured(folder, {name: cron_trigger(name, "* * * * *") for name in names}), begun_s)

    async def look(watched: Watched) -> None:
        operations = watched.runtime.operations
        if operations is None:
            raise SystemExit("the engine does not run")
        with anyio.fail_after(120):
            while True:
                cursors = await operations.store.cursors("timer:")
                if min(map(str, cursors.values())) > begun_at:
                    break
                await anyio.sleep(0.1)
        watched.found["dealt_with_s"] = time.monotonic() - begun_s
        for one in (await operations.store.stats(names)).values():
            if not MINUTES - 1 <= sum(one.by_state.values()) <= MINUTES + 2:
                raise SystemExit(f"of {MINUTES} minutes {sum(one.by_state.values())} were told of")

    anyio.run(watched.run, look)
    sys.stdout.write(msgspec.json.encode(watched.found).decode() + "\n")


if __name__ == "__main__":
    main()
