"""Looks into the system disk without booting it: what is on it before an appliance has made anything of its own.

debugfs reads the ext4 file system straight out of the disk's file: no loop device, no mount, no root.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT_SLOT = "root-a"


class NotThereError(Exception):
    """The file or folder is not on the disk."""


@dataclass(frozen=True)
class RootFilesystem:
    """The first root slot of a raw disk, or a whole one without partitions, which then begins at 0."""

    disk: Path
    offset_bytes: int

    def read(self, path: str) -> bytes:
        """The content of a file. Raise NotThereError; a symbolic link is not followed."""
        if "Type: regular" not in self._ask(f"stat {path}").decode("utf-8", "replace"):
            raise NotThereError(path)
        return self._ask(f"cat {path}")

    def names(self, folder: str) -> list[str]:
        """The names in a folder, sorted. Raise NotThereError."""
        if "Type: directory" not in self._ask(f"stat {folder}").decode("utf-8", "replace"):
            raise NotThereError(folder)
        entries = self._ask(f"ls -p {folder}").decode("utf-8", "replace").split()
        # /inode/mode/user/group/name/size/; a deleted entry has inode 0
        fields = [entry.split("/") for entry in entries if entry.startswith("/")]
        return sorted(entry[5] for entry in fields if entry[1] != "0" and entry[5] not in (".", "..", "lost+found"))

    def exists(self, path: str) -> bool:
        """Whether there is anything at path."""
        return b"Inode:" in self._ask(f"stat {path}")

    def extract(self, folder: str, target: Path) -> Path:
        """Copy a folder with all below it into target; return the copy."""
        target.mkdir(parents=True, exist_ok=True)
        self._ask(f"rdump {folder} {target}")
        return target / Path(folder).name

    def replace(self, files: Mapping[str, bytes], folder: Path) -> None:
        """Write files, root's and for all to read, in the place of those that are there. `folder`: for scratch."""
        commands = []
        for number, (path, content) in enumerate(files.items()):
            source = folder / f"replacing-{number}"
            source.write_bytes(content)
            source.chmod(0o644)
            commands += [f"rm {path}", f"write {source} {path}"]
        script = folder / "replacing"
        script.write_text("\n".join(commands) + "\n")
        subprocess.run(["debugfs", "-w", "-f", script, self._where], check=True, capture_output=True)
        for path, content in files.items():  # debugfs ends with 0 whatever became of a command
            if self.read(path) != content:
                raise NotThereError(path)

    @property
    def _where(self) -> str:
        return f"{self.disk}?offset={self.offset_bytes}"

    def _ask(self, command: str) -> bytes:
        return subprocess.run(["debugfs", "-R", command, self._where], check=True, capture_output=True).stdout


def root_filesystem(disk: Path) -> RootFilesystem:
    """The root file system of a raw system disk."""
    listed = subprocess.run(["sfdisk", "--json", str(disk)], check=True, capture_output=True, text=True)
    table = json.loads(listed.stdout)["partitiontable"]
    slot = next(partition for partition in table["partitions"] if partition.get("name") == ROOT_SLOT)
    return RootFilesystem(disk, int(slot["start"]) * int(table["sectorsize"]))
