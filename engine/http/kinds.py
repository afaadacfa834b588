"""Kinds of members that callers send: how each is read, and the JSON Schema that tells of it.

A kind stands in the annotation of a form's field (`Annotated[str | None, Line(1000)]`): what reads a request and what
describes it to the outside is one object, so neither can say what the other does not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from enum import Enum
from typing import Any, Protocol

from msgspec import Struct

from engine.http.fields import LARGEST_LIMIT, Fields, near
from engine.triggers import HIGHEST_PRIORITY, LOWEST_PRIORITY, PRIORITIES

Schema = Mapping[str, Any]

ID_PATTERN = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
SLUG_PATTERN = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$"
NO_CONTROL = r"^[^\u0000-\u001f\u007f-\u009f]+$"
_PARTS = "".join(rf"([0-9]+(\.[0-9]+)?{unit})?" for unit in ("w", "d", "h", "m", "s", "ms"))
DURATION_PATTERN = rf"^({_PARTS}|P.+)$"


def words_of(words: Iterable[Enum]) -> tuple[str, ...]:
    """Return the values of an enumeration, or of some of its members, in their order."""
    return tuple(str(word.value) for word in words)


class Kind(Protocol):
    """How a member is read from what was sent; what is wrong with it is noted in the fields."""

    @property
    def schema(self) -> Schema:
        """Return the JSON Schema of its value, where it is given."""
        ...

    def read(self, fields: Fields, name: str) -> Any:
        """Return its value; None where it is absent, null or wrong."""
        ...


class Line(Struct, frozen=True):
    """Text of one line, not empty."""

    longest: int = 1024

    @property
    def schema(self) -> Schema:
        return {"type": "string", "minLength": 1, "maxLength": self.longest, "pattern": NO_CONTROL}

    def read(self, fields: Fields, name: str) -> str | None:
        return fields.text(name, longest=self.longest)


class Text(Struct, frozen=True):
    """Text of any length and content."""

    what: str

    @property
    def schema(self) -> Schema:
        return {"type": "string"}

    def read(self, fields: Fields, name: str) -> str | None:
        value = fields.value(name)
        if value is None or isinstance(value, str):
            return value
        fields.fault(name, f"{name} must be {self.what}")
        return None


class Slug(Struct, frozen=True):
    """The name of a job, a trigger or something else that has one."""

    @property
    def schema(self) -> Schema:
        return {"type": "string", "pattern": SLUG_PATTERN}

    def read(self, fields: Fields, name: str) -> str | None:
        return fields.slug(name)


class Id(Struct, frozen=True):
    """An id, as the engine makes them."""

    fault: str

    @property
    def schema(self) -> Schema:
        return {"type": "string", "pattern": ID_PATTERN}

    def read(self, fields: Fields, name: str) -> str | None:
        return fields.id(name, self.fault)


class Span(Struct, frozen=True):
    """A duration, as the configuration writes it."""

    @property
    def schema(self) -> Schema:
        return {"type": "string", "pattern": DURATION_PATTERN, "examples": ["30m", "1h30m"]}

    def read(self, fields: Fields, name: str) -> float | None:
        return fields.duration(name)


class Instant(Struct, frozen=True):
    """An instant in RFC 3339, with its offset."""

    @property
    def schema(self) -> Schema:
        return {"type": "string", "format": "date-time", "examples": ["2026-11-21T09:30:00Z"]}

    def read(self, fields: Fields, name: str) -> Any:
        return fields.instant(name)


class Priority(Struct, frozen=True):
    """A priority: 0 to 9, or one of the names."""

    @property
    def schema(self) -> Schema:
        number = {"type": "integer", "minimum": LOWEST_PRIORITY, "maximum": HIGHEST_PRIORITY}
        return {"anyOf": [number, {"enum": list(PRIORITIES)}]}

    def read(self, fields: Fields, name: str) -> int | None:
        return fields.priority(name)


class Flag(Struct, frozen=True):
    """True or false, in a body."""

    @property
    def schema(self) -> Schema:
        return {"type": "boolean"}

    def read(self, fields: Fields, name: str) -> bool | None:
        value: Any = fields.value(name)
        if value is None or isinstance(value, bool):
            return value
        fields.fault(name, f"{name} must be true or false")
        return None


class Switch(Struct, frozen=True):
    """1 or 0, in a query."""

    @property
    def schema(self) -> Schema:
        return {"type": "string", "enum": ["1", "0", "true", "false"]}

    def read(self, fields: Fields, name: str) -> bool | None:
        return fields.flag(name) if name in fields else None


class Whole(Struct, frozen=True):
    """A whole number, in a body."""

    lowest: int
    highest: int

    @property
    def schema(self) -> Schema:
        return {"type": "integer", "minimum": self.lowest, "maximum": self.highest}

    def read(self, fields: Fields, name: str) -> int | None:
        value: Any = fields.value(name)
        if value is None or (type(value) is int and self.lowest <= value <= self.highest):
            return value
        fields.fault(name, f"{name} must be a whole number from {self.lowest} to {self.highest}")
        return None


class Number(Struct, frozen=True):
    """A whole number in decimal digits, in a query."""

    lowest: int
    highest: int

    @property
    def schema(self) -> Schema:
        return {"type": "integer", "minimum": self.lowest, "maximum": self.highest}

    def read(self, fields: Fields, name: str) -> int | None:
        return fields.number(name, self.lowest, self.highest)


class OneOf(Struct, frozen=True):
    """One of a few words."""

    words: tuple[str, ...]

    @property
    def schema(self) -> Schema:
        return {"type": "string", "enum": list(self.words)}

    def read(self, fields: Fields, name: str) -> str | None:
        value: Any = fields.value(name)
        if value is None or (isinstance(value, str) and value in self.words):
            return value
        fields.fault(name, f"{name} must be one of {', '.join(self.words)}")
        return None


class SomeOf(Struct, frozen=True):
    """Words of a few, with commas between them, in a query; `what` one of them is."""

    words: tuple[str, ...]
    what: str

    @property
    def schema(self) -> Schema:
        word = "|".join(self.words)
        return {"type": "string", "pattern": f"^({word})(,({word}))*$", "examples": [",".join(self.words[:2])]}

    def read(self, fields: Fields, name: str) -> frozenset[str] | None:
        value: Any = fields.value(name)
        return (
            None
            if value is None
            else frozenset(_known(fields, name, value.split(","), self.words, f"unknown {self.what}"))
        )


class ListOf(Struct, frozen=True):
    """A list of words of a few, in a body.

    `fault` says what it must be, and `unknown` begins the sentence about a word that is none of them.
    """

    words: tuple[str, ...]
    fault: str
    unknown: str
    empty: bool = True

    @property
    def schema(self) -> Schema:
        items = {"type": "string", "enum": list(self.words)}
        return {"type": "array", "items": items, **({} if self.empty else {"minItems": 1})}

    def read(self, fields: Fields, name: str) -> frozenset[str] | None:
        value: Any = fields.value(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value) or not (value or self.empty):
            fields.fault(name, self.fault)
            return None
        return frozenset(_known(fields, name, value, self.words, self.unknown))


class Names(Struct, frozen=True):
    """A list of names, in a body."""

    most: int
    least: int = 0

    @property
    def schema(self) -> Schema:
        items = {"type": "string", "pattern": SLUG_PATTERN}
        return {"type": "array", "items": items, "minItems": self.least, "maxItems": self.most}

    def read(self, fields: Fields, name: str) -> tuple[str, ...] | None:
        return fields.slugs(name, self.least, self.most)


class Anything(Struct, frozen=True):
    """Any JSON value."""

    @property
    def schema(self) -> Schema:
        return {}

    def read(self, fields: Fields, name: str) -> Any:
        return fields.value(name)


class Members(Struct, frozen=True):
    """An object whose members whoever reads it looks at."""

    fault: str

    @property
    def schema(self) -> Schema:
        return {"type": "object"}

    def read(self, fields: Fields, name: str) -> dict[str, Any] | None:
        value: Any = fields.value(name)
        if value is None or isinstance(value, dict):
            return value
        fields.fault(name, self.fault)
        return None


LIMIT = Number(1, LARGEST_LIMIT)
"""How many items a page of a list may hold."""

CURSOR = Id("cursor must be the `next` of the list before")


def _known(fields: Fields, name: str, given: list[str], words: Collection[str], unknown: str) -> list[str]:
    for one in given:
        if one not in words:
            fields.fault(name, f"{unknown} {one!r}{near(one, words)}")
    return [one for one in given if one in words]
