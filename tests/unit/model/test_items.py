"""Items of sequences, however they are encoded, and cut into whatever pieces."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs.model.dataset import Scanner, scan
from pacs.model.items import items_of
from pacs.model.record import ITEMS_MAX, read_record
from tests.unit.model.encoding import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    UNDEFINED,
    delimiter,
    element,
    identity,
    item,
)

CODES, VALUE, MEANING, OTHER = 0x00081032, 0x00080100, 0x00080104, 0x0040A043
SYNTAXES = [EXPLICIT, IMPLICIT, BIG_ENDIAN]


def sequence(content: bytes, undefined: bool, syntax: str, tag: int = CODES) -> bytes:
    if undefined:
        return element(tag, "SQ", content + delimiter(syntax=syntax), syntax, length=UNDEFINED)
    return element(tag, "SQ", content, syntax)


def codes(syntax: str, of_undefined_length: bool, items_undefined: bool, nested_undefined: bool) -> bytes:
    nested = sequence(
        item(element(VALUE, "SH", b"NO", syntax), nested_undefined, syntax), nested_undefined, syntax, OTHER
    )
    one = element(VALUE, "SH", b"A1", syntax) + element(MEANING, "LO", b"Head", syntax) + nested
    two = element(MEANING, "LO", b"Foot", syntax) + nested
    return sequence(
        item(one, items_undefined, syntax) + item(two, items_undefined, syntax), of_undefined_length, syntax
    )


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("items_undefined", [False, True])
@pytest.mark.parametrize("nested_undefined", [False, True])
def test_items(syntax: str, undefined: bool, items_undefined: bool, nested_undefined: bool) -> None:
    data = (
        element(0x00080005, "CS", b"", syntax)
        + codes(syntax, undefined, items_undefined, nested_undefined)
        + element(0x00100020, "LO", b"P1", syntax)
    )
    for size in (len(data), 1, 7, 13):
        scanner = Scanner(syntax, {CODES, 0x00100020})
        for at in range(0, len(data), size):
            scanner.feed(memoryview(data)[at : at + size])
        found = scanner.finish()
        assert found[0x00100020] == b"P1"
        items = items_of(found, CODES)
        assert [(each.get(VALUE), each.get(MEANING)) for each in items] == [(b"A1", b"Head"), (None, b"Foot")]


def test_the_index_has_the_items_in_their_character_set() -> None:
    head = element(VALUE, "SH", b"A1") + element(MEANING, "LO", "Schädel".encode())
    data = element(0x00080005, "CS", b"ISO_IR 192") + sequence(item(head, True) + item(b""), True, EXPLICIT)
    record = read_record(_with(data), EXPLICIT)
    assert record.sequences == {"procedure_codes": [{"CodeValue": "A1", "CodeMeaning": "Schädel"}]}


def _with(more: bytes) -> bytes:
    """A whole object with these elements in front: the scanner takes them in any order."""
    return more + identity()


def test_no_more_items_than_the_index_keeps() -> None:
    data = sequence(item(element(VALUE, "SH", b"A1")) * (ITEMS_MAX + 5), True, EXPLICIT)
    assert len(read_record(_with(data), EXPLICIT).sequences["procedure_codes"]) == ITEMS_MAX


def test_a_sequence_that_is_too_long_is_none() -> None:
    long = item(element(OTHER, "OB", bytes(70000)) + element(VALUE, "SH", b"A1"), True)
    assert read_record(_with(sequence(long, True, EXPLICIT)), EXPLICIT).sequences == {}


@given(st.binary(max_size=80))
def test_any_bytes_of_defined_length_are_read_or_left(content: bytes) -> None:
    found = scan(element(CODES, "SQ", content), EXPLICIT, {CODES})
    assert all(isinstance(each, dict) for each in items_of(found, CODES))


def test_items_that_nest_without_end_are_left() -> None:
    deep = (b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + element(CODES, "SQ", b"", length=UNDEFINED)) * 3000
    found = scan(element(CODES, "SQ", deep), EXPLICIT, {CODES})
    assert items_of(found, CODES) == []


def test_deflated() -> None:
    data = codes(EXPLICIT, True, True, True)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    found = scan(deflate.compress(data) + deflate.flush(), DEFLATED, {CODES})
    assert len(items_of(found, CODES)) == 2
