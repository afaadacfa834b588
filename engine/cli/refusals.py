"""The command `refusals`: what a source refused of late, and what was wrong with each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from engine.cli import completing
from engine.cli.asking import find_source
from engine.cli.options import asks
from engine.cli.output import local, say, say_json
from engine.cli.session import Session


@asks("refusals github")
def refusals(
    session: Session,
    name: Annotated[
        str, typer.Argument(help="A source, by its name or that of a trigger on it.", autocompletion=completing.sources)
    ],
) -> None:
    """Show the last requests that a source refused, and what was wrong: the clock, the secret, the body, a header."""
    client = session.client()
    source = find_source(client, name)
    found = client.get("sources", *source["name"].split("/"), "refusals")
    if session.json:
        say_json(found)
        return
    if not found["items"]:
        say(f"Source {source['name']} refused no request since the engine started")
    for one in found["items"]:
        _say_one(one)


def _say_one(one: Mapping[str, Any]) -> None:
    times = "" if one["count"] == 1 else f", the last of {one['count']:,}"
    say(f"{local(one['at'])}  {one['status']} to {one['remote']}{times} (request {one['request_id']})")
    say(f"  {one['reason']}")
    if one["explanation"] is not None:
        say(f"  {one['cause'].replace('_', ' ')}: {one['explanation']}")
