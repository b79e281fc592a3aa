"""The two root slots of the system disk, and GRUB's variables that say which one is booted.

The variables are a file on the EFI system partition, which GRUB reads and overwrites in place under BIOS and UEFI alike
(packer/base/boot/grub.cfg). It is overwritten in place here too: 1,024 bytes that stay where they are, of which the
first 512, one sector, hold all that changes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pacs.errors import UsageError
from pacs.machine.commands import MachineError, output
from pacs.storage import durable

NAMES = ("a", "b")
_HEADER = b"# GRUB Environment Block\n"
_ENVIRONMENT_BYTES = 1024
_REPLACE = "Replace the system disk by that of the new OVA instead (docs/operate/upgrade.md)."


class GrubEnvironment:
    """GRUB's variables `slot` (what is booted) and `try` (what is booted once instead)."""

    def __init__(self, file: Path = Path("/boot/efi/pacs/grubenv")) -> None:
        self.file = file

    def read(self) -> dict[str, str]:
        """The variables. Raise MachineError if the file is not one that GRUB would take."""
        try:
            content = self.file.read_bytes()
        except OSError as error:
            raise MachineError(
                f"GRUB's variables in {self.file} cannot be read ({error.strerror}). Is /boot/efi mounted? {_REPLACE}"
            ) from error
        if len(content) != _ENVIRONMENT_BYTES or not content.startswith(_HEADER):
            raise MachineError(f"{self.file} does not hold GRUB's variables. {_REPLACE}")
        lines = content[len(_HEADER) :].decode("ascii", "replace").split("\n")
        return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))

    def write(self, **changes: str) -> None:
        """Change variables, durably. Raise MachineError."""
        content = encoded({**self.read(), **changes})
        try:
            fd = os.open(self.file, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.pwrite(fd, content, 0)
                durable.fsync_fd(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise MachineError(f"GRUB's variables in {self.file} cannot be written: {error.strerror}.") from error

    @property
    def default(self) -> str:
        """The slot that is booted."""
        return "b" if self.read().get("slot") == "b" else "a"

    @property
    def once(self) -> str:
        """The slot that is booted once instead; empty if none is."""
        found = self.read().get("try", "")
        return found if found in NAMES else ""


def encoded(variables: Mapping[str, str]) -> bytes:
    """An environment block as GRUB has it. Raise MachineError if it is too much."""
    for name, value in variables.items():
        if not name.isidentifier() or not (value.isalnum() or not value):
            raise MachineError(f"{name}={value} cannot be one of GRUB's variables.")
    text = _HEADER + "".join(f"{name}={value}\n" for name, value in variables.items()).encode("ascii")
    if len(text) > _ENVIRONMENT_BYTES:
        raise MachineError("GRUB's variables have become too many.")
    return text.ljust(_ENVIRONMENT_BYTES, b"#")


@dataclass(frozen=True)
class Slot:
    """A root slot: its name, device, partition's UUID and size."""

    name: str
    device: str
    partition_uuid: str
    size_bytes: int


@dataclass(frozen=True)
class Slots:
    """Both slots of the disk that this machine was booted from."""

    running: Slot
    idle: Slot


def find() -> Slots:
    """The slots of this machine. Raise UsageError if its system disk has no two."""
    listed = json.loads(
        output("lsblk", "--json", "--bytes", "--output", "PATH,PKNAME,PARTLABEL,PARTUUID,SIZE,MOUNTPOINTS")
    )
    return pick(_flat(listed["blockdevices"]))


def pick(rows: list[dict[str, object]]) -> Slots:
    """The slots among the rows of `lsblk`."""
    root = next((row for row in rows if "/" in _places(row)), None)
    if root is None or root["partlabel"] not in ("root-a", "root-b"):
        raise UsageError(f"This system does not run from a root slot of the appliance's system disk. {_REPLACE}")
    mates = {
        str(row["partlabel"])[-1]: Slot(
            str(row["partlabel"])[-1], str(row["path"]), str(row["partuuid"]).lower(), int(str(row["size"]))
        )
        for row in rows
        if row["pkname"] == root["pkname"] and row["partlabel"] in ("root-a", "root-b")
    }
    if len(mates) != len(NAMES):
        raise UsageError(f"The system disk has one root slot only. {_REPLACE}")
    running = str(root["partlabel"])[-1]
    other = mates[NAMES[1 - NAMES.index(running)]]
    if any(_places(row) for row in rows if row["path"] == other.device):
        raise UsageError(f"The idle slot {other.device} is mounted. Unmount it, and start again.")
    return Slots(mates[running], other)


def _places(row: dict[str, object]) -> list[str]:
    places = row.get("mountpoints")
    return [str(place) for place in places if place] if isinstance(places, list) else []


def _flat(devices: list[dict[str, object]]) -> list[dict[str, object]]:
    rows = []
    for device in devices:
        rows.append(device)
        children = device.get("children")
        if isinstance(children, list):
            rows += _flat(children)
    return rows
