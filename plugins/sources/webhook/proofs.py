"""Whether a request proves that it comes from the sender."""

from __future__ import annotations

import base64
import hashlib
import hmac

from engine.plugin import Request, Secret
from plugins.sources.webhook.texts import to_bytes
from plugins.sources.webhook.verify import Hmac


class SignatureProof:
    """The HMAC of the raw body in a header."""

    __slots__ = ("_header", "_hex", "_keyed", "_prefix")

    def __init__(self, settings: Hmac) -> None:
        self._header = settings.header
        self._hex = settings.encoding == "hex"
        self._prefix = settings.prefix
        # The key is mixed in once: copies of this cost half of a new one.
        digest = getattr(hashlib, settings.algorithm)
        self._keyed = hmac.new(to_bytes(settings.secret.reveal()), digestmod=digest)

    def flaw(self, request: Request) -> str | None:
        """Say why the header does not hold the body's signature; None: it does. Odd input never raises."""
        offered = request.headers.get(self._header)
        if offered is None:
            return f"it has no header {self._header}, where its signature should be"
        if not offered.startswith(self._prefix):
            return f"its header {self._header} does not begin with {self._prefix!r}"
        mac = self._keyed.copy()
        mac.update(request.body)
        candidate = to_bytes(offered[len(self._prefix) :])
        if self._hex:
            right = hmac.compare_digest(mac.hexdigest().encode(), candidate.lower())
        else:
            right = hmac.compare_digest(base64.b64encode(mac.digest()), candidate)
        return None if right else f"the signature in {self._header} is not the one that the secret gives for its body"


class TokenProof:
    """The secret itself in a header."""

    __slots__ = ("_token",)

    def __init__(self, secret: Secret) -> None:
        self._token = to_bytes(secret.reveal())

    def flaw(self, request: Request) -> str | None:
        """Say why no header holds the token; None: one does. Odd input never raises."""
        headers = request.headers
        offered = headers.get("X-Webhook-Token") or headers.get("X-Gitlab-Token")
        if offered is None:
            scheme, _, offered = headers.get("Authorization", "").partition(" ")
            if scheme.lower() != "bearer":
                return "it has no token, in X-Webhook-Token, X-Gitlab-Token or Authorization: Bearer"
        right = hmac.compare_digest(self._token, to_bytes(offered.strip()))
        return None if right else "its token is not that of the configuration"
