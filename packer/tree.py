"""`python -m packer.tree DISK`: the manifest of a system disk, from outside: each path with its mode, owner and digest.

One line an entry: mode (octal, with the kind of file) uid gid bytes digest path. Then what lies beside the root slot:
the boot sector with the partition table, GRUB's core, the EFI system partition, by their digests. No times: those of
files are the build's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from packer.base import layout
from packer.errors import BuildError
from packer.rootfs import Entry, Rootfs, as_raw, open_rootfs, partition_digest

_HEADING = "# pacs-appliance tree 1"
# What is no file of the root slot. The name is no path, so it can't be taken for one.
_PARTS = (
    ("partition table", 0, layout.BIOS_GRUB_START_MIB),
    ("bios partition", layout.BIOS_GRUB_START_MIB, 1),
    ("efi partition", layout.ESP_START_MIB, layout.ESP_SIZE_MIB),
    ("root-b", layout.ROOT_B_START_MIB, layout.ROOT_SIZE_MIB),
)


def entries_of(root: Rootfs) -> list[Entry]:
    """The manifest of an opened disk."""
    parts = [
        Entry(name, 0, 0, 0, size_mib * layout.MIB, partition_digest(root.disk, start_mib, size_mib))
        for name, start_mib, size_mib in _PARTS
    ]
    return [*parts, *root.entries()]


def write_tree(entries: Sequence[Entry], target: Path) -> None:
    """Write a manifest as text."""
    text = "".join(f"{line}\n" for line in [_HEADING, *(entry.line() for entry in entries)])
    target.write_bytes(text.encode("utf-8", "surrogateescape"))


def read_tree(file: Path) -> list[Entry]:
    """The entries of a manifest. Raise BuildError if it is none."""
    lines = file.read_bytes().decode("utf-8", "surrogateescape").split("\n")
    try:
        if lines[0] != _HEADING:
            raise ValueError(lines[0])
        return [Entry.of_line(line) for line in lines[1:] if line]
    except ValueError as error:
        raise BuildError(f"{file} is no manifest of a system disk.", "Name a .tree file, or a disk.") from error


def tree_of(file: Path, scratch: Path | None = None) -> list[Entry]:
    """The entries of a manifest, or of a system disk in any format of qemu-img's."""
    with file.open("rb") as stream:
        if stream.read(len(_HEADING)) == _HEADING.encode():
            return read_tree(file)
    with as_raw(file, scratch) as raw, open_rootfs(raw, scratch) as root:
        return entries_of(root)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the manifest of a disk to standard output; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m packer.tree", description=__doc__)
    parser.add_argument("disk", type=Path, help="the .qcow2, .vhdx or any disk that qemu-img reads")
    parser.add_argument("target", type=Path, help="the manifest")
    options = parser.parse_args(arguments)
    try:
        write_tree(tree_of(options.disk), options.target)
    except (BuildError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
