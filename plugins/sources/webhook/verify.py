"""How a request proves that it comes from the sender: what the settings say."""

from __future__ import annotations

import re
from typing import Literal

from msgspec import Struct

from engine.plugin import BadSetting, Secret
from plugins.sources.webhook.texts import to_unicode

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}\Z")


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


def check_verify(verify: Verify) -> None:
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
    if not text.isascii() and to_unicode(text) != text:
        raise BadSetting(field, "is not valid Unicode text")
