"""Byte order of values that pydicom keeps as bytes.

pydicom converts numbers between little and big endian but leaves words in byte strings (pixel data of VR OW, say) as
they were read: written in the other byte order they would be other pixels.
"""

from __future__ import annotations

from pydicom.dataset import Dataset

#: VR → bytes of a word (PS3.5 Table 6.2-1). OB and UN have no byte order.
_WORD_SIZE_BYTES = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}


def swap_words(ds: Dataset) -> None:
    """Turn the words of every byte string in a data set, and in its sequences, round.

    Encapsulated pixel data must have been decompressed before. Raise ValueError for half words, and for pixels of more
    than 16 bits: writers of big endian do not agree on the order of their words (PS3.5 8.1.1 says 16-bit words, the
    least significant first; some wrote one 32-bit word), and wrong pixels are worse than none.
    """
    if "PixelData" in ds and int(ds.get("BitsAllocated") or 0) > 16:
        raise ValueError("pixels of more than 16 bits have no agreed order in big endian")
    for element in ds.iterall():
        size = _WORD_SIZE_BYTES.get(str(element.VR))
        if size is None or not element.value:
            continue
        value = bytes(element.value)
        if len(value) % size:
            raise ValueError(f"{element.keyword} does not hold whole words")
        swapped = bytearray(len(value))
        for at in range(size):
            swapped[at::size] = value[size - 1 - at :: size]
        element.value = bytes(swapped)
