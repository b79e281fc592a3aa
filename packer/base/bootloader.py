"""GRUB into a disk image without a loop device, a mount or a boot.

BIOS: boot.img into sector 0, core.img into the bios_grub partition, each told where the other continues: what
grub-bios-setup does on a real disk. UEFI: an EFI system partition with Debian's signed shim and GRUB at the removable
path, so that a machine with an empty NVRAM and one with Secure Boot both start it. Both halves read the same grub.cfg
on that partition, which chooses the root slot.
"""

from __future__ import annotations

import struct
from pathlib import Path

from packer.base.layout import BIOS_GRUB_START_MIB, MIB, SECTOR_BYTES
from packer.errors import BuildError

# GRUB 2.12, grub-core/boot/i386/pc/boot.S and diskboot.S; include/grub/offsets.h
_BOOT_CODE_BYTES = 440
_KERNEL_SECTOR_OFFSET = 0x5C
_DRIVE_CHECK_OFFSET = 0x66
_NOP_NOP = b"\x90\x90"
_BLOCKLIST_OFFSET = SECTOR_BYTES - 12
_LOAD_SEGMENT = 0x0820
_ENVIRONMENT_BYTES = 1024


def boot_sector(boot_img: bytes, core_lba: int) -> bytes:
    """The 440 bytes of boot code that load core.img from `core_lba`; the protective MBR behind them stays."""
    code = bytearray(boot_img[:_BOOT_CODE_BYTES])
    struct.pack_into("<Q", code, _KERNEL_SECTOR_OFFSET, core_lba)
    # Hard disks: believe the drive number the BIOS gives.
    code[_DRIVE_CHECK_OFFSET : _DRIVE_CHECK_OFFSET + 2] = _NOP_NOP
    return bytes(code)


def core_image(core_img: bytes, core_lba: int) -> bytes:
    """core.img, padded to sectors, whose first sector knows where its other sectors lie."""
    sectors = -(-len(core_img) // SECTOR_BYTES)
    if sectors * SECTOR_BYTES > MIB:
        raise BuildError("GRUB's core.img does not fit into its partition of 1 MiB.", "Report this as a defect.")
    image = bytearray(core_img.ljust(sectors * SECTOR_BYTES, b"\0"))
    struct.pack_into("<QHH", image, _BLOCKLIST_OFFSET, core_lba + 1, sectors - 1, _LOAD_SEGMENT)
    return bytes(image)


def install_bios(disk: Path, boot_img: Path, core_img: Path) -> None:
    """Write GRUB's BIOS half into a partitioned disk image."""
    core_lba = BIOS_GRUB_START_MIB * MIB // SECTOR_BYTES
    with disk.open("r+b") as stream:
        stream.write(boot_sector(boot_img.read_bytes(), core_lba))
        stream.seek(core_lba * SECTOR_BYTES)
        stream.write(core_image(core_img.read_bytes(), core_lba))


def environment_block(**variables: str) -> bytes:
    """GRUB's variables as a file that it can overwrite in place: grub-editenv's format, always as long."""
    text = "# GRUB Environment Block\n" + "".join(f"{name}={value}\n" for name, value in variables.items())
    return text.encode("ascii").ljust(_ENVIRONMENT_BYTES, b"#")


def efi_files(root: Path) -> dict[str, Path]:
    """Path on the EFI system partition → file of the guest's root that goes there."""
    return {
        "EFI/BOOT/BOOTX64.EFI": root / "usr/lib/shim/shimx64.efi.signed",
        "EFI/BOOT/mmx64.efi": root / "usr/lib/shim/mmx64.efi.signed",
        "EFI/BOOT/grubx64.efi": root / "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
    }
