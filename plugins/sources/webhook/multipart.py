"""Bodies of the type `multipart/form-data` (RFC 7578): fields and files.

Read strictly, from a body that is whole: a part that is never ended, has no name or a header that is none is refused.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from engine.plugin import InvalidEvent

MOST_PARTS = 200
LONGEST_HEAD = 8192
LONGEST_NAME = 255

_BOUNDARY = re.compile(r"""boundary=(?:"([^"\\\r\n]{1,70})"|([0-9A-Za-z'()+_,./:=?-]{1,70}))(?=\s*(?:;|\Z))""", re.I)
_DISPOSITION = re.compile(rb"form-data(?=\s*;|\Z)", re.I)
_PARAMETER = re.compile(rb';\s*([A-Za-z0-9*_-]+)=(?:"((?:[^"\\\r\n]|\\.)*)"|([^\s;"]+))')
_PADDING = re.compile(rb"[ \t]*\r\n")


class Part(NamedTuple):
    """One part: a file where it has a `filename`, which may be empty."""

    name: str
    filename: str | None
    content_type: str
    content: bytes


def read_parts(body: bytes, content_type: str) -> list[Part]:
    """Return the parts of a body, in their order; raise InvalidEvent where it is no such body."""
    match = _BOUNDARY.search(content_type)
    if match is None:
        raise InvalidEvent("the Content-Type multipart/form-data has no valid boundary")
    line = b"--" + (match[1] or match[2]).encode("ascii", "replace")
    if body.startswith(line):
        position = len(line)
    elif (found := body.find(b"\r\n" + line)) >= 0:
        position = found + 2 + len(line)  # what stands before the first line is no part
    else:
        raise InvalidEvent("the body does not hold the boundary that its Content-Type names")
    parts: list[Part] = []
    while not body.startswith(b"--", position):
        padding = _PADDING.match(body, position)
        end = body.find(b"\r\n" + line, position)
        if padding is None or end < 0:
            raise InvalidEvent("the body ends before the last boundary of its parts")
        if len(parts) == MOST_PARTS:
            raise InvalidEvent(f"the body has more than {MOST_PARTS} parts", status=413)
        parts.append(_read_part(body[padding.end() : end] if padding.end() <= end else b""))
        position = end + 2 + len(line)
    return parts


def _read_part(text: bytes) -> Part:
    head, separator, content = text.partition(b"\r\n\r\n")
    if not separator or len(head) > LONGEST_HEAD:
        raise InvalidEvent("a part of the body has no end of its headers")
    headers: dict[bytes, bytes] = {}
    for row in head.split(b"\r\n"):
        name, colon, value = row.partition(b":")
        if not colon or not name.strip() or name != name.strip():
            raise InvalidEvent("a part of the body has a header that is none")
        headers[name.lower()] = value.strip()
    disposition = headers.get(b"content-disposition", b"")
    if _DISPOSITION.match(disposition) is None:
        raise InvalidEvent("a part of the body is no form-data by its Content-Disposition")
    if headers.get(b"content-transfer-encoding", b"binary").lower() not in (b"binary", b"8bit", b"7bit"):
        raise InvalidEvent("a part of the body has a Content-Transfer-Encoding, which forms have no more")
    found = [(name.lower(), quoted or plain) for name, quoted, plain in _PARAMETER.findall(disposition)]
    parameters = dict(found)
    if len(parameters) < len(found):
        raise InvalidEvent("a part of the body has a parameter twice in its Content-Disposition")
    called = _text(parameters.get(b"name", b""), "a name")
    if not 0 < len(called) <= LONGEST_NAME:
        raise InvalidEvent(f"a part of the body has no name of 1 to {LONGEST_NAME} characters")
    filename = parameters.get(b"filename")
    kind = headers.get(b"content-type", b"text/plain" if filename is None else b"application/octet-stream")
    return Part(
        name=called,
        filename=None if filename is None else _text(filename, "a file's name"),
        content_type=_text(kind, "a Content-Type"),
        content=content,
    )


def _text(value: bytes, what: str) -> str:
    """Return what stands in quotes; browsers write `%22` for a quotation mark, others escape it."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise InvalidEvent(f"a part of the body has {what} that is not valid UTF-8") from None
    return re.sub(r"\\([\\\"])", r"\1", text).replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")
