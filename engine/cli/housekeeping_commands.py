"""The commands `housekeeping` and `backup`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli.failures import USAGE, CommandFailed
from engine.cli.options import asks
from engine.cli.output import local, say, say_json
from engine.cli.session import Session
from engine.units import format_size, format_span

if TYPE_CHECKING:
    from engine.cli.client import Client

LOOK_S = 1.0


@asks("housekeeping --dry-run", "housekeeping --show")
def housekeeping(
    session: Session,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Only say what is kept, and what was removed.")] = False,
) -> None:
    """Remove now what was kept long enough; the engine does so every hour by itself."""
    if dry_run and show:
        raise CommandFailed("say either --dry-run or --show", USAGE)
    client = session.client()
    found = client.get("housekeeping") if show else _ask(client, dry_run)
    if session.json:
        say_json(found)
        return
    keep = found["keep"]
    disk = f"; store and logs may take {keep['disk']}" if keep["disk"] else ""
    say(f"Kept: events {keep['events']}, runs {keep['runs']}, logs {keep['logs']}{disk}")
    if dry_run:
        say(f"It would remove {_removed(found['would_remove'])}")
    elif (last := found["last"]) is not None:
        say(f"The last round, {local(last['began_at'])}, removed {_removed(last)}")
        if last["problem"]:
            say(f"It was put off: {last['problem']}")
    if (going := found["running"]) is not None:
        say(f"A round goes on, and has removed {_removed(going)}")
    purged, store = found["purged"], found["store"]
    say(f"Removed ever: {purged['events']:,} events, {purged['runs']:,} runs")
    say(f"The store takes {format_size(store['bytes'])}, of which {format_size(store['free_bytes'])} are free")
    if not store["shrinks"]:
        say("Its file does not shrink by itself: see Housekeeping in docs/operations.md")


def _ask(client: Client, dry_run: bool) -> dict[str, Any]:
    found: dict[str, Any] = client.post("housekeeping", body={"dry_run": dry_run})
    before = found["last"]
    while not dry_run and found["running"] is not None and found["last"] == before:
        time.sleep(LOOK_S)
        found = client.get("housekeeping")
    return found


def _removed(tally: dict[str, Any]) -> str:
    said = f"{tally['events']:,} events, {tally['runs']:,} runs, {tally['files']:,} files"
    said += f" ({format_size(tally['file_bytes'])})"
    if tally["shrunk_bytes"]:
        said += f"; the store's file is {format_size(tally['shrunk_bytes'])} smaller"
    if tally["over_bytes"]:
        said += f"; store and logs take {format_size(tally['over_bytes'])} too much"
    return said


@asks("backup /var/backups/engine.db", "backup --name before-the-upgrade")
def backup(
    session: Session,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="A new file on this machine. Without it the engine makes a copy."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the copy that the engine makes; by default the time.")] = None,
) -> None:
    """Copy the store: into FILE, whether the engine runs or not, or by the engine into [store] backups."""
    if file is not None and (session.url or session.profile or name):
        raise CommandFailed(
            "FILE is written by this command; --url, --profile and --name are for copies by the engine", USAGE
        )
    made = _copy(session, file) if file is not None else _by_engine(session.client(), name)
    if session.json:
        say_json(made)
    else:
        took = format_span(made["took_s"])
        say(f"Copied the store to {made['path']} ({format_size(made['bytes'])}) in {took}; it is whole")


def _by_engine(client: Client, name: str | None) -> dict[str, Any]:
    made: dict[str, Any] = client.post("backup", body={} if name is None else {"name": name})
    return made


def _copy(session: Session, file: Path) -> dict[str, Any]:
    from engine.store.copying import copy_store

    copied = copy_store(session.load().store.path, file)
    return {
        "name": copied.path.name, "path": str(copied.path.absolute()), "bytes": copied.size_bytes,
        "took_s": round(copied.took_s, 3),
    }  # fmt: skip
