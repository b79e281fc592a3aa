"""Which files of a volume were read and found whole, so that a later look reads only what is new.

    DATA/holdings/since           when the first of them was read
    DATA/holdings/<volume>.txt    a line a file, `path<TAB>size`, in the order of the paths' bytes
    DATA/holdings/<volume>.part   the same of a reading under way, which a kill leaves; the next one takes it up

A file's name states its digest, a path is used once and no file is changed, so a line holds as long as the file is
there with that size. What it cannot see is a disk that spoils a file later: for that a reading is begun anew.
"""

from __future__ import annotations

import heapq
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from pacs import clock
from pacs.errors import VolumeFailed
from pacs.storage import durable

FOLDER = "holdings"
Line = tuple[bytes, int]


class ReadLog:
    """What was read of an instance's volumes. One at a time writes to it."""

    def __init__(self, data: Path) -> None:
        self.folder = data / FOLDER

    def begin(self, anew: bool) -> None:
        """Have a log; `anew` forgets all that was read."""
        durable.make_folders(self.folder)
        if anew:
            for path in self.folder.iterdir():
                path.unlink()
        if not self._since.exists():
            durable.replace_file(self._since, clock.now().isoformat(timespec="seconds").encode())

    def since(self) -> str:
        """When the first file was read (ISO 8601); empty if none was."""
        return self._since.read_text("ascii") if self._since.exists() else ""

    def lines(self, volume_id: str) -> Iterator[Line]:
        """Path and size of each file of a volume that was whole, in the order of the paths."""
        yield from _lines(self.folder / f"{volume_id}.txt")

    @contextmanager
    def reading(self, volume_id: str) -> Iterator[BinaryIO]:
        """Where the lines of a reading go, in order. They count when it ends; else the next one takes them up."""
        whole, part = self.folder / f"{volume_id}.txt", self.folder / f"{volume_id}.part"
        if part.exists():
            joined = self.folder / f"{volume_id}.joined"
            with open(joined, "wb") as file:
                for line, _same in groupby(heapq.merge(_lines(whole), _lines(part))):
                    file.write(content(*line))
                _sync(file)
            joined.replace(whole)
        with open(part, "wb") as file:
            yield file
            _sync(file)
        part.replace(whole)
        durable.fsync_folder(self.folder)

    def digests(self, volume_ids: list[str]) -> Iterator[str]:
        """The digests of all files of these volumes that were whole, sorted, each once. By sort(1), which needs little
        memory for many."""
        words = ["sort", "-u", "-T", str(self.folder)]
        with subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "LC_ALL": "C"}
        ) as process:
            assert process.stdin is not None and process.stdout is not None
            for volume_id in volume_ids:
                for path, _size_bytes in self.lines(volume_id):
                    process.stdin.write(path.rpartition(b"/")[2][:64] + b"\n")
            process.stdin.close()
            for line in process.stdout:
                yield line.decode("ascii").rstrip()
        if process.returncode:
            raise VolumeFailed(f"What was read cannot be sorted in {self.folder}. Is there room on the state's disk?")

    @property
    def _since(self) -> Path:
        return self.folder / "since"


def content(path: bytes, size_bytes: int) -> bytes:
    """A line."""
    return path + b"\t%d\n" % size_bytes


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _lines(path: Path) -> Iterator[Line]:
    """A file's lines; the last one of a killed reading may be cut off, and is none."""
    try:
        with open(path, "rb") as file:
            for line in file:
                name, tab, size = line.partition(b"\t")
                if tab and size.endswith(b"\n") and size.strip().isdigit():
                    yield name, int(size)
    except FileNotFoundError:
        return
