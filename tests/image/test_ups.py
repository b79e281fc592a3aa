"""A UPS without power: the machine shuts down cleanly at the charge that is set, and starts again with all it had.

The UPS is NUT's dummy driver, which says what a file says; the wall's power is the test's.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.image.exchange import make_study, send, sending
from tests.image.installation import Installation

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]

_LIMIT_S = 180.0


def _say(site: Installation, status: str, charge: int) -> None:
    lines = "\\n".join((f"ups.status: {status}", f"battery.charge: {charge}", "battery.charge.low: 10"))
    # Renamed into place: the driver must not read half of it.
    site.machine.ssh(f"printf '{lines}\\n' >/tmp/new.dev && sudo install -m 644 /tmp/new.dev /run/new.dev && "
                     "sudo mv /run/new.dev /run/test.dev")  # fmt: skip


def _wait_for(site: Installation, command: str, wanted: str) -> str:
    deadline = time.monotonic() + _LIMIT_S
    while wanted not in (said := site.machine.ssh(f"{command} 2>&1", check=False).stdout):
        if time.monotonic() > deadline:
            log = site.machine.ssh("sudo journalctl -b -u 'nut-*' -u 'pacs-ups*' -o cat -n 40", check=False).stdout
            raise site.machine.failure(f"{command} does not say {wanted!r}: {said}\n{log}")
        time.sleep(2)
    return said


def test_low_battery_clean_shutdown_start(site: Installation, tmp_path: Path) -> None:
    machine = site.machine
    if site.refuses_us():
        site.add_device()
    assert machine.ssh("systemctl is-active nut-server nut-monitor", check=False).stdout.split() == ["inactive"] * 2
    _say(site, "OL", 100)
    machine.ssh("sudo pacs machine set ups=local 'ups_driver=dummy-ups /run/test.dev' ups_shutdown_charge=40")
    _wait_for(site, "upsc ups@localhost ups.status", "OL")
    _wait_for(site, "sudo pacs check ups", "has power")
    assert "0.0.0.0:3493" not in machine.ssh("ss -Hltn").stdout

    _say(site, "OB DISCHRG", 80)
    _wait_for(site, "systemctl is-active pacs-ups.service", "active")
    assert "it runs on the battery" in machine.ssh("sudo pacs check ups", check=False).stdout
    send(site.dicom_port, make_study(tmp_path / "before", 21, 20, 64), site.account)

    batches = [make_study(tmp_path / "during", 22, 1500, 64)]
    with sending(site.dicom_port, batches, site.account, enough=20, limit_s=_LIMIT_S):
        _say(site, "OB DISCHRG", 39)
        machine.wait_for_power_off(300)
    assert "Commanding UPSes" in machine.read_serial(), "the UPS is told to cut the load, and to come back"

    machine.boot()
    before = "sudo journalctl -b -1 -o cat -u postgresql@17-main.service"
    assert "Deactivated successfully" in machine.ssh(before).stdout
    assert "recover" not in machine.ssh("sudo journalctl -b -k -o cat --grep 'EXT4-fs.*recover' || true").stdout
    comparison = site.compare()
    assert comparison.is_clean, str(comparison)
    _say(site, "OL CHRG", 45)
    _wait_for(site, "sudo pacs check ups", "has power")
    machine.ssh("sudo pacs machine set ups=none ups_driver=")
    assert machine.ssh("systemctl is-active nut-server nut-monitor", check=False).stdout.split() == ["inactive"] * 2
