"""What the bodies of requests hold: JSON, CloudEvents, forms, files, text; and how packed ones are undone."""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Mapping
from http import HTTPStatus
from typing import Any, Literal
from urllib.parse import parse_qsl

from msgspec import Raw, Struct

from engine.plugin import BATCH_TYPE, EVENT_TYPE, InvalidEvent, Refusal, Request, is_binary, parse_json
from plugins.sources.webhook.multipart import Part, read_parts

Kind = Literal["json", "cloudevents", "form", "multipart", "text"]
KINDS: tuple[Kind, ...] = ("json", "cloudevents", "form", "multipart", "text")

MOST_FIELDS = 1_000
MOST_FILES = 20

FROM_QUERY = frozenset({"GET", "DELETE"})
"""Methods whose requests most often have no body: then the query is the data."""

_CHARSET = re.compile(r"charset\s*=\s*\"?([^\s\";]+)", re.IGNORECASE)
_UTF8 = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})


class Content(Struct, frozen=True, kw_only=True):
    """What a body holds: `data`, and the `files` among it, each of them under a name and a place in its list."""

    data: Any
    files: tuple[Part, ...] = ()


def kind_of(request: Request) -> Kind:
    """Return what a body is by its headers; raise Refusal (415) where it is nothing that is taken."""
    content_type = request.headers.get("Content-Type", "application/json")
    if content_type == "application/json" and "ce-specversion" not in request.headers:
        return "json"
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type in (EVENT_TYPE, BATCH_TYPE) or is_binary(request.headers):
        return "cloudevents"
    return content_kind(media_type)


def content_kind(media_type: str) -> Kind:
    """Return what a media type says of a body; raise Refusal (415) where it is nothing that is taken."""
    if media_type in ("application/json", "text/json") or ("/" in media_type and media_type.endswith("+json")):
        return "json"
    if media_type == "application/x-www-form-urlencoded":
        return "form"
    if media_type == "multipart/form-data":
        return "multipart"
    if media_type.startswith("text/") or media_type == "application/xml" or media_type.endswith("+xml"):
        return "text"
    raise refused(415, "The body is of a Content-Type that is not taken. Send JSON, a form or text.")


def read_content(request: Request, kind: Kind, json_field: str | None) -> Content:
    """Return what a body holds; raise InvalidEvent, or Refusal, where it is not what its Content-Type says."""
    body, content_type = request.body, request.headers.get("Content-Type", "")
    if kind == "json":
        if not body:
            raise refused(400, "The body is empty. Send JSON, such as {}.")
        return Content(data=Raw(body))
    if kind == "multipart":
        return _form_with_files(read_parts(body, content_type), json_field)
    text = _decoded(body, content_type)
    if kind == "text":
        return Content(data=text)
    return Content(data=_form(text, json_field))


def query_as_data(query: Mapping[str, str], leave_out: Collection[str]) -> dict[str, str]:
    """Return what a request without a body says in its query."""
    return {name: value for name, value in query.items() if name not in leave_out}


def inflated(body: bytes, most_bytes: int) -> bytes:
    """Return what was packed by gzip; raise InvalidEvent for more than `most_bytes`, before it is all unpacked."""
    parts: list[bytes] = []
    left = most_bytes
    try:
        while body:
            member = zlib.decompressobj(wbits=31)
            parts.append(member.decompress(body, left + 1))
            left -= len(parts[-1])
            if left < 0:
                raise InvalidEvent(f"the body is larger than {most_bytes:,} bytes when it is unpacked", status=413)
            if not member.eof:
                raise InvalidEvent("the body is not whole, as gzip")
            body = member.unused_data
    except zlib.error:
        raise InvalidEvent("the body is not valid gzip, which its Content-Encoding says") from None
    return b"".join(parts)


def refused(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Refusal:
    """Return the refusal to raise, with a sentence for the sender."""
    return Refusal(status, HTTPStatus(status).phrase, detail, headers)


def _decoded(body: bytes, content_type: str) -> str:
    charset = _CHARSET.search(content_type)
    if charset is not None and charset[1].lower() not in _UTF8:
        raise refused(415, "The body is in another charset than UTF-8. Send UTF-8.")
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise InvalidEvent("the body is not valid UTF-8") from None


def _form(text: str, json_field: str | None) -> Any:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS)
    except UnicodeDecodeError:
        raise InvalidEvent("the form is not UTF-8 in percent-encoding") from None
    except ValueError:
        raise InvalidEvent(f"the form has more than {MOST_FIELDS:,} fields", status=413) from None
    return _as_data(_collected(pairs), json_field)


def _form_with_files(parts: list[Part], json_field: str | None) -> Content:
    pairs: list[tuple[str, Any]] = []
    files: list[Part] = []
    for part in parts:
        if part.filename is None:
            try:
                pairs.append((part.name, part.content.decode()))
            except UnicodeDecodeError:
                raise InvalidEvent("a field of the form is not valid UTF-8") from None
        elif part.filename or part.content:  # else it is a field for a file that nobody chose
            pairs.append((part.name, part))
            files.append(part)
    if len(files) > MOST_FILES:
        raise InvalidEvent(f"the form has more than {MOST_FILES} files", status=413)
    return Content(data=_as_data(_collected(pairs), json_field), files=tuple(files))


def _collected(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a form's fields: those that are there more than once as lists."""
    found: dict[str, list[Any]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def _as_data(fields: dict[str, Any], json_field: str | None) -> Any:
    """Return a form's fields; or what its one field says that holds JSON, where the settings name it."""
    if json_field is None:
        return fields
    text = fields.get(json_field)
    if not isinstance(text, str):
        raise InvalidEvent(f"the form has no field {json_field}, which should hold JSON")
    try:
        return parse_json(text.encode())
    except InvalidEvent as error:
        raise InvalidEvent(f"the form's field {json_field} is wrong: {error}", status=error.status) from None


def with_files(data: Any, members: Mapping[int, dict[str, Any]]) -> Any:
    """Return a form's data with what describes each file in its place; `members` are by the identity of the part."""
    if isinstance(data, Part):
        return members[id(data)]
    if isinstance(data, list):
        return [with_files(one, members) for one in data]
    if isinstance(data, dict):
        return {name: with_files(value, members) for name, value in data.items()}
    return data
