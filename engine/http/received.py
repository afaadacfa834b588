"""Events as callers send them: CloudEvents in the structured JSON mode, or our own plain form.

CloudEvents 1.0.2 (https://github.com/cloudevents/spec): `id`, `source`, `type` and `specversion` are
required; the `id` is the event's key. Extension attributes are taken and not kept, but for `priority`; one
whose name is nearly that of an attribute is refused as a mistake.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import re
from collections.abc import Mapping
from typing import Any

from engine.errors import InvalidEvent
from engine.events import RESERVED_PREFIX, Event
from engine.http.fields import LONGEST_KEY, Fields, idempotency_key, media_type, refuse
from engine.http.problems import Problem
from engine.payload import parse_json
from engine.plugin import Request

MOST_EVENTS = 1000
"""Events in one batch."""

PLAIN_TYPE = "application/json"
EVENT_TYPE = "application/cloudevents+json"
BATCH_TYPE = "application/cloudevents-batch+json"

_PLAIN = frozenset({"type", "subject", "data", "id", "key", "time", "source", "priority"})
_ATTRIBUTES = frozenset(
    "specversion id source type subject time datacontenttype dataschema data data_base64 priority".split()
)
_EXTENSION = re.compile(r"[a-z0-9]{1,64}\Z")
_JSON_CONTENT = re.compile(r"[\w.!#$&^-]+/(?:[\w.!#$&^-]+\+)?json\s*(?:;|\Z)", re.IGNORECASE)


def read_events(request: Request) -> tuple[list[Event], bool]:
    """Return the events in a request, and whether they came as a batch.

    A single event without a key of its own takes the Idempotency-Key. Raises InvalidEvent for what is no
    JSON, and Problem: 415 for other content types, 422 with every mistake of every event.
    """
    kind = media_type(request.headers, (PLAIN_TYPE, EVENT_TYPE, BATCH_TYPE))
    if kind == PLAIN_TYPE and "ce-specversion" in request.headers:
        raise Problem(415, f"CloudEvents in binary mode are not taken: send them structured, as {EVENT_TYPE}")
    value = parse_json(request.body)
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


def _read_event(
    entry: Any, place: str, cloud: bool, key: str | None, traceparent: str | None, events: list[Event],
    errors: list[dict[str, Any]],
) -> None:  # fmt: skip
    if not isinstance(entry, dict):
        errors.append({"pointer": f"#{place}", "detail": "an event must be a JSON object"})
        return
    cloud = cloud or "specversion" in entry
    fields = Fields(entry, _known(entry) if cloud else _PLAIN, place)
    kind = fields.text("type", longest=255, required=True)
    if kind is not None and kind.startswith(RESERVED_PREFIX):
        fields.fault("type", f"types that begin with {RESERVED_PREFIX!r} can't be sent from outside")
    own_key = _read_cloud(fields) if cloud else _read_plain(fields)
    event = Event(
        type=kind or "",
        subject=fields.text("subject"),
        data=_data(fields) if cloud else fields.value("data"),
        key=own_key or key,
        time=fields.instant("time"),
        priority=fields.priority(),
        source=fields.text("source", required=cloud) or "",
        traceparent=traceparent,
    )
    errors.extend(fields.errors)
    events.append(event)


def _read_plain(fields: Fields) -> str | None:
    if "id" in fields and "key" in fields:
        fields.fault("key", "id and key are two names for the same; give one")
    name = "key" if "key" in fields else "id"
    return fields.text(name, longest=LONGEST_KEY)


def _read_cloud(fields: Fields) -> str | None:
    if fields.value("specversion") != "1.0":
        fields.fault("specversion", "specversion must be '1.0'")
    fields.text("dataschema")
    return fields.text("id", longest=LONGEST_KEY, required=True)


def _known(entry: Mapping[str, Any]) -> frozenset[str]:
    extensions = {
        name
        for name in entry
        if name not in _ATTRIBUTES
        and _EXTENSION.match(name)
        and not difflib.get_close_matches(name, _ATTRIBUTES, n=1, cutoff=0.8)
    }
    return _ATTRIBUTES | extensions


def _data(fields: Fields) -> Any:
    content = fields.text("datacontenttype")
    encoded = fields.value("data_base64")
    if encoded is None:
        return fields.value("data")
    if "data" in fields:
        fields.fault("data_base64", "an event has data or data_base64, not both")
    elif content is not None and not _JSON_CONTENT.match(content):
        fields.fault("data_base64", f"data of the type {content!r} is not taken: send JSON")
    else:
        try:
            return parse_json(base64.b64decode(encoded, validate=True))
        except (binascii.Error, TypeError, ValueError):
            fields.fault("data_base64", "data_base64 must be text in base64")
        except InvalidEvent as error:
            fields.fault("data_base64", str(error).replace("the body", "its content", 1))
    return None
