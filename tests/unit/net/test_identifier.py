"""Identifiers, read and written byte by byte."""

from __future__ import annotations

from io import BytesIO

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pynetdicom.dimse_primitives import C_FIND
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation
from pynetdicom.presentation import PresentationContext, build_context

from pacs.errors import PacsError
from pacs.net.association import Message
from pacs.net.finding import Extended, read_query
from pacs.net.identifier import Answer, encode_answer, keys_of, read_identifier
from pacs.net.negotiation import STUDY_ROOT_FIND, STUDY_ROOT_MOVE, extended_answers
from tests.unit.model.encoding import EXPLICIT, IMPLICIT, element, item

LEVEL = element(0x00080052, "CS", b"STUDY ")


def context(syntax: str = EXPLICIT) -> PresentationContext:
    made = build_context(STUDY_ROOT_FIND, syntax)
    made.context_id = 1
    return made


def message(identifier: bytes, syntax: str = EXPLICIT) -> Message:
    request = C_FIND()
    request.MessageID, request.AffectedSOPClassUID, request.Identifier = 1, STUDY_ROOT_FIND, BytesIO(identifier)
    return Message(request, context(syntax))


def decoded(encoded: bytes, syntax: str) -> Dataset:
    return pydicom.filereader.read_dataset(BytesIO(encoded), syntax == IMPLICIT, True)


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
@pytest.mark.parametrize(
    ("terms", "name", "written"),
    [
        ([], "Doe^Jane", None),
        ([], "Müller", "ISO_IR 192"),
        (["ISO_IR 100"], "Müller", "ISO_IR 100"),
        (["ISO_IR 100"], "山田", "ISO_IR 192"),
        (["", "ISO 2022 IR 87"], "Yamada=山田", ["", "ISO 2022 IR 87"]),
        (["GB18030"], "王", "GB18030"),
    ],
)
def test_an_answer_is_written_in_what_holds_it(syntax: str, terms: list[str], name: str, written: object) -> None:
    code = (Answer(0x00080104, "LO", name.split("=")[0]), Answer(0x00080100, "SH", "A"))
    elements = [
        Answer(0x0020000D, "UI", "1.2.3"),
        Answer(0x00100010, "PN", name),
        Answer(0x00081032, "SQ", items=(tuple(sorted(code, key=lambda each: each.tag)), ())),
        Answer(0x00201208, "IS", "7"),
        Answer(0x00080061, "CS", "CT\\MR"),
        Answer(0x7FE00010, "OW"),
    ]
    ds = decoded(encode_answer(elements, terms, context(syntax)), syntax)
    assert ds.get("SpecificCharacterSet") == written
    assert str(ds.PatientName) == name
    assert ds.ProcedureCodeSequence[0].CodeMeaning == name.split("=")[0]
    assert len(ds.ProcedureCodeSequence) == 2
    assert (ds.StudyInstanceUID, ds.NumberOfStudyRelatedInstances, list(ds.ModalitiesInStudy)) == (
        "1.2.3",
        7,
        ["CT", "MR"],
    )
    assert ds[0x7FE00010].is_empty


def test_a_character_that_holds_a_backslash_is_no_two_values() -> None:
    name = "誠^一"  # in GBK its second byte is 0x5C
    assert b"\\" in name.encode("gbk")
    identifier, level = read_identifier(
        message(element(0x00080005, "CS", b"GBK ") + LEVEL + element(0x00100010, "PN", name.encode("gbk")))
    )
    (key,) = [key for key in keys_of(identifier, ["iso8859"]) if key.keyword == "PatientName"]
    assert key.value == name
    assert read_query(identifier, level, Extended()).terms == ["GBK"]


def test_an_identifier_that_says_no_character_set_has_the_devices_own() -> None:
    for head in (b"", element(0x00080005, "CS", b"")):
        identifier, level = read_identifier(
            message(head + LEVEL + element(0x00100010, "PN", "王^小东".encode("gb18030")))
        )
        asked = read_query(identifier, level, Extended(), "GB18030")
        assert [key.value for key in asked.keys if key.vr == "PN"] == ["王^小东"]
        assert asked.terms == ["GB18030"]


def test_an_items_text_is_in_the_character_set_around_it() -> None:
    codes = element(0x00081032, "SQ", item(element(0x00080104, "LO", b"Sch\xe4del ")))
    identifier, _level = read_identifier(message(element(0x00080005, "CS", b"ISO_IR 100") + LEVEL + codes))
    (key,) = [key for key in keys_of(identifier, ["iso8859"]) if key.vr == "SQ"]
    assert [(each.keyword, each.value) for each in key.keys] == [("CodeMeaning", "Schädel")]


def test_a_list_of_many_uids_is_read_whole() -> None:
    uids = "\\".join(f"1.2.{number}" for number in range(20000))
    implicit = b"\x08\x00\x52\x00\x06\x00\x00\x00STUDY " + b"\x20\x00\x0d\x00" + len(uids).to_bytes(4, "little")
    identifier, level = read_identifier(message(implicit + uids.encode(), IMPLICIT))
    match = read_query(identifier, level, Extended()).matches["StudyInstanceUID"]
    assert len(match.values) == 20000  # type: ignore[union-attr]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=120))
@pytest.mark.filterwarnings("ignore")
def test_any_bytes_are_a_query_or_an_error_of_ours(rubbish: bytes) -> None:
    for head in (b"", LEVEL):
        try:
            identifier, level = read_identifier(message(head + rubbish))
            read_query(identifier, level, Extended(True, True, True))
        except PacsError as error:
            assert error.status == 0xA900


@given(st.binary(max_size=12), st.sampled_from([STUDY_ROOT_FIND, STUDY_ROOT_MOVE]))
def test_an_extended_negotiation_is_answered_with_no_more_than_was_asked(information: bytes, uid: str) -> None:
    asked = SOPClassExtendedNegotiation()
    asked.sop_class_uid, asked.service_class_application_information = uid, information
    (answer,) = extended_answers([asked])
    given_back = answer.service_class_application_information
    assert len(given_back) <= len(information)
    assert all(mine <= theirs for mine, theirs in zip(given_back, information, strict=False))
    Extended.of(given_back)
