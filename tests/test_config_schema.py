"""The JSON Schema says what is read, with the defaults that are used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from engine.config import schema
from engine.config.document import Node, Place, Problems
from engine.config.model import Root
from engine.config.plugin_tables import SettingsReader
from engine.config.references import References
from engine.config.shapes import Field, fields_of
from tests.test_config_plugins import Hook, Shell, Table, Tick, Verify, registry


def structs_of(cls: type[Struct], seen: dict[type[Struct], None]) -> dict[type[Struct], None]:
    if cls not in seen:
        seen[cls] = None
        for field in fields_of(cls):
            for item in field.shape.alternatives():
                for below in (item, *item.items):
                    if below.kind == "struct":
                        structs_of(below.cls, seen)
    return seen


def described() -> Iterator[tuple[type[Struct], dict[str, Any]]]:
    whole = schema(registry())
    names: dict[type[Struct], str] = {
        Hook: "source.hook",
        Table: "source.table",
        Tick: "timer.tick",
        Shell: "runner.shell",
    }
    names[Verify] = f"{Verify.__module__}.Verify"
    for cls in structs_of(Root, {}):
        yield cls, whole if cls is Root else whole["$defs"][cls.__qualname__]
    for cls, name in names.items():
        yield cls, whole["$defs"][name]


def node_of(value: Any, place: Place) -> Node:
    if isinstance(value, dict):
        value = {key: node_of(item, place) for key, item in value.items()}
    elif isinstance(value, list):
        value = [node_of(item, place) for item in value]
    return Node(value, place)


def read_default(field: Field, value: Any, base: Path) -> Any:
    """Read a default of the schema as it would be read from a file."""
    problems = Problems()
    reader = SettingsReader(problems, References({}, problems), registry())
    read = reader.read(field.shape, node_of(value, Place("schema", 0, base, 0)), (field.key,))
    assert problems.ordered() == []
    return read


def test_every_default_in_the_schema_is_the_default_that_is_used(tmp_path: Path) -> None:
    checked = 0
    for cls, definition in described():
        for field in fields_of(cls):
            if field.shape.inline:
                continue
            entry = definition["properties"][field.key]
            if field.has_default and field.default is not None and not isinstance(field.default, Struct):
                read = read_default(field, entry["default"], tmp_path)
                expected = tmp_path / field.default if isinstance(field.default, Path) else field.default
                assert read == expected, f"{cls.__name__}.{field.name}"
                checked += 1
            else:
                assert "default" not in entry or isinstance(field.default, Struct)
    assert checked > 35


def test_every_key_of_the_engine_is_described() -> None:
    for cls in structs_of(Root, {}):
        for field in fields_of(cls):
            assert field.shape.description, f"{cls.__name__}.{field.name}"


def test_required_keys_and_closed_tables_are_as_they_are_read() -> None:
    for cls, definition in described():
        fields = [field for field in fields_of(cls) if not field.shape.inline]
        closed = "additionalProperties" if len(fields) == len(fields_of(cls)) else "unevaluatedProperties"
        assert definition[closed] is False
        assert definition["properties"].keys() == {field.key for field in fields}
        required = definition.get("else", definition).get("required", [])
        assert required == [field.key for field in fields if field.required]


def test_a_table_that_names_a_preset_needs_nothing_and_its_source_only_says_what_is_otherwise() -> None:
    definition = schema(registry())["$defs"]["TriggerTable"]
    assert definition["if"] == {"required": ["preset"]}
    partial = definition["then"]["properties"]["on"]
    assert partial["properties"].keys() == definition["else"]["properties"]["on"]["properties"].keys()
    assert all(set(known) == {"description"} for known in partial["properties"].values())
    assert (partial["maxProperties"], partial["additionalProperties"]) == (1, False)
    assert "required" not in definition
    assert "required" not in schema(registry())["$defs"]["PresetTable"]


def test_plugins_stand_in_the_schema_with_their_main_field() -> None:
    whole = schema(registry())
    on = whole["$defs"]["TriggerTable"]["else"]["properties"]["on"]
    assert on["properties"].keys() == {"hook", "table", "tick", "source", "all", "any"}
    assert on["properties"]["source"]["anyOf"][0] == {"$ref": "#/$defs/Shared"}
    choices = whole["$defs"]["SourceTable"]["oneOf"]
    assert [choice["required"] for choice in choices] == [["hook"], ["table"], ["tick"]]
    assert all(choice["properties"].keys() == set(choice["required"]) for choice in choices)
    assert (on["minProperties"], on["maxProperties"], on["additionalProperties"]) == (1, 1, False)
    table, main = on["properties"]["tick"]["anyOf"]
    assert table == {"$ref": "#/$defs/timer.tick"}
    assert main["description"] == "Stands for `expression`."
    assert whole["$defs"]["source.hook"]["properties"]["path"]["description"] == "below `/hooks/`."
    assert whole["$defs"]["JobTable"]["properties"]["run"]["properties"].keys() == {"shell"}


def test_a_plugin_that_can_not_be_described_is_left_out() -> None:
    assert "source.odd" not in schema(registry())["$defs"]


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def test_the_schema_is_plain_json_and_every_reference_in_it_leads_somewhere() -> None:
    whole = json.loads(json.dumps(schema(registry()), allow_nan=False))
    assert whole["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for reference in references(whole):
        assert reference.removeprefix("#/$defs/") in whole["$defs"]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("limit", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}),
        ("color", {"enum": ["red", "green"], "default": "red"}),
        ("strict", {"type": "boolean", "default": False}),
        ("pairs", {"type": "array", "items": {"type": "integer"}, "default": []}),
        ("since", {"type": "string", "format": "date-time"}),
    ],
)
def test_settings_are_described_by_their_types(key: str, expected: dict[str, Any]) -> None:
    assert schema(registry())["$defs"]["source.table"]["properties"][key] == expected


def test_the_schema_does_not_depend_on_the_machine() -> None:
    engine = schema(registry())["$defs"]["EngineSettings"]["properties"]["concurrency"]
    assert "default" not in engine
    assert "concurrency" not in schema(registry())["properties"]["engine"]["default"]
