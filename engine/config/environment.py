"""Overrides from the environment: `ENGINE__HTTP__LISTEN=0.0.0.0:80` stands for `listen` in `[http]`."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from engine.config.document import Node, Place, Problems, show_value
from engine.config.model import Root
from engine.config.plugin_tables import as_table, main_key, plugins_of
from engine.config.shapes import SCALAR_KINDS, TEXT_KINDS, Shape, fields_of
from engine.errors import PluginError
from engine.plugin import Plugin
from engine.registry import Registry

PREFIX = "ENGINE__"
FILE = "environment"
"""What problems of overrides name as their file."""

_TEXTS = TEXT_KINDS | {"path", "duration", "size", "literal", "enum"}


_OF_PRESETS = re.compile(rf"{PREFIX}(PRESETS__.+|TRIGGERS__.+__PRESET)", re.IGNORECASE)


def split_overrides(environment: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the overrides that tell which presets there are and who has them, and all others.

    The others go over what triggers and jobs have from their presets.
    """
    first = {name: text for name, text in environment.items() if _OF_PRESETS.fullmatch(name)}
    return first, {name: text for name, text in environment.items() if name not in first}


@dataclass(frozen=True)
class _Target:
    """A place that a variable may set: the keys to it, the plugin that each key names, and its shape."""

    keys: tuple[str, ...]
    plugins: tuple[type[Plugin] | None, ...]
    shape: Shape

    @property
    def variable(self) -> str:
        return PREFIX + "__".join(_folded(key).upper() for key in self.keys)


class Overrides:
    """Lays the variables that begin with `ENGINE__` over a document.

    The rest of a variable's name is a path of keys joined by `__`, matched without regard to case; `-` and
    `.` in names are written `_`. Only single values can be set, and jobs, triggers and plugins only where a
    file names them; everything else is a problem.
    """

    def __init__(self, registry: Registry, problems: Problems, base: Path, order: int) -> None:
        self._registry = registry
        self._problems = problems
        self._place = Place(FILE, 0, base, order)

    def apply(self, root: Node, environment: Mapping[str, str], *, incomplete: bool) -> None:
        """Change `root`. Where it is `incomplete`, unknown paths may be in what could not be read."""
        for variable in sorted(environment):
            if not variable.upper().startswith(PREFIX):
                continue
            rest = variable[len(PREFIX) :].lower()
            targets = list(self._targets(Shape("struct", cls=Root), root, rest, (), ())) if rest else []
            places = {target.keys for target in targets}
            if len(places) > 1:
                shown = " and ".join(".".join(keys) for keys in sorted(places))
                self._problems.add(self._place, variable, f"could mean {shown}", "set it in a file instead")
            elif targets:
                self._set(root, targets, variable, environment[variable])
            elif not incomplete:
                self._problems.add(self._place, variable, "overrides nothing that there is", self._near(root, rest))

    def _targets(
        self, shape: Shape, node: Node | None, rest: str, keys: tuple[str, ...], plugins: tuple[Any, ...]
    ) -> Iterator[_Target]:
        """Yield the places that the rest of a variable's name leads to; an empty rest is the place itself."""
        if not rest:
            yield _Target(keys, plugins, shape)
            return
        for key, below, plugin, child in self._children(shape, node):
            folded = _folded(key)
            if rest == folded:
                yield _Target((*keys, key), (*plugins, plugin), below)
            elif rest.startswith(f"{folded}__"):
                after = rest[len(folded) + 2 :]
                if after:
                    yield from self._targets(below, child, after, (*keys, key), (*plugins, plugin))

    def _children(
        self, shape: Shape, node: Node | None
    ) -> Iterator[tuple[str, Shape, type[Plugin] | None, Node | None]]:
        """Yield the keys that a table of this shape may have or has, with shape, plugin and node."""
        present: dict[str, Node] = node.value if node is not None and isinstance(node.value, dict) else {}
        for item in shape.alternatives():
            if item.kind == "struct":
                for field in fields_of(item.cls):
                    if field.shape.inline:
                        yield from self._children(field.shape, node)
                        continue
                    yield field.key, field.shape, None, present.get(field.key)
            elif item.kind == "dict":
                for key, child in present.items():
                    yield key, item.items[0], None, child
            elif item.kind in ("data", "data_templates", "any"):
                for key, child in present.items():
                    yield key, Shape("any"), None, child
            elif item.kind == "plugin":
                known = plugins_of(self._registry, item.of)
                for key, child in present.items():
                    if key in known:
                        try:
                            below, table = _settings(known[key]), as_table(known[key], child, ())
                        except PluginError:  # told when its table is read
                            continue
                        yield key, below, known[key], table

    def _set(self, root: Node, targets: list[_Target], variable: str, text: str) -> None:
        target = targets[0]
        node = root
        for depth, (key, plugin) in enumerate(zip(target.keys[:-1], target.plugins, strict=False)):
            child = node.value.get(key)
            if child is None:
                child = Node({}, self._place, None)
            elif plugin is not None:
                child = as_table(plugin, child, target.keys[: depth + 1])
            if not isinstance(child.value, dict) or child.is_reference:
                child = Node({}, child.place, child.shown)
            node.value[key] = child
            node = child
        last = target.keys[-1]
        shapes = [shape for found in targets for shape in found.shape.alternatives()]
        current = node.value.get(last)
        plugin = target.plugins[-1]
        if plugin is not None:
            shapes = [shape for shape in shapes if shape.kind != "struct"]
            if current is not None and isinstance(current.value, dict) and plugin.main is not None:
                # The main field of a plugin whose settings stand there as a table: the others stay.
                node, last = current, main_key(plugin)
                current = node.value.get(last)
        try:
            value = _parse(shapes, text, current)
        except ValueError as error:
            self._problems.add(self._place, variable, str(error))
            return
        node.value[last] = Node(value, self._place, variable)

    def _near(self, root: Node, rest: str) -> str | None:
        known = [target.variable for target in self._scalars(Shape("struct", cls=Root), root, (), ())]
        close = difflib.get_close_matches((PREFIX + rest).upper(), known, n=1)
        return f"did you mean {close[0]}?" if close else "it is ENGINE__ and the path of keys, joined by __"

    def _scalars(
        self, shape: Shape, node: Node | None, keys: tuple[str, ...], plugins: tuple[Any, ...]
    ) -> Iterator[_Target]:
        if any(item.kind in SCALAR_KINDS for item in shape.alternatives()):
            yield _Target(keys, plugins, shape)
        for key, below, plugin, child in self._children(shape, node):
            yield from self._scalars(below, child, (*keys, key), (*plugins, plugin))


def _settings(cls: type[Plugin]) -> Shape:
    """Return the shape of a plugin's settings: its table, or its main field."""
    table = Shape("struct", cls=cls)
    main = [field.shape for field in fields_of(cls) if field.name == cls.main]
    return Shape("union", items=(table, *main[0].alternatives())) if main else table


def _folded(key: str) -> str:
    return key.lower().replace("-", "_").replace(".", "_")


def _parse(shapes: list[Shape], text: str, current: Node | None) -> Any:
    """Read a variable's text as one of the types that are expected; text where it is none of the others.

    Raises ValueError, in words, where no single value is expected there, or the text is no Unicode.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("is not valid UTF-8") from None
    if any(shape.kind == "any" for shape in shapes):
        if current is not None and isinstance(current.value, (dict, list)):
            raise ValueError(f"overrides {show_value(current.value)}; only single values can be set here")
        return _parse_as({type(current.value)} if current is not None else {str}, text)
    scalars = [shape for shape in shapes if shape.kind in SCALAR_KINDS]
    if not scalars:
        raise ValueError("overrides a table or list; only single values can be set here")
    expected: set[type] = set()
    for shape in scalars:
        if shape.kind in ("literal", "enum"):
            expected |= {type(choice) for choice in shape.choices}
        elif shape.kind in _TEXTS:
            expected.add(str)
        else:
            types: dict[str, type] = {"int": int, "float": float, "bool": bool}
            expected.add(types.get(shape.kind, datetime))
    return _parse_as(expected, text)


def _parse_as(expected: set[type], text: str) -> Any:
    """Return the value that TOML would read, where it is of an expected type, else the text."""
    try:
        value = tomllib.loads(f"value = {text.strip().lower() if bool in expected else text.strip()}")["value"]
    except ValueError:
        return text
    if expected & {datetime, date, time} and isinstance(value, (datetime, date, time)):
        return value
    wanted = type(value) in expected or (type(value) is int and float in expected)
    return value if wanted and not isinstance(value, (str, list, dict)) else text
