"""A schema as a graph: its subschemas by JSON pointer, and which of them are applied where.

Keywords are those of the core, applicator, unevaluated, validation and format vocabularies of 2020-12. Others are
refused, as a mistyped one would let everything pass; names that begin with `x-` are free.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

from msgspec import Struct, field

from engine.errors import SchemaError

DIALECT = "https://json-schema.org/draft/2020-12/schema"

MOST_SUBSCHEMAS = 3_000

HERE = frozenset({"not", "if", "then", "else"})
HERE_LISTS = frozenset({"allOf", "anyOf", "oneOf"})
HERE_TABLES = frozenset({"dependentSchemas"})
"""Keywords whose subschemas are applied to the very value that their schema is applied to."""

BELOW = frozenset(
    {"additionalProperties", "propertyNames", "items", "contains", "unevaluatedItems", "unevaluatedProperties"}
)
BELOW_LISTS = frozenset({"prefixItems"})
BELOW_TABLES = frozenset({"properties", "patternProperties"})
"""Keywords whose subschemas are applied to members or elements of that value."""

APPLICATORS = HERE | HERE_LISTS | HERE_TABLES | BELOW | BELOW_LISTS | BELOW_TABLES | {"$ref"}

_KEPT = frozenset({"$defs", "definitions"})
_OTHERS = frozenset(
    "$schema $id $anchor $comment type enum const multipleOf maximum exclusiveMaximum minimum exclusiveMinimum "
    "maxLength minLength pattern maxItems minItems uniqueItems maxContains minContains maxProperties minProperties "
    "required dependentRequired format title description default deprecated readOnly writeOnly examples "
    "contentEncoding contentMediaType contentSchema".split()
)
_KNOWN = APPLICATORS | _KEPT | _OTHERS
_HINTS = {
    "dependencies": "2020-12 has dependentRequired and dependentSchemas in its place",
    "nullable": 'that is OpenAPI\'s; write type = ["string", "null"]',
    "$dynamicRef": "it is not taken here; refer to one schema with $ref",
    "$dynamicAnchor": "it is not taken here; name the schema with $anchor",
    "$recursiveRef": "it is not taken here; refer to one schema with $ref",
    "$vocabulary": "it is for meta-schemas, and this is none",
}

OTHER = ""
"""Stands for every member and element that a schema does not name."""


class Node(Struct):
    """One subschema. `schema` is a table, or true or false.

    - `here`: the subschemas that are applied to the same value; `ref` is the one of them that `$ref` names.
    - `named`: those of single members or elements, by name or index; `rest`: those of all others; `each`: those of all.
    """

    pointer: str
    schema: Any
    here: list[str] = field(default_factory=list)
    named: dict[str, list[str]] = field(default_factory=dict)
    rest: list[str] = field(default_factory=list)
    each: list[str] = field(default_factory=list)
    ref: str | None = None


class Document:
    """All subschemas of a schema by their JSON pointers, `""` for the whole.

    Raises SchemaError with the pointer of what is wrong: unknown keywords, references that lead outside or nowhere, a
    schema that is applied to a value once more by itself, too many subschemas.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.nodes: dict[str, Node] = {}
        self._places: dict[str, str] = {}
        """The pointers of subschemas by absolute address: those that have an `$id` or an `$anchor`."""
        self._bases: dict[str, str] = {}
        self._add("", schema, "")
        self._places.setdefault("", "")
        for node in self.nodes.values():
            if isinstance(node.schema, dict):
                self._connect(node)
        self.order = tuple(self._ordered())

    def _add(self, pointer: str, schema: Any, base: str) -> None:
        if len(self.nodes) >= MOST_SUBSCHEMAS:
            raise SchemaError("", f"has more than {MOST_SUBSCHEMAS:,} subschemas")
        if isinstance(schema, bool):
            self.nodes[pointer] = Node(pointer=pointer, schema=schema)
            return
        if not isinstance(schema, dict):
            raise SchemaError(pointer, f"is {said_of_kind(schema)}; a schema is a table, or true or false")
        for keyword in schema:
            if keyword not in _KNOWN and not keyword.startswith("x-"):
                near = difflib.get_close_matches(keyword, _KNOWN, n=1)
                hint = _HINTS.get(keyword) or (f"did you mean {near[0]}?" if near else "own ones begin with x-")
                raise SchemaError(_below(pointer, keyword), "is no keyword of JSON Schema 2020-12", hint)
        dialect = schema.get("$schema")
        if isinstance(dialect, str) and dialect.rstrip("#") != DIALECT:
            raise SchemaError(_below(pointer, "$schema"), "is another dialect", f'"{DIALECT}" is the one that is taken')
        if isinstance(schema.get("$id"), str):
            base = urldefrag(urljoin(base, schema["$id"])).url
            self._places[base] = pointer
        if isinstance(schema.get("$anchor"), str):
            self._places[f"{base}#{schema['$anchor']}"] = pointer
        self._bases[pointer] = base
        self.nodes[pointer] = Node(pointer=pointer, schema=schema)
        for _, _, at, child in children(pointer, schema, _KEPT):
            self._add(at, child, base)

    def _connect(self, node: Node) -> None:
        for keyword, name, at, _ in children(node.pointer, node.schema):
            if keyword in HERE or keyword in HERE_LISTS or keyword in HERE_TABLES:
                node.here.append(at)
            elif keyword in ("properties", "prefixItems"):
                node.named.setdefault(name, []).append(at)
            elif keyword in ("additionalProperties", "items"):
                node.rest.append(at)
            else:
                node.each.append(at)
        if isinstance(reference := node.schema.get("$ref"), str):
            node.ref = self._resolve(node.pointer, reference)
            node.here.append(node.ref)

    def _resolve(self, pointer: str, reference: str) -> str:
        at = _below(pointer, "$ref")
        url, fragment = urldefrag(urljoin(self._bases[pointer] or "", reference))
        fragment = unquote(fragment)
        whole = self._places.get(url)
        if whole is None:
            raise SchemaError(at, "refers to what stands elsewhere", "put it into $defs; nothing else is read for it")
        found = self._places.get(f"{url}#{fragment}") if fragment and not fragment.startswith("/") else whole + fragment
        if found is None or found not in self.nodes:
            raise SchemaError(at, "refers to a schema that is not there")
        return found

    def _ordered(self) -> Iterator[str]:
        """Yield all pointers so that each comes before those that it applies to the same value."""
        state: dict[str, bool] = {}
        done: list[str] = []
        for first in self.nodes:
            stack = [(first, iter(self.nodes[first].here))] if first not in state else []
            state.setdefault(first, False)
            while stack:
                pointer, rest = stack[-1]
                following = next(rest, None)
                if following is None:
                    stack.pop()
                    state[pointer] = True
                    done.append(pointer)
                elif following not in state:
                    state[following] = False
                    stack.append((following, iter(self.nodes[following].here)))
                elif not state[following]:
                    raise SchemaError(following, "comes to be applied to the same value by itself, without end")
        return reversed(done)


def children(
    pointer: str, schema: Mapping[str, Any], kept: frozenset[str] = frozenset()
) -> Iterator[tuple[str, str, str, Any]]:
    """Yield the subschemas of a schema, with keyword, name within that (or none), and pointer; also those of `kept`."""
    for keyword, value in schema.items():
        at = _below(pointer, keyword)
        if keyword in HERE or keyword in BELOW:
            yield keyword, "", at, value
        elif keyword in HERE_LISTS or keyword in BELOW_LISTS:
            if not isinstance(value, list):
                raise SchemaError(at, f"is {said_of_kind(value)}, expected a list of schemas")
            for index, child in enumerate(value):
                yield keyword, f"#{index}", f"{at}/{index}", child
        elif keyword in HERE_TABLES or keyword in BELOW_TABLES or keyword in kept:
            if not isinstance(value, dict):
                raise SchemaError(at, f"is {said_of_kind(value)}, expected a table of schemas")
            for name, child in value.items():
                yield keyword, f".{name}", _below(at, name), child


def said_of_kind(value: Any) -> str:
    """Say of which kind a value is, as people who write schemas call it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number"
    return "a text" if isinstance(value, str) else "a list" if isinstance(value, list) else "a table"


def _below(pointer: str, name: str) -> str:
    return f"{pointer}/{escaped(name)}"


def escaped(name: str) -> str:
    """Return a name as a JSON pointer has it (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")
