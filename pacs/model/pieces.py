"""Bytes that come in pieces: pulled by the number, gathered, inflated, deflated, their words turned round."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

from pacs.errors import CannotUnderstand
from pacs.model.dataset import INFLATED_SIZE_BYTES_MAX

#: The pieces that values pass in [bytes]: whole words of every size.
PIECE_SIZE_BYTES = 1 << 18


class Source:
    """Bytes pulled from pieces."""

    def __init__(self, pieces: Iterator[bytes | memoryview]) -> None:
        self._pieces = pieces
        self._data = memoryview(b"")
        self._at = 0  # in _data
        self.at = 0  # in all

    def peek(self, size: int) -> bytes:
        """The next bytes, fewer only at the end; they stay."""
        while len(self._data) - self._at < size:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._data, self._at = memoryview(bytes(self._data[self._at :]) + bytes(piece)), 0
        return bytes(self._data[self._at : self._at + size])

    def take(self, size: int) -> bytes:
        """The next bytes. Raise CannotUnderstand if there are not as many."""
        taken = self.peek(size)
        if len(taken) < size:
            raise CannotUnderstand("The data set is cut short in the middle of an element.")
        self._at += size
        self.at += size
        return taken

    def copy(self, size: int) -> Iterator[bytes]:
        """The next bytes in pieces of whole words. Raise CannotUnderstand if there are not as many."""
        while size:
            taken = self.take(min(size, PIECE_SIZE_BYTES))
            size -= len(taken)
            yield taken

    def skip(self, size: int) -> None:
        """Leave the next bytes out."""
        for _ in self.copy(size):
            pass


def swapped(piece: bytes, word: int) -> bytes:
    """Words of some bytes turned round between little and big endian."""
    turned = bytearray(len(piece))
    for at in range(word):
        turned[at::word] = piece[word - 1 - at :: word]
    return bytes(turned)


def gathered(parts: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces that are worth sending."""
    waiting, size = list[bytes](), 0
    for part in parts:
        waiting.append(part)
        size += len(part)
        if size >= PIECE_SIZE_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


def inflated(pieces: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """A deflated data set's own bytes (PS3.5 A.5)."""
    stream, left = zlib.decompressobj(-zlib.MAX_WBITS), INFLATED_SIZE_BYTES_MAX
    for piece in pieces:
        data = bytes(piece)
        while data and not stream.eof:
            try:
                grown = stream.decompress(data, PIECE_SIZE_BYTES)
            except zlib.error as error:
                raise CannotUnderstand(f"The deflated data set cannot be inflated: {error}.") from error
            left -= len(grown)
            if left < 0:
                raise CannotUnderstand("The deflated data set is larger than this archive takes.")
            yield grown
            data = stream.unconsumed_tail
    while not stream.eof:
        if not (grown := stream.decompress(b"", PIECE_SIZE_BYTES)):
            raise CannotUnderstand("The deflated data set is cut short.")
        yield grown


def deflated(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """A data set deflated, filled up to an even length (PS3.5 A.5)."""
    stream, size = zlib.compressobj(wbits=-zlib.MAX_WBITS), 0
    for piece in pieces:
        shrunk = stream.compress(piece)
        size += len(shrunk)
        if shrunk:
            yield shrunk
    shrunk = stream.flush()
    yield shrunk + b"\0" * ((size + len(shrunk)) % 2)
