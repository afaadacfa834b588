"""Where the engine of a configuration is reached: all that a client needs, read apart from the rest.

A running engine is asked with the files as they are by now: half-edited, or in a shell in which its secrets are not
set. So no plugin is looked for, no secret resolved, and what stands elsewhere in the files is not judged.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from msgspec import Struct

from engine.config.addresses import parse_listen
from engine.config.document import Node, Place, Problems, merge, node_of
from engine.config.environment import Overrides
from engine.config.model import EngineSettings, HttpTable
from engine.config.reader import Reader
from engine.config.references import References
from engine.config.shapes import Shape
from engine.registry import Registry

_KEYS = {"engine": ("data", "plugins"), "http": ("listen",)}
_VARIABLES = frozenset({"ENGINE__ENGINE__DATA", "ENGINE__HTTP__LISTEN"})
_HEADER = re.compile(r"^[ \t]*\[", re.MULTILINE)
_WANTED_HEADER = re.compile(rf"[ \t]*\[[ \t]*(?:{'|'.join(_KEYS)})[ \t]*\]")


class Reach(Struct, frozen=True, kw_only=True):
    """Where the engine listens (`port` 0: any free one), and the folders of its data and of its own plugins."""

    host: str
    port: int
    data: Path
    plugins: tuple[Path, ...]


def reach(files: Sequence[Path], environment: Mapping[str, str]) -> Reach | None:
    """Read it from `files`, later ones over earlier ones, and from overrides in `environment`.

    Returns None where just these settings are wrong or can't be read: `load` tells what is wrong with them then.
    """
    problems = Problems()
    root = Node({}, Place(str(files[0]), 1, files[0].absolute().parent, 0))
    try:
        for order, file in enumerate(files):
            place = Place(str(file), 1, file.absolute().parent, order)
            root = merge(root, node_of(_tables(file.read_bytes().decode()), place))
    except (OSError, ValueError, RecursionError):
        return None
    overrides = {name: text for name, text in environment.items() if name.upper() in _VARIABLES}
    Overrides(Registry(), problems, root.place.base, len(files)).apply(root, overrides, incomplete=True)
    reader = Reader(problems, References(environment, problems))
    tables = (("engine", EngineSettings), ("http", HttpTable))
    engine, http = (reader.read(Shape("struct", cls=cls), _wanted(root, key), (key,)) for key, cls in tables)
    if len(problems):
        return None
    host, port = parse_listen(http.listen)
    return Reach(host=host, port=port, data=engine.data, plugins=engine.plugins)


def _tables(text: str) -> dict[str, object]:
    """Return the tables that are wanted; raise ValueError where they can't be told."""
    try:
        values = tomllib.loads(text)
    except ValueError:
        # The mistake may be in another table: what stands before the first one, and these, are read by themselves.
        starts = [0, *(match.start() for match in _HEADER.finditer(text)), len(text)]
        head, *parts = (text[start:end] for start, end in pairwise(starts))
        values = tomllib.loads("".join([head, *(part for part in parts if _WANTED_HEADER.match(part))]))
    return {key: values[key] for key in _KEYS if key in values}


def _wanted(root: Node, key: str) -> Node:
    """Return a table with the keys that are wanted alone."""
    table: Node = root.value.get(key, Node({}, root.place))
    if not isinstance(table.value, dict):
        return table
    return Node({name: table.value[name] for name in _KEYS[key] if name in table.value}, table.place)
