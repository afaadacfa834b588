"""CloudEvents that come to a webhook: structured, batched, and in binary mode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from engine.plugin import (
    BATCH_TYPE,
    EVENT_TYPE,
    Event,
    InvalidEvent,
    Request,
    binary_attributes,
    parse_json,
    read_cloud_event,
)
from plugins.sources.webhook.bodies import content_kind, read_content, refused

MOST_EVENTS = 1_000
_DATA = frozenset({"data", "data_base64"})


def read_cloud_events(request: Request, path: str, http: Mapping[str, Any]) -> tuple[list[Event], bool]:
    """Return the events in a request, and whether they came as a batch.

    The key is the CloudEvent's `source` and `id`, which together say which event it is; the subject its own, or `path`.
    Raises InvalidEvent, or Refusal, for what is none.
    """
    media_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type not in (EVENT_TYPE, BATCH_TYPE):
        return [_binary(request, media_type, path, http)], False
    value = parse_json(request.body)
    batch = media_type == BATCH_TYPE
    if isinstance(value, list) != batch:
        raise refused(422, f"The body of {media_type} must be {'an array' if batch else 'an object'}.")
    entries: Sequence[Any] = value if batch else [value]
    if len(entries) > MOST_EVENTS:
        raise InvalidEvent(f"a batch may hold {MOST_EVENTS:,} events, not {len(entries):,}", status=413)
    return [_event(entry, f"/{place}" if batch else "", path, http) for place, entry in enumerate(entries)], batch


def _binary(request: Request, media_type: str, path: str, http: Mapping[str, Any]) -> Event:
    event = _event(binary_attributes(request.headers), "", path, http)
    if not request.body:
        return event
    kind = content_kind(media_type or "application/json")
    if kind == "multipart":
        raise refused(415, "A CloudEvent's data is not multipart/form-data here. Send JSON or text.")
    return replace(event, data=read_content(request, kind, None).data)


def _event(attributes: Any, place: str, path: str, http: Mapping[str, Any]) -> Event:
    if not isinstance(attributes, dict):
        raise refused(422, f"A CloudEvent must be a JSON object{f', also at {place}' if place else ''}.")
    event, wrong = read_cloud_event(attributes, place)
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise refused(422, f"The CloudEvent is not valid: {wrong[0]['detail']}, at {wrong[0]['pointer']}{more}.")
    return replace(
        event, subject=event.subject or path, key=f"{event.source} {event.key}", source="",
        http={**http, "cloudevent": {name: value for name, value in attributes.items() if name not in _DATA}},
    )  # fmt: skip
