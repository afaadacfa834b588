"""Networks of addresses: who is let in, and whose word on addresses counts."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

LONGEST_ADDRESS = 64

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Networks:
    """A set of networks, such as `10.0.0.0/8`, `2001:db8::/32` or a single address.

    Raises ValueError, in words, for a text that is none.
    """

    __slots__ = ("_networks", "texts")

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = tuple(texts)
        self._networks = tuple(map(_network, self.texts))

    def __contains__(self, address: str) -> bool:
        """Tell whether an address is in one of them; a text that is no address is in none."""
        found = address_of(address)
        return found is not None and any(found in network for network in self._networks)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Networks) and other._networks == self._networks

    def __hash__(self) -> int:
        return hash(self._networks)

    def __repr__(self) -> str:
        return f"Networks({', '.join(self.texts)})"


def address_of(text: str) -> Address | None:
    """Return an address as it counts: one of IPv4 that is written as one of IPv6 is the former; a zone is left out."""
    if len(text) > LONGEST_ADDRESS:
        return None
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def ip_in(address: Any, networks: str | list[str]) -> bool:
    """Tell whether an address is in a network, or in one of several; what is no address is in none."""
    texts = (networks,) if isinstance(networks, str) else tuple(networks)
    return isinstance(address, str) and address in _networks(texts)


def client_of(peer: str, forwarded: Iterable[str], trusted: Networks) -> str:
    """Return who asked, by what each proxy added to `X-Forwarded-For`: the last address that is no trusted proxy's.

    `peer` is who is connected, `forwarded` the header's values in their order. What an untrusted peer says counts for
    nothing, nor does anything to the left of an address that is none.
    """
    client = peer
    for hop in reversed([part.strip() for value in forwarded for part in value.split(",")]):
        if client not in trusted:
            break
        address = address_of(_without_port(hop))
        if address is None:
            break
        client = str(address)
    return client


def _without_port(hop: str) -> str:
    """Return the address of `address`, `v4:port`, `[v6]` or `[v6]:port`."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    host, separator, _ = hop.partition(":")
    return host if separator and hop.count(":") == 1 else hop


@lru_cache(maxsize=1024)
def _networks(texts: tuple[str, ...]) -> Networks:
    return Networks(texts)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is no network, such as '10.0.0.0/8' or '2001:db8::/32'") from None
    host, _, length = text.partition("/")
    if length and network.network_address != ipaddress.ip_address(host):
        raise ValueError(f"{text!r} is an address within a network; {str(network)!r} is the network")
    return network
