"""What is in an initramfs, read from the file: cpio archives one behind the other, the last one packed with zstd."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

_MAGIC = b"070701"  # newc, Linux Documentation/driver-api/early-userspace/buffer-format.rst
_HEADER_BYTES = 110
_ZSTD = bytes.fromhex("28b52ffd")


def names(image: bytes) -> set[str]:
    """The path of every file in it."""
    found: set[str] = set()
    while image := image.lstrip(b"\0"):
        if image.startswith(_ZSTD):
            image = subprocess.run(["zstd", "-dcq"], input=image, capture_output=True, check=True).stdout
        entries, end = 0, 0
        for name, end in _entries(image):  # noqa: B007 # how far the last one went
            found.add(name)
            entries += 1
        if not entries:
            raise ValueError(f"neither cpio nor zstd at {image[:8].hex()}")
        image = image[end:]
    return found


def _entries(image: bytes) -> Iterator[tuple[str, int]]:
    """Name of each entry of one archive, and where the next begins."""
    at = 0
    while image[at : at + 6] == _MAGIC:
        fields = [int(image[at + 6 + 8 * number : at + 14 + 8 * number], 16) for number in range(13)]
        size_bytes, name_bytes = fields[6], fields[11]
        begin = at + _HEADER_BYTES
        name = image[begin : begin + name_bytes - 1].decode("utf-8", "surrogateescape")
        at = _aligned(_aligned(begin + name_bytes) + size_bytes)
        yield name, at
        if name == "TRAILER!!!":
            return


def _aligned(at: int) -> int:
    return at + -at % 4
