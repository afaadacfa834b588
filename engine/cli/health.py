"""The command `health`: how each part of the engine is, or one trigger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from engine.cli.failures import FAILED
from engine.cli.options import asks
from engine.cli.output import local, say, say_json
from engine.cli.session import Session

NAMED = 3
"""So many triggers in trouble are named in the first line; each has one of its own below."""


@asks("health", "health nightly")
def health(
    session: Session,
    trigger: Annotated[str | None, typer.Argument(metavar="[TRIGGER]", help="One of them; else all parts.")] = None,
) -> None:
    """Show how the engine's parts are, and which triggers are in trouble. Ends with 1 where something is not well."""
    client = session.client()
    if trigger is not None:
        found = client.get("triggers", trigger, "health")
        well = found["ok"]
    else:
        found = client.get("health", trouble=1, limit=1000)
        cursor = found["next"]
        while cursor is not None:
            page = client.get("health", trouble=1, limit=1000, cursor=cursor)
            found["triggers"] += page["triggers"]
            cursor = page["next"]
        found["next"] = None
        well = found["status"] == "ok" and not found["triggers"]
    if session.json:
        say_json(found)
    elif trigger is not None:
        _say_trigger(found)
    else:
        _say_all(found)
    if not well:
        raise typer.Exit(FAILED)


def _say_all(found: Mapping[str, Any]) -> None:
    say(_headline(found))
    for check in found["checks"]:
        say(f"  {'well' if check['ok'] else 'NOT WELL':8}  {check['name']}: {check['detail']}")
    for one in found["triggers"]:
        say(f"  NOT WELL  trigger {one['name']}: {'; '.join(one['troubles'])}")


def _headline(found: Mapping[str, Any]) -> str:
    """Say in one sentence how all is: that the engine starts nothing, which parts are not well, and which triggers."""
    paused, status, names = found.get("paused"), found["status"], [one["name"] for one in found["triggers"]]
    wrong = [check["name"] for check in found["checks"] if not check["ok"]]
    parts = [f"{paused}; nothing starts; it is {status}" if paused else f"the engine is {status}"]
    if wrong:
        parts.append(f"not well: {', '.join(wrong)}")
    parts.append(f"in trouble: {_several('trigger', names)}" if names else "no trigger is in trouble")
    said = "; ".join(parts)
    return f"{said[0].upper()}{said[1:]}"


def _several(what: str, names: Sequence[str]) -> str:
    """Name a few things, and count those that are left out."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{what}{'s' if len(names) > 1 else ''} {', '.join(names[:NAMED])}{more}"


def _say_trigger(found: Mapping[str, Any]) -> None:
    say(f"Trigger {found['name']} is {found['state']}: {'; '.join(found['troubles']) or 'all is well'}")
    last, day = found["last_run"], found["last_day"]
    if last is not None:
        say(f"  its last run {last['state']} ({last['code']}) at {local(last['ended_at'])}")
    if found["next_at"] is not None:
        say(f"  due next at {local(found['next_at'])}")
    rate = "" if day["success_rate"] is None else f", {day['success_rate']:.1%} of them with success"
    say(f"  in the last day {day['runs']} {'run' if day['runs'] == 1 else 'runs'} ended{rate}")
    for code, count in day["not_run"].items():
        say(f"    not run  {count}: {code}")
