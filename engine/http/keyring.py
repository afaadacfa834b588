"""All tokens that open the API, by the digests of their secrets."""

from __future__ import annotations

from msgspec import Struct

from engine.http.tokens import AdminToken
from engine.tokens import ADMIN, Role


class Holder(Struct, frozen=True, kw_only=True):
    """Who has a secret, and what it opens; nothing where it has `expired`."""

    name: str
    role: Role
    tags: tuple[str, ...] = ()
    prefix: str = ""
    expired: bool = False


_ADMIN = Holder(name=ADMIN, role=Role.ADMIN)


class Keyring:
    """The tokens: the admin's own."""

    def __init__(self, admin: AdminToken) -> None:
        self._admin = admin

    def find(self, digest: bytes, address: str) -> Holder | None:
        """Return whose secret has a digest, or None; it was used from `address`."""
        return _ADMIN if self._admin.holds(digest) else None
