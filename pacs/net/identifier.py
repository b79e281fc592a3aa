"""Identifiers of queries and retrieves: read in any character set, written in the asker's where it holds the values.

Values are read from their raw bytes: a character of GB18030 may hold the byte of a backslash, which is no delimiter.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag, repeater_has_tag, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pynetdicom.dsutils import decode, encode
from pynetdicom.presentation import PresentationContext

from pacs.errors import CannotUnderstand
from pacs.model import text
from pacs.model.attributes import SPECIFIC_CHARACTER_SET, Level
from pacs.model.bounds import require_few_elements
from pacs.net.association import IDENTIFIER_SIZE_BYTES_MAX, Message
from pacs.net.negotiation import PATIENT_ROOTS

IDENTIFIER_DOES_NOT_MATCH = 0xA900  # PS3.4 Table C.4-1
UNICODE = "ISO_IR 192"

_LEVELS = {"PATIENT": Level.PATIENT, "STUDY": Level.STUDY, "SERIES": Level.SERIES, "IMAGE": Level.IMAGE}
_LONG_LENGTH_VRS = frozenset(["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"])
_PADDED_BY_NUL = frozenset(["UI", "OB", "UN"])


class IdentifierError(CannotUnderstand):
    """The query's identifier is not one of its information model. Check the querying device."""

    status = IDENTIFIER_DOES_NOT_MATCH


def read_identifier(message: Message) -> tuple[Dataset, Level]:
    """A query's or retrieve's identifier and its level. Raise IdentifierError if it has none that fits the model."""
    request, context = message.primitive, message.context
    syntax = context.transfer_syntax[0]
    try:
        require_few_elements(request.Identifier.getvalue(), str(syntax))
        identifier = decode(request.Identifier, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated)
        name = text_of(identifier, "QueryRetrieveLevel")
    except Exception as error:
        raise IdentifierError("The query's identifier cannot be read. Check the querying device.") from error
    if name not in _LEVELS:
        raise IdentifierError("The query has no level of PATIENT, STUDY, SERIES or IMAGE. Check the querying device.")
    level = _LEVELS[name]
    if level == Level.PATIENT and context.abstract_syntax not in PATIENT_ROOTS:
        raise IdentifierError("The study root has no PATIENT level. Check the querying device.")
    return identifier, level


@dataclass(frozen=True)
class Key:
    """An element that a query asks for; its keyword is empty if PS3.6 has none of that tag. `value` is its text,
    several values with backslashes between; a sequence has the keys of its first item instead."""

    tag: int
    vr: str
    keyword: str
    value: str = ""
    keys: tuple[Key, ...] = ()


def keys_of(ds: Dataset, encodings: list[str]) -> list[Key]:
    """What a data set asks for, in order of tags. Group lengths, private elements and the character set are no keys.

    `encodings`: those of a data set that says no character set. Raise IdentifierError if a sequence cannot be read.
    """
    own = character_set_of(ds)
    codecs = text.encodings_of(own) if own else encodings
    keys = []
    for tag in sorted(ds.keys()):
        if not tag.element or tag.is_private or tag == SPECIFIC_CHARACTER_SET:
            continue
        vr = _vr_of(tag)
        keyword = keyword_for_tag(tag)
        if vr == "SQ":
            keys.append(Key(tag, vr, keyword, keys=_item_keys(ds, tag, codecs)))
        else:
            keys.append(Key(tag, vr, keyword, _text(ds, tag, vr, codecs)))
    return keys


def _vr_of(tag: BaseTag) -> str:
    vr = dictionary_VR(tag) if dictionary_has_tag(tag) or repeater_has_tag(tag) else "UN"
    return vr[:2]  # of "US or SS" the first


def _item_keys(ds: Dataset, tag: BaseTag, encodings: list[str]) -> tuple[Key, ...]:
    try:
        items = ds[tag].value
        return tuple(keys_of(items[0], encodings)) if items else ()
    except Exception as error:  # pydicom raises what it likes, too for nesting that is too deep
        raise IdentifierError("A sequence of the query's identifier cannot be read.") from error


def character_set_of(ds: Dataset) -> bytes:
    """The raw value of a data set's own Specific Character Set; empty if it has none."""
    element = ds.get_item(SPECIFIC_CHARACTER_SET)
    if element is None:
        return b""
    if isinstance(element, RawDataElement):
        return (element.value or b"").strip(b" \0")
    values = [element.value] if isinstance(element.value, str) else list(element.value or ())
    return "\\".join(map(str, values)).encode()


def text_of(identifier: Dataset, keyword: str) -> str:
    """An identifier's value of a keyword as text, several values with backslashes between; empty if there is none."""
    tag = BaseTag(tag_for_keyword(keyword) or 0)
    return _text(identifier, tag, _vr_of(tag), text.encodings_of(character_set_of(identifier)))


def _text(ds: Dataset, tag: BaseTag, vr: str, encodings: list[str]) -> str:
    element = ds.get_item(tag)
    if isinstance(element, RawDataElement):
        return text.decode(element.value or b"", vr, encodings, IDENTIFIER_SIZE_BYTES_MAX)
    if element is None or element.value is None:
        return ""
    if isinstance(element.value, (list, tuple)) or type(element.value).__name__ == "MultiValue":
        return "\\".join(map(str, element.value))
    return str(element.value)


@dataclass(frozen=True)
class Answer:
    """An element of an answer: its text, several values with backslashes between; or the items of a sequence."""

    tag: int
    vr: str
    value: str = ""
    items: tuple[tuple[Answer, ...], ...] = ()


def encode_answer(elements: Iterable[Answer], terms: list[str], context: PresentationContext) -> bytes:
    """An identifier in the context's transfer syntax, and in the character set of these terms if that holds all of its
    values, else in Unicode."""
    is_explicit = not context.transfer_syntax[0].is_implicit_VR
    ordered = sorted(elements, key=lambda element: element.tag)
    encoded = _encode(ordered, is_explicit, text.encodings_of("\\".join(terms).encode()))
    if encoded is None:
        terms = [UNICODE]
        encoded = _encode(ordered, is_explicit, text.encodings_of(UNICODE.encode()))
        assert encoded is not None
    character_set = (
        _element(SPECIFIC_CHARACTER_SET, "CS", "\\".join(terms).encode(), is_explicit) if any(terms) else b""
    )
    # Of all that is answered only group lengths and commands have lower tags, and those are no keys.
    return character_set + encoded


def _encode(elements: Iterable[Answer], is_explicit: bool, encodings: list[str]) -> bytes | None:
    parts = []
    for element in elements:
        if element.vr == "SQ":
            value = _encode_items(element.items, is_explicit, encodings)
        else:
            value = text.encode(element.value, element.vr, encodings)
        if value is None:
            return None
        parts.append(_element(element.tag, element.vr, value, is_explicit))
    return b"".join(parts)


def _encode_items(items: Iterable[tuple[Answer, ...]], is_explicit: bool, encodings: list[str]) -> bytes | None:
    parts = []
    for item in items:
        encoded = _encode(item, is_explicit, encodings)
        if encoded is None:
            return None
        parts.append(struct.pack("<HHL", 0xFFFE, 0xE000, len(encoded)) + encoded)
    return b"".join(parts)


def _element(tag: int, vr: str, value: bytes, is_explicit: bool) -> bytes:
    if len(value) % 2:
        value += b"\0" if vr in _PADDED_BY_NUL else b" "
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    if not is_explicit:
        return head + struct.pack("<L", len(value)) + value
    if vr in _LONG_LENGTH_VRS:
        return head + vr.encode() + struct.pack("<xxL", len(value)) + value
    return head + vr.encode() + struct.pack("<H", len(value)) + value


def encode_identifier(ds: Dataset, context: PresentationContext) -> bytes:
    """A pydicom data set in the context's transfer syntax."""
    syntax = context.transfer_syntax[0]
    encoded = encode(ds, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated)
    if encoded is None:
        raise CannotUnderstand("An answer could not be encoded. Send the log to the maintainers.")
    return encoded
