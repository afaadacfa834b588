"""TOML files as trees whose every value knows where it stands.

Values and syntax errors come from `tomllib`. It tells no lines, so they come from a second, tolerant parser
(tree-sitter): where the two should differ, only a line number is less exact.
"""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from enum import Enum
from pathlib import Path, PurePath
from typing import Any

import tree_sitter
import tree_sitter_toml

from engine.errors import ConfigProblem

KeyPath = tuple[str | int, ...]
"""Where a value stands: keys of tables and indexes of lists, from the root."""

REFERENCE_KEYS = frozenset({"env", "file", "generate"})
"""What a table holds that stands for a text."""

_PARSER = tree_sitter.Parser(tree_sitter.Language(tree_sitter_toml.language()))
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+\Z")
_STRING = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_KEYS_IN_PYTHON = re.compile(rf"\({_STRING}(?:, {_STRING})*,?\)")
"""A table's key as the parser of Python tells it: ('jobs', 'c')."""
_AT_LINE = re.compile(r" \(at line (\d+), column \d+\)$")
_AT_END = re.compile(r" \(at end of document\)$")
_LONGEST_SHOWN = 80
_DEEPEST = 100


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands: a file as it was named, its line (0: none), its directory, its rank.

    `origin` is where it came there from, in words, where it does not stand there itself.
    """

    file: str
    line: int
    base: Path
    order: int
    origin: str = ""


class Node:
    """A value of a document: a scalar, a dict of nodes or a list of nodes, with its place.

    `shown` is how problems name it where that is not its key path: the variable of an override, or the key
    that stands for a plugin's main field.
    """

    __slots__ = ("place", "shown", "value")

    def __init__(self, value: Any, place: Place, shown: str | None = None) -> None:
        self.value = value
        self.place = place
        self.shown = shown

    @property
    def is_reference(self) -> bool:
        """Whether it is a table that may stand for a text: `{ env = … }` or `{ file = … }`."""
        value = self.value
        return (
            isinstance(value, dict)
            and bool(value)
            and value.keys() <= REFERENCE_KEYS
            and not any(isinstance(child.value, (dict, list)) for child in value.values())
        )

    def nearest(self, path: Sequence[str | int]) -> Node:
        """Return the node at `path` below this one, or the last one on the way to it that is there."""
        node = self
        for key in path:
            try:
                node = node.value[key]
            except (KeyError, IndexError, TypeError):
                return node
        return node

    def plain(self) -> Any:
        """Return the value without places."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value


class Problems:
    """Collects what is wrong with a configuration, in any order, and tells it in the order of the files."""

    def __init__(self) -> None:
        self._found: list[tuple[int, int, ConfigProblem]] = []

    def __len__(self) -> int:
        return len(self._found)

    def add(self, place: Place, path: str, message: str, hint: str | None = None) -> None:
        """Add a problem at a place; `path` is the key path as it is shown."""
        problem = ConfigProblem(
            file=place.file,
            line=place.line,
            path=path,
            message=printable(f"{message} ({place.origin})" if place.origin else message),
            hint=printable(hint) if hint else None,
        )
        self._found.append((place.order, place.line, problem))

    def at(self, node: Node, path: KeyPath, message: str, hint: str | None = None) -> None:
        """Add a problem of the value at `path`."""
        self.add(node.place, node.shown or show_path(path), message, hint)

    def ordered(self) -> list[ConfigProblem]:
        """Return all problems once each, in the order of files and lines."""
        return list(dict.fromkeys(problem for *_, problem in sorted(self._found, key=lambda item: item[:2])))


def node_of(value: Any, place: Place, shown: str | None = None) -> Node:
    """Return a value of Python as a document would hold it.

    Mappings and sequences become tables and lists, paths and time spans become text; what has no form in TOML stays
    as it is, and is told as such when it is read. Raises ValueError for what is nested too deeply, or holds itself.
    """

    def build(value: Any, depth: int) -> Node:
        if depth > _DEEPEST:
            raise ValueError(f"it is nested deeper than {_DEEPEST} levels, or holds itself")
        if isinstance(value, Mapping):
            value = {str(key): build(child, depth + 1) for key, child in value.items()}
        elif isinstance(value, (list, tuple, set, frozenset)):
            value = [build(child, depth + 1) for child in value]
        elif isinstance(value, timedelta):
            value = f"{value.total_seconds():f}s"
        elif isinstance(value, Enum):
            value = value.value
        elif isinstance(value, PurePath):
            value = str(value)
        return Node(value, place, shown)

    return build(value, 0)


def read_document(file: Path, order: int, problems: Problems) -> Node | None:
    """Read one TOML file; what makes it unreadable is added to `problems`, and None returned."""
    base = file.absolute().parent
    start = Place(str(file), 1, base, order)
    try:
        source = file.read_bytes()
    except OSError as error:
        problems.add(Place(str(file), 0, base, order), "", f"can't be read: {error.strerror}")
        return None
    return read_source(source, start, problems)


def read_source(source: bytes, start: Place, problems: Problems) -> Node | None:
    """Read the content of a TOML file, which begins at `start`; as `read_document` does."""
    try:
        text = source.decode()
    except UnicodeDecodeError as error:
        line = source.count(b"\n", 0, error.start) + 1
        problems.add(Place(start.file, line, start.base, start.order), "", "is not UTF-8, which TOML must be")
        return None
    if text.startswith("\ufeff"):
        problems.add(start, "", "begins with a byte order mark", "save it as UTF-8 without one")
        return None
    try:
        return _with_places(tomllib.loads(text), _key_lines(source), start)
    except ValueError as error:
        line, message = _syntax_error(text, str(error))
        problems.add(Place(start.file, line, start.base, start.order), "", f"is no TOML: {message}")
        return None
    except RecursionError:
        problems.add(start, "", f"is nested deeper than {_DEEPEST} levels")
        return None


def merge(lower: Node, upper: Node) -> Node:
    """Lay a later document over an earlier one: tables merge by key, everything else is replaced.

    A reference (`{ env = … }`) replaces another as a whole.
    """
    if not (isinstance(lower.value, dict) and isinstance(upper.value, dict)):
        return upper
    if lower.is_reference and upper.is_reference:
        return upper
    merged = dict(lower.value)
    for key, child in upper.value.items():
        merged[key] = merge(merged[key], child) if key in merged else child
    return Node(merged, lower.place)


def show_path(path: Sequence[str | int]) -> str:
    """Write a key path as TOML does: `jobs.import.timeout`, `jobs."a.b".tags[0]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            key = part if _BARE_KEY.match(part) else show_value(part)
            text += f".{key}" if text else key
    return text


def show_value(value: Any) -> str:
    """Write a value as TOML does, in one short line that holds nothing unprintable."""
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False)
        text = printable(text)
        return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + '…"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if abs(value) < 10**30 else "a very large number"
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, dict):
        return "a table"
    return "a list" if isinstance(value, list) else repr(value)


def printable(text: str) -> str:
    """Escape what a terminal would obey or not show."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _syntax_error(text: str, message: str) -> tuple[int, str]:
    """Return the line of a syntax error, and the message without it."""
    if message.startswith("Cannot "):
        message = _KEYS_IN_PYTHON.sub(lambda keys: f"[{show_path(ast.literal_eval(keys[0]))}]", message)
    if match := _AT_LINE.search(message):
        return int(match[1]), message[: match.start()]
    if match := _AT_END.search(message):
        return text.rstrip().count("\n") + 1, f"{message[: match.start()]}, at the end of the file"
    # The one error without a line: an integer with more digits than Python reads.
    if match := re.search(r"\d[\d_]{4000,}", text):
        return text.count("\n", 0, match.start()) + 1, "a number has too many digits"
    return 1, message


def _with_places(values: dict[str, Any], lines: dict[KeyPath, int], start: Place) -> Node:
    def build(value: Any, path: KeyPath, line: int) -> Node:
        if len(path) > _DEEPEST:
            raise RecursionError
        line = lines.get(path, line)
        if isinstance(value, dict):
            value = {key: build(child, (*path, key), line) for key, child in value.items()}
        elif isinstance(value, list):
            value = [build(child, (*path, index), line) for index, child in enumerate(value)]
        return Node(value, Place(start.file, line, start.base, start.order))

    return build(values, (), 1)


def _key_lines(source: bytes) -> dict[KeyPath, int]:
    """Return the lines (from 1) of all keys and list elements."""
    lines: dict[KeyPath, int] = {}
    elements: dict[KeyPath, int] = {}
    for child in _PARSER.parse(source).root_node.children:
        if child.type == "pair":
            _pair_lines(child, (), lines)
        elif child.type in ("table", "table_array_element"):
            line = child.start_point[0] + 1
            path: KeyPath = ()
            keys = [key for part in child.children for key in _keys(part)]
            for position, key in enumerate(keys):
                path = (*path, key)
                last = position == len(keys) - 1
                if last and child.type == "table_array_element":
                    elements[path] = elements.get(path, -1) + 1
                    lines.setdefault(path, line)
                if path in elements:
                    path = (*path, elements[path])
                if last:
                    lines[path] = line
                else:
                    lines.setdefault(path, line)
            for part in child.children:
                if part.type == "pair":
                    _pair_lines(part, path, lines)
    return lines


def _pair_lines(pair: tree_sitter.Node, path: KeyPath, lines: dict[KeyPath, int]) -> None:
    if len(pair.children) < 3:
        return
    for key in _keys(pair.children[0]):
        path = (*path, key)
        lines.setdefault(path, pair.start_point[0] + 1)
    _value_lines(pair.children[-1], path, lines)


def _value_lines(value: tree_sitter.Node, path: KeyPath, lines: dict[KeyPath, int]) -> None:
    if value.type == "inline_table":
        for child in value.children:
            if child.type == "pair":
                _pair_lines(child, path, lines)
    elif value.type == "array":
        items = (child for child in value.children if child.is_named and child.type != "comment")
        for index, child in enumerate(items):
            lines[(*path, index)] = child.start_point[0] + 1
            _value_lines(child, (*path, index), lines)


def _keys(node: tree_sitter.Node) -> Iterator[str]:
    """Yield the parts of a key in order; they nest to the left, so a stack takes them apart."""
    stack = [node]
    while stack:
        part = stack.pop()
        if part.type == "dotted_key":
            stack.extend(reversed(part.children))
        elif part.type in ("bare_key", "quoted_key"):
            text = (part.text or b"").decode()
            yield text if part.type == "bare_key" else next(iter(tomllib.loads(f"{text} = 0")))
