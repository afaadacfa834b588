"""Signatures of requests by Standard Webhooks (https://www.standardwebhooks.com, version 1 of its specification).

A receiver knows by the signature who sent a message, and by its id that the same message came again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from datetime import datetime

from engine.plugin import BadSetting, Secret

PREFIX = "whsec_"
SHORTEST_KEY_BYTES = 24
"""The least that the specification asks for: 192 bits."""

SIGNED_HEADERS = frozenset({"webhook-id", "webhook-timestamp", "webhook-signature"})


class Signer:
    """Signs messages with a secret; raises BadSetting for `field`, where it can't be one.

    `whsec_…` is the key in base64, as the specification writes it. Any other text is the key itself, as UTF-8.
    """

    __slots__ = ("_key",)

    def __init__(self, secret: Secret, field: str) -> None:
        text = secret.reveal().strip()
        hint = "such as `whsec_` and 32 random bytes in base64"
        if text.startswith(PREFIX):
            try:
                key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
            except (binascii.Error, ValueError):
                raise BadSetting(field, f"begins with {PREFIX}, but what follows is no base64", hint) from None
        else:
            key = text.encode("utf-8", "surrogatepass")
        if len(key) < SHORTEST_KEY_BYTES:
            raise BadSetting(field, f"is shorter than {SHORTEST_KEY_BYTES} bytes, which can be guessed", hint)
        self._key = key

    def headers(self, message_id: str, at: datetime, body: bytes) -> dict[str, str]:
        """Return the headers that sign a body. `message_id` is the same when a message is sent again; `at` is now."""
        stamp = str(int(at.timestamp()))
        content = b".".join([message_id.encode(), stamp.encode(), body])
        mac = base64.b64encode(hmac.new(self._key, content, hashlib.sha256).digest()).decode()
        return {"webhook-id": message_id, "webhook-timestamp": stamp, "webhook-signature": f"v1,{mac}"}
