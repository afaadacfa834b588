"""Walks over a document by the shapes of the settings, builds the structs, and collects all that is wrong."""

from __future__ import annotations

import logging
import math
import re
import shlex
from collections.abc import Collection
from datetime import date, datetime, time
from enum import Enum
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from engine.config.document import KeyPath, Node, Problems, show_path, show_value
from engine.config.references import References
from engine.config.scalars import Mismatch, check_bounds, convert, expected, fits, near, nearest, same
from engine.config.shapes import NAME_KINDS, SCALAR_KINDS, TEXT_KINDS, Shape, fields_of
from engine.errors import ExpressionError, InvalidEvent
from engine.expressions import JOB_NAMES, TRIGGER_NAMES, Expression, Template
from engine.payload import survey
from engine.plugin.settings import BadSetting, Secret

_log = logging.getLogger(__name__)


class _Bad(Enum):
    BAD = "bad"


BAD: Final = _Bad.BAD
"""What reading returns for a value that is wrong; the problem was told where it was found."""

_PART = re.compile(r"[^.\[\]]+")


class Reader:
    """Reads values of given shapes. `names` is what CEL expressions may use at the moment.

    `named` holds, for each of NAME_KINDS, the names that there are; those of a kind in `elsewhere` are not looked up.
    `sound` holds, for each table of named things, those that were read without a mistake.
    With `incomplete` set (a file could not be read), what is missing is no problem: it may stand there. So it is in
    tables that are `partial`: others complete them.
    """

    def __init__(self, problems: Problems, references: References) -> None:
        self.problems = problems
        self.references = references
        self.names: Collection[str] = TRIGGER_NAMES
        self.incomplete = False
        self.partial = False
        self.inherited: dict[type[Struct], Struct] = {}
        self.named: dict[str, Collection[str]] = {}
        self.elsewhere: Collection[str] = ()
        self.sound: dict[KeyPath, dict[str, Any]] = {}

    def read(self, shape: Shape, node: Node, path: KeyPath) -> Any:
        """Return the value of `node` as a shape has it, or BAD."""
        chosen = self._choose(shape, node)
        if chosen is None:
            found = "a value of another type" if _secret_only(shape) else show_value(node.value)
            self.problems.at(node, path, f"found {found}, expected {expected(shape)}", _form_hint(shape, node))
            return BAD
        if chosen.kind in TEXT_KINDS:
            return self._read_text(chosen, node, path)
        structured = {
            "list": self._read_list,
            "dict": self._read_dict,
            "struct": self._read_struct,
            "plugin": self.read_plugin,
            "any": self._read_data,
            "data": self._read_data,
            "data_templates": self._read_data_templates,
        }.get(chosen.kind)
        if structured is not None:
            return structured(chosen, node, path)
        try:
            return convert(chosen, node.value, node.place.base)
        except Mismatch as error:
            # A word that is none of the choices could have been meant for any of the alternatives.
            any_of = chosen.kind in ("literal", "enum")
            message = f"expected {expected(shape)}" if any_of else str(error)
            self.problems.at(node, path, f"found {show_value(node.value)}, {message}", error.hint)
            return BAD

    def read_fields(self, cls: type[Struct], node: Node, path: KeyPath) -> dict[str, Any] | _Bad:
        """Read a table as the fields of a struct, by Python name; what is left out has its default."""
        fields = [field for field in fields_of(cls) if not field.shape.inline]
        known = {field.key: field for field in fields}
        others = {key: child for key, child in node.value.items() if key not in known}
        values: dict[str, Any] = {}
        for inline in fields_of(cls):
            if inline.shape.inline:
                takes = self.plugin_names(inline.shape)
                named = {key: child for key, child in others.items() if key in takes}
                if not named and not inline.required:
                    continue  # none of them is the name of one: each is told as unknown
                named = named or others
                missing = not named and (self.incomplete or self.partial)
                table = Node(named, node.place, node.shown)
                values[inline.name] = BAD if missing else self.read(inline.shape, table, path)
                others = {key: child for key, child in others.items() if key not in named}
        for key, child in others.items():
            self.problems.at(child, (*path, key), "unknown key", near(key, known) or "it takes no keys")
        misspelt = {nearest(key, known) for key in others}
        sound = not others and all(value is not BAD for value in values.values())
        for field in fields:
            child = node.value.get(field.key)
            if child is not None:
                value = self.read(field.shape, child, (*path, field.key))
                sound = sound and value is not BAD
                values[field.name] = value
            elif cls in self.inherited:
                values[field.name] = getattr(self.inherited[cls], field.name)
            elif field.required:
                if not (self.incomplete or self.partial) and field.key not in misspelt:
                    message = f"missing; expected {expected(field.shape)}"
                    shown = f"{node.shown}.{field.key}" if node.shown else show_path((*path, field.key))
                    self.problems.add(node.place, shown, message, field.shape.description or None)
                sound = False
            elif isinstance(field.default, Path):
                # Also a default that is a relative path is relative to the file in which its table stands.
                values[field.name] = convert(Shape("path"), str(field.default), node.place.base)
        return values if sound else BAD

    def build(self, cls: type[Struct], values: dict[str, Any], node: Node, path: KeyPath) -> Any:
        """Make a struct of its fields' values; what it refuses is told at the field that it names."""
        try:
            return cls(**values)
        except BadSetting as error:
            self.refuse(error, cls, node, path)
        except Exception as error:  # __post_init__ is plugin code
            _log.debug("settings refused", exc_info=True, extra={"action": "config.refused"})
            # A sentence of others may hold what it likes, where it likes.
            said = self.references.masked(str(error))
            self.problems.at(node, path, said or f"refused with {type(error).__name__}")
        return BAD

    def refuse(self, error: BadSetting, cls: type[Struct], node: Node, path: KeyPath) -> None:
        """Tell of a BadSetting at the field that it names, such as `command`, `env.PATH` or `command[2]`."""
        keys = {field.name: field.key for field in fields_of(cls)}
        for position, part in enumerate(_PART.findall(error.field)):
            key: str | int = keys.get(part, part) if position == 0 else part
            if (isinstance(node.value, list) or (position and node.value is None)) and part.isdecimal():
                key = int(part)
            path = (*path, key)
            below = node.nearest((key,))
            shown = node.shown if below is node else below.shown
            node = Node(None, node.place, shown) if below is node else below
        self.problems.at(node, path, str(error), error.hint)

    def read_plugin(self, shape: Shape, node: Node, path: KeyPath) -> Any:
        """Read a table that names a plugin; what knows the plugins overrides this."""
        raise NotImplementedError

    def plugin_names(self, shape: Shape) -> Collection[str]:
        """Return the names that a table of plugins takes; what knows the plugins overrides this."""
        return ()

    def enter(self, cls: type[Struct], node: Node) -> None:
        """Called before the table of a struct is read, to set what its expressions may use."""

    def _choose(self, shape: Shape, node: Node) -> Shape | None:
        """Return the alternative that a value's TOML type asks for, or None."""
        value = node.value
        candidates = [item for item in shape.alternatives() if fits(item, value)]
        if node.is_reference and not any(takes(item, value) for item in candidates):
            candidates = [item for item in shape.alternatives() if item.kind in TEXT_KINDS] or candidates
        for item in candidates:
            if item.kind in ("literal", "enum") and any(same(value, choice) for choice in item.choices):
                return item
        open_ones = [item for item in candidates if item.kind not in ("literal", "enum")]
        if isinstance(value, dict) and len(open_ones) > 1:
            return max(open_ones, key=lambda item: len(keys_of(item) & value.keys()))
        exact = [item for item in open_ones if item.kind == type(value).__name__]
        return next(iter(exact or open_ones or candidates), None)

    def _read_text(self, shape: Shape, node: Node, path: KeyPath) -> Any:
        origin = "text"
        text, found = node.value, show_value(node.value)
        if isinstance(node.value, dict):
            resolved = self.references.resolve(node, path)
            if resolved is None:
                return BAD
            text, origin = resolved
            found = f"the text from {origin}"
        if shape.kind == "secret":
            if not text.strip():
                self.problems.at(node, path, "is empty, and an empty secret protects nothing")
                return BAD
            self.references.values.add(text)
            found = "a secret"
        try:
            convert(shape, text, node.place.base)
            self._compile(shape, text)
            self._look_up(shape, text)
        except Mismatch as error:
            self.problems.at(node, path, f"found {found}, {error}", error.hint)
            return BAD
        except ExpressionError as error:
            # What stands behind a reference is not repeated; the expression's own error would.
            secret = origin != "text"
            message = f"found {found}, which has mistakes" if secret else f"found {found}{_mistake(text, error)}"
            hint = _HTTP_HINT if "unknown name `http`" in str(error) else None
            self.problems.at(node, path, message, hint)
            return BAD
        return Secret(text, origin) if shape.kind == "secret" else text

    def _compile(self, shape: Shape, text: str) -> None:
        if shape.kind == "expression":
            Expression(text, self.names)
        elif shape.kind == "template":
            Template(text, self.names)

    def _look_up(self, shape: Shape, text: str) -> None:
        """Raise Mismatch for the name of something that is not there."""
        if shape.kind not in NAME_KINDS or self.incomplete or shape.kind in self.elsewhere:
            return
        names = self.named.get(shape.kind, ())
        if text in names:
            return
        table = NAME_KINDS[shape.kind]
        noun = "receiver" if table == "notify" else table.removesuffix("s")
        hint = near(text, names) if names else f"there are no {noun}s: a {noun} is a table [{table}.NAME]"
        raise Mismatch(f"but there is no such {noun}", hint)

    def _read_list(self, shape: Shape, node: Node, path: KeyPath) -> Any:
        values = [self.read(shape.items[0], child, (*path, index)) for index, child in enumerate(node.value)]
        if any(value is BAD for value in values):
            return BAD
        try:
            result = shape.cls(values)
            check_bounds(shape, result, node.value)
        except Mismatch as error:
            self.problems.at(node, path, f"found {len(values)} elements, {error}")
            return BAD
        return result

    def _read_dict(self, shape: Shape, node: Node, path: KeyPath) -> Any:
        result: dict[str, Any] = {}
        sound = True
        for key, child in node.value.items():
            try:
                convert(shape.key or shape, key, node.place.base)
            except Mismatch as error:
                self.problems.at(child, (*path, key), f"found {show_value(key)}, {error}", error.hint)
                sound = False
            result[key] = self.read(shape.items[0], child, (*path, key))
            sound = sound and result[key] is not BAD
        self.sound[path] = {key: value for key, value in result.items() if value is not BAD}
        return result if sound else BAD

    def _read_struct(self, shape: Shape, node: Node, path: KeyPath) -> Any:
        self.enter(shape.cls, node)
        values = self.read_fields(shape.cls, node, path)
        return BAD if values is BAD else self.build(shape.cls, values, node, path)

    def _read_data(self, shape: Shape, node: Node, path: KeyPath) -> Any:
        value = self._json(node, path)
        if value is BAD:
            return BAD
        try:
            survey(value)
        except InvalidEvent as error:
            self.problems.at(node, path, str(error))
            return BAD
        return value

    def _json(self, node: Node, path: KeyPath) -> Any:
        """Return a value as JSON has it: instants become RFC 3339 text."""
        value = node.value
        if isinstance(value, dict):
            result: Any = {key: self._json(child, (*path, key)) for key, child in value.items()}
            return BAD if any(item is BAD for item in result.values()) else result
        if isinstance(value, list):
            result = [self._json(child, (*path, index)) for index, child in enumerate(value)]
            return BAD if any(item is BAD for item in result) else result
        if isinstance(value, float) and not math.isfinite(value):
            self.problems.at(node, path, f"found {value}, which JSON can't hold")
            return BAD
        if isinstance(value, (datetime, date, time)):
            text = value.isoformat()
            return f"{text[:-6]}Z" if text.endswith("+00:00") else text
        return value

    def _read_data_templates(self, shape: Shape, node: Node, path: KeyPath) -> Any:
        return BAD if not self._check_templates(node, path) else self._read_data(shape, node, path)

    def _check_templates(self, node: Node, path: KeyPath) -> bool:
        children: list[tuple[str | int, Node]] = []
        if isinstance(node.value, dict):
            children = list(node.value.items())
        elif isinstance(node.value, list):
            children = list(enumerate(node.value))
        elif isinstance(node.value, str):
            try:
                Template(node.value, JOB_NAMES)
            except ExpressionError as error:
                found = show_value(node.value)
                self.problems.at(node, path, f"found {found}{_mistake(node.value, error)}")
                return False
        wrong = [key for key, child in children if not self._check_templates(child, (*path, key))]
        return not wrong


_HTTP_HINT = "`http` is there only where the source receives requests, such as a webhook"


def _mistake(text: str, error: ExpressionError) -> str:
    """Go on from `found "…"` with what is wrong in it, without saying the text again."""
    message, again = str(error), f"`{text}` "
    return f", which {message.removeprefix(again)}" if message.startswith(again) else f": {message}"


def keys_of(shape: Shape) -> frozenset[str]:
    """Return the keys that the table of a struct has."""
    return frozenset(field.key for field in fields_of(shape.cls)) if shape.kind == "struct" else frozenset()


def takes(shape: Shape, value: dict[str, Any]) -> bool:
    """Tell whether a table that looks like a reference is one of this shape's own."""
    if shape.kind == "struct":
        return value.keys() <= keys_of(shape)
    return shape.kind in ("dict", "data", "data_templates", "any")


def _secret_only(shape: Shape) -> bool:
    return any(item.kind == "secret" for item in shape.alternatives())


def _form_hint(shape: Shape, node: Node) -> str | None:
    """Offer the form that was left out: a duration's unit, a list's brackets, a table's key."""
    value = node.value
    for item in shape.alternatives():
        if item.kind == "duration" and type(value) in (int, float):
            return f'durations have a unit: "{value}s"'
        inner = item.items[0].alternatives() if item.kind == "list" else ()
        if type(value) is str and any(fits(each, value) for each in inner if each.kind != "secret"):
            words = _words(value) if item.items[0].kind == "template" else [value]
            return f"write [{', '.join(map(show_value, words))}]"
        if item.kind == "struct" and not isinstance(value, (dict, list)):
            for first in fields_of(item.cls)[:1]:
                takes = [inner for inner in first.shape.alternatives() if inner.kind in SCALAR_KINDS - {"secret"}]
                if any(fits(inner, value) for inner in takes):
                    return f"write {{ {first.key} = {show_value(value)} }}"
    return None


def _words(text: str) -> list[str]:
    """Return the arguments that a shell would make of a line."""
    try:
        return shlex.split(text) or [text]
    except ValueError:
        return [text]
