"""Where each setting comes from: what was written, kept small, and told beside all that holds without being written.

What files, presets and the environment say is kept packed by the table, or its named part, that it is of: a hundred
thousand triggers take some twenty megabytes so. Only what somebody asks for is taken apart again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from engine.config.document import KeyPath, Node, Place, node_of, show_path
from engine.config.environment import FILE as ENVIRONMENT
from engine.config.joins import Several
from engine.config.model import Config, Root
from engine.config.plugin_tables import as_table, plugins_of
from engine.config.reader import keys_of, takes
from engine.config.references import MASK
from engine.config.schema import written
from engine.config.shapes import TEXT_KINDS, Field, Shape, fields_of
from engine.config.writing import toml
from engine.errors import PluginError
from engine.registry import Registry

Origin = Literal["file", "environment", "secret", "preset", "inherited", "default", "api", "override"]
"""Where a setting comes from: a line of a file; a variable that goes over files; a variable or file that a reference
names; a preset; another setting that stands for those that are left out; nowhere, it is always so; the store, where the
API has put it; what somebody has put in its place while the engine runs."""

API = "api"
"""Where definitions of the API stand, as views and problems say it."""

NAMED = tuple(field.key for field in fields_of(Root) if field.shape.kind == "dict" and field.key != "pools")
"""The tables that hold things by name."""

PLAIN = tuple(field.key for field in fields_of(Root) if field.key not in NAMED)
"""The tables that there is one of."""

_NOWHERE = Place("", 0, Path(), 0)

_FIELDS: Mapping[str, Field] = {field.key: field for field in fields_of(Root)}


class Setting(Struct, frozen=True, kw_only=True):
    """One setting as it holds.

    - `path`: its keys; `value`: as JSON, None where nothing is set, `***` for a secret.
    - `said`: in words, where that is from: `config.toml:12`, `ENGINE__HTTP__LISTEN`, …
    """

    path: KeyPath
    value: Any
    origin: Origin
    said: str

    @property
    def key(self) -> str:
        """The keys of its path as they are written, such as `engine.timezone`."""
        return show_path(self.path)

    @property
    def text(self) -> str | None:
        """The value as a file would have it, or as JSON where a file can't; None where nothing is set."""
        try:
            return None if self.value is None else toml(self.value)
        except ValueError:
            return json.dumps(self.value)

    def view(self) -> dict[str, Any]:
        """Return it as the API shows it."""
        return {"key": self.key, "value": self.value, "origin": self.origin, "said": self.said}


def pack(root: Node) -> dict[KeyPath, bytes]:
    """Return what a document says by the tables, and the named parts of tables, that it has."""
    packed: dict[KeyPath, bytes] = {}
    for key, table in root.value.items():
        if key in NAMED and isinstance(table.value, dict):
            packed |= {(key, name): _packed(child) for name, child in table.value.items()}
        else:
            packed[key,] = _packed(table)
    return packed


def keep_old(old: Mapping[KeyPath, bytes], new: Mapping[KeyPath, bytes], keys: Collection[str]) -> dict[KeyPath, bytes]:
    """Return what `new` says, but for some keys, such as `http.listen`, that are as `old` has them."""
    kept = dict(new)
    for key in keys:
        table, name = key.split(".", 1)
        before, after = (_unpacked(one.get((table,))) for one in (old, kept))
        merged = {**after.value, name: before.value.get(name)}
        kept[table,] = _packed(Node({key: child for key, child in merged.items() if child is not None}, after.place))
    return kept


class Origins:
    """Tells the settings of a configuration, each with where it comes from.

    `show` makes a value what anybody may see: it is given the value and all texts that are secret.
    """

    def __init__(self, config: Config, registry: Registry, show: Callable[[Any, Any], Any]) -> None:
        self._config = config
        self._registry = registry
        self._show = show
        self._inherited: Mapping[KeyPath, Setting] = {}

    def table(self, key: str) -> list[Setting]:
        """Return the settings of a table that there is one of, such as `engine`."""
        return list(self._value(_FIELDS[key].shape, _unpacked(self._config.written.get((key,))), (key,)))

    def named(self, key: str, name: str) -> list[Setting]:
        """Return the settings of what a table of files has by that name; none where it is not from there."""
        packed = self._config.written.get((key, name))
        return [] if packed is None else self._of(key, name, _unpacked(packed))

    def given(self, key: str, name: str, settings: Mapping[str, Any], said: str) -> list[Setting]:
        """Return the settings of what the API defines; `said` is by whom and since when."""
        return self._of(key, name, node_of(settings, Place(API, 0, Path(), 0, said)))

    def _of(self, key: str, name: str, node: Node) -> list[Setting]:
        if key == "jobs":
            self._inherited = {one.path[1:]: one for one in self.table("defaults")}
        try:
            return list(self._value(_FIELDS[key].shape.items[0], node, (key, name)))
        finally:
            self._inherited = {}

    def _value(self, shape: Shape, node: Node, path: KeyPath) -> Iterator[Setting]:
        kinds = {item.kind for item in shape.alternatives()}
        if not isinstance(node.value, dict):
            hidden = "secret" in kinds and "str" not in kinds
            yield self._leaf(node, path, MASK if hidden else _plain(node, shape))
        elif _is_reference(node, shape):
            yield self._leaf(node, path, MASK, reference=True)
        elif "plugin" in kinds:
            yield from self._plugin(shape.of, node, path)
        elif (table := _table_of(shape, node.value)) is None:
            yield self._leaf(node, path, _plain(node, shape))
        elif table.kind == "struct":
            yield from self._struct(table.cls, node, path)
        else:
            for key, child in node.value.items():
                yield from self._value(table.items[0], child, (*path, key))

    def _plugin(self, of: str, node: Node, path: KeyPath) -> Iterator[Setting]:
        known = plugins_of(self._registry, of)
        for name, child in node.value.items():
            cls, below = known.get(name), (*path, name)
            if cls is None:
                yield self._leaf(child, below, _plain(child, Shape("any")))
            elif issubclass(cls, Several):
                yield from self._value(fields_of(cls)[0].shape, child, below)
            else:
                try:
                    table = as_table(cls, child, below)
                except PluginError:  # it was usable when the configuration was read
                    table = child
                if isinstance(table.value, dict):
                    yield from self._struct(cls, table, below)
                else:
                    yield self._leaf(table, below, _plain(table, Shape("any")))

    def _struct(self, cls: type[Struct], node: Node, path: KeyPath) -> Iterator[Setting]:
        for field in fields_of(cls):
            if field.shape.inline:
                known = plugins_of(self._registry, field.shape.of)
                named = {key: child for key, child in node.value.items() if key in known}
                yield from self._plugin(field.shape.of, Node(named, node.place), path)
            elif (child := node.value.get(field.key)) is not None:
                yield from self._value(field.shape, child, (*path, field.key))
            elif not field.required:
                yield from self._left_out(field, (*path, field.key))

    def _left_out(self, field: Field, path: KeyPath) -> Iterator[Setting]:
        """Tell what holds for a setting that nothing says."""
        below = [one for key, one in self._inherited.items() if key[: len(path) - 2] == path[2:]]
        for one in below:
            of_files = one.origin != "default"
            said = f"[defaults], {one.said}" if of_files else one.said
            yield msgspec.structs.replace(
                one, path=(*path[:2], *one.path[1:]), origin="inherited" if of_files else "default", said=said
            )
        if below:
            return
        value = field.default if field.has_default else None
        if value is None and any(item.kind == "timezone" for item in field.shape.alternatives()):
            yield Setting(path=path, value=self._config.engine.timezone, origin="inherited", said="[engine] timezone")
            return
        if value is None and len(path) == 2 and path[0] in ("engine", "store"):
            value = getattr(getattr(self._config, path[0]), field.name)  # what it comes to on this machine
        if isinstance(value, Struct):
            for key, item in _leaves(written(value, field.shape)):
                yield self._default((*path, *key), item)
        else:
            yield self._default(path, written(value, field.shape))

    def _default(self, path: KeyPath, value: Any) -> Setting:
        return Setting(path=path, value=self._masked(value), origin="default", said="default")

    def _leaf(self, node: Node, path: KeyPath, value: Any, *, reference: bool = False) -> Setting:
        place = node.place
        where = f"{place.file}:{place.line}" if place.line else place.file
        origin: Origin = "file"
        if place.file == ENVIRONMENT:
            origin, where = "environment", node.shown or place.file
        elif place.file == API:
            origin, where = "api", place.origin
        elif place.origin:
            origin, where = "preset", f"{place.origin.removeprefix('from ')}, named in {where}"
        if reference:
            origin, where = "secret", f"{_behind(node)}, named in {where}"
        return Setting(path=path, value=value if value == MASK else self._masked(value), origin=origin, said=where)

    def _masked(self, value: Any) -> Any:
        return self._show(value, self._config.secrets)


def overridden(settings: list[Setting], changes: Mapping[str, Any], said: str, root: KeyPath) -> list[Setting]:
    """Return settings with what was put in the place of some of them; `said` is by whom, since when and why."""
    found = {one.path: one for one in settings}
    for key, value in _leaves(changes):
        path = (*root, *key)
        before = found.get(path)
        instead = "" if before is None or before.value is None else f"; {before.said} says {before.value}"
        found[path] = Setting(path=path, value=value, origin="override", said=f"{said}{instead}")
    return list(found.values())


def _is_reference(node: Node, shape: Shape) -> bool:
    """Tell whether a table stands for a text, as the reader of settings sees it."""
    texts = [item for item in shape.alternatives() if item.kind in TEXT_KINDS]
    return bool(texts) and node.is_reference and not any(takes(item, node.value) for item in shape.alternatives())


def _table_of(shape: Shape, value: Mapping[str, Any]) -> Shape | None:
    """Return the alternative whose table it is: of several the one that has most of its keys."""
    tables = [item for item in shape.alternatives() if item.kind in ("struct", "dict")]
    return max(tables, key=lambda item: len(keys_of(item) & value.keys()), default=None)


def _behind(node: Node) -> str:
    """Say what a reference refers to."""
    if "env" in node.value:
        return f"variable {node.value['env'].value}"
    return f"file {node.value['file'].value}"


def _plain(node: Node, shape: Shape) -> Any:
    """Return a value without places; texts of a list that stand elsewhere are secrets."""
    items = next((item.items[0] for item in shape.alternatives() if item.kind == "list"), None)
    if items is not None and isinstance(node.value, list):
        texts = {item.kind for item in items.alternatives()} & TEXT_KINDS
        secret = "secret" in texts and "str" not in texts
        return [MASK if secret or (texts and child.is_reference) else child.plain() for child in node.value]
    return node.plain()


def _leaves(value: Mapping[str, Any], path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from _leaves(item, (*path, key))
        else:
            yield (*path, key), item


def _packed(node: Node) -> bytes:
    return msgspec.msgpack.encode(_listed(node, _NOWHERE))


def _listed(node: Node, above: Place) -> list[Any]:
    """Return a node as a list: its value, and of its place what is another than that of the table above it."""
    value, place = node.value, node.place
    if isinstance(value, Struct):  # a plugin that code has made of its settings
        value = node_of(written(value, Shape("any")), place, node.shown).value
    if isinstance(value, dict):
        value = {key: _listed(child, place) for key, child in value.items()}
    elif isinstance(value, list):
        value = [_listed(child, place) for child in value]
    elif isinstance(value, (datetime, date, time)):
        value = value.isoformat()
    elif not isinstance(value, (str, int, float, bool, type(None))) or (type(value) is int and abs(value) >= 2**63):
        value = str(value)
    if node.shown or place.origin != above.origin or place.file != above.file:
        return [value, place.line, place.file, place.origin, node.shown]
    return [value] if place.line == above.line else [value, place.line]


def _unpacked(packed: bytes | None) -> Node:
    """Return what was packed; an empty table where that is nothing."""
    return Node({}, _NOWHERE) if packed is None else _node(msgspec.msgpack.decode(packed), _NOWHERE)


def _node(listed: list[Any], above: Place) -> Node:
    value, *rest = listed
    line = rest[0] if rest else above.line
    file, origin, shown = rest[1:] or (above.file, above.origin, None)
    place = Place(file, line, Path(), 0, origin)
    if isinstance(value, dict):
        value = {key: _node(child, place) for key, child in value.items()}
    elif isinstance(value, list):
        value = [_node(child, place) for child in value]
    return Node(value, place, shown)
