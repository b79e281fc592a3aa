"""The machine's own settings put into effect: name, time, proxy, CA, ports, UPS. The network is in network_change.py.

Idempotent: what is as it should be is not touched, and what reads it is not restarted. So it runs at every start, on
whatever system disk: the settings are on the state volume.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pacs.errors import UsageError
from pacs.machine import update_sources, ups
from pacs.machine.commands import MachineError, run
from pacs.machine.machine_settings import SETTINGS
from pacs.storage import durable

_BEGIN, _END = "# Begin: written by `pacs machine`", "# End: written by `pacs machine`"
#: Where the shared address is written down (pacs/machine/service_address.py).
SERVICE_ADDRESS = "etc/pacs/service-address"
_SERVICES = ("pacs-receiver@1.service", "pacs-receiver@2.service", "pacs-web.service", "pacs-worker.service")
_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
#: Names for what is served from this machine itself: no proxy is asked for it.
_NO_PROXY = "localhost,127.0.0.1,::1"

log = logging.getLogger(__name__)

Run = Callable[..., object]


@dataclass(frozen=True)
class System:
    """The system that is set. root: where its files are; run: its programs."""

    root: Path = Path("/")
    run: Run = run

    def path(self, name: str) -> Path:
        """A file of the system."""
        return self.root / name

    def have(self, name: str, text: str | None, mode: int = 0o644) -> bool:
        """Have a file with this text, or none; whether that was a change."""
        path = self.path(name)
        before = path.read_text("utf-8") if path.is_file() else None
        if before == text:
            return False
        if text is None:
            path.unlink()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            durable.replace_file(path, text.encode(), mode)
        return True


def apply(values: Mapping[str, str], system: System) -> list[str]:
    """Put the settings into effect. Return the names of what was changed."""
    steps: tuple[tuple[str, Callable[[Mapping[str, str], System], bool]], ...] = (
        ("host_name", _host_name),
        ("time_zone", _time_zone),
        ("ntp", _time_servers),
        ("own_ca", _own_ca),
        ("proxy", _environment),
        ("dicom_ports", _dicom_ports),
        ("update_mirror", _update_mirror),
        ("wireguard", _remote_access),
        ("acme_directory", _acme),
        ("service_address", _service_address),
        ("ups", _ups),
    )
    return [name for name, step in steps if step(values, system)]


def _host_name(values: Mapping[str, str], system: System) -> bool:
    if not values["host_name"]:  # then it is what the seed or the image says
        return False
    changed = system.have("etc/hostname", f"{values['host_name']}\n")
    running = system.path("proc/sys/kernel/hostname")
    if running.exists() and running.read_text().strip() != values["host_name"]:
        running.write_text(values["host_name"])
        changed = True
    return changed


def _time_zone(values: Mapping[str, str], system: System) -> bool:
    zone, link = values["time_zone"], system.path("etc/localtime")
    target = f"/usr/share/zoneinfo/{zone}"
    if link.is_symlink() and str(link.readlink()) == target:
        return False
    if zone == SETTINGS["time_zone"].default and not link.is_symlink():  # the image's own file is UTC
        return False
    link.parent.mkdir(parents=True, exist_ok=True)
    new = link.with_name(".localtime.pacs")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(link)
    system.have("etc/timezone", f"{zone}\n")
    return True


def _time_servers(values: Mapping[str, str], system: System) -> bool:
    servers = values["ntp"].split()
    # A name may stand for many servers: `pool` takes several of them.
    lines = [f"{'pool' if server == SETTINGS['ntp'].default else 'server'} {server} iburst\n" for server in servers]
    if not system.have("etc/chrony/sources.d/pacs.sources", "".join(lines)):
        return False
    system.run("chronyc", "reload", "sources", accept=range(256))  # before chrony's start it reads them anyway
    return True


def _own_ca(values: Mapping[str, str], system: System) -> bool:
    if not system.have("usr/local/share/ca-certificates/pacs-own.crt", values["own_ca"] or None):
        return False
    system.run("update-ca-certificates")
    return True


def _environment(values: Mapping[str, str], system: System) -> bool:
    """What every unit of ours and the command `pacs` read. A seed's own lines in that file stay."""
    lines = []
    if values["proxy"]:
        lines += [f"{name}={values['proxy']}" for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")]
        lines += [f"NO_PROXY={_NO_PROXY}", f"no_proxy={_NO_PROXY}"]
    if values["own_ca"]:
        # The libraries bring public authorities of their own; the system's bundle has those and ours.
        lines += [f"{name}={_BUNDLE}" for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")]
    if named := ups.named(values):
        lines.append(f"PACS_UPS='{json.dumps([named])}'")  # read by shells and by systemd
    path = system.path("etc/pacs/machine.env")
    before = path.read_text("utf-8") if path.exists() else ""
    head, _, rest = before.partition(f"{_BEGIN}\n")
    tail = rest.partition(f"{_END}\n")[2] if rest else ""
    block = "".join(f"{line}\n" for line in (_BEGIN, *lines, _END)) if lines else ""
    text = head + block + tail
    if text == before:
        return False
    system.have("etc/pacs/machine.env", text)
    system.run("systemctl", "--no-block", "try-restart", *_SERVICES)
    return True


def _service_address(values: Mapping[str, str], system: System) -> bool:
    """The unit reads it there, and runs only where there is one."""
    wanted = values["service_address"]
    if not system.have(SERVICE_ADDRESS, f"{wanted}\n" if wanted else None):
        return False
    system.run("systemctl", "--no-block", "restart" if wanted else "stop", "pacs-address.service")
    return True


def _dicom_ports(values: Mapping[str, str], system: System) -> bool:
    ports = values["dicom_ports"].split()
    text = None
    if values["dicom_ports"] != SETTINGS["dicom_ports"].default:
        text = "".join(f"{line}\n" for line in ("[Socket]", "ListenStream=", *(f"ListenStream={p}" for p in ports)))
    changed = system.have("etc/systemd/system/pacs-dicom.socket.d/ports.conf", text)
    if changed:
        system.run("systemctl", "daemon-reload")
        if _is_active("pacs-dicom.socket", system):
            # A socket cannot be restarted under the service that has it.
            system.run("systemctl", "stop", *_SERVICES[:2])
            system.run("systemctl", "restart", "pacs-dicom.socket")
            system.run("systemctl", "--no-block", "start", *_SERVICES[:2])
            # It asks the sockets which ports are to be open.
            system.run("systemctl", "--no-block", "restart", "pacs-firewall.service", accept=range(256))
    return changed


def _update_mirror(values: Mapping[str, str], system: System) -> bool:
    url = values["update_mirror"]
    release = system.path("etc/os-release")
    named = re.search(r"^VERSION_CODENAME=(\w+)$", release.read_text("utf-8") if release.exists() else "", re.M)
    if url and named is None:
        raise MachineError(f"{release} names no release of Debian: no mirror can be used. Leave update_mirror empty.")
    text = update_sources.mirror_list(url, named[1]) if url and named else None
    changed = system.have(update_sources.MIRROR_LIST, text)
    return system.have(update_sources.MIRROR_CONF, update_sources.mirror_conf() if text else None) or changed


def _remote_access(values: Mapping[str, str], system: System) -> bool:
    lines = [f"{name}={text}\n" for name, text in sorted(values.items()) if name.startswith("wireguard_")]
    is_on = bool(values["wireguard_peer"])
    if not system.have("run/pacs-machine/wireguard", "".join(lines) if is_on else None, 0o600):
        return False
    for unit in ("pacs-remote.service", "pacs-firewall.service"):
        system.run("systemctl", "--no-block", "restart", unit, accept=range(256))
    return True


def _acme(values: Mapping[str, str], system: System) -> bool:
    """Another ACME server is asked at once; without one, the own authority issues what is missing."""
    told = "".join(f"{values[name]}\n" for name in ("acme_directory", "acme_mail", "host_name"))
    if not system.have("run/pacs-machine/acme", told if values["acme_directory"] else None):
        return False
    system.run("systemctl", "--no-block", "restart", "pacs-certificates.service", accept=range(256))
    return True


def _ups(values: Mapping[str, str], system: System) -> bool:
    """NUT's configuration, and its services, which nothing else starts."""
    try:
        ups.require_whole(values)
    except UsageError as error:  # from a seed
        log.warning("%s", error)
        return False
    if not system.path("etc/nut").is_dir():  # as on a system that has no NUT
        return False
    users = system.path("etc/nut/upsd.users")
    found = ups.files(values, users.read_text("utf-8") if users.is_file() else "", ups.on_usb)
    changed = [name for name, text in found.items() if system.have(f"etc/nut/{name}", text, 0o640)]
    for name in changed:
        if found[name] is not None:  # its readers are NUT's
            system.run("chgrp", "nut", str(system.path(f"etc/nut/{name}")))
    wanted = ups.units(values)
    unwanted = [unit for unit in ups.UNITS if unit not in wanted and _is_active(unit, system)]
    if unwanted:
        system.run("systemctl", "stop", *unwanted)
    if wanted and (changed or not all(_is_active(unit, system) for unit in wanted)):
        system.run("systemctl", "--no-block", "restart", *wanted)
    return bool(changed)


def _is_active(unit: str, system: System) -> bool:
    answer = system.run("systemctl", "is-active", "--quiet", unit, accept=range(256))
    return getattr(answer, "returncode", 1) == 0
