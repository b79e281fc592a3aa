"""From the finished system disk to the files people download: OVA, qcow2, VHDX, Vagrant box and their checksums."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from packer.errors import BuildError
from packer.ova.box import GIB, write_box
from packer.ova.descriptor import Disk, Machine, render
from packer.ova.package import checksums, sha256_of, write_ova
from packer.ova.signature import Signer
from packer.ova.streamvmdk import convert, write_empty
from packer.progress import run_logged

NAME = "pacs-appliance"


@dataclass(frozen=True)
class DataDisk:
    """A blank disk that the first boot claims. Which one is which is decided by size alone, smallest first."""

    name: str
    size_bytes: int
    description: str


# Strictly growing, and small enough to be imported thick on a laptop. Meant to be enlarged, see docs/install.
DATA_DISKS = (
    DataDisk("state", 8 * GIB, "Database, configuration, identity and journal"),
    DataDisk("tier1", 16 * GIB, "Images, tier 1: what arrived lately"),
    DataDisk("tier2", 32 * GIB, "Images, tier 2: what settled"),
)


@dataclass(frozen=True)
class Release:
    """What one build is called and dated."""

    version: str
    epoch_s: int

    @property
    def stem(self) -> str:
        """The beginning of every file name."""
        return f"{NAME}-{self.version}"


@dataclass(frozen=True)
class Exported:
    """The files of a release, all in one folder, and their SHA-256 by name."""

    ova: Path
    qcow2: Path
    vhdx: Path
    box: Path
    sums: Path
    digests: dict[str, str]
    others: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them, the checksums last."""
        return (self.ova, self.qcow2, self.vhdx, self.box, *self.others, self.sums)

    def with_files(self, *paths: Path) -> Exported:
        """The same release with more files, and their checksums."""
        digests = {**self.digests, **{path.name: sha256_of(path) for path in paths}}
        self.sums.write_text(checksums(digests.items()))
        return replace(self, digests=digests, others=(*self.others, *paths))


def export(
    system: Path,
    folder: Path,
    release: Release,
    log: Path,
    data_disks: tuple[DataDisk, ...] = DATA_DISKS,
    signer: Signer | None = None,
) -> Exported:
    """Write everything that is released into `folder`, from the qcow2 of the system disk."""
    capacity_bytes = virtual_size_bytes(system)
    ova = export_ova(system, capacity_bytes, folder, release, log, data_disks, signer)
    qcow2 = folder / f"{release.stem}.qcow2"
    # zlib, not zstd: QEMU before 5.1 and some importers of management tools read nothing else.
    options = ["-c", "-o", "compat=1.1,compression_type=zlib"]
    run_logged(["qemu-img", "convert", "-f", "qcow2", "-O", "qcow2", *options, system, qcow2], log, remedy=_REMEDY)
    vhdx = folder / f"{release.stem}.vhdx"
    write_vhdx(system, vhdx, log)
    box = folder / f"{release.stem}.libvirt.box"
    write_box(box, qcow2, capacity_bytes, release.epoch_s)
    digests = {path.name: sha256_of(path) for path in (ova, qcow2, vhdx, box)}
    sums = folder / "SHA256SUMS"
    sums.write_text(checksums(digests.items()))
    return Exported(ova, qcow2, vhdx, box, sums, digests)


def write_vhdx(system: Path, target: Path, log: Path) -> None:
    """The system disk for Hyper-V, of either generation: it imports no OVF.

    A dynamic disk in blocks of 1 MiB, as Microsoft advises for ext4 (else 32 MiB are kept for each file that grows),
    and unused blocks as "not present", which the format's readers all know; compared with what it was made from.
    """
    options = ["-o", "subformat=dynamic,block_size=1M,block_state_zero=off"]
    run_logged(["qemu-img", "convert", "-f", "qcow2", "-O", "vhdx", *options, system, target], log, remedy=_REMEDY)
    run_logged(["qemu-img", "compare", "-f", "qcow2", "-F", "vhdx", system, target], log, remedy=_REMEDY)


def export_ova(
    system: Path,
    capacity_bytes: int,
    folder: Path,
    release: Release,
    log: Path,
    data_disks: tuple[DataDisk, ...],
    signer: Signer | None = None,
) -> Path:
    """The OVA alone: VMDKs, descriptor, manifest, tar. The VMDKs are removed once they are in it."""
    vmdk = folder / f"{release.stem}-system.vmdk"
    used_bytes = convert(system, "qcow2", vmdk, f"{release.stem} {release.epoch_s} system", log)
    disks = [Disk("system", vmdk.name, vmdk.stat().st_size, capacity_bytes, used_bytes, "Programs; no data of yours")]
    paths = [vmdk]
    for data in data_disks:
        path = folder / f"{release.stem}-{data.name}.vmdk"
        write_empty(path, data.size_bytes, f"{release.stem} {release.epoch_s} {data.name}", log)
        disks.append(Disk(data.name, path.name, path.stat().st_size, data.size_bytes, 0, data.description))
        paths.append(path)
    ova = folder / f"{release.stem}.ova"
    descriptor = render(Machine(NAME, release.version, disks))
    write_ova(ova, f"{release.stem}.ovf", descriptor, paths, release.epoch_s, signer)
    for path in paths:
        path.unlink()
    return ova


def virtual_size_bytes(image: Path) -> int:
    """The size of the disk that a qcow2 holds."""
    answer = subprocess.run(
        ["qemu-img", "info", "--output=json", str(image)], capture_output=True, text=True, check=False
    )
    if answer.returncode != 0:
        raise BuildError(f"qemu-img can't read {image}: {answer.stderr.strip()}", _REMEDY)
    return int(json.loads(answer.stdout)["virtual-size"])


_REMEDY = "Read the log; when the disk is full, make room and start again."
