"""The commands `test` and `replay`: what an event would become, and events once more."""

from __future__ import annotations

import math
import time
import uuid
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from engine.cli import completing
from engine.cli.failures import FAILED, USAGE, CommandFailed
from engine.cli.options import asks
from engine.cli.output import local, say, say_json, sentence
from engine.cli.progress import Shown, bar
from engine.cli.session import Session
from engine.errors import EngineError, InvalidEvent
from engine.payload import parse_json
from engine.units import parse_rate

if TYPE_CHECKING:
    from engine.cli.client import Client
    from engine.config import Config

MOST_AT_ONCE = 100
_MEMBERS = frozenset({"type", "subject", "data", "key", "id", "source", "time", "priority"})


@asks("test dropped --event event.json", "test dropped --event event.json --offline")
def try_event(
    session: Session,
    name: Annotated[
        str,
        typer.Argument(metavar="TRIGGER", help="The trigger that would meet it.", autocompletion=completing.triggers),
    ],
    event: Annotated[
        Path, typer.Option("--event", metavar="FILE", help="The event as JSON: type, subject, data, key, priority.")
    ],
    offline: Annotated[
        bool, typer.Option("--offline", help="By the configuration alone: nothing is paused, no window open, all free.")
    ] = False,
) -> None:
    """Say what an event would become at a trigger, gate by gate. Nothing is stored or run."""
    value = _read(event)
    if offline:
        view = _test_offline(session.load(), name, value)
    else:
        view = session.client().post("triggers", name, "test", body=value)
    if session.json:
        say_json(view)
        return
    for gate in view["gates"]:
        saw = "" if gate["saw"] is None else f"  saw {gate['saw']}"
        say(f"  {gate['gate']:10} {gate['verdict']}{saw}")
    say(sentence(view["outcome"], view["reason"]) + f" [{view['code']}]")
    if (run := view["would_run"]) is not None:
        due = f", due at {local(run['due_at'])}" if run["due_at"] else ""
        say(f"A run of job {run['job']} would be {run['state']}, with priority {run['priority']}{due}")
    say(f"The job would see the data {view['data']}")


def _read(path: Path) -> dict[str, Any]:
    try:
        value = parse_json(path.read_bytes())
    except OSError as error:
        raise CommandFailed(f"--event: {path} can't be read: {error.strerror}", USAGE) from None
    except InvalidEvent as error:
        raise CommandFailed(f"--event: {path}: {str(error).replace('the body', 'the text', 1)}", USAGE) from None
    if not isinstance(value, dict):
        raise CommandFailed(f"--event: {path} holds no JSON object", USAGE)
    return value


def _test_offline(config: Config, name: str, value: dict[str, Any]) -> dict[str, Any]:
    """Try an event by a configuration: with the deciders of the engine, in which nothing is going on."""
    from engine.clock import SystemClock
    from engine.decide.overlap import START
    from engine.decide.rules import Rule
    from engine.decide.shaping import Windows
    from engine.events import Event
    from engine.following import Followers
    from engine.http.rehearsal_routes import rehearsed_view
    from engine.intake import Intake, Starter
    from engine.journal import Journal
    from engine.marks import MarkKeeper
    from engine.store.base import Store

    class Idle:
        """Has every slot free, and no gate to ask."""

        boot = "offline"

        def __getattr__(self, _: str) -> Any:
            return lambda *args, **more: None

        def claim(self, *args: Any, **more: Any) -> bool:
            return True

        def meet(self, *args: Any, **more: Any) -> Any:
            return START

    rules = {each.name: Rule(each, config.jobs[each.job]) for each in config.triggers.values()}
    intake = Intake(
        clock=SystemClock(), journal=cast("Journal", None), starter=cast("Starter", Idle()), windows=Windows(),
        marks=MarkKeeper(cast("Store", None)), rules=rules, hearing=(), followers=Followers((), {}, {}),
        max_data_bytes=config.http.max_body_bytes, ageing_s=config.engine.ageing_s,
    )  # fmt: skip
    if unknown := value.keys() - _MEMBERS:
        raise CommandFailed(f"--event: unknown member {min(unknown)!r}", USAGE)
    if "time" in value:
        raise CommandFailed("--event: a time is taken by a running engine alone: leave out --offline", USAGE)
    fields = {key: one for key, one in value.items() if key != "id"}
    try:
        event = Event(**{"type": None, "key": value.get("id"), **fields})
        return {**rehearsed_view(intake.rehearsal.test(name, event))}
    except InvalidEvent as error:
        raise CommandFailed(f"--event: {error}", USAGE) from None
    except EngineError as error:
        raise CommandFailed(str(error), FAILED) from None


@asks(
    "replay 0197a3f4-5b6c-7d8e-9f01-23456789abcd",
    "replay --from 2026-11-21T02:00:00Z --to 2026-11-21T04:00:00Z --trigger dropped --dry-run",
)
def replay(
    session: Session,
    event: Annotated[
        str | None, typer.Argument(metavar="[EVENT]", help="The id of one event; else give a span.")
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Received at this instant or later.")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Received before this instant.")] = None,
    trigger: Annotated[
        str | None, typer.Option(help="Run them at this trigger alone.", autocompletion=completing.triggers)
    ] = None,
    outcome: Annotated[
        str | None, typer.Option(help="Only those that came to this at --trigger, such as quarantined.")
    ] = None,
    rate: Annotated[str, typer.Option(help="So many events at most, such as 10/s or 90/m.")] = "10/s",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be run, and run nothing.")] = False,
    reason: Annotated[str | None, typer.Option(help="Why; it is recorded with each run.")] = None,
    request: Annotated[
        str | None, typer.Option(help="A name for this replay: the same one again runs nothing twice, and goes on.")
    ] = None,
) -> None:
    """Run events again: one, or all that were received in a span, the oldest first. Each is a new run of a copy."""
    if (event is None) == (start is None and end is None) or (start is None) != (end is None):
        raise CommandFailed("name one event, or a span with --from and --to", USAGE)
    per_s = rate_of(rate)
    if outcome is not None and trigger is None:
        raise CommandFailed("--outcome is that at a trigger: name it with --trigger", USAGE)
    named, client = request or uuid.uuid4().hex, session.client()
    told = (("trigger", trigger), ("reason", reason), ("outcome", outcome if event is None else None))
    given = {key: value for key, value in told if value is not None}
    if event is not None:
        if dry_run:
            raise CommandFailed("--dry-run goes with a span; test tells of one event", USAGE)
        answer = client.post("events", event, "replay", body=given, headers={"Idempotency-Key": named})
        say_json(answer) if session.json else say(f"Event {answer['event']} is a copy; runs: {_listed(answer['runs'])}")
        return
    asked = {**given, "from": start, "to": end, "dry_run": dry_run}
    items = replay_span(client, asked, named, math.inf if dry_run else per_s, quiet=session.json)
    done = [item for item in items if item["skipped"] is None]
    if session.json:
        say_json({"request": named, "dry_run": dry_run, "items": items})
        return
    says = "Would replay" if dry_run else "Replayed"
    left = f"; not run again: {len(items) - len(done)}" if len(items) > len(done) else ""
    say(f"{says} {len(done)} {'event' if len(done) == 1 else 'events'}{left}")


def rate_of(text: str) -> float:
    """Return how many a second a `--rate` allows; raise CommandFailed where it is none."""
    try:
        return parse_rate(text)
    except ValueError as error:
        raise CommandFailed(f"--rate: {text!r} {error}", USAGE) from None


def replay_span(
    client: Client, asked: dict[str, Any], request: str, per_s: float, *, quiet: bool
) -> list[dict[str, Any]]:
    """Ask for as many events as a second, or the rate, allows; again and again until the span is through."""
    if quiet:
        return _replay_pages(client, asked, request, per_s, None)
    with bar("replay", 1.0) as shown:
        return _replay_pages(client, asked, request, per_s, shown)


def _replay_pages(
    client: Client, asked: dict[str, Any], request: str, per_s: float, shown: Shown | None
) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    at_once = MOST_AT_ONCE if per_s == math.inf else min(max(math.floor(per_s), 1), MOST_AT_ONCE)
    cursor: str | None = None
    while True:
        began_s = time.monotonic()
        body = {**asked, "limit": at_once, **({} if cursor is None else {"cursor": cursor})}
        try:
            page = client.post("replay", body=body, headers={"Idempotency-Key": request})
        except (CommandFailed, KeyboardInterrupt):
            if items and shown is not None:
                say(f"{len(items)} events are done; go on with --request {request}", error=True)
            raise
        items += page["items"]
        if shown is not None:
            for item in page["items"]:
                shown.say(f"  {item['replay_of']}  {item['type']}  {_said(item)}")
            shown.at(_part(asked, page["items"]) if page["next"] else 1.0, f"{len(items)} events")
        cursor = page["next"]
        if cursor is None:
            return items
        time.sleep(max(began_s + len(page["items"]) / per_s - time.monotonic(), 0.0))


def _part(asked: dict[str, Any], items: list[dict[str, Any]]) -> float:
    """Return what part of the span is through, by when the last event was received."""
    try:
        start, end, at = (
            datetime.fromisoformat(text) for text in (asked["from"], asked["to"], items[-1]["received_at"])
        )
        return (at - start) / (end - start)
    except (ValueError, TypeError, ZeroDivisionError, IndexError):  # the engine reads what is no RFC 3339 differently
        return 0.0


def _said(item: dict[str, Any]) -> str:
    if item["skipped"] is not None:
        return f"not run: {item['skipped']}"
    if item["event"] is None:
        return f"at {_listed(item['triggers'])}"
    return ("again " if not item["duplicate"] else "was run again before ") + f"as {item['event']}"


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "none"
