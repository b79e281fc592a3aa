"""Storage Commitment, push model, as SCP (PS3.4 J.3): the request and the report, as messages.

The request's answer says only that it was written down; what was found comes as a report, see reporting.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from io import BytesIO

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pynetdicom.dimse_primitives import N_ACTION, N_EVENT_REPORT
from pynetdicom.dsutils import decode, encode
from pynetdicom.presentation import PresentationContext

from pacs.archive.commit import COMMITTED
from pacs.errors import CannotUnderstand, PacsError, TryAgainLater
from pacs.index.commitments import Reference
from pacs.model.bounds import require_few_elements
from pacs.model.uids import is_uid
from pacs.net.association import Association, Message
from pacs.net.negotiation import STORAGE_COMMITMENT

log = logging.getLogger(__name__)

#: The one instance there is, PS3.4 J.3.5.
STORAGE_COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
REQUEST_STORAGE_COMMITMENT = 1  # action type, PS3.4 J.3.2
COMMITTED_ALL, COMMITTED_NOT_ALL = 1, 2  # event types, PS3.4 J.3.3

SUCCESS = 0x0000
# Statuses of N-ACTION, PS3.7 10.1.4.1.10.
NO_SUCH_INSTANCE, INVALID_ARGUMENT, NO_SUCH_ACTION, RESOURCE_LIMITATION = 0x0112, 0x0115, 0x0123, 0x0213

#: Of a request: an object's reference is an item and two elements.
_ELEMENTS_MAX = 3 * 65536

#: Writes a request down durably, and sees to its report: (association, context, transaction UID, references).
Accept = Callable[[Association, PresentationContext, str, list[Reference]], None]


class InvalidRequest(CannotUnderstand):
    """A commitment's request is not one. Ask the device's maker."""

    status = INVALID_ARGUMENT


def commitment_service(accept: Accept) -> Callable[[Association, Message], None]:
    """The service that takes requests for storage commitment."""

    def serve(assoc: Association, message: Message) -> None:
        response = N_ACTION()
        response.MessageIDBeingRespondedTo = message.primitive.MessageID
        response.AffectedSOPClassUID = STORAGE_COMMITMENT
        response.AffectedSOPInstanceUID = STORAGE_COMMITMENT_INSTANCE
        response.ActionTypeID = message.primitive.ActionTypeID
        response.Status = _accept(assoc, message, accept)
        assoc.send(response, int(message.context.context_id or 0))

    return serve


def _accept(assoc: Association, message: Message, accept: Accept) -> int:
    request = message.primitive
    if request.ActionTypeID != REQUEST_STORAGE_COMMITMENT:
        return NO_SUCH_ACTION
    if request.RequestedSOPInstanceUID != STORAGE_COMMITMENT_INSTANCE:
        return NO_SUCH_INSTANCE
    try:
        accept(assoc, message.context, *read_request(message))
    except PacsError as error:
        status = RESOURCE_LIMITATION if isinstance(error, TryAgainLater) else error.status
        log.warning("storage commitment refused with 0x%04X: %s", status, error, extra={"calling_ae": assoc.calling_ae})
        return status
    return SUCCESS


def read_request(message: Message) -> tuple[str, list[Reference]]:
    """The transaction UID and the references of a request. Raise InvalidRequest."""
    syntax = message.context.transfer_syntax[0]
    try:
        require_few_elements(message.primitive.ActionInformation.getvalue(), str(syntax), _ELEMENTS_MAX)
        found = decode(
            message.primitive.ActionInformation, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated
        )
        transaction_uid = str(found.TransactionUID)
        referenced = [
            (str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
            for item in found.ReferencedSOPSequence
        ]
    except Exception as error:  # pydicom raises what it likes for bytes that are none
        raise InvalidRequest("A commitment's request cannot be read. Ask the device's maker.") from error
    if not referenced or not all(map(is_uid, (transaction_uid, *(uid for pair in referenced for uid in pair)))):
        raise InvalidRequest("A commitment's request names no objects, or by what is no UID. Ask the device's maker.")
    return transaction_uid, referenced


def make_report(
    transaction_uid: str, referenced: Sequence[Reference], reasons: Sequence[int], own_ae: str, syntax: object
) -> N_EVENT_REPORT:
    """The report of a request (PS3.4 Table J.3-2), encoded in a context's transfer syntax; without its message id."""
    information = Dataset()
    information.RetrieveAETitle = own_ae
    information.TransactionUID = transaction_uid
    committed, failed = [], []
    for (sop_class, instance), reason in zip(referenced, reasons, strict=True):
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, instance
        if reason == COMMITTED:
            committed.append(item)
        else:
            item.FailureReason = reason
            failed.append(item)
    if committed:
        information.ReferencedSOPSequence = Items(committed)
    if failed:
        information.FailedSOPSequence = Items(failed)
    report = N_EVENT_REPORT()
    report.AffectedSOPClassUID = STORAGE_COMMITMENT
    report.AffectedSOPInstanceUID = STORAGE_COMMITMENT_INSTANCE
    report.EventTypeID = COMMITTED_NOT_ALL if failed else COMMITTED_ALL
    encoded = encode(information, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated)  # type: ignore[attr-defined]
    assert encoded is not None
    report.EventInformation = BytesIO(encoded)
    return report
