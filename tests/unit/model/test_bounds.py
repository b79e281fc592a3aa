"""What is refused before it is decoded whole."""

from __future__ import annotations

import zlib

import pytest
from pydicom.dataset import Dataset

from pacs.errors import CannotUnderstand
from pacs.model.bounds import (
    IDENTIFIER_ELEMENTS_MAX,
    require_few_elements,
    require_small_inflated,
    require_small_pixels,
)
from pacs.model.dataset import Scanner

EXPLICIT, DEFLATED = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"
ELEMENT = b"\x10\x00\x20\x00LO\x00\x00"
ITEM = b"\xfe\xff\x00\xe0\x00\x00\x00\x00"
SEQUENCE = b"\x08\x00\x15\x11SQ\x00\x00\xff\xff\xff\xff", b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"


def _deflated(data: bytes) -> bytes:
    stream = zlib.compressobj(9, wbits=-15)
    return stream.compress(data) + stream.flush()


def test_an_identifier_has_so_many_elements_and_no_more() -> None:
    require_few_elements(b"", EXPLICIT)
    require_few_elements(ELEMENT * IDENTIFIER_ELEMENTS_MAX, EXPLICIT)
    with pytest.raises(CannotUnderstand, match="too many"):
        require_few_elements(ELEMENT * (IDENTIFIER_ELEMENTS_MAX + 1), EXPLICIT)
    with pytest.raises(CannotUnderstand, match="cut short"):
        require_few_elements(ELEMENT[:-1], EXPLICIT)


def test_what_a_deflated_data_set_grows_to_is_bounded() -> None:
    data = _deflated(bytes(1000))
    require_small_inflated(data, DEFLATED, 1000)
    with pytest.raises(CannotUnderstand):
        require_small_inflated(data, DEFLATED, 999)
    require_small_inflated(bytes(2000), EXPLICIT, 999)


def test_what_pixel_data_grow_to_is_bounded() -> None:
    ds = Dataset()
    require_small_pixels(ds, 1)
    ds.Rows = ds.Columns = 65535
    ds.NumberOfFrames, ds.SamplesPerPixel, ds.BitsAllocated = 1000, 3, 8
    with pytest.raises(CannotUnderstand):
        require_small_pixels(ds, 16 << 20)


def test_a_deflated_data_set_has_so_many_elements_for_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pacs.model.dataset.DEFLATED_ELEMENTS_MAX", 1000)
    for count, is_taken in ((900, True), (5000, False)):
        scanner = Scanner(DEFLATED, ())
        data = _deflated(SEQUENCE[0] + ITEM * count + SEQUENCE[1])
        if is_taken:
            scanner.feed(memoryview(data))
            scanner.finish()
            continue
        with pytest.raises(CannotUnderstand, match="more elements"):
            scanner.feed(memoryview(data))
