"""Tokens: who may ask for what, for how long, and within which tags.

A token is a secret of 256 random bits that somebody holds; the store keeps the digest of it alone. As the secret can't
be guessed, a plain SHA-256 is as good as a slow hash, and each request costs microseconds.
"""

from __future__ import annotations

import re
import secrets
from datetime import datetime
from enum import IntEnum
from hashlib import sha256

from msgspec import Struct

MARK = "te_"
"""How each token begins, so that scanners for leaked secrets know one."""

PREFIX = 8
"""So many characters of a token are shown: 30 of its 256 random bits."""

ADMIN = "admin"
"""The name of the token that the engine makes for itself; no other has it."""

LONGEST_DESCRIPTION = 1000
_TAG = re.compile(r"[^\x00-\x1f\x7f]{1,128}\Z")


class Role(IntEnum):
    """What a token may do; each role may do what those before it may."""

    VIEWER = 1
    OPERATOR = 2
    ADMIN = 3

    @property
    def word(self) -> str:
        """The role as it is written."""
        return self.name.lower()


ROLES = {role.word: role for role in Role}


class Former(Struct, frozen=True, kw_only=True):
    """The secret that a token had before it was rotated: it is valid until `until`."""

    digest: bytes
    prefix: str
    until: datetime


class Token(Struct, frozen=True, kw_only=True):
    """One token: its name and rights, and the digest of its secret.

    - `tags`: it sees and touches only what has one of these; empty: everything.
    - `expires_at`: None for never.
    - `used_at`, `used_from`: when and from which address it was used last, within a minute.
    """

    id: str
    name: str
    role: Role
    digest: bytes
    prefix: str
    created_at: datetime
    tags: tuple[str, ...] = ()
    description: str = ""
    created_by: str = ""
    former: Former | None = None
    rotated_at: datetime | None = None
    expires_at: datetime | None = None
    used_at: datetime | None = None
    used_from: str = ""

    def is_over(self, now: datetime) -> bool:
        """Tell whether it has expired."""
        return self.expires_at is not None and self.expires_at <= now


class TokenUse(Struct, frozen=True, kw_only=True):
    """When and from which address a token, by its id, was used last."""

    token: str
    at: datetime
    address: str


class Who(Struct, frozen=True, kw_only=True):
    """Who asks: as far as it is proved, and by which means.

    - `name`: of the token, or of the user that a trusted proxy names.
    - `tags`: the scope of its token; empty: everything.
    - `means`: `token`, `session` or `proxy`; `prefix` is how the token begins, where it is one that is kept.
    """

    name: str
    role: Role
    address: str
    means: str
    tags: tuple[str, ...] = ()
    prefix: str = ""

    def said(self) -> str:
        """Say who it is, in few words."""
        return self.name if self.means == "proxy" else f"{self.name} token"


FOR = ", for "
"""Between who asks and whom that is for, which is what the caller says and proves nothing."""


def proved(said: str) -> str:
    """Return who asked, of what was said of that, without whom it was for."""
    return said.partition(FOR)[0]


def new_secret() -> str:
    """Return a new token: 256 random bits."""
    return MARK + secrets.token_urlsafe(32)


def digest_of(secret: bytes) -> bytes:
    """Return what is kept of a secret."""
    return sha256(secret).digest()


def is_tag(text: str) -> bool:
    """Tell whether a text can be a tag."""
    return _TAG.match(text) is not None
