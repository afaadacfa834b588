"""Who a reverse proxy says is asking: `[http] trusted_header`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta, Struct

from engine.networks import Networks
from engine.plugin.settings import BadSetting
from engine.tokens import ROLES, Role

ANYBODY = "*"

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}\Z")
_TAKEN = frozenset({
    "authorization", "x-api-key", "cookie", "host", "origin", "content-type", "content-length", "connection",
    "transfer-encoding", "x-forwarded-for", "x-request-id",
})  # fmt: skip

HostName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]{0,252}$")]
RoleWord = Literal["viewer", "operator", "admin"]


class TrustedHeaderTable(Struct, frozen=True, kw_only=True):
    """A header in which a reverse proxy, which has people sign in, says who asks."""

    name: Annotated[
        str, Meta(description="The header, such as `X-Remote-User`. The proxy has to remove what others send in it.")
    ]
    networks: Annotated[
        tuple[str, ...],
        Meta(min_length=1, description="Networks of such proxies: who is connected from elsewhere is not believed."),
    ]
    roles: Annotated[
        dict[str, RoleWord],
        Meta(description='The role of each user; `"*"` is anybody else. Who is not named gets nothing.'),
    ]

    def __post_init__(self) -> None:
        if _NAME.match(self.name) is None or self.name.lower() in _TAKEN:
            raise BadSetting(
                "name", f'is "{self.name}", which can\'t be', 'name a header of its own, such as "X-Remote-User"'
            )
        if not self.roles:
            raise BadSetting("roles", "is empty, so that nobody could do anything", 'write roles = { ada = "admin" }')
        try:
            Networks(self.networks)
        except ValueError as error:
            raise BadSetting("networks", str(error)) from None

    def trusted(self) -> TrustedHeader:
        """Return it as the listener knows it."""
        roles = {user: ROLES[word] for user, word in self.roles.items()}
        return TrustedHeader(name=self.name, networks=Networks(self.networks), roles=roles)


class TrustedHeader(Struct, frozen=True, kw_only=True):
    """A header that is believed from these networks, and what users may do."""

    name: str
    networks: Networks
    roles: Mapping[str, Role]

    def role_of(self, user: str) -> Role | None:
        """Return what a user may do, or None for nothing."""
        return self.roles.get(user) or self.roles.get(ANYBODY)
