"""Values of a database: as plain JSON, and as cursors, which are stored with their kind."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from engine.plugin import encode_json
from plugins.querying.rows import BadRows

DEEPEST = 32
"""Lists and objects in each other beyond this (PostgreSQL's arrays and JSON) are written as text."""

_LEAST_INT, _GREATEST_INT = -(2**63), 2**63 - 1
_STAMP = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)"
    r"(?:(?P<gap>[ T])(?P<time>\d\d:\d\d(?P<seconds>:\d\d(?:\.(?P<fraction>\d{1,9}))?)?))?"
    r"(?P<zone>Z|[+-]\d\d(?::?\d\d)?)?"
)


def plain(value: Any, depth: int = 0) -> Any:
    """Return a value as plain JSON.

    Exact numbers that JSON's readers may round (decimals, integers beyond 64 bits) are text, and so are NaN and
    infinities; instants are RFC 3339, in UTC where they have a zone; bytes are base64 (RFC 4648, section 4);
    intervals are seconds.
    """
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is str:
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if kind is int:
        return value if _LEAST_INT <= value <= _GREATEST_INT else str(value)
    if kind is float:
        return value if math.isfinite(value) else _named(value)
    if isinstance(value, datetime):
        return value.isoformat() if value.tzinfo is None else _in_utc(value)
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    if isinstance(value, Enum):
        return plain(value.value, depth)
    if depth < DEEPEST and isinstance(value, Mapping):
        return {str(plain(name)): plain(item, depth + 1) for name, item in value.items()}
    if depth < DEEPEST and isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item, depth + 1) for item in value]
    return plain(str(value))


def as_text(value: Any) -> str:
    """Return a plain value as people read it: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else encode_json(value).decode()


def pack(value: Any) -> dict[str, Any]:
    """Return a cursor's value with its kind, as JSON; raise BadRows where it is none that rows can be ordered by."""
    if isinstance(value, bool):
        raise BadRows("a cursor can't be true or false")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadRows(f"a cursor can't be {_named(value)}")
    for kind, (cls, write, _) in _KINDS.items():
        if isinstance(value, cls):
            return {"kind": kind, "value": write(value)}
    raise BadRows(f"a cursor can't be a {type(value).__name__}; take a number, a text, a date or a time stamp")


def unpack(stored: Mapping[str, Any]) -> Any:
    """Return the value that `pack` was given."""
    _, _, read = _KINDS[stored["kind"]]
    return read(stored["value"])


def chosen(value: float | str, stored: Mapping[str, Any] | None, *, has_stamps: bool) -> Any:
    """Return the cursor value that somebody wrote as a number or text: of the kind that is stored.

    Where none is stored, texts that are time stamps are taken for such where the database `has_stamps`. Raises
    ValueError for what is none of that kind.
    """
    kind = None if stored is None else stored["kind"]
    if kind is not None:
        try:
            return unpack({"kind": kind, "value": str(value) if kind != "float" else value})
        except (ValueError, ArithmeticError):
            raise ValueError(f"{value!r:.80} is no {kind}, as the column's values are") from None
    if has_stamps and isinstance(value, str) and (found := _STAMP.fullmatch(value)) is not None:
        return datetime.fromisoformat(value) if found["time"] else date.fromisoformat(value)
    return value


def order(one: Any, other: Any) -> int | None:
    """Compare cursor values as every database does: -1, 0, 1; None where that depends on the database.

    Text is such a case (collations), but for time stamps, whose characters sort alike everywhere.
    """
    family = _family(one)
    if family is None or family != _family(other):
        return 0 if type(one) is type(other) and one == other else None
    return int(one > other) - int(one < other)


def earlier(value: Any, look_back: float) -> Any:
    """Return the cursor value from which to read again.

    `look_back` is a float of seconds for dates, time stamps and their texts, or an int for numbers. Where the kind
    of value is less fine than that (a date, a text without fractions), the result is the next earlier one. Raises
    BadRows where the two don't go together.
    """
    family = _family(value)
    if family == "number" and type(look_back) is int:
        return max(value - look_back, _LEAST_INT) if type(value) is int else value - look_back
    if family is None or family == "number" or type(look_back) is int:
        wanted = "a duration" if family not in (None, "number") else "a whole number"
        what = "is text that is no time stamp" if family is None else f"is a {type(value).__name__}"
        hint = "numbers, dates and time stamps have one" if family is None else f"`look_back` has to be {wanted} then"
        raise BadRows(f"the cursor {what}: {hint}")
    back = timedelta(seconds=look_back)
    if isinstance(value, str):
        return _earlier_text(value, back)
    if isinstance(value, datetime):
        return _minus(value, back)
    return _minus(datetime(value.year, value.month, value.day), back).date()  # noqa: DTZ001 - a date has no zone


def _family(value: Any) -> str | None:
    """Return the name of what a value can be compared with."""
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        return "number"
    if isinstance(value, datetime):
        return "naive instant" if value.tzinfo is None else "instant"
    if isinstance(value, date):
        return "date"
    return "stamp" if isinstance(value, str) and _STAMP.fullmatch(value) else None


def _earlier_text(text: str, back: timedelta) -> str:
    found = _STAMP.fullmatch(text)
    if found is None:
        raise BadRows("the cursor is text that is no time stamp")
    parts = found.groupdict()
    fraction = (parts["fraction"] or "")[:6]
    try:
        at = datetime.fromisoformat(f"{parts['date']} {(parts['time'] or '00:00')[:8]}")
    except ValueError:
        raise BadRows(f"the cursor {text!r} looks like a time stamp, but there is no such time") from None
    at = _minus(at.replace(microsecond=int(fraction.ljust(6, "0"))), back)
    written = at.strftime("%Y-%m-%d").rjust(10, "0")
    if parts["time"]:
        written += parts["gap"] + at.strftime("%H:%M:%S" if parts["seconds"] else "%H:%M")
    if parts["fraction"]:
        digits = len(parts["fraction"])
        written += "." + f"{at.microsecond:06}"[:digits].ljust(digits, "0")
    return written + (parts["zone"] or "")


def _minus(at: datetime, back: timedelta) -> datetime:
    try:
        return at - back
    except OverflowError:
        return datetime.min.replace(tzinfo=at.tzinfo)


def _named(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _in_utc(value: datetime) -> str:
    try:
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    except OverflowError:
        return value.isoformat()


_KINDS: dict[str, tuple[type[Any], Any, Any]] = {
    "int": (int, str, int),
    "float": (float, float, float),
    "decimal": (Decimal, str, Decimal),
    "text": (str, str, str),
    "datetime": (datetime, datetime.isoformat, datetime.fromisoformat),
    "date": (date, date.isoformat, date.fromisoformat),
    "uuid": (UUID, str, UUID),
    "bytes": (bytes, bytes.hex, bytes.fromhex),
}
"""By kind: its class, and how it is written and read; a datetime is a date too, so it comes first."""
