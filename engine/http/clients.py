"""Who a client is, as far as limits are concerned."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

MOST_KNOWN = 4096
_OF_ONE_HOST = 64


@lru_cache(MOST_KNOWN)
def counted_as(address: str) -> str:
    """Return the name by which an address is counted.

    Of IPv6 it is the first 64 bits, as one host has all the addresses below (RFC 6177); of an IPv4 address that is
    written as IPv6 the IPv4 address. What is no address is counted by its text.
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    if parsed.is_loopback:
        return str(parsed)
    return str(ipaddress.IPv6Network((int(parsed) >> _OF_ONE_HOST << _OF_ONE_HOST, _OF_ONE_HOST)))
