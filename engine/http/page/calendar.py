"""The calendar: a week to come as a heat map, with maintenance windows. It is foreseen when the page asks for that."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from engine.foresight import Page as Items
from engine.foresight import Question, TooMany
from engine.http.access import Role
from engine.http.calls import Call
from engine.http.maintenance_routes import list_maintenance
from engine.http.page.views import View, ask, may
from engine.http.page.words import count, instant

DAYS = 7
SPANS = (
    (timedelta(days=7), "The week to come"), (timedelta(days=2), "The two days to come"),
    (timedelta(hours=12), "The twelve hours to come"),
)  # fmt: skip
"""The time that is foreseen, with its title; a shorter one where too much comes due in it."""

DEGREES = (0.0, 0.05, 0.2, 0.5, 0.8)
"""From which part of the slots' time on an hour is drawn as fuller."""


async def make(call: Call) -> View:
    """Make the page; what takes long is left out until it is asked for."""
    windows = await ask(call, list_maintenance)
    asked = "foreseen" in call.request.query and may(call, Role.OPERATOR)
    foreseen = await _foreseen(call) if asked else None
    return View(
        template="calendar.html", values={"foreseen": foreseen, "asked": asked, "windows": windows["items"][:20]}
    )


async def _foreseen(call: Call) -> dict[str, Any] | None:
    """Return the days with their hours, and what the simulation says; None where too much comes due."""
    desk, now, left_out = call.operations.foresight, call.operations.clock.now(), None
    for span, title in SPANS:
        question = Question(start=now, end=now + span, quiet_s=3600.0, windows=3, first=5)
        try:
            told = await desk.simulate(question, desk.world(), Items(0, 0))
        except TooMany as error:
            left_out = left_out or f"About {count(error.about)} instants come due in the week: too many to foresee all."
            continue
        return {**told, "days": _days(told), "title": title, "left_out": left_out}
    return None


def _days(told: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the days, each with an entry for each hour of the clock: how full it is, from 0 to 5."""
    whole_s = 3600.0 * told["concurrency"]
    openings = [
        (instant(one["from"]), instant(one["to"]), one["name"]) for one in told["maintenance"] if one.get("from")
    ]
    days: dict[str, dict[str, Any]] = {}
    for hour in told["hours"]:
        at = datetime.fromisoformat(hour["local"])
        day = days.setdefault(at.date().isoformat(), {"date": at, "hours": [None] * 24})
        held = [name for start, end, name in openings if start and end and start < at + timedelta(hours=1) and end > at]
        day["hours"][at.hour] = {
            **hour, "part": hour["busy_s"] / whole_s, "held": held, "hour": at.hour,
            "degree": sum(hour["busy_s"] / whole_s > least for least in DEGREES),
        }  # fmt: skip
    return list(days.values())
