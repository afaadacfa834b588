"""The command `pools`: how much of each is taken and by whom, and what overrides its limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from engine.cli import completing
from engine.cli.failures import USAGE, CommandFailed
from engine.cli.options import asks
from engine.cli.output import local, say, say_json, say_table
from engine.cli.pausing import claim
from engine.cli.session import Session


@asks("pools", "pools warehouse --limit 4 --reason 'the night load'")
def pools(
    session: Session,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="One of them, such as engine; else all are listed.", autocompletion=completing.pools
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=0, help="Have it hold so much, until --reset.")] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Let what is configured hold again.")] = False,
    reason: Annotated[str | None, typer.Option(help="Why it is changed.")] = None,
) -> None:
    """List the limits that jobs share, or show one with the runs that have it; or change one until --reset.

    What is changed holds at once, and after a restart; what runs goes on.
    """
    change = _change(limit, reset=reset, reason=reason)
    if name is None:
        if change:
            raise CommandFailed("name the pool that is to be changed; the engine's slots are pool engine", USAGE)
        found = session.client().get("pools")
        say_json(found) if session.json else _say_list(found["items"])
        return
    client = session.client()
    one = client.patch("pools", name, body=change, headers=claim()) if change else client.get("pools", name)
    say_json(one) if session.json else _say_one(one)


def _change(limit: int | None, *, reset: bool, reason: str | None) -> dict[str, Any]:
    """Return what to send; empty where nothing is to be changed."""
    if reset:
        if limit is not None or reason is not None:
            raise CommandFailed("--reset lets what is configured hold again; it stands alone", USAGE)
        return {"reset": True}
    if limit is None:
        if reason is not None:
            raise CommandFailed("--reason goes with --limit", USAGE)
        return {}
    if reason is None:
        raise CommandFailed("say why with --reason: it is shown wherever the pool is", USAGE)
    return {"limit": limit, "reason": reason}


def _say_list(items: Sequence[Mapping[str, Any]]) -> None:
    say_table(
        ("name", "taken", "limit", "configured", "queued", "jobs"),
        [
            [
                one["name"], one["taken"], one["limit"],
                one["configured"] if one["override"] else "", one["queued"], _jobs(one),
            ]
            for one in items
        ],
        optional=("configured",),
    )  # fmt: skip


def _jobs(one: Mapping[str, Any]) -> str:
    if one["name"] == "engine":
        return "all"
    return ", ".join(name if takes == 1 else f"{name} ({takes})" for name, takes in one["jobs"].items())


def _say_one(one: Mapping[str, Any]) -> None:
    say(f"Pool {one['name']}: {one['taken']} of {one['limit']} taken")
    if (override := one["override"]) is not None:
        by = f", by {override['who']}" if override["who"] else ""
        since = local(override["since"])
        say(f"  changed from {one['configured']} since {since}{by}: {override['reason']}")
    say(f"  jobs: {_jobs(one) or 'none'}")
    say(f"  queued runs: {one['queued']}")
    for run in one["runs"]:
        takes = f", takes {run['takes']}" if run["takes"] > 1 else ""
        say(f"  run {run['id']} of job {run['job']}{takes}")
