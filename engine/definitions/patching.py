"""How definitions are changed, and what that comes to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from engine.defined import Key
from engine.definitions.kept import Kept


def difference_of(old: Mapping[Key, Kept], new: Mapping[Key, Kept]) -> dict[str, list[str]]:
    """Return what was added, changed and removed, each as `jobs.NAME` or `triggers.NAME`."""
    return {
        "added": _names(key for key in new if key not in old),
        "changed": _names(key for key in new if key in old and new[key] is not old[key]),
        "removed": _names(key for key in old if key not in new),
    }


def _names(keys: Iterable[Key]) -> list[str]:
    return [f"{key.kind.table}.{key.name}" for key in sorted(keys)]


def patched(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object as a merge patch makes it (RFC 7396): null takes a member away."""
    merged = dict(old)
    for name, value in new.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, Mapping):
            before = merged.get(name)
            merged[name] = patched(before if isinstance(before, Mapping) else {}, value)
        else:
            merged[name] = value
    return merged
