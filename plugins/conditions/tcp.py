"""A port that takes connections."""

from __future__ import annotations

import asyncio
import re
import socket
from typing import ClassVar

from engine.plugin import BadSetting, Condition, ConditionContext, Verdict
from plugins.outgoing.networks import Reach, host_refusal

_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^\s:\[\]/@]+)):(?P<port>\d{1,5})\Z", re.ASCII)
_EVERYTHING_BUT_METADATA = Reach(private=True)


class Tcp(Condition, frozen=True, kw_only=True):
    """Pass while a TCP port takes connections; nothing is sent.

    - `address`: `host:port`, or `[ipv6]:port`. Addresses at which clouds have their metadata are refused.
    """

    name: ClassVar[str] = "tcp"
    main: ClassVar[str | None] = "address"

    address: str

    def __post_init__(self) -> None:
        host, port = self.place()
        if not 0 < port < 65536:
            raise BadSetting("address", f"has the port {port}, which there can't be", "ports are 1 to 65535")
        if (refusal := host_refusal(host, _EVERYTHING_BUT_METADATA)) is not None:
            raise BadSetting("address", f"can't be connected to: {refusal}")

    def place(self) -> tuple[str, int]:
        """Return host and port; raise BadSetting where there are none."""
        match = _ADDRESS.match(self.address)
        if match is None:
            raise BadSetting("address", "is no host and port", 'such as "db.internal:5432" or "[::1]:5432"')
        return match["v6"] or match["host"], int(match["port"])

    async def check(self, context: ConditionContext) -> Verdict:
        host, port = self.place()
        begun_s = context.clock.monotonic()
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            return Verdict.holds(f"{host} can't be resolved: {error.strerror or error}")
        why = f"{host} has no address"
        for *_, place in found:
            address = str(place[0])
            # Resolved once: what was looked at is what is connected to.
            if (refusal := _EVERYTHING_BUT_METADATA.refusal(address)) is not None:
                why = f"{address} is {refusal}"
                continue
            try:
                _, writer = await asyncio.open_connection(address, port)
            except OSError as error:
                why = _said(error)
                continue
            writer.close()
            took_ms = round((context.clock.monotonic() - begun_s) * 1000, 1)
            return Verdict.passes(f"{self.address} takes connections", {"ms": took_ms})
        return Verdict.holds(why)


def _said(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return (error.strerror or str(error) or type(error).__name__).lower()
