"""Bodies of multipart/related as they come (RFC 2387), in memory that does not grow with them.

python-multipart finds the boundaries; here is what it must not exceed, and who takes the parts' bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser

from pacs.errors import TooLarge, UsageError
from pacs.web.media import parsed

#: The most that a request may have: parts, and bytes of a part's headers.
PARTS_MAX, HEADERS_SIZE_BYTES_MAX = 100_000, 16 << 10


class Sink(Protocol):
    """Who takes a part's bytes."""

    def write(self, piece: memoryview) -> None:
        """Take the next bytes."""

    def finish(self) -> None:
        """The part is whole."""

    def abandon(self) -> None:
        """The rest of the part does not come."""


def boundary_of(content_type: str) -> tuple[str, dict[str, str]]:
    """The boundary and the parameters of a body's media type. Raise UsageError if it has none that can be."""
    _media_type, parameters = parsed(content_type)
    boundary = parameters.get("boundary", "")
    if not 1 <= len(boundary) <= 200 or not boundary.isascii() or not boundary.isprintable():
        raise UsageError("The body's media type has no boundary.")
    return boundary, parameters


class Parts:
    """Feeds parts to sinks. `open_sink` is told a part's headers, their names in lower case."""

    def __init__(self, boundary: str, open_sink: Callable[[dict[str, str]], Sink]) -> None:
        self._open_sink = open_sink
        self._sink: Sink | None = None
        self._headers: dict[str, str] = {}
        self._name = self._value = b""
        self._size = self._count = 0
        self._is_over = False
        self._parser = MultipartParser(
            boundary.encode("ascii"),
            {
                "on_part_begin": self._begin,
                "on_header_field": self._field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._data,
                "on_part_end": self._part_end,
                "on_end": self._end,
            },
        )

    def write(self, data: bytes) -> None:
        """Take the next bytes of the body. Raise UsageError if it is not multipart, or has too much."""
        try:
            self._parser.write(data)
        except MultipartParseError as error:
            raise UsageError(f"The body cannot be read as multipart: {error}.") from error

    def finish(self) -> None:
        """All bytes were written. Raise UsageError if the last part is not whole."""
        if not self._is_over:
            raise UsageError("The body ends before its last boundary.")

    def abandon(self) -> None:
        """Forget the part that is under way."""
        if self._sink is not None:
            self._sink.abandon()
            self._sink = None

    def _begin(self) -> None:
        self._count += 1
        self._headers, self._size = {}, 0
        if self._count > PARTS_MAX:
            raise TooLarge(f"A request has at most {PARTS_MAX} parts. Send it in several.")

    def _count_header(self, size: int) -> None:
        self._size += size
        if self._size > HEADERS_SIZE_BYTES_MAX:
            raise UsageError("The headers of a part are too long.")

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._value += data[start:end]

    def _header_end(self) -> None:
        name, value = self._name.decode("latin-1").strip().lower(), self._value.decode("latin-1").strip()
        self._headers[name] = value
        self._name = self._value = b""

    def _headers_finished(self) -> None:
        self._sink = self._open_sink(self._headers)

    def _data(self, data: bytes, start: int, end: int) -> None:
        assert self._sink is not None
        self._sink.write(memoryview(data)[start:end])

    def _part_end(self) -> None:
        if self._sink is not None:
            sink, self._sink = self._sink, None
            sink.finish()

    def _end(self) -> None:
        self._is_over = True
