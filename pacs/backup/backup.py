"""Making a recovery point: a snapshot of the database, every object that it names, then the manifest.

The snapshot comes first; objects that arrive later belong to the next point. An object that moves between tiers
meanwhile is found where it is then. Nothing of an earlier point is touched.
"""

from __future__ import annotations

import logging
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pacs import __version__, clock
from pacs.archive.volumes import Volumes
from pacs.backup.repository import FORMAT, PARTS, Manifest, Repository, file_sha256
from pacs.errors import BackupError, DigestMismatch, NotFound, PacsError, VolumeError, VolumeFailed
from pacs.index import recovery
from pacs.index.database import Connection, Database, Row
from pacs.index.runs import record_run
from pacs.index.store import good_copies
from pacs.storage import durable
from pacs.storage.volume import read_identity

log = logging.getLogger(__name__)

#: What of the state volume goes into a point, beside the database. Not the cluster: its dump is there, and receipts are
#: made from it again.
STATE_FOLDERS = ("config", "identity", "journal")

#: Called with (objects done, objects in all, bytes copied).
Progress = Callable[[int, int, int], None]


def no_progress(_done: int, _total: int, _size_bytes: int) -> None:
    """Tell nobody."""


@dataclass
class Done:
    """What a backup did."""

    point: str = ""
    objects: int = 0
    size_bytes: int = 0
    copied: int = 0
    copied_bytes: int = 0


class Backup:
    """Backs one instance up to a repository."""

    def __init__(self, data: Path, database: Database, volumes: Volumes, root: Path, keep: int) -> None:
        self.data, self.database, self.volumes, self.keep = data, database, volumes, keep
        self.appliance_id = read_identity(data).appliance_id
        self.root = root

    def run(self, progress: Progress = no_progress) -> Done:
        """Make a recovery point; note the outcome. Raise BackupError if it did not come about."""
        started = clock.now()
        try:
            repository = Repository(self.root, self.appliance_id)
            with repository.locked():
                done = self._make_point(repository, progress)
                repository.expire(self.keep)
        except (PacsError, OSError) as error:
            self._note(started, False, {"error": str(error)})
            if isinstance(error, PacsError):
                raise
            raise BackupError(f"Writing to the repository failed: {error}. Is it full or gone?") from error
        self._note(started, True, {"point": done.point, "objects": done.objects, "copied": done.copied})
        log.info("backup done", extra={"point": done.point, "objects": done.objects, "bytes": done.copied_bytes})
        return done

    def _note(self, started: object, succeeded: bool, result: dict[str, object]) -> None:
        try:
            record_run(self.database, "backup", started, succeeded, result)  # type: ignore[arg-type]
        except PacsError as error:
            log.error("the backup's outcome could not be noted: %s", error)

    def _make_point(self, repository: Repository, progress: Progress) -> Done:
        done = Done()
        folder = repository.new_point()
        with recovery.snapshot(self.database) as (connection, name):
            recovery.dump(self.database, name, folder / "database.dump")
            schema = recovery.schema_of(connection)
            total = _count(connection)
            with open(folder / "objects.tsv", "w", encoding="ascii") as listing:
                for row in recovery.objects_in(connection):
                    self._keep_object(repository, row, done)
                    # What a restore needs to know without a database: which bytes, where to.
                    listing.write(
                        f"{row['object_key']}\t{bytes(row['sha256']).hex()}\t{row['size_bytes']}\t{row['tier']}\t{row['path']}\n"
                    )
                    progress(done.objects, total, done.copied_bytes)
        self._write_state(folder / "state.tar")
        for part in PARTS:
            with open(folder / part, "rb") as file:
                durable.fsync_fd(file.fileno())
        manifest = Manifest(
            format=FORMAT,
            appliance_id=self.appliance_id,
            version=__version__,
            schema=schema,
            created=clock.now().isoformat(timespec="milliseconds"),
            objects=done.objects,
            size_bytes=done.size_bytes,
            parts={part: file_sha256(folder / part) for part in PARTS},
        )
        done.point = repository.complete_point(folder, manifest)
        return done

    def _keep_object(self, repository: Repository, row: Row, done: Done) -> None:
        sha256 = bytes(row["sha256"])
        if not repository.has_object(sha256, row["size_bytes"]):
            done.copied_bytes += self._copy(repository, row["object_key"], sha256)
            done.copied += 1
        done.objects += 1
        done.size_bytes += row["size_bytes"]

    def _copy(self, repository: Repository, object_key: int, sha256: bytes) -> int:
        with self.database.transaction() as connection:
            copies = good_copies(connection, object_key)
        for copy in copies:
            try:
                return repository.put_object(sha256, self.volumes.get(copy["volume_id"]).read(copy["path"]))
            except (VolumeError, VolumeFailed, NotFound, DigestMismatch, BackupError) as error:
                log.error("a copy cannot be backed up: %s", error, extra={"object": object_key})
        raise BackupError(
            f"Object {object_key} has no readable copy; this backup does not count. Run `pacs reconcile run` and "
            "`pacs check`, and look at the volumes' disks."
        )

    def _write_state(self, target: Path) -> None:
        with tarfile.open(target, "w") as tar:
            tar.add(self.data / "volume.json", "volume.json")
            for name in STATE_FOLDERS:
                if (self.data / name).is_dir():
                    tar.add(self.data / name, name)


def _count(connection: Connection) -> int:
    row = connection.execute("SELECT count(*) AS objects FROM object").fetchone()
    assert row is not None
    return int(row["objects"])
