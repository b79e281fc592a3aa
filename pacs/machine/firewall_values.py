"""What the firewall's settings may be; as in setting_values, each function brings a text into one form."""

from __future__ import annotations

import ipaddress

from pacs.errors import UsageError
from pacs.machine.setting_values import port, server

#: Networks that only the machine knows: its own subnets, and all private addresses (RFC 1918, RFC 4193).
NETWORK_WORDS = ("own", "private")


def network(text: str) -> str:
    """A network by its prefix, or a word for some; an address alone is a network of one."""
    word = text.strip().lower()
    if word in NETWORK_WORDS:
        return word
    try:
        return str(ipaddress.ip_network(word, strict=False))
    except ValueError as error:
        raise UsageError(
            f"{text!r} is no network. Write it as 10.20.0.0/16, or `own` for the appliance's own subnets, `private` "
            "for all private addresses."
        ) from error


def destination(text: str) -> str:
    """HOST:PORT, or HOST:PORT/udp; an IPv6 address in brackets."""
    host, colon, rest = text.strip().rpartition(":")
    number_, _, protocol = rest.partition("/")
    if not colon or not host or protocol not in ("", "tcp", "udp") or (":" in host) != host.startswith("["):
        raise UsageError(f"{text!r} is no destination. Write it as host:port, [2001:db8::9]:port or host:port/udp.")
    name = server(host.removeprefix("[").removesuffix("]"))
    return f"{f'[{name}]' if ':' in name else name}:{port(number_)}{'/udp' if protocol == 'udp' else ''}"
