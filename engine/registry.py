"""The plugins that are there: found by entry points and in folders, and listed by what they are.

What can't be used (it can't be imported, it is no plugin, its name is taken) is kept as a broken entry with
the reason: the others work all the same, and a configuration that names it is told why.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import inspect
import logging
import sys
import traceback
from collections.abc import Collection, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from msgspec import Struct

from engine.errors import PluginError
from engine.ids import is_slug
from engine.plugin import Channel, Condition, Plugin, Runner, Source, Timer
from engine.plugin.timers import TIMER_FIELDS

GROUP = "engine.plugins"
"""The group of entry points that plugins are announced by."""

SHARED_KEY = "source"
"""`on.source` names a shared source, so no source or timer can have this name."""

SEVERAL_KEYS = ("all", "any")
"""`on.all` and `on.any` name several sources; nor can it have these."""

Kind = Literal["source", "timer", "runner", "condition", "channel", "unknown"]

_ABSTRACT: dict[Kind, tuple[type[Plugin], tuple[str, ...]]] = {
    "source": (Source, ("run",)),
    "timer": (Timer, ("next", "previous")),
    "runner": (Runner, ("run",)),
    "condition": (Condition, ("check",)),
    "channel": (Channel, ("deliver",)),
}

_log = logging.getLogger(__name__)


class PluginEntry(Struct, frozen=True, kw_only=True):
    """A plugin as listings show it.

    `origin` is where it comes from: an entry point or a file. A broken one has `error`, the reason in words,
    and perhaps no class; `kind` is `unknown` where nothing tells it.
    """

    kind: Kind
    name: str
    cls: type[Plugin] | None
    origin: str
    doc: str = ""
    error: str | None = None


class Registry:
    """Plugins by kind and name. `sources` and `timers` share one space of names, that of `on.<name>`."""

    def __init__(self) -> None:
        self.sources: dict[str, type[Source]] = {}
        self.timers: dict[str, type[Timer]] = {}
        self.runners: dict[str, type[Runner]] = {}
        self.conditions: dict[str, type[Condition]] = {}
        self.channels: dict[str, type[Channel]] = {}
        self._entries: list[PluginEntry] = []

    @classmethod
    def discover(cls, folders: Sequence[Path] = ()) -> Registry:
        """Return a registry of what the entry points announce and the modules in `folders` define.

        Each `NAME.py`, and each package `NAME/__init__.py`, in a folder is imported, except those whose names begin
        with `_`. They are modules of one package for each folder, so they may import each other (`from ._wire
        import …`); nothing is added to `sys.path`, so none can stand in for an installed module. Raises nothing
        for a plugin or a folder that can't be used: they are kept as broken entries.
        """
        registry = cls()
        points = importlib.metadata.entry_points(group=GROUP)
        unloaded: dict[str, list[str]] = {}
        for point in sorted(points, key=lambda point: (point.name, point.value)):
            registry._add_entry_point(point, unloaded)
        for cause, origins in unloaded.items():
            _log.warning("%s can't be loaded: %s", ", ".join(origins), cause, extra={"action": "plugin.broken"})
        for folder in folders:
            registry._add_folder(folder)
        return registry

    def add(self, plugin: Any, origin: str = "code") -> None:
        """Register a plugin class; PluginError says why it can't be one, or that its name is taken."""
        kind = check_plugin(plugin)
        name = plugin.name
        taken = self._taken(kind, name)
        if taken is plugin:
            return
        if taken is not None:
            first = next(entry.origin for entry in self._entries if entry.cls is taken)
            raise PluginError(f'the name "{name}" is already taken by {_title(taken)}, from {first}')
        if issubclass(plugin, Source):
            self.sources[name] = plugin
        elif issubclass(plugin, Timer):
            self.timers[name] = plugin
        elif issubclass(plugin, Condition):
            self.conditions[name] = plugin
        elif issubclass(plugin, Channel):
            self.channels[name] = plugin
        else:
            self.runners[name] = plugin
        self._entries.append(PluginEntry(kind=kind, name=name, cls=plugin, origin=origin, doc=_first_line(plugin)))

    def plugins(self) -> list[PluginEntry]:
        """List all plugins, by kind and name, the broken ones included."""
        return sorted(self._entries, key=lambda entry: (entry.kind, entry.name, entry.error is not None))

    def broken(self, name: str, *kinds: Kind) -> PluginEntry | None:
        """Return the broken entry of that name, of one of these kinds or of unknown kind, or None."""
        for entry in self._entries:
            if entry.error is not None and entry.name == name and entry.kind in (*kinds, "unknown"):
                return entry
        return None

    def _taken(self, kind: Kind, name: str) -> type[Plugin] | None:
        if kind == "runner":
            return self.runners.get(name)
        if kind == "condition":
            return self.conditions.get(name)
        if kind == "channel":
            return self.channels.get(name)
        return self.sources.get(name) or self.timers.get(name)

    def _add_entry_point(self, point: importlib.metadata.EntryPoint, unloaded: dict[str, list[str]]) -> None:
        """Load what an entry point announces; one that can't be loaded is added to `unloaded`, by its cause."""
        package = f" of {point.dist.name} {point.dist.version}" if point.dist is not None else ""
        origin = f"entry point {point.name}{package}"
        group, _, last = point.name.rpartition(".")
        kind = _kind_named(group)
        try:
            plugin = point.load()
        except (Exception, SystemExit) as error:  # what a foreign module raises on import is its own affair
            _log.debug("%s can't be loaded", origin, exc_info=True, extra={"action": "plugin.broken"})
            unloaded.setdefault(_sentence(error), []).append(origin)
            self._add_broken(kind, last, None, origin, f"can't be loaded: {_sentence(error)}")
            return
        self._try_add(plugin, last, origin)

    def _add_folder(self, folder: Path) -> None:
        try:
            files = sorted(file for path in folder.iterdir() if (file := _module_file(path)) is not None)
        except OSError as error:
            self._add_broken("unknown", folder.name, None, str(folder), f"can't be read: {error.strerror}")
            return
        package = _make_package(folder)
        for file in files:
            self._add_file(package, file)

    def _add_file(self, package: str, file: Path) -> None:
        stem = file.parent.name if file.name == "__init__.py" else file.stem
        try:
            module = _import_file(f"{package}.{stem}", file)
        except (Exception, SystemExit) as error:  # as above
            _log.warning("%s can't be imported", file, exc_info=True, extra={"action": "plugin.broken"})
            self._add_broken("unknown", stem, None, str(file), f"can't be imported: {_told(error, file)}")
            return
        for value in list(vars(module).values()):
            if (
                inspect.isclass(value)
                and issubclass(value, Plugin)
                and (value.__module__ == module.__name__ or value.__module__.startswith(f"{module.__name__}."))
                and not value.__name__.startswith("_")
            ):
                self._try_add(value, getattr(value, "name", stem), str(file))

    def _try_add(self, plugin: Any, name: Any, origin: str) -> None:
        try:
            self.add(plugin, origin)
        except PluginError as error:
            cls = plugin if inspect.isclass(plugin) and issubclass(plugin, Plugin) else None
            shown = getattr(cls, "name", name)
            self._add_broken(kind_of(cls), str(shown), cls, origin, str(error))

    def _add_broken(self, kind: Kind, name: str, cls: type[Plugin] | None, origin: str, error: str) -> None:
        doc = _first_line(cls) if cls is not None else ""
        self._entries.append(PluginEntry(kind=kind, name=name, cls=cls, origin=origin, doc=doc, error=error))


def kind_of(plugin: type[Any] | None) -> Kind:
    """Tell the kind of a plugin class by its base class."""
    for kind, (base, _) in _ABSTRACT.items():
        if plugin is not None and issubclass(plugin, base):
            return kind
    return "unknown"


def check_plugin(plugin: Any) -> Kind:
    """Return the kind of a plugin class; PluginError says what keeps it from being one."""
    if not inspect.isclass(plugin) or not issubclass(plugin, Plugin):
        raise PluginError(
            f"{plugin!r:.80} is no plugin: it has to be a subclass of Source, Timer, Runner, Condition or Channel"
        )
    title, kind = _title(plugin), kind_of(plugin)
    if kind == "unknown":
        kinds = "neither a Source nor a Timer nor a Runner nor a Condition nor a Channel"
        raise PluginError(f"{title} is {kinds}; derive it from one of them")
    name = getattr(plugin, "name", None)
    if not isinstance(name, str) or not is_slug(name):
        raise PluginError(f"{title} has no usable name; give it `name: ClassVar[str] = …`, as in `on.<name>`")
    if kind in ("source", "timer") and name in (SHARED_KEY, *SEVERAL_KEYS):
        what = "sources with a name" if name == SHARED_KEY else "several sources"
        raise PluginError(f'{title} can\'t be called "{name}": `on.{name}` is for {what}; call it otherwise')
    missing = [
        method for method in _ABSTRACT[kind][1] if getattr(getattr(plugin, method), "__isabstractmethod__", False)
    ]
    if missing:
        methods = " and ".join(f"`{method}`" for method in missing)
        raise PluginError(f"{title} does not implement {methods}, which every {kind} must")
    if plugin.main is not None and plugin.main not in plugin.__struct_fields__:
        raise PluginError(f"{title} names {plugin.main!r} as its main field, but has no such field")
    if kind == "timer":
        _check_fields(plugin, title)
    return kind


def _check_fields(timer: type[Any], title: str) -> None:
    """Refuse a timer that defines anew a setting that every timer has."""
    for cls in timer.__mro__[: timer.__mro__.index(Timer)]:
        again = sorted(TIMER_FIELDS & {*cls.__dict__, *_annotations(cls)})
        if again:
            found = " and ".join(again)
            raise PluginError(f"{title} defines {found}, which every timer has; call its own setting otherwise")


def _annotations(cls: type[Any]) -> Collection[str]:
    try:
        return inspect.get_annotations(cls)
    except Exception:  # annotations are plugin code: what is wrong with them is told when they are read
        return ()


def _module_file(path: Path) -> Path | None:
    """Return the file of the plugin module that a path is, or None where it is none."""
    if path.name.startswith("_") or "." in path.stem:
        return None
    if path.suffix == ".py":
        return path
    inner = path / "__init__.py"
    return inner if inner.is_file() else None


def _make_package(folder: Path) -> str:
    """Make the package that a folder's modules belong to, anew, and return its name."""
    digest = hashlib.sha256(str(folder).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    name = f"_engine_plugins_{digest}"
    for known in [known for known in sys.modules if known == name or known.startswith(f"{name}.")]:
        del sys.modules[known]
    package = ModuleType(name, f"The plugin modules of {folder}.")
    package.__path__ = [str(folder)]
    sys.modules[name] = package
    importlib.invalidate_caches()
    return name


def _import_file(name: str, file: Path) -> ModuleType:
    """Import a module from its file, unless one of its siblings has done so."""
    if (known := sys.modules.get(name)) is not None:
        return known
    places = [str(file.parent)] if file.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=places)
    if spec is None or spec.loader is None:
        raise PluginError("it is no Python module")
    module = importlib.util.module_from_spec(spec)
    # Annotations are resolved through sys.modules, so the module has to stand there.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _told(error: BaseException, file: Path) -> str:
    """Return what went wrong when a file was imported, with the file and line at which it did."""
    folder = file.parent.parent if file.name == "__init__.py" else file.parent
    place = file
    line = None
    if isinstance(error, SyntaxError) and error.filename:
        place, line = Path(error.filename), error.lineno
    else:
        # The innermost place that is the author's: below it stands what he called.
        for frame in traceback.extract_tb(error.__traceback__):
            if Path(frame.filename).is_relative_to(folder):
                place, line = Path(frame.filename), frame.lineno
    return f"{_sentence(error)} ({place}{f', line {line}' if line else ''}){_way_out(error, folder)}"


def _way_out(error: BaseException, folder: Path) -> str:
    """Return what to do where a module that a plugin imports is not there."""
    if not isinstance(error, ModuleNotFoundError) or not error.name or error.name.startswith("_engine_plugins_"):
        return ""
    top = error.name.partition(".")[0]
    if (folder / f"{top}.py").exists() or (folder / top / "__init__.py").exists():
        return f"; import a module of the same folder as `from . import {top}`"
    return f"; install what provides {top!r} for {sys.executable}, which runs the engine"


def _kind_named(group: str) -> Kind:
    named: dict[str, Kind] = {
        "sources": "source", "timers": "timer", "runners": "runner", "conditions": "condition",
        "channels": "channel",
    }  # fmt: skip
    return named.get(group, "unknown")


def _title(plugin: type[Any]) -> str:
    return f"{plugin.__module__}.{plugin.__qualname__}"


def _first_line(plugin: type[Any]) -> str:
    return (inspect.cleandoc(plugin.__doc__ or "").split("\n", 1)[0]).strip()


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text:.300}" if text else type(error).__name__
