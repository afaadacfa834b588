"""Backfills on the command line: asking for one, following it, and saying how it stands."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from engine.cli.client import Client
from engine.cli.output import local, on_terminal, say, say_json, say_table
from engine.cli.progress import bar
from engine.units import format_span

LOOK_S = 0.5
"""How often the engine is asked while a backfill is followed."""

LINES = 10
"""A followed backfill that is not on a terminal is told of in about so many lines."""

ENDED = frozenset({"completed", "cancelled"})


class Shows(Protocol):
    """Shows a backfill as it goes on."""

    def __call__(self, found: dict[str, Any], /) -> None: ...


def follow(
    client: Client, backfill: dict[str, Any], show: Shows, *, sleep: Callable[[float], None] = time.sleep
) -> dict[str, Any]:
    """Look at a backfill until it has ended, or is paused, and return it as it is then."""
    while True:
        found: dict[str, Any] = client.get("backfills", backfill["id"])
        show(found)
        if found["state"] in ENDED or found["state"] == "paused":
            return found
        sleep(LOOK_S)


def follow_shown(client: Client, backfill: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    """Follow a backfill with a bar on a terminal, in lines elsewhere, or without a word."""
    if quiet:
        return follow(client, backfill, lambda found: None)
    if not on_terminal():
        return follow(client, backfill, lines())
    with bar(backfill["trigger"], backfill["total"], counts=True) as shown:
        return follow(client, backfill, lambda found: shown.at(found["done"], _said_beside(found)))


def lines() -> Shows:
    """Return what tells of a backfill in a line each time that another tenth of it is done, or its state changes."""
    told: tuple[Any, ...] | None = None

    def show(found: dict[str, Any]) -> None:
        nonlocal told
        step = found["done"] * LINES // found["total"] if found["total"] else LINES
        now = (found["state"], step, found["holds"])
        if now != told:
            told = now
            say(f"{found['done']} of {found['total']} done; {_said_beside(found)}")

    return show


def _said_beside(found: dict[str, Any]) -> str:
    if found["holds"]:
        return f"waits: {found['holds']}"
    if found["state"] != "running":
        return str(found["state"])
    parts = [f"{state} {count}" for state, count in found["outcomes"].items() if state != "succeeded"]
    rate = found["rate_per_s"]
    if rate:
        parts.append(f"{rate * 60:,.0f} a minute" if rate * 60 >= 10 else f"{rate * 60:.2g} a minute")
        left_s = (found["total"] - found["done"]) / rate
        parts.append(f"{format_span(left_s)} left")
    return ", ".join(parts) or "running"


def said_of(found: dict[str, Any]) -> str:
    """Return how a backfill stands, in a sentence."""
    outcomes = [f"{state} {count}" for state, count in found["outcomes"].items()]
    if found["not_run"]:
        outcomes.append(f"not run {found['not_run']}")
    counts = f": {', '.join(outcomes)}" if outcomes else ""
    done = f"{found['done']} of {found['total']} done"
    return f"Backfill {found['id']} of {found['trigger']} is {found['state']}, {done}{counts}"


def say_plan(plan: dict[str, Any]) -> None:
    """Print what a backfill would run."""
    skipped = plan["skipped"]["total"]
    left_out = f"; left out, as they have run with success: {skipped}" if skipped else ""
    if not plan["total"]:
        say(f"Nothing to run for {plan['trigger']}{left_out}")
        return
    say(
        f"Would run {plan['total']} instants of {plan['trigger']}, from {local(plan['first'])} to "
        f"{local(plan['last'])}{left_out}"
    )
    for instant in plan["instants"]:
        say(f"  {instant['local']} ({plan['timezone']})  {instant['at']}")
    if (more := plan["total"] - len(plan["instants"])) > 0:
        say(f"  and {more} more")


def say_list(found: list[dict[str, Any]]) -> None:
    """Print backfills as a table."""
    say_table(
        ("backfill", "trigger", "state", "from", "to", "reason"),
        [
            [
                one["id"], one["trigger"], f"{one['state']} {one['done']}/{one['total']}", local(one["from"]),
                local(one["to"]), one["holds"] or one["reason"] or one["state_reason"],
            ]
            for one in found
        ],
        optional=("to", "from"),
    )  # fmt: skip


def say_one(found: dict[str, Any], *, as_json: bool) -> None:
    """Print one backfill whole."""
    if as_json:
        say_json(found)
        return
    say(said_of(found))
    for name, value in found.items():
        if name in ("id", "trigger", "state", "total", "done", "outcomes", "not_run"):
            continue
        if name in ("from", "to", "current") or name.endswith("_at"):
            value = local(value)
        if value not in (None, ""):
            say(f"  {name:16} {value}")


def failed_of(found: dict[str, Any]) -> int:
    """Return how many of its runs did not succeed."""
    return sum(count for state, count in found["outcomes"].items() if state != "succeeded")
