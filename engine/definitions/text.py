"""Definitions as TOML: what is exported is read back as the same, and exported again to the same bytes."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date, datetime, time
from typing import Any

from engine.clock import EPOCH
from engine.config.document import Node, Place, Problems, read_source, show_path
from engine.config.writing import toml, toml_key
from engine.defined import Key, Kind
from engine.definitions.kept import Kept
from engine.errors import ConfigError
from engine.ids import is_slug

HEAD = "# Jobs and triggers that the API of a trigger engine defines: `python -m engine import` takes them back.\n"


def written(kept: Mapping[Key, Kept]) -> str:
    """Return definitions as TOML, by name, jobs first; their settings by key."""
    parts = [HEAD]
    for key in sorted(kept):
        lines = [f"[{toml_key(key.kind.table, key.name)}]"]
        lines += [f"{toml_key(name)} = {toml(_sorted(value))}" for name, value in sorted(kept[key].settings.items())]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def read(content: bytes, place: Place) -> tuple[dict[Key, dict[str, Any]], dict[str, int]]:
    """Return the settings of all jobs and triggers that a TOML text defines, and the lines of all that stands in it.

    Raises ConfigError with all mistakes.
    """
    problems = Problems()
    root = read_source(content, place, problems)
    found: dict[Key, dict[str, Any]] = {}
    for table, node in (root.value if root is not None else {}).items():
        kind = next((kind for kind in Kind if kind.table == table), None)
        if kind is None or not isinstance(node.value, dict):
            hint = "the rest of a configuration stands in its files"
            problems.at(node, (table,), "only tables [jobs.NAME] and [triggers.NAME] can be imported", hint)
            continue
        for name, child in node.value.items():
            _read_one(Key(kind, name), child, found, problems)
    if len(problems):
        raise ConfigError(problems.ordered())
    return found, {} if root is None else dict(_lines(root, ()))


def placed(error: ConfigError, file: str, lines: Mapping[str, int]) -> ConfigError:
    """Return mistakes of definitions with their lines in the text that they came in, as far as they stand in one."""
    return ConfigError([
        replace(one, file=file, line=line) if (line := _line_of(one.path, lines)) else one for one in error.problems
    ])  # fmt: skip


def _line_of(path: str, lines: Mapping[str, int]) -> int | None:
    """Return the line of a key path, or of the nearest table around what is missing or was left to a default."""
    while path:
        if path in lines:
            return lines[path]
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return None


def _lines(node: Node, path: tuple[str | int, ...]) -> Iterator[tuple[str, int]]:
    if len(path) > 1:  # what is above is everybody's
        yield show_path(path), node.place.line
    if isinstance(node.value, (dict, list)):
        for name, child in node.value.items() if isinstance(node.value, dict) else enumerate(node.value):
            yield from _lines(child, (*path, name))


def _read_one(key: Key, node: Node, found: dict[Key, dict[str, Any]], problems: Problems) -> None:
    path = (key.kind.table, key.name)
    if not is_slug(key.name):
        problems.at(node, path, "is no name: letters, digits, '_', '.' and '-', at most 128")
    elif not isinstance(node.value, dict):
        problems.at(node, path, "expected a table")
    else:
        found[key] = _plain(node.plain())


def _plain(value: Any) -> Any:
    """Return a value of TOML as one of JSON: times become the text that stands for them."""
    if isinstance(value, dict):
        return {key: _plain(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_plain(child) for child in value]
    return value.isoformat() if isinstance(value, (datetime, date, time)) else value


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _sorted(child) for key, child in sorted(value.items())}
    return [_sorted(child) for child in value] if isinstance(value, (list, tuple)) else value


def has_no_form(settings: Mapping[str, Any], key: Key) -> str | None:
    """Say why settings can't be written as TOML and read back as they are; None where they can."""
    try:
        text = written({key: Kept(settings=dict(settings), created_at=EPOCH, updated_at=EPOCH)})
        back = tomllib.loads(text)[key.kind.table][key.name]
    except ValueError as error:
        return f"can't be written in a configuration: {error}"
    same = _plain(back) == _plain(dict(settings))
    return None if same else "is not the same any more once it is written in a configuration"
