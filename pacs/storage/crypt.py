"""The file format of rclone's crypt remote, in which a repository keeps objects: plain rclone reads it without us.

    "RCLONE\\0\\0" │ nonce, 24 bytes │ blocks of 64 KiB, each sealed (NaCl secretbox) and 16 bytes longer for it

The nonce is counted up by one a block. A block that was changed, or moved, does not open. That blocks are missing from
the end shows in the size alone: whoever reads a file knows its size, and its digest.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable, Iterator

from nacl.bindings import crypto_secretbox, crypto_secretbox_open
from nacl.exceptions import CryptoError

from pacs.errors import DigestMismatch

MAGIC = b"RCLONE\x00\x00"
NONCE_BYTES = 24
HEADER_BYTES = len(MAGIC) + NONCE_BYTES
BLOCK_BYTES = 64 << 10
SEALED_BLOCK_BYTES = BLOCK_BYTES + 16
KEY_BYTES = 32
#: What rclone takes where no second password is set.
_SALT = bytes.fromhex("a80df43a8fbd0308a7cab83e581f86b1")


class Unreadable(DigestMismatch):
    """A file is not what was sealed, or was sealed with another key. The copy is left where it is."""


@functools.lru_cache(maxsize=16)
def key_of(password: str, salt: str = "") -> bytes:
    """The key that rclone makes of a crypt remote's `password` and `password2`: 32 bytes. Takes 50 ms."""
    derived = hashlib.scrypt(
        password.encode(), salt=salt.encode() or _SALT, n=16384, r=8, p=1, dklen=80, maxmem=64 << 20
    )  # fmt: skip
    return derived[:KEY_BYTES]  # behind it are those for names, which are not sealed here


def sealed_size(size_bytes: int) -> int:
    """How long a file of so many bytes is when it is sealed."""
    blocks = -(-size_bytes // BLOCK_BYTES)
    return HEADER_BYTES + size_bytes + 16 * blocks


def plain_size(sealed_bytes: int) -> int:
    """How many bytes a sealed file of this size holds. Raise Unreadable if none has this size."""
    body = sealed_bytes - HEADER_BYTES
    whole, rest = divmod(max(body, 0), SEALED_BLOCK_BYTES)
    if body < 0 or 0 < rest <= 16:
        raise Unreadable("A file in the repository has a size that no sealed file has.")
    return whole * BLOCK_BYTES + max(0, rest - 16)


def block_offset(number: int) -> int:
    """Where a block begins in a sealed file."""
    return HEADER_BYTES + number * SEALED_BLOCK_BYTES


def seal(chunks: Iterable[bytes | memoryview], key: bytes) -> Iterator[bytes]:
    """What a sealed file holds of these bytes."""
    nonce = os.urandom(NONCE_BYTES)
    yield MAGIC + nonce
    for number, block in enumerate(_blocks(chunks)):
        yield crypto_secretbox(block, _nonce(nonce, number), key)


class Opening:
    """A sealed file's blocks, opened. Raise Unreadable for what does not fit."""

    def __init__(self, header: bytes, key: bytes) -> None:
        """header: the first HEADER_BYTES of the file."""
        if len(header) != HEADER_BYTES or not header.startswith(MAGIC):
            raise Unreadable("A file in the repository is damaged: it does not begin as a sealed file does.")
        self._nonce, self._key = header[len(MAGIC) :], key

    def block(self, number: int, sealed: bytes) -> bytes:
        """A block by its number."""
        try:
            return crypto_secretbox_open(sealed, _nonce(self._nonce, number), self._key)
        except (CryptoError, ValueError) as error:
            raise Unreadable(f"A file in the repository is damaged, in its block {number}.") from error


def unseal(chunks: Iterable[bytes | memoryview], key: bytes) -> Iterator[bytes]:
    """The bytes of a sealed file that is read from its beginning. Raise Unreadable."""
    waiting = bytearray()
    opening: Opening | None = None
    number = 0
    for chunk in chunks:
        waiting += chunk
        if opening is None and len(waiting) >= HEADER_BYTES:
            opening = Opening(bytes(waiting[:HEADER_BYTES]), key)
            del waiting[:HEADER_BYTES]
        if opening is None:
            continue
        at = 0
        while len(waiting) - at >= SEALED_BLOCK_BYTES:
            yield opening.block(number, bytes(waiting[at : at + SEALED_BLOCK_BYTES]))
            at, number = at + SEALED_BLOCK_BYTES, number + 1
        del waiting[:at]
    if opening is None:
        raise Unreadable("A file in the repository is damaged: it is shorter than a sealed file's beginning.")
    if waiting:
        yield opening.block(number, bytes(waiting))


def _nonce(first: bytes, number: int) -> bytes:
    if number == 0:
        return first
    counted = (int.from_bytes(first, "little") + number) % (1 << (8 * NONCE_BYTES))
    return counted.to_bytes(NONCE_BYTES, "little")


def _blocks(chunks: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """The same bytes in blocks of BLOCK_BYTES, the last one shorter."""
    waiting = bytearray()
    for chunk in chunks:
        view = memoryview(chunk).cast("B")
        at = 0
        if waiting:
            at = min(len(view), BLOCK_BYTES - len(waiting))
            waiting += view[:at]
            if len(waiting) == BLOCK_BYTES:
                yield bytes(waiting)
                waiting.clear()
        while len(view) - at >= BLOCK_BYTES:
            yield bytes(view[at : at + BLOCK_BYTES])
            at += BLOCK_BYTES
        waiting += view[at:]
    if waiting:
        yield bytes(waiting)
