"""DCMTK's findscu finds each patient of the corpus by the name as printed in its own character set, and gets it back in
that character set."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pacs.errors import PacsError
from pacs.model import part10, text
from pacs.model.dataset import scan
from tests import peer
from tests.dcmtk import dcmtk
from tests.fix_instance import Dev
from tests.integration.test_corpus import _is_broken, _raw_files
from tests.peer import RawObject
from tests.unit.model.encoding import element

CHARACTER_SET, NAME, PATIENT_ID, STUDY = 0x00080005, 0x00100010, 0x00100020, 0x0020000D
EXPLICIT = "1.2.840.10008.1.2.1"
STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.2.1"
#: Of no character set: what their names should be nobody knows.
_BROKEN_NAMES = frozenset(["invalid_utf8.dcm"])


def names_of(shared_data: Path) -> dict[str, tuple[RawObject, dict[int, bytes]]]:
    """Every intact file whose patient's name is not ASCII, with its raw values."""
    found = {}
    for file, raw in _raw_files(shared_data):
        try:
            values = scan(raw.dataset, raw.transfer_syntax_uid, {CHARACTER_SET, NAME, PATIENT_ID, STUDY})
        except PacsError:
            continue
        name = values.get(NAME, b"")
        if (b"\x1b" in name or not name.isascii()) and not _is_broken(file) and file not in _BROKEN_NAMES:
            found[file] = (raw, values)
    return found


def find(dev: Dev, folder: Path, *elements: bytes) -> list[dict[int, bytes]]:
    """What findscu gets for an identifier of these raw elements: raw values of each answer."""
    keys = [element(0x00080052, "CS", b"STUDY "), element(STUDY, "UI", b""), element(PATIENT_ID, "LO", b""), *elements]
    query = folder / "query.dcm"
    query.write_bytes(part10.encode_file_meta(STUDY_ROOT, "1.2.3", EXPLICIT) + b"".join(sorted(keys, key=_tag)))
    words = [dcmtk("findscu"), "-S", "-X", "-od", str(folder), "-aec", "PACS", "127.0.0.1", str(dev.dicom_port)]
    subprocess.run([*words, str(query)], check=True, capture_output=True, timeout=60)
    answers = []
    for path in sorted(folder.glob("rsp*.dcm")):
        answer = peer.read_raw(path)
        answers.append(dict(scan(answer.dataset, answer.transfer_syntax_uid, {CHARACTER_SET, NAME, PATIENT_ID, STUDY})))
        path.unlink()
    return answers


def _tag(encoded: bytes) -> tuple[int, int]:
    return int.from_bytes(encoded[:2], "little"), int.from_bytes(encoded[2:4], "little")


@pytest.mark.timeout(300)
def test_findscu_finds_each_patient_by_the_name_in_its_own_character_set(
    shared_data: Path, dev: Dev, tmp_path: Path
) -> None:
    files = names_of(shared_data)
    assert len(files) > 30
    sent = {raw.sop_instance_uid: raw for raw, _values in files.values()}
    assert set(peer.store(dev.dicom_port, sent.values())) == {0x0000}
    wrong, terms = [], set()
    for file, (_raw, values) in files.items():
        charset, name = values.get(CHARACTER_SET, b""), values[NAME]
        terms.add(charset.strip())
        codecs = text.encodings_of(charset)
        printed = text.decode(name, "PN", codecs)
        answers = find(dev, tmp_path, element(CHARACTER_SET, "CS", charset), element(NAME, "PN", name))
        mine = [answer for answer in answers if answer[STUDY].rstrip(b"\0") == values[STUDY].rstrip(b"\0")]
        back = [text.decode(answer[NAME], "PN", text.encodings_of(answer[CHARACTER_SET])) for answer in mine]
        kept = [text.terms_of(answer[CHARACTER_SET]) == text.terms_of(charset) for answer in mine]
        if back != [printed] or kept != [True]:
            wrong.append((file, charset, printed, back, [answer.get(CHARACTER_SET) for answer in answers]))
    assert not wrong
    assert len(terms) > 18, "the corpus has lost character sets"


@pytest.mark.parametrize(
    ("asked", "terms"),
    [
        ("=山田^太郎", "ISO_IR 192"),
        ("山田*", "ISO_IR 192"),
        ("*太郎", "GB18030"),
        ("=山田^太郎=やまだ^たろう", "ISO_IR 192"),
        ("ﾔﾏﾀﾞ^ﾀﾛｳ", "ISO_IR 13"),  # kana of half width, where the name has hiragana
        ("yamada^tarou", "ISO_IR 6"),
        ("YAMADA^*", ""),
    ],
)
def test_any_component_group_finds_the_name_in_any_character_set(
    shared_data: Path, dev: Dev, tmp_path: Path, asked: str, terms: str
) -> None:
    raw, values = names_of(shared_data)["chrH31.dcm"]
    assert set(peer.store(dev.dicom_port, [raw])) == {0x0000}
    name = text.encode(asked, "PN", text.encodings_of(terms.encode()))
    assert name is not None
    answers = find(dev, tmp_path, element(CHARACTER_SET, "CS", terms.encode()), element(NAME, "PN", name))
    assert values[STUDY] in [answer[STUDY] for answer in answers]


def test_an_answer_that_the_askers_character_set_cannot_hold_is_in_unicode(
    shared_data: Path, dev: Dev, tmp_path: Path
) -> None:
    raw, values = names_of(shared_data)["chrH31.dcm"]
    assert set(peer.store(dev.dicom_port, [raw])) == {0x0000}
    for terms in (b"ISO_IR 100", b"", b"KLINGON"):
        answers = find(dev, tmp_path, element(CHARACTER_SET, "CS", terms), element(NAME, "PN", b"Yamada^Tarou"))
        (mine,) = [answer for answer in answers if answer[STUDY] == values[STUDY]]
        assert mine[CHARACTER_SET].strip() == b"ISO_IR 192"
        assert mine[NAME].decode().strip() == "Yamada^Tarou=山田^太郎=やまだ^たろう"
