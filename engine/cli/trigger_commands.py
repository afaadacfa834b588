"""The commands about triggers: the list of them, and when one is due next."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from engine.cli import completing, pausing
from engine.cli.joins import say_joins
from engine.cli.maintaining import sentences as sentences_of_windows
from engine.cli.options import asks
from engine.cli.output import local, say, say_json, say_table
from engine.cli.session import Session


class State(StrEnum):
    """The states of triggers, as the API shows them."""

    ACTIVE = "active"
    PAUSED = "paused"
    DISABLED = "disabled"
    COMPLETED = "completed"
    QUARANTINED = "quarantined"
    INVALID = "invalid"


@asks("triggers", "triggers --tag import --disabled", "triggers --state quarantined --json")
def triggers(
    session: Session,
    tag: Annotated[str | None, typer.Option(help="With this tag.")] = None,
    enabled: Annotated[
        bool | None, typer.Option("--enabled/--disabled", help="Enabled, or disabled; else both.")
    ] = None,
    state: Annotated[
        State | None, typer.Option(help="In this state: active, paused, disabled, completed, quarantined or invalid.")
    ] = None,
) -> None:
    """List the triggers."""
    from engine.cli.why import guards_of, trouble_of

    found = session.client().whole("triggers")
    found["items"] = [
        one
        for one in found["items"]
        if (tag is None or tag in one["tags"])
        and (enabled is None or one["enabled"] is enabled)
        and (state is None or one["state"] == state)
    ]
    if session.json:
        say_json(found)
        return
    columns = ("name", "job", "state", "next", "total", "succeeded", "failed")
    optional = ("succeeded", "total", "job", "failed")
    say_table(
        columns,
        [
            [one["name"], one["job"], one["state"], local(_next_of(one)), *_counts(one["stats"])]
            for one in found["items"]
        ],
        optional=optional,
    )
    for one in found["items"]:
        if (trouble := trouble_of(one)) is not None:
            say(f"{one['name']}: {trouble}")
    for line in dict.fromkeys(line for one in found["items"] for line in guards_of(one)):
        say(f"{line[:1].upper()}{line[1:]}")
    for one in found["items"]:
        say_joins(one)
    for line in dict.fromkeys(line for one in found["items"] for line in pausing.sentences(one.get("pauses", ()))):
        say(f"{line[:1].upper()}{line[1:]}")
    for line in dict.fromkeys(line for one in found["items"] for line in sentences_of_windows(one["maintenance"])):
        say(f"{line[:1].upper()}{line[1:]}")


def _next_of(trigger: dict[str, Any]) -> str | None:
    """Return when a trigger runs next by the clock; None where it is paused then."""
    at, ends = (
        trigger.get("next_fires_at") or trigger.get("next_at"),
        [one["until"] for one in trigger.get("pauses", ())],
    )
    paused = at is None or any(end is None or datetime.fromisoformat(end) > datetime.fromisoformat(at) for end in ends)
    return None if paused else at


def _counts(stats: dict[str, Any]) -> list[Any]:
    return [stats["total"], stats["succeeded"], stats["failed"]]


@asks("next nightly", "next nightly -n 3 --after 2026-12-24T00:00:00Z")
def show_next(
    session: Session,
    name: Annotated[str, typer.Argument(help="The trigger.", autocompletion=completing.triggers)],
    count: Annotated[int, typer.Option("-n", "--count", min=1, max=1000, help="How many due instants.")] = 10,
    after: Annotated[str | None, typer.Option(metavar="TIME", help="Later than that, in RFC 3339; else now.")] = None,
) -> None:
    """Say when a trigger on a timer is due next; by the engine where it runs, else by the configuration."""
    from engine.cli.upcoming import look_ahead, say_upcoming

    found = look_ahead(session, name, count=count, after=after)
    if session.json:
        say_json(found.next)
    else:
        say_upcoming(found)
