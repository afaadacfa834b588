"""What a trigger file says: from its bytes to an event."""

from __future__ import annotations

import difflib
import re
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec

from engine.plugin import PRIORITIES, RESERVED_PREFIX, Event, InvalidEvent, parse_json

DEFAULT_TYPE = "file.trigger"
LONGEST_TEXT = 255
"""Characters that a type or a source may have."""

MEMBERS = ("trigger_type", "source", "priority", "parameters", "created_at")

_AWARE = Annotated[datetime, msgspec.Meta(tz=True)]
_BYTE = re.compile(r" ?\(byte (\d+)\)")


class InvalidTrigger(Exception):
    """A file's content is no trigger; the text says what is wrong, where, and what would be right."""


def read_trigger(body: bytes, *, subject: str, key: str) -> Event:
    """Return the event that a file's content stands for; raise InvalidTrigger, in words, where it is none.

    The content is one JSON object. All its members are optional, and there are no others: `trigger_type` (the
    event's type, else `file.trigger`), `source` (text), `priority` (0 to 9, or low, normal, high, critical),
    `parameters` (an object) and `created_at` (RFC 3339, with its offset from UTC).
    """
    try:
        content = parse_json(body)
    except InvalidEvent as error:
        raise InvalidTrigger(_placed(str(error), body)) from None
    if type(content) is not dict:
        raise InvalidTrigger(f"the file holds {_kind(content)}; expected an object such as {{}}")
    for member in content:
        if member not in MEMBERS:
            raise InvalidTrigger(f"unknown member {_short(member)}; {_near(member)}")
    data: dict[str, Any] = {"parameters": _parameters(content)}
    if "source" in content:
        data["source"] = _text(content, "source")
    return Event(
        type=_type(content),
        subject=subject,
        key=key,
        data=data,
        priority=_priority(content),
        time=_time(content),
    )


def _type(content: dict[str, Any]) -> str:
    if "trigger_type" not in content:
        return DEFAULT_TYPE
    kind = _text(content, "trigger_type")
    if not kind or not kind.isprintable() or " " in kind:
        raise InvalidTrigger(f'trigger_type: {_short(kind)} is no type; expected a word such as "order.created"')
    if kind.startswith(RESERVED_PREFIX):
        raise InvalidTrigger(
            f"trigger_type: {_short(kind)} is reserved: types that begin with {RESERVED_PREFIX!r} are the engine's own"
        )
    return kind


def _text(content: dict[str, Any], member: str) -> str:
    value = content[member]
    if type(value) is not str:
        raise InvalidTrigger(f"{member}: found {_kind(value)}; expected text")
    if len(value) > LONGEST_TEXT:
        raise InvalidTrigger(f"{member}: the text has {len(value)} characters; at most {LONGEST_TEXT} are allowed")
    return value


def _parameters(content: dict[str, Any]) -> dict[str, Any]:
    value = content.get("parameters", {})
    if type(value) is not dict:
        raise InvalidTrigger(f"parameters: found {_kind(value)}; expected an object")
    return value


def _priority(content: dict[str, Any]) -> int | None:
    if "priority" not in content:
        return None
    value = content["priority"]
    if type(value) is int and 0 <= value <= 9:
        return value
    if type(value) is str and value in PRIORITIES:
        return PRIORITIES[value]
    found = _short(value) if type(value) is str else str(value) if type(value) is int else _kind(value)
    raise InvalidTrigger(f"priority: found {found}; expected 0 to 9, or one of {', '.join(PRIORITIES)}")


def _time(content: dict[str, Any]) -> datetime | None:
    if "created_at" not in content:
        return None
    value = content["created_at"]
    if type(value) is not str:
        raise InvalidTrigger(f"created_at: found {_kind(value)}; expected a time as text")
    try:
        return msgspec.convert(value, _AWARE).astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):
        raise InvalidTrigger(
            f"created_at: {_short(value)} is no time by RFC 3339 with its offset from UTC, "
            'such as "2026-11-21T12:00:00Z"'
        ) from None


def _near(member: str) -> str:
    close = difflib.get_close_matches(member, MEMBERS, n=1)
    return f"did you mean {close[0]}?" if close else f"expected {', '.join(MEMBERS)}"


def _kind(value: Any) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "text",
        int: "a number",
        float: "a number",
        bool: str(value).lower(),
    }
    return names.get(type(value), "null")


def _short(text: str) -> str:
    return ascii(text if len(text) <= 60 else text[:60] + "…")


def _placed(problem: str, body: bytes) -> str:
    """Say it of a file: with line and column (both from 1, the column in bytes) in place of the offset."""
    problem = problem.replace("the body", "the file", 1)
    match = _BYTE.search(problem)
    if match is None:
        return problem
    before = body[: int(match[1])]
    line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
    return f"{problem[: match.start()]} (line {line}, column {column}){problem[match.end() :]}"
