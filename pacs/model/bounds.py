"""What may be decoded whole in memory: checks before pydicom is let at bytes of a peer.

The receive path decodes nothing and needs none of this. Queries' identifiers, and objects that are compared, are
decoded; a few kilobytes of either can be made to grow to gigabytes.
"""

from __future__ import annotations

import zlib

from pydicom.dataset import Dataset

from pacs.errors import CannotUnderstand
from pacs.model.dataset import DEFLATED, Scanner

#: The most elements that a query's identifier may have; real ones have dozens.
IDENTIFIER_ELEMENTS_MAX = 4096


def require_few_elements(
    identifier: bytes, transfer_syntax_uid: str, elements_max: int = IDENTIFIER_ELEMENTS_MAX
) -> None:
    """Raise CannotUnderstand unless an identifier is whole, not too deep and of at most elements_max elements."""
    scanner = Scanner(transfer_syntax_uid, ())
    for at in range(0, len(identifier), 4096):
        scanner.feed(memoryview(identifier)[at : at + 4096])
        if scanner.elements > elements_max:
            raise CannotUnderstand("A message's identifier has too many elements.")
    scanner.finish()


def require_small_inflated(data: bytes, transfer_syntax_uid: str, size_bytes_max: int) -> None:
    """Raise CannotUnderstand for a deflated data set that grows beyond size_bytes_max: pydicom inflates it whole."""
    if transfer_syntax_uid in DEFLATED:
        inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size_bytes_max + 1)
        if len(inflated) > size_bytes_max:
            raise CannotUnderstand("The deflated data set is too large to be decoded.")


def require_small_pixels(ds: Dataset, size_bytes_max: int) -> None:
    """Raise CannotUnderstand for compressed pixel data that say they grow beyond size_bytes_max."""
    bits = int(ds.get("SamplesPerPixel") or 1) * int(ds.get("BitsAllocated") or 8)
    pixels = int(ds.get("Rows") or 1) * int(ds.get("Columns") or 1) * int(ds.get("NumberOfFrames") or 1)
    if bits * pixels > 8 * size_bytes_max:
        raise CannotUnderstand("The pixel data are too large to be decoded.")
