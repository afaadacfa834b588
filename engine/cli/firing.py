"""The commands that bring something about: `fire` and `emit`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli import completing
from engine.cli.failures import FAILED
from engine.cli.options import asks
from engine.cli.output import say, say_json, sentence
from engine.cli.session import Session
from engine.triggers import GATES

if TYPE_CHECKING:
    from engine.cli.client import Client

_GATE_OF = {"paused": "pause", "quarantined": "quarantine", "deduplicated": "dedupe", "rate_limited": "rate_limit"}
"""The gate that an event's outcome comes from, as `--bypass` names it."""


@asks(
    "fire nightly --reason 'by hand, for the auditors' --priority high --wait",
    """fire import --data '{"path": "orders.csv"}' --bypass debounce""",
)
def fire(
    session: Session,
    name: Annotated[str, typer.Argument(help="The trigger.", autocompletion=completing.triggers)],
    data: Annotated[str | None, typer.Option(help="JSON, or @FILE, or @- for standard input.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why; it is recorded.")] = None,
    priority: Annotated[str | None, typer.Option(help="0 to 9, low, normal, high or critical.")] = None,
    bypass: Annotated[
        list[str] | None,
        typer.Option(help=f"A gate to leave out: {', '.join(sorted(GATES))}. Repeatable."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its runs; fail where one does.")] = False,
) -> None:
    """Fire a trigger by hand. Ends with 1 where no run comes of it, such as while it is paused."""
    from engine.cli.sending import fire_trigger, wait_for_runs

    client = session.client()
    accepted = fire_trigger(client, name, data=data, reason=reason, priority=priority, bypass=bypass or [])
    well = _tell(session, accepted, wait_for_runs(client, accepted["runs"]) if wait else None)
    outcomes = accepted.get("outcomes", [])
    if not accepted["runs"] and not any(outcome["run"] for outcome in outcomes):
        for way in filter(None, (_way_on(client, outcome) for outcome in outcomes)):
            say(way, error=True)
        well = False
    if not well:
        raise typer.Exit(FAILED)


@asks("""emit order.created --data '{"id": 7}' --key order-7""", "emit order.created --data @order.json --wait")
def emit(
    session: Session,
    kind: Annotated[str, typer.Argument(metavar="TYPE", help="The event's type, such as order.created.")],
    data: Annotated[str | None, typer.Option(help="JSON, or @FILE, or @- for standard input.")] = None,
    subject: Annotated[str | None, typer.Option(help="What it happened to.")] = None,
    key: Annotated[str | None, typer.Option(help="The same key is the same event.")] = None,
    source: Annotated[str | None, typer.Option(help="Who sends it.")] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for its runs; fail where one does, or there is none.")
    ] = False,
) -> None:
    """Send an event."""
    from engine.cli.sending import emit_event, wait_for_runs

    client = session.client()
    accepted = emit_event(client, kind, data=data, subject=subject, key=key, source=source)
    if not _tell(session, accepted, wait_for_runs(client, accepted["runs"]) if wait else None):
        raise typer.Exit(FAILED)


def _way_on(client: Client, outcome: dict[str, Any]) -> str | None:
    """Say how a trigger runs all the same that a gate kept from it; None where there is no way."""
    gate, name = _GATE_OF.get(outcome["outcome"]), outcome["trigger"]
    if gate is None:
        return None
    ends = [f"release {name}"] if gate == "quarantine" else []
    if gate == "pause":
        ends = [_resume(pause) for pause in client.get("triggers", name)["pauses"]]
    end = f"; {' and '.join(ends)} to end it" if ends else ""
    return f"  nothing runs: fire {name} --bypass {gate} to run it all the same{end}"


def _resume(pause: dict[str, Any]) -> str:
    """Return the command that ends a pause."""
    which = {"engine": "--all", "tag": f"--tag {pause['name']}"}
    return f"resume {which.get(pause['scope'], pause['name'])}"


def _tell(session: Session, accepted: dict[str, Any], runs: list[dict[str, Any]] | None) -> bool:
    """Tell what was accepted, and how its runs ended where that was waited for; return whether each did well then."""
    if session.json:
        waited = runs is not None
        say_json({**accepted, "states": {run["id"]: run["state"] for run in runs or ()}} if waited else accepted)
    else:
        _say_accepted(accepted)
        for run in runs or ():
            say(f"Run {run['id']} {sentence(run['state'], run['reason'])}")
    return runs is None or (bool(runs) and all(run["state"] == "succeeded" for run in runs))


def _say_accepted(accepted: dict[str, Any]) -> None:
    again = " (it came before)" if accepted["duplicate"] else ""
    runs = f"; runs: {', '.join(accepted['runs'])}" if accepted["runs"] else ""
    say(f"Event {accepted['event']} is accepted{again}{runs}")
    for outcome in accepted.get("outcomes", []):
        met = outcome["trigger"] or "no trigger"
        if not outcome["run"] or outcome["code"] == "overlap":
            say(f"  {met}: {sentence(outcome['outcome'], outcome['reason'])}")
