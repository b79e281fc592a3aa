"""The journal: what people and rules changed, in the order they did, apart from the database.

Each line is a JSON object {"at": ISO 8601, "what": "device add", ...} in an append-only segment a month,
`journal/<yyyy>-<mm>.jsonl`. A line is on the disk before the database learns of the change, so a rebuilt index can
replay it. Segments are copied to every volume, so that the volumes alone are enough.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pacs import clock
from pacs.errors import VolumeError
from pacs.storage import durable
from pacs.storage.kinds import Volume

log = logging.getLogger(__name__)


class Journal:
    """The journal in a data directory. Several processes may append to it."""

    def __init__(self, data: Path) -> None:
        self.folder = data / "journal"
        #: What each volume was found to have, or given: segment → size [bytes]. A far one is not read each minute.
        self._copied: dict[str, dict[str, int]] = {}

    def append(self, what: str, **details: Any) -> None:
        """Write one change durably. Raise VolumeFull or VolumeFailed; then it does not count."""
        now = clock.now()
        line = json.dumps({"at": now.isoformat(timespec="microseconds"), "what": what, **details}, sort_keys=True)
        segment = self.folder / f"{now:%Y-%m}.jsonl"
        try:
            durable.make_folders(self.folder)
            fd = os.open(segment, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o640)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                end_torn_line(fd)
                _write_all(fd, line.encode() + b"\n")
                durable.fsync_fd(fd)
            finally:
                os.close(fd)
            durable.fsync_folder(self.folder)
        except OSError as error:
            raise durable.as_volume_error(error, self.folder) from error

    def segments(self) -> list[Path]:
        """The segments' files, oldest first."""
        return sorted(self.folder.glob("*.jsonl")) if self.folder.is_dir() else []

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


def lines_of(content: bytes) -> Iterator[dict[str, Any]]:
    """The changes in a segment. A half-written line was never acknowledged and is left out."""
    for line in content.split(b"\n"):
        if line:
            try:
                yield json.loads(line)
            except ValueError:
                continue


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


def end_torn_line(fd: int) -> None:
    """End a line that a loss of power left half written, so that it costs only itself."""
    size = os.fstat(fd).st_size
    if size > 0 and os.pread(fd, 1, size - 1) != b"\n":
        _write_all(fd, b"\n")


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
