"""The network's settings as files of systemd-networkd. Pure: what they say is decided here, and nothing is done.

Nothing set renders nothing: then 10-ethernet.network serves every card, by DHCP. Files of ours are named *-pacs-*, and
stand before it. Cards are found by type, or by the hardware address where there are two or one is named: names change
from one hypervisor to the next.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pacs.machine.machine_settings import network_of

VLAN = "pacs-vlan"
PATTERN = "*-pacs-*"
_ETHERNET = "1"  # linux/if_arp.h, ARPHRD_ETHER
_HEAD = "# Written by `pacs machine`: change the settings instead.\n"


@dataclass(frozen=True)
class Card:
    """A network card: its name at this boot, and its hardware address."""

    name: str
    mac: str


def cards(folder: Path = Path("/sys/class/net")) -> list[Card]:
    """This machine's Ethernet cards, in the order of their names; nothing that is made on top of one."""
    found = []
    for path in folder.iterdir():
        try:
            is_card = (path / "type").read_text().strip() == _ETHERNET and not (path / "tun_flags").exists()
            if is_card and "DEVTYPE=" not in (path / "uevent").read_text():
                found.append(Card(path.name, (path / "address").read_text().strip().lower()))
        except OSError:  # it has gone meanwhile
            continue
    return sorted(found, key=lambda card: [int(part) if part.isdigit() else part for part in _split(card.name)])


def _split(name: str) -> list[str]:
    return re.split(r"(?<=\D)(?=\d)|(?<=\d)(?=\D)", name)


def render(settings: Mapping[str, str], found: Sequence[Card]) -> dict[str, str]:
    """Name to text of each file, for these settings on these cards. Empty if nothing is set."""
    net = network_of(settings)
    if net == network_of({}):
        return {}
    first = net["card"] or (found[0].mac if found and (net["second_address"] or len(found) > 1) else "")
    files = {}
    if net["vlan"]:
        files["05-pacs-vlan.netdev"] = _section("NetDev", f"Name={VLAN}", "Kind=vlan") + _section(
            "VLAN", f"Id={net['vlan']}"
        )
        files["06-pacs-vlan.network"] = _section("Match", f"Name={VLAN}") + _first(net)
        files["07-pacs-first.network"] = _match(first) + _section(
            "Network", f"VLAN={VLAN}", "LinkLocalAddressing=no", "IPv6AcceptRA=no"
        )
    else:
        files["07-pacs-first.network"] = _match(first) + _first(net)
    if net["second_address"]:
        second = net["second_card"] or next((card.mac for card in found if card.mac != first), "")
        if second:  # a card that is not there yet gets its file at the next start
            files["08-pacs-second.network"] = _match(second) + _second(net)
    return {name: _HEAD + text for name, text in files.items()}


def _section(name: str, *lines: str) -> str:
    return "".join(f"{line}\n" for line in (f"[{name}]", *lines)) + "\n"


def _match(mac: str) -> str:
    return _section("Match", "Type=ether", *([f"MACAddress={mac}"] if mac else []))


def _first(net: Mapping[str, str]) -> str:
    dhcp4, auto6 = net["network"] == "dhcp", net["ipv6"] == "auto"
    dhcp = {(True, True): "yes", (True, False): "ipv4", (False, True): "ipv6", (False, False): "no"}[dhcp4, auto6]
    lines = [f"DHCP={dhcp}", f"IPv6AcceptRA={'yes' if auto6 else 'no'}"]
    lines += [f"LinkLocalAddressing={'no' if net['ipv6'] == 'off' else 'ipv6'}"]
    if not dhcp4:
        lines += [f"Address={net['address']}", *([f"Gateway={net['gateway']}"] if net["gateway"] else [])]
    if net["ipv6"] == "static":
        lines += [f"Address={net['ipv6_address']}"]
        lines += [f"Gateway={net['ipv6_gateway']}"] if net["ipv6_gateway"] else []
    lines += [f"DNS={server}" for server in net["dns"].split()]
    lines += [f"Domains={net['search_domains']}"] if net["search_domains"] else []
    text = _section("Network", *lines)
    # Where name servers are named, those alone count: not also what a DHCP server says.
    own = ("UseDNS=no",) if net["dns"] else ()
    text += _section("DHCPv4", "ClientIdentifier=mac", *own) if dhcp4 else ""
    text += _section("DHCPv6", *own) + _section("IPv6AcceptRA", *own) if auto6 and own else ""
    return text + "".join(_route(route) for route in _routes(net) if not _is_second(net, route))


def _second(net: Mapping[str, str]) -> str:
    if net["second_address"] == "dhcp":  # one way out of the machine, and that is the first card
        text = _section("Network", "DHCP=ipv4", "LinkLocalAddressing=no", "IPv6AcceptRA=no")
        text += _section("DHCPv4", "ClientIdentifier=mac", "UseGateway=no", "UseDNS=no", "UseRoutes=no")
    else:
        text = _section("Network", f"Address={net['second_address']}", "LinkLocalAddressing=no", "IPv6AcceptRA=no")
    return text + "".join(_route(route) for route in _routes(net) if _is_second(net, route))


def _routes(net: Mapping[str, str]) -> list[str]:
    return [route for route in net["routes"].split(", ") if route]


def _route(route: str) -> str:
    network, gateway = route.split(" via ")
    return _section("Route", f"Destination={network}", f"Gateway={gateway}")


def _is_second(net: Mapping[str, str], route: str) -> bool:
    """Whether a route's gateway is in the second card's network."""
    if net["second_address"] in ("", "dhcp"):
        return False
    gateway = ipaddress.ip_address(route.split(" via ")[1])
    return gateway in ipaddress.ip_interface(net["second_address"]).network
