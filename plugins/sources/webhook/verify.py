"""How a request proves that it comes from the sender: what the settings say."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, Literal

from msgspec import Meta, Struct

from engine.plugin import BadSetting, Duration, Secret
from plugins.sources.webhook.texts import to_unicode

Secrets = Secret | tuple[Secret, ...]
"""One secret, or all that count at once, while one takes the place of another."""

TOLERANCE_S = 300.0
LONGEST_TOLERANCE_S = 86400.0
"""A key is known for 72 hours: a repeat has always gone stale before it could pass for something new."""

STANDARD_PREFIX = "whsec_"
SHORTEST_KEY_BYTES = 16

PARTS = ("body", "timestamp", "id", "method", "path")
"""What `signed` may name."""

PLACEHOLDER = re.compile(r"\{([^{}]*)\}")

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}\Z")
_KNOWN_TO_ALL = frozenset(
    "secret changeme change-me change_me password passw0rd default example test token webhook webhook-secret "
    "webhook_secret your-secret your_secret yoursecret mysecret my-secret my_secret topsecret whsec_ whsec_secret "
    "none null undefined todo xxx".split()
)
"""Secrets as examples and templates have them."""


class Hmac(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a sender signs: a header that holds the HMAC (RFC 2104) of the raw body, or of more than that.

    - `secret`: the secret, or a list of those that count.
    - `header`: the name of that header.
    - `prefix`: text before the signature itself, such as `sha256=`.
    - `encoding`: `hex` (either case) or `base64` (RFC 4648, section 4, with its padding).
    - `signed`: what the sender signs, with `{body}`, `{timestamp}`, `{id}`, `{method}` and `{path}` in it, such as
      `{timestamp}.{body}`.
    - `timestamp`: the header with the time of sending: seconds or milliseconds since 1970, RFC 3339, or a date of HTTP.
      It has to be signed. Requests that are older or newer than `tolerance` are refused, and a repeat of one that is
      not is a duplicate.
    - `id`: the header with the delivery's id, which is the event's key. It has to be signed.
    """

    secret: Secrets
    header: str
    algorithm: Literal["sha256", "sha1", "sha512"] = "sha256"
    encoding: Literal["hex", "base64"] = "hex"
    prefix: str = ""
    signed: str = "{body}"
    timestamp: str | None = None
    id: str | None = None


class Basic(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """HTTP basic authentication (RFC 7617).

    - `password`: the password, or a list of those that count.
    """

    user: str
    password: Secrets


class Verify(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a request proves that it comes from the sender; exactly one of these ways, each with a secret or a list of
    secrets that all count, so that one can take the place of another without a gap:

    - `github`: the secret of a GitHub webhook (`X-Hub-Signature-256`). The event type is then GitHub's event
      name, and the key its delivery id.
    - `gitlab`: a signing token (`whsec_…`: `webhook-signature`), or else a secret token (`X-Gitlab-Token`). The type is
      the payload's `object_kind`, the key the delivery's id.
    - `standard`: a secret of Standard Webhooks, in base64, with or without `whsec_` (`webhook-signature`, or Svix's
      `svix-signature`). The type is the payload's `type`, the key the `webhook-id`.
    - `stripe`: the signing secret of an endpoint of Stripe's, `whsec_…` (`Stripe-Signature`). Type and key are the
      event's `type` and `id`.
    - `slack`: the signing secret of a Slack app (`X-Slack-Signature`). Slack's question for a new URL is answered.
    - `shopify`: the client secret of a Shopify app (`X-Shopify-Hmac-Sha256`). The type is the topic.
    - `hmac`: a signature in a header of your choice.
    - `token`: a text that is sent as it is, in `X-Webhook-Token`, `X-Gitlab-Token` or
      `Authorization: Bearer …`; the first of these that is there counts.
    - `basic`: a user and a password.

    Beside it:

    - `header`: with `token`, the one header that holds it, instead of those.
    - `tolerance`: how far the time of sending may be from the engine's clock, in the past or the future, where it is
      signed; `5m` by default.
    """

    github: Secrets | None = None
    gitlab: Secrets | None = None
    standard: Secrets | None = None
    stripe: Secrets | None = None
    slack: Secrets | None = None
    shopify: Secrets | None = None
    hmac: Hmac | None = None
    token: Secrets | None = None
    basic: Basic | None = None
    header: str | None = None
    tolerance: Annotated[Duration, Meta(ge=1, le=LONGEST_TOLERANCE_S)] | None = None

    @property
    def way(self) -> str:
        """The one that is given."""
        return next(way for way in WAYS if getattr(self, way) is not None)


WAYS = tuple(name for name in Verify.__struct_fields__ if name not in ("header", "tolerance"))


def texts_of(secrets: Secrets) -> tuple[str, ...]:
    """Return the secrets themselves."""
    return tuple(secret.reveal() for secret in (secrets if isinstance(secrets, tuple) else (secrets,)))


def standard_key(text: str) -> bytes | None:
    """Return the key of a secret of Standard Webhooks; None where it is no base64, with its padding or without."""
    encoded = text.strip().removeprefix(STANDARD_PREFIX).rstrip("=")
    try:
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def signs_bodies(verify: Literal["none"] | Verify) -> bool:
    """Tell whether the body is what is proved, so that nothing else of a request says what the event is."""
    return isinstance(verify, Verify) and verify.way not in ("token", "basic")


def is_timed(verify: Verify) -> bool:
    """Tell whether requests prove when they were sent."""
    if verify.gitlab is not None:
        return any(text.startswith(STANDARD_PREFIX) for text in texts_of(verify.gitlab))
    if verify.hmac is not None:
        return verify.hmac.timestamp is not None
    return verify.way in ("standard", "stripe", "slack")


def check_verify(verify: Verify) -> None:
    """Raise BadSetting for what proves nothing."""
    given = [way for way in WAYS if getattr(verify, way) is not None]
    if len(given) != 1:
        found = "is empty" if not given else f"has {' and '.join(given)}"
        known = f"{', '.join(WAYS[:-1])} and {WAYS[-1]}"
        raise BadSetting("verify", f"{found}; exactly one of {known} is needed", 'or "none", to let everybody in')
    (way,) = given
    _check_way(way, verify)
    if verify.header is not None:
        if way != "token":
            raise BadSetting("verify.header", f"goes with token alone, not with {way}")
        _check_header("verify.header", verify.header)
    if verify.tolerance is not None and not is_timed(verify):
        raise BadSetting("verify.tolerance", f"has no effect: {way} does not sign the time of sending", "leave it out")


def _check_way(way: str, verify: Verify) -> None:
    if verify.hmac is not None:
        _check_secrets("verify.hmac.secret", verify.hmac.secret)
        _check_hmac(verify.hmac)
    elif verify.basic is not None:
        _check_secrets("verify.basic.password", verify.basic.password)
        if ":" in verify.basic.user or not verify.basic.user:
            raise BadSetting("verify.basic.user", "is empty or has a colon in it, which no user of RFC 7617 has")
    else:
        secrets: Secrets = getattr(verify, way)
        field = f"verify.{way}"
        _check_secrets(field, secrets)
        for text in texts_of(secrets):
            if way == "standard" or (way == "gitlab" and text.startswith(STANDARD_PREFIX)):
                _check_standard(field, text)
            elif way in ("token", "gitlab") and any(not "!" <= character <= "~" for character in text):
                raise BadSetting(field, "holds spaces or characters that no header can carry", "use ASCII")


def _check_hmac(hmac: Hmac) -> None:
    _check_header("verify.hmac.header", hmac.header)
    if any(not " " <= character <= "~" for character in hmac.prefix):
        raise BadSetting("verify.hmac.prefix", "holds characters that no header can carry", "use ASCII")
    named = PLACEHOLDER.findall(hmac.signed)
    known = ", ".join(f"{{{part}}}" for part in PARTS)
    for name in named:
        if name not in PARTS:
            raise BadSetting("verify.hmac.signed", f"names {{{name}}}, which is none of {known}")
    if set("{}") & set(PLACEHOLDER.sub("", hmac.signed)):
        raise BadSetting("verify.hmac.signed", "has a brace that is none of a pair", known)
    if named.count("body") != 1:
        raise BadSetting("verify.hmac.signed", "has to have {body} in it, once: what is not signed anybody can alter")
    for part in ("timestamp", "id"):
        header: str | None = getattr(hmac, part)
        if header is None:
            if part in named:
                raise BadSetting("verify.hmac.signed", f"names {{{part}}}, and no header has it", f'{part} = "X-…"')
            continue
        _check_header(f"verify.hmac.{part}", header)
        if part not in named:
            raise BadSetting(
                f"verify.hmac.{part}", f"is not signed, so anybody can alter it: {{{part}}} is not in `signed`",
                f'signed = "{{{part}}}.{{body}}", or as the sender signs',
            )  # fmt: skip


def _check_header(field: str, name: str) -> None:
    if not _HEADER_NAME.match(name):
        raise BadSetting(field, "is no name of a header", 'such as "X-Signature"')


def _check_secrets(field: str, secrets: Secrets) -> None:
    texts = texts_of(secrets)
    if not texts:
        raise BadSetting(field, "is an empty list: without a secret nobody could prove anything", "give one or more")
    for text in texts:
        if not text.strip():
            raise BadSetting(field, "is an empty secret, which everybody knows", "32 random characters or more")
        if text.strip().casefold() in _KNOWN_TO_ALL:
            raise BadSetting(
                field, "is a secret that everybody knows: examples have it", "32 random characters or more"
            )
        if not text.isascii() and to_unicode(text) != text:
            raise BadSetting(field, "is not valid Unicode text")


def _check_standard(field: str, text: str) -> None:
    key = standard_key(text)
    if key is None:
        raise BadSetting(field, "is no secret of Standard Webhooks: after whsec_ comes base64")
    if len(key) < SHORTEST_KEY_BYTES:
        raise BadSetting(
            field, f"holds a key of {len(key)} bytes, which can be guessed", "Standard Webhooks asks for 24 to 64"
        )
