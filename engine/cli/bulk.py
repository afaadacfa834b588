"""The command `bulk`: one thing done with many triggers in one request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from engine.cli import completing
from engine.cli.failures import FAILED, USAGE, CommandFailed
from engine.cli.options import asks
from engine.cli.output import say, say_json
from engine.cli.pausing import claim, in_utc
from engine.cli.session import Session

DONE = {
    "pause": "paused", "resume": "resumed", "fire": "fired", "release": "released", "reset": "reset",
    "enable": "enabled", "disable": "disabled",
}  # fmt: skip


def _actions(incomplete: str) -> list[str]:
    return [action for action in DONE if action.startswith(incomplete)]


@asks(
    "bulk disable --tag import --reason 'the warehouse moves'",
    "bulk pause nightly hourly --for 2h --reason 'the upgrade' --atomic",
    """bulk fire --tag import --data '{"since": "2026-11-01"}'""",
)
def bulk(
    session: Session,
    action: Annotated[
        str, typer.Argument(metavar="ACTION", help=f"One of {', '.join(DONE)}.", autocompletion=_actions)
    ],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME...]", help="The triggers.", autocompletion=completing.triggers)
    ] = None,
    tag: Annotated[str | None, typer.Option("--tag", help="All with this tag, their own or their job's.")] = None,
    whole: Annotated[bool, typer.Option("--all", help="All triggers.")] = False,
    atomic: Annotated[
        bool, typer.Option("--atomic", help="With all of them or none; not for release and reset.")
    ] = False,
    reason: Annotated[str | None, typer.Option(help="Why; it is recorded.")] = None,
    duration: Annotated[str | None, typer.Option("--for", metavar="DURATION", help="For pause: how long.")] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="For pause: RFC 3339, or a local time.")] = None,
    data: Annotated[str | None, typer.Option(help="For fire: JSON, or @FILE, or @- for standard input.")] = None,
    priority: Annotated[str | None, typer.Option(help="For fire: 0 to 9, low, normal, high or critical.")] = None,
) -> None:
    """Do one thing with many triggers: what can't be done with one is said, and done with the others.

    To enable and to disable, which override the setting as `override` does, takes the role admin.
    """
    from engine.cli.sending import priority_of, read_data

    if action not in DONE:
        raise CommandFailed(f"there is no action {action}: it is one of {', '.join(DONE)}", USAGE)
    if bool(names) + (tag is not None) + whole != 1:
        raise CommandFailed(f"say what to {action}: the NAMES of triggers, --tag TAG, or --all", USAGE)
    given = {
        "action": action, "names": names or None, "tag": tag, "all": whole or None, "atomic": atomic or None,
        "reason": reason, "duration": duration, "until": None if until is None else in_utc(until),
        "data": None if data is None else read_data(data),
        "priority": None if priority is None else priority_of(priority),
    }  # fmt: skip
    body = {key: value for key, value in given.items() if value is not None}
    found = session.client().post("triggers", "bulk", body=body, headers=claim())
    if session.json:
        say_json(found)
    else:
        _say(found)
    if found["failed"]:
        raise typer.Exit(FAILED)


def _say(found: Mapping[str, Any]) -> None:
    """Say with how many it was done, what was fired, and with which it was not done, and why."""
    triggers = "trigger is" if found["count"] == 1 else "triggers are"
    say(f"{found['count']} {triggers} {DONE[found['action']]}")
    for item in found["items"]:
        if not item["ok"]:
            say(f"  {item['name']}: {item['detail']}", error=True)
        elif item.get("runs"):
            say(f"  {item['name']}: {', '.join(item['runs'])}")
