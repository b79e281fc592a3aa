"""C-STORE as SCU: objects sent over an association, as they are stored wherever the peer takes that.

Used by C-GET over the requestor's own association and by C-MOVE over a new one.
"""

from __future__ import annotations

import time
from io import BytesIO

from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import PresentationContext

from pacs.archive.retrieve import Retrieve, Wanted, transcode
from pacs.errors import CannotUnderstand, TryAgainLater
from pacs.net.negotiation import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

#: What an object may be decoded to when its own transfer syntax is not taken, best first.
FALLBACK_SYNTAXES = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, "1.2.840.10008.1.2.2")


class PeerLost(TryAgainLater):
    """The association ended before all was sent. Ask again when the receiver is back."""


def choose_context(assoc: Association, wanted: Wanted) -> tuple[PresentationContext, bool]:
    """The accepted context to send an object in, and whether it takes the object as it is stored.

    Raise CannotUnderstand with the reason if the peer takes neither it nor anything it can be decoded to.
    """
    contexts = [
        context
        for context in assoc.accepted_contexts
        if context.abstract_syntax == wanted.sop_class_uid and context.as_scu
    ]
    if not contexts:
        raise CannotUnderstand("The receiver did not offer a presentation context for the object's SOP class.")
    by_syntax = {str(context.transfer_syntax[0]): context for context in contexts}
    if wanted.transfer_syntax_uid in by_syntax:
        return by_syntax[wanted.transfer_syntax_uid], True
    for syntax in FALLBACK_SYNTAXES:
        if syntax in by_syntax:
            return by_syntax[syntax], False
    raise CannotUnderstand("The receiver takes neither the object's transfer syntax nor an uncompressed one.")


def send(
    assoc: Association, retrieve: Retrieve, wanted: Wanted, message_id: int, originator: tuple[str, int] | None = None
) -> int:
    """Send one object and wait for the answer; return its DIMSE status.

    originator is the AE title and message id of the C-MOVE it is part of. Raise an error of the tree if it could not
    be sent, PeerLost if the association is over.
    """
    context, as_stored = choose_context(assoc, wanted)
    found = retrieve.locate(wanted)
    request = C_STORE()
    request.MessageID = message_id
    request.Priority = 2
    request.AffectedSOPClassUID = wanted.sop_class_uid
    request.AffectedSOPInstanceUID = wanted.sop_instance_uid
    if originator:
        request.MoveOriginatorApplicationEntityTitle, request.MoveOriginatorMessageID = originator
    if as_stored:
        request._dataset_path = (found.path, found.dataset_offset)  # streamed, never whole in memory
    else:
        request.DataSet = BytesIO(transcode(found, str(context.transfer_syntax[0])))
    return _exchange(assoc, request, int(context.context_id or 0))


def _exchange(assoc: Association, request: C_STORE, context_id: int) -> int:
    # The association's own thread must not take the answer from the queue. As acceptor we are on that thread and it
    # is paused; as requestor it is another one.
    assoc._reactor_checkpoint.clear()
    try:
        while not assoc._is_paused and assoc.is_established:
            time.sleep(0.0001)
        if not assoc.is_established or assoc.acse.is_aborted():
            raise PeerLost
        assoc.dimse.send_msg(request, context_id)
        _context_id, response = assoc.dimse.get_msg(block=True)
    finally:
        assoc._reactor_checkpoint.set()
    if not isinstance(response, C_STORE) or response.Status is None:
        raise PeerLost
    return int(response.Status)
