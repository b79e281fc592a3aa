"""The scanner against bytes made by hand, cut everywhere, mutated, and against pydicom."""

from __future__ import annotations

import contextlib
import itertools
import tracemalloc
import zlib
from io import BytesIO

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence

from pacs.errors import CannotUnderstand
from pacs.model.attributes import SCANNED_TAGS
from pacs.model.dataset import DEFLATED, DEPTH_MAX, Scanner, scan
from tests.unit.model.encoding import (
    BIG_ENDIAN,
    EXPLICIT,
    IMPLICIT,
    JPEG_BASELINE,
    UNDEFINED,
    delimiter,
    element,
    identity,
    item,
    undefined,
)
from tests.unit.model.encoding import DEFLATED as DEFLATED_EXPLICIT

ALL = (IMPLICIT, EXPLICIT, BIG_ENDIAN)
PIXEL_DATA = 0x7FE00010
REFERENCED = 0x00081140  # a sequence before the patient's group
NAME, SOP_INSTANCE = 0x00100010, 0x00080018
PRIVATE = 0x00091010


def deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush()


@pytest.mark.parametrize("syntax", ALL)
def test_finds_what_is_asked_for_behind_a_sequence(syntax: str) -> None:
    inner = element(SOP_INSTANCE, "UI", b"9.9.9\0", syntax)
    for nested in (
        element(REFERENCED, "SQ", item(inner, syntax=syntax), syntax),
        element(REFERENCED, "SQ", item(inner, True, syntax), syntax),
        undefined(REFERENCED, "SQ", item(inner, syntax=syntax) * 2, syntax),
        undefined(REFERENCED, "SQ", item(inner, True, syntax) * 2, syntax),
        undefined(REFERENCED, "SQ", b"", syntax),
        undefined(
            REFERENCED, "SQ", item(undefined(REFERENCED, "SQ", item(inner, True, syntax), syntax), True, syntax), syntax
        ),
    ):
        data = element(SOP_INSTANCE, "UI", b"1.2.3\0", syntax) + nested + element(NAME, "PN", b"Doe^Jane", syntax)
        assert scan(data, syntax, SCANNED_TAGS) == {SOP_INSTANCE: b"1.2.3\0", NAME: b"Doe^Jane"}


def test_the_last_of_a_repeated_element_counts() -> None:
    data = element(NAME, "PN", b"One ") + element(NAME, "PN", b"Two ")
    assert scan(data, EXPLICIT, SCANNED_TAGS) == {NAME: b"Two "}


def test_keeps_only_what_is_asked_for() -> None:
    assert scan(identity(), EXPLICIT, {NAME}) == {NAME: b"Doe^Jane"}
    assert scan(b"", EXPLICIT, SCANNED_TAGS) == {}


def test_fragments_are_skipped_whatever_is_in_them() -> None:
    hostile = delimiter() + item(b"", True) + element(NAME, "PN", b"Evil")
    pixels = undefined(PIXEL_DATA, "OB", item(b"") + item(hostile) + item(b"\xff\xd8\xff\xd9"))
    assert scan(identity() + pixels, JPEG_BASELINE, {NAME, SOP_INSTANCE})[NAME] == b"Doe^Jane"


def test_a_fragment_without_a_length_is_refused() -> None:
    with pytest.raises(CannotUnderstand):
        scan(identity() + undefined(PIXEL_DATA, "OB", item(b"", True)), JPEG_BASELINE, SCANNED_TAGS)


def test_unknown_vr_of_undefined_length_is_implicit_inside() -> None:
    """PS3.5 6.2.2 note 4; and what follows it is explicit again."""
    inside = item(element(0x00100020, "LO", b"NO", IMPLICIT), True)
    nested = undefined(PRIVATE, "UN", inside + item(undefined(REFERENCED, "SQ", inside, IMPLICIT), True))
    assert scan(nested + element(NAME, "PN", b"Doe^Jane"), EXPLICIT, SCANNED_TAGS) == {NAME: b"Doe^Jane"}


def test_a_vr_of_the_future_has_a_long_length() -> None:
    future = b"\x09\x00\x10\x10ZZ\0\0" + (6).to_bytes(4, "little") + b"abcdef"
    assert scan(element(SOP_INSTANCE, "UI", b"1.2\0") + future, EXPLICIT, {SOP_INSTANCE}) == {SOP_INSTANCE: b"1.2\0"}


@pytest.mark.parametrize("said", [IMPLICIT, EXPLICIT])
def test_a_sender_that_wrote_the_other_vr_encoding_than_it_said_is_understood(said: str) -> None:
    written = EXPLICIT if said == IMPLICIT else IMPLICIT
    assert scan(identity(written), said, {NAME}) == {NAME: b"Doe^Jane"}


@pytest.mark.parametrize("size", [2, 4, 8, 12, 510, 4096])
@pytest.mark.parametrize("syntax", ALL)
def test_zeros_that_fill_up_a_last_block_are_no_fault(syntax: str, size: int) -> None:
    assert scan(identity(syntax) + bytes(size), syntax, {NAME}) == {NAME: b"Doe^Jane"}


@pytest.mark.parametrize("syntax", ALL)
@pytest.mark.parametrize("group", [0x0000, 0x0002])
def test_groups_of_commands_and_files_do_not_belong_in_a_data_set(syntax: str, group: int) -> None:
    with pytest.raises(CannotUnderstand):
        scan(element(group << 16 | 0x10, "UI", b"1.2\0", syntax) + identity(syntax), syntax, SCANNED_TAGS)


@pytest.mark.parametrize("tag", [0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD])
def test_a_delimiter_where_no_sequence_is_open_is_refused(tag: int) -> None:
    with pytest.raises(CannotUnderstand):
        scan(identity() + delimiter(tag & 0xFFFF) + element(PIXEL_DATA, "OW", b"\0\0"), EXPLICIT, SCANNED_TAGS)


# --- cut short -------------------------------------------------------------------------------------------------------


def _whole(syntax: str) -> tuple[bytes, set[int]]:
    """A small data set with one of everything, and where its top-level elements begin and end."""
    inner = element(NAME, "PN", b"In^Side ", syntax)
    parts = [
        element(0x00080005, "CS", b"ISO_IR 100", syntax),
        element(0x00080016, "UI", b"1.2.840.10008.5.1.4.1.1.2\0", syntax),
        undefined(REFERENCED, "SQ", item(inner, True, syntax) + item(inner, syntax=syntax), syntax),
        element(0x00081115, "SQ", item(inner, True, syntax), syntax),
        element(NAME, "PN", b"Doe^Jane", syntax),
        element(0x00280010, "US", b"\x01\x02", syntax),
        undefined(0x00420011, "UN", item(element(NAME, "PN", b"ab", IMPLICIT), True), syntax)
        if syntax == EXPLICIT
        else b"",
        undefined(PIXEL_DATA, "OB", item(b"") + item(b"\xff\xd8\xff\xd9"), syntax)
        if syntax == EXPLICIT
        else element(PIXEL_DATA, "OW", bytes(range(64)), syntax),
    ]
    borders = {sum(len(part) for part in parts[:count]) for count in range(len(parts) + 1)}
    return b"".join(parts), borders


@pytest.mark.parametrize("syntax", ALL)
def test_cut_at_any_byte_is_refused_or_lacks_the_rest(syntax: str) -> None:
    """A cut exactly between two top-level elements leaves a valid data set: nothing tells it from a whole one, but
    what it lacks. Then what is there must be right. At every other byte the cut must be found."""
    whole, borders = _whole(syntax)
    full = scan(whole, syntax, SCANNED_TAGS)
    assert full[NAME] == b"Doe^Jane"
    for size in range(len(whole)):
        if size in borders:
            found = scan(whole[:size], syntax, SCANNED_TAGS)
            assert found.items() <= full.items()
            continue
        with pytest.raises(CannotUnderstand):
            scan(whole[:size], syntax, SCANNED_TAGS)


def test_a_deflated_data_set_cut_at_any_byte_is_refused() -> None:
    """The stream's own end tells, so unlike an uncompressed one no cut goes unseen."""
    packed = deflate(identity() + element(PIXEL_DATA, "OW", bytes(100)))
    assert scan(packed, DEFLATED_EXPLICIT, {NAME}) == {NAME: b"Doe^Jane"}
    for size in range(len(packed)):
        with pytest.raises(CannotUnderstand):
            scan(packed[:size], DEFLATED_EXPLICIT, SCANNED_TAGS)


@pytest.mark.parametrize("syntax", sorted(DEFLATED))
def test_every_deflated_syntax_is_inflated(syntax: str) -> None:
    packed = deflate(identity())
    assert scan(packed, syntax, {NAME}) == {NAME: b"Doe^Jane"}
    assert scan(packed + b"\0", syntax, {NAME}) == {NAME: b"Doe^Jane"}  # padded to an even length
    with pytest.raises(CannotUnderstand):
        scan(packed + packed, syntax, SCANNED_TAGS)
    with pytest.raises(CannotUnderstand):
        scan(identity(), syntax, SCANNED_TAGS)


@pytest.mark.parametrize("syntax", ALL)
def test_a_length_beyond_the_end_is_refused(syntax: str) -> None:
    for length in (9, 0x7FFFFFFE, 0xFFFFFFFE):
        for tag in (PIXEL_DATA, 0x00420011):
            with pytest.raises(CannotUnderstand):
                scan(element(tag, "OB", b"12345678", syntax, length), syntax, SCANNED_TAGS)


# --- hostile ---------------------------------------------------------------------------------------------------------


def _nested(depth: int, closed: bool) -> bytes:
    opening = element(REFERENCED, "SQ", b"", EXPLICIT, UNDEFINED) + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    return opening * depth + (delimiter(0xE00D) + delimiter()) * (depth if closed else 0)


def test_nesting_is_followed_to_its_bound() -> None:
    assert scan(_nested(DEPTH_MAX - 1, True) + identity(), EXPLICIT, {NAME}) == {NAME: b"Doe^Jane"}
    for closed in (True, False):
        with pytest.raises(CannotUnderstand):
            scan(_nested(DEPTH_MAX + 1, closed), EXPLICIT, SCANNED_TAGS)


def test_a_nesting_bomb_costs_nothing() -> None:
    bomb = _nested(200_000, True)
    with pytest.raises(CannotUnderstand):
        scan(bomb, EXPLICIT, SCANNED_TAGS)


def test_a_deflate_bomb_stops_at_its_bound() -> None:
    """64 MiB of zeros in an element, held nowhere: neither at its bound nor below it."""
    content = element(PIXEL_DATA, "OW", bytes(64 << 20), EXPLICIT)
    bomb = deflate(content)
    assert len(bomb) < 100_000
    tracemalloc.start()
    try:
        with pytest.raises(CannotUnderstand):
            Scanner(DEFLATED_EXPLICIT, [], inflated_size_bytes_max=1 << 20).feed(memoryview(bomb))
        whole = Scanner(DEFLATED_EXPLICIT, [], inflated_size_bytes_max=65 << 20)
        whole.feed(memoryview(bomb))
        whole.finish()
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


# --- fuzzing ---------------------------------------------------------------------------------------------------------

syntaxes = st.sampled_from([*ALL, DEFLATED_EXPLICIT, JPEG_BASELINE])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), syntaxes)
def test_any_bytes_raise_only_cannot_understand(data: bytes, syntax: str) -> None:
    with contextlib.suppress(CannotUnderstand):
        scan(data, syntax, SCANNED_TAGS)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(ALL), st.data())
def test_a_changed_data_set_raises_only_cannot_understand(syntax: str, data: st.DataObject) -> None:
    whole = bytearray(_whole(syntax)[0])
    for _change in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] = data.draw(st.sampled_from([0, 1, 8, 0x10, 0x7F, 0x80, 0xE0, 0xFE, 0xFF]))
    with contextlib.suppress(CannotUnderstand):
        scan(bytes(whole), syntax, SCANNED_TAGS)


def _outcome(data: bytes, syntax: str, cuts: list[int]) -> dict[int, bytes] | str:
    """What scanning the pieces between the cuts gives; an error's words differ with where it is noticed."""
    scanner = Scanner(syntax, SCANNED_TAGS)
    try:
        for start, end in itertools.pairwise([0, *sorted(cuts), len(data)]):
            scanner.feed(memoryview(data)[start:end])
        return scanner.finish()
    except CannotUnderstand:
        return "refused"


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(ALL), st.booleans(), st.data())
def test_pieces_of_any_size_are_read_as_the_whole_is(syntax: str, is_deflated: bool, data: st.DataObject) -> None:
    whole = bytearray(_whole(EXPLICIT if is_deflated else syntax)[0])
    for _change in range(data.draw(st.integers(0, 2))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.sampled_from([0, 1, 8, 0x10, 0xE0, 0xFF]))
    content = deflate(bytes(whole)) if is_deflated else bytes(whole)
    said = DEFLATED_EXPLICIT if is_deflated else syntax
    cuts = data.draw(st.lists(st.integers(0, len(content)), max_size=12))
    assert _outcome(content, said, cuts) == _outcome(content, said, [])
    assert _outcome(content, said, list(range(len(content)))) == _outcome(content, said, [])


text = st.text(st.characters(codec="ascii", categories=["L", "N"]), max_size=20)


@st.composite
def data_sets(draw: st.DrawFn, depth: int = 2) -> Dataset:
    ds = Dataset()
    ds.PatientName, ds.PatientID = draw(text), draw(text)
    ds.SOPInstanceUID = "1.2." + str(draw(st.integers(0, 10**20)))
    ds.Rows = draw(st.integers(0, 65535))
    ds.add_new(PRIVATE, "UN", draw(st.binary(max_size=9).filter(lambda raw: len(raw) % 2 == 0)))
    if depth:
        ds.ReferencedImageSequence = Sequence(draw(st.lists(data_sets(depth=depth - 1), max_size=2)))
        ds["ReferencedImageSequence"].is_undefined_length = draw(st.booleans())
        for each in ds.ReferencedImageSequence:
            each.is_undefined_length_sequence_item = draw(st.booleans())
    if draw(st.booleans()):
        ds.add_new(PIXEL_DATA, "OW", draw(st.binary(max_size=64).filter(lambda raw: len(raw) % 2 == 0)))
    return ds


@settings(max_examples=200, deadline=None)
@given(data_sets(), st.sampled_from(ALL))
def test_agrees_with_pydicom_on_what_pydicom_writes(ds: Dataset, syntax: str) -> None:
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = syntax == IMPLICIT, syntax != BIG_ENDIAN
    write_dataset(buffer, ds)
    data = buffer.getvalue()
    read = pydicom.filereader.read_dataset(BytesIO(data), syntax == IMPLICIT, syntax != BIG_ENDIAN)
    found = scan(data, syntax, SCANNED_TAGS)
    assert found == {
        element.tag: bytes(element.value or b"")
        for element in (read.get_item(tag) for tag in read.keys())  # noqa: SIM118 (elements as they were read)
        if element.tag in SCANNED_TAGS
    }
