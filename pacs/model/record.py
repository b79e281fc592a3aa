"""What the index keeps of one object, made from its data set."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from pacs.errors import CannotUnderstand, DataSetDoesNotMatch
from pacs.model import dataset, text
from pacs.model.attributes import ATTRIBUTES, SCANNED_TAGS, SPECIFIC_CHARACTER_SET
from pacs.model.uids import NON_PATIENT_SOP_CLASSES, is_uid

#: Values of PatientID that devices send when they know none. They never join two studies into one patient.
UNKNOWN_PATIENT_IDS = frozenset(["", "0", "UNKNOWN", "UNKNOWN PATIENT", "NONE", "ANONYMOUS"])

_INTEGER = re.compile(r"[+-]?[0-9]{1,12}", re.ASCII)
_DATE = re.compile(r"([0-9]{4})[.-]?([0-9]{2})[.-]?([0-9]{2})", re.ASCII)


@dataclass(frozen=True)
class IndexRecord:
    """One object's attributes by column of the index; text as it is, integers as int, None where there is none."""

    values: dict[str, str | int | None]

    @property
    def study_instance_uid(self) -> str:
        return str(self.values["study_instance_uid"])

    @property
    def series_instance_uid(self) -> str:
        return str(self.values["series_instance_uid"])

    @property
    def sop_instance_uid(self) -> str:
        return str(self.values["sop_instance_uid"])

    @property
    def sop_class_uid(self) -> str:
        return str(self.values["sop_class_uid"])


def read_record(data: memoryview | bytes, transfer_syntax_uid: str) -> IndexRecord:
    """The index's record of an encoded data set.

    Raise CannotUnderstand if the data set is not whole, or `make_record` does.
    """
    return make_record(dataset.scan(data, transfer_syntax_uid, SCANNED_TAGS))


def make_record(raw: dict[int, bytes], default_character_set: str = "") -> IndexRecord:
    """The index's record of what the scanner found of SCANNED_TAGS.

    default_character_set is the Specific Character Set of an object that says none.
    An object that belongs to no patient (a color palette, say) is kept as a study of its own under its own UID.
    Raise CannotUnderstand if one of its four UIDs is missing or is none.
    """
    encodings = text.encodings_of(raw.get(SPECIFIC_CHARACTER_SET, b"").strip(b" \0") or default_character_set.encode())
    values: dict[str, str | int | None] = {}
    for attribute in ATTRIBUTES:
        value = text.decode(raw.get(attribute.tag, b""), attribute.vr, encodings)
        values[attribute.column] = _normalised(value, attribute.vr)
    if values["sop_class_uid"] in NON_PATIENT_SOP_CLASSES and not values["study_instance_uid"]:
        values["study_instance_uid"] = values["series_instance_uid"] = values["sop_instance_uid"]
    for keyword, column in (
        ("StudyInstanceUID", "study_instance_uid"),
        ("SeriesInstanceUID", "series_instance_uid"),
        ("SOPInstanceUID", "sop_instance_uid"),
        ("SOPClassUID", "sop_class_uid"),
    ):
        uid = values[column]
        if not uid:
            raise CannotUnderstand(f"The data set has no {keyword}.")
        if not is_uid(str(uid)):
            raise CannotUnderstand(f"The data set's {keyword} is not a UID.")
    return IndexRecord(values)


def _normalised(value: str, vr: str) -> str | int | None:
    if vr == "IS":
        return integer(value.split("\\")[0])
    if vr == "DA":
        match = _DATE.fullmatch(value)  # ACR-NEMA wrote 1997.04.24
        return "".join(match.groups()) if match else value
    if vr == "CS":
        return value.upper()
    return value


def integer(text: str) -> int | None:
    """The number that an integer string stands for; None if it is none or out of range (PS3.5 Table 6.2-1)."""
    number = int(text) if _INTEGER.fullmatch(text.strip()) else None
    return number if number is not None and -(1 << 31) <= number < 1 << 31 else None


def require_match(record: IndexRecord, sop_class_uid: str, sop_instance_uid: str) -> None:
    """Raise DataSetDoesNotMatch unless the data set is of the class and instance that its message named."""
    if record.sop_class_uid != sop_class_uid:
        raise DataSetDoesNotMatch("The data set's SOP Class UID is not the Affected SOP Class UID of its message.")
    if record.sop_instance_uid != sop_instance_uid:
        raise DataSetDoesNotMatch("The data set's SOP Instance UID is not the Affected SOP Instance UID.")


def lone_study_uid(record: IndexRecord) -> str:
    """What keeps a patient without a usable PatientID apart: the study's UID; empty for all others."""
    known = str(record.values["patient_id"]).upper() not in UNKNOWN_PATIENT_IDS
    return "" if known else record.study_instance_uid


def study_key(study_instance_uid: str) -> str:
    """The name of a study's folder in a volume: 16 hex digits. A UID could be a path's trick, its digest can't."""
    return hashlib.sha256(study_instance_uid.encode()).hexdigest()[:16]
