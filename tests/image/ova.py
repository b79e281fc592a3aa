"""Takes an OVA apart as an importer does: the tar, the manifest, the OVF, the disks.

Nothing here knows how the OVA was made: what the tests boot is what a hypervisor would have read out of the file.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_OVF = "{http://schemas.dmtf.org/ovf/envelope/1}"
_RASD = "{http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData}"
_MANIFEST_LINE = re.compile(r"SHA256\(([^()]+)\)= ([0-9a-f]{64})")
_READ_BYTES = 1 << 20
_PROCESSORS, _MEMORY, _DISK = 3, 4, 17  # CIM resource types


class OvaError(Exception):
    """An importer would refuse this OVA."""


@dataclass(frozen=True)
class Disk:
    """One disk of the OVA: its VMDK and how large a hypervisor makes it."""

    vmdk: Path
    capacity_bytes: int


@dataclass(frozen=True)
class Appliance:
    """What the OVF asks for. The first disk is the system disk."""

    cpus: int
    memory_mib: int
    disks: tuple[Disk, ...]


def unpack(ova: Path, folder: Path) -> Appliance:
    """Unpack ova into folder and check it against its manifest. Raise OvaError if anything is not as it must be."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(ova, "r:") as archive:
        names = archive.getnames()
        if not names or not names[0].endswith(".ovf"):
            raise OvaError(f"{ova.name}: the first member is not the .ovf but {names[:1]}")
        archive.extractall(folder, filter="data")
    _check_manifest(folder, names)
    return _read_ovf(folder / names[0])


def _check_manifest(folder: Path, names: list[str]) -> None:
    manifests = [name for name in names if name.endswith(".mf")]
    if len(manifests) != 1:
        raise OvaError(f"expected one manifest, found {manifests}")
    listed: dict[str, str] = {}
    for line in (folder / manifests[0]).read_text("ascii").splitlines():
        match = _MANIFEST_LINE.fullmatch(line)
        if match is None:
            raise OvaError(f"{manifests[0]}: importers don't understand {line!r}")
        listed[match[1]] = match[2]
    expected = set(names) - set(manifests)
    if set(listed) != expected:
        raise OvaError(f"{manifests[0]} lists {sorted(listed)}, the OVA holds {sorted(expected)}")
    for name, digest in listed.items():
        with (folder / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise OvaError(f"{name} does not have the digest that {manifests[0]} gives")


def _read_ovf(ovf: Path) -> Appliance:
    root = ET.parse(ovf).getroot()
    hrefs = {item.get(f"{_OVF}id"): item.get(f"{_OVF}href") for item in root.iter(f"{_OVF}File")}
    disks = {disk.get(f"{_OVF}diskId", ""): disk for disk in root.iter(f"{_OVF}Disk")}
    quantity: dict[int, int] = {}
    places: list[tuple[int, Disk]] = []
    for item in root.iter(f"{_OVF}Item"):
        kind = int(item.findtext(f"{_RASD}ResourceType", "0"))
        if kind == _DISK:
            disk_id = item.findtext(f"{_RASD}HostResource", "").rpartition("/")[2]
            place = int(item.findtext(f"{_RASD}AddressOnParent", "0"))
            places.append((place, _read_disk(ovf.parent, disks[disk_id], hrefs)))
        elif kind in (_PROCESSORS, _MEMORY):
            quantity[kind] = int(item.findtext(f"{_RASD}VirtualQuantity", "0"))
    ordered = tuple(disk for _, disk in sorted(places, key=lambda entry: entry[0]))
    return Appliance(cpus=quantity[_PROCESSORS], memory_mib=quantity[_MEMORY], disks=ordered)


def _read_disk(folder: Path, disk: ET.Element, hrefs: dict[str | None, str | None]) -> Disk:
    href = hrefs.get(disk.get(f"{_OVF}fileRef"))
    if href is None:
        raise OvaError(f"disk {disk.get(f'{_OVF}diskId')} has no file: virt-v2v and Proxmox would not take it")
    unit = disk.get(f"{_OVF}capacityAllocationUnits", "byte").replace(" ", "")
    power = re.fullmatch(r"byte(?:\*2\^(\d+))?", unit)
    if power is None:
        raise OvaError(f"capacityAllocationUnits {unit!r} is not understood by Proxmox")
    return Disk(folder / href, int(disk.get(f"{_OVF}capacity", "0")) * 2 ** int(power[1] or 0))


def is_blank(disk: Path) -> bool:
    """Whether a raw disk holds nothing but zeros."""
    return next(_parts(disk), None) is None


def digest_of(disk: Path) -> str:
    """A digest of what a raw disk holds: the same for the same bytes, whatever of them are holes."""
    digest = hashlib.sha256()
    for position, part in _parts(disk):
        digest.update(position.to_bytes(8))
        digest.update(part)
    return digest.hexdigest()


def _parts(disk: Path) -> Iterator[tuple[int, bytes]]:
    """The MiBs of a raw disk that are not all zeros, and where they are. Holes are not read, so it is quick."""
    with disk.open("rb") as file:
        end, position = os.fstat(file.fileno()).st_size, 0
        while position < end:
            try:
                position = os.lseek(file.fileno(), position, os.SEEK_DATA) // _READ_BYTES * _READ_BYTES
            except OSError:  # ENXIO: no data behind here
                return
            part = os.pread(file.fileno(), _READ_BYTES, position)
            if any(part):
                yield position, part
            position += len(part)


@dataclass(frozen=True)
class Imported:
    """The disks as a hypervisor keeps them, raw files: the system disk to make overlays of, the data disks to copy."""

    appliance: Appliance
    system_disk: Path
    data_disks: tuple[Path, ...]

    def system_overlay(self, path: Path) -> Path:
        """A fresh system disk (qcow2 over the imported one, which stays as it is) at path."""
        command = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(self.system_disk), str(path)]
        subprocess.run(command, check=True)
        return path

    def data_copies(self, folder: Path) -> list[Path]:
        """Fresh data disks (raw, sparse, as the OVA delivers them) in folder."""
        copies = []
        for disk in self.data_disks:
            copies.append(folder / disk.name)
            subprocess.run(["cp", "--sparse=always", str(disk), str(copies[-1])], check=True)
        return copies


def import_disks(appliance: Appliance, folder: Path) -> Imported:
    """Convert every VMDK to a raw, sparse file as large as the OVF says; the VMDKs go."""
    folder.mkdir(parents=True, exist_ok=True)
    converted: list[Path] = []
    for number, disk in enumerate(appliance.disks):
        target = folder / f"disk{number}.raw"
        subprocess.run(["qemu-img", "convert", "-f", "vmdk", "-O", "raw", str(disk.vmdk), str(target)], check=True)
        size_bytes = target.stat().st_size
        if size_bytes != disk.capacity_bytes:
            raise OvaError(f"{disk.vmdk.name} holds {size_bytes} bytes, the OVF says {disk.capacity_bytes}")
        converted.append(target)
    shutil.rmtree(appliance.disks[0].vmdk.parent)
    return Imported(appliance, converted[0], tuple(converted[1:]))
