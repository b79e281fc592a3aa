"""An object under a new SOP Instance UID: that value alone changes, in every encoding."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from pacs.errors import CannotUnderstand
from pacs.model.equality import read_dataset
from pacs.model.new_uid import derived_uid, with_sop_instance_uid
from pacs.model.uids import is_uid
from tests.synthetic import ct_dataset

IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED = (
    "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99",
)  # fmt: skip


def encoded(ds: Dataset, syntax: str) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = syntax == IMPLICIT, syntax != BIG_ENDIAN
    write_dataset(buffer, ds)
    data = buffer.getvalue()
    if syntax != DEFLATED:
        return data
    deflate = zlib.compressobj(wbits=-15)
    data = deflate.compress(data) + deflate.flush()
    return data + b"\0" * (len(data) % 2)


def in_pieces(data: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


@pytest.mark.parametrize("size", [7, 1 << 20])
@pytest.mark.parametrize("new_uid", ["1.2.3", "2.25.340282366920938463463374607431768211455"])
@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED])
def test_nothing_but_the_uid_changes(syntax: str, new_uid: str, size: int) -> None:
    ds = ct_dataset(3)
    language = Dataset()
    language.CodeValue, language.CodingSchemeDesignator, language.CodeMeaning = "de", "RFC5646", "German"
    ds.LanguageCodeSequence = [language]  # (0008,0006): a sequence before the UID
    data = encoded(ds, syntax)
    made = b"".join(with_sop_instance_uid(in_pieces(data, size), syntax, new_uid))
    expected = ct_dataset(3)
    expected.LanguageCodeSequence, expected.SOPInstanceUID = [language], new_uid
    assert made == encoded(expected, syntax)
    assert str(read_dataset(made, syntax).SOPInstanceUID) == new_uid


def test_an_object_larger_than_the_head_is_whole() -> None:
    ds = ct_dataset(4, rows=1200, columns=1200)
    made = b"".join(with_sop_instance_uid(in_pieces(encoded(ds, EXPLICIT), 100_001), EXPLICIT, "1.2.3"))
    ds.SOPInstanceUID = "1.2.3"
    assert made == encoded(ds, EXPLICIT)


@pytest.mark.parametrize("data", [b"", b"\x08", bytes(100), b"\x08\x00\x20\x00DA\x08\x0020260101"])
def test_without_a_uid_there_is_nothing_to_replace(data: bytes) -> None:
    with pytest.raises(CannotUnderstand):
        list(with_sop_instance_uid([data], EXPLICIT, "1.2.3"))


def test_a_derived_uid_is_the_same_for_the_same_bytes() -> None:
    uid = derived_uid("1.2.3", bytes(32))
    assert is_uid(uid)
    assert uid.startswith("2.25.")
    assert uid == derived_uid("1.2.3", bytes(32))
    assert len({uid, derived_uid("1.2.4", bytes(32)), derived_uid("1.2.3", b"\1" * 32)}) == 3
