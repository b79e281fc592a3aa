"""The files of systemd-networkd that settings become."""

from __future__ import annotations

from pathlib import Path

from pacs.machine.networkd import Card, cards, render

CARDS = [Card("ens3", "52:54:00:00:00:01"), Card("ens4", "52:54:00:00:00:02")]
STATIC = {"network": "static", "address": "192.0.2.10/24", "gateway": "192.0.2.1"}


def section(text: str, name: str) -> list[str]:
    """The lines of a section."""
    return text.split(f"[{name}]\n")[1].split("\n\n")[0].splitlines()


def test_nothing_set_renders_nothing() -> None:
    assert render({}, CARDS) == {}
    assert render({"network": "dhcp", "ipv6": "auto"}, CARDS) == {}


def test_static_on_the_only_card_knows_it_by_its_type() -> None:
    files = render({**STATIC, "dns": "192.0.2.53 192.0.2.54", "search_domains": "hospital.example"}, CARDS[:1])
    text = files.pop("07-pacs-first.network")
    assert files == {}
    assert section(text, "Match") == ["Type=ether"]
    lines = section(text, "Network")
    assert {"DHCP=ipv6", "Address=192.0.2.10/24", "Gateway=192.0.2.1", "DNS=192.0.2.54"} <= set(lines)
    assert "Domains=hospital.example" in lines
    assert "[DHCPv4]" not in text
    assert section(text, "IPv6AcceptRA") == ["UseDNS=no"]


def test_without_ipv6_there_is_not_even_a_link_local_address() -> None:
    lines = section(render({"ipv6": "off"}, CARDS[:1])["07-pacs-first.network"], "Network")
    assert lines == ["DHCP=ipv4", "IPv6AcceptRA=no", "LinkLocalAddressing=no"]


def test_static_ipv6() -> None:
    net = {"ipv6": "static", "ipv6_address": "2001:db8::10/64", "ipv6_gateway": "fe80::1"}
    lines = section(render(net, CARDS[:1])["07-pacs-first.network"], "Network")
    assert {"DHCP=ipv4", "IPv6AcceptRA=no", "Address=2001:db8::10/64", "Gateway=fe80::1"} <= set(lines)


def test_a_vlan_has_the_address_and_the_card_none() -> None:
    files = render({**STATIC, "vlan": "120"}, CARDS[:1])
    assert section(files["05-pacs-vlan.netdev"], "VLAN") == ["Id=120"]
    assert section(files["06-pacs-vlan.network"], "Match") == ["Name=pacs-vlan"]
    assert "Address=192.0.2.10/24" in files["06-pacs-vlan.network"]
    assert "Address=" not in files["07-pacs-first.network"]
    assert "VLAN=pacs-vlan" in files["07-pacs-first.network"]


def test_two_cards_are_told_apart_by_their_hardware_addresses() -> None:
    net = {**STATIC, "second_address": "198.51.100.5/24"}
    net["routes"] = "10.0.0.0/8 via 198.51.100.1, 10.9.0.0/16 via 192.0.2.254"
    files = render(net, CARDS)
    first, second = files["07-pacs-first.network"], files["08-pacs-second.network"]
    assert section(first, "Match") == ["Type=ether", "MACAddress=52:54:00:00:00:01"]
    assert section(second, "Match") == ["Type=ether", "MACAddress=52:54:00:00:00:02"]
    assert section(first, "Route") == ["Destination=10.9.0.0/16", "Gateway=192.0.2.254"]
    assert section(second, "Route") == ["Destination=10.0.0.0/8", "Gateway=198.51.100.1"]


def test_named_cards_stand_above_their_order() -> None:
    net = {**STATIC, "card": CARDS[1].mac, "second_address": "dhcp"}
    files = render(net, CARDS)
    assert "MACAddress=52:54:00:00:00:02" in files["07-pacs-first.network"]
    assert "MACAddress=52:54:00:00:00:01" in files["08-pacs-second.network"]
    assert "UseGateway=no" in section(files["08-pacs-second.network"], "DHCPv4")


def test_a_second_card_that_is_not_there_has_no_file() -> None:
    assert "08-pacs-second.network" not in render({**STATIC, "second_address": "dhcp"}, CARDS[:1])


def test_cards_are_ethernet_in_the_order_of_their_names(tmp_path: Path) -> None:
    def link(name: str, kind: str = "1", uevent: str = "INTERFACE=x\n") -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "type").write_text(f"{kind}\n")
        (tmp_path / name / "uevent").write_text(uevent)
        (tmp_path / name / "address").write_text(f"52:54:00:00:00:{len(name):02x}\n")

    link("lo", "772")
    link("ens192")
    link("ens33")
    link("pacs-vlan", uevent="DEVTYPE=vlan\nINTERFACE=pacs-vlan\n")
    link("wg0", "65534", "DEVTYPE=wireguard\n")
    assert [card.name for card in cards(tmp_path)] == ["ens33", "ens192"]
