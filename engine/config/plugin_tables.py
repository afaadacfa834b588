"""Tables that name a plugin: `on.<source or timer> = …` and `run.<runner> = …`."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

from msgspec import Struct
from msgspec.structs import asdict, replace

from engine.config.document import KeyPath, Node, Problems, show_path, show_value
from engine.config.maintenance import MaintenanceTable
from engine.config.model import JobTable, PresetTable, Shared, SourceTable, TriggerTable
from engine.config.reader import BAD, Reader
from engine.config.references import References
from engine.config.scalars import near, noun_of
from engine.config.shapes import TEXT_KINDS, Shape, fields_of
from engine.errors import PluginError
from engine.expressions import JOB_NAMES, TRIGGER_NAMES
from engine.plugin import BadSetting, Condition, Plugin, Runner, Source, Timer
from engine.registry import Kind, Registry, check_plugin

_log = logging.getLogger(__name__)

_KINDS: dict[str, tuple[Kind, ...]] = {"runner": ("runner",), "condition": ("condition",), "timer": ("timer",)}
_WANTED: dict[str, tuple[type[Plugin], ...]] = {
    "runner": (Runner,), "condition": (Condition,), "timer": (Timer,),
}  # fmt: skip


def plugins_of(registry: Registry, of: str) -> dict[str, type[Plugin]]:
    """Return the plugins that a table takes: runners, conditions, timers, or both sources and timers.

    In `on` that is also what names a shared one.
    """
    if of == "runner":
        return {**registry.runners}
    if of == "condition":
        return {**registry.conditions}
    if of == "timer":
        return {**registry.timers}
    found: dict[str, type[Plugin]] = {**registry.sources, **registry.timers}
    return {**found, Shared.name: Shared} if of == "on" else found


def names_of(cls: type[Plugin]) -> frozenset[str]:
    """Return what a plugin's expressions and templates may use, and those of the triggers on it."""
    return TRIGGER_NAMES if issubclass(cls, Source) and cls.gets_requests else JOB_NAMES


def main_key(cls: type[Plugin]) -> str:
    """Return the key of a plugin's main field."""
    return next(field.key for field in fields_of(cls) if field.name == cls.main)


def as_table(cls: type[Plugin], node: Node, path: KeyPath) -> Node:
    """Return a plugin's settings as a table: a value that is none stands for the main field.

    So does a reference, where the main field is text and the plugin has no settings of these names.
    """
    if cls.main is None:
        return node
    if isinstance(node.value, dict):
        fields = {field.key: field.shape for field in fields_of(cls)}
        takes_text = any(item.kind in TEXT_KINDS for item in fields[main_key(cls)].alternatives())
        if not (node.is_reference and takes_text) or node.value.keys() & fields.keys():
            return node
    main = _as_written(node, node.shown or show_path(path))
    return Node({main_key(cls): main}, node.place, node.shown)


def _as_written(node: Node, shown: str) -> Node:
    """Return a node whose problems, and those of its elements, are told by another name."""
    value = node.value
    if isinstance(value, list):
        value = [_as_written(child, f"{shown}[{index}]") for index, child in enumerate(value)]
    return Node(value, node.place, shown)


class SettingsReader(Reader):
    """A reader that knows the plugins. `timezone` is what timers get that name none.

    `unfinished` are the tables whose preset was wrong, which has been told: what they lack may stand there.
    """

    def __init__(self, problems: Problems, references: References, registry: Registry) -> None:
        super().__init__(problems, references)
        self.registry = registry
        self.timezone = "UTC"
        self.unfinished: set[KeyPath] = set()

    def read(self, shape: Shape, node: Node, path: KeyPath) -> Any:
        if not self.partial and (path in self.unfinished or shape.cls is PresetTable):
            self.partial = True
            try:
                return self.read(shape, node, path)
            finally:
                self.partial = False
        if shape.kind == "plugin" and isinstance(node.value, Plugin):
            return self._take(shape, node, path)
        if shape.cls is MaintenanceTable and isinstance(node.value, dict):
            return self._read_maintenance(shape, node, path)
        return super().read(shape, node, path)

    def _read_maintenance(self, shape: Shape, node: Node, path: KeyPath) -> Any:
        """Read a window, whose timer goes by the window's zone where it names none."""
        zone, outer = node.value.get("timezone"), self.timezone
        if zone is not None and isinstance(zone.value, str) and zone.value in available_timezones():
            self.timezone = zone.value
        try:
            return super().read(shape, node, path)
        finally:
            self.timezone = outer

    def enter(self, cls: type[Struct], node: Node) -> None:
        if issubclass(cls, JobTable):
            self.names = JOB_NAMES
        elif issubclass(cls, TriggerTable):
            on = node.value.get("on")
            if on is not None and isinstance(on.value, Plugin):
                self.names = names_of(type(on.value))
                return
            named = list(on.value) if on is not None and isinstance(on.value, dict) else []
            plugin = plugins_of(self.registry, "source").get(named[0]) if len(named) == 1 else None
            if named == [Shared.name]:
                plugin = self._shared_plugin(on.value[Shared.name])
            self.names = TRIGGER_NAMES if plugin is None else names_of(plugin)

    def _shared_plugin(self, node: Node) -> type[Plugin] | None:
        """Return the plugin of the shared source that `on.source` names, if that is right."""
        table = as_table(Shared, node, ()).value
        name = table["named"].value if isinstance(table, dict) and "named" in table else None
        source: SourceTable | None = self.sound.get(("sources",), {}).get(name) if isinstance(name, str) else None
        return None if source is None else type(source.on)

    def plugin_names(self, shape: Shape) -> Collection[str]:
        return plugins_of(self.registry, shape.of).keys()

    def read_plugin(self, shape: Shape, node: Node, path: KeyPath) -> Any:
        noun = noun_of(shape)
        known = plugins_of(self.registry, shape.of)
        if len(node.value) != 1:
            found = " and ".join(show_value(name) for name in node.value) or "none"
            self.problems.at(node, path, f"found {found}, expected exactly one {noun}", near("", known))
            return BAD
        ((name, child),) = node.value.items()
        path = (*path, name)
        if name not in known:
            self._unknown(shape.of, noun, name, child, path)
            return BAD
        outer, self.names = self.names, names_of(known[name])
        try:
            return self._read_settings(known[name], child, path)
        except PluginError as error:
            self.problems.at(child, path, f"the plugin {show_value(name)} can't be used: {error}")
            return BAD
        finally:
            self.names = outer

    def _unknown(self, of: str, noun: str, name: str, node: Node, path: KeyPath) -> None:
        kinds: tuple[Kind, ...] = _KINDS.get(of, ("source", "timer"))
        broken = self.registry.broken(name, *kinds)
        if broken is not None:
            message = f"the plugin {show_value(name)} ({broken.origin}) can't be used: {broken.error}"
            self.problems.at(node, path, message)
            return
        known = plugins_of(self.registry, of)
        hint = near(name, known) if known else "no plugin of that kind is installed"
        self.problems.at(node, path, f"there is no {noun} {show_value(name)}", hint)

    def _read_settings(self, cls: type[Plugin], node: Node, path: KeyPath) -> Any:
        table = as_table(cls, node, path)
        if not isinstance(table.value, dict):
            found = show_value(node.value)
            keys = ", ".join(field.key for field in fields_of(cls))
            hint = f"its settings: {keys}" if keys else "it has no settings: write {}"
            self.problems.at(node, path, f"found {found}, expected a table of settings", hint)
            return BAD
        values = self.read_fields(cls, table, path)
        if values is BAD:
            return BAD
        self._fill_timezone(cls, values)
        plugin = self.build(cls, values, table, path)
        return self._checked(plugin, table, path) if isinstance(plugin, Runner) else plugin

    def _take(self, shape: Shape, node: Node, path: KeyPath) -> Any:
        """Take a plugin that code has made of its settings."""
        plugin: Plugin = node.value
        noun, wanted = noun_of(shape), _WANTED.get(shape.of, (Source, Timer))
        try:
            check_plugin(type(plugin))
            if not isinstance(plugin, wanted):
                raise PluginError(f"it is no {noun}")
            values = asdict(plugin)
            self._fill_timezone(type(plugin), values)
        except PluginError as error:
            self.problems.at(node, path, f"found a {type(plugin).__name__}, which can't be used: {error}")
            return BAD
        if values != asdict(plugin):
            plugin = replace(plugin, **values)
        return self._checked(plugin, node, (*path, plugin.name)) if isinstance(plugin, Runner) else plugin

    def _checked(self, runner: Runner, node: Node, path: KeyPath) -> Any:
        try:
            runner.check(JOB_NAMES)
        except BadSetting as error:
            self.refuse(error, type(runner), node, path)
            return BAD
        except Exception as error:  # check is plugin code
            _log.warning("%s: check failed", show_path(path), exc_info=True, extra={"action": "plugin.check"})
            self.problems.at(node, path, f"check failed with {type(error).__name__}: {error}")
            return BAD
        return runner

    def examine_runners(self, root: Node, base: Path) -> None:
        """Let the runners of the jobs that are right look at what their settings name, each kind at once."""
        by_kind: dict[type[Runner], dict[str, Any]] = {}
        for job, table in self.sound.get(("jobs",), {}).items():
            by_kind.setdefault(type(table.run), {})[job] = table.run
        for cls, runners in by_kind.items():
            try:
                found = dict(cls.examine(runners, base))
            except Exception as error:  # examine is plugin code
                _log.warning("%s: examine failed", cls.name, exc_info=True, extra={"action": "plugin.examine"})
                first = ("jobs", next(iter(runners)), "run", cls.name)
                message = f"looking at what it names failed with {type(error).__name__}: {error}"
                self.problems.at(root.nearest(first), first, message)
                continue
            for job, problem in found.items():
                path = ("jobs", job, "run", cls.name)
                self.refuse(problem, cls, as_table(cls, root.nearest(path), path), path)

    def _fill_timezone(self, cls: type[Plugin], values: dict[str, Any]) -> None:
        """Give the engine's time zone to a plugin that has a setting for one and was not told one."""
        for field in fields_of(cls):
            zone = any(item.kind == "timezone" for item in field.shape.alternatives())
            if field.name == "timezone" and zone and values.get(field.name, field.default) is None:
                values[field.name] = self.timezone
