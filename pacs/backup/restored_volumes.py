"""The volumes of a restored archive: which are there yet, which are gone and have empty ones in their place.

The index that came back names the volumes of the appliance that was backed up. Its disks are gone, or some of them: a
share or a bucket is often there yet, and a disk that outlived the other one may be attached. What can be opened stays;
copies on local disks that cannot are dropped, in the journal first; a share or bucket that does not answer is left as
it is, as nothing is known of it. A trial copy leaves all of them alone: they are the living
archive's.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pacs.archive.known_volumes import open_known
from pacs.errors import DigestMismatch, NotFound, PacsError
from pacs.index import movement, restores
from pacs.index.database import Database, Row
from pacs.index.restores import Replaced
from pacs.index.volumes import REPOSITORY_TIER, KnownVolume, list_volumes
from pacs.storage import durable
from pacs.storage.journal import Journal
from pacs.storage.kinds import Volume
from pacs.storage.names import repository_path
from pacs.storage.volume import IDENTITY_FILE, create_identity, read_identity

log = logging.getLogger(__name__)

#: So many files of a repository are asked for at once.
_ASKED_AT_ONCE = 16


@dataclass(frozen=True)
class Survey:
    """The volumes of a restored archive."""

    #: Those of the index that are there, or of which nothing is known now.
    kept: tuple[KnownVolume, ...]
    absent: tuple[KnownVolume, ...]
    gone: tuple[KnownVolume, ...]
    #: Empty ones, at the places that the settings name.
    new: tuple[KnownVolume, ...]


def survey(data: Path, database: Database, roots: dict[int, Path], is_trial: bool = False) -> Survey:
    """Look at the volumes of the restored index, and at those at the roots of tiers 1 and 2, made if need be."""
    appliance_id = read_identity(data).appliance_id
    at_roots = [_at_root(tier, root, appliance_id) for tier, root in sorted(roots.items())]
    here = {volume.volume_id for volume in at_roots}
    kept: list[KnownVolume] = []
    absent: list[KnownVolume] = []
    gone: list[KnownVolume] = []
    for row in list_volumes(database, with_retired=True):
        is_left = row.tier == REPOSITORY_TIER or row.state == "retired"
        if is_left or row.volume_id in here:
            kept.append(row)
        elif is_trial:  # whatever is at its place is the archive's that goes on
            gone.append(row)
        elif _is_there(data, appliance_id, row):
            kept.append(row)
        else:
            (gone if row.kind == "local" else absent).append(row)
    known = {row.volume_id for row in kept}
    return Survey(tuple(kept), tuple(absent), tuple(gone), tuple(v for v in at_roots if v.volume_id not in known))


def _at_root(tier: int, root: Path, appliance_id: str) -> KnownVolume:
    role = f"tier{tier}"
    if not (root / IDENTITY_FILE).exists():
        durable.make_folders(root)
        create_identity(root, (role,), appliance_id)
    return KnownVolume(read_identity(root).volume_id, role, tier, str(root))


def _is_there(data: Path, appliance_id: str, row: KnownVolume) -> bool:
    try:
        open_known(data, appliance_id, row).close()
    except PacsError as error:
        log.info("volume %s of the restored archive is not here: %s", row.name, error)
        return False
    return True


def take_over(
    database: Database, journal: Journal, found: Survey, restore_id: str, repository: KnownVolume, volume: Volume,
    point: str, restored_to: datetime, is_trial: bool = False,
) -> Replaced:  # fmt: skip
    """Put the new volumes in the place of those that are gone, and have all that is in the repository only come back.

    volume: the repository, open. Once: a restore that has done so before does nothing.
    """
    if restores.is_noted(database, restore_id):
        return Replaced(0, 0)
    gone = [row.volume_id for row in found.gone]
    journal.append("restore", point=point, restore_id=restore_id, gone=gone)
    note_shipped(database, repository, volume, gone)
    with database.transaction() as connection:
        replaced = restores.replace_volumes(connection, gone, found.new)
        restores.forget_what_went_on(connection)
        if is_trial:
            restores.forget_what_is_owed(connection)
        restores.begin_bulk(connection, restore_id, repository.name, point, restored_to)
    return replaced


def note_shipped(database: Database, repository: KnownVolume, volume: Volume, gone: Collection[str]) -> int:
    """Note the copies in a repository that had come there when the database did not know it yet; return how many.

    A recovery point counts when every object that it names is in the repository: their rows come a moment later.
    """
    with database.transaction() as connection:
        restores.note_source(connection, repository)
    unknown = restores.without_copy_elsewhere(database, gone)

    def is_there(row: Row) -> bool:
        try:
            return bool(volume.size_of(repository_path(bytes(row["sha256"]))) == row["size_bytes"])
        except (NotFound, DigestMismatch):
            return False

    with ThreadPoolExecutor(_ASKED_AT_ONCE, thread_name_prefix="shipped") as pool:
        there = [row for row, answer in zip(unknown, pool.map(is_there, unknown), strict=True) if answer]
    with database.transaction() as connection:
        paths = [(row["object_key"], repository_path(bytes(row["sha256"]))) for row in there]
        movement.add_copies(connection, volume.volume_id, paths)
    return len(there)
