"""The command `log-level`: how much the engine's own log tells, part by part."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from engine.cli.failures import USAGE, CommandFailed
from engine.cli.options import asks
from engine.cli.output import local, say, say_json, say_table
from engine.cli.pausing import claim
from engine.cli.session import Session


@asks("log-level", "log-level engine.http=debug --for 10m")
def log_level(
    session: Session,
    assignments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PART=LEVEL]...", help="Such as engine.http=debug; PART= has what is configured hold again."
        ),
    ] = None,
    duration: Annotated[
        str | None, typer.Option("--for", metavar="DURATION", help="How long; else until the engine ends.")
    ] = None,
) -> None:
    """Show how much the engine's log tells, or change it while the engine runs."""
    client = session.client()
    if not assignments:
        if duration is not None:
            raise CommandFailed("--for goes with PART=LEVEL", USAGE)
        found = client.get("logs", "levels")
    else:
        body: dict[str, Any] = {"levels": dict(map(_assignment, assignments))}
        if duration is not None:
            body["for"] = duration
        found = client.patch("logs", "levels", body=body, headers=claim())
    if session.json:
        say_json(found)
        return
    rows = [
        [part, level, local(found["changed"][part]["until"]) or "the end" if part in found["changed"] else None]
        for part, level in found["levels"].items()
    ]
    say_table(("part", "level", "until"), rows)
    if not assignments:
        say(f"Parts: {', '.join(found['parts'])}")


def _assignment(text: str) -> tuple[str, str | None]:
    part, equals, level = text.partition("=")
    if not equals or not part:
        raise CommandFailed(f"give PART=LEVEL, not {text!r}", USAGE)
    return part, level or None
