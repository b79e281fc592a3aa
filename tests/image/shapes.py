"""The machines of the boot matrix: any firmware with any disk controller and any network card that QEMU has.

What can't be: Debian 12's OVMF has no driver for pvscsi and LSI SAS1068, so under UEFI those have no disk to boot from
(design/boot-disk.md). And QEMU has no LSI 53C1030, Xen or Hyper-V devices: test_drivers.py looks for their drivers.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path

from tests.image.hardware import OVMF, Firmware, Hardware, scsi_disk


class Controller(Enum):
    """How all disks hang on the machine. The value is what a test is called by."""

    VIRTIO_SCSI = "virtio-scsi"
    VIRTIO_BLK = "virtio-blk"
    PVSCSI = "pvscsi"
    SAS1068 = "sas1068"
    AHCI = "ahci"
    NVME = "nvme"


class Card(Enum):
    """The network card; the value is QEMU's name of it."""

    VIRTIO = "virtio-net-pci"
    VMXNET3 = "vmxnet3"
    E1000 = "e1000"
    E1000E = "e1000e"


# The driver that Linux has on the controller's PCI function, and how the disks are then named.
DISK_DRIVERS = {
    Controller.VIRTIO_SCSI: ("virtio-pci", "sd"),
    Controller.VIRTIO_BLK: ("virtio-pci", "vd"),
    Controller.PVSCSI: ("vmw_pvscsi", "sd"),
    Controller.SAS1068: ("mptsas", "sd"),
    Controller.AHCI: ("ahci", "sd"),
    Controller.NVME: ("nvme", "nvme"),
}
CARD_DRIVERS = {
    Card.VIRTIO: "virtio_net", Card.VMXNET3: "vmxnet3", Card.E1000: "e1000", Card.E1000E: "e1000e",
}  # fmt: skip
_NOT_UNDER_UEFI = {Controller.PVSCSI, Controller.SAS1068}
_SCSI = {
    Controller.VIRTIO_SCSI: "virtio-scsi-pci", Controller.PVSCSI: "pvscsi", Controller.SAS1068: "mptsas1068",
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One machine of the matrix."""

    firmware: Firmware
    controller: Controller
    card: Card
    secure_boot: bool = False

    @property
    def is_possible(self) -> bool:
        """Whether this host's firmware can read the disk."""
        return self.firmware is Firmware.BIOS or self.controller not in _NOT_UNDER_UEFI

    @property
    def name(self) -> str:
        """What its test is called."""
        words = (self.firmware.value, self.controller.value, self.card.name.lower())
        return "-".join(words) + ("-secureboot" if self.secure_boot else "")

    def of(self, hardware: Hardware) -> Shaped:
        """The machine with this cell's shape and that one's disks."""
        kept = {field.name: getattr(hardware, field.name) for field in fields(Hardware)}
        return Shaped(**kept | {"firmware": self.firmware}, cell=self)


@dataclass(frozen=True)
class Shaped(Hardware):
    """A machine whose controllers are a cell's; all disks, the system's too, on the same kind."""

    cell: Cell | None = None

    def arguments(self, folder: Path, data_sockets: list[Path]) -> list[str]:
        """As Hardware.arguments."""
        assert self.cell is not None
        arguments = ["-accel", self.accelerator.accel, "-cpu", self.accelerator.cpu, "-device", "VGA"]
        arguments += ["-smp", str(self.cpus), "-m", str(self.memory_mib), *_board(self.cell, folder)]
        arguments += ["-device", f"{self.cell.card.value},netdev=net0,romfile="]
        arguments += ["-drive", f"if=none,id=system,format=qcow2,discard=unmap,cache=writeback,file={self.system_disk}"]
        arguments += [*_controllers(self.cell.controller), "-device", _disk(self.cell.controller, "system", 0)]
        arguments[-1] += ",bootindex=1"
        for number, socket in enumerate(data_sockets, start=1):
            node = {"driver": "nbd", "node-name": f"data{number}", "discard": "unmap"}
            arguments += ["-blockdev", json.dumps(node | {"server": {"type": "unix", "path": str(socket)}})]
            arguments += ["-device", _disk(self.cell.controller, f"data{number}", number)]
        if self.seed is not None:
            arguments += ["-drive", f"if=none,id=seed,media=cdrom,readonly=on,format=raw,file={self.seed}"]
            arguments += ["-device", "ide-cd,drive=seed"]
        return arguments


def _board(cell: Cell, folder: Path) -> list[str]:
    if cell.firmware is Firmware.BIOS:
        # As VMware's board, where the controller is VMware's; PCI Express for what is only found there.
        return ["-machine", "pc" if cell.controller in _NOT_UNDER_UEFI and cell.card is not Card.E1000E else "q35"]
    secure = "secboot." if cell.secure_boot else ""
    variables = folder / f"OVMF_VARS.{'ms' if cell.secure_boot else 'cell'}.fd"  # a private copy: it is written to
    if not variables.exists():
        shutil.copyfile(OVMF / f"OVMF_VARS_4M{'.ms' if cell.secure_boot else ''}.fd", variables)
    machine = ["-machine", "q35"]
    if cell.secure_boot:
        machine = ["-machine", "q35,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on"]
    code = f"if=pflash,format=raw,unit=0,readonly=on,file={OVMF / f'OVMF_CODE_4M.{secure}fd'}"
    return [*machine, "-drive", code, "-drive", f"if=pflash,format=raw,unit=1,file={variables}"]


def _controllers(controller: Controller) -> list[str]:
    if controller in _SCSI:
        return ["-device", f"{_SCSI[controller]},id=scsi0"]
    return ["-device", "ahci,id=ahci0"] if controller is Controller.AHCI else []


def _disk(controller: Controller, drive: str, number: int) -> str:
    if controller in _SCSI:
        return scsi_disk(drive, number)
    if controller is Controller.AHCI:
        return f"ide-hd,bus=ahci0.{number},drive={drive}"
    if controller is Controller.NVME:
        return f"nvme,drive={drive},serial=pacs-{number}"
    return f"virtio-blk-pci,drive={drive}"


def every_cell() -> list[Cell]:
    """All that this host's firmware can boot."""
    cells = [Cell(firmware, disk, card) for firmware in Firmware for disk in Controller for card in Card]
    return [cell for cell in cells if cell.is_possible]


def pairwise() -> list[Cell]:
    """As few as have every possible pair of values: each controller with each card once, the firmware in turns."""
    cells = []
    for row, disk in enumerate(Controller):
        for column, card in enumerate(Card):
            wanted = Cell((Firmware.BIOS, Firmware.UEFI)[(row + column) % 2], disk, card)
            cells.append(wanted if wanted.is_possible else Cell(Firmware.BIOS, disk, card))
    return cells
