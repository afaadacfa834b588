"""CloudEvents 1.0.2 in HTTP (https://github.com/cloudevents/spec): structured, binary, and the handshake of webhooks.

`id`, `source`, `type` and `specversion` are required. Extension attributes are taken and not kept, but for `priority`;
one whose name is nearly that of an attribute is refused as a mistake.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import re
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import unquote

from engine.errors import InvalidEvent
from engine.events import RESERVED_PREFIX, Event
from engine.members import Members
from engine.payload import parse_json

EVENT_TYPE = "application/cloudevents+json"
BATCH_TYPE = "application/cloudevents-batch+json"

LONGEST_KEY = 255
LONGEST_ORIGIN = 1024

_ATTRIBUTES = frozenset(
    "specversion id source type subject time datacontenttype dataschema data data_base64 priority".split()
)
_EXTENSION = re.compile(r"[a-z0-9]{1,64}\Z")
_JSON_CONTENT = re.compile(r"[\w.!#$&^-]+/(?:[\w.!#$&^-]+\+)?json\s*(?:;|\Z)", re.IGNORECASE)
_HEADER = "ce-"
_ORIGIN = re.compile(r"[!-~]+\Z")


def read_cloud_event(attributes: Mapping[str, Any], place: str = "") -> tuple[Event, list[dict[str, Any]]]:
    """Return the event that a CloudEvent's attributes and data tell of, and what is wrong with them.

    Each mistake has a `detail` and a `pointer` below `place`. The event's key is the `id`, its `source` that of the
    CloudEvent.
    """
    members = Members(attributes, _known(attributes), place)
    if members.value("specversion") != "1.0":
        members.fault("specversion", "specversion must be '1.0'")
    members.text("dataschema")
    kind = members.text("type", longest=255, required=True)
    if kind is not None and kind.startswith(RESERVED_PREFIX):
        members.fault("type", f"types that begin with {RESERVED_PREFIX!r} can't be sent from outside")
    event = Event(
        type=kind or "",
        subject=members.text("subject"),
        data=_data(members),
        key=members.text("id", longest=LONGEST_KEY, required=True),
        time=members.instant("time"),
        priority=members.priority(),
        source=members.text("source", required=True) or "",
    )
    return event, members.errors


def is_binary(headers: Mapping[str, str]) -> bool:
    """Tell whether a request holds a CloudEvent in binary mode: its attributes in headers, its data in the body."""
    return "ce-specversion" in headers


def binary_attributes(headers: Mapping[str, str]) -> dict[str, Any]:
    """Return the attributes in the headers of a CloudEvent in binary mode, without its data.

    Raises InvalidEvent (400) for one that is there twice, and for a value that is not percent-encoded UTF-8.
    """
    found: dict[str, Any] = {}
    for field, value in headers.items():
        name = field.lower()
        if not name.startswith(_HEADER):
            continue
        attribute = name[len(_HEADER) :]
        if attribute in found:
            raise InvalidEvent(f"the header {name} is there twice")
        try:
            found[attribute] = unquote(value, errors="strict")
        except UnicodeDecodeError:
            raise InvalidEvent(f"the header {name} is not UTF-8 in percent-encoding") from None
    priority = found.get("priority", "")
    if len(priority) == 1 and priority.isdecimal() and priority.isascii():
        found["priority"] = int(priority)
    found.pop("data", None)
    return found


def permitted(headers: Mapping[str, str], origins: Collection[str] = ("*",)) -> dict[str, str]:
    """Return the headers that permit the sender who asks to deliver here; none where it does not ask, or may not.

    The handshake is that of "HTTP 1.1 Web Hooks for Event Delivery", section 4, which is part of CloudEvents.
    """
    origin = headers.get("WebHook-Request-Origin", "")
    if not 0 < len(origin) <= LONGEST_ORIGIN or not _ORIGIN.match(origin) or not {"*", origin} & set(origins):
        return {}
    # A rate has to be told where one was asked for; ours is limited where a hook says so, by 429.
    rate = {"WebHook-Allowed-Rate": "*"} if "WebHook-Request-Rate" in headers else {}
    return {"WebHook-Allowed-Origin": origin, **rate}


def _known(attributes: Mapping[str, Any]) -> frozenset[str]:
    extensions = {
        name
        for name in attributes
        if name not in _ATTRIBUTES
        and _EXTENSION.match(name)
        and not difflib.get_close_matches(name, _ATTRIBUTES, n=1, cutoff=0.8)
    }
    return _ATTRIBUTES | extensions


def _data(members: Members) -> Any:
    content = members.text("datacontenttype")
    encoded = members.value("data_base64")
    if encoded is None:
        return members.value("data")
    if "data" in members:
        members.fault("data_base64", "an event has data or data_base64, not both")
    elif content is not None and not _JSON_CONTENT.match(content):
        members.fault("data_base64", f"data of the type {content!r} is not taken: send JSON")
    else:
        try:
            return parse_json(base64.b64decode(encoded, validate=True))
        except (binascii.Error, TypeError, ValueError):
            members.fault("data_base64", "data_base64 must be text in base64")
        except InvalidEvent as error:
            members.fault("data_base64", str(error).replace("the body", "its content", 1))
    return None
