"""Releasing: runs that are held by hand, and triggers and sources that are in quarantine."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

import typer

from engine.cli.asking import find_source
from engine.cli.client import Client
from engine.cli.failures import USAGE, CommandFailed, NotThere
from engine.cli.options import asks
from engine.cli.output import say, say_json
from engine.cli.pausing import claim
from engine.cli.queueing import Reason, release_runs
from engine.cli.rehearsing import rate_of, replay_span
from engine.cli.session import Session
from engine.ids import is_id, is_tail

Names = Annotated[
    list[str], typer.Argument(metavar="RUN|NAME...", help="Runs, by their ids; or a trigger or source, by its name.")
]


@asks("release 0197a3f4-5b6c-7d8e-9f01-23456789abcd", "release orders --replay --rate 5/s")
def release(
    session: Session,
    what: Names,
    reason: Reason = None,
    replay: Annotated[
        bool, typer.Option("--replay", help="Run what a quarantine held back, too, the oldest first.")
    ] = False,
    rate: Annotated[str, typer.Option(help="With --replay: so many events at most, such as 10/s or 90/m.")] = "10/s",
) -> None:
    """Release runs that are held by hand, or a trigger or source that is in quarantine, whose count starts anew."""
    if _are_runs(session, what):
        if replay:
            raise CommandFailed("--replay is for a trigger or source that is in quarantine", USAGE)
        release_runs(session, what, reason)
        return
    if len(what) > 1:
        raise CommandFailed("name one trigger or source, or runs by their ids", USAGE)
    per_s, client = rate_of(rate), session.client()
    found = _release(client, what[0], {} if reason is None else {"reason": reason})
    if not session.json:
        is_released = "is released" if found["released"] else "was not in quarantine"
        say(f"{found['scope'].capitalize()} {found['name']} {is_released}")
    if replay and found["released"]:
        found["replayed"] = _replay(client, found, reason, per_s, quiet=session.json)
    if session.json:
        say_json(found)


def _are_runs(session: Session, what: list[str]) -> bool:
    """Tell runs, by their ids or the last digits of these, from the name of a trigger or source."""
    if all(map(is_id, what)):
        return True
    if not all(is_id(one.lower()) or is_tail(one.lower()) for one in what):
        return False
    if len(what) > 1:
        return True
    try:
        session.client().get("triggers", what[0])
    except NotThere:
        return True
    return False


def _release(client: Client, name: str, body: dict[str, Any]) -> dict[str, Any]:
    """Release the trigger of that name; where there is none, or it is not in quarantine itself, the source."""
    try:
        found: dict[str, Any] | None = client.post("triggers", name, "release", body=body, headers=claim())
    except NotThere as error:
        found, missing = None, error
    if found is not None and found["released"]:
        return found
    try:
        source = find_source(client, name)
    except NotThere:
        if found is None:
            raise missing from None
        return found
    answer: dict[str, Any] = client.post("sources", *source["name"].split("/"), "release", body=body, headers=claim())
    return answer if answer["released"] or found is None else found


def _replay(
    client: Client, released: dict[str, Any], reason: str | None, per_s: float, *, quiet: bool
) -> dict[str, list[dict[str, Any]]]:
    request, items = uuid.uuid4().hex, {}
    for trigger in released["triggers"]:
        asked = {"from": released["from"], "to": released["to"], "trigger": trigger, "outcome": "quarantined"}
        asked |= {} if reason is None else {"reason": reason}
        name = f"{request}-{trigger}"
        if not quiet:
            again = f"replay --from {asked['from']} --to {asked['to']} --trigger {trigger} --outcome quarantined"
            say(f"Trigger {trigger}: {again} --request {name}")
        items[trigger] = replay_span(client, asked, name, per_s, quiet=quiet)
        done = sum(item["skipped"] is None for item in items[trigger])
        if not quiet:
            say(f"Replayed {done} {'event' if done == 1 else 'events'} at trigger {trigger}")
    return items
