"""Where things lie on the system disk. GPT: GRUB's BIOS core, the EFI system partition, and two root slots.

The second slot stays empty: it is for the system that an upgrade writes beside the running one (`pacs upgrade`). A
slot must hold the finished system (about 1 GiB) with room for its own updates. Both cost nothing while they are empty:
the disk is sparse.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

SECTOR_BYTES = 512
MIB = 1024 * 1024

BIOS_GRUB_START_MIB = 1
ESP_START_MIB = 2
ESP_SIZE_MIB = 128
ROOT_A_START_MIB = ESP_START_MIB + ESP_SIZE_MIB
ROOT_SIZE_MIB = 6144
ROOT_B_START_MIB = ROOT_A_START_MIB + ROOT_SIZE_MIB
# GPT keeps its second copy in the last 33 sectors.
DISK_SIZE_MIB = ROOT_B_START_MIB + ROOT_SIZE_MIB + 2

# The time that stands in what is made by times: the EFI system partition, and (pacs-appliance.conf) the initramfs.
EPOCH_S = 1735689600

# Features by name, not by mkfs's default: the defaults of the host's e2fsprogs may be newer than the guest's GRUB.
EXT4_FEATURES = (
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,"
    "huge_file,dir_nlink,extra_isize,metadata_csum"
)

_NAMESPACE = uuid.UUID("6f9f3d3e-3a0f-5b57-8f0c-0d9c4a5f6a11")
_TYPE_BIOS_GRUB = "21686148-6449-6E6F-744E-656564454649"
_TYPE_ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
_TYPE_LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"


@dataclass(frozen=True)
class Identifiers:
    """Every identifier on one system disk. The same recipe makes the same disk, another recipe other identifiers."""

    root: str
    disk: str
    esp_serial: int
    partitions: tuple[str, str, str, str]

    @classmethod
    def of(cls, recipe: str) -> Identifiers:
        """Identifiers derived from a recipe's digest."""

        def name(what: str) -> str:
            return str(uuid.uuid5(_NAMESPACE, f"{recipe} {what}"))

        partitions = (name("bios"), name("esp"), name("root-a"), name("root-b"))
        return cls(name("root"), name("disk"), uuid.uuid5(_NAMESPACE, recipe).int & 0xFFFFFFFF, partitions)

    @property
    def esp(self) -> str:
        """The EFI system partition's UUID as fstab wants it."""
        return f"{self.esp_serial >> 16:04X}-{self.esp_serial & 0xFFFF:04X}"


def sfdisk_script(identifiers: Identifiers) -> str:
    """The partition table in sfdisk's language."""
    rows = [
        (BIOS_GRUB_START_MIB, 1, _TYPE_BIOS_GRUB, "bios"),
        (ESP_START_MIB, ESP_SIZE_MIB, _TYPE_ESP, "esp"),
        (ROOT_A_START_MIB, ROOT_SIZE_MIB, _TYPE_LINUX, "root-a"),
        (ROOT_B_START_MIB, ROOT_SIZE_MIB, _TYPE_LINUX, "root-b"),
    ]
    lines = ["label: gpt", f"label-id: {identifiers.disk}"]
    for (start, size, kind, name), partition in zip(rows, identifiers.partitions, strict=True):
        lines.append(f"start={start}MiB, size={size}MiB, type={kind}, uuid={partition}, name={name}")
    return "\n".join(lines) + "\n"
