"""What the index keeps of one object, made from its data set."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from pacs.errors import CannotUnderstand, DataSetDoesNotMatch
from pacs.model import dataset, text
from pacs.model.attributes import ATTRIBUTES, SCANNED_TAGS, SEQUENCES, SPECIFIC_CHARACTER_SET, Level, Sequence
from pacs.model.dataset import Scanned
from pacs.model.items import items_of
from pacs.model.uids import NON_PATIENT_SOP_CLASSES, is_uid

#: Values of PatientID that devices send when they know none. They never join two studies into one patient.
UNKNOWN_PATIENT_IDS = frozenset(["", "0", "UNKNOWN", "UNKNOWN PATIENT", "NONE", "ANONYMOUS"])

#: The most items of a sequence that the index keeps.
ITEMS_MAX = 16

_INTEGER = re.compile(r"[+-]?[0-9]{1,12}", re.ASCII)
_DATE = re.compile(r"([0-9]{4})[.-]?([0-9]{2})[.-]?([0-9]{2})", re.ASCII)
#: The columns of what stands above an object.
COLUMNS_ABOVE = tuple(attribute.column for attribute in ATTRIBUTES if attribute.level < Level.IMAGE)


@dataclass(frozen=True)
class IndexRecord:
    """One object's attributes by column of the index; text as it is, integers as int, None where there is none.

    `sequences` holds those that the object has, by column: a list of items, each attribute by its keyword.
    """

    values: dict[str, str | int | None]
    sequences: dict[str, list[dict[str, str]]] = field(default_factory=dict)

    @cached_property
    def above(self) -> tuple[object, ...]:
        """What it says of its series, study and patient: the same for all objects that agree on them."""
        return tuple(self.values[column] for column in COLUMNS_ABOVE)

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


def make_record(raw: Scanned, default_character_set: str = "") -> IndexRecord:
    """The index's record of what the scanner found of SCANNED_TAGS.

    default_character_set is the Specific Character Set of an object that says none.
    An object that belongs to no patient (a color palette, say) is kept as a study of its own under its own UID.
    Raise CannotUnderstand if one of its four UIDs is missing or is none.
    """
    character_set = raw.get(SPECIFIC_CHARACTER_SET, b"").strip(b" \0") or default_character_set.encode()
    encodings = tuple(text.encodings_of(character_set))
    values: dict[str, str | int | None] = {}
    for attribute in ATTRIBUTES:
        value = raw.get(attribute.tag, b"")
        read = _read_cached if len(value) <= _CACHED_SIZE_BYTES_MAX else _read
        values[attribute.column] = read(value, attribute.vr, encodings)
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
    sequences = {each.column: items for each in SEQUENCES if (items := _items(raw, each, encodings))}
    return IndexRecord(values, sequences)


def _read(value: bytes, vr: str, encodings: tuple[str, ...]) -> str | int | None:
    return _normalised(text.decode(value, vr, encodings), vr)


#: Most values are those of the object before: of its series, study and patient.
_CACHED_SIZE_BYTES_MAX = 256
_read_cached = lru_cache(maxsize=4096)(_read)


def _items(raw: Scanned, sequence: Sequence, encodings: tuple[str, ...]) -> list[dict[str, str]]:
    if sequence.tag not in raw:
        return []
    items = []
    for item in items_of(raw, sequence.tag)[:ITEMS_MAX]:
        # An item may have a character set of its own (PS3.5 6.1.2.3 note, PS3.3 C.12.1.1.2).
        own = tuple(text.encodings_of(item[SPECIFIC_CHARACTER_SET])) if SPECIFIC_CHARACTER_SET in item else encodings
        found = {a.keyword: text.decode(item[a.tag], a.vr, own) for a in sequence.attributes if a.tag in item}
        items.append({keyword: value for keyword, value in found.items() if value})
    return [item for item in items if item]


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
