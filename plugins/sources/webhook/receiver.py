"""What is done with each request: prove, read, emit, answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Literal

from msgspec import Raw

from engine.plugin import (
    RESERVED_PREFIX,
    Event,
    InvalidEvent,
    Refusal,
    Request,
    Response,
    SourceContext,
    StoreUnavailable,
)
from plugins.sources.webhook.guard import guard_of, headers_of
from plugins.sources.webhook.texts import to_unicode
from plugins.sources.webhook.vendors import answer_challenge, identify_by
from plugins.sources.webhook.verify import Verify

LONGEST_KEY = 255
RETRY_AFTER_S = 5
"""What a sender is told to wait when the store can't take its event."""

_EVENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]{0,127}\Z")
_KEY = re.compile(r"[!-~](?:[ -~]{0,253}[!-~])?\Z")

_CONFIDENTIAL = frozenset(
    "authorization proxy-authorization cookie x-api-key x-auth-token x-csrf-token x-webhook-token "
    "x-gitlab-token x-hub-signature x-hub-signature-256 x-signature x-webhook-signature webhook-signature "
    "svix-signature stripe-signature x-slack-signature x-twilio-signature x-shopify-hmac-sha256".split()
)
"""Header fields that prove who sends, and so are kept from expressions."""


class Receiver:
    """Answers the requests of one webhook. All that settings decide is decided when it is made."""

    __slots__ = ("_challenged", "_context", "_guard", "_hidden", "_identify", "_path", "_type")

    def __init__(
        self, path: str, verify: Literal["none"] | Verify, allow: tuple[str, ...], context: SourceContext
    ) -> None:
        self._context = context
        self._path = path
        self._type = f"webhook.{path.replace('/', '.')}"
        self._hidden = _CONFIDENTIAL | headers_of(verify)
        self._guard = guard_of(verify, allow, context.clock)
        self._identify = identify_by(verify)
        self._challenged = isinstance(verify, Verify) and verify.slack is not None

    async def __call__(self, request: Request) -> Response:
        """Take one request: prove, read, emit, answer. Raises Refusal for all that is not accepted."""
        if self._guard is not None:
            self._guard.check(request)
        if self._challenged and (answer := answer_challenge(request)) is not None:
            return answer
        event = self._event(request)
        try:
            (accepted,) = await self._context.emit(event)
        except InvalidEvent as error:
            raise _refused(error.status, str(error)) from None
        except StoreUnavailable:
            raise Refusal(
                503,
                "Service Unavailable",
                "The event can't be stored now, and was not taken. Send it again later.",
                {"Retry-After": str(RETRY_AFTER_S)},
            ) from None
        return Response(
            status=202,
            body={"event": accepted.event, "runs": accepted.runs, "duplicate": accepted.duplicate},
            headers={"Location": f"/api/v1/events/{accepted.event}"},
        )

    def _event(self, request: Request) -> Event:
        headers = request.headers
        if headers.get("Content-Encoding", "identity").lower() != "identity":
            raise _refused(415, "The body is compressed. Send it as it is, without Content-Encoding.")
        content_type = headers.get("Content-Type", "application/json")
        if content_type != "application/json" and not _is_json(content_type):
            raise _refused(415, "The body is not JSON by its Content-Type. Send application/json.")
        if not request.body:
            raise _refused(400, "The body is empty. Send JSON, such as {}.")
        offered, key = self._identify(request)
        kind = _event_name(offered, self._type)
        if key is not None and not _KEY.match(key):
            raise _refused(
                400,
                f"The delivery id or Idempotency-Key is not 1 to {LONGEST_KEY} printable ASCII characters.",
            )
        return Event(
            type=kind, subject=self._path, data=Raw(request.body), key=key, http=self._http(request),
            traceparent=headers.get("Traceparent"),
        )  # fmt: skip

    def _http(self, request: Request) -> dict[str, Any]:
        shown: dict[str, str] = {}
        hidden = self._hidden
        for field, value in request.headers.items():
            name = field.lower()
            if name not in hidden:
                text = value if value.isascii() else to_unicode(value)
                shown[name] = f"{shown[name]}, {text}" if name in shown else text
        query = request.query
        return {
            "method": request.method,
            "headers": shown,
            "query": _readable(query) if query else {},
            "remote": request.remote,
        }


def _event_name(offered: str | None, otherwise: str) -> str:
    if offered is None or not _EVENT_NAME.match(offered):
        return otherwise
    if offered.startswith(RESERVED_PREFIX):
        raise _refused(400, f"The event name begins with {RESERVED_PREFIX!r}, which is kept for the engine's own.")
    return offered


def _is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or ("/" in media_type and media_type.endswith("+json"))


def _refused(status: int, detail: str) -> Refusal:
    return Refusal(status, HTTPStatus(status).phrase, detail)


def _readable(query: Mapping[str, str]) -> dict[str, str]:
    return {to_unicode(name): to_unicode(value) for name, value in query.items()}
