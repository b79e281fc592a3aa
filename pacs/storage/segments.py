"""Append-only files of JSON lines, on the disk when written: what the journal and the receipts are made of."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pacs.storage import durable


def append(segment: Path, content: bytes) -> None:
    """Append whole lines durably; several processes may. Raise VolumeFull or VolumeFailed; then they do not count."""
    try:
        durable.make_folders(segment.parent)
        fd = os.open(segment, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o640)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            _end_torn_line(fd)
            _write_all(fd, content)
            durable.fsync_fd(fd)
        finally:
            os.close(fd)
        durable.fsync_folder(segment.parent)
    except OSError as error:
        raise durable.as_volume_error(error, segment.parent) from error


def segments_in(folder: Path) -> list[Path]:
    """The segments' files, oldest first."""
    return sorted(folder.glob("*.jsonl")) if folder.is_dir() else []


def lines_of(content: bytes) -> Iterator[dict[str, Any]]:
    """The lines of a segment. A half-written one was never acknowledged and is left out."""
    for line in content.split(b"\n"):
        if line:
            try:
                yield json.loads(line)
            except ValueError:
                continue


def _end_torn_line(fd: int) -> None:
    """End a line that a loss of power left half written, so that it costs only itself."""
    size = os.fstat(fd).st_size
    if size > 0 and os.pread(fd, 1, size - 1) != b"\n":
        _write_all(fd, b"\n")


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
