"""What a node holds, read by itself: every file of its own disks, past all caches, and its index beside it.

A node says how many objects its index names and the digest of their sorted digests, and how many of them it lacks: of
which no whole file was read. Two nodes that say the same and lack nothing hold the same archive, byte for byte; neither
has taken the other's word for a byte. Files are immutable, so that most can be read while the archive works, and the
last minutes' after it stopped.

It needs no volumes but those at hand and no database that may be written to: a standby says it too.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pacs import clock
from pacs.archive.known_volumes import open_known
from pacs.archive.pace import Pace
from pacs.errors import NotFound, PacsError, VolumeFailed
from pacs.index import holdings as rows
from pacs.index.database import Database
from pacs.index.volumes import REPOSITORY_TIER, list_volumes
from pacs.settings import Settings
from pacs.storage.files import LocalVolume
from pacs.storage.kinds import FileStatus, Volume
from pacs.storage.names import sha256_in_name
from pacs.storage.read_log import Line, ReadLog, content
from pacs.storage.volume import appliance_ids, read_identity

_FLUSH_EVERY = 1000
Tell = Callable[[int, int], None]


@dataclass
class Reading:
    """What came of a reading: files that are whole, of them those that were read now, and those that are not whole."""

    whole: int = 0
    read: int = 0
    read_bytes: int = 0
    damaged: int = 0


@dataclass(frozen=True)
class Statement:
    """What a node holds. `digest`: SHA-256 over the sorted SHA-256s of its index's objects, in hex with line ends."""

    appliance_id: str
    objects: int
    size_bytes: int
    digest: str
    #: Objects of which no whole file was read.
    lacking: int
    #: Between when files were read, and when this was said (ISO 8601).
    read_since: str
    stated_at: str
    format: int = 1


def own_volumes(settings: Settings, database: Database) -> list[Volume]:
    """The volumes of this node: those on its own disks, whether its index names them by their folders or, as a
    standby's does, by the way that the archive comes to them; and the archive's shares and buckets, where it may."""
    known = list_volumes(database)
    roots = [settings.tier1_root, settings.tier2_root]
    roots += [Path(row.location) for row in known if row.kind == "local" and row.tier != REPOSITORY_TIER]
    roots += [
        Path(unquote(urlsplit(row.location).path))
        for row in known
        if row.kind == "sftp" and row.tier != REPOSITORY_TIER
    ]
    ours, found = appliance_ids(settings.data), dict[str, Volume]()
    for root in roots:
        try:
            identity = read_identity(root)
            role = next((each for each in identity.roles if each.startswith("tier")), "")
            if identity.appliance_id in ours and role:
                found.setdefault(identity.volume_id, LocalVolume(root, role))
        except PacsError:
            continue  # what is on it is lacking then, and that is said
    for row in known:
        if row.kind in ("nfs", "smb", "s3") and row.tier < REPOSITORY_TIER:
            with contextlib.suppress(PacsError):
                found[row.volume_id] = open_known(settings.data, read_identity(settings.data).appliance_id, row)
    return list(found.values())


def read_all(volumes: Sequence[Volume], log: ReadLog, pace: Pace, tell: Tell = lambda _files, _bytes: None) -> Reading:
    """Read every file of the volumes that was not read yet. `tell` hears of files and bytes that were read.

    Raise VolumeMissing, VolumeFailed if a volume is not there to its end.
    """
    done = Reading()
    for volume in volumes:
        with log.reading(volume.volume_id) as file:
            known = _Known(log.lines(volume.volume_id))
            for found in volume.walk("objects"):
                path = os.fsencode(found.path)
                sha256 = sha256_in_name(found.path)
                if sha256 is None or b"\n" in path or b"\t" in path:
                    continue  # no object's file
                if not known.has((path, found.size_bytes)) and not _is_whole(volume, found, sha256, pace, done):
                    continue
                file.write(content(path, found.size_bytes))
                done.whole += 1
                if done.whole % _FLUSH_EVERY == 0:
                    file.flush()
                tell(done.read, done.read_bytes)
    return done


def state(data: Path, volumes: Sequence[Volume], log: ReadLog, database: Database) -> Statement:
    """What this node holds, of what was read until now."""
    held = log.digests([each.volume_id for each in volumes])
    objects = size_bytes = lacking = 0
    digest, here = hashlib.sha256(), next(held, None)
    for wanted, wanted_bytes in rows.digests(database):
        while here is not None and here < wanted:
            here = next(held, None)
        lacking += here != wanted
        objects, size_bytes = objects + 1, size_bytes + wanted_bytes
        digest.update(f"{wanted}\n".encode())
    for _rest in held:  # sort(1) is heard to its end
        pass
    return Statement(
        read_identity(data).appliance_id, objects, size_bytes, digest.hexdigest(), lacking, log.since(),
        clock.now().isoformat(timespec="seconds"),
    )  # fmt: skip


def _is_whole(volume: Volume, found: FileStatus, sha256: bytes, pace: Pace, done: Reading) -> bool:
    try:
        is_whole = volume.digest_on_disk(found.path, pace.spend) == sha256
    except NotFound:  # it was moved to another tier meanwhile, and is found there
        return False
    except VolumeFailed:  # this file of it cannot be read
        is_whole = False
    done.read, done.read_bytes = done.read + 1, done.read_bytes + found.size_bytes
    done.damaged += not is_whole
    return is_whole


class _Known:
    """Lines of the log, asked for in their order."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self._next = next(lines, None)

    def has(self, line: Line) -> bool:
        while self._next is not None and self._next[0] < line[0]:
            self._next = next(self._lines, None)
        return self._next == line
