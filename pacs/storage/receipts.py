"""Receipts: what is known of an object's arrival and is not in its file, beside the objects on every volume.

When it came, to the microsecond (the order of arrivals decides which patient a study is of, and which object of a UID
is current), who sent it, what its text was read with, and what came again. A rebuilt index takes them from here.

    receipts/<yyyy-mm-dd>-<nnnn>-<random>.jsonl      append-only; a new one each day, and when one has a MiB

    {"study": "1.2.3", "from": {"ae": "CT1", "peer": "192.0.2.7", "user": "", "opened": "<ISO 8601>",
     "closed": "<ISO 8601>" or null, "character_set": ""} or null,
     "stored": [["<sha256>", "<SOP Instance UID>", "<ISO 8601>"], ...],
     "again": [["<sha256>", "<SOP Instance UID>", "<ISO 8601>", "same bytes"], ...]}

A line is a fact of its own: the same one twice says no more than once. There is no patient's data in them.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pacs import clock
from pacs.storage import durable
from pacs.storage.kinds import Volume
from pacs.storage.segments import append, lines_of, segments_in

#: A segment that has more gets no more lines [bytes].
SEGMENT_SIZE_BYTES = 1 << 20
FOLDER = "receipts"

Line = dict[str, Any]


class Receipts:
    """The receipts in a data directory. One process at a time writes them: the worker, or a rebuild."""

    def __init__(self, data: Path) -> None:
        self.folder = data / FOLDER
        #: What each volume has: segment → size [bytes].
        self._copied: dict[str, dict[str, int]] = {}

    def append(self, lines: Iterable[Line]) -> None:
        """Write lines durably. Raise VolumeFull or VolumeFailed; then they are written again another time."""
        waiting = [json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines]
        while waiting:
            room, part = SEGMENT_SIZE_BYTES, list[bytes]()
            while waiting and room > 0:
                part.append(waiting.pop(0))
                room -= len(part[-1])
            try:
                segment = self._segment()
            except OSError as error:
                raise durable.as_volume_error(error, self.folder) from error
            append(segment, b"".join(part))

    def segments(self) -> list[Path]:
        """The segments' files, oldest first."""
        return segments_in(self.folder)

    def newest(self, count: int) -> Iterator[Line]:
        """The lines of the newest segments."""
        for segment in self.segments()[-count:]:
            yield from lines_of(segment.read_bytes())

    def copy_to(self, volume: Volume) -> int:
        """Bring a volume's copy up to date; return how many segments were copied."""
        copied = self._copied.setdefault(volume.volume_id, {})
        count = 0
        for segment in self.segments():
            path, size = f"{FOLDER}/{segment.name}", segment.stat().st_size
            if copied.get(segment.name) == size:
                continue
            content = segment.read_bytes()
            theirs = volume.read_small(path) if volume.has(path) else b""
            if not content.startswith(theirs):
                # We were restored from an older backup: what the volume knows more is ours, too.
                durable.create_file(self._fresh(), theirs)
            if theirs != content:
                volume.replace_small(path, content)
                count += 1
            copied[segment.name] = len(content)
        return count

    def _segment(self) -> Path:
        newest = self.segments()[-1:]
        for path in newest:
            if path.name.startswith(f"{clock.now():%Y-%m-%d}") and path.stat().st_size < SEGMENT_SIZE_BYTES:
                return path
        return self._fresh()

    def _fresh(self) -> Path:
        today = f"{clock.now():%Y-%m-%d}"
        count = sum(path.name.startswith(today) for path in self.segments())
        return self.folder / f"{today}-{count + 1:04d}-{secrets.token_hex(3)}.jsonl"
