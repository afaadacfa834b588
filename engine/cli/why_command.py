"""The command `why`."""

from __future__ import annotations

from typing import Annotated

import typer

from engine.cli import completing
from engine.cli.failures import USAGE, CommandFailed, NoEngine
from engine.cli.options import asks
from engine.cli.output import say, say_json
from engine.cli.session import Session
from engine.ids import is_id, is_tail


@asks("why nightly", "why nightly --from 2026-11-20 --to 2026-11-22", "why 0197a3f4-5b6c-7d8e-9f01-23456789abcd")
def why(
    session: Session,
    what: Annotated[str, typer.Argument(metavar="EVENT|RUN|TRIGGER", autocompletion=completing.triggers)],
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="Of a trigger: since then; a time, a date, or 2h for as long ago."),
    ] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Of a trigger: until then; else now.")] = None,
    whole: Annotated[bool, typer.Option("--all", help="Of a trigger: each instant on a line of its own.")] = False,
) -> None:
    """Say why something ran, or did not. Of a trigger: how it is; and with --from or --to what should have run then,
    what did, and why the rest did not, also where no engine runs."""
    if start is None and end is None and not whole:
        from engine.cli.why import ask, sentences

        try:
            known = ask(session.client(), what)
        except NoEngine as error:
            if session.named or is_id(what) or is_tail(what):
                raise
            raise NoEngine(f"{error}; `why {what} --from 1h` tells without it what became of the last hour") from None
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
