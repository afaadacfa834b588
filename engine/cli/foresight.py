"""The commands about the future: what would happen, and what another configuration would change."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.cli import completing
from engine.cli.failures import USAGE, CommandFailed
from engine.cli.options import asks
from engine.cli.output import say_json
from engine.cli.session import Session
from engine.errors import ConfigError


@asks("simulate --to 7d", "simulate --from 2026-12-24 --to 2026-12-27 --quiet 2h")
def simulate(
    session: Session,
    start: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="From when on: a date, or a time; else from now on.")
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="Until when, or how long, such as 7d; else one day.")
    ] = None,
    trigger: Annotated[
        list[str] | None,
        typer.Option(help="Tell of this trigger alone. Repeatable.", autocompletion=completing.triggers),
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Tell of triggers with this tag. Repeatable.")] = None,
    duration: Annotated[
        list[str] | None, typer.Option(metavar="JOB=DURATION", help="How long a job runs, such as import=12m.")
    ] = None,
    durations: Annotated[
        str, typer.Option(metavar="FILE|past|none", help="The same in a TOML file; or as past runs took, the default.")
    ] = "past",
    down: Annotated[
        list[str] | None, typer.Option(metavar="FROM/TO", help="The engine is stopped meanwhile. Repeatable.")
    ] = None,
    quiet: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Find the quietest windows that long, such as 2h.")
    ] = None,
    windows: Annotated[int, typer.Option(min=1, max=100, help="How many windows.")] = 3,
    examples: Annotated[int, typer.Option(min=0, max=1000, help="How many examples of each kind.")] = 5,
) -> None:
    """Say what would run, wait or be skipped, and when the engine is busy. Works by the configuration and what is
    stored; with --url, the engine there is asked."""
    from engine.cli.foreseeing import Asked, foresee, foresee_remotely
    from engine.cli.prospects import say_forecast

    asked = Asked(
        start=start, end=end, triggers=trigger or (), tags=tag or (), duration=duration or (), durations=durations,
        down=down or (), quiet=quiet, windows=windows, examples=examples,
    )  # fmt: skip
    view = foresee_remotely(session, asked) if session.elsewhere else foresee(session, asked)
    if view is not None:
        say_forecast(view)


@asks("plan new.toml", "plan new.toml --days 31 --count 20")
def plan(
    session: Session,
    files: Annotated[
        list[Path], typer.Argument(metavar="NEW.toml", help="The new configuration; later files over earlier ones.")
    ],
    days: Annotated[int, typer.Option(min=1, max=366, help="How far to look.")] = 7,
    count: Annotated[int, typer.Option(min=0, max=10_000, help="How many instants of each trigger are told.")] = 5,
) -> None:
    """Say what another configuration would change, and which due instants appear, vanish or move. Compares with the
    configuration that is there; with --url, with that of the engine there."""
    from engine.cli.foreseeing import plan_locally, plan_remotely
    from engine.cli.prospects import say_plan

    try:
        sent = [(str(file), file.read_bytes()) for file in files]
    except OSError as error:
        raise CommandFailed(f"{error.filename} can't be read: {error.strerror}", USAGE) from None
    look = plan_remotely if session.elsewhere else plan_locally
    try:
        view = look(session, sent, days=days, count=count)
    except ConfigError as error:
        if not session.json:
            raise
        fields = ("file", "line", "path", "message", "hint")
        errors = [{name: getattr(problem, name) for name in fields} for problem in error.problems]
        say_json({"ok": False, "errors": errors})
        raise typer.Exit(USAGE) from None
    if session.json:
        say_json({"ok": True, "errors": [], **view})
    else:
        say_plan(view)
