"""Addresses: one spelling each, and in which networks they are."""

from __future__ import annotations

import pytest

from pacs.model import addresses


@pytest.mark.parametrize(
    ("address", "one"),
    [
        ("192.0.2.17", "192.0.2.17"),
        ("::ffff:192.0.2.17", "192.0.2.17"),  # what a socket for IPv4 and IPv6 says of an IPv4 peer
        ("::FFFF:127.0.0.1", "127.0.0.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
    ],
)
def test_one_spelling(address: str, one: str) -> None:
    assert addresses.normalised(address) == one


def test_loopback_is_loopback_in_every_spelling() -> None:
    for address in ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"):
        assert addresses.is_loopback(address)
    for address in ("192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1"):
        assert not addresses.is_loopback(address)


def test_networks() -> None:
    assert addresses.network("192.0.2.17/24") == "192.0.2.0/24"
    assert addresses.network("192.0.2.17") == "192.0.2.17/32"
    assert addresses.is_in("::ffff:192.0.2.99", ["198.51.100.0/24", "192.0.2.0/24"])
    assert not addresses.is_in("192.0.3.1", ["192.0.2.0/24", "2001:db8::/32"])
    assert addresses.is_in("2001:db8::7", ["192.0.2.0/24", "2001:db8::/32"])
    assert not addresses.is_in("192.0.2.1", [])
    for wrong in ("192.0.2.0/33", "ct1.example", "", "192.0.2"):
        with pytest.raises(ValueError):
            addresses.network(wrong)


def test_what_can_be_a_host() -> None:
    for host in ("ct1", "ct1.example.org", "ct_1.klinik", "192.0.2.1", "::1", "CT-1.example.org."):
        assert addresses.is_host(host), host
    for host in ("", "10.0.0.256", "10.0.0", "ct 1", "ct1;reboot", "-x", "a" * 64, "ct1..example", "ü.example"):
        assert not addresses.is_host(host), host
