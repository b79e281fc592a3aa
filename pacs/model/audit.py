"""What the audit log says: the events of DICOM PS3.15 A.5 that happen here, as compact values.

An event is a dict that becomes one line of JSON (pacs/storage/audit.py) and, when it is exported, one XML message
(pacs/model/audit_message.py). Keys are short and those that say nothing are left out:

    e        the event: a key of KINDS
    o        its outcome, if it is no success: 4 minor, 8 serious, 12 major failure (PS3.15 Table A.5.2-1)
    id       of what can be made again from elsewhere, so that it stands here once
    by       who: {"ae", "peer", "user", "cert"} over DICOM, {"login", "as", "tty"} on the command line, {"unit"}
    to, from the other end of a transfer, the same way
    study    Study Instance UID; `patient` its patient's ID, `issuer` who gave that
    classes  {SOP class: objects}; `again` how many of them were here already, `failed` how many did not go
    begun    when what the event tells of began, if it lasted
    level, query, syntax   a query's level, its identifier in base64, and the transfer syntax that this is in
    kind, text             of an alert or a change: what kind, and what, in words
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Event = dict[str, Any]

SUCCESS, MINOR, SERIOUS, MAJOR = 0, 4, 8, 12
#: The longest identifier that is kept whole [bytes]; of a longer one its digest.
QUERY_SIZE_BYTES_MAX = 8192
_TEXT_MAX = 500


@dataclass(frozen=True)
class Kind:
    """An event of PS3.15 A.5.3: its code and meaning (DCM, CID 400), its action, and its type (CID 401) if it has one
    of its own."""

    code: str
    meaning: str
    action: str
    type_code: str = ""
    type_meaning: str = ""


KINDS: dict[str, Kind] = {
    "started": Kind("110100", "Application Activity", "E", "110120", "Application Start"),
    "stopped": Kind("110100", "Application Activity", "E", "110121", "Application Stop"),
    "log used": Kind("110101", "Audit Log Used", "R"),
    "log expired": Kind("110101", "Audit Log Used", "D"),
    "sending": Kind("110102", "Begin Transferring DICOM Instances", "E"),
    "accessed": Kind("110103", "DICOM Instances Accessed", "R"),
    "changed": Kind("110103", "DICOM Instances Accessed", "U"),
    "received": Kind("110104", "DICOM Instances Transferred", "C"),
    "sent": Kind("110104", "DICOM Instances Transferred", "R"),
    "deleted": Kind("110105", "DICOM Study Deleted", "D"),
    "exported": Kind("110106", "Export", "R"),
    "imported": Kind("110107", "Import", "C"),
    "attached": Kind("110108", "Network Entry", "E", "110124", "Attach"),
    "detached": Kind("110108", "Network Entry", "E", "110125", "Detach"),
    "query": Kind("110112", "Query", "E"),
    "alert": Kind("110113", "Security Alert", "E"),
    "login": Kind("110114", "User Authentication", "E", "110122", "Login"),
}

#: Kinds of an alert (CID 403), by the word that stands in a line.
ALERTS: dict[str, tuple[str, str]] = {
    "node": ("110126", "Node Authentication"),
    "network": ("110128", "Network Configuration"),
    "security": ("110129", "Security Configuration"),
    "hardware": ("110130", "Hardware Configuration"),
    "software": ("110131", "Software Configuration"),
    "restricted": ("110132", "Use of Restricted Function"),
    "recording": ("110133", "Audit Recording Stopped"),
}

#: The journal's events (docs/reference/journal.md): what each is to the audit log, by its first word.
_OF_JOURNAL = {"device": "network", "refusal": "security", "volume": "hardware", "restore": "software",
               "token": "security"}  # fmt: skip


def event(kind: str, by: Mapping[str, str], outcome: int = SUCCESS, /, **values: Any) -> Event:
    """An event, without what says nothing."""
    if kind not in KINDS:
        raise ValueError(kind)
    found = {"e": kind, "o": outcome, "by": {key: value for key, value in by.items() if value}, **values}
    if isinstance(found.get("text"), str):
        found["text"] = found["text"][:_TEXT_MAX]
    return {key: value for key, value in found.items() if value}


def peer(ae: str, address: str, user: str = "", certificate_sha256: str = "") -> dict[str, str]:
    """Somebody at the other end of a DICOM association."""
    found = {"ae": ae, "peer": address, "user": user, "cert": certificate_sha256}
    return {key: value for key, value in found.items() if value}


def identity_of(*parts: str) -> str:
    """The id of an event that can be made again: of what makes it this one and no other."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def query_of(identifier: bytes, syntax: str) -> dict[str, str]:
    """A query's identifier as an event has it."""
    if len(identifier) > QUERY_SIZE_BYTES_MAX:
        digest = hashlib.sha256(identifier).hexdigest()
        return {"text": f"an identifier of {len(identifier)} bytes, SHA-256 {digest}"}
    return {"query": base64.b64encode(identifier).decode(), "syntax": syntax}


def of_journal(what: str, details: Mapping[str, Any], by: Mapping[str, str]) -> Event:
    """The event that a line of the journal is. Of a study it names the study and no patient, whom it does not know."""
    study = details.get("study_instance_uid")
    said = ", ".join(f"{key} {_brief(value)}" for key, value in sorted(details.items()) if value not in (None, "", []))
    if isinstance(study, str) or what == "conflict resolve":
        return event("changed", by, study=study, text=what if what == "study unpin" else f"{what}: {said}")
    kind = _OF_JOURNAL.get(what.partition(" ")[0], "restricted")
    return event("alert", by, kind=kind, text=f"{what}: {said}")


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def words_of(found: Event) -> str:
    """An event in a line for a person, without its time."""
    kind = KINDS.get(found.get("e", ""))
    name = f"{found.get('e', '?'):11}"
    parts = [who(found.get("by", {}))]
    if "to" in found:
        parts.append(f"to {who(found['to'])}")
    if "from" in found:
        parts.append(f"from {who(found['from'])}")
    if found.get("classes"):
        parts.append(f"{sum(found['classes'].values())} objects")
    parts += [f"{found[key]} {word}" for key, word in (("again", "were here"), ("failed", "failed")) if found.get(key)]
    if "study" in found:
        parts.append(f"study {found['study']}")
    if "patient" in found:
        parts.append(f"patient {found['patient']}")
    parts += [str(found[key]) for key in ("level", "kind", "text") if key in found]
    if found.get("o"):
        parts.append(f"FAILED ({found['o']})")
    return f"{name} {', '.join(parts)}" if kind else f"{name} {found.get('text', '')}".rstrip()


def who(by: Mapping[str, str]) -> str:
    """Who did something, for a person."""
    if "ae" not in by and "peer" in by and by.get("user"):  # over the web
        return f"{by['user']}@{by['peer']}"
    if "ae" in by or "peer" in by:
        user = f" (user {by['user']})" if by.get("user") else ""
        return f"{by.get('ae', '?')}@{by.get('peer', '?')}{user}"
    return by.get("login") or by.get("unit") or by.get("as") or "?"
