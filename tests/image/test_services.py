"""The appliance after its first boot: everything runs, is mounted and listens as ARCHITECTURE.md says, and no more."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import time
import urllib.request
from typing import Any

import pytest

from tests.image.exchange import echo
from tests.image.installation import Installation

_RUNNING = [
    "chrony.service",
    "nftables.service",
    "nginx.service",
    "pacs-dicom-tls.socket",
    "pacs-dicom.socket",
    "pacs-identity.service",
    "pacs-migrate.service",
    "pacs-receiver@1.service",
    "pacs-receiver@2.service",
    "pacs-storage.service",
    "pacs-storage.target",
    "pacs-web.service",
    "pacs-worker.service",
    "postgresql@17-main.service",
    "ssh.service",
]
_TIMERS = [
    "fstrim.timer",
    "pacs-backup.timer",
    "pacs-firewall.timer",
    "pacs-drill.timer",
    "pacs-alert.timer",
    "pacs-smart.timer",
    "pacs-grow.timer",
    "pacs-certificates.timer",
    "pacs-remote.timer",
    "pacs-mounts.timer",
    "pacs-raid.timer",
    "pacs-reconcile.timer",
    "pacs-screen.timer",
    "pacs-scrub.timer",
    "pacs-selftest.timer",
    "pacs-forget-upgrade.timer",
]
_IDLE_BYTES, _IDLE_LIMIT_S = 700e6, 240.0
_VOLUMES = ["state", "tier1", "tier2"]
# What others can reach. DHCP's client port is the network's own business; the firewall has its list too.
_TCP = {22, 80, 104, 443, 2762, 11112}
_UDP = {68, 546}
# Every hypervisor's disk and network drivers, by the name of the module.
_DRIVERS = [
    "ahci", "ata_piix", "e1000", "e1000e", "hv_netvsc", "hv_storvsc", "mptsas", "mptscsih", "mptspi", "nvme",
    "virtio_blk", "virtio_net", "virtio_scsi", "vmw_pvscsi", "vmxnet3", "xen-blkfront", "xen-netfront",
]  # fmt: skip


def _unit(host: Any, unit: str, field: str) -> str:
    return str(host.check_output("systemctl show --value --property=%s %s", field, unit)).strip()


def _journal(host: Any, pattern: str) -> list[str]:
    lines = host.check_output("journalctl --boot --no-pager --output=short-monotonic").splitlines()
    return [line for line in lines if re.search(pattern, line, re.IGNORECASE)]


def test_the_system_is_up_and_nothing_failed(host: Any) -> None:
    failed = host.check_output("systemctl list-units --state=failed --plain --no-legend")
    assert failed == ""
    assert host.run("systemctl is-system-running").stdout.strip() == "running"


def test_no_ordering_cycle(host: Any) -> None:
    assert _journal(host, r"ordering cycle|breaking.*cycle") == []


@pytest.mark.parametrize("unit", _RUNNING)
def test_unit_is_active(host: Any, unit: str) -> None:
    assert _unit(host, unit, "ActiveState") == "active"


@pytest.mark.parametrize("unit", _TIMERS)
def test_timer_is_waiting(host: Any, unit: str) -> None:
    assert _unit(host, unit, "ActiveState") == "active"
    assert _unit(host, unit, "UnitFileState") == "enabled"


@pytest.mark.parametrize(
    "unit", ["qemu-guest-agent", "open-vm-tools", "hv-kvp-daemon", "hv-vss-daemon", "nut-monitor", "mdmonitor"]
)
def test_an_agent_rests_without_its_hypervisor_or_device(host: Any, unit: str) -> None:
    """This machine is QEMU's, without the agent's channel: test_uefi.py has that."""
    assert _unit(host, f"{unit}.service", "ActiveState") == "inactive"
    assert _unit(host, f"{unit}.service", "LoadState") == "loaded"


def _used_bytes(host: Any) -> int:
    """What programs and the kernel hold, without what is kept of files and given up at once when it is wanted."""
    found = dict(line.split(":") for line in host.check_output("cat /proc/meminfo").splitlines())
    size = {name: int(text.split()[0]) * 1024 for name, text in found.items()}
    cached_bytes = size["Buffers"] + size["Cached"] - size["Shmem"] + size["SReclaimable"]
    return size["MemTotal"] - size["MemFree"] - cached_bytes


def test_it_takes_little_memory_when_nothing_is_sent(host: Any) -> None:
    """Once nothing is at work that a timer or a first start began."""
    ends = time.monotonic() + _IDLE_LIMIT_S
    while (used_bytes := _used_bytes(host)) >= _IDLE_BYTES and time.monotonic() < ends:
        time.sleep(5)
    print(f"memory in use: {used_bytes / 1e6:.0f} MB")
    assert used_bytes < _IDLE_BYTES


def test_services_have_not_been_restarted(host: Any) -> None:
    for unit in ("pacs-receiver@1.service", "pacs-web.service", "pacs-worker.service", "postgresql@17-main.service"):
        assert _unit(host, unit, "NRestarts") == "0", unit


@pytest.mark.parametrize("name", _VOLUMES)
def test_volume_is_mounted(host: Any, name: str) -> None:
    mount = host.mount_point(f"/srv/pacs/{name}")
    assert mount.exists
    assert mount.filesystem == "ext4"
    assert {"nodev", "nosuid", "noexec", "noatime"} <= set(mount.options)
    assert host.file(f"/srv/pacs/{name}/volume.json").is_file


def test_each_volume_has_a_disk_of_its_own_smallest_first(host: Any) -> None:
    sizes = []
    for name in _VOLUMES:
        device = host.check_output("findmnt --noheadings --output SOURCE /srv/pacs/%s", name)
        sizes.append(int(host.check_output("blockdev --getsize64 %s", device)))
        kind = host.check_output("lsblk --nodeps --noheadings --output TYPE %s", device)
        assert kind.strip() == "disk", "a volume fills its disk: no partitions, so that it can grow"
    assert sizes == sorted(sizes)


def test_listening_ports_are_exactly_the_expected_ones(host: Any) -> None:
    reachable: dict[str, set[int]] = {"tcp": set(), "udp": set()}
    for line in host.check_output("ss --no-header --listening --tcp --udp --numeric").splitlines():
        protocol, _, _, _, local = line.split()[:5]
        address, _, port = local.rpartition(":")
        if not address.strip("[]").startswith(("127.", "::1")):
            reachable[protocol].add(int(port))
    assert reachable["tcp"] == _TCP
    assert reachable["udp"] <= _UDP


def test_http_answers_from_outside_that_it_is_well(site: Installation) -> None:
    # The certificate is the appliance's own, made on its first boot.
    unverified = ssl._create_unverified_context()
    url = f"https://127.0.0.1:{site.machine.ports[443]}/healthz"
    with urllib.request.urlopen(url, timeout=60, context=unverified) as answer:
        assert answer.status == 200


def test_the_status_page_is_there(site: Installation) -> None:
    unverified = ssl._create_unverified_context()
    url = f"https://127.0.0.1:{site.machine.ports[443]}/"
    with urllib.request.urlopen(url, timeout=60, context=unverified) as answer:
        assert answer.headers["Content-Type"].startswith("text/html")


def test_plain_http_leads_to_https(site: Installation) -> None:
    link = http.client.HTTPConnection("127.0.0.1", site.machine.ports[80], timeout=60)
    link.request("GET", "/")
    answer = link.getresponse()
    assert answer.status in (301, 308)
    assert answer.getheader("Location", "").startswith("https://")


def test_the_index_is_kept_as_durable_as_promised(host: Any) -> None:
    wanted = {
        "archive_mode": "on",
        "data_checksums": "on",
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        "listen_addresses": "",
        # No patient's data in the log.
        "log_parameter_max_length": "0",
        "log_parameter_max_length_on_error": "0",
        "log_statement": "none",
        "log_min_duration_statement": "-1",
        "server_encoding": "UTF8",
    }
    query = "SELECT name || '=' || setting FROM pg_settings"
    answer = host.check_output("runuser -u postgres -- psql --no-psqlrc --tuples-only --no-align -c %s", query)
    settings = dict(line.split("=", 1) for line in answer.splitlines() if "=" in line)
    assert {name: settings.get(name) for name in wanted} == wanted


def test_every_hypervisors_drivers_are_in_the_initramfs(host: Any) -> None:
    version = host.check_output("uname -r")
    assert "cloud" not in version
    inside = host.check_output("lsinitramfs /boot/initrd.img-%s", version)
    built_in = host.check_output("cat /lib/modules/%s/modules.builtin", version)
    there = {re.sub(r"\.ko.*", "", path.rpartition("/")[2]) for path in (inside + "\n" + built_in).splitlines()}
    assert [driver for driver in _DRIVERS if driver not in there] == []


def test_health_is_good_but_for_the_backup_nobody_has_set_up(site: Installation, host: Any) -> None:
    assert site.complaints() == []
    assert "backup" in host.run("pacs check").stdout


def test_only_a_known_device_may_associate(site: Installation) -> None:
    assert site.refuses_us()
    site.add_device()
    assert echo(site.dicom_port) == 0x0000
    assert echo(site.machine.ports[104]) == 0x0000


def test_dicom_is_spoken_over_tls(site: Installation) -> None:
    """With the certificate that was made on the first boot, which the receiver may read."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    address = ("127.0.0.1", site.machine.ports[2762])
    with socket.create_connection(address, 30) as raw, context.wrap_socket(raw) as connection:
        assert connection.version() == "TLSv1.3"


def test_the_clock_is_utc(host: Any) -> None:
    assert host.check_output("date +%Z") == "UTC"
