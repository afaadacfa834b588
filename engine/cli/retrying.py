"""The command `retry`: ended runs once more, by their ids or all that are meant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from engine.cli import completing
from engine.cli.failures import FAILED, USAGE, CommandFailed
from engine.cli.options import asks
from engine.cli.output import say, say_json, sentence
from engine.cli.pausing import claim
from engine.cli.queueing import Reason
from engine.cli.sending import wait_for_runs
from engine.cli.session import Session

AT_ONCE_S = 20.0
"""One request retries as many as its rate allows in this time."""


@asks(
    "retry 0197a3f4-5b6c-7d8e-9f01-23456789abcd --wait", "retry --failed --job import-csv --reason 'the disk is back'"
)
def retry(
    session: Session,
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN...]", help="The runs, by their ids.", autocompletion=completing.runs),
    ] = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="All that failed or timed out, each once; or see --state.")
    ] = False,
    state: Annotated[list[str] | None, typer.Option(help="With --failed: in this state in their place.")] = None,
    trigger: Annotated[
        str | None, typer.Option(help="With --failed: of this trigger.", autocompletion=completing.triggers)
    ] = None,
    job: Annotated[str | None, typer.Option(help="With --failed: of this job.", autocompletion=completing.jobs)] = None,
    start: Annotated[str | None, typer.Option("--from", help="With --failed: that came to be from then on.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="With --failed: that came to be before then.")] = None,
    rate: Annotated[str, typer.Option(help="With --failed: no faster than this.")] = "10/s",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --failed: say which, and run none.")] = False,
    reason: Reason = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the new runs; fail where one does.")] = False,
) -> None:
    """Run once more what ended runs were for: new runs, with the same data."""
    which = {"states": state, "trigger": trigger, "job": job, "from": start, "to": end}
    given = {key: value for key, value in which.items() if value}
    if failed == bool(runs):
        raise CommandFailed("name runs, or say --failed for all that failed", USAGE)
    if not failed and (given or dry_run):
        raise CommandFailed("--state, --trigger, --job, --from, --to and --dry-run go with --failed", USAGE)
    if not failed:
        _retry_each(session, runs or [], reason, wait)
        return
    if reason is None:
        raise CommandFailed("say why with --reason: each new run is recorded with it", USAGE)
    _retry_failed(session, {**given, "reason": reason, "dry_run": dry_run, **_pace(rate)}, wait and not dry_run)


def _retry_each(session: Session, runs: list[str], reason: str | None, wait: bool) -> None:
    client = session.client()
    body = {} if reason is None else {"reason": reason}
    answers = [client.post("runs", run_id, "retry", body=body, headers=claim()) for run_id in runs]
    made = [run_id for answer in answers for run_id in answer["runs"]]
    ended = wait_for_runs(client, made) if wait else []
    if session.json:
        say_json(
            {"items": answers, "next": None, **({"states": {one["id"]: one["state"] for one in ended}} if wait else {})}
        )
    else:
        for run_id, answer in zip(runs, answers, strict=True):
            (outcome,) = answer.get("outcomes") or [{"outcome": "run", "reason": ""}]
            say(f"Run {run_id} once more: run {', '.join(answer['runs']) or 'none'}; {outcome['reason']}")
    _say_ends(session, ended, wait)


def _retry_failed(session: Session, body: Mapping[str, Any], wait: bool) -> None:
    """Ask again and again, each time for as many as the rate allows in a while."""
    client = session.client()
    items: list[dict[str, Any]] = []
    refused: dict[str, str] = {}
    known: list[str] = []
    cursor: str | None = None
    while True:
        more = {} if cursor is None else {"cursor": cursor}
        answer = client.post("runs", "retry", body={**body, **more}, headers=claim())
        items += answer["items"]
        refused |= answer["refused"]
        known += answer["known"]
        cursor = answer["next"]
        if cursor is None:
            break
    made = [run for item in items for run in item["runs"]]
    ended = wait_for_runs(client, made) if wait else []
    if session.json:
        say_json({"count": len(items), "items": items, "refused": refused, "known": known, "next": None})
    else:
        for item in items:
            say(f"Run {item['run']} once more{': run ' + ', '.join(item['runs']) if item['runs'] else ''}")
        for run, why in refused.items():
            say(f"Run {run} can't be: {why}", error=True)
        before = f"; {len(known)} were retried before" if known else ""
        said = "would be retried" if body["dry_run"] else "retried"
        say(f"{len(items)} {said}{before}" + (f"; {len(refused)} could not be" if refused else ""))
    _say_ends(session, ended, wait)
    if refused:
        raise typer.Exit(FAILED)


def _pace(rate: str) -> dict[str, Any]:
    """Return a rate, and how many runs one request is to retry at it."""
    from engine.units import parse_rate

    try:
        per_s = parse_rate(rate)
    except ValueError as error:
        raise CommandFailed(f"--rate {error}", USAGE) from None
    return {"rate": rate, "limit": min(max(int(per_s * AT_ONCE_S), 1), 1000)}


def _say_ends(session: Session, ended: list[dict[str, Any]], wait: bool) -> None:
    for one in ended if not session.json else ():
        say(f"Run {one['id']} {sentence(one['state'], one['reason'])}")
    if wait and not (ended and all(one["state"] == "succeeded" for one in ended)):
        raise typer.Exit(FAILED)
