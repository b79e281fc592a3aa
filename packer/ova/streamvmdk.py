"""Stream-optimised VMDKs as VMware's own readers want them, made with qemu-img.

qemu-img leaves up to 64 KiB of zeros behind the last grain, and nothing at all behind the tables of an empty disk.
VMware's readers expect exactly one zero sector there, the end-of-stream marker, and report a wrong digest otherwise.
`finish` gives the file that end, and a content id that depends on the build and not on chance.
Format: VMware Virtual Disk Format 5.0, "Stream-Optimized Compressed Sparse Extents".
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from packer.errors import BuildError
from packer.progress import run_logged

SECTOR_BYTES = 512
_HEADER = struct.Struct("<4sIIQQQQIQQQ")
_GRAIN_MARKER_BYTES = 12
_AT_END = 0xFFFFFFFFFFFFFFFF
_REMEDY = "Look at the log of this stage; if qemu-img is newer than 10, report this as a defect."


@dataclass(frozen=True)
class Header:
    """The fields of a sparse extent's header that we need. Offsets and sizes are in sectors."""

    version: int
    capacity: int
    grain: int
    descriptor_offset: int
    descriptor_size: int
    entries_per_table: int
    directory_offset: int
    overhead: int


def read_header(stream: IO[bytes]) -> Header:
    """The header of a stream-optimised VMDK, checked to be one that we understand."""
    stream.seek(0)
    raw = stream.read(_HEADER.size)
    if len(raw) < _HEADER.size:
        raise BuildError("This file is too short for a VMDK.", _REMEDY)
    magic, version, _flags, capacity, grain, descriptor, descriptor_size, entries, _, directory, overhead = (
        _HEADER.unpack(raw)
    )
    # Importers refuse version 1 as "too old"; a directory at the end belongs to another writer than qemu-img.
    if magic != b"KDMV" or version != 3 or directory == _AT_END or not entries or not grain:
        raise BuildError("This is not a stream-optimised VMDK as qemu-img writes it.", _REMEDY)
    return Header(version, capacity, grain, descriptor, descriptor_size, entries, directory, overhead)


def grain_offsets(stream: IO[bytes], header: Header) -> list[int]:
    """The sector that each grain is stored at, in the order of the disk; 0 for one that is not stored."""
    grains = -(-header.capacity // header.grain)
    tables = -(-grains // header.entries_per_table)
    stream.seek(header.directory_offset * SECTOR_BYTES)
    directory = struct.unpack(f"<{tables}I", _exactly(stream, 4 * tables))
    offsets: list[int] = []
    for table in directory:
        stream.seek(table * SECTOR_BYTES)
        offsets += struct.unpack(f"<{header.entries_per_table}I", _exactly(stream, 4 * header.entries_per_table))
    return offsets[:grains]


def _exactly(stream: IO[bytes], size_bytes: int) -> bytes:
    content = stream.read(size_bytes)
    if len(content) != size_bytes:
        raise BuildError("This VMDK ends within its own tables.", _REMEDY)
    return content


def end_of_data(stream: IO[bytes], header: Header, offsets: list[int]) -> int:
    """Byte at which the end-of-stream marker has to stand: behind the last grain, or behind the tables."""
    if not offsets:
        return header.overhead * SECTOR_BYTES
    last = max(offsets) * SECTOR_BYTES
    stream.seek(last)
    size_bytes: int = struct.unpack("<QI", stream.read(_GRAIN_MARKER_BYTES))[1]
    return -(-(last + _GRAIN_MARKER_BYTES + size_bytes) // SECTOR_BYTES) * SECTOR_BYTES


def content_id(seed: str) -> str:
    """Eight hex digits for CID=, the same for the same seed. 0xffffffff means "no parent", so it is never given."""
    return f"{int(hashlib.sha256(seed.encode()).hexdigest(), 16) % 0xFFFFFFFE:08x}"


def with_content_id(descriptor: bytes, cid: str) -> bytes:
    """The descriptor with another content id, of the same length. qemu-img writes one that begins with 0 shorter."""
    text, count = re.subn(rb"(?m)^CID=[0-9a-f]{1,8}$", f"CID={cid}".encode(), descriptor.rstrip(b"\0"))
    if count != 1 or len(text) > len(descriptor):
        raise BuildError("The VMDK's descriptor has no content id, or no room for ours.", _REMEDY)
    return text.ljust(len(descriptor), b"\0")


def finish(path: Path, seed: str) -> int:
    """Give a VMDK of qemu-img the right end and a content id made from `seed`; bytes of the disk that are in use."""
    with path.open("r+b") as stream:
        header = read_header(stream)
        offsets = [offset for offset in grain_offsets(stream, header) if offset]
        end = end_of_data(stream, header, offsets)
        # May cut or lengthen: an empty disk of qemu-img ends right behind its tables.
        stream.truncate(end)
        stream.truncate(end + SECTOR_BYTES)
        stream.seek(header.descriptor_offset * SECTOR_BYTES)
        descriptor = stream.read(header.descriptor_size * SECTOR_BYTES)
        stream.seek(header.descriptor_offset * SECTOR_BYTES)
        stream.write(with_content_id(descriptor, content_id(seed)))
        stream.flush()
        os.fsync(stream.fileno())
    return len(offsets) * header.grain * SECTOR_BYTES


def check(stream: IO[bytes]) -> tuple[int, int]:
    """Read a finished stream-optimised VMDK through: bytes of the disk, and grains that are stored, all whole.

    Raise BuildError for a damaged one, and for one that does not end as VMware's readers want it.
    """
    header = read_header(stream)
    offsets = grain_offsets(stream, header)
    places = sorted(offset for offset in offsets if offset)
    for number, offset in enumerate(offsets):
        if offset:
            _check_grain(stream, header, number, offset)
    if len(set(places)) != len(places):
        raise BuildError("Two grains are stored in one place.", _REMEDY)
    end = end_of_data(stream, header, places)
    stream.seek(end)
    if stream.read(2 * SECTOR_BYTES) != bytes(SECTOR_BYTES):
        raise BuildError("It does not end with exactly one empty sector.", _REMEDY)
    return header.capacity * SECTOR_BYTES, len(places)


def _check_grain(stream: IO[bytes], header: Header, number: int, offset: int) -> None:
    stream.seek(offset * SECTOR_BYTES)
    marker = stream.read(_GRAIN_MARKER_BYTES)
    if len(marker) == _GRAIN_MARKER_BYTES:
        place, size_bytes = struct.unpack("<QI", marker)
        unpacker = zlib.decompressobj()
        try:
            # No more than a grain: a grain that says it holds gigabytes is not unpacked to find out.
            content = unpacker.decompress(stream.read(size_bytes), header.grain * SECTOR_BYTES + 1)
        except zlib.error:
            content = b""
        if place == number * header.grain and len(content) == header.grain * SECTOR_BYTES and unpacker.eof:
            return
    raise BuildError(f"The grain at sector {number * header.grain} is damaged.", _REMEDY)


def convert(source: Path, source_format: str, target: Path, seed: str, log: Path) -> int:
    """`source` as a finished stream-optimised VMDK at `target`, compared with it; bytes of the disk in use.

    `target` must already have its final name: the descriptor inside carries it.
    """
    options = "subformat=streamOptimized,adapter_type=lsilogic"
    command: list[str | Path] = [
        "qemu-img",
        "convert",
        "-f",
        source_format,
        "-O",
        "vmdk",
        "-o",
        options,
        source,
        target,
    ]
    run_logged(command, log, remedy=_REMEDY)
    used_bytes = finish(target, seed)
    run_logged(["qemu-img", "compare", "-f", source_format, "-F", "vmdk", source, target], log, remedy=_REMEDY)
    return used_bytes


def write_empty(target: Path, size_bytes: int, seed: str, log: Path) -> None:
    """A blank disk of `size_bytes` as a VMDK: its tables and the end-of-stream marker, no grain."""
    blank = target.with_name(f"{target.name}.raw")
    with blank.open("wb") as stream:
        stream.truncate(size_bytes)
    try:
        convert(blank, "raw", target, seed, log)
    finally:
        blank.unlink()
