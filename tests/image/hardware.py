"""The two machines that the image is tested in, as QEMU arguments.

The shapes are those of boot-disk.md that exist both in QEMU and in the wild: BIOS as on VMware, UEFI as on KVM hosts.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from packer.accelerator import Accelerator

_OVMF = Path("/usr/share/OVMF")
#: A controller more, for disks in bays that are plugged in and pulled while the machine runs.
BAYS = "bays.0"


class Firmware(Enum):
    """How the machine starts, and with it which disk and network controllers it has."""

    BIOS = "bios"
    UEFI = "uefi"


@dataclass(frozen=True)
class Hardware:
    """What is plugged in. The system disk is a qcow2 file, data disks are raw files, a seed is an ISO.

    in_bays: (serial number, raw file) of disks that can be pulled; a power cut spares what they were given.
    """

    firmware: Firmware
    accelerator: Accelerator
    cpus: int
    memory_mib: int
    system_disk: Path
    data_disks: tuple[Path, ...]
    seed: Path | None = None
    in_bays: tuple[tuple[str, Path], ...] = ()

    def with_disks(self, *data_disks: Path) -> Hardware:
        """The same machine with other data disks."""
        return replace(self, data_disks=data_disks)

    def arguments(self, folder: Path, data_sockets: list[Path]) -> list[str]:
        """QEMU's arguments for all but the serial port and the network's other end (a netdev called net0).

        folder is where UEFI's variables live; data_sockets are the NBD servers of the data disks, in their order.
        """
        arguments = ["-accel", self.accelerator.accel, "-cpu", self.accelerator.cpu, "-device", "VGA"]
        arguments += ["-smp", str(self.cpus), "-m", str(self.memory_mib)]
        arguments += ["-drive", f"if=none,id=system,format=qcow2,discard=unmap,cache=writeback,file={self.system_disk}"]
        arguments += self._bios() if self.firmware is Firmware.BIOS else self._uefi(folder)
        for number, socket in enumerate(data_sockets, start=1):
            node = {"driver": "nbd", "node-name": f"data{number}", "discard": "unmap"}
            arguments += ["-blockdev", json.dumps(node | {"server": {"type": "unix", "path": str(socket)}})]
            arguments += ["-device", _scsi_disk(f"data{number}", number)]
        if self.in_bays:
            arguments += ["-device", "virtio-scsi-pci,id=bays"]
        for serial, disk in self.in_bays:
            arguments += ["-drive", f"if=none,id=node-{serial},format=raw,cache=writeback,file={disk}"]
            arguments += ["-device", f"scsi-hd,bus={BAYS},drive=node-{serial},id={serial},serial={serial}"]
        if self.seed is not None:
            arguments += ["-drive", f"if=none,id=seed,media=cdrom,readonly=on,format=raw,file={self.seed}"]
            arguments += ["-device", "ide-cd,drive=seed"]
        return arguments

    def _bios(self) -> list[str]:
        """As VMware has it: all disks on one paravirtual SCSI controller, vmxnet3."""
        arguments = ["-machine", "pc", "-device", "pvscsi,id=scsi0", "-device", "vmxnet3,netdev=net0,romfile="]
        return [*arguments, "-device", _scsi_disk("system", 0) + ",bootindex=1"]

    def _uefi(self, folder: Path) -> list[str]:
        """As KVM hosts have it: q35, the system on NVMe, data on virtio-scsi, virtio-net."""
        variables = folder / "OVMF_VARS.fd"  # a private copy: the firmware writes to it
        if not variables.exists():
            shutil.copyfile(_OVMF / "OVMF_VARS_4M.fd", variables)
        code = f"if=pflash,format=raw,readonly=on,file={_OVMF / 'OVMF_CODE_4M.fd'}"
        arguments = ["-machine", "q35", "-drive", code, "-drive", f"if=pflash,format=raw,file={variables}"]
        arguments += ["-device", "virtio-net-pci,netdev=net0,romfile=", "-device", "virtio-scsi-pci,id=scsi0"]
        # What libvirt and Proxmox speak to the guest's agent through.
        agent = f"socket,id=agent,path={folder / 'agent.sock'},server=on,wait=off"
        arguments += ["-device", "virtio-serial-pci", "-chardev", agent]
        arguments += ["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"]
        return [*arguments, "-device", "nvme,drive=system,serial=pacs-system,bootindex=1"]


def _scsi_disk(drive: str, number: int) -> str:
    # Without a World Wide Name of its own a disk has SAS address 0, and Linux ignores all but one of those. A SCSI
    # controller has address 7 for itself.
    wwn = f"0x5000c50015ea71{number:02x}"
    return f"scsi-hd,bus=scsi0.0,scsi-id={number + (number >= 7)},drive={drive},wwn={wwn}"
