"""What a setting may be, read from the annotations of a struct.

Reading, environment overrides and the JSON Schema all go by these shapes, so they can't come apart.
"""

from __future__ import annotations

import enum
import functools
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import msgspec
from msgspec import NODEFAULT, Meta, Struct

from engine.errors import PluginError
from engine.plugin.settings import Secret
from engine.plugin.timers import TIMER_FIELDS, Timer

NAME_KINDS: Mapping[str, str] = {
    "job": "jobs", "trigger": "triggers", "source_name": "sources", "calendar": "calendars",
    "preset": "presets", "condition": "conditions", "notify": "notify",
}  # fmt: skip
"""Kinds of texts that name something: with the table that must hold it."""

TEXT_KINDS = NAME_KINDS.keys() | {"str", "secret", "timezone", "expression", "template", "listen", "store_url"}
"""Kinds for which a reference may stand: `{ env = … }`, `{ file = … }`."""

SCALAR_KINDS = TEXT_KINDS | {
    "int", "float", "bool", "duration", "size", "path", "datetime", "moment", "date", "time", "literal", "enum",
}  # fmt: skip
"""Kinds of single values: those that the environment can override."""

_SIMPLE: dict[Any, str] = {
    str: "str",
    int: "int",
    float: "float",
    bool: "bool",
    Path: "path",
    datetime: "datetime",
    date: "date",
    time: "time",
    Secret: "secret",
    Any: "any",
    object: "any",
}
_BOUNDS = ("gt", "ge", "lt", "le", "multiple_of", "pattern", "min_length", "max_length", "tz")


@dataclass(frozen=True)
class Shape:
    """What a value may be.

    - `kind`: one of the simple kinds, or `literal enum list dict struct union plugin data data_templates`.
    - `items`: the shapes of a union, or the one of a list's elements or a dict's values; `key` of its keys.
    - `cls`: the class of a struct or enum, or what to make of a list (list, tuple, set, frozenset).
    - `choices`: the values of a literal or enum.
    - `of`: the kind of plugin; `inline`: its name stands among the keys of the table that has it as a field.
    - `bounds`: limits such as ge, le, pattern, by their names in `msgspec.Meta`.
    """

    kind: str
    items: tuple[Shape, ...] = ()
    key: Shape | None = None
    cls: Any = None
    choices: tuple[Any, ...] = ()
    of: str = ""
    inline: bool = False
    bounds: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""

    def alternatives(self) -> tuple[Shape, ...]:
        """Return the shapes of a union, or itself."""
        return self.items if self.kind == "union" else (self,)


@dataclass(frozen=True)
class Field:
    """A field of a struct: `key` in the configuration, `name` in Python.

    `default` is NODEFAULT where it is required, or where only a factory knows it (`computed`).
    """

    name: str
    key: str
    shape: Shape
    required: bool
    default: Any
    computed: bool

    @property
    def has_default(self) -> bool:
        return self.default is not NODEFAULT


@functools.cache
def fields_of(cls: type[Struct]) -> tuple[Field, ...]:
    """Return the fields of a struct. Raises PluginError for an annotation that no setting can have."""
    try:
        infos = msgspec.structs.fields(cls)
    except Exception as error:  # annotations are plugin code: resolving them may raise anything
        raise PluginError(f"the annotations of {cls.__qualname__} can't be resolved: {error}") from error
    if issubclass(cls, Timer):  # its own settings come first, then those of every timer
        infos = tuple(sorted(infos, key=lambda info: info.name in TIMER_FIELDS))
    fields = []
    for info in infos:
        try:
            shape = shape_of(info.type)
        except PluginError as error:
            raise PluginError(f"field {info.name} of {cls.__qualname__}: {error}") from None
        default, computed = info.default, False
        if info.default_factory is not NODEFAULT:
            # A factory that is no plain container depends on where it is called: it is no fixed default.
            computed = info.default_factory not in (list, dict, set, frozenset, tuple)
            default = NODEFAULT if computed else info.default_factory()
        required = info.required
        fields.append(Field(info.name, info.encode_name, shape, required, default, computed))
    return tuple(fields)


def shape_of(annotation: Any) -> Shape:
    """Return the shape of an annotation; PluginError where no setting can be one."""
    if typing.get_origin(annotation) is Annotated:
        base, *metas = typing.get_args(annotation)
        return _annotated(base, [meta for meta in metas if isinstance(meta, Meta)])
    return _bare(annotation)


def _annotated(base: Any, metas: Sequence[Meta]) -> Shape:
    extra: dict[str, Any] = {}
    bounds: dict[str, Any] = {}
    description = ""
    for meta in metas:
        extra |= meta.extra or {}
        description = meta.description or description
        bounds |= {name: value for name in _BOUNDS if (value := getattr(meta, name)) is not None}
    kind = extra.get("kind")
    shape = Shape(kind, of=extra.get("of", ""), inline=extra.get("inline", False)) if kind else _bare(base)
    return _bounded(replace(shape, description=description or shape.description), bounds)


def _bounded(shape: Shape, bounds: Mapping[str, Any]) -> Shape:
    """Return the shape with further bounds; those of a union hold for each of its alternatives."""
    if not bounds:
        return shape
    if shape.kind == "union":
        return replace(shape, items=tuple(_bounded(item, bounds) for item in shape.items))
    return replace(shape, bounds={**shape.bounds, **bounds})


def _bare(annotation: Any) -> Shape:
    if annotation in _SIMPLE:
        return Shape(_SIMPLE[annotation])
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        items = [item for arg in args if arg is not type(None) for item in shape_of(arg).alternatives()]
        return items[0] if len(items) == 1 else Shape("union", items=tuple(items))
    if origin is Literal:
        return Shape("literal", choices=args)
    container = origin or annotation
    if container in (list, set, frozenset, Sequence) or (
        container is tuple and (not args or (len(args) == 2 and args[1] is Ellipsis))
    ):
        item = shape_of(args[0]) if args else Shape("any")
        return Shape("list", items=(item,), cls=tuple if container is Sequence else container)
    if container in (dict, Mapping):
        key, value = (shape_of(args[0]), shape_of(args[1])) if args else (Shape("str"), Shape("any"))
        if key.kind not in ("str", "slug"):
            raise PluginError("tables have text as their keys: dict[str, …]")
        return Shape("dict", key=key, items=(value,))
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return Shape("enum", cls=annotation, choices=tuple(member.value for member in annotation))
    if isinstance(annotation, type) and issubclass(annotation, Struct):
        return Shape("struct", cls=annotation)
    raise PluginError(f"a setting can't be a {getattr(annotation, '__name__', annotation)}")
