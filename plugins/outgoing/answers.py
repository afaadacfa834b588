"""What is made of an answer: its body as a value, the headers that are kept, and when to come again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from engine.plugin import InvalidEvent, parse_json
from plugins.outgoing.client import Answer

KEPT_HEADERS = (
    "content-type", "content-encoding", "content-length", "date", "etag", "last-modified", "location", "retry-after",
    "x-request-id", "request-id",
)  # fmt: skip
"""Headers of an answer that are stored and logged; others may hold cookies and credentials."""

DEEPEST = 60
"""A JSON body that is nested deeper is kept as text: an event and the outputs of a run have room for 64 levels."""

_SECONDS = re.compile(r"[0-9]{1,10}")
_CHARSET = re.compile(r';\s*charset="?([A-Za-z0-9_.:-]{1,40})"?', re.IGNORECASE)


def kept_headers(answer: Answer) -> dict[str, str]:
    """Return the headers that are stored."""
    return {name: answer.headers[name] for name in KEPT_HEADERS if name in answer.headers}


def is_whole(answer: Answer) -> bool:
    """Tell whether the body is there as it was sent: not cut, and not compressed though nobody asked for that."""
    return not answer.truncated and answer.headers.get("content-encoding", "identity").lower() == "identity"


def read_body(answer: Answer) -> Any:
    """Return the body as a value: what JSON holds where its type says that it is JSON, else text.

    JSON that is cut, not valid or too deep is text too. Bytes that are no text are replaced; a compressed body,
    which was not asked for, is empty.
    """
    if answer.headers.get("content-encoding", "identity").lower() != "identity":
        return ""
    content_type = answer.headers.get("content-type", "")
    if not answer.truncated and answer.body and is_json(content_type):
        try:
            value = parse_json(answer.body)
        except InvalidEvent:
            pass
        else:
            if not _is_deeper(value, DEEPEST):
                return value
    charset = _CHARSET.search(content_type)
    try:
        return _sound(answer.body.decode(charset[1] if charset else "utf-8", "replace"))
    except (LookupError, UnicodeError):
        return answer.body.decode("utf-8", "replace")


def is_json(content_type: str) -> bool:
    """Tell whether a media type is one of JSON."""
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or media_type.endswith("+json")


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds that `Retry-After` asks to wait (RFC 9110, section 10.2.3), or None.

    A date counts from the server's own `Date` where it sends one, as clocks differ.
    """
    text = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    at = _instant(text)
    if at is None:
        return None
    return max((at - (_instant(headers.get("date", "")) or now)).total_seconds(), 0.0)


def _instant(text: str) -> datetime | None:
    try:
        at = parsedate_to_datetime(text)
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, TypeError, OverflowError):
        return None


def _is_deeper(value: Any, levels: int) -> bool:
    """Tell whether lists and objects stand deeper in each other than so many levels."""
    level = [value]
    for _ in range(levels + 1):
        below: list[Any] = []
        for item in level:
            if type(item) is dict:
                below.extend(item.values())
            elif type(item) is list:
                below.extend(item)
        if not below:
            return False
        level = below
    return True


def _sound(text: str) -> str:
    """Return text without lone surrogates, which some codecs let pass."""
    return text.encode("utf-8", "replace").decode()
