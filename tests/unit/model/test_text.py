"""Text in every character set that modalities send, sound and broken."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.charset import python_encoding

from pacs.model.text import LENGTH_MAX, decode, encode, encodings_of


def read(value: bytes, vr: str, charset: bytes) -> str:
    return decode(value, vr, encodings_of(charset))


@pytest.mark.parametrize(
    ("charset", "raw", "text"),
    [
        (b"", b"Doe^Jane ", "Doe^Jane"),
        (b"ISO_IR 100", b"Buc^J\xe9r\xf4me", "Buc^Jérôme"),
        (b"ISO_IR 192", "Wang^XiaoDong=王^小东".encode(), "Wang^XiaoDong=王^小东"),
        (b"GB18030 ", "Wang^XiaoDong=王^小东".encode("gb18030"), "Wang^XiaoDong=王^小东"),
        (b"GBK ", "王^小东".encode("gbk"), "王^小东"),
        (b"ISO_IR 144", "Люкceмбypг".encode("iso8859-5"), "Люкceмбypг"),
        (b"ISO_IR 126", "Διονυσιος".encode("iso8859-7"), "Διονυσιος"),
        # PS3.5 Annex H.3.1 and H.3.2, Annex I.2, Annex K.2 and J: bytes as the standard prints them
        (
            b"\\ISO 2022 IR 87",
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
        ),
        (
            b"ISO 2022 IR 13\\ISO 2022 IR 87",
            b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
            "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
        ),
        (
            b"\\ISO 2022 IR 149",
            b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
            "Hong^Gildong=洪^吉洞=홍^길동",
        ),
        (
            b"\\ISO 2022 IR 58",
            b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=",
            "Zhang^XiaoDong=张^小东",
        ),
        # A delimiter gives the first character set back
        (b"ISO 2022 IR 100\\ISO 2022 IR 149", b"\x1b$)C\xc8\xab^J\xe9=\x1b$)C\xc8\xab", "홍^Jé=홍"),
        # What devices write that the standard does not have
        (b"ISO 2022 IR 149", b"\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf", "홍^길동"),
        (b"ISO 2022 IR 87", b"\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", "山田^太郎"),
        (b"ISO IR 192", "王".encode(), "王"),
        (b"ISO-IR 192", "王".encode(), "王"),
        (b"UTF-8", "王".encode(), "王"),
        (b"iso_ir 192", "王".encode(), "王"),
    ],
)  # fmt: skip
def test_a_name_is_read_in_its_character_set(charset: bytes, raw: bytes, text: str) -> None:
    assert read(raw, "PN", charset) == text


def test_a_character_set_that_nobody_knows_gives_an_approximation() -> None:
    assert read(b"Doe^J\xe9", "PN", b"KLINGON_1") == "Doe^Jé"
    assert read("Doe^é".encode(), "PN", b"KLINGON_1\\ISO_IR 192") == "Doe^é"


@pytest.mark.parametrize(
    ("vr", "raw", "text"),
    [
        ("LO", b" two  words ", "two  words"),
        ("LO", b"A\x00B\x00", "A B"),
        ("LO", b"line\r\nFORGED level=error", "line FORGED level=error"),
        ("LO", b"\x85\x9b31m", "31m"),
        ("PN", b"Doe^Jane^^^", "Doe^Jane"),
        ("PN", b"Doe^Jane=^=", "Doe^Jane"),
        ("PN", b"^^^^", ""),
        ("UI", b"1.2.3\0", "1.2.3"),
        ("UI", b"1.2\xff", "1.2\ufffd"),
        ("CS", b"CT", "CT"),
        ("DA", b"20260101", "20260101"),
    ],
)
def test_padding_and_control_characters_go(vr: str, raw: bytes, text: str) -> None:
    assert read(raw, vr, b"ISO_IR 100") == text


def test_a_long_value_is_cut_to_what_an_index_of_postgresql_takes() -> None:
    """An index entry has 2,700 bytes at most; the patient's has two values and a UID, 4 bytes a character."""
    assert len(read("𠀀".encode() * 5000, "LO", b"ISO_IR 192")) == LENGTH_MAX
    assert 2 * 4 * LENGTH_MAX + 64 + 100 < 2700


TERMS = [*python_encoding, "KLINGON", "ISO 2022 IR 999"]


@settings(max_examples=500, deadline=None)
@given(
    st.one_of(st.binary(max_size=60), st.text(max_size=20).map(lambda text: text.encode("gb18030", "ignore"))),
    st.sampled_from(["PN", "LO", "SH", "UI", "DA", "CS", "IS"]),
    st.lists(st.sampled_from(TERMS), min_size=1, max_size=3),
)
def test_any_bytes_in_any_character_set_become_text_that_a_database_holds(
    raw: bytes, vr: str, terms: list[str]
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = read(raw, vr, "\\".join(terms).encode())
    found.encode("utf-8")  # no lone surrogates
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in found)
    assert found == found.strip()
    assert not caught, "a warning quotes the value, and a value is a patient's"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40))
def test_any_specific_character_set_gives_usable_codecs(raw: bytes) -> None:
    for codec in encodings_of(raw):
        b"abc".decode(codec, "replace")


@pytest.mark.parametrize(
    ("charset", "text"),
    [
        (b"ISO_IR 100", "Buc^Jérôme"),
        (b"ISO_IR 203", "Lefèvre^Žofia Œuvre"),
        (b"ISO_IR 13", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
        (b"\\ISO 2022 IR 87", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (b"\\ISO 2022 IR 159", "Yamada=丂"),
        (b"\\ISO 2022 IR 149", "Hong^Gildong=洪^吉洞=홍^길동"),
        (b"\\ISO 2022 IR 58", "Zhang^XiaoDong=张^小东"),
        (b"ISO 2022 IR 100\\ISO 2022 IR 144", "Grün^Иван"),
        (b"ISO 2022 IR 6\\ISO 2022 IR 126\\ISO 2022 IR 144", "Διον^Иван"),
        (b"GB18030", "王^小东=𠀀"),
        (b"GBK", "王^小东"),
        (b"ISO_IR 192", "Nguyễn=阮^文安"),
        (b"", "Doe^Jane"),
    ],
)
def test_a_name_is_written_in_the_character_set(charset: bytes, text: str) -> None:
    written = encode(text, "PN", encodings_of(charset))
    assert written is not None
    assert read(written, "PN", charset) == text


@pytest.mark.parametrize(
    ("charset", "text"),
    [
        (b"", "Müller"),
        (b"ISO_IR 100", "山田"),
        (b"ISO_IR 13", "山田"),
        (b"\\ISO 2022 IR 87", "홍^길동"),
        (b"GBK", "𠀀"),
        (b"KLINGON", "Müller"),
        (b"\\ISO 2022 IR 87", "\ufffd"),
    ],
)
def test_what_a_character_set_cannot_hold_is_not_written_in_it(charset: bytes, text: str) -> None:
    assert encode(text, "PN", encodings_of(charset)) is None


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=20), st.sampled_from(["PN", "LO"]), st.lists(st.sampled_from(TERMS), min_size=1, max_size=3))
def test_what_is_written_is_read_as_the_same(text: str, vr: str, terms: list[str]) -> None:
    charset = "\\".join(terms).encode()
    known = read(text.encode("utf-8", "replace"), vr, b"ISO_IR 192")
    written = encode(known, vr, encodings_of(charset))
    assert written is None or read(written, vr, charset) == known
