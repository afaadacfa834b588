"""What an event is called, and which delivery it is, in the words of the one who sends it.

Where the time of sending is signed, the key is made of what is signed alone: whoever repeats a request, whatever else
he alters of it, gets the answer of the first one again, for the 72 hours that keys are known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from engine.plugin import Request, Response
from plugins.sources.webhook.schemes import Claim, schemes_of
from plugins.sources.webhook.verify import Verify, is_timed


class Names(NamedTuple):
    """An event's type and key, as the sender has them; None where it says none."""

    kind: str | None
    key: str | None


Identify = Callable[[Request], Names]


class _Top(Struct):
    """What bodies say at their top level; of any type, as anybody may have written them."""

    type: Any = None
    id: Any = None


class _GitLab(Struct):
    object_kind: Any = None
    event_name: Any = None


class _Slack(Struct):
    type: Any = None
    event: Any = None
    event_id: Any = None
    challenge: Any = None


_top = msgspec.json.Decoder(_Top)
_gitlab = msgspec.json.Decoder(_GitLab)
_slack = msgspec.json.Decoder(_Slack)

T = TypeVar("T", bound=Struct)


def identify_by(verify: Literal["none"] | Verify) -> Identify:
    """Return what finds an event's names in a request."""
    way = verify.way if isinstance(verify, Verify) else ""
    if way in _BY_HEADERS_OR_BODY:
        return _BY_HEADERS_OR_BODY[way]
    if not isinstance(verify, Verify) or not is_timed(verify):
        return _of_no_vendor
    claim = schemes_of(verify)[0].claim
    read = {"stripe": _of_stripe, "slack": _of_slack}.get(way, _of_nobody)

    def identify(request: Request) -> Names:
        kind, key = read(request)
        if key is None:
            said = claim(request)
            key = said.id or _key_of(said, request)
        return Names(kind, key)

    return identify


def answer_challenge(request: Request) -> Response | None:
    """Answer the question by which Slack finds out whether a URL is its owner's; None: it is not that."""
    if b"url_verification" not in request.body:
        return None
    found = _read(_slack, request)
    if found is None or found.type != "url_verification" or not isinstance(found.challenge, str):
        return None
    return Response(body={"challenge": found.challenge})


def _of_no_vendor(request: Request) -> Names:
    return Names(None, request.headers.get("Idempotency-Key"))


def _of_nobody(request: Request) -> Names:
    return Names(None, None)


def _of_github(request: Request) -> Names:
    headers = request.headers
    return Names(headers.get("X-GitHub-Event"), headers.get("X-GitHub-Delivery") or headers.get("Idempotency-Key"))


def _of_gitlab(request: Request) -> Names:
    found = _read(_gitlab, request)
    headers = request.headers
    key = headers.get("webhook-id") or headers.get("Idempotency-Key")
    return Names(None if found is None else _text(found.object_kind) or _text(found.event_name), key)


def _of_shopify(request: Request) -> Names:
    headers = request.headers
    key = headers.get("X-Shopify-Webhook-Id") or headers.get("Idempotency-Key")
    return Names(headers.get("X-Shopify-Topic"), key)


def _of_standard(request: Request) -> Names:
    found, headers = _read(_top, request), request.headers
    # Which of the two families counts was settled by the proof: it goes by the signature.
    key = headers.get("webhook-id" if "webhook-signature" in headers else "svix-id")
    return Names(None if found is None else _text(found.type), key)


def _of_stripe(request: Request) -> Names:
    found = _read(_top, request)
    return Names(None, None) if found is None else Names(_text(found.type), _text(found.id))


def _of_slack(request: Request) -> Names:
    found = _read(_slack, request)
    if found is None:
        return Names(None, None)
    inner = found.event.get("type") if isinstance(found.event, dict) else None
    return Names(_text(inner) or _text(found.type), _text(found.event_id))


_BY_HEADERS_OR_BODY: Mapping[str, Identify] = {
    "github": _of_github, "gitlab": _of_gitlab, "shopify": _of_shopify, "standard": _of_standard,
}  # fmt: skip


def _key_of(claim: Claim, request: Request) -> str:
    """Return a key that is the same for a repeat of what was signed, and for nothing else."""
    return f"signed:{hashlib.sha256(b''.join((claim.before, request.body, claim.after))).hexdigest()}"


def _read(decoder: msgspec.json.Decoder[T], request: Request) -> T | None:
    try:
        return decoder.decode(request.body)
    except (msgspec.MsgspecError, RecursionError):
        return None  # what is no JSON is told so later on


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
