"""The command `why`."""

from __future__ import annotations

from typing import Annotated

import typer

from engine.cli.failures import USAGE, CommandFailed
from engine.cli.output import say, say_json
from engine.cli.session import AsJson, ConfigFiles, Session, Token, Url
from engine.ids import is_id


def why(
    ctx: typer.Context,
    what: Annotated[str, typer.Argument(metavar="EVENT|RUN|TRIGGER")],
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="Of a trigger: since then; a time, a date, or 2h for as long ago."),
    ] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Of a trigger: until then; else now.")] = None,
    whole: Annotated[bool, typer.Option("--all", help="Of a trigger: each instant on a line of its own.")] = False,
    config: ConfigFiles = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Say why something ran, or did not. Of a trigger: how it is; and with --from or --to what should have run then,
    what did, and why the rest did not, also where no engine runs."""
    session = Session.of(ctx, config, as_json, url, token)
    if start is None and end is None and not whole:
        from engine.cli.why import ask, sentences

        known = ask(session.client(), what)
        say_all = sentences(known)
    else:
        from engine.cli import hindsight

        if is_id(what):
            raise CommandFailed("--from, --to and --all are for a trigger, by its name", USAGE)
        known = hindsight.look_back(session, what, start=start, end=end)
        say_all = hindsight.sentences(known, whole=whole)
    if session.json:
        say_json(known)
        return
    for line in say_all:
        say(line)
