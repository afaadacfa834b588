"""Webhooks: events that others send by HTTP."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, ClassVar, Literal

import anyio
from msgspec import Raw, Struct

from engine.plugin import (
    RESERVED_PREFIX,
    BadSetting,
    Event,
    InvalidEvent,
    Refusal,
    Request,
    Response,
    Secret,
    Source,
    SourceContext,
    StoreUnavailable,
    Whereabouts,
)

LONGEST_PATH = 255
LONGEST_KEY = 255
RETRY_AFTER_S = 5
"""What a sender is told to wait when the store can't take its event."""

_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\Z")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}\Z")
_EVENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\Z")
_KEY = re.compile(r"[!-~](?:[ -~]{0,253}[!-~])?\Z")

_CONFIDENTIAL = frozenset(
    "authorization proxy-authorization cookie x-api-key x-auth-token x-csrf-token x-webhook-token "
    "x-gitlab-token x-hub-signature x-hub-signature-256 x-signature x-webhook-signature webhook-signature "
    "stripe-signature x-slack-signature x-twilio-signature x-shopify-hmac-sha256".split()
)
"""Header fields that prove who sends, and so are kept from expressions."""


class Hmac(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a sender signs: a header that holds the HMAC (RFC 2104) of the raw body.

    - `header`: the name of that header.
    - `prefix`: text before the signature itself, such as `sha256=`.
    - `encoding`: `hex` (either case) or `base64` (RFC 4648, section 4, with its padding).
    """

    secret: Secret
    header: str
    algorithm: Literal["sha256", "sha1", "sha512"] = "sha256"
    encoding: Literal["hex", "base64"] = "hex"
    prefix: str = ""


class Verify(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a request proves that it comes from the sender; exactly one of:

    - `github`: the secret of a GitHub webhook (`X-Hub-Signature-256`). The event type is then GitHub's event
      name, and the key its delivery id.
    - `token`: a text that is sent as it is, in `X-Webhook-Token`, `X-Gitlab-Token` or
      `Authorization: Bearer …`; the first of these that is there counts.
    - `hmac`: a signature in a header of your choice.
    """

    github: Secret | None = None
    token: Secret | None = None
    hmac: Hmac | None = None


class Webhook(Source, frozen=True, kw_only=True):
    """Receive events at `POST /hooks/<path>`.

    - `path`: segments of letters, digits, `_`, `.` and `-`, each beginning with a letter or digit, joined by
      `/`; at most 255 characters.
    - `verify`: how senders prove who they are; `"none"` lets everybody in who reaches the listener.

    The body is JSON and becomes the event's data; the subject is the path; the type is `webhook.<path>` (with
    `.` for `/`), or the vendor's event name. The key is the vendor's delivery id, or the `Idempotency-Key` of
    the request. 202 is answered once the event is durable, with its id and those of its runs.
    """

    name: ClassVar[str] = "webhook"
    main: ClassVar[str | None] = "path"
    gets_requests: ClassVar[bool] = True

    path: str
    verify: Literal["none"] | Verify

    def __post_init__(self) -> None:
        _check_path(self.path)
        if isinstance(self.verify, Verify):
            _check_verify(self.verify)

    def identity(self) -> str:
        return self.path

    def try_it(self, here: Whereabouts) -> str | None:
        if here.url is None:
            return None
        proof = ""
        if isinstance(self.verify, Verify):
            kind, _, file = self.verify.token.origin.partition(" ") if self.verify.token is not None else ("", "", "")
            if kind != "file":
                return None
            proof = f'-H "X-Webhook-Token: $(cat {here.path(file)})" '
        data = """-H 'Content-Type: application/json' -d '{"name": "Ada"}'"""
        return f"curl -sS {proof}{data} {here.url}/hooks/{self.path}"

    async def run(self, context: SourceContext) -> None:
        context.route("POST", f"/hooks/{self.path}", Receiver(self, context))
        context.ready()
        await anyio.sleep_forever()


def _check_path(path: str) -> None:
    hint = 'such as "github" or "team/deploy"'
    if not path:
        raise BadSetting("path", "is empty", hint)
    if len(path) > LONGEST_PATH:
        raise BadSetting("path", f"is longer than {LONGEST_PATH} characters")
    if path.startswith("/"):
        raise BadSetting("path", "begins with a slash; what comes after /hooks/ is meant", f'"{path.lstrip("/")}"')
    for segment in path.split("/"):
        if not _SEGMENT.match(segment):
            raise BadSetting(
                "path",
                f"has the segment {segment!r}; a segment begins with a letter or digit and goes on with "
                "letters, digits, `_`, `.` and `-` (at most 128 characters)",
                hint,
            )


def _check_verify(verify: Verify) -> None:
    given = [field for field in Verify.__struct_fields__ if getattr(verify, field) is not None]
    if len(given) != 1:
        found = "is empty" if not given else f"has {' and '.join(given)}"
        raise BadSetting(
            "verify",
            f"{found}; exactly one of github, token and hmac is needed",
            'or "none", to let everybody in',
        )
    if verify.github is not None:
        _check_secret("verify.github", verify.github)
    if verify.token is not None:
        _check_secret("verify.token", verify.token)
        if any(not "!" <= character <= "~" for character in verify.token.reveal()):
            raise BadSetting("verify.token", "holds spaces or characters that no header can carry", "use ASCII")
    if verify.hmac is not None:
        _check_secret("verify.hmac.secret", verify.hmac.secret)
        if not _HEADER_NAME.match(verify.hmac.header):
            raise BadSetting("verify.hmac.header", "is no name of a header", 'such as "X-Signature"')
        if any(not " " <= character <= "~" for character in verify.hmac.prefix):
            raise BadSetting("verify.hmac.prefix", "holds characters that no header can carry", "use ASCII")


def _check_secret(field: str, secret: Secret) -> None:
    text = secret.reveal()
    if not text.strip():
        raise BadSetting(field, "is an empty secret, which everybody knows", "32 random characters or more")
    if not text.isascii() and _unicode(text) != text:
        raise BadSetting(field, "is not valid Unicode text")


class SignatureProof:
    """The HMAC of the raw body in a header."""

    __slots__ = ("_header", "_hex", "_keyed", "_prefix")

    def __init__(self, settings: Hmac) -> None:
        self._header = settings.header
        self._hex = settings.encoding == "hex"
        self._prefix = settings.prefix
        # The key is mixed in once: copies of this cost half of a new one.
        digest = getattr(hashlib, settings.algorithm)
        self._keyed = hmac.new(_bytes(settings.secret.reveal()), digestmod=digest)

    def flaw(self, request: Request) -> str | None:
        """Say why the header does not hold the body's signature; None: it does. Odd input never raises."""
        offered = request.headers.get(self._header)
        if offered is None:
            return f"it has no header {self._header}, where its signature should be"
        if not offered.startswith(self._prefix):
            return f"its header {self._header} does not begin with {self._prefix!r}"
        mac = self._keyed.copy()
        mac.update(request.body)
        candidate = _bytes(offered[len(self._prefix) :])
        if self._hex:
            right = hmac.compare_digest(mac.hexdigest().encode(), candidate.lower())
        else:
            right = hmac.compare_digest(base64.b64encode(mac.digest()), candidate)
        return None if right else f"the signature in {self._header} is not the one that the secret gives for its body"


class TokenProof:
    """The secret itself in a header."""

    __slots__ = ("_token",)

    def __init__(self, secret: Secret) -> None:
        self._token = _bytes(secret.reveal())

    def flaw(self, request: Request) -> str | None:
        """Say why no header holds the token; None: one does. Odd input never raises."""
        headers = request.headers
        offered = headers.get("X-Webhook-Token") or headers.get("X-Gitlab-Token")
        if offered is None:
            scheme, _, offered = headers.get("Authorization", "").partition(" ")
            if scheme.lower() != "bearer":
                return "it has no token, in X-Webhook-Token, X-Gitlab-Token or Authorization: Bearer"
        right = hmac.compare_digest(self._token, _bytes(offered.strip()))
        return None if right else "its token is not that of the configuration"


class Receiver:
    """Answers the requests of one webhook. All that settings decide is decided when it is made."""

    __slots__ = ("_context", "_hidden", "_path", "_proof", "_type", "_vendor")

    def __init__(self, webhook: Webhook, context: SourceContext) -> None:
        self._context = context
        self._path = webhook.path
        self._type = f"webhook.{webhook.path.replace('/', '.')}"
        self._hidden = _CONFIDENTIAL
        self._proof: SignatureProof | TokenProof | None = None
        self._vendor = False
        verify = webhook.verify
        if not isinstance(verify, Verify):
            return
        if verify.github is not None:
            self._vendor = True
            self._proof = SignatureProof(Hmac(secret=verify.github, header="X-Hub-Signature-256", prefix="sha256="))
        elif verify.token is not None:
            self._proof = TokenProof(verify.token)
        elif verify.hmac is not None:
            self._hidden = _CONFIDENTIAL | {verify.hmac.header.lower()}
            self._proof = SignatureProof(verify.hmac)

    async def __call__(self, request: Request) -> Response:
        """Take one request: prove, read, emit, answer. Raises Refusal for all that is not accepted."""
        if self._proof is not None and (flaw := self._proof.flaw(request)) is not None:
            # One text for all: which part was missing or wrong is the owner's business alone.
            raise Refusal(
                401,
                "Unauthorized",
                "The request does not prove that it comes from the sender.",
                {"WWW-Authenticate": "Bearer"},
                reason=flaw,
            )
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
        kind, key = self._type, headers.get("Idempotency-Key")
        if self._vendor:
            kind = _event_name(headers.get("X-GitHub-Event"), kind)
            key = headers.get("X-GitHub-Delivery") or key
        if key is not None and not _KEY.match(key):
            raise _refused(
                400,
                f"The delivery id or Idempotency-Key is not 1 to {LONGEST_KEY} printable ASCII characters.",
            )
        return Event(type=kind, subject=self._path, data=Raw(request.body), key=key, http=self._http(request))

    def _http(self, request: Request) -> dict[str, Any]:
        shown: dict[str, str] = {}
        hidden = self._hidden
        for field, value in request.headers.items():
            name = field.lower()
            if name not in hidden:
                text = value if value.isascii() else _unicode(value)
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


def _bytes(text: str) -> bytes:
    """Return bytes to compare, for any text: a header that is no UTF-8 has lone surrogates in it."""
    return text.encode("utf-8", "surrogatepass")


def _unicode(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _readable(query: Mapping[str, str]) -> dict[str, str]:
    return {_unicode(name): _unicode(value) for name, value in query.items()}
