"""The PDUs that ask for an association and answer it, as an acceptor reads and writes them (PS3.8 9.3)."""

from __future__ import annotations

from typing import Any

from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ
from pynetdicom.pdu_items import UserIdentitySubItemRQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, AsynchronousOperationsWindowNegotiation

from pacs.net.identity import IdentityType
from pacs.net.negotiation import APPLICATION_CONTEXT
from pacs.net.upper_layer import ProtocolError


def decode_request(content: bytes) -> A_ASSOCIATE:
    """An A-ASSOCIATE-RQ from what follows its header. Raise ProtocolError."""
    pdu = A_ASSOCIATE_RQ()
    try:
        pdu.decode(b"\x01\x00" + len(content).to_bytes(4, "big") + content)
        # An acceptor may ignore a user identity (PS3.7 D.3.3.7); of a kind that is not defined yet, pynetdicom cannot.
        items = pdu.user_information.user_data if pdu.user_information else []
        items[:] = [item for item in items if not _is_unknown_identity(item)]
        request = pdu.to_primitive()
        if not request.presentation_context_definition_list:
            raise ValueError("no presentation context")
    except Exception as error:  # pynetdicom raises what it likes for bytes that are none
        raise ProtocolError(f"An association request cannot be read ({type(error).__name__}).") from error
    return request


def _is_unknown_identity(item: Any) -> bool:
    return isinstance(item, UserIdentitySubItemRQ) and item.user_identity_type not in set(IdentityType)


def encode_acceptance(request: A_ASSOCIATE, results: list[Any], items: list[Any]) -> bytes:
    """An A-ASSOCIATE-AC with the contexts' results and user information items; operations one at a time if asked."""
    if any(isinstance(item, AsynchronousOperationsWindowNegotiation) for item in request.user_information):
        window = AsynchronousOperationsWindowNegotiation()  # one at a time, PS3.7 D.3.3.3
        window.maximum_number_operations_invoked = window.maximum_number_operations_performed = 1
        items.append(window)
    answer = A_ASSOCIATE()
    answer.application_context_name = APPLICATION_CONTEXT
    answer.calling_ae_title, answer.called_ae_title = request.calling_ae_title, request.called_ae_title
    answer.result, answer.result_source = 0, 1
    answer.presentation_context_definition_results_list = results
    answer.user_information = items
    pdu = A_ASSOCIATE_AC()
    pdu.from_primitive(answer)
    return pdu.encode()


def encode_rejection(rejection: tuple[int, int, int]) -> bytes:
    """An A-ASSOCIATE-RJ of (result, source, reason)."""
    answer = A_ASSOCIATE()
    answer.result, answer.result_source, answer.diagnostic = rejection
    pdu = A_ASSOCIATE_RJ()
    pdu.from_primitive(answer)
    return pdu.encode()
