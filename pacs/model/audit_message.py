"""An event of the audit log as a message of DICOM PS3.15 A.5: XML after the schema in A.5.1, contents after A.5.3."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

from pacs.model.audit import ALERTS, KINDS, Event

_DCM, _RFC3881 = "DCM", "RFC-3881"
#: Roles of participants (PS3.16 CID 402).
_SOURCE, _DESTINATION = ("110153", "Source Role ID"), ("110152", "Destination Role ID")
_APPLICATION, _LAUNCHER = ("110150", "Application"), ("110151", "Application Launcher")
#: What an object's id is (PS3.16 CID 404, RFC 3881 5.5.4).
_STUDY, _SOP_CLASS, _NODE = ("110180", "Study Instance UID"), ("110181", "SOP Class UID"), ("110182", "Node ID")
_PATIENT_NUMBER, _URI = ("2", "Patient Number"), ("12", "URI")
#: RFC 3881 5.5.1, 5.5.2
_PERSON, _SYSTEM = "1", "2"
_PATIENT, _REPORT, _SECURITY_RESOURCE = "1", "3", "13"
#: RFC 3881 5.3.3
_MACHINE_NAME, _ADDRESS = "1", "2"

#: Events that are about studies sent from one to another.
_TRANSFERS = frozenset(["sending", "sent", "received", "exported", "imported"])


@dataclass(frozen=True)
class Source:
    """Who reports: this appliance."""

    name: str
    ae_title: str
    site: str = ""


def is_message(event: Event) -> bool:
    """Whether a line of the log is an event of PS3.15: not a seal, not a segment's header."""
    return event.get("e") in KINDS


def message_of(event: Event, source: Source) -> bytes:
    """An event's message in UTF-8, without an XML declaration."""
    root = Element("AuditMessage")
    _identification(root, event)
    _participants(root, event, source)
    found = SubElement(root, "AuditSourceIdentification", AuditSourceID=source.name)
    if source.site:
        found.set("AuditEnterpriseSiteID", source.site)
    _objects(root, event, source)
    return tostring(root, encoding="unicode").encode("utf-8", "replace")


def _identification(root: Element, event: Event) -> None:
    kind = KINDS[event["e"]]
    found = SubElement(
        root, "EventIdentification", EventActionCode=kind.action, EventDateTime=str(event["at"]),
        EventOutcomeIndicator=str(event.get("o", 0)),
    )  # fmt: skip
    _coded(found, "EventID", kind.code, kind.meaning)
    if kind.type_code:
        _coded(found, "EventTypeCode", kind.type_code, kind.type_meaning)
    if event["e"] == "alert":
        _coded(found, "EventTypeCode", *ALERTS[event.get("kind", "restricted")])
    if event.get("text") and event.get("o"):
        SubElement(found, "EventOutcomeDescription").text = _plain(event["text"])


def _participants(root: Element, event: Event, source: Source) -> None:
    kind, by = event["e"], event.get("by", {})
    us = {"ae": source.ae_title, "unit": source.name}
    if kind in _TRANSFERS:
        _participant(root, event.get("from") or (by if kind == "received" else us), kind == "received", _SOURCE)
        to = event.get("to") or us
        is_requestor = kind != "received" and to.get("ae") == by.get("ae")
        _participant(root, to, is_requestor, _DESTINATION)
        if kind != "received" and not is_requestor:
            _participant(root, by, True, None)
    elif kind == "query":
        _participant(root, by, True, _SOURCE)
        _participant(root, event.get("to") or us, False, _DESTINATION)
    elif kind in ("started", "stopped"):
        _participant(root, {"unit": event.get("text") or source.name}, False, _APPLICATION)
        _participant(root, by, True, _LAUNCHER)
    else:
        _participant(root, by or us, True, None)
        if "to" in event:
            _participant(root, event["to"], False, None)


def _participant(root: Element, who: Mapping[str, str], is_requestor: bool, role: tuple[str, str] | None) -> None:
    user = who.get("login") or who.get("user") or who.get("ae") or who.get("unit") or who.get("as") or "unknown"
    found = SubElement(root, "ActiveParticipant", UserID=_plain(user), UserIsRequestor=str(is_requestor).lower())
    if who.get("ae"):
        found.set("AlternativeUserID", f"AETITLE={_plain(who['ae'])}")
    elif who.get("as"):
        found.set("AlternativeUserID", _plain(who["as"]))
    if who.get("user"):
        found.set("UserName", _plain(who["user"]))
    elif who.get("cert"):
        found.set("UserName", f"certificate SHA-256 {who['cert']}")
    access = who.get("peer") or who.get("tty")
    if access:
        found.set("NetworkAccessPointID", _plain(access))
        found.set("NetworkAccessPointTypeCode", _ADDRESS if _is_address(access) else _MACHINE_NAME)
    if role is not None:
        _coded(found, "RoleIDCode", *role)


def _objects(root: Element, event: Event, source: Source) -> None:
    kind = event["e"]
    if kind == "query":
        _query(root, event)
    elif "study" in event:
        _study(root, event)
        patient = event.get("patient", "")
        issuer = f"^^^{event['issuer']}" if event.get("issuer") else ""
        _object(root, _PERSON, _PATIENT, _PATIENT_NUMBER, f"{patient}{issuer}", system=_RFC3881)
    elif kind in ("log used", "log expired"):
        found = _object(
            root, _SYSTEM, _SECURITY_RESOURCE, _URI, f"file:///{source.name}/audit", name="Security Audit Log",
            system=_RFC3881,
        )  # fmt: skip
        _detail(found, "Description", event.get("text", ""))
    elif kind == "alert":
        found = _object(root, _SYSTEM, _SECURITY_RESOURCE, _NODE, source.name)
        _detail(found, "Alert Description", event.get("text", ""))


def _query(root: Element, event: Event) -> None:
    found = _object(root, _SYSTEM, _REPORT, _SOP_CLASS, event.get("class", "unknown"), query=event.get("query", ""))
    _detail(found, "TransferSyntax", event.get("syntax", ""))
    _detail(found, "QueryRetrieveLevel", event.get("level", ""))
    _detail(found, "Description", event.get("text", ""))


def _study(root: Element, event: Event) -> None:
    found = _object(root, _SYSTEM, _REPORT, _STUDY, event["study"])
    for name in ("objects", "again", "failed", "begun", "id", "text"):
        _detail(found, name, event.get(name, ""))
    if event.get("classes"):
        description = SubElement(found, "ParticipantObjectDescription")
        for uid, count in sorted(event["classes"].items()):
            SubElement(description, "SOPClass", UID=_plain(uid), NumberOfInstances=str(count))


def _object(
    root: Element, type_code: str, role: str, id_type: tuple[str, str], object_id: str, name: str = "",
    query: str | None = None, system: str = _DCM,
) -> Element:  # fmt: skip
    found = SubElement(
        root, "ParticipantObjectIdentification", ParticipantObjectID=_plain(object_id),
        ParticipantObjectTypeCode=type_code, ParticipantObjectTypeCodeRole=role,
    )  # fmt: skip
    _coded(found, "ParticipantObjectIDTypeCode", *id_type, system=system)
    if query is None:
        SubElement(found, "ParticipantObjectName").text = _plain(name)
    else:
        SubElement(found, "ParticipantObjectQuery").text = query
    return found


def _detail(parent: Element, name: str, value: Any) -> None:
    if value not in ("", None):
        encoded = base64.b64encode(str(value).encode("utf-8", "replace")).decode()
        SubElement(parent, "ParticipantObjectDetail", type=name, value=encoded)


def _coded(parent: Element, name: str, code: str, meaning: str, system: str = _DCM) -> None:
    SubElement(parent, name, {"csd-code": code, "codeSystemName": system, "originalText": meaning})


def _plain(text: Any) -> str:
    """A text without what XML 1.0 cannot hold."""
    return "".join(each if each.isprintable() or each == " " else "?" for each in str(text))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
