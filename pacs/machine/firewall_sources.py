"""What names whom the appliance calls, and who calls it: settings, devices, volumes, repositories, shares, mails, twin,
vaults.

Each source is asked for itself. One that cannot be asked now (the database is away, a file is broken) says why, and
what it said last stays. The libraries that sources need are imported when they are asked: the firewall works, with
what is remembered, when they are broken.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from pacs.errors import PacsError
from pacs.machine.firewall_policy import Destination, Named, Site
from pacs.model.update_window import OFF

if TYPE_CHECKING:
    from pacs.machine.kept_settings import Kept
    from pacs.settings import Settings

log = logging.getLogger(__name__)

_NFS_PORT, _SMB_PORT, _SSH_PORT, _HTTPS_PORT, _HTTP_PORT = 2049, 445, 22, 443, 80


@dataclass
class Gathered:
    """What each source said, and why others could not be asked."""

    named: dict[str, Named] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    def ask(self, sources: Mapping[str, Callable[[], Named]]) -> None:
        """Ask sources by their names."""
        for name, source in sources.items():
            try:
                self.named[name] = source()
            except PacsError as error:
                self.problems[name] = str(error)
            except Exception as error:  # whatever is wrong with one must not close or open the others' ways
                log.exception("the firewall cannot ask %s", name)
                self.problems[name] = f"{type(error).__name__}: {error}"


def site_of(kept: Kept, connections_per_address_max: int, own: tuple[str, ...], dicom_ports: tuple[int, ...]) -> Site:
    """What the machine's settings say, and its own subnets and ports. The number: of one receiver."""
    return Site(
        clinical=tuple(kept.value("clinical_networks").split()),
        administrators=tuple(kept.value("administrator_networks").split()),
        own=own,
        registered_only=kept.value("registered_devices_only") == "on",
        connections_per_address_max=connections_per_address_max,
        dicom_ports=dicom_ports,
    )


def as_service(settings: Settings) -> dict[str, Callable[[], Named]]:
    """The sources that belong to the service's user; ask them as that user."""
    data = settings.data
    return {
        "index": lambda: _index(settings),
        "repositories": lambda: _repositories(data),
        "mail": lambda: _mail(data),
        "alerts": lambda: _alerts(data),
        "audit": lambda: _audit(settings),
        "standby": lambda: _twin(data),
        "vaults": lambda: _vaults(data),
    }


def as_root(volumes: Path, environment: Mapping[str, str], kept: Kept) -> dict[str, Callable[[], Named]]:
    """The sources that are root's. volumes: the folder of the mount points; environment: of the service."""
    return {
        "settings": lambda: of_setting(kept.value("outgoing").split()),
        "machine": lambda: _machine(kept),
        "updates": lambda: _updates(kept),
        "shares": lambda: _shares(volumes),
        "proxy": lambda: of_environment(environment),
        "ups": lambda: _ups(kept),
    }


def _updates(kept: Kept) -> Named:
    from pacs.machine import update_sources

    if kept.value("update_window") == OFF or kept.value("proxy"):
        return Named()
    return update_sources.called(Path("/"), kept.value("update_mirror"))


def of_environment(environment: Mapping[str, str]) -> Named:
    """The proxies that programs are told of."""
    urls = {environment.get(name, "") for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")}
    proxies = [urlsplit(url if "://" in url else f"http://{url}") for url in sorted(urls - {""})]
    return Named(
        tuple(Destination("proxy", each.hostname, each.port or _HTTP_PORT) for each in proxies if each.hostname)
    )


def of_setting(outgoing: Iterable[str]) -> Named:
    """The setting `outgoing`: host:port, host:port/udp."""
    calls = []
    for text in outgoing:
        host, _, port = text.rpartition(":")
        number, _, protocol = port.partition("/")
        calls.append(
            Destination("setting outgoing", host.strip("[]"), int(number), "udp" if protocol == "udp" else "tcp")
        )
    return Named(tuple(calls))


class Peer(Protocol):
    """Of a device what matters here."""

    @property
    def name(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def networks(self) -> tuple[str, ...]: ...


def of_devices(devices: Iterable[Peer]) -> Named:
    """Devices: they call from their hosts and networks, and are called at their hosts' ports."""
    known = list(devices)
    calls = tuple(Destination(f"device {each.name}", each.host, each.port) for each in known)
    hosts = (host for each in known for host in (each.host, *each.networks))
    return Named(calls, tuple(dict.fromkeys(hosts)))


def of_place(what: str, kind: str, location: str, options: Mapping[str, Any]) -> tuple[Destination, ...]:
    """Whom a volume or a repository is reached at; none for a folder, whose share is named elsewhere."""
    if kind == "sftp":
        server = urlsplit(location)
        return (Destination(what, server.hostname or "", server.port or _SSH_PORT),) if server.hostname else ()
    if kind != "s3":
        return ()
    endpoint = options.get("endpoint") or f"https://s3.{options.get('region', 'us-east-1')}.amazonaws.com"
    parts = urlsplit(str(endpoint))
    port = parts.port or (_HTTP_PORT if parts.scheme == "http" else _HTTPS_PORT)
    return (Destination(what, parts.hostname or "", port, anywhere=True),) if parts.hostname else ()


def of_share(name: str, source: str, options: Iterable[str]) -> Destination:
    """The server of a share: //server/share is SMB, server:/folder NFS."""
    is_smb = source.startswith("//")
    host = source[2:].partition("/")[0] if is_smb else source.partition(":/")[0].strip("[]")
    given = next((each.removeprefix("port=") for each in options if each.startswith("port=")), "")
    port = int(given) if given.isdecimal() else _SMB_PORT if is_smb else _NFS_PORT
    return Destination(f"share {name}", host, port)


def _index(settings: Settings) -> Named:
    """Devices and volumes: one wait, where the database is away."""
    from pacs.index.database import Database
    from pacs.index.devices import list_devices
    from pacs.index.volumes import list_volumes

    database = Database(settings.conninfo, 1, settings.database_timeout_s)
    try:
        devices = of_devices(list_devices(database))
        places = [of_place(f"volume {each.name}", each.kind, each.location, each.options)
                  for each in list_volumes(database)]  # fmt: skip
    finally:
        database.close()
    return replace(devices, calls=(*devices.calls, *(call for place in places for call in place)))


def _repositories(data: Path) -> Named:
    from pacs.backup.repositories import repositories

    places = [of_place(f"repository {each.name}", each.kind, each.place, each.options) for each in repositories(data)]
    return Named(tuple(call for place in places for call in place))


def _mail(data: Path) -> Named:
    from pacs.jobs.mail_settings import mail_settings

    found = mail_settings(data)
    return Named((Destination("mails", found.host, found.port_number),) if found else ())


def _alerts(data: Path) -> Named:
    from pacs.jobs.alert_settings import alert_settings

    return Named(tuple(Destination("alerts", *place) for place in alert_settings(data).destinations()))


def _audit(settings: Settings) -> Named:
    if not settings.audit_syslog:
        return Named()
    from pacs.net.syslog import Receiver

    receiver = Receiver.parse(settings.audit_syslog)
    return Named((Destination("audit log", receiver.host, receiver.port),))


def _machine(kept: Kept) -> Named:
    from pacs.machine.machine_settings import Effect
    from pacs.machine.remote_access import endpoint_of

    proxy, acme = kept.value("proxy"), urlsplit(kept.value("acme_directory"))
    calls = of_environment({"HTTP_PROXY": proxy}).calls if proxy else ()
    if acme.hostname:
        calls = (*calls, Destination("certificates (ACME)", acme.hostname, acme.port or _HTTPS_PORT))
    if far := endpoint_of(kept.of_effect(Effect.MACHINE)):
        calls = (*calls, Destination("remote access", *far, "udp"))
    return Named(calls)


def _ups(kept: Kept) -> Named:
    from pacs.machine import ups
    from pacs.machine.machine_settings import Effect

    place = ups.server_of(kept.of_effect(Effect.MACHINE))
    return Named((Destination("UPS", *place),)) if place else Named()


def _twin(data: Path) -> Named:
    from pacs.backup.standby_files import StandbyFiles

    found = StandbyFiles(data).twin()
    if found is None:
        return Named()
    twin = found[0]
    return Named((Destination(f"twin {twin.name}", twin.host, twin.port),), ssh=(twin.host,))


def _vaults(data: Path) -> Named:
    """Whose repositories are kept here: they are called. Who keeps ours: it calls us."""
    from pacs.backup.pulled import vaults_of
    from pacs.backup.vaults import VaultFiles

    owners = tuple(Destination(f"vault {each.name}", each.host, each.port) for each in VaultFiles(data).vaults())
    return Named(owners, ssh=tuple(address for _repository, address in vaults_of(data) if address))


def _shares(volumes: Path) -> Named:
    from pacs.machine import shares
    from pacs.machine.storage import Places

    return Named(tuple(of_share(each.name, each.source, each.options) for each in shares.known(Places(volumes))))
