"""The settings of the machine: one table. Seeds, OVF properties, `pacs machine set`, Ansible and the menu all read it.

A row more is a setting more: it stands in the menu, in the OVF and in docs/reference/machine-settings.md, is checked
the same in each way in, and is kept. What it does is told by its effect: `network` is rendered for systemd-networkd
and goes back unless it is confirmed, the others are in machine/applying.py and machine/archive_settings.py.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from pacs.errors import UsageError
from pacs.machine import firewall_values, update_sources
from pacs.machine import setting_values as values
from pacs.model import update_window


class Effect(StrEnum):
    """Where a setting takes effect; also where it is kept."""

    #: Of this machine: on the state volume, in machine/settings.toml, and not in a backup.
    NETWORK = "network"
    MACHINE = "machine"
    #: Of the archive: where its own commands keep it, and in every backup.
    ARCHIVE = "archive"


@dataclass(frozen=True)
class Setting:
    """A row. choices: all it may be; else parse says. many_lines: its text has several."""

    name: str
    page: str
    label: str
    meaning: str
    parse: values.Parse
    default: str = ""
    effect: Effect = Effect.MACHINE
    choices: tuple[str, ...] = ()
    many_lines: bool = False
    #: Never shown, and not asked for by OVF, whose properties can be read for ever.
    secret: bool = False


def _choice(
    name: str, page: str, label: str, meaning: str, choices: tuple[str, ...], effect: Effect = Effect.MACHINE
) -> Setting:
    return Setting(name, page, label, meaning, values.choice(*choices), choices[0], effect, choices)


NETWORK, NAMES, DICOM, MAIL, UPS, ACCESS = "Network", "Names, time, proxy", "DICOM", "Mail", "UPS", "Access"
FIREWALL, UPDATES = "Firewall", "Security updates"
ENCRYPTION, CERTIFICATES, REMOTE = "Encryption", "Certificates", "Remote access"
_NET, _MACHINE, _ARCHIVE = Effect.NETWORK, Effect.MACHINE, Effect.ARCHIVE

TABLE: tuple[Setting, ...] = (
    _choice("network", NETWORK, "IPv4", "Where the address comes from.", ("dhcp", "static"), _NET),
    Setting("address", NETWORK, "Address", "Static IPv4 address with its prefix length: 192.0.2.10/24.",
            values.interface(4), effect=_NET),
    Setting("gateway", NETWORK, "Gateway", "IPv4 gateway of the static address; empty: none.", values.address(4),
            effect=_NET),
    _choice("ipv6", NETWORK, "IPv6", "By router advertisement and DHCP, static, or none.", ("auto", "static", "off"),
            _NET),
    Setting("ipv6_address", NETWORK, "IPv6 address", "Static, with its prefix length: 2001:db8::10/64.",
            values.interface(6), effect=_NET),
    Setting("ipv6_gateway", NETWORK, "IPv6 gateway", "Gateway of the static IPv6 address; fe80:: ones too.",
            values.address(6), effect=_NET),
    Setting("vlan", NETWORK, "VLAN", "Number of the tagged VLAN (1 to 4094); empty: untagged.", values.vlan,
            effect=_NET),
    Setting("card", NETWORK, "Network card", "Hardware address of the first card; empty: the first one there is.",
            values.card, effect=_NET),
    Setting("second_address", NETWORK, "Second card", "Its address: dhcp, or 198.51.100.10/24; empty: not used.",
            values.second_address, effect=_NET),
    Setting("second_card", NETWORK, "Second card is", "Its hardware address; empty: the next one after the first.",
            values.card, effect=_NET),
    Setting("routes", NETWORK, "Routes", "Further ones: 10.20.0.0/16 via 192.0.2.254, parted by commas.",
            values.routes, effect=_NET),
    Setting("service_address", NETWORK, "Shared address",
            "That an archive and its standby have in turn, in the network of a card: 192.0.2.30/24; empty: none.",
            values.interface(4)),
    Setting("dns", NETWORK, "Name servers", "Addresses; empty: those that DHCP names.",
            values.each(values.any_address), effect=_NET),
    Setting("search_domains", NETWORK, "Search domains", "Domains that are added to short names.",
            values.each(values.host_name), effect=_NET),
    Setting("host_name", NAMES, "Host name", "With its domain, if it has one: pacs.hospital.example.",
            values.host_name),
    Setting("time_zone", NAMES, "Time zone", "Of this machine's times: Europe/Berlin.", values.time_zone, "UTC"),
    Setting("ntp", NAMES, "Time servers", "NTP servers: names or addresses.", values.each(values.server),
            "2.debian.pool.ntp.org"),
    Setting("proxy", NAMES, "HTTP proxy", "For what the appliance sends: http://proxy.hospital.example:3128.",
            values.proxy),
    Setting("own_ca", NAMES, "Own CA", "Certificates (PEM) that are trusted beside the public authorities.",
            values.certificates, many_lines=True),
    Setting("ae_title", DICOM, "AE title", "What modalities call this archive.", values.ae_title, "PACS", _ARCHIVE),
    Setting("dicom_ports", DICOM, "DICOM ports", "Without TLS; TLS is on 2762.", values.ports, "104 11112"),
    Setting("mail_server", MAIL, "Mail server", "Takes the alerts; empty: no mails.", values.server, "", _ARCHIVE),
    _choice("mail_tls", MAIL, "Encryption", "starttls (587), tls (465) or none (25).", ("starttls", "tls", "none"),
            _ARCHIVE),
    Setting("mail_port", MAIL, "Port", "Empty: the usual one.", values.port, "", _ARCHIVE),
    Setting("mail_from", MAIL, "From", "Sender of the mails.", values.mailbox, "", _ARCHIVE),
    Setting("mail_to", MAIL, "To", "Mailboxes of those who look after it.", values.each(values.mailbox), "", _ARCHIVE),
    Setting("mail_user", MAIL, "User", "For a mail server that wants one.", str.strip, "", _ARCHIVE),
    Setting("mail_password", MAIL, "Password", "Its password.", str.strip, "", _ARCHIVE, secret=True),
    _choice("ups", UPS, "UPS", "None, one at this machine (local), or one that another machine's NUT serves (remote).",
            ("none", "local", "remote")),
    Setting("ups_driver", UPS, "Driver and port", "Of a local one that is not found on USB: apcsmart /dev/ttyS0.",
            values.ups_driver),
    Setting("ups_server", UPS, "Served at", "Of a remote one: ups@nut.hospital.example, ups@192.0.2.5:3493.",
            values.ups_server),
    Setting("ups_user", UPS, "User", "Of a remote one: its name in that machine's upsd.users.", values.word),
    Setting("ups_password", UPS, "Password", "That user's password.", values.word, secret=True),
    Setting("ups_shutdown_charge", UPS, "Shut down at", "Charge of the battery [%] at which the machine shuts down.",
            values.percent(5, 95), "30"),
    _choice("display_menu", ACCESS, "Menu on the display",
            "Who may use it there: anybody until an administrator has a key, anybody always, or nobody.",
            ("until-set-up", "always", "never")),
    Setting("administrator_keys", ACCESS, "Administrators' keys", "Public keys of SSH for `admin`, one a line.",
            values.ssh_keys, "", _ARCHIVE, many_lines=True),
    Setting("clinical_networks", FIREWALL, "Clinical networks",
            "From where DICOM comes in, beside registered devices: 10.20.0.0/16; `own` is the appliance's own subnets, "
            "`private` all private addresses.", values.each(firewall_values.network), "own"),
    _choice("registered_devices_only", FIREWALL, "Registered devices only",
            "DICOM comes in from registered devices' addresses, and from nowhere else.", ("off", "on")),
    Setting("administrator_networks", FIREWALL, "Administrators' networks",
            "From where SSH comes in, written as the clinical ones are.", values.each(firewall_values.network),
            "own private"),
    Setting("outgoing", FIREWALL, "May call",
            "What the appliance may call beside all that is set up: host:port, host:port/udp.",
            values.each(firewall_values.destination)),
    _choice("administrators_call", FIREWALL, "Administrators call",
            "What an administrator runs in a session may call anywhere (TCP).", ("on", "off")),
    Setting("update_window", UPDATES, "Window",
            "When Debian's security updates are installed, and it restarts if it must: sun 02:00-04:00, or off.",
            update_window.parse, update_window.OFF),
    Setting("update_mirror", UPDATES, "Mirror",
            "Of Debian's security archive: http://mirror.hospital.example/debian-security; empty: Debian's own.",
            update_sources.mirror),
    _choice("encrypt_volumes", ENCRYPTION, "Encrypted volumes",
            "Opened at a start by the TPM, or each time by the key of the recovery sheet. Counts for volumes on which "
            "nothing is stored yet, from the next start.", ("off", "tpm", "sheet")),
    Setting("acme_directory", CERTIFICATES, "ACME server", "URL of its directory, as of Let's Encrypt or an own CA; "
            "empty: the appliance's own authority issues certificates.", values.directory),
    Setting("acme_mail", CERTIFICATES, "ACME mailbox", "Told by the ACME server of what goes wrong; may be empty.",
            values.mailbox),
    Setting("wireguard_peer", REMOTE, "Far side's key", "Its public key of WireGuard; empty: no remote access.",
            values.wireguard_key),
    Setting("wireguard_endpoint", REMOTE, "Endpoint", "Where the appliance dials it: vpn.example.com:51820.",
            values.endpoint),
    Setting("wireguard_address", REMOTE, "Own address", "In the tunnel, with its network: 10.98.76.2/24.",
            values.tunnel_address),
    Setting("wireguard_networks", REMOTE, "Far networks", "Who may come through the tunnel: 10.98.76.1/32.",
            values.each(values.far_network)),
    _choice("wireguard_open", REMOTE, "Open to them", "What they reach through the tunnel.",
            ("ssh+https", "ssh", "https", "ssh+https+dicom")),
)  # fmt: skip
SETTINGS = {row.name: row for row in TABLE}
PAGES = tuple(dict.fromkeys(row.page for row in TABLE))


def setting(name: str) -> Setting:
    """The row of that name. Raise UsageError if there is none."""
    try:
        return SETTINGS[name]
    except KeyError:
        raise UsageError(f"There is no setting {name!r}. `pacs machine list` shows all.") from None


def parse(name: str, text: str) -> str:
    """The value in the form that is kept; empty stays empty, and stands for the default. Raise UsageError."""
    row = setting(name)
    try:
        return row.parse(text) if text.strip() else ""
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from None


def parse_all(given: Mapping[str, str]) -> dict[str, str]:
    """All of them. Raise UsageError that names every fault, not the first."""
    parsed, faults = {}, []
    for name, text in given.items():
        try:
            parsed[name] = parse(name, text)
        except UsageError as error:
            faults.append(str(error))
    if faults:
        raise UsageError(" ".join(faults))
    return parsed


def network_of(found: Mapping[str, str]) -> dict[str, str]:
    """The network's rows of these values, with defaults."""
    return {row.name: found.get(row.name) or row.default for row in TABLE if row.effect is Effect.NETWORK}


def require_consistent(found: Mapping[str, str]) -> None:
    """Raise UsageError if values that are good each alone make no network together. found: every network row."""
    net = network_of(found)
    if net["network"] == "static" and not net["address"]:
        raise UsageError("network: a static network needs an address: address=192.0.2.10/24.")
    if net["ipv6"] == "static" and not net["ipv6_address"]:
        raise UsageError("ipv6: a static IPv6 network needs ipv6_address.")
    own = _own_networks(net)
    if net["network"] == "static" and net["gateway"]:
        _require_neighbour("gateway", net["gateway"], net["address"])
    gateway6 = net["ipv6_gateway"] if net["ipv6"] == "static" else ""
    if gateway6 and not ipaddress.ip_address(gateway6).is_link_local:
        _require_neighbour("ipv6_gateway", gateway6, net["ipv6_address"])
    if net["card"] and net["card"] == net["second_card"]:
        raise UsageError("second_card: it is the first card too. Name two, or leave both empty.")
    if len(own) > 1 and own[0].overlaps(own[1]):
        raise UsageError(f"second_address: both cards would be in {own[0]}. Give the second one a network of its own.")
    # What DHCP will give is not known: then a gateway may be anywhere.
    is_known = net["network"] == "static" and net["second_address"] != "dhcp"
    for route in filter(None, net["routes"].split(", ")):
        gateway = ipaddress.ip_address(route.split(" via ")[1])
        if is_known and gateway.version == 4 and not any(gateway in network for network in own):
            raise UsageError(f"routes: {gateway} is in no network of this machine, so it cannot be a gateway.")


def _own_networks(net: Mapping[str, str]) -> list[ipaddress.IPv4Network]:
    texts = [net["address"] if net["network"] == "static" else "", net["second_address"]]
    return [ipaddress.IPv4Interface(text).network for text in texts if text not in ("", "dhcp")]


def _require_neighbour(name: str, gateway: str, own: str) -> None:
    interface = ipaddress.ip_interface(own)
    if ipaddress.ip_address(gateway) not in interface.network:
        raise UsageError(f"{name}: {gateway} is not in {interface.network}, the network of {own}.")
    if ipaddress.ip_address(gateway) == interface.ip:
        raise UsageError(f"{name}: {gateway} is this machine's own address.")


def reference() -> str:
    """The table as Markdown, for docs/reference/machine-settings.md."""
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    for row in TABLE:
        meaning = row.meaning + (f" One of: {', '.join(row.choices)}." if row.choices else "")
        lines.append(f"| `{row.name}` | {f'`{row.default}`' if row.default else ''} | {meaning} |")
    return "\n".join(lines) + "\n"
