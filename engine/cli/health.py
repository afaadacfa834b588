"""The command `health`: how each part of the engine is, or one trigger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from engine.cli.failures import FAILED
from engine.cli.options import asks
from engine.cli.output import local, say, say_json
from engine.cli.session import Session


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
    say(f"The engine is {found['status']}")
    for check in found["checks"]:
        say(f"  {'well' if check['ok'] else 'NOT WELL':8}  {check['name']}: {check['detail']}")
    if not found["triggers"]:
        say("No trigger is in trouble")
    for one in found["triggers"]:
        say(f"Trigger {one['name']}: {'; '.join(one['troubles'])}")


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
