"""Software RAIDs (mdadm): made of blank disks, watched, mended. Runs as root.

What it promises: nothing is written to a disk that is not blank, unless it was a part of the very same array; no disk
is taken out of an array that would lose data without it. An array is known by its superblocks alone (its home host is
"any"), so it comes up by itself under any system disk, wherever its disks are plugged in.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pacs.errors import UsageError
from pacs.machine import filesystem, survey
from pacs.machine.commands import output, run
from pacs.machine.disk import chosen, require_blank
from pacs.machine.policy import GIB, Disk
from pacs.storage import arrays
from pacs.storage.arrays import Array

if TYPE_CHECKING:
    from pacs.machine.storage import Places

log = logging.getLogger(__name__)

#: By level, the fewest disks that it makes sense with.
LEVELS = {"1": 2, "5": 3, "6": 4, "10": 4}
#: A name stands in each superblock, and is a file's below /dev/md.
_NAME = re.compile(r"[a-z][a-z0-9-]{0,14}", re.ASCII)
#: So much of a new array is zeroed: what may lie on its disks there would make it look used.
_ZEROED_START_BYTES, _ZEROED_END_BYTES = 8 << 20, 2 << 20
#: Disks of one make may differ by a little; more is told of.
_DIFFERS = 0.01


def create(places: Places, name: str, level: str, devices: Iterable[str], spares: int = 0) -> tuple[Path, list[str]]:
    """Make an array of blank disks, the last `spares` of them waiting. Return its device, and what should be known.

    Raise UsageError with what to do before anything is written.
    """
    paths = [str(Path(each).resolve()) for each in devices]
    _require_shape(name, level, paths, spares)
    found = survey.disks((), places.disk_types, places.disks)
    disks = [chosen(found, path) for path in paths]
    for disk in disks:
        require_blank(disk, found)
    target = Path("/dev/md", name)
    if target.exists():
        raise UsageError(f"There is an array {name} already. Take another name; `pacs raid status` shows all.")
    options = [f"--level={level}", f"--raid-devices={len(paths) - spares}", f"--name={name}", "--homehost=any"]
    options += [f"--spare-devices={spares}"] if spares else []
    run("mdadm", "--create", str(target), "--run", "--metadata=1.2", "--bitmap=internal", *options, *paths)
    filesystem.settle()
    _zero_ends(target)
    return target, _notes(level, disks)


def _require_shape(name: str, level: str, paths: list[str], spares: int) -> None:
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot be an array's name: a small letter, then small letters, digits and hyphens.")
    if level not in LEVELS:
        raise UsageError(f"There is no level {level!r} here. Take one of {', '.join(LEVELS)}; for an archive, 6.")
    if len(set(paths)) != len(paths):
        raise UsageError("A disk is named twice.")
    if spares < 0 or len(paths) - spares < LEVELS[level]:
        raise UsageError(f"RAID {level} needs {LEVELS[level]} disks or more, besides spares; {len(paths)} are named.")


def _zero_ends(device: Path) -> None:
    """Zeros where a file system would begin and end: then the array counts as blank, as its disks did."""
    size_bytes = int(output("blockdev", "--getsize64", str(device)))
    with device.open("r+b", buffering=0) as opened:
        for start, end in ((0, _ZEROED_START_BYTES), (size_bytes - _ZEROED_END_BYTES, size_bytes)):
            opened.seek(max(start, 0))
            opened.write(bytes(min(end, size_bytes) - max(start, 0)))
    run("blockdev", "--flushbufs", str(device))
    run("sync", str(device))


def _notes(level: str, disks: list[Disk]) -> list[str]:
    sizes = [disk.size_bytes for disk in disks]
    notes = []
    if max(sizes) - min(sizes) > _DIFFERS * max(sizes):
        notes.append(
            f"The disks differ: of each only {min(sizes) / GIB:.1f} GiB are used, as much as the smallest has."
        )
    if level == "5":
        notes.append("RAID 5 stands one failed disk. While it is rebuilt a second one loses all: RAID 6 stands two.")
    return notes


def find(name: str) -> Array:
    """An array by its name, or by its device. Raise UsageError."""
    path = Path(name) if name.startswith("/dev/") else Path("/dev/md", name)
    device = path.resolve().name
    for array in arrays.arrays():
        if array.device == device:
            return array
    known = ", ".join(described(each)["name"] or each.device for each in arrays.arrays())
    raise UsageError(f"There is no array {name}. There are: {known or 'none'}.")


def add(places: Places, array: Array, device: str) -> str:
    """Give an array a blank disk, or back one that was its own: rebuilt onto if one is missing, else a spare."""
    path = str(Path(device).resolve())
    own = described(array)["uuid"]
    if not own or _uuid_on(path) != own:
        found = survey.disks((), places.disk_types, places.disks)
        require_blank(chosen(found, path), found)
    elif path in (f"/dev/{each.disk}" for each in array.members if not each.has_failed):
        raise UsageError(f"{path} is in this array already.")
    run("mdadm", "--manage", f"/dev/{array.device}", "--add", path)
    filesystem.settle()
    return "It is rebuilt onto now." if array.missing else "It waits as a spare."


def replace(places: Places, array: Array, old: str, new: str) -> None:
    """Copy a disk that still works onto a new one, and let that take its place: nothing is missing meanwhile."""
    member = _member(array, old)
    if member.has_failed or member.slot is None:
        raise UsageError(
            f"{old} is not in use any more. Take it out (`pacs raid remove`), then `pacs raid add` the new."
        )
    add(places, array, new)
    paths = (f"/dev/{member.disk}", str(Path(new).resolve()))
    run("mdadm", "--manage", f"/dev/{array.device}", "--replace", paths[0], "--with", paths[1])


def remove(array: Array, device: str, may_fail: bool = False) -> None:
    """Take a disk out that has failed, or is a spare; with may_fail one in use too, if the array stands that."""
    member = _member(array, device)
    path, md = f"/dev/{member.disk}", f"/dev/{array.device}"
    if not member.has_failed and not member.is_spare:
        if array.may_fail < 1:
            raise UsageError(f"{path} is needed: without it the array loses data. Have it whole again first.")
        if not may_fail:
            raise UsageError(
                f"{path} is in use. Copy it onto a new disk (`pacs raid replace`), or have it fail now: --fail."
            )
        run("mdadm", "--manage", md, "--fail", path)
    run("mdadm", "--manage", md, "--remove", path)
    # Else the next start would take it for a part of the array again. A dead disk cannot be written to.
    run("mdadm", "--zero-superblock", path, accept=range(256))


def compare(array: Array) -> None:
    """Begin to compare all disks of an array with each other, as the timer does once a month."""
    if array.doing != "idle":
        raise UsageError(f"It is busy ({array.doing}). Try again when that is done: `pacs raid status`.")
    if array.missing:
        raise UsageError("It lacks a disk, so there is nothing to compare. Replace that first.")
    run("mdadm", "--misc", "--action=check", f"/dev/{array.device}")


def start_incomplete() -> None:
    """Start arrays of which disks are missing, if they can do without. That it cannot is seen by what is there then."""
    if shutil.which("mdadm") is None:
        return
    run("mdadm", "--incremental", "--run", "--scan", accept=range(256))
    run("mdadm", "--assemble", "--scan", "--run", accept=range(256))
    filesystem.settle()


def described(array: Array) -> dict[str, str]:
    """Its name and id, from its superblocks; empty if it has none that mdadm knows."""
    said = run("mdadm", "--detail", "--export", f"/dev/{array.device}", accept=range(256)).stdout
    values = _values(said)
    name = values.get("MD_DEVNAME") or values.get("MD_NAME", "").rpartition(":")[2]
    return {"name": name, "uuid": values.get("MD_UUID", "")}


def disk_facts(disk: str) -> dict[str, Any]:
    """What is printed on a disk and where it is plugged in, as far as it says. disk: the kernel's name."""
    values = _values(run("udevadm", "info", "--query=property", f"--name=/dev/{disk}", accept=range(256)).stdout)
    serial = next((values[name] for name in ("ID_SCSI_SERIAL", "ID_SERIAL_SHORT", "ID_SERIAL") if values.get(name)), "")
    said = output("lsblk", "--json", "--bytes", "--nodeps", "--output", "SIZE", f"/dev/{disk}")
    size_bytes = int(json.loads(said)["blockdevices"][0]["size"] or 0)
    return {
        "disk": disk,
        "serial": serial,
        "model": values.get("ID_MODEL", "").replace("_", " ").strip(),
        "place": values.get("ID_PATH", ""),
        "size_bytes": size_bytes,
    }


def _uuid_on(path: str) -> str:
    return _values(run("mdadm", "--examine", "--export", path, accept=range(256)).stdout).get("MD_UUID", "")


def _member(array: Array, device: str) -> arrays.Member:
    name = Path(device).resolve().name
    for member in array.members:
        if member.disk == name:
            return member
    raise UsageError(f"{device} is no disk of this array: {', '.join(each.disk for each in array.members)}.")


def _values(said: str) -> dict[str, str]:
    """Lines NAME=value, as mdadm --export and udevadm write them."""
    return {name: value.strip("'\"") for name, _, value in (line.partition("=") for line in said.splitlines()) if name}
