"""A backup repository: a folder, best of another machine, that holds recovery points.

    repository.json              format, and whose it is
    objects/<ab>/<sha256>        every object once, as its file is on a volume, found by its digest
    points/<time>/               a recovery point: database.dump, state.tar, objects.tsv, manifest.json
    lock                         held while a backup or a restore is at work

A point counts only if it is under points/ with a manifest whose digests fit, and every object that it names is there.
It is made under incoming/ and given its name last.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pacs.errors import BackupError, DataTooNew, NotFound, RestoreError
from pacs.storage import durable

FORMAT = 1
PARTS = ("database.dump", "state.tar", "objects.tsv")


@dataclass(frozen=True)
class Manifest:
    """What makes a recovery point: digests of its parts (hex SHA-256), and what it holds."""

    format: int
    appliance_id: str
    version: str
    schema: int
    created: str
    objects: int
    size_bytes: int
    parts: dict[str, str]


class Repository:
    """An opened repository."""

    def __init__(self, root: Path, appliance_id: str | None = None) -> None:
        """Open the repository at root; with appliance_id it must be that appliance's, and is made if it is new.

        Raise BackupError if it is not there, or another appliance's; DataTooNew if a newer version wrote it.
        """
        self.root = root
        if not root.is_dir():
            raise BackupError(f"There is no folder {root}. Mount the repository, or correct backup_repository.")
        about = root / "repository.json"
        if appliance_id and not about.exists():
            if any(path.name != "lost+found" for path in root.iterdir()):
                raise BackupError(f"{root} is no repository and is not empty. Give the repository a folder of its own.")
            durable.create_file(about, json.dumps({"format": FORMAT, "appliance_id": appliance_id}).encode())
        try:
            found = json.loads(about.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise BackupError(f"{root} is no repository: {about.name} cannot be read ({error}).") from error
        number = found.get("format") if isinstance(found, dict) else None
        if not isinstance(number, int) or number < 1:
            raise BackupError(f"{root} is no repository: {about.name} is damaged. Give the backup a new folder.")
        if number > FORMAT:
            raise DataTooNew(f"The repository at {root} is of a newer version. Boot the image that wrote it.")
        if appliance_id and found.get("appliance_id") != appliance_id:
            raise BackupError(
                f"The repository at {root} is of appliance {found.get('appliance_id')}, this is {appliance_id}. "
                "Nothing was written. Give each appliance a repository of its own."
            )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the repository. Raise BackupError if somebody else does."""
        fd = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o640)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise BackupError("Another backup or restore is at work on this repository. Wait for it.") from None
        finally:
            os.close(fd)

    def object_file(self, sha256: bytes) -> Path:
        """Where an object is, or would be."""
        name = sha256.hex()
        return self.root / "objects" / name[:2] / name

    def has_object(self, sha256: bytes, size_bytes: int) -> bool:
        """Whether an object of this size is there. Its bytes were read back when it was put."""
        try:
            return self.object_file(sha256).stat().st_size == size_bytes
        except FileNotFoundError:
            return False

    def put_object(self, sha256: bytes, chunks: Iterable[bytes]) -> int:
        """Write an object durably and read it back; return its size [bytes]. Raise BackupError if bytes differ."""
        target = self.object_file(sha256)
        durable.make_folders(target.parent)
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        written = 0
        try:
            with open(temporary, "xb") as file:
                for chunk in chunks:
                    file.write(chunk)
                    written += len(chunk)
                file.flush()
                durable.fsync_fd(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            if file_sha256(temporary) != sha256.hex():
                raise BackupError("An object read back from the repository differs from what was stored.")
            os.rename(temporary, target)
            durable.fsync_folder(target.parent)
        finally:
            temporary.unlink(missing_ok=True)
        return written

    def read_object(self, sha256: bytes) -> Iterator[bytes]:
        """An object's bytes. Raise NotFound if it is not there."""
        try:
            with open(self.object_file(sha256), "rb") as file:
                while chunk := file.read(1 << 20):
                    yield chunk
        except FileNotFoundError:
            raise NotFound(f"Object {sha256.hex()} is not in the repository at {self.root}.") from None

    def new_point(self) -> Path:
        """An empty folder to make a recovery point in. What a killed backup left of its own is removed."""
        incoming = self.root / "incoming"
        shutil.rmtree(incoming, ignore_errors=True)
        durable.make_folders(incoming)
        return incoming

    def complete_point(self, folder: Path, manifest: Manifest) -> str:
        """Make the folder a recovery point: from now on it counts. Return its name."""
        durable.create_file(folder / "manifest.json", (json.dumps(asdict(manifest), indent=1) + "\n").encode())
        durable.make_folders(self.root / "points")
        name = manifest.created.replace(":", "").replace("-", "").replace("+0000", "Z")
        os.rename(folder, self.root / "points" / name)
        durable.fsync_folder(self.root / "points")
        return name

    def points(self) -> list[str]:
        """Names of the recovery points, oldest first."""
        folder = self.root / "points"
        return (
            sorted(path.name for path in folder.iterdir() if (path / "manifest.json").exists())
            if folder.is_dir()
            else []
        )

    def manifest(self, point: str) -> Manifest:
        """A recovery point's manifest, its parts' digests not yet compared. Raise RestoreError or DataTooNew."""
        path = self.root / "points" / point / "manifest.json"
        try:
            found = json.loads(path.read_text("utf-8"))
            if found["format"] > FORMAT:
                raise DataTooNew(f"Recovery point {point} is of a newer version. Boot the image that wrote it.")
            return Manifest(**found)
        except FileNotFoundError:
            raise NotFound(f"There is no recovery point {point}. `pacs backup list` shows them.") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RestoreError(f"The manifest of recovery point {point} is damaged. Take another point.") from error

    def verified_part(self, point: str, manifest: Manifest, part: str) -> Path:
        """A part of a recovery point. Raise RestoreError if its bytes are not those that the manifest names."""
        path = self.root / "points" / point / part
        if not path.is_file() or file_sha256(path) != manifest.parts.get(part):
            raise RestoreError(f"{part} of recovery point {point} is damaged or missing. Take another point.")
        return path

    def expire(self, keep: int) -> list[str]:
        """Remove all but the newest `keep` recovery points; return their names. Objects stay: none is ever deleted."""
        expired = self.points()[:-keep]
        for name in expired:
            # Out of points/ first, so that half a point never counts.
            doomed = self.root / f".expired-{name}"
            os.rename(self.root / "points" / name, doomed)
            shutil.rmtree(doomed)
        return expired


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
