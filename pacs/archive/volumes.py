"""The volumes of an instance: opened, checked against the index and the appliance, made known.

A volume is made only where the index knows none for its tier. A tier that had one never starts with an empty folder
in its place.
"""

from __future__ import annotations

from pathlib import Path

from pacs.errors import ForeignVolume, VolumeMissing
from pacs.index import volumes as rows
from pacs.index.database import Database
from pacs.storage.files import Volume
from pacs.storage.volume import IDENTITY_FILE, create_identity, read_identity


def open_volumes(database: Database, data: Path, roots: dict[int, Path]) -> dict[int, Volume]:
    """Open the volume of each tier in `roots`; return them by tier.

    Raise VolumeMissing if a volume that the index knows is not there, ForeignVolume if another appliance's is.
    """
    appliance_id = read_identity(data).appliance_id
    return {tier: _open_tier(database, tier, root, appliance_id) for tier, root in roots.items()}


def _open_tier(database: Database, tier: int, root: Path, appliance_id: str) -> Volume:
    known = [row["volume_id"] for row in rows.volumes_of_tier(database, tier)]
    role = f"tier{tier}"
    if not known and not (root / IDENTITY_FILE).exists():
        root.mkdir(mode=0o750, parents=True, exist_ok=True)
        create_identity(root, (role,), appliance_id)
    volume = Volume(root, role)
    if volume.identity.appliance_id != appliance_id:
        raise ForeignVolume(
            f"The volume at {root} belongs to appliance {volume.identity.appliance_id}, this is {appliance_id}. "
            "Attach this appliance's own disks."
        )
    if known and volume.volume_id not in known:
        raise VolumeMissing(
            f"The volume at {root} is {volume.volume_id}; the index knows {', '.join(known)} in tier {tier}. "
            "Attach the disk that holds it."
        )
    rows.register_volume(database, volume.volume_id, tier, root)
    return volume
