"""One machine is moved through the matrix of firmware, disk controllers and network cards, with its data disks.

Each boot ends in a study that is stored and read back, and in the study before, which another cell has stored. The
short form boots what the other tests' machines don't have, once under Secure Boot; `-m long -k pairwise` every pair of
values, `-m long` every cell.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image.exchange import make_study, send
from tests.image.hardware import Firmware
from tests.image.installation import Installation
from tests.image.shapes import CARD_DRIVERS, DISK_DRIVERS, Card, Cell, Controller, every_cell, pairwise

# Beside them, the other tests boot BIOS with pvscsi and vmxnet3, UEFI with NVMe, virtio-scsi and virtio-net.
SHORT = (
    Cell(Firmware.BIOS, Controller.SAS1068, Card.E1000),
    Cell(Firmware.UEFI, Controller.AHCI, Card.E1000E, secure_boot=True),
    Cell(Firmware.UEFI, Controller.VIRTIO_BLK, Card.VMXNET3),
)
_PCI = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]")


def _cells() -> Iterator[object]:
    chosen = set(pairwise())
    for cell in dict.fromkeys((*SHORT, *every_cell())):
        name = f"{cell.name}-pairwise" if cell in chosen else cell.name
        yield pytest.param(cell, id=name, marks=() if cell in SHORT else pytest.mark.long)


@pytest.fixture
def moved(installations: dict[Firmware, Installation]) -> Iterator[Installation]:
    """The BIOS machine, off, to be given other hardware; its own is put back at the end."""
    for other in installations.values():
        other.machine.shut_down()
    installation = installations[Firmware.BIOS]
    hardware = installation.machine.hardware
    yield installation
    # Whatever became of it in there: the disks, which are the same ones, have been flushed or the test has failed.
    installation.machine.shut_down()
    installation.machine.hardware = hardware


@pytest.mark.parametrize("cell", list(_cells()))
def test_a_study_is_stored_and_read_back(cell: Cell, moved: Installation, tmp_path: Path) -> None:
    machine, earlier = moved.machine, set(moved.account.acknowledged)
    machine.hardware = cell.of(machine.hardware)
    moved.running()
    host = moved.host()
    assert host.check_output("systemctl list-units --state=failed --plain --no-legend") == ""
    assert host.file("/sys/firmware/efi").exists == (cell.firmware is Firmware.UEFI)
    if cell.secure_boot:
        assert "Secure boot enabled" in host.check_output("journalctl --boot --dmesg --grep 'secure ?boot'")
    disk = host.check_output("lsblk --noheadings --output PKNAME $(findmnt --noheadings --output SOURCE /)")
    driver, name = DISK_DRIVERS[cell.controller]
    assert disk.startswith(name)
    functions = _PCI.findall(host.check_output("readlink -f /sys/block/%s", disk))
    assert host.check_output("basename $(readlink -f /sys/bus/pci/devices/%s/driver)", functions[-1]) == driver
    cards = host.check_output("basename -a $(readlink -f /sys/class/net/*/device/driver)").split()
    assert cards == [CARD_DRIVERS[cell.card]]

    if moved.refuses_us():
        moved.add_device()
    study = make_study(tmp_path, 7000 + sum(cell.name.encode()), 3, 64)
    send(moved.dicom_port, study, moved.account)
    assert {instance.sop_instance_uid for instance in study} <= moved.account.acknowledged.keys()
    comparison = moved.compare()
    assert comparison.is_clean, str(comparison)
    assert comparison.compared >= len(earlier) + len(study)


def test_the_pairwise_cells_have_every_pair() -> None:
    def pairs(cells: list[Cell]) -> set[tuple[object, object]]:
        return {
            pair for cell in cells for pair in itertools.combinations((cell.firmware, cell.controller, cell.card), 2)
        }

    assert pairs(pairwise()) == pairs(every_cell())
    assert len(pairwise()) == len(Controller) * len(Card)
