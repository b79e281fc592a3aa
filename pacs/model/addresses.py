"""Network addresses: one spelling of each, and which network one is in. No look-up of names."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?", re.ASCII)


def normalised(address: str) -> str:
    """An address as it is compared and shown: no zone, and IPv4 as IPv4 where a socket for both says ::ffff:a.b.c.d."""
    found = ipaddress.ip_address(address.split("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


def is_address(text: str) -> bool:
    """Whether text is an address, not a name."""
    try:
        ipaddress.ip_address(text.split("%")[0])
    except ValueError:
        return False
    return True


def is_loopback(address: str) -> bool:
    """Whether an address is this machine's own."""
    return ipaddress.ip_address(normalised(address)).is_loopback


def is_host(text: str) -> bool:
    """Whether text is an address or can be a host's name (RFC 1123, and underscores, which sites use)."""
    if is_address(text):
        return True
    looks_numeric = re.fullmatch(r"[0-9.]+", text) is not None  # 10.0.0.256 is a slip, not a name
    return len(text) <= 253 and not looks_numeric and _HOST_NAME.fullmatch(text) is not None


def network(text: str) -> str:
    """A network in one spelling: 192.0.2.17/24 is 192.0.2.0/24, an address is a network of one. Raise ValueError."""
    return str(ipaddress.ip_network(text, strict=False))


def is_in(address: str, networks: Iterable[str]) -> bool:
    """Whether an address is in one of these networks (CIDR)."""
    found = ipaddress.ip_address(normalised(address))
    return any(found in ipaddress.ip_network(each) for each in networks)
