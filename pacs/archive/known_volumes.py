"""Volumes that the index knows, opened: what is at their places must be they. And the first one of a tier, made.

A volume is made only where the index knows none for its tier: a tier that had one never starts with an empty folder in
its place.
"""

from __future__ import annotations

from pathlib import Path

from pacs.errors import DataTooNew, ForeignVolume, PacsError, VolumeError, VolumeMissing
from pacs.index.volumes import REPOSITORY_TIER, KnownVolume
from pacs.storage.kinds import Volume
from pacs.storage.opening import open_volume
from pacs.storage.trial import trial_at
from pacs.storage.volume import IDENTITY_FILE, create_identity, former_appliances, read_identity


def open_known(data: Path, appliance_id: str, row: KnownVolume) -> Volume:
    """Open a volume that the index knows. Raise VolumeMissing, or ForeignVolume if another is in its place."""
    opened = open_volume(row.kind, row.location, row.role, row.options, secrets_of(data, row))
    problem: PacsError | None = None
    if opened.identity.appliance_id not in (appliance_id, *former_appliances(data)):
        problem = ForeignVolume(
            f"The volume at {row.location} belongs to appliance {opened.identity.appliance_id}, this is "
            f"{appliance_id}. Attach this appliance's own disks."
        )
    elif opened.volume_id != row.volume_id:
        problem = VolumeMissing(
            f"The volume at {row.location} is {opened.volume_id}; the index knows {row.volume_id} there, in tier "
            f"{row.tier}. Attach the disk that holds it."
        )
    if problem is not None:
        opened.close()
        raise problem
    return _sealed(data, opened) if row.tier == REPOSITORY_TIER else opened


def _sealed(data: Path, opened: Volume) -> Volume:
    from pacs.storage.keyring import Keyring  # here, as few commands need it
    from pacs.storage.sealed import SealedVolume
    from pacs.storage.sealed_read import ReadOnlySealed

    try:
        kind = SealedVolume if trial_at(data) is None else ReadOnlySealed
        return kind(opened, Keyring.open(data))
    except BaseException:
        opened.close()
        raise


def secrets_of(data: Path, row: KnownVolume) -> Path:
    """The file of a volume's keys and passwords, mode 0600, where its kind has any."""
    if row.tier == REPOSITORY_TIER:
        return repositories_folder(data) / f"{row.name}.credentials"
    return data / "config" / "volumes" / f"{row.name}.toml"


def repositories_folder(data: Path) -> Path:
    """Where what a person said of the backup repositories is kept."""
    return data / "config" / "repositories"


def at_root(tier: int, root: Path, appliance_id: str, known: set[str], in_restore: bool) -> KnownVolume | None:
    """The volume at the root of a tier, made if the index knows none; None if it is not one that may be taken."""
    role = f"tier{tier}"
    try:
        if not known and not (root / IDENTITY_FILE).exists():
            root.mkdir(mode=0o750, parents=True, exist_ok=True)
            create_identity(root, (role,), appliance_id)
        volume_id = read_identity(root).volume_id
        if known and volume_id not in known and not in_restore:
            return None  # which is missing, the refresh tells
        found = KnownVolume(volume_id, role, tier, str(root))
        open_known(root, appliance_id, found).close()
    except DataTooNew:
        raise
    except VolumeError:
        if known and not in_restore:
            return None
        raise
    return found
