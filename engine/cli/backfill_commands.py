"""The commands `backfill` and `backfills`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from engine.cli.failures import FAILED, USAGE, CommandFailed
from engine.cli.output import say, say_json
from engine.cli.session import AsJson, ConfigFiles, Session, Token, Url

INTERRUPTED = 130


def backfill(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="The trigger; it is on a timer.")],
    start: Annotated[str, typer.Option("--from", metavar="TIME", help="The first instant that may be run.")],
    end: Annotated[str, typer.Option("--to", metavar="TIME", help="The instant before which the last one lies.")],
    zone: Annotated[str | None, typer.Option(help="Of times without an offset; by default the timer's.")] = None,
    max_parallel: Annotated[int, typer.Option(min=1, help="Runs of it that may be open at once.")] = 1,
    order: Annotated[str, typer.Option(help="What is run first: oldest or newest.")] = "oldest",
    only_missing: Annotated[
        bool, typer.Option("--only-missing", help="Leave out what has run with success, by the timer or a backfill.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be run, and run nothing.")] = False,
    reason: Annotated[str | None, typer.Option(help="Why; it is recorded with each run.")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for its end.")] = False,
    config: ConfigFiles = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Run a timer's due instants of a span that has passed, and follow that to its end.

    Times are RFC 3339, or a date or time of the zone's clock. It goes on in the engine whatever becomes of this
    command; what is due today goes first.
    """
    from engine.cli.backfilling import failed_of, follow_shown, said_of, say_plan

    session = Session.of(ctx, config, as_json, url, token)
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


def backfills(
    ctx: typer.Context,
    backfill_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="One of them; else all are listed.")] = None,
    pause: Annotated[bool, typer.Option("--pause", help="Have it make no more runs for now.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Let it go on.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="End what waits of it; what runs may end.")] = False,
    reason: Annotated[str | None, typer.Option(help="Why it is paused or cancelled.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most are listed.")] = 20,
    config: ConfigFiles = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """List backfills, the newest first; show one, or pause, resume or cancel it."""
    from engine.cli.backfilling import say_list, say_one

    session = Session.of(ctx, config, as_json, url, token)
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
