"""The standby's volumes, as the archive ships to them; and whose is which after a promotion.

Each local volume of the standby is a volume of the archive's index, of tier 5: over SFTP, in the format of the
archive's own, so that a promoted standby has them as its own without touching a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pacs.backup.standby_files import OfferedVolume, StandbyFiles, Twin
from pacs.errors import UsageError
from pacs.index import volumes as rows
from pacs.index.database import Database
from pacs.index.shipping import may_have
from pacs.index.volumes import REPOSITORY_TIER
from pacs.storage.kinds import Volume


@dataclass(frozen=True)
class Standby:
    """The standby as a target of shipping."""

    name: str
    volume_ids: tuple[str, ...]
    twin: Twin
    windows: tuple[str, ...] = ()
    bandwidth_bytes_per_s: int | None = None

    @property
    def is_repository(self) -> bool:
        """An object has the path there that it has on the archive's own volumes."""
        return False


def standby_of(data: Path) -> Standby | None:
    """The standby of the archive in a data directory; None if it has none. Raise SettingsError."""
    known = StandbyFiles(data).twin()
    if known is None or known[1] != "standby" or not known[0].volumes:
        return None
    return Standby(known[0].name, tuple(each.volume_id for each in known[0].volumes), known[0])


def offered_volumes(database: Database) -> tuple[OfferedVolume, ...]:
    """The local volumes of tiers 1 and 2 that an instance offers to its twin."""
    found = tuple(
        OfferedVolume(row.volume_id, row.tier, row.location)
        for row in rows.list_volumes(database)
        if row.kind == "local" and row.tier < REPOSITORY_TIER and row.state == "active"
    )
    if not found:
        raise UsageError("This node has no volume on a disk of its own. Start it once; `pacs volume list` shows them.")
    return found


def register_volumes(database: Database, standby: Standby) -> int:
    """Give each of the standby's volumes its row in the index, where it has none; return how many had none."""
    known = {each.volume_id for each in rows.list_volumes(database, with_retired=True)}
    missing = [each for each in standby.twin.volumes if each.volume_id not in known]
    for volume in missing:
        with rows.adding(database) as connection:
            rows.insert_volume(connection, standby.twin.row(volume))
            may_have(connection, volume.volume_id)
    return len(missing)


def first_here(standby: Standby, here: Mapping[str, Volume]) -> Volume | None:
    """The first of the standby's volumes that is here: it holds what is no object."""
    return next((here[each] for each in standby.volume_ids if each in here), None)
