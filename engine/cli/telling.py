"""The commands about what comes of runs: who was told of their ends, and statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from engine.cli import completing
from engine.cli.failures import USAGE, CommandFailed
from engine.cli.options import asks
from engine.cli.output import local, say, say_json, say_table
from engine.cli.session import Session
from engine.units import format_span


@asks("deliveries --state failed", "deliveries --target notify:ops -n 50")
def deliveries(
    session: Session,
    delivery: Annotated[str | None, typer.Argument(metavar="[ID]", help="One of them, with what it tells.")] = None,
    state: Annotated[str | None, typer.Option(help="Those that are waiting, delivered or failed.")] = None,
    target: Annotated[str | None, typer.Option(help="Those to callback:JOB or notify:NAME.")] = None,
    run: Annotated[str | None, typer.Option(help="Those about this run.")] = None,
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, max=1000, help="At most so many.")] = 20,
) -> None:
    """List who was told of the ends of runs, and how that went; the newest first."""
    if delivery is not None:
        if state is not None or target is not None or run is not None:
            raise CommandFailed("--state, --target and --run are for the list", USAGE)
        found = session.client().get("deliveries", delivery)
        say_json(found) if session.json else _say_one(found)
        return
    found = session.client().get("deliveries", state=state, target=target, run=run, limit=limit)
    if session.json:
        say_json(found)
    elif not found["items"]:
        say("There are none")
    else:
        say_table(
            ("delivery", "to", "tells", "state", "tries", "created", "reason"),
            [
                [one["id"], one["target"], one["event"], one["state"], one["attempts"], local(one["created_at"]),
                 one["reason"]]
                for one in found["items"]
            ],
            optional=("created", "tries", "tells"),
        )  # fmt: skip


def _say_one(one: Mapping[str, Any]) -> None:
    what = f"run {one['run']}" if one["alert"] is None else f"alert {one['alert']}"
    say(f"Delivery {one['id']} to {one['target']}, of {what}: {one['reason']}")
    if one["due_at"] is not None:
        say(f"  next try: {local(one['due_at'])}")
    say(f"  tries: {one['attempts']}, created {local(one['created_at'])}")
    say(f"  {one['message']['title']}")
    for line in str(one["message"]["text"]).split("\n"):
        say(f"    {line}".rstrip())


def sentences(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each delivery of a run."""
    return [f"{one['target']} about {one['event']}: {one['reason']}" for one in found]


@asks("stats nightly --over 7d", "stats import-csv --job")
def stats(
    session: Session,
    name: Annotated[
        str, typer.Argument(help="The trigger; with --job the job.", autocompletion=completing.triggers_or_jobs)
    ],
    job: Annotated[bool, typer.Option("--job", help="It is the name of a job.")] = False,
    over: Annotated[str | None, typer.Option(help="The time up to now, such as 7d. Default: 1d.")] = None,
) -> None:
    """Show how the runs of a trigger or job ended, and how long they took."""
    found = session.client().get("jobs" if job else "triggers", name, "stats", over=over)
    if session.json:
        say_json(found)
        return
    what = "Job" if job else "Trigger"
    say(f"{what} {name}, from {local(found['from'])} on: {found['total']} {'run' if found['total'] == 1 else 'runs'}")
    for state, count in found["by_state"].items():
        say(f"  {state:10} {count}")
    if found["success_rate"] is not None:
        say(f"  {found['success_rate']:.1%} of those that were judged succeeded")
    if found["duration_mean_s"] is not None:
        mean, half, most = (format_span(found[f"duration_{key}_s"]) for key in ("mean", "p50", "p95"))
        say(f"  they took {mean} on average; half of them at most {half}, 95% at most {most}")
