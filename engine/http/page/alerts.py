"""Alerts: what is open, and what people do about it."""

from __future__ import annotations

from engine.http.alert_routes import list_alerts
from engine.http.calls import Call
from engine.http.page.views import View, ask

MOST_SUBJECTS = 20


async def make(call: Call) -> View:
    """Make the page."""
    found = await ask(call, list_alerts)
    return View(
        template="alerts.html",
        values={
            "alerts": found["items"],
            "open": sum(1 for one in found["items"] if one["open"]),
            "most_subjects": MOST_SUBJECTS,
        },
    )
