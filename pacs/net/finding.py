"""C-FIND as SCP for the patient and study roots (PS3.4 C.4.1, C.6)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from pydicom import config
from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag, repeater_has_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pynetdicom.dimse_primitives import C_FIND
from pynetdicom.dsutils import decode, encode
from pynetdicom.presentation import PresentationContext

from pacs.errors import CannotUnderstand, PacsError
from pacs.index import query
from pacs.index.database import Database, Row
from pacs.model import matching
from pacs.model.attributes import BY_KEYWORD, Level
from pacs.model.bounds import require_few_elements
from pacs.net.association import Association, Message
from pacs.net.negotiation import PATIENT_ROOTS
from pacs.net.upper_layer import ConnectionLost, ProtocolError

log = logging.getLogger(__name__)

SUCCESS, PENDING, CANCELLED = 0x0000, 0xFF00, 0xFE00
IDENTIFIER_DOES_NOT_MATCH = 0xA900  # PS3.4 Table C.4-1

_LEVELS = {"PATIENT": Level.PATIENT, "STUDY": Level.STUDY, "SERIES": Level.SERIES, "IMAGE": Level.IMAGE}


class IdentifierError(CannotUnderstand):
    """The query's identifier is not one of its information model. Check the querying device."""

    status = IDENTIFIER_DOES_NOT_MATCH


def read_identifier(message: Message) -> tuple[Dataset, Level]:
    """A query's or retrieve's identifier and its level. Raise IdentifierError if it has none that fits the model."""
    request, context = message.primitive, message.context
    syntax = context.transfer_syntax[0]
    try:
        require_few_elements(request.Identifier.getvalue(), str(syntax))
        identifier = decode(request.Identifier, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated)
        for keyword in (*BY_KEYWORD, "ModalitiesInStudy"):
            identifier.get(keyword)  # pydicom decodes a value when it is asked for: a bad one is found here
        name = str(identifier.get("QueryRetrieveLevel", "")).strip()
    except Exception as error:
        raise IdentifierError("The query's identifier cannot be read. Check the querying device.") from error
    if name not in _LEVELS:
        raise IdentifierError("The query has no level of PATIENT, STUDY, SERIES or IMAGE. Check the querying device.")
    level = _LEVELS[name]
    if level == Level.PATIENT and context.abstract_syntax not in PATIENT_ROOTS:
        raise IdentifierError("The study root has no PATIENT level. Check the querying device.")
    return identifier, level


def text_of(identifier: Dataset, keyword: str) -> str:
    """An identifier's value of a keyword as text, several values with backslashes between; empty if there is none."""
    element = identifier.get(keyword)
    if element is None:
        return ""
    if isinstance(element, (list, tuple)) or type(element).__name__ == "MultiValue":
        return "\\".join(str(value) for value in element)
    return str(element)


def find_service(database: Database, ae_title: str) -> Any:
    """The service that answers queries from the index."""

    def serve(assoc: Association, message: Message) -> None:
        context_id = int(message.context.context_id or 0)
        response = _response(message, SUCCESS)
        try:
            identifier, level = read_identifier(message)
            for answer in answers(database, identifier, level, ae_title):
                if assoc.is_cancelled(int(message.primitive.MessageID)):
                    response.Status = CANCELLED
                    break
                pending = _response(message, PENDING)
                pending.Identifier = BytesIO(encode_identifier(answer, message.context))
                assoc.send(pending, context_id)
        except (ConnectionLost, ProtocolError):
            raise
        except PacsError as error:
            log.warning("query refused with 0x%04X: %s", error.status, error)
            response.Status = error.status
            response.ErrorComment = str(error)[:64]  # type: ignore[assignment]
        assoc.send(response, context_id)

    return serve


def _response(message: Message, status: int) -> C_FIND:
    response = C_FIND()
    response.MessageIDBeingRespondedTo = message.primitive.MessageID
    response.AffectedSOPClassUID = message.primitive.AffectedSOPClassUID
    response.Status = status
    return response


def encode_identifier(ds: Dataset, context: PresentationContext) -> bytes:
    """An identifier in the context's transfer syntax."""
    syntax = context.transfer_syntax[0]
    encoded = encode(ds, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated)
    if encoded is None:
        raise CannotUnderstand("An answer could not be encoded. Send the log to the maintainers.")
    return encoded


def answers(database: Database, identifier: Dataset, level: Level, ae_title: str) -> Iterator[Dataset]:
    """The data sets that answer a query: each key that it asked for, and where the object can be had."""
    keys = _keys(identifier)
    matches = {}
    for keyword in (key.keyword for key in keys):
        attribute = BY_KEYWORD.get(keyword)
        match = matching.parse(attribute, text_of(identifier, keyword)) if attribute else None
        if match is not None:
            matches[keyword] = match
    modalities = matching.parse(BY_KEYWORD["Modality"], text_of(identifier, "ModalitiesInStudy"))
    for row in query.find(database, level, matches, [key.keyword for key in keys], modalities):
        yield _answer(row, keys, level, ae_title)


@dataclass(frozen=True)
class _Key:
    """An element that a query asks for; its keyword is empty if PS3.6 has none of that tag."""

    tag: BaseTag
    vr: str
    keyword: str


def _keys(identifier: Dataset) -> list[_Key]:
    """What is asked for: tags and VRs only, as pydicom cannot decode every VR without the rest of an object."""
    keys = []
    for tag in identifier.keys():  # noqa: SIM118 (iterating a data set decodes its values)
        if not tag.element or tag.is_private:
            continue
        vr = dictionary_VR(tag) if dictionary_has_tag(tag) or repeater_has_tag(tag) else "UN"
        keys.append(_Key(tag, vr[:2], keyword_for_tag(tag)))  # of "US or SS" the first
    return keys


def _answer(row: Row, keys: list[_Key], level: Level, ae_title: str) -> Dataset:
    ds = Dataset()
    for key in keys:
        value = row.get(key.keyword) if key.keyword else None
        if isinstance(value, str) and "\\" in value:
            value = value.split("\\")
        ds.add(DataElement(key.tag, key.vr, [] if key.vr == "SQ" else value, validation_mode=config.IGNORE))
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.QueryRetrieveLevel = level.name
    ds.RetrieveAETitle = ae_title
    ds.InstanceAvailability = "ONLINE"
    return ds
