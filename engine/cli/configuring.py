"""The configuration of a running engine, from the command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli.failures import CommandFailed
from engine.cli.options import asks
from engine.cli.output import local, say, say_json
from engine.cli.pausing import claim
from engine.cli.progress import bar
from engine.cli.session import Session
from engine.units import format_size

if TYPE_CHECKING:
    from engine.cli.client import Client


@asks("reload", "reload --status")
def reload(
    session: Session,
    status: Annotated[bool, typer.Option("--status", help="Only say how the last one went.")] = False,
) -> None:
    """Have the engine read its configuration files anew. What is wrong changes nothing, and is told."""
    client = session.client()
    if status:
        found = client.get("config")
        say_json(found) if session.json else _say_status(found)
        return
    found = client.post("config", "reload", body={}, headers=claim())
    if session.json:
        say_json(found)
        return
    for line in lines_of(found["change"]) or ["Nothing differs"]:
        say(line)


@asks("export -o definitions.toml", "export | ssh standby trigger-engine import -")
def export(
    session: Session,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write to a file; one that is there is left alone."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Print all jobs and triggers that the API defines, as TOML: `import` takes them back as they are."""
    content = _exported(session.client(), shown=output is not None)
    if output is not None:
        write_file(output, content, force=force)
    if session.json:
        say_json({"definitions": content.decode()})
    elif output is None:
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
    else:
        say(f"{output}: written")


def _exported(client: Client, *, shown: bool) -> bytes:
    """Return what the API defines; with a bar where the terminal is not for the text itself."""
    chunks = client.stream("config", "export")
    if not shown:
        return b"".join(chunks)
    content = b""
    with bar("export", None) as progress:
        for chunk in chunks:
            content += chunk
            progress.at(len(content), format_size(len(content)))
    return content


@asks("import definitions definitions.toml --dry-run", "import definitions - --replace < definitions.toml")
def definitions(
    session: Session,
    file: Annotated[str, typer.Argument(help="What `export` has written; - is standard input.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would change.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Remove what else the API defines; else it stays as it is.")
    ] = False,
) -> None:
    """Define all jobs and triggers of a TOML file in the running engine, or none. `import FILE` is the same."""
    from engine.cli.prospects import say_plan

    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise CommandFailed(f"{file} can't be read: {error.strerror}") from None
    found = session.client().send_toml(
        "config", "import", content=content, headers=claim(), dry_run=int(dry_run), replace=int(replace)
    )
    if session.json:
        say_json(found)
        return
    said = [f"{word}: {', '.join(found[word])}" for word in ("added", "changed", "removed") if found[word]]
    for line in said or ["Nothing differs"]:
        say(line)
    if dry_run:
        say("Nothing is changed, as it is only a trial")
        if found["plan"]["changes"]:
            say_plan(found["plan"])


def write_file(file: Path, content: bytes, *, force: bool) -> None:
    """Write a file that is for who asked alone; one that is there is left alone without `force`."""
    try:
        private = partial(os.open, mode=0o600)
        with open(file, "wb" if force else "xb", opener=private) as stream:
            stream.write(content)
    except FileExistsError:
        raise CommandFailed(f"{file} is there already; --force writes over it") from None
    except OSError as error:
        raise CommandFailed(f"{file} can't be written: {error.strerror}") from None


def lines_of(change: Mapping[str, Any]) -> list[str]:
    """Say what a change of the configuration came to."""
    lines = [
        f"{kind} {word}: {', '.join(names)}"
        for kind in ("jobs", "triggers", "conditions", "maintenance")
        for word, names in change[kind].items()
        if names
    ]
    if change["sources"]:
        lines.append(f"sources started anew: {', '.join(change['sources'])}")
    if change["restart_needed"]:
        lines.append(f"only a restart changes: {', '.join(change['restart_needed'])}")
    return [*lines, *change["left"]]


def _say_status(found: Mapping[str, Any]) -> None:
    say(f"{', '.join(found['files']) or 'no files'}: read {local(found['loaded_at'])}")
    reload = found["reload"]
    if reload is not None and not reload["ok"]:
        say(f"What was found {local(reload['at'])} ({reload['who']}) is wrong, and not taken up:")
        for error in reload["errors"]:
            say(f"  {error['detail']}")
    for one in found["invalid"]:
        say(f"{one['kind']} {one['name']} of the API does not fit, and does not hold: {one['errors'][0]['message']}")
    if found["restart_needed"]:
        say(f"only a restart changes: {', '.join(found['restart_needed'])}")
