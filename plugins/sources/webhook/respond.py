"""Answers of one's own: what the settings say of them, and how they are made for an event.

Nothing that a sender wrote chooses the answer's type or a header's name, or ends a header; in a body of a markup
language it is text, whatever it holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from typing import Any

from msgspec import Struct

from engine.plugin import BadSetting, ExpressionError, Response, Scope, Template, plain, render

NAMES = frozenset({"event", "data", "http", "runs", "duplicate", "states", "now"})
"""What its templates see: the event and its request, and the ids of its runs."""

JSON_TYPE = "application/json"

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}\Z")
_MEDIA_TYPE = re.compile(r"[a-z0-9.+-]+/[a-z0-9.+-]+(?:\s*;\s*[a-z0-9-]+=[A-Za-z0-9._-]+)*\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
_PROGRAM = re.compile(r"(?:script|css)")
_MARKUP = re.compile(r"(?:html|xml|svg)")
_OURS = frozenset(
    "content-length transfer-encoding connection date x-request-id server content-type content-security-policy "
    "x-content-type-options set-cookie".split()
)


class Respond(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is answered for an event that was taken, in place of its ids:

    - `status`: 200 to 299.
    - `body`: text, or a table that becomes JSON; `{{ CEL }}` in it sees `event data http runs duplicate states now`.
      None: an empty one.
    - `headers`: further ones, with `{{ CEL }}` in their values.
    - `content_type`: that of a body that is text; a table's is JSON.
    """

    status: int = 200
    body: str | dict[str, Any] | None = None
    headers: dict[str, str] = {}
    content_type: str = "text/plain; charset=utf-8"


def check_respond(respond: Respond) -> None:
    """Raise BadSetting where an answer can't be made."""
    if not 200 <= respond.status <= 299:
        raise BadSetting("respond.status", f"is {respond.status}; what was taken is answered with 200 to 299")
    if respond.body is not None and respond.status in (204, 205):
        raise BadSetting("respond.body", f"is there, and an answer of {respond.status} has none")
    if _MEDIA_TYPE.match(respond.content_type) is None:
        raise BadSetting("respond.content_type", "is no media type", 'such as "text/xml; charset=utf-8"')
    if _PROGRAM.search(respond.content_type):
        raise BadSetting("respond.content_type", "is that of a program, which pages of any site could load")
    if isinstance(respond.body, str) and "json" in respond.content_type:
        raise BadSetting(
            "respond.body", "is text, and JSON is written as a table", 'such as { text = "{{ data.name }}" }'
        )
    for name in respond.headers:
        if _HEADER_NAME.match(name) is None:
            raise BadSetting("respond.headers", f"holds {name!r}, which is no name of a header")
        if name.lower() in _OURS:
            raise BadSetting("respond.headers", f"holds {name}, which is the engine's own")
    try:
        Responder(respond)
    except ExpressionError as error:
        raise BadSetting("respond", str(error)) from None


class Responder:
    """Makes the answers."""

    __slots__ = ("_body", "_escaped", "_headers", "_kind", "_status")

    def __init__(self, respond: Respond) -> None:
        self._status = respond.status
        self._body = _compiled(respond.body)
        self._kind = JSON_TYPE if isinstance(respond.body, dict) else respond.content_type
        self._escaped = _MARKUP.search(self._kind) is not None
        self._headers = {name: Template(text, NAMES) for name, text in respond.headers.items()}

    def answer(self, names: Mapping[str, Any]) -> Response:
        """Return the answer; raise ExpressionError where the event lacks what it shows."""
        scope = Scope(names)
        headers = {name: _CONTROL.sub(" ", text.render(scope)) for name, text in self._headers.items()}
        if self._body is None:
            return Response(status=self._status, headers=headers)
        headers["Content-Type"] = self._kind
        if isinstance(self._body, Template):
            return Response(status=self._status, body=self._text(self._body, scope).encode(), headers=headers)
        return Response(status=self._status, body=_filled(self._body, scope), headers=headers)

    def _text(self, template: Template, scope: Scope) -> str:
        return "".join(
            part if isinstance(part, str) else escape(said) if self._escaped else said
            for part in template.parts
            for said in ("" if isinstance(part, str) else render(part.evaluate(scope)),)
        )


def _compiled(value: Any) -> Any:
    """Return a value with each text in it as a template."""
    if isinstance(value, str):
        return Template(value, NAMES)
    if isinstance(value, dict):
        return {name: _compiled(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_compiled(item) for item in value]
    return value


def _filled(value: Any, scope: Scope) -> Any:
    if isinstance(value, Template):
        return plain(value.value(scope))
    if isinstance(value, dict):
        return {name: _filled(item, scope) for name, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, scope) for item in value]
    return value
