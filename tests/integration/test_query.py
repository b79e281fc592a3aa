"""Queries over the network: DCMTK's findscu and pynetdicom ask, at every level of both roots."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_context
from pynetdicom.dimse_primitives import C_FIND

from tests import peer
from tests.dcmtk import dcmtk
from tests.fix_instance import Dev
from tests.peer import RawObject
from tests.synthetic import ct_dataset, encode
from tests.unit.model.encoding import element, identity

PATIENT_ROOT, STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.1.1", "1.2.840.10008.5.1.4.1.2.2.1"
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
MANY = 100


@pytest.fixture(scope="module")
def archive(dev: Dev) -> Dev:
    """Three patients, among them one with a Japanese name, and a patient with many studies."""
    objects = []
    for seed in (1, 2):
        for series in (1, 2):
            objects += [encode(ct_dataset(seed, number, 8, 8, series)) for number in (1, 2)]
    japanese = ct_dataset(3, rows=8, columns=8)
    japanese.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    japanese.PatientName, japanese.Modality = "Yamada^Tarou=山田^太郎", "MR"
    objects.append(encode(japanese))
    raw = [RawObject.of(each) for each in objects]
    for number in range(MANY):
        uid = f"1.2.9.{number}"
        head = identity(
            SOPInstanceUID=uid, StudyInstanceUID=uid, SeriesInstanceUID=uid, PatientID="MANY", PatientName="Many^M"
        )
        raw.append(RawObject("1.2.840.10008.5.1.4.1.1.2", uid, EXPLICIT, head))
    assert set(peer.store(dev.dicom_port, raw)) == {0x0000}
    return dev


def findscu(dev: Dev, folder: Path, root: str, *keys: str) -> list[Dataset]:
    """What DCMTK's findscu gets for its keys."""
    words = [dcmtk("findscu"), root, "-X", "-od", str(folder), "-aec", "PACS", "127.0.0.1", str(dev.dicom_port)]
    for key in keys:
        words += ["-k", key]
    subprocess.run(words, check=True, capture_output=True, timeout=60)
    found = [pydicom.dcmread(path, force=True) for path in sorted(folder.glob("rsp*.dcm"))]
    for path in folder.glob("rsp*.dcm"):
        path.unlink()
    return found


def ask(dev: Dev, root: str = STUDY_ROOT, syntax: str = EXPLICIT, **keys: object) -> tuple[int, list[Dataset]]:
    """The final status and the answers for keys by keyword."""
    query = Dataset()
    for keyword, value in keys.items():
        setattr(query, keyword, value)
    return ask_for(dev, query, root, syntax)


def ask_for(dev: Dev, query: Dataset, root: str = STUDY_ROOT, syntax: str = EXPLICIT) -> tuple[int, list[Dataset]]:
    with peer.associated(dev.dicom_port, [(root, syntax)]) as assoc:
        answers, final = [], -1
        for status, identifier in assoc.send_c_find(query, root):
            assert "Status" in status, "the association ended"
            final = status.Status
            if final in (0xFF00, 0xFF01):
                answers.append(identifier)
    return final, answers


# --- levels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("root", "level", "keys", "expected"),
    [
        ("-P", "PATIENT", ["PatientID=P*", "PatientName"], {"P1", "P2", "P3"}),
        ("-P", "PATIENT", ["PatientID", "PatientName=Müller*".replace("ü", "?")], {"P1", "P2"}),
        ("-P", "STUDY", ["PatientID=P1", "StudyInstanceUID"], {"P1"}),
        ("-S", "STUDY", ["PatientID=P?", "StudyInstanceUID"], {"P1", "P2", "P3"}),
        ("-S", "STUDY", ["PatientID", "StudyDate=20260201-20260202"], {"P1"}),
        ("-S", "STUDY", ["PatientID", "ModalitiesInStudy=MR"], {"P3"}),
        ("-S", "SERIES", ["PatientID=P2", "SeriesInstanceUID"], {"P2"}),
        ("-S", "IMAGE", ["PatientID=P1", "SOPInstanceUID"], {"P1"}),
    ],
)
def test_dcmtk_finds(archive: Dev, tmp_path: Path, root: str, level: str, keys: list[str], expected: set[str]) -> None:
    found = findscu(archive, tmp_path, root, f"QueryRetrieveLevel={level}", *keys)
    assert {answer.PatientID for answer in found} == expected
    assert {answer.QueryRetrieveLevel for answer in found} == {level}
    assert {answer.RetrieveAETitle for answer in found} == {"PACS"}


def test_each_level_answers_once_for_each_entity(archive: Dev) -> None:
    study = ct_dataset(1).StudyInstanceUID
    for level, count in (("STUDY", 1), ("SERIES", 2), ("IMAGE", 4)):
        status, found = ask(
            archive, QueryRetrieveLevel=level, StudyInstanceUID=study, SeriesInstanceUID="", SOPInstanceUID="",
            SeriesNumber="", InstanceNumber="",
        )  # fmt: skip
        assert (status, len(found)) == (0x0000, count), level
        assert all(answer.StudyInstanceUID == study for answer in found)
    assert sorted((answer.SeriesNumber, answer.InstanceNumber) for answer in found) == [(1, 1), (1, 2), (2, 1), (2, 2)]


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_an_answer_has_each_key_that_was_asked_and_text_in_unicode(archive: Dev, syntax: str) -> None:
    status, (answer,) = ask(
        archive, syntax=syntax, QueryRetrieveLevel="STUDY", PatientID="P3", PatientName="", StudyDate="", StudyTime="",
        AccessionNumber="", ModalitiesInStudy="", NumberOfStudyRelatedInstances="", NumberOfStudyRelatedSeries="",
        ReferringPhysicianName="", StudyDescription="", OtherPatientIDs="", SpecificCharacterSet="ISO_IR 100",
    )  # fmt: skip
    assert status == 0x0000
    assert answer.SpecificCharacterSet == "ISO_IR 192"
    assert str(answer.PatientName) == "Yamada^Tarou=山田^太郎"
    assert answer.ModalitiesInStudy == "MR"
    assert (answer.NumberOfStudyRelatedInstances, answer.NumberOfStudyRelatedSeries) == (1, 1)
    assert answer.AccessionNumber == "A00000003"
    assert "OtherPatientIDs" in answer
    assert not answer.OtherPatientIDs
    assert "SeriesDescription" not in answer


def test_a_name_is_found_in_the_querys_own_character_set(archive: Dev) -> None:
    for charset, pattern in (("ISO_IR 192", "*山田*"), ("ISO_IR 192", "müller*"), ("ISO_IR 100", "MÜLLER^SEED1")):
        query = Dataset()
        query.SpecificCharacterSet = charset
        query.QueryRetrieveLevel, query.PatientName, query.PatientID = "STUDY", pattern, ""
        status, found = ask_for(archive, query)
        assert status == 0x0000
        assert found, pattern


def test_modalities_in_study_is_matched_as_a_code_string(archive: Dev) -> None:
    everybody = {"P1", "P2", "P3"}
    expected = [
        ("MR", {"P3"}),
        ("*", everybody),
        ("M*", {"P3"}),
        (["CT", "MR"], everybody),
        ("US", set()),
        ("", everybody),
    ]
    for value, patients in expected:
        status, found = ask(archive, QueryRetrieveLevel="STUDY", PatientID="P*", ModalitiesInStudy=value)
        assert status == 0x0000
        assert {answer.PatientID for answer in found} == patients, value


def test_a_list_of_uids(archive: Dev) -> None:
    uids = [ct_dataset(seed).StudyInstanceUID for seed in (1, 3)]
    _status, found = ask(archive, QueryRetrieveLevel="STUDY", StudyInstanceUID=[*uids, "1.2.3.9.9"])
    assert {answer.StudyInstanceUID for answer in found} == set(uids)


def test_keys_of_every_value_representation_are_given_back_empty(archive: Dev) -> None:
    """What the index does not know is answered empty (PS3.4 C.2.2.1.3), whatever it is."""
    query = Dataset()
    query.QueryRetrieveLevel, query.StudyInstanceUID = "IMAGE", ct_dataset(1).StudyInstanceUID
    query.SOPInstanceUID = ""
    for tag, vr in (
        (0x00280010, "US"), (0x00280106, "US"), (0x00420011, "OB"), (0x00089007, "CS"), (0x00181114, "DS"),
        (0x0040A043, "SQ"), (0x00081140, "SQ"), (0x00280009, "AT"), (0x60003000, "OW"), (0x60000010, "US"),
        (0x00189087, "FD"), (0x00082112, "SQ"), (0x0008002A, "DT"), (0x00101010, "AS"), (0x7FE00010, "OW"),
        (0x00081199, "SQ"), (0x00080056, "CS"), (0x00280103, "US"), (0x0008FFF0, "LO"),
    ):  # fmt: skip
        query.add_new(tag, vr, None if vr != "SQ" else [])
    for syntax in (EXPLICIT, IMPLICIT):
        status, found = ask_for(archive, query, syntax=syntax)
        assert (status, len(found)) == (0x0000, 4)
        assert all(answer.SOPInstanceUID for answer in found)
        assert (0x0028, 0x0010) in found[0]
        assert found[0][0x00280010].is_empty


def test_private_and_group_length_keys_do_no_harm(archive: Dev) -> None:
    query = Dataset()
    query.QueryRetrieveLevel, query.PatientID = "STUDY", "P1"
    query.add_new(0x00080000, "UL", 100)
    query.add_new(0x00090010, "LO", "ACME")
    query.add_new(0x00091001, "UN", b"ab")
    status, found = ask_for(archive, query)
    assert (status, len(found)) == (0x0000, 1)


# --- queries that are wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("root", "keys"),
    [
        (STUDY_ROOT, {}),
        (STUDY_ROOT, {"QueryRetrieveLevel": "FRAME"}),
        (STUDY_ROOT, {"QueryRetrieveLevel": "PATIENT"}),
        (PATIENT_ROOT, {"QueryRetrieveLevel": ""}),
    ],
)
def test_a_level_that_the_root_does_not_have_is_refused(archive: Dev, root: str, keys: dict[str, str]) -> None:
    assert ask(archive, root, PatientID="P1", **keys) == (0xA900, [])


def raw_query(dev: Dev, identifier: bytes, syntax: str = EXPLICIT) -> int | None:
    """The final status for an identifier of any bytes; None if the association ended instead."""
    from io import BytesIO

    with peer.associated(dev.dicom_port, [(STUDY_ROOT, syntax)]) as assoc:
        request = C_FIND()
        request.MessageID, request.Priority, request.AffectedSOPClassUID = 1, 2, STUDY_ROOT
        request.Identifier = BytesIO(identifier)
        peer.hold(assoc)
        try:
            assoc.dimse.send_msg(request, assoc.accepted_contexts[0].context_id)
            while True:
                _id, answer = assoc.dimse.get_msg(block=True)
                if answer is None:
                    return None
                if answer.Status not in (0xFF00, 0xFF01):
                    return int(answer.Status)
        finally:
            assoc._reactor_checkpoint.set()


LEVEL = element(0x00080052, "CS", b"STUDY ")


@pytest.mark.parametrize(
    "identifier",
    [
        LEVEL[:-3],
        b"rubbish that is no data set",
        LEVEL + element(0x00200013, "IS", b"abc "),
        LEVEL + element(0x00200011, "IS", b"1e9 "),
        LEVEL + element(0x00200011, "IS", b"99999999999999"),
        LEVEL + element(0x00080020, "DA", b"not a date"),
        LEVEL + element(0x00080030, "TM", b"99:99:99"),
        LEVEL + element(0x00100010, "PN", b"A\0B^C\xff\xfe"),
        LEVEL + element(0x00100020, "LO", b"A\0B\0C\\D "),
        LEVEL + element(0x0020000D, "UI", b"../../etc"),
        LEVEL + element(0x00280010, "US", b"\1"),
        LEVEL + element(0x00080005, "CS", b"KLINGON ") + element(0x00100010, "PN", b"\x1b$B\xff"),
        LEVEL + element(0x00081140, "SQ", b"\xfe\xff\x00\xe0\xff\xff\xff\xff"),
        element(0x00080052, "CS", b"STUDY\\IMAGE "),
    ],
)
def test_any_identifier_gets_an_answer(archive: Dev, identifier: bytes) -> None:
    """A status, not an abort, and the log keeps what was asked to itself."""
    before = len(archive.log())
    status = raw_query(archive, identifier)
    assert status is not None, "the association was aborted"
    assert status == 0x0000 or status >> 12 in (0xA, 0xC)
    assert "failed unforeseen" not in archive.log()[before:]


def test_what_a_query_asks_for_is_not_logged(archive: Dev) -> None:
    before = len(archive.log())
    raw_query(
        archive, LEVEL + element(0x00100010, "PN", b"Secret^Patient\xff\xfe") + element(0x00080020, "DA", b"Secret")
    )
    raw_query(archive, LEVEL + element(0x00200013, "IS", b"Secret"))
    ask(archive, QueryRetrieveLevel="STUDY", PatientName="Secret^Patient", StudyInstanceUID="Secret")
    ask(archive, QueryRetrieveLevel="Secret", PatientName="Secret^Patient")
    assert "ecret" not in archive.log()[before:]


# --- cancel ----------------------------------------------------------------------------------------------------------


def test_a_query_can_be_cancelled(archive: Dev) -> None:
    query = Dataset()
    query.QueryRetrieveLevel, query.PatientID, query.StudyInstanceUID = "STUDY", "MANY", ""
    with peer.associated(archive.dicom_port, [(STUDY_ROOT, EXPLICIT)]) as assoc:
        statuses = []
        for status, _identifier in assoc.send_c_find(query, STUDY_ROOT, msg_id=7):
            statuses.append(status.Status)
            if len(statuses) == 1:
                assoc.send_c_cancel(7, query_model=STUDY_ROOT)
            time.sleep(0.001)
        assert statuses[0] == 0xFF00
        assert statuses[-1] in (0xFE00, 0x0000)
        if statuses[-1] == 0x0000:
            assert len(statuses) == MANY + 1  # all was on its way already
        # and the association goes on
        assert [status.Status for status, _id in assoc.send_c_find(query, STUDY_ROOT)][-1] == 0x0000
        assert assoc.is_established


def test_a_cancel_that_waits_ends_the_query_at_once(archive: Dev) -> None:
    """The cancel is there before the first answer is taken: few answers can be on their way."""
    query = Dataset()
    query.QueryRetrieveLevel, query.StudyInstanceUID = "IMAGE", ""
    ae = AE("SLOW")
    assoc = ae.associate("127.0.0.1", archive.dicom_port, contexts=[build_context(STUDY_ROOT)], ae_title="PACS")
    assert assoc.is_established
    answers = assoc.send_c_find(query, STUDY_ROOT, msg_id=9)
    assoc.send_c_cancel(9, query_model=STUDY_ROOT)
    statuses = [status.Status for status, _identifier in answers]
    assoc.release()
    assert statuses[-1] in (0xFE00, 0x0000)


def test_a_cancel_that_comes_too_late_does_no_harm(archive: Dev) -> None:
    """Neither to the association, nor to a later query with the same message id."""
    query = Dataset()
    query.QueryRetrieveLevel, query.PatientID, query.StudyInstanceUID = "STUDY", "MANY", ""
    with peer.associated(archive.dicom_port, [(STUDY_ROOT, EXPLICIT)]) as assoc:
        for _ in range(3):
            statuses = [status.Status for status, _identifier in assoc.send_c_find(query, STUDY_ROOT, msg_id=7)]
            assert statuses == [0xFF00] * MANY + [0x0000]
            assoc.send_c_cancel(7, query_model=STUDY_ROOT)
        assert assoc.is_established


def test_a_query_after_one_that_was_cancelled_may_have_its_number(archive: Dev) -> None:
    query = Dataset()
    query.QueryRetrieveLevel, query.StudyInstanceUID = "STUDY", ""
    with peer.associated(archive.dicom_port, [(STUDY_ROOT, EXPLICIT)]) as assoc:
        answers = assoc.send_c_find(query, STUDY_ROOT, msg_id=7)
        assoc.send_c_cancel(7, query_model=STUDY_ROOT)
        cancelled = [status.Status for status, _identifier in answers]
        assert cancelled[-1] in (0xFE00, 0x0000)
        statuses = [status.Status for status, _identifier in assoc.send_c_find(query, STUDY_ROOT, msg_id=7)]
        assert statuses[-1] == 0x0000
        assert len(statuses) >= len(cancelled)


def test_a_peer_that_goes_away_in_the_middle_leaves_no_connection_behind(archive: Dev) -> None:
    query = Dataset()
    query.QueryRetrieveLevel, query.PatientID, query.StudyInstanceUID = "STUDY", "MANY", ""
    for _ in range(12):  # more than a small pool has
        assoc = AE("GONE").associate(
            "127.0.0.1", archive.dicom_port, contexts=[build_context(STUDY_ROOT, EXPLICIT)], ae_title="PACS"
        )
        next(iter(assoc.send_c_find(query, STUDY_ROOT)))
        assoc.abort()
    status, found = ask(archive, QueryRetrieveLevel="STUDY", PatientID="P1")
    assert (status, len(found)) == (0x0000, 1)


@pytest.fixture(autouse=True)
def _not_slow() -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < 60
