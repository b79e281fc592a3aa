"""The journal: what people and rules changed, in the order they did, apart from the database.

Each line is a JSON object {"at": ISO 8601, "what": "device add", ...} in an append-only segment a month,
`journal/<yyyy>-<mm>.jsonl`. A line is on the disk before the database learns of the change, so a rebuilt index can
replay it. Segments are copied to every volume, so that the volumes alone are enough.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pacs import clock
from pacs.storage import durable
from pacs.storage.kinds import Volume


class Journal:
    """The journal in a data directory. Several processes may append to it."""

    def __init__(self, data: Path) -> None:
        self.folder = data / "journal"

    def append(self, what: str, **details: Any) -> None:
        """Write one change durably. Raise VolumeFull or VolumeFailed; then it does not count."""
        now = clock.now()
        line = json.dumps({"at": now.isoformat(timespec="milliseconds"), "what": what, **details}, sort_keys=True)
        segment = self.folder / f"{now:%Y-%m}.jsonl"
        try:
            durable.make_folders(self.folder)
            fd = os.open(segment, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o640)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                # A line that a power cut left half written is ended here, so that it costs only itself.
                torn = os.fstat(fd).st_size > 0 and os.pread(fd, 1, os.fstat(fd).st_size - 1) != b"\n"
                _write_all(fd, b"\n" * torn + line.encode() + b"\n")
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
            for line in segment.read_bytes().split(b"\n"):
                if not line:
                    continue
                try:
                    yield json.loads(line)
                except ValueError:
                    continue

    def copy_to(self, volume: Volume) -> int:
        """Bring a volume's copy of the journal up to date; return how many segments were copied."""
        copied = 0
        for segment in self.segments():
            path = f"journal/{segment.name}"
            if not volume.has(path) or volume.size_of(path) != segment.stat().st_size:
                volume.replace_small(path, segment.read_bytes())
                copied += 1
        return copied


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
