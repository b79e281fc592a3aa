"""What a rebuild is made from: every volume, and the journal in its longest copy."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from pacs.archive import replay
from pacs.archive.known_volumes import open_known
from pacs.archive.rebuild_mark import Begun
from pacs.archive.replay import Journalled
from pacs.archive.volumes import Volumes, open_volumes
from pacs.errors import UsageError, VolumeMissing
from pacs.index import volumes as rows
from pacs.index.database import Database
from pacs.index.volumes import KnownVolume
from pacs.settings import Settings
from pacs.storage import durable
from pacs.storage.journal import Journal, copy_on, reconciled
from pacs.storage.segments import lines_of
from pacs.storage.volume import IDENTITY_FILE, read_identity

log = logging.getLogger(__name__)


def open_sources(
    settings: Settings, database: Database, begun: Begun, journal: Path | None
) -> tuple[Volumes, dict[str, bytes], Journalled]:
    """The volumes, the journal's segments, and what they say. Raise VolumeError, DataTooNew or UsageError."""
    data = settings.data
    first = _read(_ours(data) if journal is None else _in_folder(journal))
    volumes = _named_volumes(settings, database, begun, first)
    segments, journalled = _longest(data, volumes, journal)
    _require_all(settings, database, begun, volumes, journalled)
    return volumes, segments, journalled


def roots_of(settings: Settings) -> dict[int, Path]:
    """Tier → the volume that the settings name."""
    roots = {1: settings.tier1_root}
    if settings.tier2_root != settings.tier1_root:
        roots[2] = settings.tier2_root
    return roots


def told_without(told: Begun, name: str, volume_id: str) -> bool:
    """Whether a rebuild was told to go on without a volume."""
    return name in told.without or volume_id in told.without


def require_identity(root: Path, name: str) -> None:
    """Raise VolumeMissing unless there is a volume at root."""
    if not (root / IDENTITY_FILE).exists():
        raise VolumeMissing(
            f"Volume {name} is not at {root}. Attach and mount its disk; or go on without what it holds: "
            f"`pacs index rebuild --without {name}`."
        )


def _named_volumes(settings: Settings, database: Database, begun: Begun, journalled: Journalled) -> Volumes:
    """The volumes that the settings and the journal name."""
    _put_volumes(settings, database, journalled)
    known = rows.list_volumes(database, with_retired=True)
    retired = {row.name for row in known if row.state == "retired"}
    roots = {}
    for tier, root in roots_of(settings).items():
        name = f"tier{tier}"
        if name not in retired and not told_without(begun, name, ""):
            require_identity(root, name)
            roots[tier] = root
    _register(settings, database, roots)
    volumes = open_volumes(database, settings.data, roots)
    with database.transaction() as connection:
        for root in roots.values():
            identity = read_identity(root)
            since = datetime.fromisoformat(identity.created)
            rows.set_known_since(connection, identity.volume_id, since)
    return volumes


def _register(settings: Settings, database: Database, roots: Mapping[int, Path]) -> None:
    """Know the settings' volumes: no journal tells of them, and where it tells of others on their tier, what is at a
    root is taken only if it is known. Raise ForeignVolume, VolumeMissing."""
    appliance_id = read_identity(settings.data).appliance_id
    named = {row.name: row.volume_id for row in rows.list_volumes(database, with_retired=True)}
    for tier, root in roots.items():
        found = KnownVolume(read_identity(root).volume_id, f"tier{tier}", tier, str(root))
        if named.get(found.name, found.volume_id) != found.volume_id:
            continue  # the journal knows another one there, and that it is missing is told
        open_known(settings.data, appliance_id, found).close()
        with database.transaction() as connection:
            rows.insert_volume(connection, found)


def _put_volumes(settings: Settings, database: Database, journalled: Journalled) -> None:
    roots = roots_of(settings)
    with database.transaction() as connection:
        for volume, since in journalled.standing.volumes.values():
            location = volume.location or str(roots.get(volume.tier, ""))
            rows.put_as_told(connection, replace(volume, location=location))
            if since is not None:
                rows.set_known_since(connection, volume.volume_id, since)


def _require_all(
    settings: Settings, database: Database, begun: Begun, volumes: Volumes, journalled: Journalled
) -> None:
    """Raise VolumeMissing unless every volume is here, but for those that were given up."""
    _put_volumes(settings, database, journalled)  # a copy of the journal may know more than ours
    volumes.refresh()
    for row in volumes.rows:
        if row.volume_id in volumes.absent and not told_without(begun, row.name, row.volume_id):
            raise VolumeMissing(
                f"Volume {row.name} is not here: {volumes.absent[row.volume_id]} Or go on without what it holds: "
                f"`pacs index rebuild --without {row.name}`."
            )


def _ours(data: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Journal(data).segments()}


def _in_folder(folder: Path) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in sorted(folder.glob("*.jsonl"))}
    if not found:
        raise UsageError(f"There is no segment of a journal in {folder}. Name the folder that has them.")
    return found


def _read(segments: dict[str, bytes]) -> Journalled:
    return replay.read(line for name in sorted(segments) for line in lines_of(segments[name]))


def _longest(data: Path, volumes: Volumes, right: Path | None) -> tuple[dict[str, bytes], Journalled]:
    """The journal: ours and every volume's copy, each segment where it is longest."""
    if right is not None:
        segments = _in_folder(right)
        return segments, _read(segments)
    copies = {"the data directory": _ours(data), **{volume.location: copy_on(volume) for volume in volumes.all()}}
    segments, words = reconciled(copies)
    for each in words:
        log.warning("%s The longest copy of each counts.", each)
    return segments, _read(segments)


def bring_up_to_date(data: Path, segments: dict[str, bytes]) -> None:
    """The journal goes on from the one that the index was made from."""
    folder = Journal(data).folder
    try:
        durable.make_folders(folder)
        for name, content in segments.items():
            path = folder / name
            if not path.exists() or path.read_bytes() != content:
                durable.replace_file(path, content)
    except OSError as error:
        raise durable.as_volume_error(error, folder) from error
