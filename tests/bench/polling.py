"""The baseline of `idle`: ten tasks that look at the clock once a second, and a server that nobody asks."""

from __future__ import annotations

import asyncio
import sys
import time

from aiohttp import web

from tests.bench.bare import ready
from tests.bench.wire import HOST

TASKS = 10
PERIOD_S = 1.0


async def poll() -> None:
    """Look whether something is due; nothing ever is."""
    due_s = time.time() + 1e9
    while time.time() < due_s:  # noqa: ASYNC110 - it is meant to poll
        await asyncio.sleep(PERIOD_S)


async def serve(port: int) -> None:
    """Poll, and answer that it is ready, until it is ended."""
    app = web.Application()
    app.router.add_get("/ready", ready)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, port).start()
    async with asyncio.TaskGroup() as group:
        for _ in range(TASKS):
            group.create_task(poll())


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
