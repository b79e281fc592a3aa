"""DICOM JSON as the Native DICOM Model in XML (PS3.19 A.1)."""

from __future__ import annotations

import re
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from pydicom.datadict import keyword_for_tag

_NAMESPACE = "http://dicom.nema.org/PS3.19/models/NativeDICOM"
_PARTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")
#: What XML 1.0 cannot hold.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def native_xml(dataset: dict[str, Any]) -> bytes:
    """A data set of DICOM JSON as a document in UTF-8."""
    inner = "".join(_attributes(dataset))
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f'<NativeDicomModel xmlns="{_NAMESPACE}" xml:space="preserve">{inner}</NativeDicomModel>'
    ).encode()


def _attributes(dataset: dict[str, Any]) -> list[str]:
    found = []
    for tag, element in sorted(dataset.items()):
        keyword = keyword_for_tag(int(tag, 16))
        named = f" keyword={quoteattr(keyword)}" if keyword else _creator(dataset, tag)
        found.append(f'<DicomAttribute tag="{tag}" vr="{element["vr"]}"{named}>{_content(element)}</DicomAttribute>')
    return found


def _creator(dataset: dict[str, Any], tag: str) -> str:
    """The private creator of a private element (PS3.5 7.8.1)."""
    creator = dataset.get(f"{tag[:4]}00{tag[4:6]}", {}).get("Value") if int(tag[:4], 16) % 2 else None
    return f" privateCreator={quoteattr(_clean(str(creator[0])))}" if creator and creator[0] else ""


def _content(element: dict[str, Any]) -> str:
    if "BulkDataURI" in element:
        return f"<BulkData uri={quoteattr(element['BulkDataURI'])}/>"
    if "InlineBinary" in element:
        return f"<InlineBinary>{element['InlineBinary']}</InlineBinary>"
    values = [(number, value) for number, value in enumerate(element.get("Value", ()), 1) if value is not None]
    if element["vr"] == "SQ":
        return "".join(f'<Item number="{number}">{"".join(_attributes(item))}</Item>' for number, item in values)
    if element["vr"] == "PN":
        return "".join(f'<PersonName number="{number}">{_name(value)}</PersonName>' for number, value in values)
    return "".join(f'<Value number="{number}">{escape(_clean(str(value)))}</Value>' for number, value in values)


def _name(groups: dict[str, str]) -> str:
    found = []
    for group, name in groups.items():
        parts = zip(_PARTS, name.split("^"), strict=False)
        inner = "".join(f"<{part}>{escape(_clean(value))}</{part}>" for part, value in parts if value)
        found.append(f"<{group}>{inner}</{group}>")
    return "".join(found)


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
