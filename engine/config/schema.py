"""The configuration as JSON Schema, from the same declarations that it is read by."""

from __future__ import annotations

import inspect
import re
from datetime import date, datetime, time
from enum import Enum
from pathlib import Path
from typing import Any

from msgspec import Struct

from engine.config.joins import Several
from engine.config.model import Root, TriggerTable
from engine.config.plugin_tables import main_key, plugins_of
from engine.config.shapes import TEXT_KINDS, Field, Shape, fields_of
from engine.errors import PluginError
from engine.plugin import Plugin, Secret
from engine.registry import Registry, kind_of
from engine.units import format_duration, format_size

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_SLUG_PATTERN = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$"
_DURATION_PATTERN = r"^(P.+|(\d+(\.\d+)?(ms|s|m|h|d|w))+)$"
_SIZE_PATTERN = r"^\d+(\.\d+)?\s*(B|KiB|MiB|GiB|TiB|kB|KB|MB|GB|TB)?$"
_MOMENT_PATTERN = r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}:\d{2})?$"
_TIME_PATTERN = r"^\d{2}:\d{2}(:\d{2})?$"
_FIELD_LINE = re.compile(r"^- ((?:`\w+`(?:, )?)+): ", re.MULTILINE)

_REFERENCE = {
    "description": "A text that stands elsewhere; it is a secret.",
    "oneOf": [
        {
            "type": "object",
            "properties": {"env": {"type": "string", "description": "Name of an environment variable."}},
            "required": ["env"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {
                "file": {"type": "string", "description": "Path of a file that holds the text."},
                "generate": {
                    "type": "boolean",
                    "default": False,
                    "description": "Make the file, with 256 random bits, where it is missing.",
                },
            },
            "required": ["file"],
            "additionalProperties": False,
        },
    ],
}

_SIMPLE: dict[str, dict[str, Any]] = {
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "duration": {"type": "string", "pattern": _DURATION_PATTERN},
    "size": {"type": "string", "pattern": _SIZE_PATTERN},
    "path": {"type": "string", "minLength": 1},
    "datetime": {"type": "string", "format": "date-time"},
    "moment": {"type": "string", "pattern": _MOMENT_PATTERN},
    "date": {"type": "string", "format": "date"},
    "time": {"type": "string", "pattern": _TIME_PATTERN},
    "any": {},
    "data": {"type": "object"},
    "data_templates": {"type": "object"},
}

_KEYWORDS = {
    "ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf", "pattern": "pattern", "min_length": "minLength", "max_length": "maxLength",
}  # fmt: skip


def schema(registry: Registry) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the whole configuration, with all plugins of `registry`.

    Defaults are written as in the configuration; where there is none, the description says what holds.
    TOML's dates and times stand as text in their usual formats. A plugin whose settings can't be described is
    left out.
    """
    writer = _Writer(registry)
    root = writer.struct(Root)
    return {
        "$schema": DIALECT,
        "title": "config.toml",
        **root,
        "$defs": dict(sorted(writer.definitions.items())),
    }


def written(value: Any, shape: Shape) -> Any:
    """Return a setting's value as it is written in the configuration."""
    kinds = {item.kind for item in shape.alternatives()}
    if "duration" in kinds and isinstance(value, (int, float)):
        return format_duration(value)
    if "size" in kinds and isinstance(value, int):
        return format_size(value)
    if isinstance(value, Struct):
        pairs = [(field, getattr(value, field.name)) for field in fields_of(type(value))]
        return {
            field.key: written(item, field.shape) for field, item in pairs if item is not None and not field.computed
        }
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (Path, Secret)):
        return str(value)
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    inner = shape.items[0] if shape.kind in ("list", "dict") else Shape("any")
    if isinstance(value, (list, tuple, set, frozenset)):
        return [written(item, inner) for item in value]
    if isinstance(value, dict):
        return {key: written(item, inner) for key, item in value.items()}
    return value


class _Writer:
    """Writes shapes as schemas; what is used in several places is collected in `definitions`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.definitions: dict[str, Any] = {}

    def struct(self, cls: type[Struct]) -> dict[str, Any]:
        texts = _field_docs(cls)
        properties = {}
        fields = [field for field in fields_of(cls) if not field.shape.inline]
        for field in fields:
            text = field.shape.description or texts.get(field.name, "")
            properties[field.key] = self._field(field, text)
        required = [field.key for field in fields if field.required]
        inline = [field for field in fields_of(cls) if field.shape.inline]
        whole = {
            "type": "object",
            "description": _FIELD_LINE.split(inspect.cleandoc(cls.__doc__ or ""), maxsplit=1)[0].strip(),
            "properties": properties,
            **({"required": required} if required else {}),
            **(self._inline(inline[0]) if inline else {"additionalProperties": False}),
        }
        return self._completed(cls, whole) if issubclass(cls, TriggerTable) else whole

    def _completed(self, cls: type[Struct], whole: dict[str, Any]) -> dict[str, Any]:
        """Return the schema of a table that a preset completes: where it names one, nothing is required.

        Of its source or timer it then says what is otherwise, whose settings are not looked at here.
        """
        on = whole["properties"]["on"]
        names = {name: {"description": "What is otherwise than in the preset."} for name in on["properties"]}
        partial = {"properties": {"on": {**on, "properties": names}}}
        whole["properties"]["on"] = {"type": "object", "description": on["description"]}
        if cls is not TriggerTable:
            whole["properties"]["on"] = partial["properties"]["on"]
            return whole
        required = whole.pop("required")
        exact = {"properties": {"on": on}, "required": required}
        return {**whole, "if": {"required": ["preset"]}, "then": partial, "else": exact}

    def _inline(self, field: Field) -> dict[str, Any]:
        """Return what lets exactly one plugin, or none where that may be, stand among the other keys of a table."""
        plugins = self._plugins(field.shape)["properties"]
        one_of = [{"properties": {name: table}, "required": [name]} for name, table in plugins.items()]
        if not field.required:
            one_of.append({"not": {"anyOf": [{"required": [name]} for name in plugins]}})
        return {"oneOf": one_of, "unevaluatedProperties": False}

    def _field(self, field: Field, description: str) -> dict[str, Any]:
        result = self.shape(field.shape)
        if description:
            result = {**result, "description": description}
        if field.has_default and field.default is not None:
            result = {**result, "default": written(field.default, field.shape)}
        return result

    def shape(self, shape: Shape) -> dict[str, Any]:
        kind = shape.kind
        if kind == "union":
            return {"anyOf": [self.shape(item) for item in shape.items]}
        if kind in ("literal", "enum"):
            return {"enum": [written(choice, shape) for choice in shape.choices]}
        if kind == "struct":
            return self._reference(shape.cls.__qualname__, shape.cls)
        if kind == "plugin":
            return self._plugins(shape)
        if kind == "list":
            names = {"min_length": "minItems", "max_length": "maxItems"}
            bounds = {names[name]: value for name, value in shape.bounds.items() if name in names}
            return {"type": "array", "items": self.shape(shape.items[0]), **bounds}
        if kind == "dict":
            key = {"propertyNames": {"pattern": _SLUG_PATTERN}} if shape.key and shape.key.kind == "slug" else {}
            return {"type": "object", "additionalProperties": self.shape(shape.items[0]), **key}
        # Bounds of durations and sizes are numbers, but they are written as text.
        numeric = kind in ("int", "float") or kind in TEXT_KINDS
        bounds = {_KEYWORDS[name]: value for name, value in shape.bounds.items() if numeric and name in _KEYWORDS}
        if kind in TEXT_KINDS:
            self.definitions["reference"] = _REFERENCE
            return {"anyOf": [{"type": "string", **bounds}, {"$ref": "#/$defs/reference"}]}
        return {**_SIMPLE[kind], **bounds}

    def _plugins(self, shape: Shape) -> dict[str, Any]:
        properties = {}
        for name, cls in sorted(plugins_of(self._registry, shape.of).items()):
            try:
                properties[name] = self._plugin(cls)
            except PluginError:
                continue
        return {
            "type": "object",
            "properties": properties,
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": False,
        }

    def _plugin(self, cls: type[Plugin]) -> dict[str, Any]:
        own = cls.__module__.startswith("engine.config.")
        if issubclass(cls, Several):
            inputs = self._field(fields_of(cls)[0], inspect.cleandoc(cls.__doc__ or "").split("\n", 1)[0])
            return {**inputs, "minProperties": 2}
        table = self._reference(cls.__qualname__ if own else f"{kind_of(cls)}.{cls.name}", cls)
        if cls.main is None:
            return table
        key = main_key(cls)
        main = next(field for field in fields_of(cls) if field.key == key)
        return {"anyOf": [table, {**self.shape(main.shape), "description": f"Stands for `{key}`."}]}

    def _reference(self, name: str, cls: type[Struct]) -> dict[str, Any]:
        if not issubclass(cls, Plugin) and not cls.__module__.startswith("engine.config."):
            name = f"{cls.__module__}.{name}"
        if name not in self.definitions:
            self.definitions[name] = {}  # a struct may hold itself
            try:
                self.definitions[name] = self.struct(cls)
            except PluginError:
                del self.definitions[name]
                raise
        return {"$ref": f"#/$defs/{name}"}


def _field_docs(cls: type[Struct]) -> dict[str, str]:
    """Return what a class's docstring says of its fields, in lines such as ``- `path`: where it looks.``"""
    doc = inspect.cleandoc(cls.__doc__ or "")
    texts: dict[str, str] = {}
    starts = list(_FIELD_LINE.finditer(doc))
    for match, following in zip(starts, [*starts[1:], None], strict=False):
        end = following.start() if following else len(doc)
        text = doc[match.end() : end].split("\n\n", 1)[0]
        for name in re.findall(r"`(\w+)`", match[1]):
            texts[name] = " ".join(text.split())
    return texts
