"""Reading what a caller sent: closed schemas, and all mistakes at once."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from engine.http.problems import Problem
from engine.ids import is_id, is_slug
from engine.members import Members
from engine.members import near as near  # for those who read fields
from engine.payload import parse_json
from engine.plugin import Headers, Request
from engine.units import parse_duration

LARGEST_LIMIT = 1000
DEFAULT_LIMIT = 50
LONGEST_KEY = 255

_KEY = re.compile(r"[\x20-\x7e]{1,255}\Z")


class Fields(Members):
    """Members of one object, or parameters of one query; `finish` raises Problem 422 with all that is wrong."""

    def finish(self) -> None:
        """Raise Problem 422 where anything was wrong."""
        refuse(self.errors)

    def slug(self, name: str) -> str | None:
        """Return a member that names a job or a trigger."""
        value = self._values.get(name)
        if value is None:
            return None
        if not isinstance(value, str) or not is_slug(value):
            self.fault(name, f"{name} must be a name: letters, digits, '_', '.' and '-', at most 128")
            return None
        return value

    def slugs(self, name: str, least: int, most: int) -> tuple[str, ...] | None:
        """Return a list of different names."""
        value: Any = self._values.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not least <= len(value) <= most:
            self.fault(name, f"{name} must be a list of {least} to {most} names")
            return None
        for index, one in enumerate(value):
            if not isinstance(one, str) or not is_slug(one):
                self.fault_at(f"{name}/{index}", "a name has letters, digits, '_', '.' and '-', at most 128")
            elif one in value[:index]:
                self.fault_at(f"{name}/{index}", f"{one!r} is named twice")
        return tuple(one for one in value if isinstance(one, str))

    def id(self, name: str, fault: str) -> str | None:
        """Return an id; `fault` says what it must be."""
        value: Any = self._values.get(name)
        if value is not None and not (isinstance(value, str) and is_id(value)):
            self.fault(name, fault)
            return None
        return value

    def duration(self, name: str) -> float | None:
        """Return a duration in seconds, written as in the configuration; it is longer than nothing."""
        value = self._values.get(name)
        if value is None:
            return None
        try:
            seconds = parse_duration(value) if isinstance(value, str) else 0.0
        except ValueError:
            seconds = 0.0
        if seconds <= 0:
            self.fault(name, f'{name} must be a duration, such as "30m" or "1h30m"')
            return None
        return seconds

    def number(self, name: str, lowest: int, highest: int) -> int | None:
        """Return a whole number that is written in decimal digits (a query's)."""
        value = self._values.get(name)
        if value is None:
            return None
        if value.isascii() and value.isdigit() and len(value) < 10 and lowest <= int(value) <= highest:
            return int(value)
        self.fault(name, f"{name} must be a whole number from {lowest} to {highest}")
        return None

    def flag(self, name: str) -> bool:
        """Return whether a query's parameter is 1 or true; it may be absent, 0 or false."""
        value = self._values.get(name, "0")
        if value not in ("0", "1", "true", "false"):
            self.fault(name, f"{name} must be 1 or 0")
        return value in ("1", "true")

    def limit(self) -> int:
        """Return how many items a list may hold."""
        return self.number("limit", 1, LARGEST_LIMIT) or DEFAULT_LIMIT

    def cursor(self) -> str | None:
        """Return the id from which on a list goes, as the `next` of the one before said."""
        value = self._values.get("cursor")
        if value is not None and not is_id(value):
            self.fault("cursor", "cursor must be the `next` of the list before")
            return None
        return value


def query(request: Request, *known: str) -> Fields:
    """Return the query's parameters, of which only those in `known` are allowed."""
    return Fields(request.query, known, None)


def body(request: Request, known: Collection[str], *, optional: bool = False) -> Fields:
    """Return the members of the JSON object in the body.

    Raises Problem 415 for another content type, InvalidEvent for what is no JSON, Problem 422 for no object.
    With `optional` an absent body is an empty object.
    """
    if not request.body and optional:
        return Fields({}, known)
    media_type(request.headers, ("application/json",))
    value = parse_json(request.body)
    if not isinstance(value, dict):
        raise Problem(422, "the body must be a JSON object", code="invalid_fields")
    return Fields(value, known)


def media_type(headers: Headers, allowed: Collection[str]) -> str:
    """Return the body's media type, in lower case; raise Problem 415 where it is none of `allowed`."""
    kind, _, parameters = headers.get("Content-Type", "").partition(";")
    kind = kind.strip().lower()
    charset = re.search(r"charset\s*=\s*\"?([\w-]+)", parameters, re.IGNORECASE)
    if kind in allowed and (charset is None or charset[1].lower() in ("utf-8", "utf8")):
        return kind
    raise Problem(
        415,
        f"the body must be UTF-8 with the Content-Type {' or '.join(sorted(allowed))}",
        headers={"Accept": ", ".join(sorted(allowed))},
    )


def idempotency_key(headers: Headers) -> str | None:
    """Return the Idempotency-Key; raise Problem 400 where it is not 1 to 255 printable ASCII characters."""
    key = headers.get("Idempotency-Key")
    if key is None:
        return None
    if _KEY.match(key) is None:
        raise Problem(400, f"Idempotency-Key must be 1 to {LONGEST_KEY} printable ASCII characters")
    return key


def refuse(errors: Collection[Mapping[str, Any]]) -> None:
    """Raise Problem 422 for mistakes in the input, where there are any."""
    if errors:
        first = next(iter(errors))["detail"]
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise Problem(422, f"{first}{more}", code="invalid_fields", errors=tuple(errors))
