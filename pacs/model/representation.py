"""The value representation of an element where its encoding does not say it: implicit VR little endian.

From PS3.6 where that says one; of two it is the one that the data set's own attributes ask for (PS3.5 A.1, A.2).
Private elements, and those that PS3.6 does not list, are UN (PS3.5 6.2.2): their bytes are what they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from pydicom.datadict import dictionary_has_tag, dictionary_VR, repeater_has_tag

from pacs.model.dataset import PIXEL_DATA

_BITS_ALLOCATED = 0x00280100
_PIXEL_REPRESENTATION = 0x00280103
_WAVEFORM_BITS_ALLOCATED = 0x54001004
_FACTS = frozenset([_BITS_ALLOCATED, _PIXEL_REPRESENTATION, _WAVEFORM_BITS_ALLOCATED])


@dataclass
class Facts:
    """What a data set has said so far that others of its elements depend on. An item's are its data set's until it
    says them itself."""

    bits_allocated: int = 16
    pixel_representation: int = 0
    waveform_bits_allocated: int = 16

    def copy(self) -> Facts:
        """The same for an item's own."""
        return replace(self)

    def note(self, tag: int, value: bytes, endian: str) -> None:
        """Take note of an element's value (VR US)."""
        if tag not in _FACTS or len(value) != 2:
            return
        order: Literal["big", "little"] = "big" if endian == ">" else "little"
        number = int.from_bytes(value, order)
        if tag == _BITS_ALLOCATED:
            self.bits_allocated = number
        elif tag == _PIXEL_REPRESENTATION:
            self.pixel_representation = number
        else:
            self.waveform_bits_allocated = number


def representation_of(tag: int, facts: Facts) -> str:
    """The value representation of an element of an implicit VR data set."""
    if tag >> 16 & 1:
        # A private creator is known to be text (PS3.5 7.8.1).
        return "LO" if 0x10 <= tag & 0xFFFF <= 0xFF else "UN"
    if not (dictionary_has_tag(tag) or repeater_has_tag(tag)):
        return "UN"
    vr = dictionary_VR(tag)
    if vr == "US or SS":
        return "SS" if facts.pixel_representation == 1 else "US"
    if vr == "OB or OW":
        if tag == PIXEL_DATA:
            return "OW" if facts.bits_allocated > 8 else "OB"
        return "OB" if tag >> 16 == 0x5400 and facts.waveform_bits_allocated <= 8 else "OW"
    if " or " in vr:  # look-up tables
        return "OW"
    return vr if len(vr) == 2 else "UN"
