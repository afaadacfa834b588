"""The commands about the configuration and what the engine is made of: `check`, `schema`, `plugins` and `doctor`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from engine.cli.failures import FAILED, USAGE
from engine.cli.options import asks, stands_alone
from engine.cli.output import say, say_json, say_table
from engine.cli.session import Session
from engine.errors import ConfigError


@stands_alone("check", "check --config config.toml --config production.toml")
def check(
    session: Session,
) -> None:
    """Say all that is wrong with the configuration."""
    from engine.cli.upcoming import forecast, say_forecast

    try:
        loaded = session.load(examine=True)
    except ConfigError as error:
        if not session.json:
            raise
        fields = ("file", "line", "path", "message", "hint")
        errors = [{name: getattr(problem, name) for name in fields} for problem in error.problems]
        say_json({"ok": False, "errors": errors, "notes": [], "next": []})
        raise typer.Exit(USAGE) from None
    found = forecast(loaded)
    if session.json:
        say_json({"ok": True, "errors": [], "notes": found.notes, "next": found.next})
    else:
        files = ", ".join(str(file) for file in loaded.files)
        say(f"{files}: right; triggers: {len(loaded.triggers)}, jobs: {len(loaded.jobs)}")
        say_forecast(found)


@stands_alone("schema > config.schema.json")
def schema(
    session: Session,
) -> None:
    """Print the JSON Schema of the configuration, all plugins included."""
    from engine.cli.offline import find_plugins
    from engine.config import schema as schema_of

    say_json(schema_of(find_plugins(session)))


@stands_alone("plugins")
def plugins(
    session: Session,
) -> None:
    """List the plugins, those that can't be used too."""
    from engine.cli.offline import find_plugins, plugin_view

    found = [plugin_view(entry) for entry in find_plugins(session).plugins()]
    if session.json:
        say_json({"items": found, "next": None})
        return
    say_table(
        ("kind", "name", "from", "about"),
        [[one["kind"], one["name"], one["origin"], one["error"] or one["doc"]] for one in found],
        optional=("from",),
    )


@asks("doctor", "doctor --json")
def doctor(
    session: Session,
) -> None:
    """Add up what was promised, and check the store; with the engine where it runs, else without."""
    from engine.cli.diagnosis import examine

    found = examine(session)
    if session.json:
        say_json(found)
    else:
        if (ledger := found["ledger"]) is not None:
            say("  ".join(f"{name} {ledger[name]}" for name in ("accepted", "ended", "waiting", "purged", "missing")))
        for one in found["checks"]:
            say(f"{_mark(one):4} {one['name']}: {one['detail']}")
    if not found["ok"]:
        raise typer.Exit(FAILED)


def _mark(check: Mapping[str, Any]) -> str:
    """Return what stands before one of doctor's checks; what is neither good nor bad news is a note."""
    return check.get("level", "ok") if check["ok"] else "BAD"
