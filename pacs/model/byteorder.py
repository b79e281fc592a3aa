"""Byte order of values that pydicom keeps as bytes.

pydicom converts numbers between little and big endian but leaves words in byte strings (pixel data of VR OW, say) as
they were read: written in the other byte order they would be other pixels.
"""

from __future__ import annotations

from pydicom.dataset import Dataset

#: VR → bytes of a word (PS3.5 Table 6.2-1). OB and UN have no byte order.
_WORD_SIZE_BYTES = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}


def swap_words(ds: Dataset) -> None:
    """Turn the words of every byte string in a data set, and in its sequences, round. Raise ValueError for half words.

    Encapsulated pixel data must have been decompressed before.
    """
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
