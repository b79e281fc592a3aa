"""The same OVA under UEFI, on other controllers: essentials only, and that two appliances share no key."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.image.exchange import make_study, send
from tests.image.hardware import Firmware
from tests.image.installation import Installation


def test_it_booted_under_uefi_and_nothing_failed(uefi_host: Any) -> None:
    assert uefi_host.file("/sys/firmware/efi").is_directory
    assert uefi_host.check_output("systemctl list-units --state=failed --plain --no-legend") == ""
    assert uefi_host.run("systemctl is-system-running").stdout.strip() == "running"


@pytest.mark.parametrize("name", ["state", "tier1", "tier2"])
def test_volume_is_mounted(uefi_host: Any, name: str) -> None:
    assert uefi_host.mount_point(f"/srv/pacs/{name}").filesystem == "ext4"


def test_a_study_comes_back_bit_for_bit(uefi_site: Installation, tmp_path: Path) -> None:
    if uefi_site.refuses_us():
        uefi_site.add_device()
    study = make_study(tmp_path, 5, 10, 128)
    send(uefi_site.dicom_port, study, uefi_site.account)
    assert {instance.sop_instance_uid for instance in study} <= uefi_site.account.acknowledged.keys()
    assert uefi_site.compare().is_clean


def test_the_hypervisors_agent_answers(uefi_site: Installation) -> None:
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(60)
        link.connect(str(uefi_site.machine.folder / "agent.sock"))
        link.sendall(b'{"execute": "guest-network-get-interfaces"}\n')
        answer = json.loads(link.makefile("r").readline())
    assert "lo" in {each["name"] for each in answer["return"]}


def _host_keys(installation: Installation) -> set[str]:
    if not installation.machine.known_hosts.exists():
        return set()
    return {line.split()[2] for line in installation.machine.known_hosts.read_text("utf-8").splitlines()}


def test_two_imports_share_no_key(
    installations: dict[Firmware, Installation], uefi_site: Installation, request: pytest.FixtureRequest
) -> None:
    bios, uefi = _host_keys(installations[Firmware.BIOS]), _host_keys(uefi_site)
    if not bios:
        bios = _host_keys(request.getfixturevalue("site"))
    assert bios
    assert uefi
    assert not bios & uefi
