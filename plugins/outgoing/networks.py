"""Which addresses a request may go to: those of the public internet, and what the configuration opens besides.

The networks are those of IANA's registries of special-purpose addresses (RFC 6890), and the addresses at which
clouds tell a machine its credentials.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import NamedTuple

from engine.plugin import BadSetting

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_METADATA = "the metadata service of a cloud"
_V4 = (
    ("100.100.100.200/32", _METADATA, False),
    ("168.63.129.16/32", _METADATA, False),
    ("169.254.0.0/16", "a link-local address, where clouds have their metadata service", False),
    ("127.0.0.0/8", "a loopback address", True),
    ("10.0.0.0/8", "a private address", True),
    ("172.16.0.0/12", "a private address", True),
    ("192.168.0.0/16", "a private address", True),
    ("100.64.0.0/10", "a shared address of a provider's network", True),
    ("0.0.0.0/8", "an address of this host itself", False),
    ("192.0.0.0/24", "a reserved address", False),
    ("192.0.2.0/24", "an address for documentation", False),
    ("192.88.99.0/24", "a reserved address", False),
    ("198.18.0.0/15", "an address for benchmarks", False),
    ("198.51.100.0/24", "an address for documentation", False),
    ("203.0.113.0/24", "an address for documentation", False),
    ("224.0.0.0/4", "a multicast address", False),
    ("240.0.0.0/4", "a reserved address", False),
)
_V6 = (
    ("fd00:ec2::254/128", _METADATA, False),
    ("fd20:ce::254/128", _METADATA, False),
    ("::1/128", "a loopback address", True),
    ("fc00::/7", "a private address", True),
    ("fe80::/10", "a link-local address", False),
    ("ff00::/8", "a multicast address", False),
    ("2001::/23", "a reserved address", False),
    ("2001:db8::/32", "an address for documentation", False),
    ("2002::/16", "a 6to4 address, which hides another", False),
    ("3fff::/20", "an address for documentation", False),
)
_SPECIAL: tuple[tuple[Network, str, bool], ...] = tuple(
    (ipaddress.ip_network(text), words, private) for text, words, private in (*_V4, *_V6)
)
"""Networks that are not the public internet: what they are, and whether `allow_private = true` opens them."""

_PUBLIC_V6 = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")


class Reach(NamedTuple):
    """What may be connected to besides the public internet."""

    private: bool = False
    networks: tuple[Network, ...] = ()

    def refusal(self, address: str) -> str | None:
        """Say what an address is that no connection may be made to; return None where one may."""
        try:
            ip = _unwrapped(ipaddress.ip_address(address.partition("%")[0]))
        except ValueError:
            return "no address"
        if any(ip in network for network in self.networks):
            return None
        for network, words, private in _SPECIAL:
            if ip in network:
                return None if private and self.private else words
        if ip.version == 6 and ip not in _PUBLIC_V6:
            return "a reserved address"
        return None


def _unwrapped(ip: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for: `::ffff:127.0.0.1` (RFC 4291), NAT64 (RFC 6052)."""
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return ip.ipv4_mapped
        if ip in _NAT64:
            return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip


def read_reach(allowed: bool | Sequence[str]) -> Reach:
    """Read a setting `allow_private`; raise BadSetting for what is no network."""
    if isinstance(allowed, bool):
        return Reach(private=allowed)
    networks = []
    for index, text in enumerate(allowed):
        try:
            networks.append(ipaddress.ip_network(text))
        except ValueError as error:
            message = f"{text!r} is no network: {error}"
            raise BadSetting(f"allow_private[{index}]", message, 'such as "10.1.0.0/16" or "127.0.0.1"') from None
    return Reach(networks=tuple(networks))


def host_refusal(host: str, reach: Reach) -> str | None:
    """Say why a host can't be a target, as far as its name alone tells; return None where it may be one.

    Numbers that the system would take for an address (`127.1`, `0x7f000001`) are refused in any case.
    """
    name = host.rstrip(".").lower()
    if ":" in name or _is_canonical(name):
        words = reach.refusal(name)
        return None if words is None else f"{host} is {words}"
    if _NUMBER.fullmatch(name.rpartition(".")[2]):
        return f"{host} is neither a name nor an address in its usual form"
    if name == "localhost" or name.endswith(".localhost"):
        words = reach.refusal("127.0.0.1") and reach.refusal("::1")
        return None if words is None else f"{host} is {words}"
    return None


def _is_canonical(name: str) -> bool:
    try:
        return str(ipaddress.IPv4Address(name)) == name
    except ValueError:
        return False
