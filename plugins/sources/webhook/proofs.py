"""Whether a request proves that it comes from the sender.

All of these do the same work whatever is wrong with a request, and compare bytes in constant time: the time of an
answer tells nothing. Odd input is never a fault.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Protocol

from engine.plugin import Request
from plugins.sources.webhook.schemes import Scheme, schemes_of, seconds_of
from plugins.sources.webhook.texts import to_bytes
from plugins.sources.webhook.verify import STANDARD_PREFIX, Basic, Verify, texts_of


class Proof(Protocol):
    """One way to prove it."""

    def flaw(self, request: Request, now_s: float) -> str | None:
        """Say why the request proves nothing, for the hook's owner; None: it does."""
        ...


class SignatureProof:
    """The HMAC of the raw body, and of what else the scheme says."""

    __slots__ = ("_header", "_hex", "_keyed", "_tolerance_s", "scheme")

    def __init__(self, scheme: Scheme) -> None:
        self.scheme = scheme
        self._header = scheme.header
        self._hex = scheme.encoding == "hex"
        self._tolerance_s = scheme.tolerance_s
        # The keys are mixed in once: copies of these cost half of new ones.
        self._keyed = [hmac.new(key, digestmod=getattr(hashlib, scheme.algorithm)) for key in scheme.keys]

    def flaw(self, request: Request, now_s: float) -> str | None:
        claim = self.scheme.claim(request)
        right = False
        for keyed in self._keyed:
            mac = keyed.copy()
            if claim.before:
                mac.update(claim.before)
            mac.update(request.body)
            if claim.after:
                mac.update(claim.after)
            expected = mac.hexdigest().encode() if self._hex else base64.b64encode(mac.digest())
            for offered in claim.signatures:
                right |= hmac.compare_digest(expected, offered)
        if claim.fault is not None:
            return claim.fault
        if not right:
            whose = "the secret gives" if len(self._keyed) == 1 else "any of the secrets gives"
            return f"the signature in {claim.header or self._header} is not the one that {whose} for its body"
        return None if self._tolerance_s is None else skew(claim.timestamp or "", now_s, self._tolerance_s)


def skew(timestamp: str, now_s: float, tolerance_s: float) -> str | None:
    """Say how far a time of sending is from now, where that is too far."""
    sent_s = seconds_of(timestamp)
    if sent_s is None:
        return "its time of sending is none"
    behind_s = now_s - sent_s
    if abs(behind_s) <= tolerance_s:
        return None
    side = "behind" if behind_s > 0 else "ahead of"
    return f"its time of sending is {abs(behind_s):,.0f} s {side} the engine's clock, and may be {tolerance_s:g} s"


class TokenProof:
    """The secret itself in a header."""

    __slots__ = ("_digests", "header", "texts")

    def __init__(self, texts: tuple[str, ...], header: str | None = None) -> None:
        self.texts = texts
        self.header = header
        # Of digests not even the length of the token could be told.
        self._digests = [_digest(text) for text in texts]

    def flaw(self, request: Request, now_s: float) -> str | None:
        offered = self.offered(request)
        digest = _digest((offered or "").strip())
        right = False
        for known in self._digests:
            right |= hmac.compare_digest(known, digest)
        if offered is None:
            where = self.header or "X-Webhook-Token, X-Gitlab-Token or Authorization: Bearer"
            return f"it has no token, in {where}"
        return None if right else "its token is not that of the configuration"

    def offered(self, request: Request) -> str | None:
        """Return the token of a request, or None where it has none."""
        headers = request.headers
        if self.header is not None and self.header.lower() != "authorization":
            return headers.get(self.header)
        if self.header is None:
            offered = headers.get("X-Webhook-Token") or headers.get("X-Gitlab-Token")
            if offered is not None:
                return offered
        scheme, _, offered = headers.get("Authorization", "").partition(" ")
        return offered if scheme.lower() == "bearer" else None


class BasicProof:
    """User and password (RFC 7617)."""

    __slots__ = ("_digests", "texts", "user")

    def __init__(self, settings: Basic) -> None:
        self.user = settings.user
        self.texts = texts_of(settings.password)
        self._digests = [_digest(f"{settings.user}:{text}") for text in self.texts]

    def flaw(self, request: Request, now_s: float) -> str | None:
        offered = self.offered(request)
        digest = hashlib.sha256(offered or b"").digest()
        right = False
        for known in self._digests:
            right |= hmac.compare_digest(known, digest)
        if offered is None:
            return "it has no user and password, in Authorization: Basic"
        return None if right else "its user and password are not those of the configuration"

    def offered(self, request: Request) -> bytes | None:
        """Return `user:password` of a request, or None where it has none."""
        scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            return base64.b64decode(to_bytes(encoded.strip()), validate=True)
        except (binascii.Error, ValueError):
            return b""


class EitherProof:
    """Several ways, of which one is enough: those of a sender that goes over from one to another."""

    __slots__ = ("proofs",)

    def __init__(self, *proofs: Proof) -> None:
        self.proofs = proofs

    def flaw(self, request: Request, now_s: float) -> str | None:
        flaws = [proof.flaw(request, now_s) for proof in self.proofs]
        return None if None in flaws else "; and ".join(flaw for flaw in flaws if flaw is not None)


def proof_of(verify: Verify) -> Proof:
    """Return what the settings ask for."""
    if verify.token is not None:
        return TokenProof(texts_of(verify.token), verify.header)
    if verify.basic is not None:
        return BasicProof(verify.basic)
    proofs: list[Proof] = [SignatureProof(scheme) for scheme in schemes_of(verify)]
    if verify.gitlab is not None:
        tokens = tuple(text for text in texts_of(verify.gitlab) if not text.startswith(STANDARD_PREFIX))
        if tokens:
            proofs.append(TokenProof(tokens, "X-Gitlab-Token"))
    return proofs[0] if len(proofs) == 1 else EitherProof(*proofs)


def _digest(text: str) -> bytes:
    return hashlib.sha256(to_bytes(text)).digest()
