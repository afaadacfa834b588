"""The door: what may be an event's data. Strict JSON from outside, and plain JSON values from plugins."""

from __future__ import annotations

import math
import re
from typing import Any

import msgspec

from engine.errors import InvalidEvent

MAX_DEPTH = 64
"""Levels of nesting that data may have, the outermost value being the first."""

_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_SCALARS = (str, int, bool, type(None))
_LARGEST_INT = 2**63


class Shape(msgspec.Struct, frozen=True):
    """What a walk over data found: how deep and how wide it is, and how many members its objects have."""

    depth: int
    widest: int
    members: int


def survey(data: Any) -> Shape:
    """Walk over `data` and return its shape; raise InvalidEvent where it is no plain JSON value.

    Refused, with the place: more than 64 levels (a cycle is endless depth), numbers that are NaN or infinite,
    integers beyond 64 bits, text with lone surrogates, object keys that are not text, and every other type
    (times are passed as RFC 3339 text).
    """
    if isinstance(data, str):
        _check_text(data, "")
        return Shape(0, 0, 0)
    depth = widest = members = 0
    level: list[Any] = [data]
    while level:
        depth += 1
        if depth > MAX_DEPTH + 1:
            raise InvalidEvent(f"data is nested deeper than {MAX_DEPTH} levels, or holds itself", status=422)
        below: list[Any] = []
        for value in level:
            kind = type(value)
            if kind is dict:
                count = len(value)
                members += count
                if count > widest:
                    widest = count
                for key, item in value.items():
                    if type(key) is not str:
                        raise InvalidEvent(f"data has the object key {key!r}, which is no text", status=422)
                    if not key.isascii():
                        _check_text(key, key)
                    item_kind = type(item)
                    if item_kind is str:
                        if not item.isascii():
                            _check_text(item, key)
                    elif item_kind is int:
                        if not -_LARGEST_INT <= item < 2 * _LARGEST_INT:
                            raise InvalidEvent(f"data.{key} is an integer beyond 64 bits", status=422)
                    elif item is not None and item_kind is not bool:
                        below.append(item)
            elif kind is list or kind is tuple:
                if len(value) > widest:
                    widest = len(value)
                below.extend(value)
            elif kind is float:
                if not math.isfinite(value):
                    raise InvalidEvent("data holds NaN or an infinite number, which JSON can't", status=422)
            elif kind is str:
                if not value.isascii():
                    _check_text(value, "")
            elif kind is int:
                if not -_LARGEST_INT <= value < 2 * _LARGEST_INT:
                    raise InvalidEvent("data holds an integer beyond 64 bits", status=422)
            elif value is not None and kind is not bool:
                raise InvalidEvent(
                    f"data holds a {kind.__name__}, which is no JSON value; pass text, numbers, lists and dicts",
                    status=422,
                )
        level = below
    return Shape(depth, widest, members)


def _check_text(text: str, place: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        where = f" at {place!r}" if place.isascii() and place else ""
        raise InvalidEvent(f"data holds text{where} that is not valid Unicode", status=422) from None


def parse_json(body: bytes) -> Any:
    """Read one JSON text by RFC 8259, strictly, and return its value.

    Refused with InvalidEvent (status 400): what is not UTF-8 (also with a byte order mark), NaN and Infinity,
    numbers out of range, lone surrogates, duplicate member names (readers differ in which one counts), more than
    64 levels, and anything after the value.
    """
    try:
        data = msgspec.json.decode(body)
    except UnicodeDecodeError:
        raise InvalidEvent("the body is not valid UTF-8") from None
    except RecursionError:
        raise InvalidEvent(f"the body is nested deeper than {MAX_DEPTH} levels") from None
    except msgspec.MsgspecError as error:
        raise InvalidEvent(f"the body is not valid JSON: {error}") from None
    try:
        shape = survey(data)
    except InvalidEvent as error:
        raise InvalidEvent(str(error)) from None
    # In valid JSON each member has one colon outside of strings; duplicates vanished when it was decoded.
    if shape.members != body.count(b":") and shape.members != _STRINGS.sub(b"", body).count(b":"):
        raise InvalidEvent("the body has an object with the same member name twice")
    return data


def encode_json(data: Any) -> bytes:
    """Write a value as compact UTF-8 JSON."""
    return msgspec.json.encode(data)
