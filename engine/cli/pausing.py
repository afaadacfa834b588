"""Pausing and resuming from the command line: a trigger, all with a tag, or the engine."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from engine.cli import completing
from engine.cli.failures import USAGE, CommandFailed
from engine.cli.options import asks
from engine.cli.output import local, say, say_json
from engine.cli.session import Session
from engine.clock import rfc3339

MOST_NAMED = 12
"""So many of the triggers that a pause holds are named."""

Name = Annotated[str | None, typer.Argument(help="The trigger.", autocompletion=completing.triggers)]
Tag = Annotated[str | None, typer.Option("--tag", help="All triggers with this tag, their own or their job's.")]
Whole = Annotated[bool, typer.Option("--all", help="The engine: nothing starts, what runs goes on.")]


@asks("pause nightly --for 120m --reason 'the warehouse moves'", "pause --tag import --until 2026-12-01T06:00")
def pause(
    session: Session,
    name: Name = None,
    tag: Tag = None,
    whole: Whole = False,
    reason: Annotated[str | None, typer.Option(help="Why; it is recorded with every event that it holds off.")] = None,
    duration: Annotated[str | None, typer.Option("--for", metavar="DURATION", help="How long, such as 30m.")] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Until when: RFC 3339, or a local time.")] = None,
) -> None:
    """Pause a trigger, a tag or all; without an end, until it is resumed. Events meanwhile are recorded, not run."""
    path, scope = _path(name, tag, whole, "pause")
    given = {"reason": reason, "duration": duration, "until": None if until is None else in_utc(until), **scope}
    body = {key: value for key, value in given.items() if value is not None}
    found = session.client().post(*path, body=body, headers=claim())
    if session.json:
        say_json(found)
        return
    pauses = [] if name is None else found["pauses"]
    made = found if name is None else next((one for one in pauses if one["scope"] == "trigger"), None)
    end = made["until"] if made else None
    say(f"{_subject(name, tag)} is paused until {local(end) if end else 'it is resumed'}")
    if name is None:
        say(f"  It holds for {_named(found['triggers'])}")
    for line in sentences(one for one in pauses if one["scope"] != "trigger"):
        say(f"  Also: {line}")
    replay = "replay --from TIME" if name is None else f"replay --trigger {name} --outcome paused --from TIME"
    say("  Events that come meanwhile are recorded, and do not run by themselves afterwards:")
    say(f"  {replay} runs them then. Due instants go by their misfire rules.")


def in_utc(text: str) -> str:
    """Return a time for the API: one without an offset is local, as times are printed. It judges what is no time."""
    try:
        at = datetime.fromisoformat(text)
        return text if at.tzinfo is not None else rfc3339(at.astimezone(UTC))
    except (ValueError, OverflowError):
        return text


@asks("resume nightly", "resume --all")
def resume(
    session: Session,
    name: Name = None,
    tag: Tag = None,
    whole: Whole = False,
) -> None:
    """End the pause of a trigger, a tag or the engine. Other pauses stay."""
    path, scope = _path(name, tag, whole, "resume")
    found = session.client().post(*path, body=scope, headers=claim())
    if session.json:
        say_json(found)
        return
    if name is not None:
        say(f"Trigger {name} is {found['state']}")
    else:
        say(f"{_subject(name, tag)} {'is resumed' if found['resumed'] else 'was not paused'}")
    for line in sentences(found["pauses"]):
        say(f"  Still: {line}")


def sentences(pauses: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Say of pauses, as the API shows them, what is paused, by whom, since and until when, and why."""
    for one in pauses:
        subject = "the engine" if one["scope"] == "engine" else f"{one['scope']} {one['name']}"
        end = f" until {local(one['until'])}" if one["until"] else ""
        by = f", by {one['who']}" if one["who"] else ""
        yield f"{subject} is paused since {local(one['since'])}{end}{by}{one['reason'] and ': '}{one['reason']}"


def _path(name: str | None, tag: str | None, whole: bool, verb: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return where to ask, and what scope to send; fail where it is not said what is meant."""
    if (name is not None) + (tag is not None) + whole != 1:
        raise CommandFailed(f"say what to {verb}: the NAME of a trigger, --tag TAG, or --all for the engine", USAGE)
    if name is not None:
        return ("triggers", name, verb), {}
    return (verb,), {} if tag is None else {"tag": tag}


def _subject(name: str | None, tag: str | None) -> str:
    if name is not None:
        return f"Trigger {name}"
    return "The engine" if tag is None else f"Tag {tag}"


def _named(triggers: list[str]) -> str:
    if not triggers:
        return "no trigger yet"
    more = f" and {len(triggers) - MOST_NAMED} more" if len(triggers) > MOST_NAMED else ""
    return ", ".join(triggers[:MOST_NAMED]) + more


def claim() -> dict[str, str]:
    """Return the header that says who asks; the engine records it as a claim."""
    try:
        login = getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        login = f"uid {os.getuid()}"
    return {"X-Performed-By": login.encode("ascii", "replace").decode()[:128]}
