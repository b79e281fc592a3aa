"""Every event of the audit log as a message of PS3.15 A.5."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from pacs.model.audit import ALERTS, KINDS, Event, event, identity_of, of_journal, peer, query_of, words_of
from pacs.model.audit_message import Source, is_message, message_of
from tests.audit_schema import valid

SOURCE = Source("pacs1", "PACS", "0f5c")
CALLER = peer("CT1", "192.0.2.7", "anna", "ab" * 32)


def message(found: Event) -> Any:
    return valid(message_of({"n": 7, "c": "0" * 16, "at": "2026-11-22T10:00:00.000001+00:00", **found}, SOURCE))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by", [CALLER, {"login": "anna", "as": "pacs", "tty": "pts/1"}, {"unit": "pacs.service"}, {}])
def test_each_fits_the_schema_and_says_what_it_is(kind: str, by: dict[str, str]) -> None:
    values = {"study": "1.2.3", "patient": "P1\x07ü<&>", "classes": {"1.2.840.10008.5.1.4.1.1.2": 3}, "text": "a\nb"}
    found = message(event(kind, by, **values))
    identification = found.find("EventIdentification")
    assert identification.find("EventID").get("csd-code") == KINDS[kind].code
    assert identification.get("EventActionCode") == KINDS[kind].action
    assert len(found.findall("ActiveParticipant[@UserIsRequestor='true']")) <= 1
    assert words_of(event(kind, by, **values)).startswith(kind)


def test_a_transfer_names_both_ends_the_study_and_the_patient() -> None:
    found = message(
        event("received", CALLER, 4, to={"ae": "PACS"}, study="1.2.3", patient="P1", issuer="H", classes={"1.2": 3})
    )
    assert found.find("EventIdentification").get("EventOutcomeIndicator") == "4"
    ends = {each.find("RoleIDCode").get("csd-code"): each for each in found.findall("ActiveParticipant")}
    source, destination = ends["110153"], ends["110152"]
    assert (source.get("UserID"), source.get("AlternativeUserID")) == ("anna", "AETITLE=CT1")
    assert (source.get("NetworkAccessPointID"), source.get("NetworkAccessPointTypeCode")) == ("192.0.2.7", "2")
    assert (source.get("UserIsRequestor"), destination.get("UserID")) == ("true", "PACS")
    objects = {each.find("ParticipantObjectIDTypeCode").get("csd-code"): each for each in found.iter(
        "ParticipantObjectIdentification"
    )}  # fmt: skip
    assert objects["2"].get("ParticipantObjectID") == "P1^^^H"
    assert objects["110180"].get("ParticipantObjectID") == "1.2.3"
    assert dict(objects["110180"].find("ParticipantObjectDescription/SOPClass").attrib) == {
        "UID": "1.2", "NumberOfInstances": "3",
    }  # fmt: skip


def test_a_move_has_a_requestor_of_its_own() -> None:
    to = peer("WS", "ws.example")
    found = message(event("sent", CALLER, to=to, **{"from": {"ae": "PACS"}}, study="1.2", failed=1))
    assert [
        (each.get("AlternativeUserID"), each.get("UserIsRequestor")) for each in found.findall("ActiveParticipant")
    ] == [("AETITLE=PACS", "false"), ("AETITLE=WS", "false"), ("AETITLE=CT1", "true")]


def test_a_query_holds_its_identifier() -> None:
    found = message(event("query", CALLER, level="STUDY", **{"class": "1.2.3"}, **query_of(b"\x08\x00", "1.2")))
    query = found.findtext("ParticipantObjectIdentification/ParticipantObjectQuery")
    assert query == base64.b64encode(b"\x08\0").decode()
    assert "query" not in query_of(b"x" * 9000, "1.2"), "a digest has to do"


@pytest.mark.parametrize("kind", ALERTS)
def test_alerts_say_their_kind(kind: str) -> None:
    found = message(event("alert", CALLER, 4, kind=kind, text="it was refused"))
    assert found.find("EventIdentification/EventTypeCode").get("csd-code") == ALERTS[kind][0]
    assert found.findtext("EventIdentification/EventOutcomeDescription") == "it was refused"


def test_seals_and_headers_are_no_messages() -> None:
    assert not is_message({"e": "seal"}) and not is_message({"e": "segment"}) and is_message({"e": "query"})


def test_what_the_journal_says_is_an_event() -> None:
    by = {"login": "anna"}
    assert of_journal("device add", {"name": "ct", "tls": False, "aliases": []}, by) == {
        "e": "alert", "by": by, "kind": "network", "text": "device add: name ct, tls False",
    }  # fmt: skip
    pinned = of_journal("study pin", {"study_instance_uid": "1.2", "reason": "x"}, by)
    assert (pinned["e"], pinned["study"]) == ("changed", "1.2")
    assert identity_of("a", "b") == identity_of("a", "b") != identity_of("ab")
