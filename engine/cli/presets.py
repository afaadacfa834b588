"""The command that shows the presets; it needs no engine, and no configuration either."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli.failures import NotThere
from engine.cli.options import stands_alone
from engine.cli.output import say, say_json, say_lines, say_table
from engine.cli.session import Session

if TYPE_CHECKING:
    from collections.abc import Mapping, Set

    from engine.config import Preset


@stands_alone("presets", "presets daily")
def presets(
    session: Session,
    name: Annotated[str | None, typer.Argument(help="One preset alone, with its settings.")] = None,
) -> None:
    """List the presets, those of the configuration too: what a trigger has that names one."""
    from engine.config.scalars import near
    from engine.http.preset_routes import preset_view

    found, secrets = _known(session)
    if name is None:
        views: list[dict[str, Any]] = [{**preset_view(preset, secrets)} for preset in found.values()]
        if session.json:
            say_json({"items": views, "next": None})
        else:
            say_table(("name", "what it does"), [[view["name"], _words(view)] for view in views])
        return
    if name not in found:
        raise NotThere(f'there is no preset "{name}" ({near(name, found)})')
    view: dict[str, Any] = {**preset_view(found[name], secrets)}
    if session.json:
        say_json(view)
    else:
        _say_one(view)


def _known(session: Session) -> tuple[Mapping[str, Preset], Set[str]]:
    """Return all presets and the secrets to mask; without a configuration file, those that are built in."""
    from engine.config.loader import DEFAULT_FILE, named_files

    if not session.config and not named_files(os.environ) and not Path(DEFAULT_FILE).exists():
        from engine.config.presets import standard
        from engine.registry import Registry

        return standard(Registry.discover()), frozenset()
    config = session.load()
    return config.presets, config.secrets


def _words(view: dict[str, Any]) -> str:
    changed = f" (changed in {view['defined_in']}: {', '.join(view['changed'])})" if view["changed"] else ""
    return f"{view['description'] or '-'}{changed}"


def _say_one(view: dict[str, Any]) -> None:
    from engine.config.writing import toml

    say(f"{view['name']}: {_words(view)}")
    say(f"It is {view['defined_in']}. A trigger has from it what it does not say itself:")
    say("")
    for key, value in _lines(view["settings"]):
        say(f"  {key} = {toml(value)}")
    for key, meaning in view["parameters"].items():
        say(f"  {key} = …  # to be given: {meaning}")
    say("")
    given = "".join(f"\n{key} = …" for key in view["parameters"])
    say_lines(f'[triggers.NAME]\npreset = {toml(view["name"])}\njob = "…"{given}')


def _lines(settings: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return the settings as a trigger has them: `on.cron` and its value, `retry` and its table."""
    plugins = settings.get("on", {})
    rest = {key: value for key, value in settings.items() if key != "on"}
    return [*((f"on.{name}", inner) for name, inner in plugins.items()), *rest.items()]
