"""Whether a volume does what its kind promises: written, read back, listed, removed. For new ones, or on doubt."""

from __future__ import annotations

import hashlib
import os
import secrets
from dataclasses import dataclass

from pacs.errors import PacsError
from pacs.storage.kinds import Volume

SIZE_BYTES = (1 << 20) + 7


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what, whether it is well, and what was seen."""

    what: str
    is_well: bool
    seen: str


def probe(volume: Volume, is_new: bool = False) -> list[Finding]:
    """Look at a volume; nothing is left on it. Raises nothing: what is wrong is a finding.

    Of one that is new its listing is looked at, too; on a full one that takes minutes.
    """
    findings = [_looked("identity", volume.require_present, f"volume {volume.volume_id} at {volume.location}")]
    if not findings[0].is_well:
        return findings
    try:
        room = volume.room()
        free = "no bound" if room.free_bytes is None else f"{room.free_bytes / 1e9:.1f} GB free"
        findings.append(Finding("room", True, f"{room.used_bytes / 1e9:.1f} GB used, {free}"))
    except PacsError as error:
        findings.append(Finding("room", False, str(error)))
    findings.append(_looked("writable", volume.require_writable, "yes"))
    return [*findings, *_write_and_read_back(volume, is_new)]


def _looked(what: str, look: object, seen: str) -> Finding:
    assert callable(look)
    try:
        look()
    except PacsError as error:
        return Finding(what, False, str(error))
    return Finding(what, True, seen)


def _write_and_read_back(volume: Volume, is_new: bool) -> list[Finding]:
    content = os.urandom(SIZE_BYTES)
    digest = hashlib.sha256(content).digest()
    # As long a name as an object's. Reconciliation removes it where a kill leaves it.
    path = f"incoming/{digest.hex()}-{secrets.token_hex(6)}.dcm"
    try:
        given = volume.put(path, [content], len(content))
        findings = [
            _same("written", given == digest, "what was given"),
            _same("read back", b"".join(volume.read(path)) == content, "the same bytes"),
            _same("read on the far side", volume.digest_on_disk(path) == digest, volume.promise.far_side),
        ]
        if is_new and volume.promise.lists_all:
            listed = any(file.path == path and file.size_bytes == len(content) for file in volume.walk())
            findings.append(_same("listed", listed, "under the name that it was given"))
        volume.remove(path)
        findings.append(_same("removed", not volume.has(path), "gone"))
    except (PacsError, OSError) as error:
        return [Finding("written and read back", False, str(error))]
    return findings


def _same(what: str, is_well: bool, seen: str) -> Finding:
    return Finding(what, is_well, seen if is_well else f"not {seen}")
