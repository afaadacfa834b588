"""Schemas: what is wrong with data, and where; and none that could take long, or asks for anything outside."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import SchemaError
from engine.events import EventOutcome
from engine.payload import encode_json
from engine.runs import RunState
from engine.schemas import DIALECT, Schema, Violation, compiled
from engine.triggers import Debounce, PayloadSchema, Rate, SharedSource, Trigger
from tests.organs import Bench, Listed, bench, event, trigger

ORDER = {
    "$schema": DIALECT,
    "type": "object",
    "properties": {
        "id": {"type": "string", "pattern": "^[a-z]+$"},
        "items": {"type": "array", "items": {"$ref": "#/$defs/item"}},
        "at": {"format": "date-time"},
        "a/~ü%41": {"type": "string"},
    },
    "patternProperties": {"^x-": {"type": "integer"}},
    "required": ["id"],
    "additionalProperties": False,
    "$defs": {"item": {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}, "required": ["n"]}},
}
TREE = {
    "type": "object",
    "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}, "value": {"type": "integer"}},
    "additionalProperties": False,
}
MOST_MS = 100.0


def ready(schema: dict[str, Any]) -> Schema:
    return compiled(encode_json(schema).decode())


def wrong(schema: dict[str, Any], data: Any) -> Violation | None:
    return ready(schema).violation(data, encode_json(data))


def place(schema: dict[str, Any], data: Any) -> tuple[str, str]:
    found = wrong(schema, data)
    assert found is not None
    return found.pointer, found.text


@pytest.mark.parametrize(
    ("data", "pointer", "text"),
    [
        ({"id": "A"}, "/id", 'it does not match "^[a-z]+$"'),
        ({"id": "a", "items": [{"n": 1}, {"n": 0}]}, "/items/1/n", "it is less than the minimum of 1"),
        ({"id": "a", "zz": 1}, "/zz", "it is not expected"),
        ({"id": "a", "x-y": "1"}, "/x-y", 'it is not of type "integer"'),
        ({"id": "a", "at": "noon"}, "/at", 'it is not a "date-time"'),
        ({"id": "a", "a/~ü%41": 1}, "/a~1~0ü%41", 'it is not of type "string"'),
        ({}, "", '"id" is a required property'),
        ([], "", 'it is not of type "object"'),
        (None, "", 'it is not of type "object"'),
    ],
)
def test_what_is_wrong_is_said_with_its_place_and_without_its_value(data: Any, pointer: str, text: str) -> None:
    assert place(ORDER, data) == (pointer, text)


def test_what_is_right_passes() -> None:
    assert wrong(ORDER, {"id": "a", "items": [{"n": 1}], "at": "2026-11-26T03:00:00Z", "x-z": 2}) is None
    assert wrong(TREE, {"left": {"right": {"value": 1}}}) is None
    assert place(TREE, {"left": {"right": {"value": "x"}}})[0] == "/left/right/value"


@pytest.mark.parametrize(
    ("schema", "data", "text"),
    [
        ({"anyOf": [{"type": "integer"}, {"minLength": 2}]}, "x", "it is as none of its alternatives (anyOf)"),
        ({"oneOf": [{"type": "integer"}, {"minimum": 3}]}, 5, "it is as 2 of its alternatives, not one (oneOf)"),
        ({"not": {"type": "integer"}}, 5, "it is what it must not be (not)"),
        ({"if": {"required": ["a"]}, "then": {"required": ["b"]}}, {"a": 1}, '"b" is a required property'),
        ({"if": {"required": ["a"]}, "else": {"required": ["c"]}}, {"b": 1}, '"c" is a required property'),
        ({"dependentSchemas": {"a": {"required": ["b"]}}}, {"a": 1}, '"b" is a required property'),
        ({"contains": {"const": 1}}, [2], "it holds too few or too many elements of those that it has to (contains)"),
        ({"properties": {"a": True}, "unevaluatedProperties": False}, {"b": 1},
         "it holds members that are not expected (unevaluatedProperties)"),
        ({"prefixItems": [True], "unevaluatedItems": False}, [1, 2],
         "it holds elements that are not expected (unevaluatedItems)"),
        ({"allOf": [True, {"enum": ["a", "b"]}]}, "c", 'it is not one of "a" or "b"'),
    ],
)  # fmt: skip
def test_each_way_to_combine_schemas_is_explained(schema: dict[str, Any], data: Any, text: str) -> None:
    assert place(schema, data)[1] == text


def test_names_of_members_and_elements_at_their_places_are_looked_at() -> None:
    assert place({"propertyNames": {"maxLength": 3}}, {"abcd": 1}) == ("/abcd", "it is longer than 3 characters")
    assert place({"prefixItems": [True, {"const": 2}], "items": False}, [1, 3]) == ("/1", "2 was expected")
    assert place({"prefixItems": [True], "items": False}, [1, 3])[0] == "/1"


def test_a_schema_of_several_parts_refers_to_them_by_their_ids_and_anchors() -> None:
    part = {"$id": "item.json", "type": "integer", "$defs": {"z": {"$anchor": "q", "const": 1}}}
    whole = {
        "$id": "https://e.example/order.json",
        "$defs": {"i": part},
        "properties": {
            "a": {"$ref": "item.json"},
            "b": {"$ref": "https://e.example/item.json#q"},
            "c": {"$ref": "item.json#/$defs/z"},
        },
    }
    assert wrong(whole, {"a": 3, "b": 1, "c": 1}) is None
    assert [place(whole, data)[0] for data in ({"a": "x"}, {"b": 2}, {"c": 2})] == ["/a", "/b", "/c"]


DOUBLED = {"x0": {"type": "integer"}} | {
    f"x{n}": {"allOf": [{"$ref": f"#/$defs/x{n - 1}"}, {"$ref": f"#/$defs/x{n - 1}"}]} for n in range(1, 40)
}
TWICE = {
    "anyOf": [{"additionalProperties": {"$ref": "#"}}, {"additionalProperties": {"$ref": "#"}, "minProperties": 1}]
}


@pytest.mark.parametrize(
    ("schema", "pointer", "text"),
    [
        ({"properties": {"a": {"propertes": {}}}}, "/properties/a/propertes", "no keyword"),
        ({"nullable": True}, "/nullable", "no keyword"),
        ({"$dynamicRef": "#x"}, "/$dynamicRef", "no keyword"),
        ({"type": "strng"}, "/type", "not valid"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "/$schema", "another dialect"),
        ({"$ref": "https://e.example/x.json"}, "/$ref", "elsewhere"),
        ({"$ref": "file:///etc/passwd"}, "/$ref", "elsewhere"),
        ({"$ref": "other.json#/a"}, "/$ref", "elsewhere"),
        ({"items": {"$ref": "#/$defs/a"}}, "/items/$ref", "not there"),
        ({"$ref": "#"}, "", "without end"),
        ({"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"anyOf": [{"$ref": "#"}]}}}, "", "without end"),
        ({"$ref": "#/$defs/x39", "$defs": DOUBLED}, "/$defs/x0", "times to one value"),
        (TWICE, "", "times to one value"),
        ({"pattern": "(?=a)b"}, "/pattern", "no regular expression"),
        ({"patternProperties": {"[": True}}, "/patternProperties/[", "no regular expression"),
        ({"pattern": "(.{1,60}a){1,8}q"}, "/pattern", "no regular expression"),
        ({"format": "credit-card"}, "/format", "no format"),
        ({"properties": {"a": 3}}, "/properties/a", "is a number"),
        ({"properties": []}, "/properties", "is a list"),
        ({"allOf": {}}, "/allOf", "is a table"),
        ({"items": {"anyOf": [True] * 4000}}, "", "subschemas"),
    ],
)
def test_what_is_no_schema_or_could_take_long_is_refused_with_its_place(
    schema: dict[str, Any], pointer: str, text: str
) -> None:
    with pytest.raises(SchemaError, match=text) as refused:
        ready(schema)
    assert refused.value.pointer.startswith(pointer)


@pytest.mark.parametrize("text", ["{", "[]", "1", '{"a": 1, "a": 2}', "NaN", "[" * 100_000])
def test_what_is_no_json_object_is_no_schema(text: str) -> None:
    with pytest.raises(SchemaError):
        Schema(text)


# Time


def spent_ms(schema: Schema, data: Any) -> float:
    """Return how long the process works on it, the least of three times."""
    encoded, took = encode_json(data), []
    for _ in range(3):
        began = time.process_time()
        schema.violation(data, encoded)
        took.append((time.process_time() - began) * 1000)
    return min(took)


PATTERNS = ["(a+)+$", "(a|aa)+$", "(.*a){20}$", "^(([a-z])+.)+[A-Z]([a-z])+$", "^(a|a)*$", "([a-z]+)*="]
WIDE: list[tuple[dict[str, Any], Any]] = [
    ({"items": {"enum": [{"a": n} for n in range(1000)]}}, [{"a": 999}] * 50_000),
    ({"anyOf": [{"items": {"properties": {"n": {"maximum": 5}}}}] * 20}, [{"n": n, "t": ["a"]} for n in range(20_000)]),
    ({"patternProperties": {f"^k{n}[a-z]": True for n in range(500)}}, {f"k{n}": n for n in range(60_000)}),
    ({"uniqueItems": True}, [[n % 7, n] for n in range(50_000)] + [[1, 1]]),
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_hostile_texts_do_not_make_a_pattern_take_long(pattern: str) -> None:
    schema = ready({"pattern": pattern})
    chance = random.Random(1)
    for text in ("a" * 1_000_000 + "!", "".join(chance.choices("ab!", k=1_000_000))):
        assert spent_ms(schema, text) < MOST_MS


@pytest.mark.parametrize(("schema", "data"), WIDE)
def test_wide_data_does_not_make_a_schema_take_long(schema: dict[str, Any], data: Any) -> None:
    assert spent_ms(ready(schema), data) < 2 * MOST_MS


def test_deep_data_does_not_make_a_schema_that_describes_itself_take_long() -> None:
    deep: dict[str, Any] = {"value": "x"}
    for _ in range(60):
        deep = {"left": deep, "right": {"value": 1}}
    assert spent_ms(ready(TREE), deep) < MOST_MS
    assert place(TREE, deep)[0] == "/left" * 60 + "/value"


def test_data_with_too_many_values_for_a_costly_schema_is_told_so() -> None:
    found = wrong(*WIDE[0])
    assert found is not None
    assert "100,001 values" in found.text


# Against the library

NAMES = st.sampled_from("abc")
LEAVES = st.sampled_from(
    [True, False, {"type": "integer"}, {"type": "string"}, {"minimum": 1}, {"maxLength": 1}, {"enum": [1, "a", None]},
     {"required": ["a"]}, {"minItems": 1}, {"type": ["object", "array"]}, {"uniqueItems": True}, {"const": {"a": 1}}]
)  # fmt: skip
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(NAMES, inner, max_size=2),
            "patternProperties": st.dictionaries(st.sampled_from(["^a", "b$"]), inner, max_size=1),
            "additionalProperties": inner,
            "propertyNames": st.sampled_from([{"maxLength": 1}, {"pattern": "a"}]),
            "items": inner,
            "prefixItems": st.lists(inner, min_size=1, max_size=2),
            "contains": inner,
            "allOf": st.lists(inner, min_size=1, max_size=2),
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "oneOf": st.lists(inner, min_size=1, max_size=2),
            "not": inner,
            "if": inner,
            "then": inner,
            "else": inner,
            "dependentSchemas": st.dictionaries(NAMES, inner, max_size=1),
            "unevaluatedProperties": inner,
            "unevaluatedItems": inner,
            "required": st.lists(NAMES, unique=True, max_size=2),
        },
    ),
    max_leaves=8,
)
VALUES = st.recursive(
    st.none() | st.integers(-2, 3) | st.sampled_from(["", "a", "ab"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "c", "ab"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(SCHEMAS.filter(lambda schema: isinstance(schema, dict)), VALUES)
def test_what_is_said_is_one_of_the_mistakes_that_the_library_lists(schema: dict[str, Any], data: Any) -> None:
    found = wrong(schema, data)
    errors = list(jsonschema_rs.Draft202012Validator(schema).iter_errors(data))
    assert (found is None) == (not errors)
    if found is not None:
        # Below what describes all of something, the place is that of its part.
        places = ["".join(f"/{part}" for part in error.instance_path) for error in errors]
        assert any(found.pointer.startswith(one) for one in places)


# At a trigger


def schema_of(schema: dict[str, Any], name: str = "") -> PayloadSchema:
    return PayloadSchema(text=encode_json(schema).decode(), name=name)


async def outcomes(desk: Bench, data: Any) -> list[tuple[str, str, str]]:
    answer = await desk.emit_one(event(data=data))
    return [(one.outcome.value, one.code, one.reason) for one in answer.outcomes]


TOTAL = {"properties": {"total": {"type": "integer"}}, "required": ["total"]}


async def test_triggers_on_one_source_decide_each_by_its_own_schema(tmp_path: Path) -> None:
    strict = trigger("a", schema=schema_of(TOTAL, "order.json"), filter="data.total > 1")
    async with bench(tmp_path / "s.db", triggers=[strict, trigger("b")]) as desk:
        reason = 'rejected: data at /total: it is not of type "integer" (order.json)'
        assert await outcomes(desk, {"total": "secret"}) == [
            ("rejected", "schema", reason), ("run", "matched", "matched"),
        ]  # fmt: skip
        passed = await desk.emit_one(event(data={"total": 2}))
        assert [one.outcome for one in passed.outcomes] == [EventOutcome.RUN, EventOutcome.RUN]
        assert [seen.gate for seen in passed.outcomes[0].gates] == ["schema", "filter"]


async def test_what_a_gate_of_schemas_saw_is_recorded_without_the_value(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger(schema=schema_of(TOTAL))]) as desk:
        answer = await desk.emit_one(event(data={"total": "hush"}))
        stored = await desk.store.event(answer.event)
        assert stored is not None
        (outcome,) = stored.outcomes
        assert outcome.reason == 'rejected: data at /total: it is not of type "integer"'
        assert [(seen.gate, seen.verdict, seen.saw) for seen in outcome.gates] == [
            ("schema", "drop", {"schema": "", "at": "/total", "keyword": "type"})
        ]
        assert desk.script.begun == []


async def test_a_rejected_event_takes_no_token_and_opens_no_window(tmp_path: Path) -> None:
    shaped = trigger(
        schema=schema_of(TOTAL), rate_limit=Rate(limit=1, per_s=60, burst=1), debounce=Debounce(wait_s=5)
    )  # fmt: skip
    async with bench(tmp_path / "s.db", triggers=[shaped]) as desk:
        for _ in range(3):
            assert (await outcomes(desk, {}))[0][1] == "schema"
        assert len(desk.windows) == 0
        assert (await outcomes(desk, {"total": 1}))[0][1] == "debounce"


def on_shared(of_source: dict[str, Any], **fields: Any) -> Trigger:
    shared = SharedSource(name="mill", id="mill", on=Listed(), schema=schema_of(of_source, "mill.json"))
    return trigger(fields.pop("name", "on-grain"), shared=shared, **fields)


async def test_the_schema_of_a_source_holds_for_each_trigger_on_it_besides_its_own(tmp_path: Path) -> None:
    both = on_shared(TOTAL, schema=schema_of({"required": ["id"]}))
    async with bench(tmp_path / "s.db", triggers=[both, on_shared(TOTAL, name="other")]) as desk:
        assert [one[:2] for one in await outcomes(desk, {"total": 1})] == [("rejected", "schema"), ("run", "matched")]
        assert [one[:2] for one in await outcomes(desk, {"id": 1})] == [("rejected", "schema")] * 2
        assert [one[:2] for one in await outcomes(desk, {"total": 1, "id": 1})] == [("run", "matched")] * 2


async def test_what_is_fired_by_hand_has_to_fit_too(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger(schema=schema_of(TOTAL))]) as desk:
        refused = await desk.intake.fire("on-grain", data={"total": "x"})
        assert [one.code for one in refused.outcomes] == ["schema"]
        taken = await desk.intake.fire("on-grain", data={"total": 3})
        await desk.settle()
        assert (await desk.run_of(taken.runs[0])).state is RunState.SUCCEEDED


async def test_a_tried_event_tells_what_the_schema_says(tmp_path: Path) -> None:
    async with bench(tmp_path / "s.db", triggers=[trigger(schema=schema_of(TOTAL))]) as desk:
        commits = desk.journal.commits
        tried = desk.intake.rehearsal.test("on-grain", event(data={}))
        assert (tried.outcome.outcome, tried.outcome.code) == (EventOutcome.REJECTED, "schema")
        assert desk.journal.commits == commits
