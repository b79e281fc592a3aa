"""The OVF descriptor: what an importer is told about the machine.

One form that VMware, VirtualBox, Proxmox, virt-v2v and Xen Orchestra all read the same way; tests/ovf holds their
rules. Data disks are files like any other: two of the five can't take a disk without one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from packer.errors import BuildError
from pacs.machine.machine_settings import PAGES, TABLE, Setting

MIB = 1024 * 1024


@dataclass(frozen=True)
class Disk:
    """One disk of the machine, in the order of the controller."""

    name: str
    file_name: str
    file_size_bytes: int
    capacity_bytes: int
    used_bytes: int
    description: str

    @property
    def capacity_mib(self) -> int:
        """Capacity in the unit of the descriptor: Proxmox's preview reads no other form than byte * 2^N."""
        if self.capacity_bytes % MIB:
            raise BuildError(
                f"Disk {self.name} is not a whole number of MiB.", "Mend its size in packer/base/layout.py."
            )
        return self.capacity_bytes // MIB


@dataclass(frozen=True)
class Machine:
    """What the descriptor says about the machine as a whole."""

    name: str
    version: str
    disks: Sequence[Disk]
    cpus: int = 2
    memory_mib: int = 4096
    product: str = "PACS appliance"
    vendor: str = "PACS appliance"
    annotation: str = (
        "Medical image archive. Boot it and type setup on its display, or fill the properties in. The three data disks "
        "are small: enlarge them, or put larger ones in their place, before the first boot."
    )

    @property
    def properties(self) -> list[tuple[str, list[Setting]]]:
        """The machine's settings by page. No passwords: whoever may see the machine could read them for ever."""
        return [(page, [row for row in TABLE if row.page == page and not row.secret]) for page in PAGES]


def render(machine: Machine) -> str:
    """The descriptor as XML text; every value is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("appliance.ovf.j2").render(machine=machine)
