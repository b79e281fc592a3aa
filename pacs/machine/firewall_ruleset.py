"""The firewall's openings as an nftables ruleset: one table, replaced in one transaction. Pure.

docs/reference/ports.md tells of every line of it, and a test scans it from a namespace. The table that is in force
before this one, from the first moment of a boot, is /etc/nftables.conf (role firewall).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pacs.machine.firewall_policy import Openings, Tunnel

TABLE = "pacs"
#: The sets whose elements are given; the others' come and go with connections.
SETS = ("clinical4", "clinical6", "administrators4", "administrators6", "calls4", "calls6")
#: What a site adds, into the chains `services` (in) and `destinations` (out).
SITE_FILES = "/etc/nftables.d/*.nft"
#: A service: connections at once from one address, new ones a second from one address, and how many at a stroke.
_HTTP, _SSH = (512, 200, 400), (64, 10, 60)
#: An archive's gateway may open an association for each object: more than a receiver takes a second, so that the wall
#: is not what slows it down.
_DICOM_PER_S, _DICOM_AT_ONCE = 100, 400


@dataclass(frozen=True)
class Users:
    """Numbers of the users that call by themselves; None where a system has no such user."""

    resolver: int | None = None
    clock: int | None = None
    service: int | None = None


def render(openings: Openings, users: Users, sessions: Sequence[str] = ()) -> str:
    """The ruleset, for `nft -f`. sessions: cgroups of administrators' sessions, which may call anywhere."""
    lines = [f"table inet {TABLE}", f"delete table inet {TABLE}", f"table inet {TABLE} {{"]
    lines += _address_sets("clinical", openings.dicom_from) + _address_sets("administrators", openings.ssh_from)
    lines += _call_sets(openings)
    limits = {"dicom": (openings.connections_max, _DICOM_PER_S, _DICOM_AT_ONCE), "http": _HTTP, "ssh": _SSH}
    for name, (connections, per_second, burst) in limits.items():
        lines += _limited(name, connections, per_second, burst)
    lines += [*_input(openings), *_output(openings, users, sessions)]
    lines += ["\tchain forward {", "\t\ttype filter hook forward priority filter; policy drop;", "\t}", "}"]
    return "\n".join(lines) + "\n"


def with_site_files(ruleset: str, pattern: str = SITE_FILES) -> str:
    """The ruleset with what the site has added."""
    return f'{ruleset}include "{pattern}"\n'


def _address_sets(name: str, networks: Iterable[str]) -> list[str]:
    every = list(networks)
    four, six = [each for each in every if ":" not in each], [each for each in every if ":" in each]
    return [
        *_set(f"{name}4", "type ipv4_addr; flags interval;", four),
        *_set(f"{name}6", "type ipv6_addr; flags interval;", six),
    ]


def _call_sets(openings: Openings) -> list[str]:
    four = [f"{each.address} . {each.protocol} . {each.port}" for each in openings.calls if ":" not in each.address]
    six = [f"{each.address} . {each.protocol} . {each.port}" for each in openings.calls if ":" in each.address]
    return [
        *_set("calls4", "type ipv4_addr . inet_proto . inet_service;", four),
        *_set("calls6", "type ipv6_addr . inet_proto . inet_service;", six),
    ]


def _set(name: str, of: str, elements: list[str]) -> list[str]:
    content = [f"\t\telements = {{ {', '.join(elements)} }}"] if elements else []
    return [f"\tset {name} {{", f"\t\t{of}", *content, "\t}"]


def _limited(name: str, connections: int, per_second: int, burst: int) -> list[str]:
    """For each family a chain that drops what one address has too much of, and accepts the rest."""
    lines = []
    for family, address in (("4", "ip saddr"), ("6", "ip6 saddr")):
        of = f"type ipv{family}_addr; size 65535;"
        lines += [f"\tset {name}_open{family} {{", f"\t\t{of} flags dynamic;", "\t}"]
        lines += [f"\tset {name}_new{family} {{", f"\t\t{of} flags dynamic,timeout; timeout 1m;", "\t}"]
        lines += [
            f"\tchain {name}{family} {{",
            f"\t\tadd @{name}_open{family} {{ {address} ct count over {connections} }} counter drop",
            f"\t\tupdate @{name}_new{family} {{ {address} limit rate over {per_second}/second burst {burst} packets }}"
            " counter drop",
            "\t\taccept",
            "\t}",
        ]
    return lines


def _input(openings: Openings) -> list[str]:
    dicom = f"tcp dport {{ {', '.join(map(str, openings.dicom_ports))} }}"
    rules = [
        "type filter hook input priority filter; policy drop;",
        "iif lo accept",
        "ct state vmap { established : accept, related : accept, invalid : drop }",
        "icmp type echo-request limit rate 20/second accept",
        "icmpv6 type echo-request limit rate 20/second accept",
        "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } ip6 hoplimit 255 accept",
        "icmpv6 type { mld-listener-query } ip6 saddr fe80::/10 accept",
        'udp sport 67 udp dport 68 accept comment "DHCP answers"',
        'ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept comment "DHCPv6 answers"',
        *_through(openings.tunnel),
        *(f"{dicom} ip saddr @clinical4 jump dicom4", f"{dicom} ip6 saddr @clinical6 jump dicom6"),
        *("tcp dport { 80, 443 } meta nfproto ipv4 jump http4", "tcp dport { 80, 443 } meta nfproto ipv6 jump http6"),
        *("tcp dport 22 ip saddr @administrators4 jump ssh4", "tcp dport 22 ip6 saddr @administrators6 jump ssh6"),
        "jump services",
        "counter",
    ]
    return [*_chain("services", []), *_chain("input", rules)]


def _through(tunnel: Tunnel | None) -> list[str]:
    """What comes through a tunnel ends here: the networks' rules are for those who are in them."""
    if tunnel is None:
        return []
    ports = ", ".join(map(str, tunnel.ports))
    way_in = f'iifname "{tunnel.interface}" tcp dport {{ {ports} }} accept comment "remote access"'
    return [*([way_in] if ports else []), f'iifname "{tunnel.interface}" counter drop']


def _output(openings: Openings, users: Users, sessions: Sequence[str]) -> list[str]:
    rules = [
        "type filter hook output priority filter; policy drop;",
        "oif lo accept",
        "ct state vmap { established : accept, related : accept }",
        "icmp type echo-request accept",
        "icmpv6 type { echo-request, nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } accept",
        "icmpv6 type { mld-listener-report, mld-listener-done, mld2-listener-report } accept",
        'udp sport 68 udp dport 67 accept comment "DHCP"',
        'udp sport 546 udp dport 547 accept comment "DHCPv6"',
        *_by_user(users.resolver, "meta l4proto { tcp, udp } th dport 53", "names"),
        *_by_user(users.clock, "udp dport 123", "time"),
        *_by_user(users.clock, "tcp dport 4460", "time, with proof (NTS)"),
        "ip daddr . meta l4proto . th dport @calls4 accept",
        "ip6 daddr . meta l4proto . th dport @calls6 accept",
    ]
    if openings.anywhere:
        ports = ", ".join(map(str, openings.anywhere))
        rules += _by_user(users.service, f"tcp dport {{ {ports} }}", "places in the cloud")
    rules += [
        f'meta l4proto tcp socket cgroupv2 level {cgroup.count("/") + 1} "{cgroup}" accept comment "sessions"'
        for cgroup in sessions
    ]
    rules += [
        "jump destinations",
        'limit rate 6/minute burst 6 packets log prefix "firewall, refused to call: " flags skuid',
        "counter reject with icmpx admin-prohibited",
    ]
    return [*_chain("destinations", []), *_chain("output", rules)]


def _by_user(uid: int | None, what: str, why: str) -> list[str]:
    return [] if uid is None else [f'meta skuid {uid} {what} accept comment "{why}"']


def _chain(name: str, rules: list[str]) -> list[str]:
    return [f"\tchain {name} {{", *(f"\t\t{rule}" for rule in rules), "\t}"]
