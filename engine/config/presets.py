"""Presets: templates of triggers, laid under what triggers say themselves.

They are laid under the documents, before these are read: all that reads, checks, overrides and describes triggers works
on what comes from a preset as if it had been written there. It stands at the line that names the preset.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from engine.config.document import KeyPath, Node, Place, Problems, node_of, show_path, show_value
from engine.config.model import Preset, Root, TriggerTable
from engine.config.plugin_tables import SettingsReader, as_table, plugins_of
from engine.config.references import References
from engine.config.scalars import near
from engine.config.shapes import fields_of
from engine.errors import PluginError
from engine.plugin import Plugin
from engine.registry import Registry

BUILT_IN = "presets.toml"
"""The file, beside this one, with the presets that come with the engine."""

_ITS_OWN = frozenset({"description", "parameters", "preset"})
"""What a preset says of itself: no trigger gets it."""


@cache
def built_in() -> Mapping[str, Node]:
    """Return the presets that come with the engine, as they are written, by name."""
    text = resources.files("engine.config").joinpath(BUILT_IN).read_text("utf-8")
    tables: dict[str, Node] = node_of(tomllib.loads(text), Place(BUILT_IN, 0, Path(), 0)).value
    return tables


class Presets:
    """The presets of a configuration, and what they were laid under; the key paths are those of `root`.

    Changes `root`. What is wrong with a preset is told where it stands, once, and not again for each of its triggers.
    """

    def __init__(self, root: Node, reader: SettingsReader) -> None:
        self._root = root
        self._reader = reader
        self._known = plugins_of(reader.registry, "on")
        self._written: Mapping[str, Node] = _tables(root, "presets")
        self._chains: dict[str, tuple[str, ...]] = {}
        self._circular: set[str] = set()
        self._laid: dict[KeyPath, tuple[Preset, Node]] = {}
        reader.named["preset"] = built_in().keys() | self._written.keys()
        self.by_name: dict[str, Preset] = {}
        for name in sorted(reader.named["preset"]):
            if isinstance(self._written.get(name, Node({}, root.place)).value, dict):
                self.by_name[name] = self._preset(name)

    def lay(self) -> None:
        """Lay the presets under the triggers that name them."""
        path: KeyPath
        for name, table in _tables(self._root, "triggers").items():
            path = ("triggers", name)
            if not isinstance(table.value, dict) or "preset" not in table.value:
                continue
            preset = self.by_name.get(self._text(table.value["preset"], (*path, "preset")) or "")
            if preset is None:  # told when it is read
                self._reader.unfinished.add(path)
                continue
            self._laid[path] = (preset, table)
            self._root.value["triggers"].value[name] = lay_under(table, path, preset, self._known)

    def read(self) -> None:
        """Tell what is wrong with the presets that the configuration has; what they were laid under is read without."""
        wrong = set(self._circular)
        table = self._root.value.get("presets")
        shape = next(field.shape for field in fields_of(Root) if field.key == "presets")
        if table is not None and not isinstance(table.value, dict):
            self._reader.read(shape, table, ("presets",))
        for name, node in self._written.items():
            told = len(self._reader.problems)
            self._reader.read(shape, Node({name: node}, node.place), ("presets",))
            self._check_parameters(name, node)
            if len(self._reader.problems) > told:
                wrong.add(name)
        for path, (preset, before) in self._laid.items():
            if not wrong.isdisjoint(self._chains[preset.name]):
                self._root.value["triggers"].value[path[1]] = before
                self._reader.unfinished.add(path)
            # By now the environment may have given what is missing.
            elif not self._reader.incomplete and tell_missing(
                self._root.nearest(path), path, preset, self._reader.problems
            ):
                self._reader.unfinished.add(path)

    def _preset(self, name: str) -> Preset:
        """Return a preset with all that it has from those that it names, from the nearest to the farthest."""
        own = self._own(name)
        chain, settings, parameters = [name], own, _texts(own.value.get("parameters"))
        while (above := settings.value.get("preset")) is not None:
            path: KeyPath = ("presets", chain[-1], "preset")
            following = self._text(above, path)
            if following in chain:
                circle = " → ".join([*chain, following])
                self._reader.problems.at(above, path, f"goes round in a circle: {circle}", "leave one of them out")
                self._circular.update(chain)
                break
            if following is None or following not in self._reader.named["preset"]:
                break  # told when it is read
            chain.append(following)
            lower = self._own(following)
            rest = Node({key: node for key, node in settings.value.items() if key != "preset"}, settings.place)
            parameters = {**_texts(lower.value.get("parameters")), **parameters}
            settings = overlay(lower, rest, self._known)
        self._chains[name] = tuple(chain)
        written = self._written.get(name)
        described = own.value.get("description")
        return Preset(
            name=name,
            description=described.value if described is not None and isinstance(described.value, str) else "",
            settings=Node({key: node for key, node in settings.value.items() if key not in _ITS_OWN}, settings.place),
            parameters={key: text for key, text in parameters.items() if not _says(settings, key.split("."))},
            defined_in=None if written is None else f"{written.place.file}:{written.place.line}",
            changed=() if written is None or name not in built_in() else tuple(_changes(written)),
        )

    def _own(self, name: str) -> Node:
        """Return what a preset says itself: for a built-in one, with what the configuration lays over it."""
        written = self._written.get(name, Node({}, self._root.place))
        upper = written if isinstance(written.value, dict) else Node({}, written.place)
        return overlay(built_in()[name], upper, self._known) if name in built_in() else upper

    def _text(self, node: Node, path: KeyPath) -> str | None:
        if node.is_reference:
            resolved = self._reader.references.resolve(node, path)
            return None if resolved is None else resolved[0]
        return node.value if isinstance(node.value, str) else None

    def _check_parameters(self, name: str, node: Node) -> None:
        """Tell of parameters that are no settings of the preset: no trigger could give them."""
        table = node.value.get("parameters") if isinstance(node.value, dict) else None
        if table is None or not isinstance(table.value, dict) or name not in self.by_name:
            return
        possible = set(_possible(self.by_name[name].settings, self._known))
        for key, child in table.value.items():
            path = ("presets", name, "parameters", key)
            if child.is_reference:
                self._reader.problems.at(child, path, "found a reference, expected text that says what it is")
            if key not in possible:
                self._reader.problems.at(child, path, "is no setting of this preset's triggers", near(key, possible))


def standard(registry: Registry) -> dict[str, Preset]:
    """Return the presets that there are without any configuration."""
    reader = SettingsReader(Problems(), References({}, Problems()), registry)
    return Presets(Node({}, Place(BUILT_IN, 0, Path(), 0)), reader).by_name


def lay_under(table: Node, path: KeyPath, preset: Preset, known: Mapping[str, type[Plugin]]) -> Node:
    """Return a trigger's table with a preset under it."""
    lower = _at_use(preset.settings, preset.name, table.value["preset"].place)
    return overlay(lower, table, known, (*path, "on"))


def tell_missing(table: Node, path: KeyPath, preset: Preset, problems: Problems) -> bool:
    """Tell which of a preset's parameters a trigger does not give; return whether there are any."""
    missing = False
    on = table.value.get("on")
    for key, meaning in preset.parameters.items():
        keys = key.split(".")
        elsewhere = keys[0] == "on" and not (on is not None and isinstance(on.value, dict) and keys[1] in on.value)
        if not elsewhere and not _says(table, keys):
            missing = True
            message = f"missing; preset {show_value(preset.name)} needs it: {meaning}"
            problems.add(
                table.value["preset"].place, show_path((*path, *keys)), message, f"add {key} = … to the trigger"
            )
    return missing


def overlay(lower: Node, upper: Node, known: Mapping[str, type[Plugin]], path: KeyPath = ()) -> Node:
    """Lay a table over a preset: tables merge by key, everything else is replaced.

    The source or timer is one thing: another one replaces it, the same one has its settings merged. A value stands for
    the main setting there, for `wait` in `debounce` and `window` in `join`. `path` is that of the upper one's `on`.
    """
    for key, main in (("debounce", "wait"), ("join", "window")):
        if all(key in table.value for table in (lower, upper)):
            lower, upper = (_as_table(table, key, main) for table in (lower, upper))
    laid = _lay(lower, upper)
    below, above = lower.value.get("on"), upper.value.get("on")
    if below is not None and above is not None:
        laid.value["on"] = _overlay_on(below, above, known, path)
    return laid


def _as_table(table: Node, key: str, main: str) -> Node:
    """Return a table in which what stands at a key is a table: a value stands for its main setting."""
    child = table.value[key]
    if isinstance(child.value, dict):
        return table
    as_written = Node({main: child}, child.place, child.shown)
    return Node({**table.value, key: as_written}, table.place, table.shown)


def _overlay_on(lower: Node, upper: Node, known: Mapping[str, type[Plugin]], path: KeyPath) -> Node:
    if upper.value == {}:
        return lower
    same = isinstance(lower.value, dict) and isinstance(upper.value, dict) and lower.value.keys() == upper.value.keys()
    if not same or len(upper.value) != 1:
        return upper
    ((name, above),) = upper.value.items()
    below = lower.value[name]
    if name in known:
        try:
            above, below = as_table(known[name], above, (*path, name) if path else ()), as_table(known[name], below, ())
        except PluginError:  # told when it is read
            return upper
    return Node({name: _lay(below, above)}, upper.place, upper.shown)


def _lay(lower: Node, upper: Node) -> Node:
    """Lay one value over another; a table that is merged stands where the upper one does."""
    tables = isinstance(lower.value, dict) and isinstance(upper.value, dict)
    if not tables or lower.is_reference or upper.is_reference:
        return upper
    merged = dict(lower.value)
    for key, child in upper.value.items():
        merged[key] = _lay(merged[key], child) if key in merged else child
    return Node(merged, upper.place, upper.shown)


def _at_use(node: Node, preset: str, use: Place) -> Node:
    """Return a copy of what a preset says that stands where it is named; paths stay relative to the preset's file."""
    place = Place(use.file, use.line, node.place.base, use.order, f"from preset {preset}")
    value = node.value
    if isinstance(value, dict):
        value = {key: _at_use(child, preset, use) for key, child in value.items()}
    elif isinstance(value, list):
        value = [_at_use(child, preset, use) for child in value]
    return Node(value, place)


def _tables(root: Node, key: str) -> Mapping[str, Node]:
    table = root.value.get(key)
    return dict(table.value) if table is not None and isinstance(table.value, dict) else {}


def _texts(node: Node | None) -> dict[str, str]:
    pairs = node.value if node is not None and isinstance(node.value, dict) else {}
    return {key: child.value for key, child in pairs.items() if isinstance(child.value, str)}


def _leaves(node: Node, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    if isinstance(node.value, dict) and not node.is_reference:
        for key, child in node.value.items():
            yield from _leaves(child, (*path, key))
    else:
        yield path, node.plain()


def _says(table: Node, path: Sequence[str | int]) -> bool:
    """Tell whether there is a value at a path, or one on the way to it that is no table."""
    node = table
    for key in path:
        if not isinstance(node.value, dict) or node.is_reference:
            return True
        if key not in node.value:
            return False
        node = node.value[key]
    return True


def _changes(written: Node) -> Iterator[str]:
    for leaf, _ in _leaves(written, ()):
        if leaf[0] not in ("description", "parameters"):
            yield show_path(leaf)


def _possible(settings: Node, known: Mapping[str, type[Plugin]]) -> Iterator[str]:
    """Yield the keys of all settings that a preset's triggers may have."""
    yield from (field.key for field in fields_of(TriggerTable) if field.key not in ("on", "preset"))
    on = settings.value.get("on")
    for name in on.value if on is not None and isinstance(on.value, dict) else ():
        if name in known:
            yield from (f"on.{name}.{field.key}" for field in fields_of(known[name]))
