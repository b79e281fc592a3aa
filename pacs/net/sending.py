"""C-STORE as SCU: objects sent over an association, as they are stored wherever the peer takes that.

Used by C-GET over the requestor's own association and by C-MOVE over a new one.
"""

from __future__ import annotations

from pynetdicom.dimse_primitives import C_CANCEL, C_STORE
from pynetdicom.presentation import PresentationContext

from pacs.archive.retrieve import Retrieve, Wanted, transcode
from pacs.errors import CannotUnderstand
from pacs.model.dataset import EXPLICIT_VR_BIG_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from pacs.net.association import Association, Message, ReleaseRequested, StoreRequest
from pacs.net.upper_layer import ConnectionLost, ProtocolError

#: What an object may be decoded to when its own transfer syntax is not taken, best first.
FALLBACK_SYNTAXES = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN)


def choose_context(assoc: Association, wanted: Wanted) -> tuple[PresentationContext, bool]:
    """The accepted context to send an object in, and whether it takes the object as it is stored.

    Raise CannotUnderstand with the reason if the peer takes neither it nor anything it can be decoded to.
    """
    contexts = [
        context for context in assoc.contexts if context.abstract_syntax == wanted.sop_class_uid and context.as_scu
    ]
    if not contexts:
        raise CannotUnderstand("The receiver did not offer a presentation context for the object's SOP class.")
    by_syntax = {str(context.transfer_syntax[0]): context for context in reversed(contexts)}
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

    originator is the AE title and message id of the C-MOVE it is part of. Raise an error of the tree if the object
    could not be sent, ConnectionLost if the association is over.
    """
    context, as_stored = choose_context(assoc, wanted)
    found = retrieve.locate(wanted)
    request = StoreRequest(message_id, wanted.sop_class_uid, wanted.sop_instance_uid, context)
    if as_stored:  # streamed, never whole in memory
        assoc.send_store_request(request, found.dataset_size_bytes, found.read(), originator)
    else:
        content = transcode(found, str(context.transfer_syntax[0]))
        assoc.send_store_request(request, len(content), [content], originator)
    return _answer(assoc, message_id)


def _answer(assoc: Association, message_id: int) -> int:
    while True:
        try:
            message = assoc.receive()
        except ReleaseRequested:
            raise ConnectionLost("The receiver released the association before all was sent.") from None
        except ProtocolError as error:
            assoc.upper_layer.send_abort(*error.abort)
            raise ConnectionLost(str(error)) from error
        assert isinstance(message, Message)
        if isinstance(message.primitive, C_CANCEL):
            assoc.cancel(int(message.primitive.MessageIDBeingRespondedTo or 0))
            continue
        answered = message.primitive.MessageIDBeingRespondedTo
        if not isinstance(message.primitive, C_STORE) or answered != message_id or message.primitive.Status is None:
            raise ConnectionLost("The receiver answered something else than what it was sent.")
        return int(message.primitive.Status)
