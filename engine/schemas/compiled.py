"""A schema made ready: whether data is as it says, and if not, where and why.

The library is `jsonschema-rs`. Nothing is ever fetched.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jsonschema_rs

from engine.errors import InvalidEvent, SchemaError
from engine.payload import parse_json
from engine.schemas.cost import steps_for_a_value
from engine.schemas.document import DIALECT, Document, escaped
from engine.schemas.explaining import Explainer, Violation
from engine.schemas.patterns import HINT, LARGEST_ANCHORED_BYTES, is_quick, options_of

__all__ = ["DIALECT", "LARGEST_BYTES", "Schema", "Violation", "compiled"]

LARGEST_BYTES = 256 * 1024
"""A schema may be so large, as JSON."""

MOST_STEPS = 4_000_000
"""Steps that looking at one event's data may take: about 100 ms on a small machine."""

OPTIONS: dict[str, Any] = {
    "offline": True,
    "validate_formats": True,
    "ignore_unknown_formats": False,
    "mask": "it",  # the library's sentences call the value so, and never quote it
    **options_of(LARGEST_ANCHORED_BYTES),  # each pattern is looked at by itself
}

MOST_COMPILED = 256


class Schema:
    """A schema that is ready. Make it with `compiled`.

    Raises SchemaError, with the JSON pointer of the part that is wrong.
    """

    def __init__(self, text: str) -> None:
        try:
            schema = parse_json(text.encode())
        except InvalidEvent as error:
            raise SchemaError("", str(error).replace("the body", "the schema", 1)) from None
        if not isinstance(schema, dict):
            raise SchemaError("", "a schema is a JSON object")
        document = Document(schema)
        _refuse_mistakes(schema)
        _refuse_patterns_and_formats(document)
        self.steps_for_a_value = steps_for_a_value(document)
        whole = jsonschema_rs.validator_map_for(schema, **OPTIONS)
        self._valid = whole["#"].is_valid
        self._explainer = Explainer(document, whole, OPTIONS)

    def violation(self, data: Any, encoded: bytes) -> Violation | None:
        """Return what is wrong with data first, or None; `encoded` is the data as JSON."""
        most = MOST_STEPS // self.steps_for_a_value
        # Values are told by what stands between them: at least one byte for each.
        if len(encoded) > most and (values := _values(encoded)) > most:
            return Violation(
                pointer="", keyword="",
                text=f"it holds {values:,} values, and no more than {most:,} are compared with this schema",
            )  # fmt: skip
        return None if self._valid(data) else self._explainer.explain(data)


@lru_cache(maxsize=MOST_COMPILED)
def compiled(text: str) -> Schema:
    """Return a schema, given as JSON, made ready; equal ones are made ready once. Raises SchemaError."""
    return Schema(text)


def _values(encoded: bytes) -> int:
    """Return how many values a JSON text holds at most."""
    return 1 + encoded.count(b",") + encoded.count(b"[") + encoded.count(b"{")


def _refuse_mistakes(schema: dict[str, Any]) -> None:
    """Refuse what the meta-schema refuses, with its place in the schema."""
    try:
        jsonschema_rs.meta.validate(schema)
    except jsonschema_rs.ValidationError as error:
        raise SchemaError("".join(f"/{escaped(str(part))}" for part in error.instance_path), error.message) from None


def _refuse_patterns_and_formats(document: Document) -> None:
    """Refuse patterns that are wrong, or could take long, and formats that are not known."""
    for pointer, node in document.nodes.items():
        if not isinstance(node.schema, dict):
            continue
        patterns = [
            (f"{pointer}/patternProperties/{escaped(one)}", one) for one in node.schema.get("patternProperties", ())
        ]
        if "pattern" in node.schema:
            patterns.append((f"{pointer}/pattern", node.schema["pattern"]))
        for at, pattern in patterns:
            if not is_quick(pattern):
                raise SchemaError(at, f'"{pattern:.80}" is no regular expression that is taken', HINT)
        if "format" in node.schema and not _is_known(node.schema["format"]):
            raise SchemaError(f"{pointer}/format", f'"{node.schema["format"]:.80}" is no format of JSON Schema 2020-12')


def _is_known(name: str) -> bool:
    try:
        jsonschema_rs.Draft202012Validator({"format": name}, **OPTIONS)
    except ValueError:
        return False
    return True
