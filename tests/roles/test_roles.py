"""The roles, converged on a booted Debian 13 in a container: twice, then prepared, then booted as an appliance."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.roles.conftest import Converged, FirstBoot
from tests.roles.container import Container
from tests.roles.rootfs import REPOSITORY
from tests.walls import Namespace, join

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

UNITS = (
    "pacs-storage.service",
    "pacs-storage.target",
    "pacs-settings.service",
    "pacs-access.service",
    "pacs-identity.service",
    "postgresql@17-main.service",
    "pacs-migrate.service",
    "pacs-dicom.socket",
    "pacs-dicom-tls.socket",
    "pacs-receiver@1.service",
    "pacs-web.service",
    "pacs-worker.service",
    "nginx.service",
    "ssh.service",
    "nftables.service",
    "pacs-firewall.path",
    "pacs-firewall.timer",
    "pacs-backup-due.path",
    "pacs-vault.path",
    "pacs-backup.timer",
    "pacs-drill.timer",
    "pacs-alert.timer",
    "pacs-smart.timer",
    "pacs-reconcile.timer",
    "pacs-scrub.timer",
    "pacs-selftest.timer",
    "pacs-forget-upgrade.timer",
    "pacs-upgrade.service",
    "pacs-screen.timer",
    "pacs-grow.timer",
    "pacs-certificates.timer",
    "pacs-remote.timer",
    "pacs-mounts.timer",
    "pacs-update.timer",
    "pacs-raid.timer",
)

ECHO = """
import sys
from pynetdicom import AE
entity = AE("TESTER")
entity.add_requested_context("1.2.840.10008.1.1")
association = entity.associate("127.0.0.1", int(sys.argv[1]), ae_title="PACS")
print(association.send_c_echo().Status)
association.release()
"""

HANDSHAKE = """
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
print(context.wrap_socket(socket.create_connection(("127.0.0.1", int(sys.argv[1])), 30)).version())
"""


def test_the_second_run_changes_nothing(converged: Converged) -> None:
    recap = re.search(r"changed=(\d+) +unreachable=0 +failed=0", converged.second_run)
    assert recap
    changed = [line for line in converged.second_run.splitlines() if line.startswith("changed:")]
    assert recap[1] == "0", changed


# The image, before it was ever booted as an appliance


def test_users_have_the_numbers_that_stand_on_the_data_disks(image_findings: dict[str, str]) -> None:
    users = {line.split(":")[0]: line.split(":")[2] for line in image_findings["etc/passwd"].splitlines()}
    assert users["pacs"] == "2100"
    assert users["postgres"] == "2101"
    assert users["admin"] == "2000"
    assert "builder" not in users


def test_nobody_has_a_password(image_findings: dict[str, str]) -> None:
    fields = [line.split(":")[:2] for line in image_findings["etc/shadow"].splitlines()]
    assert [name for name, password in fields if not password.startswith(("!", "*"))] == []


@pytest.mark.parametrize(
    "pattern",
    [
        r"etc/ssh/ssh_host_.*",
        r"etc/ssl/private/.+",
        r"var/lib/cloud/.+",
        r".*/\.ssh/.*",
        r".*/\.ansible.*",
        r"var/lib/systemd/random-seed",
        r"var/lib/systemd/credential\.secret",
        r"var/log/journal/.+",
        r"home/builder.*",
        r"var/lib/apt/lists/.*Packages.*",
        r"var/cache/apt/archives/.*\.deb",
        r"srv/pacs/[^/]+/.+",
        r"opt/pacs/wheelhouse",
        r"var/lib/postgresql/17/.*",
        r"var/lib/pacs/.+",
    ],
)
def test_the_image_is_clean(image_findings: dict[str, str], pattern: str) -> None:
    assert [path for path in image_findings if re.fullmatch(pattern, path)] == []


def test_the_image_knows_no_machine(image_findings: dict[str, str]) -> None:
    assert image_findings["etc/machine-id"] == ""
    assert image_findings["etc/pacs/built"] == "2023-11-14T22:13:20Z\n"
    assert "PACS_APPLIANCE_VERSION=0.0.test" in image_findings["etc/pacs/appliance.env"]


# The first boot


def test_everything_runs(appliance: Container) -> None:
    assert appliance.run("systemctl list-units --state=failed --plain --no-legend") == ""
    assert appliance.state() == "running"


@pytest.mark.parametrize("unit", UNITS)
def test_unit_is_active(appliance: Container, unit: str) -> None:
    assert appliance.run(f"systemctl is-active '{unit}'").strip() == "active"


def test_after_its_first_boot_an_appliance_is_empty(first_boot: FirstBoot) -> None:
    """So that it gives way when somebody attaches the old disks late."""
    assert first_boot.stored_files == ""


def test_what_waits_for_its_hypervisor_its_ups_or_its_raid_rests(appliance: Container) -> None:
    for unit in ("qemu-guest-agent", "open-vm-tools", "hv-kvp-daemon", "nut-monitor", "nut-server", "mdmonitor"):
        shown = appliance.run(f"systemctl show {unit} -P LoadState -P ActiveState").split()
        assert shown == ["loaded", "inactive"], unit


def test_systemd_found_no_ordering_cycle(appliance: Container) -> None:
    assert "ordering cycle" not in appliance.run("journalctl -b --no-pager")


def test_nothing_listens_but_what_should(appliance: Container) -> None:
    rows = appliance.run("ss -Hltn").splitlines()
    ports = {int(row.split()[3].rsplit(":", 1)[1]) for row in rows if not row.split()[3].startswith("127.")}
    assert ports == {22, 80, 104, 443, 2762, 11112}


@pytest.fixture
def clinic(appliance: Container) -> Iterator[tuple[Namespace, Namespace]]:
    """A clinical network and a stranger's, each with a cable to the appliance, whose settings name the first."""
    unmanaged = "[Match]\\nName=clinic world\\n[Link]\\nUnmanaged=yes\\n"
    appliance.run(f"mkdir -p /run/systemd/network && printf '{unmanaged}' >/run/systemd/network/05-test.network")
    appliance.run("networkctl reload")
    inside, outside, own = Namespace.made(), Namespace.made(), Namespace.of(appliance.pid)
    try:
        join(own, "10.77.0.1", inside, "10.77.0.2", "clinic")
        join(own, "198.51.100.1", outside, "198.51.100.2", "world")
        appliance.run("pacs machine set clinical_networks=10.77.0.0/24 administrator_networks=10.77.0.0/24")
        yield inside, outside
    finally:
        appliance.run("pacs machine set clinical_networks= administrator_networks=")
        appliance.run("rm -f /run/systemd/network/05-test.network")
        for each in (own, inside, outside):
            each.end()


def test_a_scan_sees_what_the_table_says_and_a_device_that_is_added_comes_in(
    appliance: Container, clinic: tuple[Namespace, Namespace]
) -> None:
    inside, outside = clinic
    wait = "timeout 60 sh -c 'until nft list set inet pacs {} | grep -q {}; do sleep 0.2; done'"
    ports = [str(port) for port in (*range(1, 1024), 2762, 5432, 8042, 11112)]
    appliance.run(wait.format("clinical4", "10.77.0.0"))
    assert set(inside.python("scan", "10.77.0.1", "1", *ports)["open"]) == {22, 80, 104, 443, 2762, 11112}
    assert inside.python("scan", "10.77.0.1", "1", *ports)["closed"] == []
    assert outside.python("scan", "198.51.100.1", "1", *ports) == {"open": [80, 443], "closed": []}
    appliance.run("pacs device add far --ae-title FAR --host 198.51.100.2 --port 4104")
    appliance.run(wait.format("calls4", "198.51.100.2"))
    assert set(outside.python("scan", "198.51.100.1", "1", *ports)["open"]) == {80, 104, 443, 2762, 11112}
    called = 'import socket; socket.create_connection(("198.51.100.2", {}), 20)'
    outside.listen([4104, 4105])
    appliance.run(f"/opt/pacs/venv/bin/python -c '{called.format(4104)}'")
    refused = appliance.run(f"/opt/pacs/venv/bin/python -c '{called.format(4105)}' 2>&1 || true")
    assert "No route to host" in refused
    assert "ours" in appliance.run("pacs machine firewall check")
    assert "device far" in appliance.run("pacs machine firewall show")
    assert "closed but for what is set up" in appliance.run("pacs check || true")
    appliance.run("pacs device remove far")
    appliance.run("timeout 60 sh -c 'while nft list set inet pacs calls4 | grep -q 198.51; do sleep 0.2; done'")
    assert set(outside.python("scan", "198.51.100.1", "1", *ports)["open"]) == {80, 443}


def test_nothing_goes_out_or_comes_in_before_the_appliance_has_rules(appliance: Container) -> None:
    for chain in ("input", "output", "forward"):
        assert "policy drop" in appliance.run(f"nft list chain inet pacs {chain}")
    appliance.run("systemctl restart nftables.service")  # as at the next start: what was last is loaded at once
    assert "pacs-firewall" not in appliance.run("systemctl list-units --state=failed --plain --no-legend")
    assert "clinical4" in appliance.run("nft list table inet pacs")
    appliance.run("pacs machine firewall apply")
    assert "ours" in appliance.run("pacs machine firewall check")


def test_health_over_http_and_the_rest_over_tls_only(appliance: Container) -> None:
    health = appliance.from_outside("curl", "-sS", "http://127.0.0.1/healthz")
    assert json.loads(health.stdout)["status"] in ("ok", "warning")
    plain = appliance.from_outside("curl", "-sSi", "http://127.0.0.1/")
    assert "301" in plain.stdout.splitlines()[0]
    page = appliance.from_outside("curl", "-sSik", "https://127.0.0.1/")
    assert page.stdout.startswith("HTTP/2 200")
    assert re.search(r"(?mi)^server: nginx\s*$", page.stdout)


def test_dicom_answers_to_devices_it_knows(appliance: Container) -> None:
    appliance.run("pacs device add tester --ae-title TESTER --host 127.0.0.1 --port 11113")
    for port in ("104", "11112"):
        assert appliance.from_outside(sys.executable, "-c", ECHO, port).stdout == "0\n"
    assert appliance.from_outside(sys.executable, "-c", HANDSHAKE, "2762").stdout == "TLSv1.3\n"


def test_the_administrator_comes_in_by_key_and_becomes_root(appliance: Container) -> None:
    assert ssh(appliance, "admin", "sudo id -u").stdout == "0\n"
    assert "database" in ssh(appliance, "admin", "sudo pacs check").stdout


def test_nobody_else_comes_in(appliance: Container) -> None:
    refused = ssh(appliance, "root", "true")
    assert refused.returncode == 255
    assert "Permission denied (publickey)" in refused.stderr


def test_the_service_may_do_little(appliance: Container) -> None:
    for unit in ("pacs-receiver@1", "pacs-web", "pacs-worker"):
        pid = appliance.run(f"systemctl show -P MainPID {unit}").strip()
        lines = appliance.run(f"cat /proc/{pid}/status").splitlines()
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        assert status["Uid"].split() == ["2100"] * 4
        assert int(status["CapBnd"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"


def test_each_unit_of_ours_is_in_a_sandbox_but_those_that_the_page_names(appliance: Container) -> None:
    page = (REPOSITORY / "docs/reference/hardening.md").read_text("utf-8").partition("## Units")[2].partition("## ")[0]
    excepted = set(re.findall(r"^\| `([a-z-]+\.service)`", page, re.M))
    units = appliance.run("cd /etc/systemd/system && ls -d pacs-*.service").split()
    assert excepted < set(units)
    loose = []
    for unit in sorted(set(units) - excepted):
        name = unit.replace("@.", "@1.")
        if not appliance.succeeds(f"systemd-analyze security --no-pager --threshold=30 {name}"):
            loose.append(appliance.run(f"systemd-analyze security --no-pager {name} | tail -1"))
    assert loose == []


def test_nothing_leaves_a_core_file(appliance: Container) -> None:
    for unit in ("pacs-receiver@1", "pacs-worker", "postgresql@17-main", "nginx"):
        pid = appliance.run(f"systemctl show -P MainPID {unit}").strip()
        limits = appliance.run(f"grep 'Max core file size' /proc/{pid}/limits").split()
        assert limits[4] == "0", unit
    assert ssh(appliance, "admin", "ulimit -c; ulimit -Hc").stdout.split() == ["0", "0"]


def test_the_database_logs_no_parameters(appliance: Container) -> None:
    wanted = {
        "log_parameter_max_length": "0",
        "log_parameter_max_length_on_error": "0",
        "archive_mode": "on",
        "log_min_error_statement": "panic",
        "log_error_verbosity": "terse",
        "data_checksums": "on",
        "fsync": "on",
        "synchronous_commit": "on",
        "listen_addresses": "",
        "server_encoding": "UTF8",
        "lc_collate": "C",
    }
    asked = 'runuser -u postgres -- psql -XAtc "{}" pacs'
    for name, value in wanted.items():
        sql = "SELECT datcollate FROM pg_database WHERE datname = 'pacs'" if name == "lc_collate" else f"SHOW {name}"
        assert appliance.run(asked.format(sql)).strip() == value, name


def test_the_nightly_jobs_run_in_their_sandbox(appliance: Container) -> None:
    appliance.run("systemctl start pacs-reconcile.service pacs-scrub.service pacs-backup.service")
    result = appliance.run("systemctl show -P Result pacs-backup.service").strip()
    assert result == "exec-condition", "nobody has said where to yet"
    appliance.run("install -o pacs -g pacs -m 750 -d /srv/pacs/backup")
    appliance.run("pacs backup repository add usb --place /srv/pacs/backup --on-system-disk")
    # The worker sees that it has no backup, and asks for the one that is due; PostgreSQL's user has no part in it.
    appliance.run("timeout 180 sh -c 'until pacs backup list usb | grep -q full; do sleep 1; done'")
    appliance.run("systemctl start pacs-backup.service")
    assert appliance.run("pacs backup list usb").count("incremental") == 1
    owners = appliance.run("find /srv/pacs/backup ! -user pacs")
    assert owners.strip() == "", "one user writes all of it"
    assert "usb" in appliance.run("pacs check || true")


def test_a_share_whose_server_is_away_is_refused_and_one_that_is_known_is_tried_again(appliance: Container) -> None:
    refused = appliance.run("pacs machine mount nas 127.0.0.1:/pacs -o retry=0 2>&1 || true")
    assert "cannot be mounted, and was not kept" in refused
    assert appliance.run("pacs machine mounts") == ""
    assert not appliance.succeeds("ls /srv/pacs/nas")
    record = '{"name": "nas", "source": "127.0.0.1:/pacs", "options": ["retry=0"], "format": 1}'
    appliance.run(f"mkdir -m 700 -p /srv/pacs/state/mounts && echo '{record}' >/srv/pacs/state/mounts/nas.json")
    appliance.run("systemctl start pacs-mounts.service")
    assert "tried again every minute" in appliance.run("pacs machine mounts")
    shown = appliance.run("systemctl show srv-pacs-nas.mount -p What -p Where -p Options -p LoadState")
    assert {"What=127.0.0.1:/pacs", "Where=/srv/pacs/nas", "LoadState=loaded"} <= set(shown.splitlines())
    assert "hard,sync" in shown
    appliance.run("pacs machine unmount nas")
    assert appliance.run("pacs machine mounts") == ""


def test_the_screen_says_where_and_how_it_is(appliance: Container) -> None:
    appliance.run("systemctl start pacs-screen.service")
    text = appliance.run("cat /run/issue.d/pacs.issue")
    assert "PACS appliance 0.0.test" in text


def test_configuring_a_running_appliance_changes_nothing_but_what_was_changed(appliance: Container) -> None:
    variables = {"base_update_cache": False, "appliance_live": True, "base_journal_max_size": "600M"}
    printed = appliance.play("configure.yml", variables, user="admin")
    changed = re.findall(r"TASK \[([^]]+)\] \*+\n(?:.*\n)??changed:", printed)
    assert changed == ["base : Install users, network, journal and session settings"], printed
    assert "600M" in appliance.run("cat /etc/systemd/journald.conf.d/pacs.conf")
    assert appliance.run("systemctl is-active pacs-receiver@1 systemd-networkd").split() == ["active", "active"]


def test_another_boot_keeps_keys_and_everything_comes_up_again(appliance: Container) -> None:
    before = appliance.run("cat /run/pacs-access/*.pub; cat /srv/pacs/state/volume.json")
    appliance.pull_the_plug()
    (appliance.root / "home/admin/.ssh/authorized_keys").unlink()  # a new system disk has none
    appliance.boot(timeout_s=120)
    assert appliance.run("cat /run/pacs-access/*.pub; cat /srv/pacs/state/volume.json") == before
    assert appliance.from_outside(sys.executable, "-c", HANDSHAKE, "2762").stdout == "TLSv1.3\n"
    assert ssh(appliance, "admin", "true").returncode == 0
    assert appliance.run("systemctl list-units --state=failed --plain --no-legend") == ""


def ssh(appliance: Container, user: str, command: str) -> subprocess.CompletedProcess[str]:
    options = ["-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null", "-oBatchMode=yes", "-oLogLevel=ERROR"]
    return appliance.from_outside("ssh", "-i", appliance.folder / "key", *options, f"{user}@127.0.0.1", command)
