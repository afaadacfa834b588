"""The commands `alert …`: which are open, muting and acknowledging them, and trying whether people are reached."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from engine.cli import completing
from engine.cli.failures import FAILED
from engine.cli.options import asks
from engine.cli.output import local, say, say_json, say_table
from engine.cli.pausing import claim
from engine.cli.session import Session
from engine.cli.tree import Tree

alert_commands = Tree(help="Tell which alerts are open; mute, acknowledge and try them.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The alert.", autocompletion=completing.alerts)]

TRIED_WITHIN_S = 20.0
LOOK_S = 0.3


@alert_commands.command("list")
@asks("alert list", "alert list --open")
def list_alerts(
    session: Session,
    only_open: Annotated[bool, typer.Option("--open", help="Those that are open alone.")] = False,
) -> None:
    """List the alerts: those that are open first."""
    found = session.client().get("alerts")
    items = [one for one in found["items"] if one["open"] or not only_open]
    if session.json:
        say_json({**found, "items": items})
    elif not items:
        say("No alert is open" if only_open else "There are no alerts")
    else:
        say_table(
            ("name", "state", "severity", "told", "when"),
            [
                [one["name"], _state(one), one["severity"], ", ".join(one["notify"]) or "nobody", one["when"]]
                for one in items
            ],
            optional=("told", "severity"),
        )


@alert_commands.command("show")
@asks("alert show failing")
def show_alert(
    session: Session,
    name: Name,
) -> None:
    """Show one alert: for whom it is open, and who was told."""
    one = session.client().get("alerts", name)
    say_json(one) if session.json else _say_one(one)


@alert_commands.command("mute")
@asks("alert mute failing --for 2h --reason 'the warehouse moves'")
def mute_alert(
    session: Session,
    name: Name,
    duration: Annotated[str, typer.Option("--for", metavar="DURATION", help="How long, such as 2h.")],
    reason: Annotated[str, typer.Option(help="Why; it is shown.")],
) -> None:
    """Have nobody told of an alert for a time; what is open at its end is told then."""
    body = {"duration": duration, "reason": reason}
    _say(session, session.client().post("alerts", name, "mute", body=body, headers=claim()))


@alert_commands.command("unmute")
@asks("alert unmute failing")
def unmute_alert(
    session: Session,
    name: Name,
) -> None:
    """End a mute."""
    _say(session, session.client().post("alerts", name, "unmute", body={}, headers=claim()))


@alert_commands.command("acknowledge")
@asks("alert acknowledge failing --reason 'the disk is ordered'")
def acknowledge_alert(
    session: Session,
    name: Name,
    reason: Annotated[str | None, typer.Option(help="What is done about it; it is shown.")] = None,
) -> None:
    """Take on what is open: it is not told again until all of it is over."""
    body = {} if reason is None else {"reason": reason}
    _say(session, session.client().post("alerts", name, "acknowledge", body=body, headers=claim()))


@alert_commands.command("test")
@asks("alert test failing")
def try_alert(
    session: Session,
    name: Name,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait, a while, for what becomes of it.")] = True,
) -> None:
    """Tell all who are told of an alert that this is a test, and say whether it reached them."""
    client = session.client()
    ids = client.post("alerts", name, "test", body={}, headers=claim())["deliveries"]
    tried = [client.get("deliveries", one) for one in ids]
    until_s = time.monotonic() + TRIED_WITHIN_S
    while wait and any(not one["attempts"] for one in tried) and time.monotonic() < until_s:
        time.sleep(LOOK_S)
        tried = [client.get("deliveries", one) for one in ids]
    if session.json:
        say_json({"alert": name, "deliveries": tried})
    else:
        for one in tried:
            say(f"{one['target']}: {one['reason']}")
    if wait and any(one["state"] != "delivered" for one in tried):
        raise typer.Exit(FAILED)


def _state(one: Mapping[str, Any]) -> str:
    said = f"{one['state']} ({one['open']})" if one["open"] else str(one["state"])
    return f"{said}, muted" if one["muted"] else f"{said}, acknowledged" if one["acknowledged"] else said


def _say(session: Session, one: Mapping[str, Any]) -> None:
    say_json(one) if session.json else say(f"Alert {one['name']}: {_state(one)}{_until(one)}")


def _until(one: Mapping[str, Any]) -> str:
    return f" until {local(one['muted']['until'])}: {one['muted']['reason']}" if one["muted"] else ""


def _say_one(one: Mapping[str, Any]) -> None:
    say(f"Alert {one['name']} ({one['severity']}) is {_state(one)}{_until(one)}")
    say(f"  opens when: {one['when']}")
    say(f"  told: {', '.join(one['notify']) or 'nobody; it stands in the log, and here'}")
    if one["acknowledged"]:
        by = f", by {one['acknowledged']['who']}" if one["acknowledged"]["who"] else ""
        say(f"  acknowledged: {local(one['acknowledged']['at'])}{by}: {one['acknowledged']['reason']}")
    if one["problem"]:
        say(f"  it can't be looked for: {one['problem']}")
    for subject in one["subjects"]:
        say(f"  {subject['subject']}: {subject['text']} ({subject['state']} since {local(subject['since'])})")
    for delivery in one["deliveries"]:
        say(f"  {local(delivery['created_at'])}  {delivery['target']} [{delivery['event']}]: {delivery['reason']}")
