"""Whether volumes are claimed encrypted: said by a seed, or at the menu for a machine on which nothing is stored yet.

A seed is read before the first claim. The menu comes after it: the settings are on a state volume. So a set of volumes
on which nothing was ever stored is claimed anew at the next start, encrypted, and what was set is carried over in a
file on the system disk. Volumes with something on them stay as they are.
"""

from __future__ import annotations

import io
import logging
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from pacs.backup.master_key import MasterKey
from pacs.errors import PacsError
from pacs.machine import claim, encryption, filesystem, kept_settings, seeds, survey
from pacs.machine import machine_settings as table
from pacs.machine.policy import Adopt, Claim, Disk
from pacs.machine.records import SET_FILE, SystemRecord, read_system, write_system
from pacs.storage import durable
from pacs.storage.volume import IDENTITY_FILE

if TYPE_CHECKING:
    from pacs.machine.storage import Places

log = logging.getLogger(__name__)

NAME = "encrypt_volumes"
#: What is carried over, below the state volume. Keys are not: they stood on a disk in the clear.
_CARRIED = ("machine", "config")
_NOT_CARRIED = "config/keys"


def sheet_for_claim(places: Places) -> MasterKey | None:
    """A new sheet's key if volumes are to be claimed encrypted, by a seed or by what was carried over; else None."""
    choice = _carried_choice(places.carried) or _seeded_choice()
    if choice in ("", "off"):
        return None
    encryption.require_programs(with_tpm=choice == "tpm")
    return MasterKey.make()


def _seeded_choice() -> str:
    try:
        return table.parse(NAME, seeds.collect().get(NAME, ""))
    except PacsError as error:  # told on the screen when the settings are taken
        log.warning("the seed's %s is not taken: %s", NAME, error)
        return ""


def opened_by_tpm(state: Path) -> bool | None:
    """Whether the TPM is to open the state volume; None if nothing is said of it: then it stays as it is.

    At the first start the seed has not been taken yet.
    """
    choice = _kept_choice(state) or _seeded_choice()
    return None if choice in ("", "off") else choice == "tpm"


def _kept_choice(state: Path) -> str:
    """What a state volume's settings say; empty if nothing, or if they cannot be read: that is told elsewhere."""
    try:
        kept = kept_settings.load(state)
    except PacsError as error:
        log.warning("%s", error)
        return ""
    return kept.managed.get(NAME) or kept.values.get(NAME, "")


def _carried_choice(carried: Path) -> str:
    if not carried.exists():
        return ""
    with tarfile.open(carried) as archive:
        member = archive.extractfile("choice")
        return member.read().decode() if member else ""


def claimed_anew(made: Adopt, places: Places) -> Claim | None:
    """A claim of a set on which nothing is stored and that is to be encrypted; None if it stays as it is.

    From here on its disks count as a claim's that was cut short.
    """
    state = next(made.disks[each.fs_uuid] for each in made.members if "state" in each.roles)
    if state.backing or filesystem.is_mounted(places.state):
        return None
    with filesystem.looked_into(state.path, "ro") as root:
        choice = _kept_choice(root) or "off"
        if choice == "off" or not _is_unused(root, made):
            return None
        encryption.require_programs(with_tpm=choice == "tpm")  # before anything is given up
        carry(root, choice, places.carried)
    own = {each.fs_uuid for each in made.members}
    hardware = {fs_uuid: disk.hardware for fs_uuid, disk in made.disks.items() if fs_uuid in own}
    earlier = read_system(places.memory)
    before = earlier.hardware if earlier else {}
    write_system(places.memory, SystemRecord(claim.new_id(), (), claiming=True, hardware={**before, **hardware}))
    with filesystem.looked_into(state.path, "rw") as root:  # no set any more, also if this is cut short
        for name in (IDENTITY_FILE, SET_FILE):
            (root / name).unlink(missing_ok=True)
        durable.fsync_folder(root)
    chosen: dict[str, tuple[Disk, tuple[str, ...]]] = {}
    for member in made.members:
        disk, roles = chosen.get(member.fs_uuid, (made.disks[member.fs_uuid], ()))
        chosen[member.fs_uuid] = (disk, tuple(sorted((*roles, *member.roles))))
    return Claim(tuple(chosen.values()), made.offered)


def _is_unused(state: Path, made: Adopt) -> bool:
    """Whether nothing was stored but settings, and no disk was added and no repository made."""
    if len(made.disks) > len({each.fs_uuid for each in made.members}):
        return False
    if any(disk.volume and disk.volume.has_data and disk.label != "pacs-state" for disk in made.disks.values()):
        return False
    if any(each for name in ("repositories", "standby") for each in (state / "config" / name).glob("*")):
        return False
    return all(path.is_relative_to(state / "config") for path in survey.stored_files(state, is_state=True))


def carry(state: Path, choice: str, carried: Path) -> None:
    """Keep the settings of a state volume on the system disk, durably."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        word = tarfile.TarInfo("choice")
        word.size = len(choice)
        archive.addfile(word, io.BytesIO(choice.encode()))
        for name in _CARRIED:
            if (state / name).exists():
                archive.add(state / name, name, filter=lambda one: None if one.name == _NOT_CARRIED else one)
    durable.make_folders(carried.parent)
    durable.replace_file(carried, content.getvalue(), 0o600)


def put_back(state: Path, carried: Path) -> None:
    """Put what was carried onto the new state volume, and forget it. Done again if it was cut short."""
    if not carried.exists():
        return
    with tarfile.open(carried) as archive:
        archive.extractall(state, [one for one in archive if one.name != "choice"], filter=_as_it_was)  # noqa: S202
    durable.fsync_folder(state)
    carried.unlink()


def _as_it_was(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
    """Owners as they were, nothing outside."""
    checked = tarfile.tar_filter(member, path)
    return checked.replace(mode=member.mode, deep=False) if checked else None
