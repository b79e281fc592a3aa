"""The journal: what people and rules changed, in the order they did, apart from the database.

Each line is a JSON object {"at": ISO 8601, "what": "device add", ...} in an append-only segment a month,
`journal/<yyyy>-<mm>.jsonl`. A line is on the disk before the database learns of the change, so a rebuilt index can
replay it. Segments are copied to every volume, so that the volumes alone are enough. Each line is an event of the audit
log, too, with who did it: written there first, as what was tried and failed belongs there as well.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pacs import clock
from pacs.errors import PacsError, VolumeError
from pacs.model.audit import of_journal
from pacs.storage.acting import actor
from pacs.storage.audit import AuditLog
from pacs.storage.kinds import Volume
from pacs.storage.lineage import LineageFiles
from pacs.storage.segments import append, lines_of, segments_in

log = logging.getLogger(__name__)


class Journal:
    """The journal in a data directory. Several processes may append to it."""

    def __init__(self, data: Path) -> None:
        self.folder = data / "journal"
        self._fence = LineageFiles(data)
        self._audit = AuditLog(data)
        #: What each volume was found to have, or given: segment → size [bytes]. A far one is not read each minute.
        self._copied: dict[str, dict[str, int]] = {}

    def append(self, what: str, **details: Any) -> None:
        """Write one change durably. Raise VolumeFull or VolumeFailed, or Fenced: then it does not count."""
        self._fence.require_not_fenced()
        try:
            self._audit.append([of_journal(what, details, actor())])
        except PacsError as error:  # what is to be changed does not wait for its record; the check `audit` tells
            log.error("a change is not in the audit log: %s", error)
        now = clock.now()
        line = json.dumps({"at": now.isoformat(timespec="microseconds"), "what": what, **details}, sort_keys=True)
        append(self.folder / f"{now:%Y-%m}.jsonl", line.encode() + b"\n")

    def segments(self) -> list[Path]:
        """The segments' files, oldest first."""
        return segments_in(self.folder)

    def read(self) -> Iterator[dict[str, Any]]:
        """Every change, oldest first. A half-written line was never acknowledged and is left out."""
        for segment in self.segments():
            yield from lines_of(segment.read_bytes())

    def copy_to(self, volume: Volume) -> int:
        """Bring a volume's copy of the journal up to date; return how many segments were copied."""
        copied, known = 0, self._copied.setdefault(volume.volume_id, {})
        for segment in self.segments():
            if known.get(segment.name) == segment.stat().st_size:
                continue
            path, ours = f"journal/{segment.name}", segment.read_bytes()
            theirs = volume.read_small(path) if volume.has(path) else b""
            if theirs == ours:
                known[segment.name] = len(ours)
                continue
            if not ours.startswith(theirs):
                # This appliance was restored to an older state, or is another: what was there is not lost.
                aside = f"journal-replaced/{clock.now():%Y%m%dT%H%M%S}-{segment.name}"
                volume.replace_small(aside, theirs)
                log.warning("the journal's copy on %s was another's; it is kept as %s", volume.location, aside)
            volume.replace_small(path, ours)
            known[segment.name] = len(ours)
            copied += 1
        return copied


def segments_on(volume: Volume, folder: str = "journal") -> list[str]:
    """The segments of a volume's copy of the journal, or of what is kept the same way, oldest first."""
    return sorted(name for name in volume.names(folder) if name.endswith(".jsonl") and not name.startswith("."))


def copy_on(volume: Volume) -> dict[str, bytes]:
    """A volume's copy of the journal: segment → content."""
    return {name: volume.read_small(f"journal/{name}") for name in segments_on(volume)}


def reconciled(copies: Mapping[str, Mapping[str, bytes]]) -> tuple[dict[str, bytes], list[str]]:
    """The journal that several copies are of: where → segment → content. Each segment is taken where it is longest.

    Also what differs, in words. Raise VolumeError where neither of two copies goes on from the other: a person must
    say which of them is ours.
    """
    found: dict[str, tuple[str, bytes]] = {}
    for where, segments in copies.items():
        for name, content in segments.items():
            known = found.get(name)
            if known is None or (len(content) > len(known[1]) and content.startswith(known[1])):
                found[name] = (where, content)
            elif not known[1].startswith(content):
                raise VolumeError(
                    f"The journal's segment {name} at {where} and at {known[0]} say different things. Nothing was "
                    "touched. Take one of them away, or name the right copy with --journal."
                )
    words = []
    for where, segments in copies.items():
        behind = sorted(name for name, (_where, content) in found.items() if segments.get(name, b"") != content)
        if behind:
            words.append(f"The journal's copy at {where} is behind in {len(behind)} segments: {', '.join(behind[:3])}.")
    return {name: found[name][1] for name in sorted(found)}, words
