"""How each sender signs: where its signature is, how it is written, and what it is of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal, NamedTuple

from msgspec import Struct

from engine.plugin import Request
from plugins.sources.webhook.texts import to_bytes
from plugins.sources.webhook.verify import (
    PLACEHOLDER,
    STANDARD_PREFIX,
    TOLERANCE_S,
    Hmac,
    Verify,
    standard_key,
    texts_of,
)

MOST_SIGNATURES = 16
"""Signatures in one header that are looked at: each secret of a sender that is changing them makes one."""

LONGEST_TIME = 40
_MILLISECONDS_FROM = 100_000_000_000
"""Whole numbers from here on are milliseconds: as seconds they lie beyond the year 5000."""


class Claim(NamedTuple):
    """What a request says of itself: its signatures, and what they are of but for the body.

    - `before`, `after`: the bytes that are signed before and after the body.
    - `timestamp`, `id`: when it was sent, and which delivery it is, as they were written.
    - `fault`: why it proves nothing, whatever its signatures are, for the hook's owner.
    - `header`: where its signatures are, where a scheme knows several such headers.
    """

    signatures: tuple[bytes, ...]
    before: bytes = b""
    after: bytes = b""
    timestamp: str | None = None
    id: str | None = None
    fault: str | None = None
    header: str = ""


class Scheme(Struct, frozen=True, kw_only=True):
    """A way to sign.

    - `header`: where its signature is; `keys` are those that count, `texts` the same as they are configured.
    - `claim`: reads a request; it never raises.
    - `tolerance_s`: how far from now the time of sending may be; None where that is not signed.
    """

    header: str
    keys: tuple[bytes, ...]
    texts: tuple[str, ...]
    claim: Callable[[Request], Claim]
    algorithm: Literal["sha256", "sha1", "sha512"] = "sha256"
    encoding: Literal["hex", "base64"] = "hex"
    prefix: str = ""
    tolerance_s: float | None = None


def schemes_of(verify: Verify) -> tuple[Scheme, ...]:
    """Return the ways to sign that count for a webhook; none where it goes by a token or password."""
    tolerance_s = TOLERANCE_S if verify.tolerance is None else verify.tolerance
    if verify.github is not None:
        return (_plain(Hmac(secret=verify.github, header="X-Hub-Signature-256", prefix="sha256="), tolerance_s),)
    if verify.shopify is not None:
        return (_plain(Hmac(secret=verify.shopify, header="X-Shopify-Hmac-Sha256", encoding="base64"), tolerance_s),)
    if verify.hmac is not None:
        return (_plain(verify.hmac, tolerance_s),)
    if verify.standard is not None:
        return (_standard(texts_of(verify.standard), tolerance_s, ("webhook", "svix")),)
    if verify.gitlab is not None:
        signing = tuple(text for text in texts_of(verify.gitlab) if text.startswith(STANDARD_PREFIX))
        return (_standard(signing, tolerance_s, ("webhook",)),) if signing else ()
    if verify.stripe is not None:
        return (_of_texts(texts_of(verify.stripe), "Stripe-Signature", _stripe_claim, tolerance_s, "v1="),)
    if verify.slack is not None:
        return (_of_texts(texts_of(verify.slack), "X-Slack-Signature", _slack_claim, tolerance_s, "v0="),)
    return ()


def seconds_of(text: str) -> float | None:
    """Return the instant that a time of sending stands for, in seconds since 1970; None: it is none."""
    if not text.isascii() or not 0 < len(text) <= LONGEST_TIME:
        return None
    if text.isdigit():
        number = int(text)
        return number / 1000 if number >= _MILLISECONDS_FROM else float(number)
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            instant = read(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
        # A date of HTTP is in GMT; any other time without a zone could be anything.
        if instant.tzinfo is None:
            instant = instant.replace(tzinfo=UTC)
        return instant.timestamp()
    return None


def _of_texts(
    texts: tuple[str, ...], header: str, claim: Callable[[Request], Claim], tolerance_s: float, prefix: str
) -> Scheme:
    keys = tuple(map(to_bytes, texts))
    return Scheme(header=header, keys=keys, texts=texts, claim=claim, tolerance_s=tolerance_s, prefix=prefix)


def _plain(settings: Hmac, tolerance_s: float) -> Scheme:
    texts = texts_of(settings.secret)
    return Scheme(
        header=settings.header, keys=tuple(map(to_bytes, texts)), texts=texts, claim=_plain_claim(settings),
        algorithm=settings.algorithm, encoding=settings.encoding, prefix=settings.prefix,
        tolerance_s=None if settings.timestamp is None else tolerance_s,
    )  # fmt: skip


def _plain_claim(settings: Hmac) -> Callable[[Request], Claim]:
    header, prefix, lower = settings.header, settings.prefix, settings.encoding == "hex"
    before, after = settings.signed.split("{body}")
    timestamp_header, id_header = settings.timestamp, settings.id

    def claim(request: Request) -> Claim:
        headers, fault = request.headers, None
        named = {"method": request.method, "path": request.path}
        for part, name in (("timestamp", timestamp_header), ("id", id_header)):
            if name is not None:
                if name not in headers:
                    fault = f"it has no header {name}, where its {part} should be"
                named[part] = headers.get(name, "")
        signatures, wrong = _signature(headers.get(header), header, prefix, lower=lower)
        return Claim(
            signatures, _filled(before, named), _filled(after, named), named.get("timestamp"), named.get("id"),
            wrong or fault,
        )  # fmt: skip

    return claim


def _filled(part: str, named: Mapping[str, str]) -> bytes:
    return to_bytes(PLACEHOLDER.sub(lambda match: named[match[1]], part)) if part else b""


def _signature(offered: str | None, header: str, prefix: str, *, lower: bool) -> tuple[tuple[bytes, ...], str | None]:
    """Return the signature of a header that has one, and what is wrong with the header."""
    if offered is None:
        return (), f"it has no header {header}, where its signature should be"
    if not offered.startswith(prefix):
        return (), f"its header {header} does not begin with {prefix!r}"
    signature = to_bytes(offered[len(prefix) :])
    return (signature.lower() if lower else signature,), None


def _standard(texts: tuple[str, ...], tolerance_s: float, families: tuple[str, ...]) -> Scheme:
    """Return the scheme of Standard Webhooks 1.0 (https://github.com/standard-webhooks/standard-webhooks)."""

    def claim(request: Request) -> Claim:
        headers = request.headers
        offered = None
        for family in families:
            if (offered := headers.get(f"{family}-signature")) is not None:
                break
        else:
            family = families[0]
        delivery, timestamp = headers.get(f"{family}-id"), headers.get(f"{family}-timestamp")
        signatures: tuple[bytes, ...] = ()
        fault = None
        if offered is None:
            fault = f"it has no header {family}-signature, where its signature should be"
        else:
            signatures = tuple(
                to_bytes(part[3:]) for part in offered.split(" ", MOST_SIGNATURES)[:MOST_SIGNATURES]
                if part.startswith("v1,")
            )  # fmt: skip
            if not signatures:
                fault = f"its header {family}-signature has no signature of version 1 in it (`v1,…`)"
        if not delivery or timestamp is None:
            fault = fault or f"it has no header {family}-{'timestamp' if delivery else 'id'}"
        before = to_bytes(f"{delivery}.{timestamp}.")
        return Claim(signatures, before, b"", timestamp, delivery, fault, f"{family}-signature")

    return Scheme(
        header=f"{families[0]}-signature", keys=tuple(standard_key(text) or b"" for text in texts), texts=texts,
        claim=claim, encoding="base64", prefix="v1,", tolerance_s=tolerance_s,
    )  # fmt: skip


def _stripe_claim(request: Request) -> Claim:
    """Read `t=1492774577,v1=…,v1=…` (https://docs.stripe.com/webhooks/signature)."""
    offered = request.headers.get("Stripe-Signature")
    if offered is None:
        return Claim((), fault="it has no header Stripe-Signature, where its signature should be")
    timestamp: str | None = None
    signatures: list[bytes] = []
    for part in offered.split(",", 2 * MOST_SIGNATURES)[: 2 * MOST_SIGNATURES]:
        name, _, value = part.strip().partition("=")
        if name == "t" and timestamp is None:
            timestamp = value
        elif name == "v1" and len(signatures) < MOST_SIGNATURES:
            signatures.append(to_bytes(value))
    fault = None
    if timestamp is None or not signatures:
        fault = f"its header Stripe-Signature has no {'v1' if timestamp is not None else 't'}= in it"
    return Claim(tuple(signatures), to_bytes(f"{timestamp}."), b"", timestamp, None, fault)


def _slack_claim(request: Request) -> Claim:
    """Read Slack's headers (https://api.slack.com/authentication/verifying-requests-from-slack)."""
    timestamp = request.headers.get("X-Slack-Request-Timestamp")
    signatures, fault = _signature(request.headers.get("X-Slack-Signature"), "X-Slack-Signature", "v0=", lower=False)
    if timestamp is None:
        fault = fault or "it has no header X-Slack-Request-Timestamp"
    return Claim(signatures, to_bytes(f"v0:{timestamp}:"), b"", timestamp, None, fault)
