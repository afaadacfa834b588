"""What is wrong with data first, and where: a walk down the schema, along what does not hold.

The library can list all errors, but for alternatives (`anyOf`, `oneOf`) it makes one for each part of each of them,
with a copy of the value: seconds for an event of a megabyte. This walk only asks whether parts hold, which is quick.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema_rs
from msgspec import Struct

from engine.schemas.document import APPLICATORS, Document, Node, escaped

_LONGEST = 200
_LONGEST_NAME = 64


class Violation(Struct, frozen=True, kw_only=True):
    """What is wrong with data.

    - `pointer`: the JSON pointer of the value, empty for the data as a whole; `text`: a sentence about `it`, the value.
    - `keyword`: the keyword that does not hold, empty where the schema was not asked.
    """

    pointer: str
    text: str
    keyword: str


class Explainer:
    """Explains why data is not as a schema says. `whole` holds its subschemas made ready, by pointer."""

    def __init__(self, document: Document, whole: jsonschema_rs.ValidatorMap, options: Mapping[str, Any]) -> None:
        self._nodes = document.nodes
        self._valid = {pointer[1:]: whole[pointer].is_valid for pointer in whole.keys()}
        self._options = options
        self._of_value: dict[str, jsonschema_rs.Validator] = {}
        self._of_pattern: dict[str, jsonschema_rs.Validator] = {}

    def explain(self, data: Any) -> Violation:
        """Return what is wrong with data that is not valid."""
        node, value, at = self._nodes[""], data, ""
        while True:
            found = self._one(node, value, at)
            if isinstance(found, Violation):
                return found
            node, value, at = found

    def _one(self, node: Node, value: Any, at: str) -> Violation | tuple[Node, Any, str]:
        """Return what is wrong, or with which subschema, value and place to go on."""
        if not isinstance(node.schema, dict):
            return Violation(pointer=at, text="it is not expected", keyword="")
        for pointer, child, place in self._applied(node, value, at):
            if not self._valid[pointer](child):
                return self._nodes[pointer], child, place
        own = self._of_value.get(node.pointer)
        if own is None:
            values = {name: given for name, given in node.schema.items() if name not in APPLICATORS and name[0] != "$"}
            own = self._of_value[node.pointer] = jsonschema_rs.Draft202012Validator(values, **self._options)
        try:
            own.validate(value)
        except jsonschema_rs.ValidationError as error:
            return Violation(pointer=at, text=_sentence(error.message), keyword=error.kind.name)
        return self._of_alternatives(node, value, at)

    def _applied(self, node: Node, value: Any, at: str) -> Iterator[tuple[str, Any, str]]:
        """Yield each subschema that has to hold, with the value and its place."""
        schema, base = node.schema, node.pointer
        if node.ref is not None:
            yield node.ref, value, at
        for index, _ in enumerate(schema.get("allOf", ())):
            yield f"{base}/allOf/{index}", value, at
        if "if" in schema:
            branch = "then" if self._valid[f"{base}/if"](value) else "else"
            if branch in schema:
                yield f"{base}/{branch}", value, at
        if isinstance(value, dict):
            yield from self._members(node, value, at)
        elif isinstance(value, (list, tuple)):
            first = schema.get("prefixItems", ())
            for index, item in enumerate(value):
                if index < len(first):
                    yield f"{base}/prefixItems/{index}", item, f"{at}/{index}"
                elif "items" in schema:
                    yield f"{base}/items", item, f"{at}/{index}"

    def _members(self, node: Node, value: dict[str, Any], at: str) -> Iterator[tuple[str, Any, str]]:
        schema, base = node.schema, node.pointer
        for name in schema.get("dependentSchemas", ()):
            if name in value:
                yield f"{base}/dependentSchemas/{escaped(name)}", value, at
        named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
        for name, item in value.items():
            place = f"{at}/{escaped(name)}"
            if "propertyNames" in schema:
                yield f"{base}/propertyNames", name, place
            matched = [pattern for pattern in patterns if self._matches(pattern, name)]
            if name in named:
                yield f"{base}/properties/{escaped(name)}", item, place
            for pattern in matched:
                yield f"{base}/patternProperties/{escaped(pattern)}", item, place
            if "additionalProperties" in schema and name not in named and not matched:
                yield f"{base}/additionalProperties", item, place

    def _matches(self, pattern: str, name: str) -> bool:
        made = self._of_pattern.get(pattern)
        if made is None:
            made = self._of_pattern[pattern] = jsonschema_rs.Draft202012Validator({"pattern": pattern}, **self._options)
        return made.is_valid(name)

    def _of_alternatives(self, node: Node, value: Any, at: str) -> Violation:
        """Say which of the rest does not hold: what has alternatives, and what is left over."""
        schema, base = node.schema, node.pointer
        for keyword in ("anyOf", "oneOf"):
            fit = sum(
                self._valid[f"{base}/{keyword}/{index}"](value) for index, _ in enumerate(schema.get(keyword, ()))
            )
            if keyword in schema and (not fit or (keyword == "oneOf" and fit > 1)):
                many = f"{fit} of its alternatives, not one" if fit else "none of its alternatives"
                return Violation(pointer=at, text=f"it is as {many} ({keyword})", keyword=keyword)
        if "not" in schema and self._valid[f"{base}/not"](value):
            return Violation(pointer=at, text="it is what it must not be (not)", keyword="not")
        for keyword, what in (
            ("contains", "it holds too few or too many elements of those that it has to (contains)"),
            ("unevaluatedProperties", "it holds members that are not expected (unevaluatedProperties)"),
            ("unevaluatedItems", "it holds elements that are not expected (unevaluatedItems)"),
        ):
            if keyword in schema:
                return Violation(pointer=at, text=what, keyword=keyword)
        return Violation(pointer=at, text="it is not as the schema says", keyword="")


def _sentence(message: str) -> str:
    return message if len(message) <= _LONGEST else f"{message[:_LONGEST]}…"
