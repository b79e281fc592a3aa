"""The recovery sheet: printed, tried, and made anew."""

from __future__ import annotations

from pathlib import Path

from pacs import clock
from pacs.archive.volumes import Volumes
from pacs.backup.keys import KEYRING_SEALED, MasterKey, keep_master_key, master_key, seal, sealed_in, unseal
from pacs.backup.repositories import ROLE, Repository, place_of, repositories
from pacs.errors import ForeignVolume, NotFound, PacsError, WrongKey
from pacs.storage.keyring import Keyring
from pacs.storage.kinds import Volume
from pacs.storage.probing import Finding
from pacs.storage.sealed import ABOUT_FILE, About
from pacs.storage.trial import require_no_trial
from pacs.storage.volume import appliance_ids, read_identity

_SHEET = """\
RECOVERY SHEET of PACS appliance {appliance_id}
{line}
Printed {now}. Sheet {key_id}; another number means another sheet, and the newest counts.

Who has this paper and a repository can read every image. Keep it away from the appliance: in a safe, and once more in
another house. Without it nobody can read a backup, the makers of the appliance neither.

The key (no I, L, O or U in it; 0 and 1 are digits; small letters do):

    {first}
    {second}
    {third}

The repositories:

{places}

Restore: import the appliance's OVA on whatever hypervisor there is, start it, and choose "restore" on its screen, or
run `pacs restore`. It asks for a repository and for the key, and shows what it found before it does anything. Have
ready what opens the repository's place: the share's password, the bucket's access keys or the SFTP login.

Try this paper once a year: `pacs backup keys verify`.

If there is no appliance any more: rclone reads the objects. A crypt remote over the repository's folder with
filename_encryption=off, directory_name_encryption=false and the key above, hyphens between its groups, as password
gives keyring.json; with the two passwords for objects from it, a second one over the folder objects/ gives every image
as DICOM, named by its SHA-256. (docs/operate/backup-keys.md)
"""


def sheet(data: Path) -> str:
    """The recovery sheet of an instance, as text for a printer: 120 columns at most."""
    key = master_key(data)
    Keyring.open(data)  # made with it, so that a sheet never stands for keys that come later
    groups = key.groups()
    places = [f"    {each.name:16} {each.place}" for each in repositories(data)]
    return _SHEET.format(
        appliance_id=read_identity(data).appliance_id,
        line="=" * 72,
        now=f"{clock.now():%Y-%m-%d}",
        key_id=key.key_id,
        first="-".join(groups[:3]) + "-",
        second="-".join(groups[3:6]) + "-",
        third="-".join(groups[6:]),
        places="\n".join(places) or "    none yet: `pacs backup repository add`; then print this again",
    )


def rotated(data: Path) -> MasterKey:
    """Make a new key for the sheet, and return it. The repositories are to be sealed anew with it: `reseal`."""
    require_no_trial(data)
    Keyring.open(data)
    new = MasterKey.make()
    keep_master_key(data, new)
    return new


def reseal(data: Path, volumes: Volumes) -> list[Finding]:
    """Seal the keys in every repository with the sheet that is valid now."""
    return [_resealed(data, volumes, each) for each in repositories(data)]


def is_sealed_anew(data: Path, volume: Volume) -> bool:
    """See to it that a repository's keys are sealed by the sheet that is valid now; whether they were not."""
    keyring, master = Keyring.open(data), master_key(data)
    try:
        if unseal(sealed_in(volume), master) == keyring:
            return False
    except (WrongKey, NotFound):
        pass
    write_keys(data, volume)
    return True


def write_keys(data: Path, volume: Volume) -> None:
    """Write into a repository whose it is, and its keys, sealed by the sheet that is valid now."""
    keyring = Keyring.open(data)
    about = About(read_identity(data).appliance_id, volume.volume_id, keyring.ring_id)
    volume.replace_small(KEYRING_SEALED, seal(keyring, master_key(data)))
    volume.replace_small(ABOUT_FILE, about.content())  # last: with it, it is a repository


def recover(data: Path, repository: Repository, typed: MasterKey) -> None:
    """Make the keys that a repository of this appliance holds the appliance's again. Raise WrongKey, ForeignVolume."""
    opened = place_of(repository).open(ROLE)
    try:
        if opened.identity.appliance_id not in appliance_ids(data):
            raise ForeignVolume(
                f"The repository at {repository.place} is of appliance {opened.identity.appliance_id}, which is not "
                "this one. Nothing was changed."
            )
        keyring = unseal(sealed_in(opened), typed)
    finally:
        opened.close()
    keyring.keep(data)
    keep_master_key(data, typed)


def verify(data: Path, volumes: Volumes, typed: MasterKey) -> list[Finding]:
    """Whether a key that was typed opens each repository, and gives the keys that are in use here."""
    return [_verified(data, volumes, each, typed) for each in repositories(data)]


def _resealed(data: Path, volumes: Volumes, each: Repository) -> Finding:
    try:
        write_keys(data, volumes.get(each.volume_id))
    except PacsError as error:
        return Finding(each.name, False, str(error))
    return Finding(each.name, True, "sealed by the new sheet")


def _verified(data: Path, volumes: Volumes, each: Repository, typed: MasterKey) -> Finding:
    try:
        is_same = unseal(sealed_in(volumes.get(each.volume_id)), typed) == Keyring.open(data)
    except PacsError as error:
        return Finding(each.name, False, str(error))
    return Finding(each.name, is_same, "the key opens it" if is_same else "its keys are others than the appliance's")
