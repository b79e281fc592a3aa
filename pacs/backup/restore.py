"""Restoring a recovery point onto an empty appliance.

    point verified → room checked → objects written and compared → database replaced → copies renewed → state

Objects come first: bytes without rows are harmless, rows without bytes are not. A mark in the data directory keeps
the services from starting in between; a restore that was killed is simply run again. The appliance keeps its own id
and its volumes; keys, settings and journal become those of the one that was backed up.
"""

from __future__ import annotations

import logging
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pacs.archive.volumes import Volumes
from pacs.backup.backup import STATE_FOLDERS, Progress, no_progress
from pacs.backup.mark import MARK
from pacs.backup.repository import Manifest, Repository
from pacs.errors import DataTooNew, NotFound, RestoreError
from pacs.index import database as index
from pacs.index import recovery
from pacs.index.database import Database
from pacs.storage import durable
from pacs.storage.files import RESERVED_BYTES
from pacs.storage.journal import Journal
from pacs.storage.kinds import Volume

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Line:
    """A line of objects.tsv."""

    object_key: int
    sha256: bytes
    size_bytes: int
    tier: int
    path: str


class Restore:
    """Restores one point of a repository to an instance."""

    def __init__(self, data: Path, database: Database, volumes: Volumes, repository: Repository) -> None:
        self.data, self.database, self.volumes, self.repository = data, database, volumes, repository
        #: Those that are written to, as they are now: the index will know other ones in between.
        self.targets = [row for row in volumes.rows if row.state == "active" and row.volume_id in volumes.by_id]

    def run(self, point: str | None, progress: Progress = no_progress) -> tuple[str, Manifest]:
        """Restore a point's objects and database, the newest point if none is named; return its name and manifest.

        Raise RestoreError, NotFound or DataTooNew with the reason. `finish` must follow.
        """
        if not (self.data / MARK).exists():
            recovery.require_empty_and_idle(self.database)
        with self.repository.locked():
            points = self.repository.points()
            if not points:
                raise NotFound(f"The repository at {self.repository.root} has no recovery point that counts.")
            point = point or points[-1]
            manifest = self.repository.manifest(point)
            self._require_known_schema(manifest)
            dump = self.repository.verified_part(point, manifest, "database.dump")
            self.repository.verified_part(point, manifest, "state.tar")
            lines = _read_lines(self.repository.verified_part(point, manifest, "objects.tsv"))
            places = self._place(lines)
            durable.replace_file(self.data / MARK, point.encode())
            self._write_objects(lines, places, progress)
            recovery.load(self.database, dump)
            index.migrate(self.database)
            recovery.replace_copies(self.database, self.targets, places)
        self.volumes.refresh()
        log.info("objects and database restored", extra={"point": point, "objects": manifest.objects})
        return point, manifest

    def finish(self, point: str, manifest: Manifest) -> None:
        """Restore settings, keys and journal, and take the mark away: the services may start. Root's, as keys are."""
        archive = self.repository.verified_part(point, manifest, "state.tar")
        journal = Journal(self.data)
        for segment in journal.segments():  # of what this appliance was until now
            segment.unlink()
        with tarfile.open(archive) as tar:
            members = [member for member in tar if _is_state(member)]
            # Debian 12's Python 3.11.2 knows no filters yet, 3.14's default one would change the keys' modes.
            filters: dict[str, Any] = {"filter": "tar"} if hasattr(tarfile, "tar_filter") else {}
            tar.extractall(self.data, members=members, **filters)  # noqa: S202 (files and folders below STATE_FOLDERS)
        # The volumes are this appliance's own, whatever the journal says of the other's.
        journal.append("restore", point=point)
        owner = journal.folder.stat()
        for segment in journal.segments():
            os.chown(segment, owner.st_uid, owner.st_gid)
        (self.data / MARK).unlink()
        durable.fsync_folder((self.data / MARK).parent)

    def _require_known_schema(self, manifest: Manifest) -> None:
        if manifest.schema > max(index.known_migrations()):
            raise DataTooNew(
                f"The recovery point has schema {manifest.schema} of version {manifest.version}, newer than this "
                "one's. Nothing was touched. Boot that version's image, or a newer one."
            )

    def _place(self, lines: list[_Line]) -> dict[int, str]:
        """Which volume each object goes to: one of its tier, or another where there is no room. Nothing is written."""
        room = {row.volume_id: self._room(row.volume_id) for row in self.targets}
        places = {}
        for line in lines:
            if not self.repository.has_object(line.sha256, line.size_bytes):
                raise RestoreError(
                    f"Object {line.sha256.hex()} is missing from the repository; the point is void. Take another."
                )
            candidates = sorted(self.targets, key=lambda row: (row.tier != line.tier, row.tier))
            fitting = next((row.volume_id for row in candidates if room[row.volume_id] >= line.size_bytes), None)
            if fitting is None:
                needed = sum(each.size_bytes for each in lines) / 1e9
                raise RestoreError(f"The volumes are too small: {needed:.1f} GB are needed. Enlarge their disks.")
            room[fitting] -= line.size_bytes
            places[line.object_key] = fitting
        return places

    def _room(self, volume_id: str) -> float:
        free_bytes = self.volumes.get(volume_id).room().free_bytes
        return float("inf") if free_bytes is None else free_bytes - RESERVED_BYTES

    def _write_objects(self, lines: list[_Line], places: dict[int, str], progress: Progress) -> None:
        written = 0
        for number, line in enumerate(lines, start=1):
            volume = self.volumes.get(places[line.object_key])
            if not (volume.has(line.path) and volume.digest_on_disk(line.path) == line.sha256):
                self._write(volume, line)
            written += line.size_bytes
            progress(number, len(lines), written)

    def _write(self, volume: Volume, line: _Line) -> None:
        if volume.put(line.path, self.repository.read_object(line.sha256), line.size_bytes) != line.sha256:
            volume.remove(line.path)
            raise RestoreError(
                f"Object {line.sha256.hex()} is damaged in the repository. Take another point or repository."
            )


def _is_state(member: tarfile.TarInfo) -> bool:
    folders = member.name.split("/")
    return folders[0] in STATE_FOLDERS and ".." not in folders and (member.isreg() or member.isdir())


def _read_lines(listing: Path) -> list[_Line]:
    lines = []
    for text in listing.read_text("ascii").splitlines():
        key, sha256, size, tier, path = text.split("\t")
        if tier == "None":
            raise RestoreError("The point names an object that had no copy when it was made. Take another point.")
        lines.append(_Line(int(key), bytes.fromhex(sha256), int(size), int(tier), path))
    return lines
