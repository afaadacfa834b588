"""Which jobs and triggers settings name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct

from engine.config.document import KeyPath
from engine.config.shapes import NAME_KINDS, Shape, fields_of


class Mention(Struct, frozen=True, kw_only=True):
    """The name of something in settings: `kind` is one of NAME_KINDS, `path` where it stands."""

    kind: str
    name: str
    path: KeyPath


def mentions(settings: Struct, path: KeyPath) -> Iterator[Mention]:
    """Yield the names that settings hold, which stand at `path`."""
    for field in fields_of(type(settings)):
        yield from _of_value(field.shape, getattr(settings, field.name), (*path, field.key))


def _of_value(shape: Shape, value: Any, path: KeyPath) -> Iterator[Mention]:
    for item in shape.alternatives():
        if item.kind in NAME_KINDS and isinstance(value, str):
            yield Mention(kind=item.kind, name=value, path=path)
        elif item.kind == "struct" and isinstance(value, item.cls):
            yield from mentions(value, path)
        elif item.kind == "list" and isinstance(value, (list, tuple, set, frozenset)):
            for index, child in enumerate(value):
                yield from _of_value(item.items[0], child, (*path, index))
        elif item.kind == "dict" and isinstance(value, Mapping):
            for key, child in value.items():
                yield from _of_value(item.items[0], child, (*path, str(key)))
