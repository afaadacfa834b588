"""The tables of docs/ that are made from the code: settings, routes, commands.

A table stands between `<!-- table: NAME -->` and `<!-- /table -->`. `python -m tests.docs_tables` writes them anew;
`tests/test_docs.py` fails where they are not what the code says.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer.main
from msgspec import Struct

from engine.cli.app import app
from engine.cli.options import SHARED
from engine.config import schema as schema_of
from engine.config.alerts import AlertScopeTable, AlertTable, WhenTable
from engine.config.calendars import CalendarTable
from engine.config.conditions import ConditionTable
from engine.config.guards import BreakerTable
from engine.config.joins import InputTable, JoinTable
from engine.config.keeping import KeepTable
from engine.config.logs import LogsTable
from engine.config.maintenance import MaintenanceTable, ScopeTable
from engine.config.metrics import MetricsTable
from engine.config.model import (
    AdaptiveTable,
    BatchTable,
    DebounceTable,
    DedupeTable,
    DefaultsTable,
    EngineSettings,
    HttpTable,
    JobTable,
    LogTable,
    MisfireTable,
    OtherwiseTable,
    PresetTable,
    QueueTable,
    RateLimitTable,
    ReserveTable,
    RetryChangeTable,
    RetryOnTable,
    RetryTable,
    Shared,
    SourceTable,
    StoreTable,
    ThrottleTable,
    TriggerTable,
)
from engine.config.payloads import RedactTable, SchemaFile, SecurityTable
from engine.config.people import TrustedHeaderTable
from engine.config.permits import LimitsTable
from engine.config.presets import standard
from engine.config.shapes import Shape, fields_of
from engine.config.telling import CallbackTable, JobNotifyTable, NotifyTable
from engine.config.tracing import TracingTable
from engine.http.routes import ROUTES
from engine.metrics import ALIASES, FAMILIES, Family
from engine.plugin import Plugin, Timer
from engine.plugin.timers import TIMER_FIELDS
from engine.registry import Registry, kind_of
from engine.units import format_duration, format_size
from tests.log_actions import actions_table

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
MARKED = re.compile(r"<!-- table: (?P<name>[\w.:-]+) -->\n(?P<body>.*?)<!-- /table -->", re.DOTALL)

_CONFIG_TABLES: tuple[type[Struct], ...] = (
    EngineSettings, LogsTable, ReserveTable, QueueTable, DefaultsTable, RetryTable, LogTable, StoreTable, KeepTable,
    HttpTable, CalendarTable, ConditionTable, OtherwiseTable, MaintenanceTable, ScopeTable, SourceTable, Shared,
    MetricsTable, NotifyTable, TracingTable, AlertTable, WhenTable, AlertScopeTable,
    JobTable, JobNotifyTable, CallbackTable,
    TriggerTable, PresetTable, RetryChangeTable, RetryOnTable, BreakerTable, DebounceTable, BatchTable, InputTable,
    JoinTable, ThrottleTable, RateLimitTable, DedupeTable, MisfireTable, AdaptiveTable, SecurityTable, RedactTable,
    SchemaFile, LimitsTable, TrustedHeaderTable,
)  # fmt: skip
_WORDS = {
    "job": "name of a job", "trigger": "name of a trigger", "source_name": "name of a source",
    "preset": "name of a preset", "condition": "name of a condition",
    "notify": "name of a `[notify.NAME]`",
    "calendar": "name of a calendar",
    "str": "text", "secret": "secret", "timezone": "time zone", "expression": "CEL", "template": "template",
    "listen": "address", "store_url": "URL", "int": "whole number", "float": "number", "bool": "true or false",
    "duration": "duration", "size": "size", "path": "path", "data": "table", "data_templates": "table of templates",
    "any": "any value", "datetime": "date and time", "moment": "instant or local time", "date": "date", "time": "time",
}  # fmt: skip
_SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
_EVERYWHERE = SHARED | {"help"}


def builtin_plugins() -> list[type[Plugin]]:
    """Return the plugins that come with the engine and that tables name, by kind and name."""
    own = [
        entry for entry in Registry.discover().plugins()
        if entry.cls is not None and entry.cls.__module__.startswith("plugins.")
    ]  # fmt: skip
    # Channels are the engine's way to what `[notify.NAME]` and `callback` say.
    return [entry.cls for entry in own if entry.cls is not None and entry.kind != "channel"]


def definitions() -> dict[str, type[Struct]]:
    """Return every struct of settings that the documentation has a table of, by its name in the schema."""
    found: dict[str, type[Struct]] = {cls.__qualname__: cls for cls in _CONFIG_TABLES}
    for plugin in builtin_plugins():
        found[f"{kind_of(plugin)}.{plugin.name}"] = plugin
        for cls in _structs_in(plugin):
            found[f"{cls.__module__}.{cls.__qualname__}"] = cls
    return found


def tables() -> dict[str, str]:
    """Return all tables by name."""
    described = schema_of(Registry.discover())["$defs"]
    made = {name: settings_table(cls, described[name]) for name, cls in definitions().items()}
    every_timer = settings_table(Timer, described["timer.interval"])
    more = {"every-timer": every_timer, "presets": presets_table()}
    more |= {"log-actions": actions_table()}
    more |= {"metrics": metrics_table(FAMILIES), "metrics-aliases": metrics_table(ALIASES)}
    return {**made, **more, "routes": routes_table(), "commands": commands_table()}


def settings_table(cls: type[Struct], described: Mapping[str, Any]) -> str:
    """Return the keys of a table of the configuration: type, default, meaning; of a timer those that are its own."""
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for field in fields_of(cls):
        of_every_timer = issubclass(cls, Timer) and cls is not Timer and field.name in TIMER_FIELDS
        if field.shape.inline or of_every_timer:
            continue
        known = described["properties"][field.key]
        default = "required" if field.required else f"`{_toml(known['default'])}`" if "default" in known else "none"
        if "Default:" in known.get("description", ""):
            default = "see there"
        main = " *" if issubclass(cls, Plugin) and cls.main == field.name else ""
        text = _capital(known.get("description", ""))
        lines.append(f"| `{field.key}`{main} | {_cell(_type(field.shape))} | {_cell(default)} | {_cell(text)} |")
    return "\n".join(lines) + "\n"


def routes_table() -> str:
    """Return all routes that the engine answers, but for those of sources below /hooks/."""
    lines = ["| method | path | role | what |", "|---|---|---|---|"]
    for route in ROUTES:
        role = "none" if route.role is None else route.role.name.lower()
        lines.append(f"| {route.method} | `{route.pattern}` | {role} | {route.summary} |")
    return "\n".join(lines) + "\n"


def commands_table() -> str:
    """Return all commands with the options that are their own."""
    lines = ["| command | what it does | its options |", "|---|---|---|"]
    for name, command in _commands(typer.main.get_command(app), ()):
        own = [parameter for parameter in command.params if parameter.name not in _EVERYWHERE]
        arguments = [
            parameter.metavar or parameter.name.upper() for parameter in own if parameter.param_type_name == "argument"
        ]
        options = [
            f"`{'/'.join(parameter.opts)}` {parameter.help or ''}".strip()
            for parameter in own
            if parameter.param_type_name == "option"
        ]
        title = " ".join([*name, *arguments])
        title = title.replace("|", "\\|")
        lines.append(f"| `{title}` | {_cell(command.help or '')} | {_cell('<br>'.join(options) or '–')} |")
    return "\n".join(lines) + "\n"


def presets_table() -> str:
    """Return the presets that are built in, in words, and what triggers have to give."""
    lines = ["| preset | what a trigger with it does | to be given |", "|---|---|---|"]
    for name, preset in standard(Registry.discover()).items():
        given = "<br>".join(f"`{key}`: {meaning}" for key, meaning in preset.parameters.items())
        lines.append(f"| `{name}` | {_cell(preset.description)} | {_cell(given or '–')} |")
    return "\n".join(lines) + "\n"


def metrics_table(families: tuple[Family, ...]) -> str:
    """Return metrics with their kinds, labels and meanings."""
    lines = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for family in families:
        labels = ", ".join(f"`{label}`" for label in family.labels) or "–"
        lines.append(f"| `{family.name}` | {family.kind.value} | {labels} | {_cell(family.says)} |")
    return "\n".join(lines) + "\n"


def _commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if path:
        yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, (*path, name))


def _structs_in(cls: type[Struct]) -> Iterator[type[Struct]]:
    for field in fields_of(cls):
        for shape in field.shape.alternatives():
            if shape.kind == "struct":
                yield shape.cls
                yield from _structs_in(shape.cls)


def _type(shape: Shape) -> str:
    if shape.kind == "union":
        return " or ".join(dict.fromkeys(_type(item) for item in shape.items))
    if shape.kind in ("literal", "enum"):
        return " or ".join(f"`{_toml(choice)}`" for choice in shape.choices)
    if shape.kind == "struct":
        return "table, below"
    if shape.kind == "list":
        return f"list of {_type(shape.items[0])}"
    if shape.kind == "dict":
        return f"table of {_type(shape.items[0])}"
    if shape.kind == "plugin":
        return f"table with one {shape.of}" if shape.of in ("runner", "condition") else "table with one source"
    bounds = [f"{_SIGNS[name]} {_bound(shape.kind, value)}" for name, value in shape.bounds.items() if name in _SIGNS]
    return " ".join([_WORDS[shape.kind], ", ".join(bounds)]).strip()


def _bound(kind: str, value: Any) -> str:
    if kind == "duration":
        return format_duration(value)
    return format_size(value) if kind == "size" else str(value)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        inner = ", ".join(f"{key} = {_toml(item)}" for key, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    return str(value)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main() -> None:
    """Write the tables in docs/ anew."""
    made = tables()
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text("utf-8")
        fresh = MARKED.sub(lambda match: f"<!-- table: {match['name']} -->\n{made[match['name']]}<!-- /table -->", text)
        if fresh != text:
            page.write_text(fresh, "utf-8")
            sys.stdout.write(f"{page.relative_to(ROOT)} was written anew\n")


if __name__ == "__main__":
    main()
