"""How two data sets differ: by attribute, and without what is no person's to read."""

from __future__ import annotations

from pydicom.dataset import Dataset

from pacs.model.difference import Difference, differences
from tests.synthetic import ct_dataset


def test_equal_data_sets_do_not_differ() -> None:
    assert list(differences(ct_dataset(1), ct_dataset(1))) == []


def test_changed_missing_and_nested_values() -> None:
    one, other = ct_dataset(1), ct_dataset(1)
    other.StudyDescription = "Something else"
    del other.AccessionNumber
    for ds, meaning in ((one, "left"), (other, "right")):
        item = Dataset()
        item.CodeMeaning = meaning
        ds.AnatomicRegionSequence = [item]
    assert list(differences(one, other)) == [
        Difference("(0008,0050)", "Accession Number", "A00000001", None),
        Difference("(0008,1030)", "Study Description", "Thorax 1", "Something else"),
        Difference("(0008,2218)[1].(0008,0104)", "Code Meaning", "left", "right"),
    ]


def test_sequences_of_other_lengths() -> None:
    one, other = Dataset(), Dataset()
    one.AnatomicRegionSequence, other.AnatomicRegionSequence = [Dataset()], []
    (found,) = differences(one, other)
    assert (found.one, found.other) == ("1 items", "0 items")


def test_binary_long_and_control_characters_are_not_shown() -> None:
    one, other = Dataset(), Dataset()
    one.add_new(0x00091010, "OB", b"secret" * 10)
    other.add_new(0x00091010, "OB", b"SECRET" * 10)
    one.add_new(0x0008103E, "LO", "x" * 500)
    other.add_new(0x0008103E, "LO", "a\x1b[2Jb")
    shown = [text for found in differences(one, other) for text in (found.one, found.other)]
    assert not any("secret" in str(text).lower() or "\x1b" in str(text) for text in shown)
    assert all(len(str(text)) < 100 for text in shown)
    assert str(shown[2]).startswith("60 bytes, SHA-256 ")


def test_a_value_that_cannot_be_read_is_shown_by_its_bytes() -> None:
    from pacs.model.equality import read_dataset
    from tests.unit.model.encoding import EXPLICIT, element

    one = read_dataset(element(0x00280010, "US", b"\1\0"), EXPLICIT)
    other = read_dataset(element(0x00280010, "US", b"\1\0\1"), EXPLICIT)
    (found,) = differences(one, other)
    assert found.path == "(0028,0010)"
