"""Settings, keys and journal at the standby: a small archive beside the objects, written anew when any of it changed.

    VOLUME/standby/configuration.tar    config/, identity/ and journal/ of the archive, but what is one node's only
    VOLUME/standby/handed-over.json     there when the archive was handed over: nothing comes any more

What the service may not read (the key of HTTPS) is not in it: the standby keeps its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import tarfile
from collections.abc import Iterator
from pathlib import Path

from pacs import clock
from pacs.errors import NotFound, StandbyError
from pacs.storage import durable
from pacs.storage.kinds import Volume

log = logging.getLogger(__name__)

BUNDLE, HANDED_OVER = "standby/configuration.tar", "standby/handed-over.json"
#: What of the state goes to the standby ...
_PARTS = ("config", "identity", "journal")
#: ... beside folders that the service may go through and not list (pacs/machine/claim.py).
_FOLDERS = (*_PARTS, "identity/dicom-tls")
#: ... and what of it is one node's only, or made again.
_LEFT_OUT = (
    "config/standby", "config/pgbackrest", "config/pgbackrest.conf", "config/restore-unfinished",
    "config/rebuild-unfinished", "config/outbound-held", "identity/ssh",
)  # fmt: skip


class Bundles:
    """Keeps the bundle at the standby up to date. For one thread."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self._signature = ""

    def push(self, volume: Volume) -> bool:
        """Write the bundle to a volume of the standby's if anything changed since the last time; whether it was."""
        signature = _signature(self.data, volume.volume_id)
        if signature == self._signature:
            return False
        volume.replace_small(BUNDLE, packed(self.data))
        self._signature = signature
        return True


def packed(data: Path) -> bytes:
    """The bundle of an instance."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for path in _files(data):
            with contextlib.suppress(PermissionError, FileNotFoundError):
                content = path.read_bytes()
                entry = tarfile.TarInfo(str(path.relative_to(data)))
                entry.size, entry.mode = len(content), path.stat().st_mode & 0o777
                archive.addfile(entry, io.BytesIO(content))
    return target.getvalue()


def unpack(data: Path, root: Path) -> list[str]:
    """Put the bundle on a volume at `root` into a data directory; return the names of what could not be written.

    Each file is replaced as a whole; once more does the same. Raise StandbyError if there is none, or it is not whole.
    """
    try:
        with tarfile.open(root / BUNDLE) as archive:
            found = {entry.name: (entry.mode, _content(archive, entry)) for entry in archive if entry.isfile()}
    except FileNotFoundError:
        raise StandbyError(f"No settings have come from the archive yet: {root / BUNDLE} is missing.") from None
    except (OSError, tarfile.TarError) as error:
        raise StandbyError(f"{root / BUNDLE} cannot be read ({error}). Look at its disk.") from error
    refused = [name for name, (mode, content) in found.items() if not _put(data, name, content, mode)]
    for segment in (data / "journal").glob("*.jsonl"):  # of what this node was before: it was empty
        if f"journal/{segment.name}" not in found:
            segment.unlink()
    return refused


def came_at(root: Path) -> float | None:
    """When the bundle on a volume was written [seconds since 1970]; None if there is none."""
    with contextlib.suppress(FileNotFoundError):
        return (root / BUNDLE).stat().st_mtime
    return None


def note_handed_over(volume: Volume) -> None:
    """Say at the standby that the archive stopped, and all is there."""
    volume.replace_small(HANDED_OVER, json.dumps({"at": clock.now().isoformat(timespec="seconds")}).encode())


def take_back(volume: Volume) -> None:
    """The archive goes on: it was not handed over after all."""
    with contextlib.suppress(NotFound):
        volume.remove(HANDED_OVER)


def _content(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    opened = archive.extractfile(entry)
    assert opened is not None
    return opened.read()


def _put(data: Path, name: str, content: bytes, mode: int) -> bool:
    parts = Path(name).parts
    if not parts or parts[0] not in _PARTS or ".." in parts or name.startswith(_LEFT_OUT):
        return False
    path = data / name
    try:
        if path.exists() and path.read_bytes() == content:
            return True
        durable.make_folders(path.parent)
        durable.replace_file(path, content, mode)
    except PermissionError as error:
        log.warning("%s stays as it was on this node: %s", name, error.strerror)
        return False
    return True


def _files(data: Path) -> Iterator[Path]:
    for path in dict.fromkeys(each for part in _FOLDERS for each in sorted((data / part).rglob("*"))):
        name = str(path.relative_to(data))
        with contextlib.suppress(PermissionError):
            if not name.startswith(_LEFT_OUT) and path.is_file() and not path.name.endswith(".lock"):
                yield path


def _signature(data: Path, volume_id: str) -> str:
    digest = hashlib.sha256(volume_id.encode())
    for path in _files(data):
        with contextlib.suppress(OSError):
            status = path.stat()
            digest.update(f"{path}:{status.st_size}:{status.st_mtime_ns}:{status.st_ino};".encode())
    return digest.hexdigest()
