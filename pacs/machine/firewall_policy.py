"""What the appliance's firewall lets through: worked out of what settings and tables name. Pure.

In come DICOM from clinical networks and registered devices, SSH from administrators, HTTP. Out goes only what a
setting, a device, a repository, a volume, a share or the twin names. Whether a caller is a known device is for the
receiver to decide, which records those that are not; so the wall is no narrower than the networks, except where the
site wants it to be (registered_devices_only).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pacs.model.addresses import is_address, normalised

Protocol = Literal["tcp", "udp"]

#: RFC 1918, RFC 4193.
PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
#: Two receivers count connections each for itself, and say so when they refuse one: the wall is behind them.
_RECEIVERS = 2
_CONNECTIONS_BESIDE = 64


@dataclass(frozen=True)
class Destination:
    """What is called, and why. host: an address or a name. anywhere: its addresses change with every look-up."""

    what: str
    host: str
    port: int
    protocol: Protocol = "tcp"
    anywhere: bool = False


@dataclass(frozen=True)
class Named:
    """What one table or file names: whom we call, who calls us by DICOM (hosts, networks), who by SSH (hosts)."""

    calls: tuple[Destination, ...] = ()
    devices: tuple[str, ...] = ()
    ssh: tuple[str, ...] = ()

    @property
    def hosts(self) -> tuple[str, ...]:
        """Every host of it that is a name."""
        every = (*(each.host for each in self.calls), *self.devices, *self.ssh)
        return tuple(dict.fromkeys(each for each in every if not is_address(each) and "/" not in each))


@dataclass(frozen=True)
class Tunnel:
    """An interface through which only these ports (TCP) are reached, by whoever comes through it."""

    interface: str
    ports: tuple[int, ...]


@dataclass(frozen=True)
class Site:
    """What the settings say of networks, and this machine's own subnets."""

    clinical: tuple[str, ...]
    administrators: tuple[str, ...]
    own: tuple[str, ...] = ()
    registered_only: bool = False
    connections_per_address_max: int = 96
    dicom_ports: tuple[int, ...] = (104, 2762, 11112)
    tunnel: Tunnel | None = None


@dataclass(frozen=True)
class Call:
    """A destination with its address."""

    address: str
    port: int
    protocol: Protocol


@dataclass(frozen=True)
class Openings:
    """All that is open, in addresses. Networks are in order and do not overlap, so that equal ones look alike."""

    dicom_ports: tuple[int, ...]
    dicom_from: tuple[str, ...]
    ssh_from: tuple[str, ...]
    #: Connections at once from one address, for DICOM.
    connections_max: int
    calls: tuple[Call, ...]
    #: Ports (TCP) on which the service may call any address: of places in the cloud, whose addresses change.
    anywhere: tuple[int, ...] = ()
    tunnel: Tunnel | None = None


def openings(site: Site, named: Iterable[Named], addresses: Mapping[str, Collection[str]]) -> Openings:
    """What is to be open. addresses: of the names; one that is not in it opens nothing."""
    each_named = list(named)
    registered = [_in_addresses(host, addresses) for one in each_named for host in one.devices]
    devices = [network for found in registered for network in found]
    clinical = devices if site.registered_only else [*_networks(site.clinical, site.own), *devices]
    twins = [network for one in each_named for host in one.ssh for network in _in_addresses(host, addresses)]
    calls: set[Call] = set()
    anywhere: set[int] = set()
    for destination in (call for one in each_named for call in one.calls):
        found = _in_addresses(destination.host, addresses)
        if destination.anywhere and not is_address(destination.host) and not _all_private(found):
            anywhere.add(destination.port)
        else:
            calls.update(Call(address, destination.port, destination.protocol) for address in found)
    return Openings(
        dicom_ports=tuple(sorted(site.dicom_ports)),
        dicom_from=_collapsed(clinical),
        ssh_from=_collapsed([*_networks(site.administrators, site.own), *twins]),
        connections_max=_RECEIVERS * site.connections_per_address_max + _CONNECTIONS_BESIDE,
        calls=tuple(sorted(calls, key=lambda each: (each.protocol, _key(each.address), each.port))),
        anywhere=tuple(sorted(anywhere)),
        tunnel=site.tunnel,
    )


def _networks(words: Sequence[str], own: Sequence[str]) -> list[str]:
    meant = {"own": list(own), "private": [*PRIVATE, *own]}
    return [network for word in words for network in meant.get(word, [word])]


def _in_addresses(host: str, addresses: Mapping[str, Collection[str]]) -> list[str]:
    if "/" in host:
        return [host]
    return [normalised(host)] if is_address(host) else sorted(addresses.get(host, ()))


def _all_private(found: Sequence[str]) -> bool:
    return bool(found) and all(ipaddress.ip_address(each).is_private for each in found)


def _collapsed(networks: Iterable[str]) -> tuple[str, ...]:
    found = [ipaddress.ip_network(each, strict=False) for each in networks]
    four = ipaddress.collapse_addresses(each for each in found if isinstance(each, ipaddress.IPv4Network))
    six = ipaddress.collapse_addresses(each for each in found if isinstance(each, ipaddress.IPv6Network))
    return (*map(str, four), *map(str, six))


def _key(address: str) -> tuple[int, int]:
    found = ipaddress.ip_address(address)
    return found.version, int(found)
