"""The commands about runs and the events that they are for: `runs`, `run`, `logs` and `events`."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from engine.cli import completing, telling
from engine.cli.options import asks
from engine.cli.output import local, said_of_usage, say, say_json, say_table, sentence, terminal_safe
from engine.cli.session import Session
from engine.runs import ENDED


@asks("runs --state failed,timed_out --trigger nightly", "runs --limit 100 --json")
def runs(
    session: Session,
    state: Annotated[
        str | None, typer.Option(help="A state, or several with commas.", autocompletion=completing.states)
    ] = None,
    job: Annotated[str | None, typer.Option(help="Of this job.", autocompletion=completing.jobs)] = None,
    trigger: Annotated[str | None, typer.Option(help="Of this trigger.", autocompletion=completing.triggers)] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 20,
) -> None:
    """List runs, the newest first."""
    found = session.client().get("runs", state=state, job=job, trigger=trigger, limit=limit)
    if session.json:
        say_json(found)
        return
    say_table(
        ("run", "trigger", "job", "state", "created", "reason"),
        [
            [one["id"], one["trigger"], one["job"], one["state"], local(one["created_at"]), one["reason"]]
            for one in found["items"]
        ],
        optional=("job", "created"),
    )


@asks("run 0197a3f4-5b6c-7d8e-9f01-23456789abcd")
def run(
    session: Session,
    run_id: Annotated[str, typer.Argument(metavar="ID", autocompletion=completing.runs)],
) -> None:
    """Show one run."""
    found = session.client().get("runs", run_id)
    if session.json:
        say_json(found)
        return
    for name, value in found.items():
        if name.endswith("_at") or name == "scheduled_for":
            value = local(value)
        if isinstance(value, dict):
            value = json.dumps(value, ensure_ascii=False)
        if value is not None and name not in ("trace", "attempts", "events", "deliveries"):
            say(f"{name:14} {value}")
    say(f"{'events':14} {' '.join(found['events'])}")
    for attempt in found["attempts"]:
        if used := said_of_usage(attempt):
            say(f"{'attempt':14} {attempt['number']} used {used}")
    for step in found["trace"]:
        say(f"  {local(step['at'])}  {sentence(step['state'], step['reason'])} [{step['code']}]")
    for line in telling.sentences(found.get("deliveries", ())):
        say(f"  {line}")


@asks("logs 0197a3f4-5b6c-7d8e-9f01-23456789abcd -f", "logs 0197a3f4-5b6c-7d8e-9f01-23456789abcd --tail 20")
def logs(
    session: Session,
    run_id: Annotated[str, typer.Argument(metavar="RUN", autocompletion=completing.runs)],
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the run has ended.")] = False,
    tail: Annotated[int | None, typer.Option(min=0, max=100_000, help="The last lines alone.")] = None,
) -> None:
    """Print what a run wrote: as it is where it is piped, with control characters escaped on a terminal."""
    import codecs

    client = session.client()
    run_id = client.named("runs", run_id)
    chunks = client.stream("runs", run_id, "log", follow=1 if follow else None, tail=tail)
    first = next(chunks, None)
    if first is None and tail != 0:
        say(_said_of_silence(client.get("runs", run_id)), error=True)
    chunks = itertools.chain([first or b""], chunks)
    if session.json:
        say_json({"run": run_id, "log": b"".join(chunks).decode("utf-8", "replace")})
        return
    if not sys.stdout.isatty():
        for chunk in chunks:
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
        return
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for chunk in chunks:
        sys.stdout.write(terminal_safe(decoder.decode(chunk)))
        sys.stdout.flush()


def _said_of_silence(run: Mapping[str, Any]) -> str:
    """Say why a run's log holds nothing."""
    state = sentence(run["state"], run["reason"])
    if not run["attempts"] and not run["started_at"]:
        never = "was never started" if run["state"] in ENDED else "has not started"
        return f"Run {run['id']} {never}, so that it wrote nothing: {state}"
    if run["state"] not in ENDED:
        return f"Run {run['id']} has written nothing so far: {state}"
    return f"Run {run['id']} wrote nothing, or its log was removed after its time: {state}"


@asks("events --trigger dropped", "events --type order.created --limit 100")
def events(
    session: Session,
    source: Annotated[str | None, typer.Option(help="Of this source, as `sources` names it.")] = None,
    kind: Annotated[str | None, typer.Option("--type", metavar="TYPE", help="Of this type.")] = None,
    trigger: Annotated[
        str | None, typer.Option(help="That met this trigger.", autocompletion=completing.triggers)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 20,
) -> None:
    """List events and what became of them, the newest first; those too that no trigger hears."""
    found = session.client().get("events", source=source, type=kind, trigger=trigger, limit=limit)
    if session.json:
        say_json(found)
        return
    say_table(
        ("event", "type", "source", "subject", "received", "outcomes"),
        [
            [
                one["id"], one["type"], one["source"], one["subject"], local(one["received_at"]),
                ", ".join(": ".join(filter(None, (each["trigger"], each["outcome"]))) for each in one["outcomes"]),
            ]
            for one in found["items"]
        ],
    )  # fmt: skip
