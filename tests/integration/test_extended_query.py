"""Queries with extended negotiation, sequences, computed keys and time zones, over the network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_context
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

from tests import peer
from tests.fix_instance import Dev
from tests.peer import RawObject
from tests.synthetic import ct_dataset, encode

PATIENT_ROOT, STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.1.1", "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"

#: Study → its moment and, where it says one, its offset from UTC.
MOMENTS = {
    "E1": ("20260705", "095900", "+0000"),
    "E2": ("20260705", "100000", "+0000"),
    "E3": ("20260706", "030000", "+0000"),
    "E4": ("20260707", "180000", "+0200"),
    "E5": ("20260708", "003000", "+0200"),
}
NAMES = {
    "E1": "Meier^Jörg",
    "E2": "Schmidt^Anna",
    "E3": "Smyth^Jon",
    "E4": "Mayr^Georg",
    "E5": "Żmuda^Łukasz=山田^太郎",
}


def item(**values: str) -> Dataset:
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


@pytest.fixture(scope="module")
def archive(dev: Dev) -> Dev:
    """Five studies: at moments in two time zones, with codes and requests, of names that sound alike."""
    objects = []
    for number, (patient, (day, time, offset)) in enumerate(MOMENTS.items(), 900):
        ds = ct_dataset(number, rows=8, columns=8)
        ds.PatientID, ds.PatientName = patient, NAMES[patient]
        ds.StudyDate, ds.StudyTime, ds.TimezoneOffsetFromUTC = day, time, offset
        ds.ProcedureCodeSequence = [
            item(CodeValue=f"C{number}", CodingSchemeDesignator="99LOCAL", CodeMeaning=f"Schädel {patient}"),
            item(CodeValue="C0", CodingSchemeDesignator="DCM", CodeMeaning="Head"),
        ]
        ds.RequestAttributesSequence = [
            item(ScheduledProcedureStepID=f"SPS{number}", RequestedProcedureID=f"RP{number % 2}", AccessionNumber="A7")
        ]
        ds.RequestAttributesSequence[0].is_undefined_length_sequence_item = True
        objects.append(encode(ds, EXPLICIT if number % 2 else IMPLICIT))
    assert set(peer.store(dev.dicom_port, map(RawObject.of, objects))) == {0x0000}
    return dev


@contextmanager
def associated(dev: Dev, information: bytes | None = None, uid: str = STUDY_ROOT) -> Iterator[Association]:
    """An association whose request has this service-class-application-information."""
    items = []
    if information is not None:
        asked = SOPClassExtendedNegotiation()
        asked.sop_class_uid, asked.service_class_application_information = uid, information
        items.append(asked)
    ae = AE("TESTER")
    ae.dimse_timeout = 10
    assoc = ae.associate(
        "127.0.0.1", dev.dicom_port, contexts=[build_context(uid, EXPLICIT)], ae_title="PACS", ext_neg=items
    )
    assert assoc.is_established
    try:
        yield assoc
    finally:
        assoc.release()


def ask(dev: Dev, information: bytes | None = None, root: str = STUDY_ROOT, **keys: object) -> list[Dataset]:
    """The answers to a query for keys by keyword."""
    query = Dataset()
    query.QueryRetrieveLevel, query.SpecificCharacterSet = "STUDY", "ISO_IR 192"
    query.PatientID = "E*"
    for keyword, value in keys.items():
        setattr(query, keyword, value)
    found = []
    with associated(dev, information, root) as assoc:
        for status, identifier in assoc.send_c_find(query, root):
            if status.Status not in (0xFF00, 0xFF01):
                assert status.Status == 0x0000
                return found
            found.append(identifier)
    raise AssertionError("the association ended")


def patients(found: list[Dataset]) -> set[str]:
    return {str(answer.PatientID) for answer in found}


# --- extended negotiation ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uid", "asked", "answered"),
    [
        (STUDY_ROOT, b"\x01\x01\x01\x01\x01", b"\x01\x01\x01\x01\x00"),
        (STUDY_ROOT, b"\x01\x00\x01", b"\x01\x00\x01"),
        (PATIENT_ROOT, b"\x00\x00\x00\x01\x00\x01\x01", b"\x00\x00\x00\x01\x00\x01\x01"),
        (STUDY_ROOT_MOVE, b"\x01\x01", b"\x01\x00"),
        (STUDY_ROOT, None, None),
    ],
)
def test_what_is_asked_for_and_done_is_answered(
    archive: Dev, uid: str, asked: bytes | None, answered: bytes | None
) -> None:
    with associated(archive, asked, uid) as assoc:
        assert assoc.acceptor.sop_class_extended == ({} if answered is None else {uid: answered})


def test_dates_and_times_together_only_where_that_was_agreed_on(archive: Dev) -> None:
    keys = {"StudyDate": "20260705-20260707", "StudyTime": "1000-1800"}
    assert patients(ask(archive, **keys)) == {"E2", "E4"}
    assert patients(ask(archive, b"\x00\x00\x01", **keys)) == {"E2", "E4"}
    assert patients(ask(archive, b"\x00\x01", **keys)) == {"E2", "E3", "E4"}
    assert patients(ask(archive, b"\x00\x01", StudyDate="20260706-", StudyTime="0400-")) == {"E4", "E5"}


def test_names_by_their_sound_only_where_that_was_agreed_on(archive: Dev) -> None:
    fuzzy = b"\x00\x00\x01"
    for name, exact, alike in (
        ("Maier", set(), {"E1", "E4"}),
        ("jorg^meyer", set(), {"E1", "E4"}),
        ("Schmitt^Anna", set(), {"E2", "E3"}),
        ("Smith", set(), {"E2", "E3"}),
        ("Zmuda*", {"E5"}, {"E5"}),
        ("山田", set(), {"E5"}),
        ("Zmuda^Lukasz", {"E5"}, {"E5"}),
        ("Nobody", set(), set()),
    ):
        assert patients(ask(archive, PatientName=name)) == exact, name
        assert patients(ask(archive, fuzzy, PatientName=name)) == alike, name


def test_times_at_the_askers_offset_where_that_was_agreed_on(archive: Dev) -> None:
    agreed = b"\x00\x01\x00\x01"
    # 20260708 00:30 +0200 is 20260707 22:30 UTC.
    keys = {"StudyDate": "20260707", "StudyTime": "", "TimezoneOffsetFromUTC": "+0000"}
    found = {str(answer.PatientID): answer for answer in ask(archive, agreed, **keys)}
    assert set(found) == {"E4", "E5"}
    assert (found["E5"].StudyDate, found["E5"].StudyTime, found["E5"].TimezoneOffsetFromUTC) == (
        "20260707",
        "223000",
        "+0000",
    )
    keys["StudyTime"] = "2200-2300"
    assert patients(ask(archive, agreed, **keys)) == {"E5"}
    keys |= {"StudyDate": "20260706", "StudyTime": "", "TimezoneOffsetFromUTC": "-0400"}
    assert patients(ask(archive, agreed, **keys)) == set()  # E3 is on the 5th there
    keys["StudyDate"] = "20260705"
    assert patients(ask(archive, agreed, **keys)) == {"E1", "E2", "E3"}


def test_without_that_the_offset_is_the_studys_own(archive: Dev) -> None:
    (answer,) = ask(archive, PatientID="E4", TimezoneOffsetFromUTC="", StudyTime="")
    assert (answer.TimezoneOffsetFromUTC, answer.StudyTime) == ("+0200", "180000")


def test_relational_and_hierarchical_queries(archive: Dev) -> None:
    """A key above the level need not be a unique key, whether that was agreed on or not."""
    for information in (None, b"\x01"):
        found = ask(archive, information, QueryRetrieveLevel="SERIES", StudyDate="20260705", SeriesInstanceUID="")
        assert patients(found) == {"E1", "E2"}
        found = ask(archive, information, QueryRetrieveLevel="IMAGE", Modality="CT", StudyDate="20260705-20260706")
        assert patients(found) == {"E1", "E2", "E3"}


# --- sequences -------------------------------------------------------------------------------------------------------


def test_an_item_of_a_sequence_matches_as_a_whole(archive: Dev) -> None:
    for asked, expected in (
        (item(CodeValue="C900"), {"E1"}),
        (item(CodeValue="C90*"), set(MOMENTS)),
        (item(CodeValue="C0", CodingSchemeDesignator="DCM"), set(MOMENTS)),
        (item(CodeValue="C0", CodingSchemeDesignator="99LOCAL"), set()),
        (item(CodeMeaning="Schädel E2"), {"E2"}),
        (item(CodeValue=""), set(MOMENTS)),
        (item(), set(MOMENTS)),
    ):
        assert patients(ask(archive, ProcedureCodeSequence=[asked])) == expected, asked


def test_a_sequence_is_answered_with_the_keys_that_were_asked_for(archive: Dev) -> None:
    (answer,) = ask(archive, PatientID="E1", ProcedureCodeSequence=[item(CodeValue="", CodeMeaning="")])
    codes = answer.ProcedureCodeSequence
    assert [(code.CodeValue, code.CodeMeaning) for code in codes] == [("C900", "Schädel E1"), ("C0", "Head")]
    assert "CodingSchemeDesignator" not in codes[0]
    (answer,) = ask(archive, PatientID="E1", ProcedureCodeSequence=[])
    assert answer.ProcedureCodeSequence[1].CodingSchemeDesignator == "DCM"


def test_requests_of_a_series(archive: Dev) -> None:
    keys = {"QueryRetrieveLevel": "SERIES", "PatientID": "", "SeriesInstanceUID": ""}
    asked = item(ScheduledProcedureStepID="SPS902", RequestedProcedureID="")
    (answer,) = ask(archive, **keys, RequestAttributesSequence=[asked])
    assert answer.PatientID == "E3"
    assert answer.RequestAttributesSequence[0].RequestedProcedureID == "RP0"
    found = ask(archive, **keys, RequestAttributesSequence=[item(RequestedProcedureID="RP1", AccessionNumber="A7")])
    assert patients(found) == {"E2", "E4"}
    assert ask(archive, **keys, RequestAttributesSequence=[item(AccessionNumber="A8")]) == []


# --- computed keys ---------------------------------------------------------------------------------------------------


def test_computed_keys_at_every_level(archive: Dev) -> None:
    computed = {
        "NumberOfPatientRelatedStudies": 1, "NumberOfPatientRelatedSeries": 1, "NumberOfPatientRelatedInstances": 1,
        "NumberOfStudyRelatedSeries": 1, "NumberOfStudyRelatedInstances": 1, "ModalitiesInStudy": "CT",
        "SOPClassesInStudy": "1.2.840.10008.5.1.4.1.1.2", "NumberOfSeriesRelatedInstances": 1,
        "InstanceAvailability": "ONLINE",
    }  # fmt: skip
    belongs = {"PATIENT": 3, "STUDY": 7, "SERIES": 8, "IMAGE": 8}
    for level, count in belongs.items():
        keys = dict.fromkeys(computed, "")
        (answer,) = ask(archive, root=PATIENT_ROOT, QueryRetrieveLevel=level, **{**keys, "PatientID": "E1"})
        for number, (keyword, value) in enumerate(computed.items()):
            known = number < count or keyword == "InstanceAvailability"
            assert (answer[keyword].value == value) if known else answer[keyword].is_empty, keyword
        assert answer.RetrieveAETitle == "PACS"
    assert patients(ask(archive, SOPClassesInStudy="1.2.840.10008.5.1.4.1.1.2")) == set(MOMENTS)
    assert ask(archive, SOPClassesInStudy="1.2.840.10008.5.1.4.1.1.4") == []


# --- matching --------------------------------------------------------------------------------------------------------


def test_empty_and_several_values(archive: Dev) -> None:
    assert ask(archive, AccessionNumber='""') == []
    assert patients(ask(archive, PatientComments="", StudyID='""')) == set()
    assert patients(ask(archive, PatientID=["E1", "E3", "X*"])) == {"E1", "E3"}
    assert patients(ask(archive, StudyDate=["20260706", "20260708"])) == {"E3", "E5"}
    assert patients(ask(archive, PatientName=["Meier*", "Mayr^georg"])) == {"E1", "E4"}


def test_a_key_that_the_index_has_not_is_said_to_be_unsupported(archive: Dev) -> None:
    query = Dataset()
    query.QueryRetrieveLevel, query.PatientID = "STUDY", "E1"
    for keyword, pending in (("StudyDescription", 0xFF00), ("PatientComments", 0xFF01), ("SeriesNumber", 0xFF01)):
        asked = Dataset()
        asked.update(query)
        setattr(asked, keyword, None)
        with associated(archive) as assoc:
            assert [status.Status for status, _answer in assoc.send_c_find(asked, STUDY_ROOT)] == [pending, 0x0000]
