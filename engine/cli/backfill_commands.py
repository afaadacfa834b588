"""The commands `backfill` and `backfills`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from engine.cli import completing
from engine.cli.failures import FAILED, INTERRUPTED, USAGE, CommandFailed
from engine.cli.options import asks
from engine.cli.output import say, say_json
from engine.cli.session import Session


@asks(
    "backfill nightly --from 2026-11-01 --to 2026-11-08 --dry-run",
    "backfill nightly --from 2026-11-01 --to 2026-11-08 --only-missing --reason 'the week without a disk'",
)
def backfill(
    session: Session,
    name: Annotated[str, typer.Argument(help="The trigger; it is on a timer.", autocompletion=completing.triggers)],
    start: Annotated[str, typer.Option("--from", metavar="TIME", help="The first instant that may be run.")],
    end: Annotated[
        str,
        typer.Option("--to", metavar="TIME", help="Up to this instant, itself not: a date is up to the day before."),
    ],
    zone: Annotated[str | None, typer.Option(help="Of times without an offset; by default the timer's.")] = None,
    max_parallel: Annotated[int, typer.Option(min=1, help="Runs of it that may be open at once.")] = 1,
    order: Annotated[str, typer.Option(help="What is run first: oldest or newest.")] = "oldest",
    only_missing: Annotated[
        bool, typer.Option("--only-missing", help="Leave out what has run with success, by the timer or a backfill.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be run, and run nothing.")] = False,
    reason: Annotated[str | None, typer.Option(help="Why; it is recorded with each run.")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for its end.")] = False,
) -> None:
    """Run a timer's due instants of a span that has passed, and follow that to its end.

    Times are RFC 3339, or a date or time of the zone's clock. It goes on in the engine whatever becomes of this
    command; what is due today goes first.
    """
    from engine.cli.backfilling import failed_of, follow_shown, said_of, say_plan

    client = session.client()
    given: dict[str, Any] = {
        "trigger": name, "from": start, "to": end, "timezone": zone, "max_parallel": max_parallel, "order": order,
        "only_missing": only_missing, "dry_run": dry_run, "reason": reason,
    }  # fmt: skip
    begun = client.post("backfills", body={key: value for key, value in given.items() if value is not None})
    if dry_run:
        say_json(begun) if session.json else say_plan(begun)
        return
    if detach:
        say_json(begun) if session.json else say(f"{said_of(begun)}; backfills {begun['id']} tells how it goes on")
        return
    try:
        ended = follow_shown(client, begun, quiet=session.json)
    except KeyboardInterrupt:
        say(f"Backfill {begun['id']} goes on; backfills {begun['id']} tells how, with --cancel to end it", error=True)
        raise typer.Exit(INTERRUPTED) from None
    say_json(ended) if session.json else say(said_of(ended))
    if ended["state"] == "cancelled" or failed_of(ended):
        raise typer.Exit(FAILED)


@asks("backfills", "backfills 0197a3f4-5b6c-7d8e-9f01-23456789abcd --pause --reason 'the day begins'")
def backfills(
    session: Session,
    backfill_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="One of them; else all are listed.")] = None,
    pause: Annotated[bool, typer.Option("--pause", help="Have it make no more runs for now.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Let it go on.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="End what waits of it; what runs may end.")] = False,
    reason: Annotated[str | None, typer.Option(help="Why it is paused or cancelled.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most are listed.")] = 20,
) -> None:
    """List backfills, the newest first; show one, or pause, resume or cancel it."""
    from engine.cli.backfilling import say_list, say_one

    asked = [name for name, given in (("pause", pause), ("resume", resume), ("cancel", cancel)) if given]
    if len(asked) > 1 or (asked and backfill_id is None):
        raise CommandFailed("name one backfill, and one of --pause, --resume and --cancel", USAGE)
    if reason is not None and asked not in (["pause"], ["cancel"]):
        raise CommandFailed("--reason goes with --pause or --cancel", USAGE)
    client = session.client()
    if backfill_id is None:
        found = client.get("backfills", limit=limit)
        say_json(found) if session.json else say_list(found["items"])
    elif asked:
        body = {} if reason is None else {"reason": reason}
        say_one(client.post("backfills", backfill_id, asked[0], body=body), as_json=session.json)
    else:
        say_one(client.get("backfills", backfill_id), as_json=session.json)
