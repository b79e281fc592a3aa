"""Remote access by WireGuard: the appliance dials out to one endpoint, and takes in what a setting names.

Nothing is listened for: the far side reaches the appliance because that calls, and calls again every 25 seconds. The
private key is made here and stays on the state volume, out of every backup, so that a restored copy does not dial as
this machine. A far side's key that is made here is shown once, and never written down.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pacs.errors import UsageError
from pacs.machine.commands import output, run
from pacs.machine.firewall_policy import Tunnel
from pacs.machine.kept_settings import folder_of
from pacs.storage import durable

INTERFACE = "pacs-remote"
#: The rows of machine_settings.
PEER, ENDPOINT, ADDRESS, NETWORKS, OPEN = (
    f"wireguard_{word}" for word in ("peer", "endpoint", "address", "networks", "open")
)
_KEEPALIVE_S = 25
#: Without a handshake for so long, the far side may be at another address by now.
_STALE_S = 180
_MTU = 1420
_PORTS = {"ssh": (22,), "https": (80, 443)}


@dataclass(frozen=True)
class Remote:
    """The tunnel. networks: whose packets it takes, and where answers go to."""

    peer: str
    endpoint: str
    address: str
    networks: tuple[str, ...]

    @property
    def configuration(self) -> str:
        """For `wg syncconf`, without our key."""
        return (
            f"[Peer]\nPublicKey = {self.peer}\nEndpoint = {self.endpoint}\n"
            f"AllowedIPs = {', '.join(self.networks)}\nPersistentKeepalive = {_KEEPALIVE_S}\n"
        )


def wanted(values: Mapping[str, str]) -> Remote | None:
    """The tunnel that the settings ask for; None if it is off. Raise UsageError if they are not whole."""
    if not values[PEER] and not values[ENDPOINT]:
        return None
    missing = [name for name in (PEER, ENDPOINT, ADDRESS, NETWORKS) if not values[name]]
    if missing:
        raise UsageError(
            f"Remote access waits for: {', '.join(missing)}. Set them (sudo pacs machine set), or see `pacs remote "
            "new-peer`; `pacs remote off` ends it."
        )
    return Remote(values[PEER], values[ENDPOINT], values[ADDRESS], tuple(values[NETWORKS].split()))


def tunnel_of(values: Mapping[str, str], dicom_ports: tuple[int, ...]) -> Tunnel | None:
    """What the firewall takes in through the tunnel; None without one."""
    if not values[PEER] or not values[ENDPOINT]:
        return None
    words = values[OPEN].split("+")
    ports = {port for word in words for port in (dicom_ports if word == "dicom" else _PORTS[word])}
    return Tunnel(INTERFACE, tuple(sorted(ports)))


def endpoint_of(values: Mapping[str, str]) -> tuple[str, int] | None:
    """Whom the appliance calls: host and port (UDP)."""
    if not values[PEER] or not values[ENDPOINT]:
        return None
    host, _, port = values[ENDPOINT].rpartition(":")
    return host.strip("[]"), int(port)


def own_key(state: Path) -> str:
    """The private key; made if there is none."""
    path = folder_of(state) / "remote.key"
    if not path.exists():
        durable.make_folders(path.parent)
        durable.replace_file(path, f"{output('wg', 'genkey')}\n".encode(), 0o600)
    return path.read_text("ascii").strip()


def public_key(private: str) -> str:
    """What the other side must know of a key."""
    return run("wg", "pubkey", given=f"{private}\n").stdout.strip()


def up(remote: Remote, private: str) -> bool:
    """Have the tunnel as it is to be; what is so already is left alone. Whether it was made now.

    Raise UsageError if its networks are ones that this machine is in: it would cut itself off.
    """
    _require_apart(remote)
    is_new = not _is_there()
    if is_new:
        run("ip", "link", "add", INTERFACE, "mtu", str(_MTU), "type", "wireguard")
    key = f"[Interface]\nPrivateKey = {private}\n"
    if is_new or _is_other(remote, private) or _is_stale():  # with a name, this looks its address up anew
        run("wg", "syncconf", INTERFACE, "/dev/stdin", given=key + remote.configuration)
    run("ip", "address", "replace", _alone(remote.address), "dev", INTERFACE)
    for each in _addresses():
        if each != _alone(remote.address):
            run("ip", "address", "del", each, "dev", INTERFACE)
    run("ip", "link", "set", INTERFACE, "up")
    for network in remote.networks:
        run("ip", "route", "replace", network, "dev", INTERFACE)
    return is_new


def down() -> bool:
    """Have no tunnel. Whether there was one."""
    if not _is_there():
        return False
    run("ip", "link", "del", INTERFACE)
    return True


def last_handshake_s() -> float | None:
    """How long ago the far side answered [s]; None if it never did, or there is no tunnel."""
    if not _is_there():
        return None
    stamps = [int(line.split()[1]) for line in output("wg", "show", INTERFACE, "latest-handshakes").splitlines()]
    return time.time() - stamps[0] if stamps and stamps[0] else None


def for_far_side(private: str, port: int, own_public: str, own_address: str, address: str) -> str:
    """The configuration of a far side that is made here: it listens, and the appliance dials."""
    return (
        f"[Interface]\nPrivateKey = {private}\nAddress = {address}\nListenPort = {port}\n\n"
        f"[Peer]\nPublicKey = {own_public}\nAllowedIPs = {_alone(own_address)}\n"
    )


def neighbour(address: str) -> str:
    """Another address of a tunnel's network, for its far side. Raise UsageError if there is no room for one."""
    interface = ipaddress.ip_interface(address)
    for found in interface.network.hosts():
        if found != interface.ip:
            return f"{found}/{interface.network.prefixlen}"
    raise UsageError(f"wireguard_address: {address} leaves no address for the far side. Take one as 10.98.76.2/24.")


def as_picture(text: str) -> str:
    """A QR code for a terminal."""
    return run("qrencode", "--type=ANSIUTF8", "--output=-", given=text).stdout


def _alone(address: str) -> str:
    """An address without its network: that is reached by routes, and is not this machine's own subnet."""
    found = ipaddress.ip_interface(address).ip
    return f"{found}/{found.max_prefixlen}"


def _is_there() -> bool:
    return run("ip", "link", "show", INTERFACE, accept=range(256)).returncode == 0


def _is_other(remote: Remote, private: str) -> bool:
    """Whether the tunnel has another key or another far side than it should have."""
    shown = output("wg", "show", INTERFACE, "dump").splitlines()
    if len(shown) != 2 or shown[0].split("\t")[0] != private:
        return True
    peer, _, endpoint, networks = shown[1].split("\t")[:4]
    host, _, port = remote.endpoint.rpartition(":")
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host.strip("[]"))
        if endpoint != f"{host}:{port}":
            return True
    return peer != remote.peer or set(networks.split(",")) != set(remote.networks)


def _is_stale() -> bool:
    ago_s = last_handshake_s()
    return ago_s is None or ago_s > _STALE_S


def _addresses() -> list[str]:
    shown = json.loads(output("ip", "-json", "address", "show", "dev", INTERFACE))
    every = (one for each in shown for one in each.get("addr_info", ()))
    return [f"{one['local']}/{one['prefixlen']}" for one in every if one["scope"] == "global"]


def _require_apart(remote: Remote) -> None:
    from pacs.machine.firewall import own_subnets

    for own in own_subnets():
        subnet = ipaddress.ip_interface(own).network
        for network in map(ipaddress.ip_network, remote.networks):
            if subnet.version == network.version and subnet.overlaps(network) and not subnet.is_link_local:
                raise UsageError(
                    f"{NETWORKS}: {network} and {subnet}, which this machine is in, overlap: its answers to neighbours "
                    "would go into the tunnel. Name the far side's addresses alone, or give it others."
                )
