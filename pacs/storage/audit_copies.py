"""Copies of the audit log on volumes, as the journal has them: beside the objects, sealed with them in a repository.

VOLUME/audit/<segment>.jsonl       the segments; the open one is written anew when it has grown
VOLUME/audit/heads/<number>-<digest>.json    in a repository: the heads, a file each, never written over
VOLUME/audit-replaced/             another copy that was there and is not the beginning of ours: nothing is lost
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path

from pacs import clock
from pacs.errors import NotFound, PacsError
from pacs.model.audit_chain import Head
from pacs.storage.acting import actor
from pacs.storage.audit import AuditLog, first_of, is_segment, whole
from pacs.storage.kinds import Volume
from pacs.storage.sealed import SealedVolume

log = logging.getLogger(__name__)

FOLDER, HEADS, REPLACED = "audit", "audit/heads", "audit-replaced"
_SEALED = ".bin"


class AuditCopies:
    """Keeps volumes' copies of the audit log up to date."""

    def __init__(self, audit: AuditLog) -> None:
        self.audit = audit
        #: What each volume has: segment → size [bytes].
        self._copied: dict[str, dict[str, int]] = {}

    def copy_to(self, volume: Volume) -> int:
        """Bring a volume's copy up to date; return how many segments were written. What has expired goes there, too."""
        known = self._copied.get(volume.volume_id)
        segments = self.audit.segments()
        if known is None:
            known = self._copied[volume.volume_id] = {}
            self._expire(volume, segments)
        count = 0
        for segment in segments:
            if known.get(segment.name) == segment.stat().st_size:
                continue
            ours = whole(segment.read_bytes())
            count += self._put(volume, segment.name, ours)
            known[segment.name] = len(ours)
        gone = known.keys() - {segment.name for segment in segments}
        if gone:
            self._expire(volume, segments)
            for name in gone:
                del known[name]
        return count

    def _put(self, volume: Volume, name: str, ours: bytes) -> int:
        theirs = _read(volume, FOLDER, name) if volume.has(_path(volume, FOLDER, name)) else b""
        if theirs == ours:
            return 0
        if not ours.startswith(theirs):
            # We were restored to an older state, or somebody changed one of the two: neither is lost.
            _write(volume, REPLACED, f"{clock.now():%Y%m%dT%H%M%S}-{name}", theirs)
            log.error("the audit log's copy on %s is not the beginning of ours; it is kept there", volume.location)
            text = (
                f"the copy of {name} on volume {volume.volume_id} was not the beginning of this log; it is in "
                f"{REPLACED}/ there"
            )
            self.audit.append([{"e": "alert", "o": 8, "by": actor(), "kind": "security", "text": text}])
        _write(volume, FOLDER, name, ours)
        return 1

    def _expire(self, volume: Volume, segments: list[Path]) -> None:
        """Remove what expired here: the segments before our first one."""
        first = first_of(segments[0].name) if segments else 0
        for name in volume.names(FOLDER):
            plain = name.removesuffix(_SEALED)
            if is_segment(plain) and first_of(plain) < first:
                volume.remove(f"{FOLDER}/{name}")


def put_head(volume: Volume, head: Head) -> None:
    """Keep a head on a volume, in a file of its own."""
    path = f"{HEADS}/{head.number:012d}-{head.digest[:16]}.json"
    if not volume.has(path):
        content = {"head": str(head), "at": clock.now().isoformat(timespec="seconds")}
        volume.replace_small(path, json.dumps(content).encode() + b"\n")


def heads_on(volume: Volume) -> list[Head]:
    """The heads that are kept on a volume, oldest first. One that cannot be read is left out, and logged."""
    found = []
    for name in sorted(volume.names(HEADS)):
        try:
            found.append(Head.parse(json.loads(volume.read_small(f"{HEADS}/{name}"))["head"]))
        except (ValueError, KeyError, TypeError, NotFound):
            log.warning("%s/%s on %s is no head of the audit log", HEADS, name, volume.location)
    return found


def remove_heads(volume: Volume, below: int) -> None:
    """Remove the heads of what has expired."""
    for name in volume.names(HEADS):
        number = name.partition("-")[0]
        if number.isdecimal() and int(number) < below:
            volume.remove(f"{HEADS}/{name}")


def copy_on(volume: Volume) -> dict[str, bytes]:
    """A volume's copy of the log: segment → content."""
    plain = [name.removesuffix(_SEALED) for name in volume.names(FOLDER)]
    return {name: _read(volume, FOLDER, name) for name in plain if is_segment(name)}


def _path(volume: Volume, folder: str, name: str) -> str:
    return f"{folder}/{name}{_SEALED if isinstance(volume, SealedVolume) else ''}"


def _read(volume: Volume, folder: str, name: str) -> bytes:
    path = _path(volume, folder, name)
    return volume.read_sealed(path) if isinstance(volume, SealedVolume) else volume.read_small(path)


def _write(volume: Volume, folder: str, name: str, content: bytes) -> None:
    if isinstance(volume, SealedVolume):
        volume.replace_sealed(_path(volume, folder, name), content)
    else:
        volume.replace_small(_path(volume, folder, name), content)


def adopt(audit: AuditLog, copies: Iterable[dict[str, bytes]]) -> int:
    """Go on from the longest of some copies, if it knows what ours does not; return how many segments it had.

    After the state was lost, restored or taken over, before any service writes. What was here is put into replaced/.
    """
    best: dict[str, bytes] = {}
    for each in copies:
        if _length(each) > _length(best):
            best = each
    ours = {path.name: path.read_bytes() for path in audit.segments()}
    if not best or (_length(ours) >= _length(best) and _is_ours(ours, best)):
        return 0
    audit.replace(best)
    return len(best)


def adopt_from_volumes(audit: AuditLog, volumes: Iterable[Volume]) -> int:
    """The same from volumes; one whose copy cannot be read is left out, and logged."""
    copies = []
    for volume in volumes:
        try:
            copies.append(copy_on(volume))
        except PacsError as error:
            log.error("the audit log's copy on %s cannot be read: %s", volume.location, error)
    return adopt(audit, copies)


def adopt_from_folders(audit: AuditLog, roots: Iterable[Path]) -> int:
    """The same from the roots of volumes on disks of this machine."""
    return adopt(
        audit,
        [
            {path.name: path.read_bytes() for path in (root / FOLDER).glob("*.jsonl") if is_segment(path.name)}
            for root in roots
        ],
    )


def _length(segments: dict[str, bytes]) -> int:
    """How far a copy goes: its last line's number, nearly."""
    if not segments:
        return 0
    name = max(segments)
    return first_of(name) + segments[name].count(b"\n")


def _is_ours(ours: dict[str, bytes], theirs: dict[str, bytes]) -> bool:
    """Whether a copy says nothing that ours does not."""
    first = min(map(first_of, ours), default=0)
    return all(
        first_of(name) < first or (name in ours and ours[name].startswith(whole(content)))
        for name, content in theirs.items()
    )
