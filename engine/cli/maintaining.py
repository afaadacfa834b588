"""The commands `maintenance …`: which windows there are, making and removing them, and letting runs go all the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

import typer

from engine.cli import completing
from engine.cli.failures import USAGE, CommandFailed
from engine.cli.options import asks
from engine.cli.output import local, say, say_json, say_table
from engine.cli.pausing import claim
from engine.cli.session import Session
from engine.cli.tree import Tree

maintenance_commands = Tree(
    help="Tell of maintenance windows, in which runs wait; make and remove them.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(help="The window.", autocompletion=completing.windows)]


@maintenance_commands.command("list")
@asks("maintenance list")
def list_windows(
    session: Session,
) -> None:
    """List the windows: those that are open first, then those that open next."""
    found = session.client().get("maintenance")
    if session.json:
        say_json(found)
    elif not found["items"]:
        say("There is no maintenance window")
    else:
        rows = [[one["name"], one["state"], _change(one), one["when"], scope_of(one)] for one in found["items"]]
        say_table(("name", "state", "next", "opens", "for"), rows, optional=("opens", "for"))


@maintenance_commands.command("show")
@asks("maintenance show weekly")
def show_window(
    session: Session,
    name: Name,
) -> None:
    """Show one window."""
    _say(session, session.client().get("maintenance", name))


@maintenance_commands.command("add")
@asks(
    "maintenance add move --for 2h --description 'the warehouse moves' --tag import",
    "maintenance add weekly --day sunday --opens 02:00 --closes 04:00 --zone Europe/Berlin",
)
def add_window(
    session: Session,
    name: Name,
    start: Annotated[str | None, typer.Option("--from", metavar="TIME", help="When it opens; by default now.")] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="TIME", help="When it closes.")] = None,
    duration: Annotated[str | None, typer.Option("--for", metavar="DURATION", help="How long it is open.")] = None,
    cron: Annotated[str | None, typer.Option(help="A cron line by which it opens, again and again.")] = None,
    day: Annotated[list[str] | None, typer.Option(help="A day of the week on which it opens. Repeatable.")] = None,
    opens: Annotated[str | None, typer.Option(metavar="HH:MM", help="When it opens on these days.")] = None,
    closes: Annotated[str | None, typer.Option(metavar="HH:MM", help="When it closes, maybe on the next day.")] = None,
    zone: Annotated[str | None, typer.Option(help="Of all these times; by default the engine's.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Only runs with this tag wait. Repeatable.")] = None,
    trigger: Annotated[
        list[str] | None,
        typer.Option(help="Only runs of this trigger wait. Repeatable.", autocompletion=completing.triggers),
    ] = None,
    job: Annotated[
        list[str] | None, typer.Option(help="Only runs of this job wait. Repeatable.", autocompletion=completing.jobs)
    ] = None,
    after: Annotated[str | None, typer.Option(help="What waited: run, latest or drop.")] = None,
    running: Annotated[str | None, typer.Option(help="What runs when it opens: finish or cancel.")] = None,
    description: Annotated[str | None, typer.Option(help="What is done then.")] = None,
) -> None:
    """Make a window, or another one of that name; it stays when the engine is started again."""
    scope = {"tags": tag, "triggers": trigger, "jobs": job}
    given = {
        "name": name, "from": start, "to": end, "duration": duration, "cron": cron, "days": day, "start": opens,
        "end": closes, "timezone": zone, "scope": {key: value for key, value in scope.items() if value} or None,
        "after": after, "running": running, "description": description,
    }  # fmt: skip
    body = {key: value for key, value in given.items() if value}
    _say(session, session.client().post("maintenance", body=body, headers=claim()))


@maintenance_commands.command("remove")
@asks("maintenance remove move")
def remove_window(
    session: Session,
    name: Name,
) -> None:
    """Remove a window that the API made: what waits for it runs."""
    found = session.client().delete("maintenance", name, headers=claim())
    say_json(found) if session.json else say(f"Window {name} is removed")


@maintenance_commands.command("override")
@asks("maintenance override weekly --reason 'the fix has to go out' --for 30m")
def override_window(
    session: Session,
    name: Name,
    reason: Annotated[str | None, typer.Option(help="Why; it has to be said, and is shown.")] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="In RFC 3339; else until this opening, or the next, is over.")
    ] = None,
    duration: Annotated[str | None, typer.Option("--for", metavar="DURATION", help="How long, such as 30m.")] = None,
) -> None:
    """Have a window count as closed: what waits for it runs."""
    if not reason:
        raise CommandFailed("say why: --reason", USAGE)
    given = {"reason": reason, "until": until, "duration": duration}
    body = {key: value for key, value in given.items() if value is not None}
    _say(session, session.client().post("maintenance", name, "override", body=body, headers=claim()))


@maintenance_commands.command("restore")
@asks("maintenance restore weekly")
def restore_window(
    session: Session,
    name: Name,
) -> None:
    """End the override of a window."""
    _say(session, session.client().delete("maintenance", name, "override", headers=claim()))


def sentences(holding: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Say of windows, as the API shows them beside what they hold, until when they are open and what follows."""
    follows = {"run": "then all is run", "latest": "then the latest run is run", "drop": "nothing waits for its end"}
    for one in holding:
        description = f" ({one['description']})" if one["description"] else ""
        yield f"maintenance {one['name']} until {local(one['until'])}{description}: {follows[one['after']]}"


def scope_of(one: Mapping[str, Any]) -> str:
    """Say whose runs wait."""
    words = (("tag", "tags"), ("trigger", "triggers"), ("job", "jobs"))
    return ", ".join(f"{word} {name}" for word, key in words for name in one["scope"][key]) or "everything"


def _change(one: Mapping[str, Any]) -> str:
    if one["state"] == "overridden":
        return f"overridden until {local(one['override']['until'])}"
    if one["closes_at"]:
        return f"closes {local(one['closes_at'])}"
    return f"opens {local(one['opens_at'])}" if one["opens_at"] else one["problem"] or "-"


def _say(session: Session, one: Mapping[str, Any]) -> None:
    if session.json:
        say_json(one)
        return
    say(f"Window {one['name']} is {one['state']}; {_change(one)}")
    say(f"  It opens {one['when']}, for {scope_of(one)}{_named(one)}")
    if one["after"]:
        say(f"  After it: {one['after']}; what runs when it opens: {one['running']}")
    if (override := one["override"]) is not None:
        by = f" (by {override['who']})" if override.get("who") else ""
        say(f"  Overridden until {local(override['until'])}: {override['reason']}{by}")
    if one["description"]:
        say(f"  {one['description']}")


def _named(one: Mapping[str, Any]) -> str:
    count = len(one["triggers"])
    return f": {'1 trigger' if count == 1 else f'{count} triggers'} now"
