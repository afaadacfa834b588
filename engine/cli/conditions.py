"""The command `conditions`: how they are, who waits for them, and what overrides them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from engine.cli import completing
from engine.cli.failures import USAGE, CommandFailed
from engine.cli.options import asks
from engine.cli.output import local, say, say_json, say_table
from engine.cli.pausing import claim
from engine.cli.session import Session


@asks("conditions", "conditions load --set cpu_max=0.95 --reason 'one big import'")
def conditions(
    session: Session,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="One of them; else all are listed.", autocompletion=completing.conditions
        ),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a threshold, such as cpu_max=0.9; repeatable."),
    ] = None,
    enable: Annotated[bool, typer.Option("--enable", help="Have it count.")] = False,
    disable: Annotated[bool, typer.Option("--disable", help="Have it let everything pass.")] = False,
    shadow: Annotated[
        bool | None, typer.Option("--shadow/--no-shadow", help="Have it only say what it would do, or not.")
    ] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Let what is configured hold again.")] = False,
    reason: Annotated[str | None, typer.Option(help="Why it is overridden.")] = None,
) -> None:
    """List conditions, or show one with its latest changes and who waits for it; or override it until --reset.

    What is overridden holds at once, and after a restart.
    """
    change = _change(assignments or [], enable=enable, disable=disable, shadow=shadow, reset=reset, reason=reason)
    if name is None:
        if change:
            raise CommandFailed("name the condition that is to be overridden", USAGE)
        found = session.client().get("conditions")
        say_json(found) if session.json else _say_list(found["items"])
        return
    client = session.client()
    one = client.patch("conditions", name, body=change, headers=claim()) if change else client.get("conditions", name)
    say_json(one) if session.json else _say_one(one)


def _change(
    assignments: Sequence[str], *, enable: bool, disable: bool, shadow: bool | None, reset: bool, reason: str | None
) -> dict[str, Any]:
    """Return what to send; empty where nothing is to be changed."""
    made: dict[str, Any] = {}
    if assignments:
        made["thresholds"] = dict(map(_assignment, assignments))
    if enable and disable:
        raise CommandFailed("--enable and --disable exclude each other", USAGE)
    if enable or disable:
        made["enabled"] = enable
    if shadow is not None:
        made["shadow"] = shadow
    if reset and made:
        raise CommandFailed("--reset drops every override; it stands alone", USAGE)
    if reset:
        return {"reset": True}
    if made and reason is None:
        raise CommandFailed("say why with --reason: it is shown wherever the condition is", USAGE)
    if reason is not None and not made:
        raise CommandFailed("--reason goes with --set, --enable, --disable or --shadow", USAGE)
    return {**made, "reason": reason} if made else {}


def _assignment(text: str) -> tuple[str, Any]:
    key, equals, written = text.partition("=")
    if not equals or not key:
        raise CommandFailed(f"--set takes KEY=VALUE, not {text!r}", USAGE)
    try:
        value = json.loads(written)
    except ValueError:
        return key, written
    return key, value if isinstance(value, (int, float)) and not isinstance(value, bool) else written


def _say_list(items: Sequence[Mapping[str, Any]]) -> None:
    if not items:
        say("There are no conditions: one is a table [conditions.NAME]")
        return
    say_table(
        ("name", "state", "waiting", "checked at", "reason"),
        [[one["name"], _state(one), one["waiting"], local(one["checked_at"]), one["reason"]] for one in items],
        optional=("checked at",),
    )


def _say_one(one: Mapping[str, Any]) -> None:
    say(f"Condition {one['name']}: {_state(one)}: {one['reason']}")
    if one["value"] is not None:
        say(f"  saw: {json.dumps(one['value'])}")
    if one["checked_at"]:
        say(f"  checked: {local(one['checked_at'])}")
    if (override := one["override"]) is not None:
        parts = [f"{key} = {value}" for key, value in override["thresholds"].items()]
        parts += [f"{key} = {str(override[key]).lower()}" for key in ("enabled", "shadow") if override[key] is not None]
        by = f", by {override['who']}" if override["who"] else ""
        say(f"  overridden: {', '.join(parts)} since {local(override['since'])}{by}: {override['reason']}")
    say(f"  triggers: {', '.join(one['triggers']) or 'none'}")
    say(f"  held runs: {one['waiting']}")
    for change in one["changes"]:
        say(f"  {local(change['at'])}  {change['state']}: {change['reason']}")


def _state(one: Mapping[str, Any]) -> str:
    return f"{one['state']} (shadow)" if one["shadow"] else str(one["state"])
