"""The configuration of a running engine, from the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from engine.cli.output import local, say, say_json
from engine.cli.pausing import claim
from engine.cli.session import AsJson, ConfigFiles, Session, Token, Url


def reload(
    ctx: typer.Context,
    status: Annotated[bool, typer.Option("--status", help="Only say how the last one went.")] = False,
    config: ConfigFiles = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Have the engine read its configuration files anew. What is wrong changes nothing, and is told."""
    session = Session.of(ctx, config, as_json, url, token)
    client = session.client()
    if status:
        found = client.get("config")
        say_json(found) if session.json else _say_status(found)
        return
    found = client.post("config", "reload", body={}, headers=claim())
    if session.json:
        say_json(found)
        return
    for line in lines_of(found["change"]) or ["Nothing differs"]:
        say(line)


def lines_of(change: Mapping[str, Any]) -> list[str]:
    """Say what a change of the configuration came to."""
    lines = [
        f"{kind} {word}: {', '.join(names)}"
        for kind in ("jobs", "triggers", "conditions", "maintenance")
        for word, names in change[kind].items()
        if names
    ]
    if change["sources"]:
        lines.append(f"sources started anew: {', '.join(change['sources'])}")
    if change["restart_needed"]:
        lines.append(f"only a restart changes: {', '.join(change['restart_needed'])}")
    return [*lines, *change["left"]]


def _say_status(found: Mapping[str, Any]) -> None:
    say(f"{', '.join(found['files']) or 'no files'}: read {local(found['loaded_at'])}")
    reload = found["reload"]
    if reload is not None and not reload["ok"]:
        say(f"What was found {local(reload['at'])} ({reload['who']}) is wrong, and not taken up:")
        for error in reload["errors"]:
            say(f"  {error['detail']}")
    if found["restart_needed"]:
        say(f"only a restart changes: {', '.join(found['restart_needed'])}")
