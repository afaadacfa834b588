"""Each setting as it holds, with where it comes from: files, the environment, the API, or who has overridden it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from engine.clock import rfc3339
from engine.config import Config
from engine.config.origins import NAMED, PLAIN, Origins, Setting, overridden
from engine.defined import Key, Kind
from engine.definitions.assembly import Assembled
from engine.definitions.kept import Shelf
from engine.errors import NotFound
from engine.registry import Registry

_KINDS = {kind.table: kind for kind in Kind}


def explained(
    table: str, name: str | None, *, config: Config, shelf: Shelf, assembled: Assembled, registry: Registry,
    show: Callable[[Any, Any], Any],
) -> list[Setting]:  # fmt: skip
    """Return the settings of a table, or of what it has by that name.

    What a program defines, and what is built in, has none: they stand in no file. Raises NotFound where there is no
    such table.
    """
    origins = Origins(config, registry, show)
    if name is None:
        if table not in PLAIN:
            raise NotFound(f"there is no table {table} of its own; those that there are: {', '.join(PLAIN)}")
        return origins.table(table)
    if table not in NAMED:
        raise NotFound(f"no table {table} holds things by name; those that do: {', '.join(NAMED)}")
    if table not in _KINDS:
        return origins.named(table, name)
    key = Key(_KINDS[table], name)
    if (kept := shelf.kept.get(key)) is not None and key not in assembled.invalid:
        return origins.given(table, name, kept.settings, _by(kept.updated_by, kept.updated_at))
    found = origins.named(table, name)
    override = shelf.overrides.get(key)
    if override is None or key in assembled.dropped or not found:
        return found
    reason = f": {override.reason}" if override.reason else ""
    return overridden(found, override.changes, f"{_by(override.who, override.at)}{reason}", (table, name))


def _by(who: str, at: datetime) -> str:
    return f"{who or 'somebody'}, {rfc3339(at.replace(microsecond=0))}"
