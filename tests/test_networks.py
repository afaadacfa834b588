"""Networks of addresses, and who asked where proxies stand between."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.networks import Networks, address_of, client_of, ip_in


@pytest.mark.parametrize(
    ("address", "network", "is_in"),
    [
        ("10.255.0.1", "10.0.0.0/8", True),
        ("11.0.0.1", "10.0.0.0/8", False),
        ("192.0.2.1", "192.0.2.1", True),
        ("::ffff:10.0.0.1", "10.0.0.0/8", True),
        ("2001:db8::1", "2001:db8::/32", True),
        ("fe80::1%eth0", "fe80::/10", True),
        ("10.0.0.1", "::/0", False),
        ("::1", "0.0.0.0/0", False),
        ("10.0.0", "0.0.0.0/0", False),
        ("010.0.0.1", "0.0.0.0/0", False),
        ("10.0.0.1/8", "10.0.0.0/8", False),
        ("", "0.0.0.0/0", False),
        ("é", "0.0.0.0/0", False),
        ("1" * 10_000, "0.0.0.0/0", False),
    ],
)
def test_an_address_is_in_a_network_or_not(address: str, network: str, is_in: bool) -> None:
    assert (address in Networks([network])) is is_in
    assert ip_in(address, network) is is_in
    assert ip_in(address, ["203.0.113.0/24", network]) is is_in


@pytest.mark.parametrize("value", [None, 7, 1.5, [], {}, b"10.0.0.1"])
def test_what_is_no_address_is_in_no_network(value: object) -> None:
    assert ip_in(value, "0.0.0.0/0") is False


@pytest.mark.parametrize(
    ("text", "says"),
    [("10.0.0.1/8", "'10.0.0.0/8' is the network"), ("here", "no network"), ("10.0.0.0/33", "no network"), ("", "no")],
)
def test_a_text_that_is_no_network_is_told(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Networks([text])


@given(st.ip_addresses(), st.text(max_size=60))
def test_every_address_is_its_own_network_and_no_text_is_a_fault(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, text: str
) -> None:
    known = address_of(str(address))
    assert known is not None
    assert str(known) in Networks([str(known)])
    assert isinstance(text in Networks(["0.0.0.0/0", "::/0"]), bool)


TRUSTED = Networks(["10.0.0.0/8", "127.0.0.1", "2001:db8:1::/48"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["198.51.100.7, 10.0.0.2"], "198.51.100.7"),
        ("10.0.0.1", ["198.51.100.7", "10.0.0.2"], "198.51.100.7"),
        # What a client wrote itself stands to the left of what the first trusted proxy added.
        ("10.0.0.1", ["1.1.1.1, 198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["10.9.9.9, 198.51.100.7, 10.0.0.2"], "198.51.100.7"),
        # Nobody believes a peer that is no proxy.
        ("198.51.100.9", ["10.0.0.1"], "198.51.100.9"),
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7, unknown, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7:4711"], "198.51.100.7"),
        ("10.0.0.1", ["[2001:db8::5]:4711"], "2001:db8::5"),
        ("10.0.0.1", ["2001:db8::5"], "2001:db8::5"),
        ("2001:db8:1::1", ["2001:db8::5"], "2001:db8::5"),
        ("::ffff:10.0.0.1", ["::ffff:198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("", ["198.51.100.7"], ""),
    ],
)
def test_who_asked_is_the_last_address_that_is_no_trusted_proxys(peer: str, forwarded: list[str], client: str) -> None:
    assert client_of(peer, forwarded, TRUSTED) == client
