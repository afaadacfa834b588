"""Pages of what runs go by besides their triggers: sources, conditions, maintenance windows and backfills."""

from __future__ import annotations

from engine.http.backfill_routes import list_backfills
from engine.http.calls import Call
from engine.http.condition_routes import list_conditions
from engine.http.maintenance_routes import list_maintenance
from engine.http.page.views import View, ask
from engine.http.source_routes import list_sources

LIMIT = 50


async def make_sources(call: Call) -> View:
    """Make the page of sources."""
    asked = call.request.query
    found = await ask(call, list_sources, {"limit": str(LIMIT), **asked})
    return View(
        template="sources.html",
        values={"sources": found["items"], "following": found["next"], "first": "cursor" not in asked},
    )


async def make_conditions(call: Call) -> View:
    """Make the page of conditions."""
    found = await ask(call, list_conditions)
    return View(template="conditions.html", values={"conditions": found["items"][:LIMIT], "count": len(found["items"])})


async def make_maintenance(call: Call) -> View:
    """Make the page of maintenance windows."""
    found = await ask(call, list_maintenance)
    return View(template="maintenance.html", values={"windows": found["items"][:LIMIT], "count": len(found["items"])})


async def make_backfills(call: Call) -> View:
    """Make the page of backfills."""
    asked = call.request.query
    found = await ask(call, list_backfills, {"limit": str(LIMIT), **asked})
    return View(
        template="backfills.html",
        values={"backfills": found["items"], "following": found["next"], "first": "cursor" not in asked},
    )
