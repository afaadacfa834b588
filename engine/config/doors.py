"""How much clients may take: the limits at the door of the listener."""

from __future__ import annotations

import re
from typing import Annotated

from msgspec import Meta, Struct

from engine.plugin.settings import BadSetting, Duration
from engine.triggers import Rate

LEAST_CONNECTIONS = 8
_RATE = re.compile(r"([1-9][0-9]{0,8}) ?/ ?(s|m|h)\Z")
_UNIT_S = {"s": 1.0, "m": 60.0, "h": 3600.0}


HeaderTimeout = Annotated[
    Duration, Meta(gt=0, description="A connection without a whole head of a request for so long is closed.")
]
BodyTimeout = Annotated[
    Duration, Meta(gt=0, description="So long may a body take, and a second more for every 16KiB that have come (408).")
]
KeepaliveTimeout = Annotated[
    Duration, Meta(gt=0, description="A connection on which nothing is asked for so long is closed.")
]
MostConnections = Annotated[
    int,
    Meta(
        ge=LEAST_CONNECTIONS,
        description="Connections at once; fewer where the limit of open files is lower. For one more, one that is slow "
        "or idle is closed.",
    ),
]
MostOfClient = Annotated[
    int,
    Meta(
        ge=1,
        description="Connections of one address (of IPv6: of one /64); of loopback and `trusted_proxies` 7/8 of all.",
    ),
]
RateLimit = Annotated[
    str,
    Meta(
        description='Requests of one client, such as `"100/s"` (or `/m`, `/h`); more are refused (429). A client is a '
        "valid token, else an address. `/live` and `/ready` are always answered."
    ),
]


class Doors(Struct, frozen=True, kw_only=True):
    """The limits at the door; `rate` None is no limit."""

    header_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    keepalive_timeout_s: float = 75.0
    max_connections: int = 4096
    max_connections_per_client: int = 256
    rate: Rate | None = None


def parse_quota(text: str) -> Rate | None:
    """Read how much a client may ask: `"100/s"`, of which all may come at once; None for `"none"`.

    Raises BadSetting for anything else.
    """
    if text == "none":
        return None
    match = _RATE.match(text)
    if match is None:
        raise BadSetting("rate_limit", f'is "{text}", no rate', 'write "100/s", "600/m", "1000/h" or "none"')
    return Rate(limit=int(match[1]), per_s=_UNIT_S[match[2]], burst=int(match[1]))
