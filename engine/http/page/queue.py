"""The queue: what is ready and waits for a slot, in its order, and the limits that it waits for."""

from __future__ import annotations

from engine.http.calls import Call
from engine.http.page.views import View, ask
from engine.http.pool_routes import list_pools
from engine.http.queue_routes import get_queue
from engine.runs import Lane

LIMIT = 50


async def make(call: Call) -> View:
    """Make the page."""
    asked = call.request.query
    queue = await ask(call, get_queue, {"limit": str(LIMIT), **asked})
    pools = await ask(call, list_pools)
    return View(
        template="queue.html",
        values={
            "queue": queue,
            "pools": pools["items"],
            "first": "cursor" not in asked,
            "lanes": ("", *(lane.value for lane in Lane)),
            "lane": asked.get("lane", ""),
            "total": sum(queue["waiting"].values()),
        },
    )
