"""Events as callers send them: CloudEvents (structured, batched or binary), or our own plain form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Annotated, Any

from msgspec.structs import replace

from engine.cloudevents import BATCH_TYPE, EVENT_TYPE, binary_attributes, is_binary, read_cloud_event
from engine.events import RESERVED_PREFIX, Event
from engine.http.described import Raw
from engine.http.fields import LONGEST_KEY, Fields, idempotency_key, media_type, refuse
from engine.http.forms import Form, members_of, read_members, schema_of
from engine.http.kinds import NO_CONTROL, Anything, Instant, Line, Priority
from engine.http.problems import Problem
from engine.payload import parse_json
from engine.plugin import Request

MOST_EVENTS = 1000
"""Events in one batch."""

PLAIN_TYPE = "application/json"


class PlainEvent(Form, frozen=True, kw_only=True):
    """An event in our own plain form."""

    type: Annotated[str, Line(255)]
    subject: Annotated[str | None, Line()] = None
    data: Annotated[Any, Anything()] = None
    id: Annotated[str | None, Line(LONGEST_KEY), "Its key: the same one again is the same event"] = None
    key: Annotated[str | None, Line(LONGEST_KEY), "The same as id"] = None
    time: Annotated[datetime | None, Instant()] = None
    source: Annotated[str | None, Line()] = None
    priority: Annotated[int | None, Priority()] = None

    def mistakes(self) -> Iterator[tuple[str, str]]:
        if self.type.startswith(RESERVED_PREFIX):
            yield "type", f"types that begin with {RESERVED_PREFIX!r} can't be sent from outside"
        if self.id is not None and self.key is not None:
            yield "key", "id and key are two names for the same; give one"


_PLAIN = tuple(member.name for member in members_of(PlainEvent))


def read_events(request: Request) -> tuple[list[Event], bool]:
    """Return the events in a request, and whether they came as a batch.

    A single event without a key of its own takes the Idempotency-Key. Raises InvalidEvent for what is no
    JSON, and Problem: 415 for other content types, 422 with every mistake of every event.
    """
    kind, value = _content(request)
    batch = isinstance(value, list)
    if kind == BATCH_TYPE and not batch:
        raise Problem(422, f"{BATCH_TYPE} must be an array", code="invalid_event")
    if kind == EVENT_TYPE and batch:
        raise Problem(422, f"an array must have the Content-Type {BATCH_TYPE}", code="invalid_event")
    entries = value if batch else [value]
    if len(entries) > MOST_EVENTS:
        raise Problem(422, f"a batch may hold {MOST_EVENTS} events, not {len(entries)}", code="too_many")
    key = idempotency_key(request.headers)
    if key is not None and batch:
        raise Problem(422, "a batch takes no Idempotency-Key: give each event its id", code="invalid_event")
    traceparent = request.headers.get("Traceparent")
    events: list[Event] = []
    errors: list[dict[str, Any]] = []
    for index, entry in enumerate(entries):
        _read_event(entry, f"/{index}" if batch else "", kind != PLAIN_TYPE, key, traceparent, events, errors)
    refuse(errors)
    return events, batch


def _content(request: Request) -> tuple[str, Any]:
    """Return the media type and the value of a body, or those that a CloudEvent in binary mode has in structured."""
    structured = request.headers.get("Content-Type", "").partition(";")[0].strip().lower() in (EVENT_TYPE, BATCH_TYPE)
    if is_binary(request.headers) and not structured:
        return EVENT_TYPE, _binary(request)
    return media_type(request.headers, (PLAIN_TYPE, EVENT_TYPE, BATCH_TYPE)), parse_json(request.body)


def _read_event(
    entry: Any, place: str, cloud: bool, key: str | None, traceparent: str | None, events: list[Event],
    errors: list[dict[str, Any]],
) -> None:  # fmt: skip
    if not isinstance(entry, dict):
        errors.append({"pointer": f"#{place}", "detail": "an event must be a JSON object"})
        return
    read = read_cloud_event if cloud or "specversion" in entry else _read_plain
    event, wrong = read(entry, place)
    errors.extend(wrong)
    if key is not None or event.traceparent != traceparent:
        event = replace(event, key=event.key or key, traceparent=traceparent)
    events.append(event)


_CLOUD: dict[str, Any] = {
    "type": "object",
    "properties": {
        "specversion": {"const": "1.0"},
        **{name: member for name, member in schema_of(PlainEvent)["properties"].items() if name != "key"},
        "id": {"type": "string", "minLength": 1, "maxLength": LONGEST_KEY, "pattern": NO_CONTROL},
        "source": Line().schema,
    },
    "required": ["specversion", "id", "source", "type"],
}
_EITHER = {"anyOf": [schema_of(PlainEvent), _CLOUD]}

ONE_EVENT = Raw(content={PLAIN_TYPE: _EITHER, EVENT_TYPE: _CLOUD})
"""One event in either form, as the description tells of it."""

EVENTS = Raw(
    content={
        PLAIN_TYPE: {"anyOf": [_EITHER, {"type": "array", "maxItems": MOST_EVENTS, "items": _EITHER}]},
        EVENT_TYPE: _CLOUD,
        BATCH_TYPE: {"type": "array", "maxItems": MOST_EVENTS, "items": _CLOUD},
    }
)
"""One event, or a batch."""

_NONE = Event(type="", source="")
"""In the place of an event that can't be read; what is wrong with it is told."""


def _read_plain(entry: Mapping[str, Any], place: str) -> tuple[Event, list[dict[str, Any]]]:
    fields = Fields(entry, _PLAIN, place)
    sent = read_members(fields, PlainEvent)
    if sent is None:
        return _NONE, fields.errors
    event = Event(
        type=sent.type, subject=sent.subject, data=sent.data, key=sent.key or sent.id, time=sent.time,
        priority=sent.priority, source=sent.source or "",
    )  # fmt: skip
    return event, []


def _binary(request: Request) -> dict[str, Any]:
    """Return a CloudEvent in binary mode as its members in the structured one."""
    attributes = binary_attributes(request.headers)
    if request.body:
        media_type(request.headers, (PLAIN_TYPE,))
        attributes["data"] = parse_json(request.body)
    return attributes
