"""The door: what may be an event's data. Strict JSON from outside, and plain JSON values from plugins."""

from __future__ import annotations

import math
import re
from typing import Any

import msgspec

from engine.errors import InvalidEvent

MAX_DEPTH = 64
"""How deep lists and objects may stand in each other: `[[]]` is two levels, a bare number or text none."""

_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_WHITE_SPACE = b" \t\n\r"
_DIGITS_AS_ZEROS, _MANY_DIGITS = bytes.maketrans(b"123456789", b"000000000"), b"0" * 19
_LEAST_INT, _GREATEST_INT = -(2**63), 2**64 - 1
_DECODER = msgspec.json.Decoder()
_TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"


class Shape(msgspec.Struct, frozen=True):
    """What a walk over data found: how deep and how wide it is, and how many members its objects have."""

    depth: int
    widest: int
    members: int


def survey(data: Any) -> Shape:
    """Walk over `data` and return its shape; raise InvalidEvent (status 422) where it is no plain JSON value.

    Refused, with the place: more than 64 levels (a cycle is endless depth), numbers that are NaN or infinite,
    integers beyond 64 bits, text with lone surrogates, object keys that are not text, and every other type
    (times are passed as RFC 3339 text).
    """
    depth = widest = members = 0
    level: list[Any] = []
    _check(data, None, level)
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise InvalidEvent(f"data is {_TOO_DEEP}, or holds itself", status=422)
        below: list[Any] = []
        for value in level:
            if len(value) > widest:
                widest = len(value)
            if type(value) is not dict:
                for item in value:
                    _check(item, None, below)
                continue
            members += len(value)
            for key, item in value.items():
                if type(key) is not str:
                    raise InvalidEvent(f"data has the object key {key!r}, which is no text", status=422)
                if not key.isascii():
                    _check_text(key, None)
                kind = type(item)
                if kind is dict or kind is list:
                    below.append(item)
                elif kind is not str or not item.isascii():
                    _check(item, key, below)
        level = below
    return Shape(depth, widest, members)


def _check(value: Any, key: str | None, below: list[Any]) -> None:
    """Refuse what is no JSON value; append a list or object to `below`."""
    kind = type(value)
    if kind is dict or kind is list or kind is tuple:
        below.append(value)
    elif kind is str:
        if not value.isascii():
            _check_text(value, key)
    elif kind is int:
        if not _LEAST_INT <= value <= _GREATEST_INT:
            raise InvalidEvent(f"data{_place(key)} holds an integer beyond 64 bits", status=422)
    elif kind is float:
        if not math.isfinite(value):
            raise InvalidEvent(f"data{_place(key)} holds NaN or an infinite number, which JSON can't", status=422)
    elif value is not None and kind is not bool:
        raise InvalidEvent(
            f"data{_place(key)} holds a {kind.__name__}, which is no JSON value; pass text, numbers, lists and dicts",
            status=422,
        )


def _check_text(text: str, key: str | None) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidEvent(f"data{_place(key)} holds text that is not valid Unicode", status=422) from None


def _place(key: str | None) -> str:
    return "" if key is None else f" at {key[:64]!r}"


def parse_json(body: bytes) -> Any:
    """Read one JSON text by RFC 8259, strictly, and return its value.

    Refused with InvalidEvent (status 400): what is not UTF-8 (also with a byte order mark), NaN and Infinity,
    numbers out of range, lone surrogates, duplicate member names (readers differ in which one counts), more
    than 64 levels, and anything after the value.
    """
    return read_json(body)[0]


def read_json(body: bytes) -> tuple[Any, bytes]:
    """Read one JSON text as `parse_json` does; return its value, and that as compact JSON."""
    try:
        data = _DECODER.decode(body)
    except UnicodeDecodeError:
        raise InvalidEvent("the body is not valid UTF-8") from None
    except RecursionError:
        raise InvalidEvent(f"the body is {_TOO_DEEP}") from None
    except msgspec.MsgspecError as error:
        raise InvalidEvent(f"the body is not valid JSON: {error}") from None
    # Whether it is too deep, has a number too large, or a member twice, is told by walking over it; that it has
    # nothing of the kind is most often quicker seen. Without a backslash no text holds a quotation mark: then one
    # before a colon ends a member's name. Those that were decoded are those that were written, but for duplicates.
    # One that is as we would write it has none twice, whatever is in its texts.
    encoded = msgspec.json.encode(data)
    is_flat = encoded.count(b"[") + encoded.count(b"{") <= MAX_DEPTH
    if is_flat and encoded == body:
        if _MANY_DIGITS not in body.translate(_DIGITS_AS_ZEROS):
            return data, encoded
    elif is_flat and b"\\" not in body:
        written = body.translate(_DIGITS_AS_ZEROS, _WHITE_SPACE)
        if written.count(b'":') == encoded.count(b'":') and _MANY_DIGITS not in written:
            return data, encoded
    members = _count_members(data)
    if members != body.translate(None, _WHITE_SPACE).count(b'":') and members != _STRINGS.sub(b"", body).count(b":"):
        raise InvalidEvent("the body has an object with the same member name twice")
    return data, encoded


def _count_members(data: Any) -> int:
    """Return how many members all objects have; refuse what the decoder lets pass and `survey` would not."""
    members = depth = 0
    level: Any = (data,)
    while level:
        below: list[Any] = []
        for value in level:
            kind = type(value)
            if kind is dict:
                members += len(value)
                below.extend(value.values())
            elif kind is list:
                below.extend(value)
            elif kind is int and not _LEAST_INT <= value <= _GREATEST_INT:
                raise InvalidEvent("the body has an integer beyond 64 bits")
        level = below
        depth += 1
    # The lowest level may be one of numbers and text, which does not count.
    if depth > MAX_DEPTH:
        try:
            survey(data)
        except InvalidEvent:
            raise InvalidEvent(f"the body is {_TOO_DEEP}") from None
    return members


def copied(data: Any) -> Any:
    """Return a copy of data that `survey` let pass, which its holder may change; tuples become lists."""
    return _DECODER.decode(msgspec.json.encode(data)) if isinstance(data, (dict, list, tuple)) else data


def encode_json(data: Any) -> bytes:
    """Write a value as compact UTF-8 JSON."""
    return msgspec.json.encode(data)
