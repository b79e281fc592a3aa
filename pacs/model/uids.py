"""Unique identifiers: which are well formed, which SOP classes are storage, which transfer syntaxes there are."""

from __future__ import annotations

import re

from pydicom._uid_dict import UID_dictionary

#: Implementation Class UID of this archive (PS3.7 D.3.3.2), for ever the same: it stands in every stored file, and
#: equal data sets must make equal files.
IMPLEMENTATION_CLASS_UID = "2.25.283340190526114312764538061137340268545"
IMPLEMENTATION_VERSION_NAME = "PACS_APPLIANCE"

_WELL_FORMED = re.compile(r"[0-9]+(\.[0-9]+)*", re.ASCII)


def is_uid(text: str) -> bool:
    """Whether text can stand as a UID: digits and dots, 64 at most (PS3.5 9.1).

    A component with a leading zero is let through, against PS3.5 9.1: old devices made such, and an image of theirs
    is not worth less.
    """
    return len(text) <= 64 and _WELL_FORMED.fullmatch(text) is not None


#: Registered after the edition of PS3.6 that pydicom holds. pynetdicom adds some of these to pydicom's table when it is
#: imported; what this archive takes must not depend on who imported what first.
_LATER = {
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    "1.2.840.10008.1.2.8.1": "Deflated Image Frame Compression",
}
_KINDS = {uid: row[1] for uid, row in UID_dictionary.items()} | dict.fromkeys(_LATER, "Transfer Syntax")
_NAMES = {uid: row[0] for uid, row in UID_dictionary.items()} | _LATER

#: Every transfer syntax of PS3.6 Table A-1, retired ones too: what once was written is still to be kept. Without
#: those that are no encoding of a data set over the network: papyrus, encapsulation of XML and MIME, live video.
TRANSFER_SYNTAXES: tuple[str, ...] = tuple(
    uid
    for uid, kind in _KINDS.items()
    if kind == "Transfer Syntax"
    and not any(word in _NAMES[uid] for word in ("Papyrus", "XML Encoding", "MIME", "SMPTE ST"))
)


def name_of(uid: str) -> str:
    """What PS3.6 calls a UID; the UID itself where it calls it nothing."""
    return _NAMES.get(uid, uid)


#: Storage SOP classes whose objects belong to no patient, study or series (PS3.3 A.44, A.58, A.61 and the like).
NON_PATIENT_SOP_CLASSES = frozenset(
    [
        "1.2.840.10008.5.1.4.38.1",  # Hanging Protocol
        "1.2.840.10008.5.1.4.39.1",  # Color Palette
        "1.2.840.10008.5.1.4.43.1",  # Generic Implant Template
        "1.2.840.10008.5.1.4.44.1",  # Implant Assembly Template
        "1.2.840.10008.5.1.4.45.1",  # Implant Template Group
        "1.2.840.10008.5.1.4.1.1.200.1",  # CT Defined Procedure Protocol
        "1.2.840.10008.5.1.4.1.1.200.3",  # Protocol Approval
        "1.2.840.10008.5.1.4.1.1.200.7",  # XA Defined Procedure Protocol
        "1.2.840.10008.5.1.4.1.1.201.1",  # Inventory
    ]
)


def may_be_storage(sop_class_uid: str) -> bool:
    """Whether a presentation context for this abstract syntax is taken for storage.

    True for PS3.6's storage SOP classes and for what PS3.6 does not list: private and future ones. False for what it
    lists as something else (verification, query/retrieve, print, ...).
    """
    kind = _KINDS.get(sop_class_uid)
    if kind is None:
        return is_uid(sop_class_uid)
    name = _NAMES[sop_class_uid]
    if kind != "SOP Class" or "Media Storage Directory" in name or "Storage Commitment" in name:
        return False
    if sop_class_uid.startswith("1.2.840.10008.5.1.4.1.1."):
        return not any(word in name for word in ("- FIND", "- MOVE", "- GET", "Creation", "Query"))
    return "Storage" in name


def storage_classes() -> list[str]:
    """PS3.6's storage SOP classes, by UID."""
    return sorted(
        (uid for uid in _KINDS if may_be_storage(uid)), key=lambda uid: [int(part) for part in uid.split(".")]
    )
