"""Runs: the list, newest first, and one run with its story, its attempts and its log."""

from __future__ import annotations

from typing import Any

from engine.http.calls import Call
from engine.http.page.now import USUAL_OVER
from engine.http.page.views import View, ask
from engine.http.run_routes import get_run, list_runs
from engine.http.views import event_view
from engine.plugin import Response
from engine.runs import ENDED, HELD_BY_HAND, WAITING, RunState

LIMIT = 50
MOST_EVENTS = 10

STATES: tuple[tuple[str, str], ...] = (
    ("All", ""),
    ("Running", "running"),
    ("Waiting", "held,pending,queued,retrying"),
    ("Failed", "failed,timed_out"),
    ("Succeeded", "succeeded"),
    ("Not run", "cancelled,expired,missed,skipped"),
)
"""What people ask for, and the states that it stands for."""


async def make_list(call: Call) -> View | Response:
    """Make the list."""
    asked = call.request.query
    found = await ask(call, list_runs, {"limit": str(LIMIT), **asked})
    return View(
        template="runs.html",
        values={
            "runs": found["items"],
            "following": found["next"],
            "first": "cursor" not in asked,
            "states": STATES,
            "chosen": asked.get("state", ""),
            "asked": {name: asked.get(name, "") for name in ("trigger", "job", "tag", "text", "origin")},
        },
    )


async def make_one(call: Call) -> View | Response:
    """Make the page of one run."""
    run = await ask(call, get_run)
    state = RunState(run["state"])
    events = []
    for one in run["events"][-MOST_EVENTS:]:
        stored = await call.operations.store.event(one)
        if stored is not None:
            events.append(event_view(stored))
    by_hand = run["code"] == HELD_BY_HAND
    usual = None
    if state is RunState.RUNNING:
        usual = (await call.operations.counting.statistics(job=run["job"], over=USUAL_OVER)).duration_p50_s
    return View(
        template="run.html",
        title=f"{run['job']} {run['id'][-8:]}",
        values={
            "run": run,
            "events": events,
            "more_events": max(len(run["events"]) - MOST_EVENTS, 0),
            "is_over": state in ENDED,
            "is_waiting": state in WAITING,
            "is_running": state is RunState.RUNNING,
            "usual_s": usual,
            "story": _story(run),
            "can_hold": state in WAITING and not by_hand,
            "can_release": state is RunState.HELD and by_hand,
        },
    )


def _story(run: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the trace, with the time that passed before each step."""
    told, before = [], None
    for step in run["trace"]:
        told.append({**step, "after": before})
        before = step["at"]
    return told
