"""The command `override`: settings of a trigger or job that hold in the place of the configured ones, at run time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from engine.cli import completing
from engine.cli.failures import USAGE, CommandFailed
from engine.cli.options import asks
from engine.cli.output import local, say, say_json
from engine.cli.pausing import claim
from engine.cli.session import Session


@asks(
    "override nightly enabled=false --reason 'no orders until January'",
    "override sync interval=30m adaptive.max=2h --reason 'more orders than ever'",
    "override nightly --reset",
)
def override(
    session: Session,
    name: Annotated[
        str, typer.Argument(help="The trigger; with --job the job.", autocompletion=completing.triggers_or_jobs)
    ],
    assignments: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE...]", help="Such as interval=30m; none: only show.")
    ] = None,
    job: Annotated[bool, typer.Option("--job", help="It is the name of a job.")] = False,
    reset: Annotated[bool, typer.Option("--reset", help="Let what is configured hold again.")] = False,
    reason: Annotated[str | None, typer.Option(help="Why; it is recorded, and shown.")] = None,
) -> None:
    """Change settings of a trigger or job at once, without a file; what files say holds again after --reset.

    Of what the API defines, the settings themselves are changed. It outlives the engine.
    """
    kind, given = ("jobs" if job else "triggers"), assignments or []
    if reset and (given or reason is not None):
        raise CommandFailed("--reset lets what is configured hold again; it stands alone", USAGE)
    if bool(given) != (reason is not None):
        raise CommandFailed("say what is to change, and why: KEY=VALUE and --reason", USAGE)
    client = session.client()
    if reset:
        found = client.post(kind, name, "reset", body={}, headers=claim())
    elif given:
        body = {**_nested(given), "reason": reason}
        found = client.patch(kind, name, body=body, headers={**claim(), "If-Match": "*"})
    else:
        found = client.get(kind, name)
    if session.json:
        say_json(found)
    else:
        _say("Job" if job else "Trigger", found)


def _nested(assignments: Sequence[str]) -> dict[str, Any]:
    """Return what `adaptive.max=2h` and the like mean as JSON; a value is text where it is no JSON."""
    made: dict[str, Any] = {}
    for text in assignments:
        path, equals, written = text.partition("=")
        *way, last = path.split(".")
        if not equals or not all((*way, last)):
            raise CommandFailed(f"{text!r} is no KEY=VALUE, such as interval=30m", USAGE)
        place = made
        for step in way:
            place = place.setdefault(step, {})
            if not isinstance(place, dict):
                raise CommandFailed(f"{text!r}: {step} has a value already", USAGE)
        if last in place:
            raise CommandFailed(f"{path} is given twice", USAGE)
        place[last] = _value(written)
    return made


def _value(written: str) -> Any:
    try:
        return json.loads(written)
    except ValueError:
        return written


def _say(kind: str, found: Mapping[str, Any]) -> None:
    say(f"{kind} {found['name']} is {found['state']}" if "state" in found else f"{kind} {found['name']}")
    overrides = found["overrides"]
    if found["settings"] is not None:
        say(f"  the API defines it: {json.dumps(found['settings'])}")
        return
    if overrides is None:
        say(f"  nothing is overridden: all is as {found['defined_in']} says")
        return
    said = ", ".join(f"{key} = {json.dumps(value)}" for key, value in overrides["changes"].items())
    by = f", by {overrides['who']}" if overrides["who"] else ""
    say(f"  overridden: {said} since {local(overrides['since'])}{by}: {overrides['reason']}")
    if overrides["problem"]:
        say(f"  it does not fit any more, and does not hold: {overrides['problem']}")
