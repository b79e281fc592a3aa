"""What the index keeps of an object."""

from __future__ import annotations

import pytest

from pacs.errors import CannotUnderstand, DataSetDoesNotMatch
from pacs.model.record import lone_study_uid, read_record, require_match, study_key
from pacs.model.uids import NON_PATIENT_SOP_CLASSES
from tests.unit.model.encoding import EXPLICIT, IMPLICIT, element, identity

PALETTE = "1.2.840.10008.5.1.4.39.1"


def record_of(*more: bytes, **values: str):  # type: ignore[no-untyped-def]
    return read_record(identity(**values) + b"".join(more), EXPLICIT)


def test_an_object_has_its_four_uids() -> None:
    record = read_record(identity(IMPLICIT), IMPLICIT)
    assert record.sop_class_uid == "1.2.840.10008.5.1.4.1.1.2"
    assert (record.study_instance_uid, record.series_instance_uid, record.sop_instance_uid) == (
        "1.2.3",
        "1.2.3.1",
        "1.2.3.4",
    )


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
@pytest.mark.parametrize(
    "uid",
    [
        "",
        " ",
        "1.2\\3.4",
        "../../etc/passwd",
        "1.2/3",
        "1.2.3.",
        ".1.2",
        "1..2",
        "1.2 .3",
        "1.2.x",
        "1" * 65,
        "1.2*",
        "١.٢",
    ],
)
def test_a_uid_that_is_none_is_refused(keyword: str, uid: str) -> None:
    encoded = uid if uid.isascii() else "1.2\xb2"
    with pytest.raises(CannotUnderstand) as caught:
        record_of(**{keyword: encoded})
    assert keyword in str(caught.value)
    assert not uid.strip() or uid not in str(caught.value), "what a device put where a UID belongs may be a name"


@pytest.mark.parametrize("uid", ["1.2.3", "0", "1.2.03", "1" * 64, "2.25.329800735698586629295641978511506172918"])
def test_old_and_long_uids_are_taken(uid: str) -> None:
    assert record_of(SOPInstanceUID=uid).sop_instance_uid == uid


@pytest.mark.parametrize("patient_id", ["", "0", "UNKNOWN", "unknown", "Unknown Patient", "none", "ANONYMOUS", "  "])
def test_an_unknown_patients_id_joins_no_studies(patient_id: str) -> None:
    one = lone_study_uid(record_of(PatientID=patient_id))
    assert one == "1.2.3"
    assert lone_study_uid(record_of(PatientID=patient_id, StudyInstanceUID="1.9")) == "1.9"


def test_a_patients_id_joins_studies() -> None:
    assert lone_study_uid(record_of(PatientID="P1")) == ""
    assert lone_study_uid(record_of(PatientID="00")) == ""


@pytest.mark.parametrize(
    ("raw", "date"),
    [
        (b"19970424", "19970424"),
        (b"1997.04.24", "19970424"),
        (b"1997-04-24", "19970424"),
        (b"today ", "today"),
        (b"", ""),
    ],
)
def test_dates_of_acr_nema_are_dates(raw: bytes, date: str) -> None:
    assert record_of(element(0x00080020, "DA", raw)).values["study_date"] == date


@pytest.mark.parametrize(
    ("raw", "number"),
    [(b"7 ", 7), (b"+07", 7), (b"-3", -3), (b"1\\2", 1), (b"", None), (b"x1", None), (b"1.5", None),
     (b"2147483647", 2147483647), (b"-2147483648", -2147483648), (b"2147483648", None), (b"99999999999", None)],
)  # fmt: skip
def test_an_integer_string_is_the_integer_that_postgresql_holds(raw: bytes, number: int | None) -> None:
    assert record_of(element(0x00200013, "IS", raw)).values["instance_number"] == number


@pytest.mark.parametrize("sop_class", sorted(NON_PATIENT_SOP_CLASSES))
def test_an_object_of_no_patient_is_a_study_of_its_own(sop_class: str) -> None:
    record = record_of(SOPClassUID=sop_class, StudyInstanceUID="", SeriesInstanceUID="", PatientID="")
    assert record.study_instance_uid == record.series_instance_uid == record.sop_instance_uid == "1.2.3.4"


def test_the_message_must_name_the_data_sets_class_and_instance() -> None:
    record = record_of()
    require_match(record, "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4")
    for names in (("1.2.840.10008.5.1.4.1.1.4", "1.2.3.4"), ("1.2.840.10008.5.1.4.1.1.2", "1.2.3.5")):
        with pytest.raises(DataSetDoesNotMatch):
            require_match(record, *names)


def test_a_study_key_is_sixteen_harmless_characters() -> None:
    for uid in ("1.2.3", "../../x", "", "1" * 64):
        assert len(study_key(uid)) == 16
        assert set(study_key(uid)) <= set("0123456789abcdef")
    assert study_key("1.2.3") != study_key("1.2.4")
