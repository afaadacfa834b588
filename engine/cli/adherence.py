"""The command `adherence`: how well timers were kept."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from engine.cli.failures import USAGE, CommandFailed
from engine.cli.options import asks
from engine.cli.output import local, say, say_json, say_table
from engine.cli.session import Session
from engine.units import format_span


@asks("adherence --over 24h", "adherence nightly --from 2026-11-01T00:00:00Z --csv > kept.csv")
def adherence(
    session: Session,
    trigger: Annotated[str | None, typer.Argument(metavar="[TRIGGER]", help="One of them; else all on timers.")] = None,
    over: Annotated[str | None, typer.Option(help="The time up to now, such as 24h. Default: 7d.")] = None,
    start: Annotated[str | None, typer.Option("--from", metavar="TIME", help="Since then (RFC 3339).")] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Until then; else until now.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print a table for spreadsheets.")] = False,
) -> None:
    """Show how well timers were kept: what was due, what ran and how late, and why the rest did not."""
    if as_csv and session.json:
        raise CommandFailed("give --csv or --json", USAGE)
    path = ("adherence",) if trigger is None else ("triggers", trigger, "adherence")
    asked = {"over": over, "from": start, "to": end}
    if as_csv:
        for chunk in session.client().stream(*path, **asked, format="csv"):
            sys.stdout.write(chunk.decode())
        return
    client = session.client()
    if trigger is not None:
        found = client.get(*path, **asked)
        say_json(found) if session.json else _say_one(found)
        return
    items: list[Mapping[str, Any]] = []
    cursor: str | None = None
    while True:
        page = client.get(*path, **asked, limit=200, cursor=cursor)
        items += page["items"]
        cursor = page["next"]
        if cursor is None:
            break
    if session.json:
        say_json({"items": items, "next": None})
    elif not items:
        say("No trigger is on a timer")
    else:
        say_table(
            ("trigger", "due", "ran", "kept", "succeeded", "missed", "late 50%", "late 95%", "late most", "mostly"),
            [
                [
                    one["trigger"], one["due"], one["ran"], _rate(one["kept_rate"]), _rate(one["success_rate"]),
                    one["missed"], _span(one["late_p50_s"]), _span(one["late_p95_s"]), _span(one["late_max_s"]),
                    next(iter(one["not_run"]), ""),
                ]
                for one in items
            ],
            optional=("late 50%", "late most", "missed"),
        )  # fmt: skip


def _say_one(found: Mapping[str, Any]) -> None:
    due = f"{found['due']} due {'instant' if found['due'] == 1 else 'instants'}"
    say(f"Trigger {found['trigger']}, from {local(found['from'])} to {local(found['to'])}: {due}")
    if found["due"]:
        say(f"  ran        {found['ran']} ({_rate(found['kept_rate'])})")
    if found["success_rate"] is not None:
        say(f"  succeeded  {found['succeeded']} ({_rate(found['success_rate'])} of those that ran)")
    for code, count in found["not_run"].items():
        say(f"  not run    {count}: {code}")
    if found["late_max_s"] is not None:
        half, most, nearly, longest = (_span(found[f"late_{key}_s"]) for key in ("p50", "p95", "p99", "max"))
        say(f"  half began at most {half} late, 95% {most}, 99% {nearly}, all {longest}")


def _rate(part: float | None) -> str:
    return "" if part is None else f"{part:.1%}"


def _span(seconds: float | None) -> str:
    return "" if seconds is None else format_span(seconds)
