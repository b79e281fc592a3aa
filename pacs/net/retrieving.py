"""C-GET and C-MOVE as SCP (PS3.4 C.4.2, C.4.3): sub-operations counted, failures named, cancel obeyed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom.presentation import PresentationContext, build_context

from pacs.archive.retrieve import Retrieve, Wanted
from pacs.errors import PacsError
from pacs.index.database import Database
from pacs.index.devices import Device, device_by_ae_title
from pacs.model.attributes import UNIQUE_KEY, Level
from pacs.net import sending
from pacs.net.association import Association, Message
from pacs.net.identifier import IdentifierError, encode_identifier, read_identifier, text_of
from pacs.net.negotiation import PATIENT_ROOTS
from pacs.net.requestor import AssociationRefused, associate, release
from pacs.net.upper_layer import ConnectionLost
from pacs.settings import Settings

log = logging.getLogger(__name__)

# PS3.4 Table C.4-2, Table C.4-3
SUCCESS, PENDING, CANCELLED, SOME_FAILED = 0x0000, 0xFF00, 0xFE00, 0xB000
UNABLE_TO_PERFORM, DESTINATION_UNKNOWN = 0xA702, 0xA801
_CONTEXTS_MAX = 128


@dataclass
class SubOperations:
    """The counts of a retrieve, and what failed."""

    remaining: int
    completed: int = 0
    failed: int = 0
    warning: int = 0
    failed_uids: list[str] = field(default_factory=list)

    def count(self, wanted: Wanted, status: int | None) -> None:
        """Count a sub-operation by its answer; None: it could not be sent."""
        self.remaining -= 1
        if status == SUCCESS:
            self.completed += 1
        elif status is not None and (status >> 12 == 0xB or status in (0x0001, 0x0107, 0x0116)):
            self.warning += 1
        else:
            self.failed += 1
            self.failed_uids.append(wanted.sop_instance_uid)

    def final_status(self) -> int:
        """The status of the last response."""
        if self.failed and not self.completed and not self.warning:
            return UNABLE_TO_PERFORM
        return SOME_FAILED if self.failed or self.warning else SUCCESS


class _Exchange:
    """The responses of one C-GET or C-MOVE."""

    def __init__(self, assoc: Association, message: Message) -> None:
        self.assoc, self.request, self.context = assoc, message.primitive, message.context

    def is_cancelled(self) -> bool:
        return self.assoc.is_cancelled(int(self.request.MessageID))

    def respond(self, status: int, counts: SubOperations | None = None, comment: str | None = None) -> None:
        """Send a response. The remaining count stands in pending and cancelled ones only (PS3.7 9.1.3.1.6)."""
        response = type(self.request)()
        response.MessageIDBeingRespondedTo = self.request.MessageID
        response.AffectedSOPClassUID = self.request.AffectedSOPClassUID
        response.Status = status
        if comment:
            response.ErrorComment = comment[:64]
        if counts is not None:
            if status in (PENDING, CANCELLED):
                response.NumberOfRemainingSuboperations = counts.remaining
            response.NumberOfCompletedSuboperations = counts.completed
            response.NumberOfFailedSuboperations = counts.failed
            response.NumberOfWarningSuboperations = counts.warning
            if status not in (PENDING, SUCCESS):
                failed = Dataset()
                failed.FailedSOPInstanceUIDList = counts.failed_uids
                response.Identifier = BytesIO(encode_identifier(failed, self.context))
        self.assoc.send(response, int(self.context.context_id or 0))


def get_service(retrieve: Retrieve) -> Any:
    """The service that sends objects back over the association that asked."""

    def serve(assoc: Association, message: Message) -> None:
        exchange = _Exchange(assoc, message)
        try:
            objects = wanted_objects(retrieve, message)
        except PacsError as error:
            log.warning("C-GET refused with 0x%04X: %s", error.status, error)
            exchange.respond(error.status, comment=str(error))
            return
        _send_all(exchange, objects, lambda wanted, number: sending.send(assoc, retrieve, wanted, number))

    return serve


def move_service(retrieve: Retrieve, database: Database, settings: Settings) -> Any:
    """The service that sends objects to a known device, over an association of its own."""

    def serve(assoc: Association, message: Message) -> None:
        exchange = _Exchange(assoc, message)
        title = str(message.primitive.MoveDestination or "").strip()
        try:
            destination = device_by_ae_title(database, title)
            if destination is None:
                log.warning(
                    "C-MOVE refused: its destination %r is not a known device. Add it: `pacs device add`.", title
                )
                exchange.respond(DESTINATION_UNKNOWN, comment="The move destination is not a known device.")
                return
            objects = wanted_objects(retrieve, message)
        except PacsError as error:
            log.warning("C-MOVE refused with 0x%04X: %s", error.status, error)
            exchange.respond(error.status, comment=str(error))
            return
        _move(exchange, retrieve, settings, destination, objects)

    return serve


def wanted_objects(retrieve: Retrieve, message: Message) -> list[Wanted]:
    """What a retrieve's identifier asks for. Raise IdentifierError if it lacks its level's unique key (C.4.2.2.1)."""
    identifier, level = read_identifier(message)
    uids: dict[str, list[str]] = {}
    for at in Level:
        if at == Level.PATIENT and (message.context.abstract_syntax not in PATIENT_ROOTS or level != Level.PATIENT):
            continue  # below the patient level its id adds nothing that the study's UID does not say
        keyword = UNIQUE_KEY[at].keyword
        values = [value.strip() for value in text_of(identifier, keyword).split("\\") if value.strip()]
        if at <= level and values:
            uids[keyword] = values
    if UNIQUE_KEY[level].keyword not in uids:
        raise IdentifierError(f"A retrieve at level {level.name} needs {UNIQUE_KEY[level].keyword}.")
    return retrieve.wanted(uids)


def _move(
    exchange: _Exchange, retrieve: Retrieve, settings: Settings, destination: Device, objects: list[Wanted]
) -> None:
    if not objects:
        exchange.respond(SUCCESS, SubOperations(0))
        return
    try:
        store_assoc = associate(settings, destination, contexts_for(objects))
    except AssociationRefused as error:
        log.warning("C-MOVE failed: %s", error)
        counts = SubOperations(0, failed=len(objects), failed_uids=[wanted.sop_instance_uid for wanted in objects])
        exchange.respond(UNABLE_TO_PERFORM, counts, "The move destination does not accept an association.")
        return
    originator = (exchange.assoc.calling_ae, int(exchange.request.MessageID or 0))
    try:
        _send_all(
            exchange,
            objects,
            lambda wanted, number: sending.send(store_assoc, retrieve, wanted, number, originator),
        )
    finally:
        release(store_assoc)


def contexts_for(objects: list[Wanted]) -> list[PresentationContext]:
    """What to propose to a move's destination: each class as it is stored, and each with what it can be decoded to.

    At most 128 (PS3.8 9.3.2.2): where there are more, the rarest stay without a context and fail with their reason.
    """
    pairs: dict[tuple[str, str], int] = {}
    for wanted in objects:
        pair = (wanted.sop_class_uid, wanted.transfer_syntax_uid)
        pairs[pair] = pairs.get(pair, 0) + 1
    contexts = [build_context(sop_class, [syntax]) for sop_class, syntax in sorted(pairs, key=lambda p: -pairs[p])]
    classes = dict.fromkeys(wanted.sop_class_uid for wanted in objects)
    contexts += [build_context(sop_class, list(sending.FALLBACK_SYNTAXES[:2])) for sop_class in classes]
    return contexts[:_CONTEXTS_MAX]


def _send_all(exchange: _Exchange, objects: list[Wanted], send: Callable[[Wanted, int], int]) -> None:
    counts = SubOperations(len(objects))
    for number, wanted in enumerate(objects, start=1):
        if exchange.is_cancelled():
            exchange.respond(CANCELLED, counts)
            return
        try:
            status: int | None = send(wanted, number % 65535 + 1)
        except ConnectionLost as error:
            log.warning("retrieve stopped after %d of %d objects: %s", number - 1, len(objects), error)
            lost = objects[number - 1 :]
            counts.remaining, counts.failed = 0, counts.failed + len(lost)
            counts.failed_uids += [unsent.sop_instance_uid for unsent in lost]
            break
        except PacsError as error:
            log.warning("an object was not sent: %s", error, extra={"sop_class": wanted.sop_class_uid})
            status = None
        counts.count(wanted, status)
        if counts.remaining:
            exchange.respond(PENDING, counts)
    exchange.respond(counts.final_status(), counts)
