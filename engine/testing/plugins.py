"""Loading plugins as the engine does, for the tests of those that lie in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.errors import PluginError
from engine.registry import Registry


def load_plugin(folder: Path | str, name: str) -> type[Any]:
    """Return the plugin class of that name in a folder of plugins.

    Raises PluginError, with what is wrong, where it can't be used or is not there.
    """
    entries = [entry for entry in Registry.discover([Path(folder).absolute()]).plugins() if entry.name == name]
    for entry in entries:
        if entry.cls is not None and entry.error is None and entry.origin.startswith(str(Path(folder).absolute())):
            return entry.cls
    for entry in entries:
        if entry.error is not None:
            raise PluginError(f"the plugin {name} of {entry.origin} can't be used: {entry.error}")
    raise PluginError(f"there is no plugin {name} in {folder}")
