"""The attributes that the index knows, one row each: their level, column, tag and value representation.

Everything that names attributes derives from this table: what the scanner keeps, the columns of an insert, the keys
that a query matches, and what an answer holds (PS3.4 C.6.1.1, C.6.2.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Level(IntEnum):
    """The levels of the query/retrieve information models (PS3.4 C.6), from the top."""

    PATIENT = 0
    STUDY = 1
    SERIES = 2
    IMAGE = 3


@dataclass(frozen=True)
class Attribute:
    """An attribute of the index: its keyword in PS3.6, and the column that holds it."""

    keyword: str
    tag: int
    vr: str
    level: Level
    column: str


def _rows(level: Level, table: str) -> list[Attribute]:
    rows = []
    for line in table.split():
        keyword, tag, vr, column = line.split("|")
        rows.append(Attribute(keyword, int(tag, 16), vr, level, column))
    return rows


ATTRIBUTES: tuple[Attribute, ...] = (
    *_rows(
        Level.PATIENT,
        """
        PatientID|00100020|LO|patient_id
        IssuerOfPatientID|00100021|LO|issuer_of_patient_id
        PatientName|00100010|PN|patient_name
        PatientBirthDate|00100030|DA|patient_birth_date
        PatientSex|00100040|CS|patient_sex
        """,
    ),
    *_rows(
        Level.STUDY,
        """
        StudyInstanceUID|0020000D|UI|study_instance_uid
        StudyDate|00080020|DA|study_date
        StudyTime|00080030|TM|study_time
        AccessionNumber|00080050|SH|accession_number
        StudyID|00200010|SH|study_id
        StudyDescription|00081030|LO|study_description
        ReferringPhysicianName|00080090|PN|referring_physician_name
        TimezoneOffsetFromUTC|00080201|SH|timezone_offset
        """,
    ),
    *_rows(
        Level.SERIES,
        """
        SeriesInstanceUID|0020000E|UI|series_instance_uid
        Modality|00080060|CS|modality
        SeriesNumber|00200011|IS|series_number
        SeriesDate|00080021|DA|series_date
        SeriesTime|00080031|TM|series_time
        SeriesDescription|0008103E|LO|series_description
        BodyPartExamined|00180015|CS|body_part_examined
        ProtocolName|00181030|LO|protocol_name
        InstitutionName|00080080|LO|institution_name
        StationName|00081010|SH|station_name
        Manufacturer|00080070|LO|manufacturer
        PerformedProcedureStepStartDate|00400244|DA|performed_date
        PerformedProcedureStepStartTime|00400245|TM|performed_time
        """,
    ),
    *_rows(
        Level.IMAGE,
        """
        SOPInstanceUID|00080018|UI|sop_instance_uid
        SOPClassUID|00080016|UI|sop_class_uid
        InstanceNumber|00200013|IS|instance_number
        ContentDate|00080023|DA|content_date
        ContentTime|00080033|TM|content_time
        NumberOfFrames|00280008|IS|number_of_frames
        """,
    ),
)

BY_KEYWORD = {attribute.keyword: attribute for attribute in ATTRIBUTES}
SPECIFIC_CHARACTER_SET = 0x00080005


@dataclass(frozen=True)
class Sequence:
    """A sequence of the index: its column holds the items, each with the attributes below."""

    keyword: str
    tag: int
    level: Level
    column: str
    attributes: tuple[Attribute, ...]

    def by_keyword(self, keyword: str) -> Attribute | None:
        """An attribute of the items; None if the index keeps none of that keyword."""
        return next((attribute for attribute in self.attributes if attribute.keyword == keyword), None)


#: In an item an attribute's column is its keyword.
SEQUENCES: tuple[Sequence, ...] = (
    Sequence(
        "ProcedureCodeSequence",
        0x00081032,
        Level.STUDY,
        "procedure_codes",
        tuple(
            _rows(
                Level.STUDY,
                """
                CodeValue|00080100|SH|CodeValue
                CodingSchemeDesignator|00080102|SH|CodingSchemeDesignator
                CodingSchemeVersion|00080103|SH|CodingSchemeVersion
                CodeMeaning|00080104|LO|CodeMeaning
                """,
            )
        ),
    ),
    Sequence(
        "RequestAttributesSequence",
        0x00400275,
        Level.SERIES,
        "request_attributes",
        tuple(
            _rows(
                Level.SERIES,
                """
                AccessionNumber|00080050|SH|AccessionNumber
                StudyInstanceUID|0020000D|UI|StudyInstanceUID
                RequestedProcedureDescription|00321060|LO|RequestedProcedureDescription
                ScheduledProcedureStepDescription|00400007|LO|ScheduledProcedureStepDescription
                ScheduledProcedureStepID|00400009|SH|ScheduledProcedureStepID
                RequestedProcedureID|00401001|SH|RequestedProcedureID
                """,
            )
        ),
    ),
)
SEQUENCE_BY_KEYWORD = {sequence.keyword: sequence for sequence in SEQUENCES}

#: What the scanner keeps of a data set.
SCANNED_TAGS = (
    frozenset(attribute.tag for attribute in ATTRIBUTES)
    | {sequence.tag for sequence in SEQUENCES}
    | {SPECIFIC_CHARACTER_SET}
)

#: Dates with the times that belong to them (PS3.4 C.2.2.2.5.4), by keyword.
TIME_OF_DATE = {
    "StudyDate": "StudyTime",
    "SeriesDate": "SeriesTime",
    "PerformedProcedureStepStartDate": "PerformedProcedureStepStartTime",
    "ContentDate": "ContentTime",
}

UNIQUE_KEY = {
    Level.PATIENT: BY_KEYWORD["PatientID"],
    Level.STUDY: BY_KEYWORD["StudyInstanceUID"],
    Level.SERIES: BY_KEYWORD["SeriesInstanceUID"],
    Level.IMAGE: BY_KEYWORD["SOPInstanceUID"],
}
