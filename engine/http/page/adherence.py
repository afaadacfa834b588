"""How well timers were kept: what was due, what ran, how late, and why the rest did not."""

from __future__ import annotations

from engine.http.adherence_routes import list_adherence
from engine.http.calls import Call
from engine.http.page.views import View, ask

LIMIT = 50
SPANS = (("24 hours", "1d"), ("7 days", "7d"), ("28 days", "28d"), ("90 days", "90d"))


async def make(call: Call) -> View:
    """Make the page."""
    asked = call.request.query
    over = asked.get("over", "7d")
    found = await ask(call, list_adherence, {**asked, "over": over, "limit": str(LIMIT), "format": "json"})
    return View(
        template="adherence.html",
        values={
            "reports": found["items"],
            "following": found["next"],
            "first": "cursor" not in asked,
            "over": over,
            "spans": SPANS,
        },
    )
