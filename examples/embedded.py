"""A program with the engine inside: run it with `python examples/embedded.py`, and stop it with Ctrl-C.

It looks for orders every ten seconds, and ships the large ones. Odd totals fail once, to show a retry.
"""

from __future__ import annotations

import logging
import random

import anyio.from_thread

from engine import Engine, RunContext

engine = Engine("data/embedded", defaults={"retry": {"attempts": 3, "delay": "1s"}})


@engine.trigger(cron="*/10 * * * * *")
@engine.job
def look(run: RunContext) -> dict[str, int]:
    """Look for new orders. A plain function: it runs in a thread."""
    total = random.randint(1, 200)
    anyio.from_thread.run(engine.emit, "order.created", {"total": total})
    return {"total": total}


@engine.trigger("large-orders", event="order.created", filter=lambda event: event.data["total"] > 100)
@engine.job(timeout="30s", concurrency=2)
async def ship(run: RunContext) -> dict[str, int]:
    """Ship an order. An asynchronous function: it runs on the loop."""
    run.progress(0.5, "packed")
    if run.attempt == 1 and run.data["total"] % 2:
        raise ConnectionError("the carrier does not answer")
    return {"parcels": 1 + run.data["total"] // 50}


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    engine.run()
