"""When the disks are not as they must be, nothing starts, nothing is touched, and the screen says what to do."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image.exchange import make_study, send
from tests.image.filesystem import RootFilesystem
from tests.image.hardware import Firmware
from tests.image.installation import Installation
from tests.image.ova import digest_of
from tests.image.screen import shows, wait_for_screen


def _have_data(installation: Installation, folder: Path, seed: int) -> None:
    """Make sure that something is stored there, then shut the machine down."""
    if not installation.account.acknowledged:
        installation.running()
        if installation.refuses_us():
            installation.add_device()
        study = make_study(folder, seed, 3, 64)
        send(installation.dicom_port, study, installation.account)
    assert installation.account.acknowledged
    installation.machine.shut_down()


def _screen_of_a_refusal(installation: Installation, *texts: str) -> str:
    """Boot, see that storage and service stayed down, and return the screen."""
    machine = installation.machine
    machine.boot()
    host = installation.host()
    for unit in ("pacs-storage.target", "pacs-receiver@1.service", "postgresql@17-main.service", "pacs-dicom.socket"):
        assert host.run("systemctl is-active %s", unit).stdout.strip() != "active", unit
    for name in ("state", "tier1", "tier2"):
        assert not host.mount_point(f"/srv/pacs/{name}").exists
    assert not any(host.socket(f"tcp://0.0.0.0:{port}").is_listening for port in (104, 2762, 11112))
    return wait_for_screen(host, *texts)


@pytest.fixture
def rewired(installations: dict[Firmware, Installation]) -> Iterator[Installation]:
    """The BIOS machine, to be rewired and booted without its host key; all is put back at the end."""
    for other in installations.values():
        other.machine.shut_down()
    installation = installations[Firmware.BIOS]
    hardware = installation.machine.hardware
    installation.machine.trusts_any_host_key = True
    yield installation
    installation.machine.cut_power()
    installation.machine.trusts_any_host_key = False
    installation.machine.hardware = hardware


def test_a_missing_disk_stops_the_start(rewired: Installation, tmp_path: Path) -> None:
    """Even with a blank disk at hand, as the test of the fresh system disk leaves one: it is not taken instead."""
    _have_data(rewired, tmp_path, 6)
    state, _tier1, *others = rewired.data_disks
    rewired.rewire(state, *others)
    wanted = ("THE STORAGE IS NOT READY", "The volume tier1 of appliance", "is missing", "Attach its disk")
    screen = _screen_of_a_refusal(rewired, *wanted)
    assert [text for text in wanted if not shows(screen, text)] == [], screen


@pytest.mark.long
def test_a_volume_of_a_newer_version_stops_the_start_and_is_not_touched(rewired: Installation, tmp_path: Path) -> None:
    _have_data(rewired, tmp_path, 9)
    state, tier1, *others = rewired.data_disks
    newer = rewired.machine.folder / "newer.raw"
    subprocess.run(["cp", "--sparse=always", tier1, newer], check=True)
    volume = RootFilesystem(newer, 0)
    identity = {**json.loads(volume.read("/volume.json")), "format": 99, "version": "99.0.0"}
    volume.replace({"/volume.json": json.dumps(identity).encode()}, tmp_path)
    rewired.rewire(state, newer, *others)
    before = [digest_of(disk) for disk in rewired.data_disks]
    wanted = ("THE STORAGE IS NOT READY", "has format 99, of version 99.0.0", "Use the image of version 99.0.0")
    screen = _screen_of_a_refusal(rewired, *wanted)
    assert [text for text in wanted if not shows(screen, text)] == [], screen
    assert "is missing" not in screen, screen
    rewired.machine.shut_down()
    assert [digest_of(disk) for disk in rewired.data_disks] == before


def test_two_sets_with_data_stop_the_start(
    rewired: Installation, installations: dict[Firmware, Installation], tmp_path: Path
) -> None:
    other = installations[Firmware.UEFI]
    _have_data(rewired, tmp_path / "bios", 7)
    _have_data(other, tmp_path / "uefi", 8)
    rewired.swap_system_disk()
    rewired.plug_in_seed()  # a system disk that has adopted nothing yet knows no administrator
    rewired.rewire(*rewired.data_disks, *other.data_disks)
    wanted = ("THE STORAGE IS NOT READY", "More than one set of volumes is attached", "sudo pacs machine choose")
    screen = _screen_of_a_refusal(rewired, *wanted)
    assert [text for text in wanted if not shows(screen, text)] == [], screen
