"""Waiting for one of two: an event, or the time."""

from __future__ import annotations

import anyio

from engine.clock import Clock


async def wait_for(event: anyio.Event, clock: Clock, within_s: float) -> None:
    """Return when an event is set, or when so much time has passed."""

    async def pass_time() -> None:
        await clock.sleep(within_s)
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(pass_time)
        await event.wait()
        group.cancel_scope.cancel()
