"""Triggers: the list, and one with when it is due, how it ran, and what may be done with it."""

from __future__ import annotations

from bisect import bisect_right
from datetime import timedelta
from itertools import islice
from typing import Any

import anyio.lowlevel

from engine.errors import EngineError
from engine.http.adaptive_routes import get_adaptive
from engine.http.calls import Call
from engine.http.page.curves import curve_of
from engine.http.page.sparklines import sparkline
from engine.http.page.views import View, ask
from engine.http.page.words import span
from engine.http.stats_routes import statistics_view
from engine.http.trigger_routes import get_trigger, list_trigger_runs
from engine.tallies import Width
from engine.triggers import GATES

LIMIT = 40
RUNS = 12
NEXT = 8
LONGEST_WORD = 200

INVALID = "invalid"
"""The state of what the API has defined and the configuration does not take any more: little is known of it."""

OVER = {"day": (Width.HOUR, timedelta(days=1)), "month": (Width.DAY, timedelta(days=28))}


async def make_list(call: Call) -> View:
    """Make the list."""
    operations, asked = call.operations, call.request.query
    over = asked.get("over", "day") if asked.get("over") in OVER else "day"
    sought = asked.get("q", "").strip()[:LONGEST_WORD]
    names = sorted(name for name in operations.trigger_names() if sought.lower() in name.lower())
    start = bisect_right(names, asked["cursor"]) if "cursor" in asked else 0
    page = names[start : start + LIMIT]
    now = operations.clock.now()
    rows = []
    for name in page:
        view = operations.trigger_view(name)
        line = await sparkline(operations.store, now, OVER[over][0], trigger=name)
        rows.append({**view, "line": line, "words": on_words(view["on"])})
    return View(
        template="triggers.html",
        values={
            "triggers": rows,
            "total": len(names),
            "following": page[-1] if start + LIMIT < len(names) else None,
            "first": start == 0,
            "q": sought,
            "over": over,
        },
    )


async def make_one(call: Call) -> View:
    """Make the page of one trigger."""
    operations = call.operations
    trigger = await ask(call, get_trigger)
    if trigger["state"] == INVALID:
        return View(template="invalid.html", title=trigger["name"], values={"one": trigger, "table": "triggers"})
    name, now = trigger["name"], operations.clock.now()
    runs = await ask(call, list_trigger_runs, {"limit": str(RUNS)})
    adaptive = await ask(call, get_adaptive) if trigger["adaptive"] else None
    spans = []
    for label, over in (
        ("24 hours", timedelta(days=1)),
        ("7 days", timedelta(days=7)),
        ("28 days", timedelta(days=28)),
    ):
        found = await operations.counting.statistics(trigger=name, over=over)
        spans.append({"label": label, **statistics_view(found)})
    return View(
        template="trigger.html",
        title=name,
        values={
            "trigger": trigger,
            "words": on_words(trigger["on"]),
            "next": await _next(call, name),
            "runs": runs["items"],
            "more": runs["next"] is not None,
            "spans": spans,
            "line": await sparkline(operations.store, now, Width.HOUR, trigger=name),
            "month": await sparkline(operations.store, now, Width.DAY, trigger=name),
            "adaptive": adaptive,
            "curve": None if adaptive is None else curve_of(adaptive, now),
            "gates": sorted(GATES),
        },
    )


async def _next(call: Call, name: str) -> list[dict[str, Any]]:
    """Return the next due instants; none where the trigger is on no timer, or its timer fails.

    Why nothing is run then stands above all of them: each has the word alone.
    """
    operations, found = call.operations, []
    try:
        for one in islice(operations.upcoming(name, operations.clock.now()), NEXT):
            found.append({**one.view(), "note": one.own, "idle": one.idle, "later": one.fires_at != one.at})
            # A timer may have to look far: others have their turn meanwhile.
            await anyio.lowlevel.checkpoint()
    except EngineError:
        return []
    return found


def on_words(on: dict[str, Any]) -> tuple[str, str]:
    """Return what a trigger is on: the kind, and what of it one wants to know."""
    kind, settings = next(iter(on.items()), ("", {}))
    if not isinstance(settings, dict):
        return kind, str(settings)
    main = {
        "cron": "expression", "at": "times", "files": "path", "trigger_dir": "path", "webhook": "path",
        "event": "type", "run": "job", "http": "url", "database": "query",
    }.get(kind)  # fmt: skip
    if kind == "interval":
        return kind, f"every {_span(settings.get('every'))}"
    told = settings.get(main) if main else None
    if told is None:
        told = "" if kind == "manual" else next((one for one in settings.values() if isinstance(one, str)), "")
    text = ", ".join(map(str, told)) if isinstance(told, list) else str(told)
    zone = settings.get("timezone")
    return kind, f"{text} · {zone}" if kind in ("cron", "at") and zone and zone != "UTC" else text


def _span(value: Any) -> str:
    return span(value) if isinstance(value, (int, float)) else str(value)
