"""C-FIND as SCP for the patient and study roots (PS3.4 C.4.1, C.6)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom.dimse_primitives import C_FIND

from pacs.errors import PacsError
from pacs.index import computed, query, timezone_adjustment
from pacs.index.database import Database, Row
from pacs.index.query import Question
from pacs.model import matching, text, timezone
from pacs.model.attributes import BY_KEYWORD, SEQUENCE_BY_KEYWORD, Level, Sequence
from pacs.model.matching import Item, Match
from pacs.net.association import Association, Message
from pacs.net.identifier import Answer, Key, character_set_of, encode_answer, keys_of, read_identifier
from pacs.net.upper_layer import ConnectionLost, ProtocolError

log = logging.getLogger(__name__)

#: PS3.4 Table C.4-1. The second pending status says that a key was asked for which the index does not have.
SUCCESS, PENDING, PENDING_WITHOUT_A_KEY, CANCELLED = 0x0000, 0xFF00, 0xFF01, 0xFE00

_QUERY_RETRIEVE_LEVEL, _RETRIEVE_AE_TITLE = 0x00080052, 0x00080054
#: Keys of an answer that are not the index's.
_OF_THE_ANSWER = frozenset(["QueryRetrieveLevel", "RetrieveAETitle"])


@dataclass(frozen=True)
class Extended:
    """What was agreed on in the association's SOP Class Extended Negotiation (PS3.4 C.5.1.1). Relational queries and
    matching of empty and several values are served in any case."""

    date_time: bool = False
    fuzzy: bool = False
    timezone: bool = False

    @classmethod
    def of(cls, information: bytes) -> Extended:
        """From the answered service-class-application-information."""
        agreed = [byte == 1 for byte in information[1:4].ljust(3, b"\0")]
        return cls(*agreed)


@dataclass(frozen=True)
class Asked:
    """A query as it was asked: its keys, what must match, and how its answers are to be written."""

    level: Level
    keys: list[Key]
    matches: dict[str, Match]
    terms: list[str]
    offset_minutes: int | None = None
    offset: str = ""

    @property
    def pending_status(self) -> int:
        """The status of its answers."""
        known = all(_is_known(key.keyword, self.level) for key in self.keys)
        return PENDING if known else PENDING_WITHOUT_A_KEY


def read_query(identifier: Dataset, level: Level, extended: Extended, default_character_set: str = "") -> Asked:
    """What an identifier asks for. Raise IdentifierError if it cannot be read.

    default_character_set is the Specific Character Set of an identifier that says none.
    """
    character_set = character_set_of(identifier) or default_character_set.encode()
    keys = keys_of(identifier, text.encodings_of(character_set))
    return asked_of(level, keys, extended, text.terms_of(character_set))


def asked_of(level: Level, keys: list[Key], extended: Extended, terms: list[str]) -> Asked:
    """What some keys ask for. Raise CannotUnderstand for more than is taken."""
    matches: dict[str, Match] = {}
    for key in keys:
        match = _match(key, extended.fuzzy)
        if match is not None:
            matches[key.keyword] = match
    offset = matches.pop("TimezoneOffsetFromUTC", None) if extended.timezone else None
    offset_text = offset.value if isinstance(offset, matching.Single) else ""
    if extended.date_time:
        matches = matching.combine(matches)
    return Asked(level, keys, matches, terms, timezone.offset_minutes(offset_text), offset_text)


def _match(key: Key, fuzzy: bool) -> Match | None:
    sequence = SEQUENCE_BY_KEYWORD.get(key.keyword)
    if sequence is not None:
        found = [
            (each.keyword, match)
            for each in key.keys
            if (attribute := sequence.by_keyword(each.keyword)) is not None
            and (match := matching.parse(attribute, each.value)) is not None
        ]
        return Item(tuple(found)) if found else None
    attribute = BY_KEYWORD.get(key.keyword) or computed.MATCHED_AS.get(key.keyword)
    return matching.parse(attribute, key.value, fuzzy) if attribute is not None else None


def _is_known(keyword: str, level: Level) -> bool:
    if keyword in BY_KEYWORD:
        return BY_KEYWORD[keyword].level <= level
    if keyword in SEQUENCE_BY_KEYWORD:
        return SEQUENCE_BY_KEYWORD[keyword].level <= level
    return keyword in _OF_THE_ANSWER or computed.expression(keyword, level) is not None


def find_service(database: Database, ae_title: str) -> Any:
    """The service that answers queries from the index."""

    def serve(assoc: Association, message: Message) -> None:
        request, context = message.primitive, message.context
        response = C_FIND()
        response.MessageIDBeingRespondedTo = request.MessageID
        response.AffectedSOPClassUID = request.AffectedSOPClassUID
        response.Status = SUCCESS

        def is_cancelled() -> bool:
            if assoc.is_cancelled(int(request.MessageID)):
                response.Status = CANCELLED
            return bool(response.Status == CANCELLED)

        try:
            identifier, level = read_identifier(message)
            if assoc.trail is not None:
                assoc.trail.queried(message.primitive, str(context.transfer_syntax[0]), level.name)
            extended = Extended.of(assoc.extended.get(str(context.abstract_syntax), b""))
            asked = read_query(identifier, level, extended, assoc.device.default_character_set if assoc.device else "")
            status = asked.pending_status
            for elements in answers(database, asked, ae_title, is_cancelled):
                if is_cancelled():
                    break
                assoc.send_find_response(request, context, status, encode_answer(elements, asked.terms, context))
        except (ConnectionLost, ProtocolError):
            raise
        except PacsError as error:
            log.warning("query refused with 0x%04X: %s", error.status, error)
            response.Status = error.status
            response.ErrorComment = str(error)[:64]  # type: ignore[assignment]
        assoc.send(response, int(context.context_id or 0))

    return serve


def answers(
    database: Database, asked: Asked, ae_title: str, is_cancelled: Callable[[], bool]
) -> Iterator[list[Answer]]:
    """The answers to a query: each key that it asked for, and where the objects can be had."""
    wanted = [key.keyword for key in asked.keys if key.keyword not in _OF_THE_ANSWER]
    if "TimezoneOffsetFromUTC" in wanted:
        wanted.append("StudyDate")
    question = Question(asked.level, asked.matches, tuple(dict.fromkeys(wanted)))
    if asked.offset_minutes is None:
        rows = query.find(database, question, is_cancelled)
    else:
        rows = timezone_adjustment.find(database, question, asked.offset_minutes, is_cancelled)
    for row in rows:
        yield _answer(row, asked, ae_title)


def _answer(row: Row, asked: Asked, ae_title: str) -> list[Answer]:
    elements = [
        Answer(_QUERY_RETRIEVE_LEVEL, "CS", asked.level.name),
        Answer(_RETRIEVE_AE_TITLE, "AE", ae_title),
    ]
    for key in asked.keys:
        if key.keyword in _OF_THE_ANSWER:
            continue
        if key.keyword == "TimezoneOffsetFromUTC":
            elements.append(Answer(key.tag, key.vr, _offset(row, asked)))
        elif key.vr == "SQ":
            elements.append(Answer(key.tag, key.vr, items=_items(row.get(key.keyword), key)))
        else:
            value = row.get(key.keyword) if key.keyword else None
            elements.append(Answer(key.tag, key.vr, "" if value is None else str(value)))
    return elements


def _offset(row: Row, asked: Asked) -> str:
    """The offset that the answer's times are at: the asker's if that was agreed on, else the study's own or ours."""
    if asked.offset_minutes is not None:
        return asked.offset
    return row.get("TimezoneOffsetFromUTC") or timezone.local_offset(row.get("StudyDate") or "")


def _items(stored: list[dict[str, str]] | None, key: Key) -> tuple[tuple[Answer, ...], ...]:
    """A sequence's items with the keys that were asked for; with all that there are if none was."""
    sequence = SEQUENCE_BY_KEYWORD.get(key.keyword)
    if sequence is None or not stored:
        return ()
    asked = [(each.tag, each.vr, each.keyword) for each in key.keys] or _all_keys(sequence)
    return tuple(tuple(Answer(tag, vr, item.get(keyword, "")) for tag, vr, keyword in sorted(asked)) for item in stored)


def _all_keys(sequence: Sequence) -> list[tuple[int, str, str]]:
    return [(attribute.tag, attribute.vr, attribute.keyword) for attribute in sequence.attributes]
