"""The commands about what waits: the queue, a flush of it, and what is asked of single runs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from engine.cli import completing
from engine.cli.client import Client
from engine.cli.failures import USAGE, CommandFailed
from engine.cli.options import asks
from engine.cli.output import local, say, say_json, say_lines, say_table, sentence
from engine.cli.pausing import claim
from engine.cli.session import Session

LOOK_S = 0.2
"""A run that is being cancelled is looked at so often."""

LONGEST_LOOK_S = 30.0
"""Programs get 10 s between SIGTERM and SIGKILL; what takes longer is left to end."""

ENDED = frozenset({"succeeded", "failed", "timed_out", "cancelled", "skipped", "missed", "expired"})

RunIds = Annotated[
    list[str], typer.Argument(metavar="RUN...", help="The runs, by their ids.", autocompletion=completing.runs)
]
Reason = Annotated[str | None, typer.Option(help="Why; it is recorded.")]


@asks("queue", "queue --lane backfill --limit 50")
def queue(
    session: Session,
    lane: Annotated[str | None, typer.Option(help="One lane alone: live, manual or backfill.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most are listed.")] = 20,
) -> None:
    """List what is ready and waits for a slot, in the order in which it starts; backfills with `--lane backfill`."""
    found = session.client().get("queue", lane=lane, limit=limit)
    if session.json:
        say_json(found)
        return
    say_table(
        ("run", "#", "trigger", "job", "priority", "expected", "reason"),
        [
            [
                one["id"], one["position"], one["trigger"], one["job"], one["priority"],
                local(one["expected_start_at"]), one["waits_for"] or one["reason"],
            ]
            for one in found["items"]
        ],
        optional=("job", "priority"),
    )  # fmt: skip
    waiting = ", ".join(f"{state} {count}" for state, count in found["waiting"].items() if count)
    say(f"{found['running']} of {found['slots']} slots are taken; waiting: {waiting or 'nothing'}")


@asks("flush --trigger nightly --reason 'wrong day' --dry-run", "flush --all --reason 'start anew'")
def flush(
    session: Session,
    reason: Annotated[str, typer.Option(help="Why; each run is recorded as cancelled with it.")],
    trigger: Annotated[str | None, typer.Option(help="Of this trigger.", autocompletion=completing.triggers)] = None,
    job: Annotated[str | None, typer.Option(help="Of this job.", autocompletion=completing.jobs)] = None,
    tag: Annotated[str | None, typer.Option(help="Of triggers or jobs with this tag.")] = None,
    state: Annotated[list[str] | None, typer.Option(help="In this state; repeatable. Default: all that wait.")] = None,
    lane: Annotated[str | None, typer.Option(help="Of one lane: live, manual or backfill.")] = None,
    below: Annotated[str | None, typer.Option(help="With a lower priority than this.")] = None,
    whole: Annotated[bool, typer.Option("--all", help="Everything that waits.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would be, and cancel nothing.")] = False,
) -> None:
    """Cancel the runs that wait, as far as they are meant; what runs goes on."""
    given = {
        "reason": reason, "trigger": trigger, "job": job, "tag": tag, "states": state or None, "lane": lane,
        "priority_below": _priority(below), "all": whole or None, "dry_run": dry_run or None,
    }  # fmt: skip
    body = {key: value for key, value in given.items() if value is not None}
    found = session.client().post("queue", "flush", body=body, headers=claim())
    if session.json:
        say_json(found)
        return
    count = found["count"]
    runs = "1 run" if count == 1 else f"{count} runs"
    said = "would be cancelled" if dry_run else "is cancelled" if count == 1 else "are cancelled"
    by = ", ".join(f"{name} {number}" for name, number in found["triggers"].items())
    say(f"{runs} {said}{by and ': '}{by}")


@asks("cancel 0197a3f4-5b6c-7d8e-9f01-23456789abcd --reason 'wrong file'")
def cancel(
    session: Session,
    runs: RunIds,
    reason: Reason = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for the end of what runs.")] = False,
) -> None:
    """Cancel runs: what waits ends at once; of what runs the processes are ended, SIGTERM first."""

    def ask(client: Client, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = client.post("runs", run_id, "cancel", body=_body(reason), headers=claim())
        return found if detach else _ended(client, found)

    _each(session, runs, ask)


@asks("hold 0197a3f4-5b6c-7d8e-9f01-23456789abcd --reason 'not before noon'")
def hold(
    session: Session,
    runs: RunIds,
    reason: Reason = None,
) -> None:
    """Hold runs that wait: they do not start until they are released."""
    _each(
        session, runs,
        lambda client, run_id: client.post("runs", run_id, "hold", body=_body(reason), headers=claim()),
    )  # fmt: skip


def release_runs(session: Session, runs: list[str], reason: str | None) -> None:
    """Release runs that are held by hand: each has the place in the queue that it had."""
    _each(
        session, runs,
        lambda client, run_id: client.post("runs", run_id, "release", body=_body(reason), headers=claim()),
    )  # fmt: skip


@asks("priority high 0197a3f4-5b6c-7d8e-9f01-23456789abcd --reason 'a customer waits'")
def priority(
    session: Session,
    level: Annotated[str, typer.Argument(metavar="PRIORITY", help="0 to 9, low, normal, high or critical.")],
    runs: RunIds,
    reason: Reason = None,
) -> None:
    """Give runs that wait another priority, at most the `priority_max` of their triggers."""
    body = {"priority": _priority(level), **_body(reason)}
    _each(
        session, runs,
        lambda client, run_id: client.patch("runs", run_id, body=body, headers=claim()),
    )  # fmt: skip


def _each(session: Session, runs: list[str], ask: Any) -> None:
    """Ask something of each run, and say how it is then; go on where one can't be, and fail in the end."""
    client = session.client()
    found: list[dict[str, Any]] = []
    refused: list[CommandFailed] = []
    for run_id in dict.fromkeys(runs):
        try:
            found.append(ask(client, run_id))
        except CommandFailed as error:
            if len(runs) == 1:
                raise
            refused.append(error)
            say_lines(str(error), error=True)
    if session.json:
        say_json(found[0] if len(runs) == 1 else {"items": found, "next": None})
    else:
        for one in found:
            say(f"Run {one['id']} {sentence(one['state'], one['reason'])}")
    if refused:
        raise typer.Exit(max(error.code for error in refused))


def _ended(client: Client, run: dict[str, Any]) -> dict[str, Any]:
    """Return a run once it has ended, or as it is after a while."""
    until_s = time.monotonic() + LONGEST_LOOK_S
    while run["state"] not in ENDED and time.monotonic() < until_s:
        time.sleep(LOOK_S)
        run = client.get("runs", run["id"])
    return run


def _body(reason: str | None) -> Mapping[str, Any]:
    return {} if reason is None else {"reason": reason}


def _priority(text: str | None) -> int | str | None:
    if text is None or not text.lstrip("-").isdigit():
        return text
    if not 0 <= int(text) <= 9:
        raise CommandFailed("a priority is 0 to 9, low, normal, high or critical", USAGE)
    return int(text)
