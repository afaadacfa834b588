"""The command `sources`: how those are that triggers are on."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from engine.cli import completing
from engine.cli.options import asks
from engine.cli.output import local, say, say_json, say_table
from engine.cli.session import Session


@asks("sources", "sources orders")
def sources(
    session: Session,
    name: Annotated[
        str | None,
        typer.Argument(
            help="One source alone, by its id or name, or a trigger on it.", autocompletion=completing.sources
        ),
    ] = None,
) -> None:
    """List the sources that triggers are on, and how each is."""
    from engine.cli.asking import find_source

    if name is not None:
        one = find_source(session.client(), name)
        if session.json:
            say_json(one)
            return
        for field, value in one.items():
            value = local(value) if field.endswith("_at") or field == "since" else value
            if isinstance(value, dict):
                value = ", ".join(f"{name} {part}" for name, part in value.items())
            if value is not None:
                say(f"{field:16} {' '.join(value) if isinstance(value, list) else value}")
        return
    from engine.cli.why import guards_of

    found = session.client().whole("sources")
    if session.json:
        say_json(found)
        return
    columns = (
        "source", "state", "triggers", "events", "duplicates", "rejected", "restarts", "last event", "problem",
    )  # fmt: skip
    say_table(
        columns,
        [
            [
                one["title"], one["state"], ", ".join(one["triggers"]) or None, one["events"], one["duplicates"],
                one["rejected"] + _refused(one), one["restarts"], local(one["last_event_at"]),
                one["problem"] or next(guards_of(one), None) or one["warning"],
            ]
            for one in found["items"]
        ],
        optional=("restarts", "duplicates", "rejected", "last event", "events"),
    )  # fmt: skip


def _refused(source: dict[str, Any]) -> int:
    """Count what a source refused: an event that the door refused came in a request that was refused too."""
    requests = source.get("refused_requests")
    return max(int(source["refused"]), int(requests["count"]) if requests else 0)
