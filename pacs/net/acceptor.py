"""Accepting associations: listening sockets, a thread an association, negotiation, and the loop that serves requests.

An association's thread reads, serves and answers; a peer that stalls stalls its own thread only, until its timeout.
"""

from __future__ import annotations

import logging
import select
import socket
import threading
from collections.abc import Callable
from typing import Any

from pynetdicom.dimse_primitives import C_CANCEL
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    AsynchronousOperationsWindowNegotiation,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import negotiate_as_acceptor

from pacs import clock
from pacs.index.refusals import Refusal, RefusalKind
from pacs.model.addresses import normalised
from pacs.net.association import Association, Message, ReleaseRequested
from pacs.net.negotiation import (
    APPLICATION_CONTEXT,
    REJECTED_TOO_MANY,
    Admission,
    Caller,
    Negotiation,
    own_pdu_size,
    own_user_information,
    smaller_pdu,
)
from pacs.net.storing import Storing
from pacs.net.upper_layer import ABORT_BY_USER, ABORT_UNEXPECTED_PDU, ConnectionLost, PduType, ProtocolError, UpperLayer
from pacs.settings import Settings

log = logging.getLogger(__name__)

#: How long a connection may take to ask for an association [s] (the ARTIM timer, PS3.8 9.1.5).
ARTIM_S = 30.0
#: How long a peer may take to close the connection of an association that is over [s].
CLOSE_PATIENCE_S = 2.0
#: Connections that may be open beside the associations: those that have not asked yet, or are being closed.
CONNECTIONS_BESIDE_MAX = 64

#: Serves a request other than C-STORE: (association, message).
Service = Callable[[Association, Message], None]


class Acceptor:
    """Serves associations on listening sockets."""

    def __init__(
        self,
        settings: Settings,
        negotiation: Negotiation,
        services: dict[str, Service],
        storing: Callable[[Association], Storing],
        on_opened: Callable[[Association], None],
        on_closed: Callable[[Association], None],
    ) -> None:
        self.settings = settings
        self.negotiation = negotiation
        self.services = services
        self.storing = storing
        self.on_opened, self.on_closed = on_opened, on_closed
        self._open: dict[threading.Thread, UpperLayer] = {}
        self._associations = threading.BoundedSemaphore(settings.associations_max)
        self._lock = threading.Lock()
        self._wake, self._wake_end = socket.socketpair()
        self._listener: threading.Thread | None = None

    def serve(self, listening: list[socket.socket]) -> None:
        """Begin to accept on sockets that are bound and listening; return at once."""
        self._listener = threading.Thread(target=self._listen, args=(listening,), name="dicom-listener", daemon=True)
        self._listener.start()

    def stop(self, patience_s: float) -> None:
        """Accept no more; let open associations end for patience_s, then cut them off.

        The listening sockets stay open for those who share them: systemd, and other receivers.
        """
        self._wake_end.send(b".")
        if self._listener is not None:
            self._listener.join()
        ends = clock.monotonic_s() + patience_s
        for thread in self._threads():
            thread.join(max(0.0, ends - clock.monotonic_s()))
        with self._lock:
            left = list(self._open.values())
        for upper_layer in left:
            upper_layer.send_abort(*ABORT_BY_USER)
            upper_layer.connection.close()

    def _threads(self) -> list[threading.Thread]:
        with self._lock:
            return list(self._open)

    def _listen(self, listening: list[socket.socket]) -> None:
        for each in listening:
            each.setblocking(False)  # another receiver may have taken the connection that woke us
        while True:
            ready, _, _ = select.select([*listening, self._wake], [], [])
            if self._wake in ready:
                return
            for each in ready:
                try:
                    connection, address = each.accept()
                except OSError:
                    continue
                connection.setblocking(True)
                if len(self._threads()) >= self.settings.associations_max + CONNECTIONS_BESIDE_MAX:
                    connection.close()
                    continue
                thread = threading.Thread(
                    target=self._serve_connection,
                    args=(connection, normalised(str(address[0]))),
                    name="association",
                    daemon=True,
                )
                thread.start()

    def _serve_connection(self, connection: socket.socket, peer: str) -> None:
        upper_layer = UpperLayer(connection, ARTIM_S)
        with self._lock:
            self._open[threading.current_thread()] = upper_layer
        try:
            self._serve_request(upper_layer, peer)
        except ConnectionLost:
            log.debug("a connection ended before its association", extra={"peer": peer})
        except ProtocolError as error:
            log.warning("no association: %s", error, extra={"peer": peer})
            self.negotiation.refusals.note(Refusal(RefusalKind.PROTOCOL, "", peer, str(error), str(error)))
            upper_layer.send_abort(*error.abort)
        except Exception:
            log.exception("an association failed unforeseen", extra={"peer": peer})
            upper_layer.send_abort(*ABORT_BY_USER)
        finally:
            upper_layer.close(CLOSE_PATIENCE_S)
            with self._lock:
                del self._open[threading.current_thread()]

    def _serve_request(self, upper_layer: UpperLayer, peer: str) -> None:
        # A connection holds an association's place only once it asks for one: watchers that look whether the port is
        # open hold none.
        header = upper_layer.read_header()
        if header.type != PduType.ASSOCIATE_RQ:
            raise ProtocolError("The first PDU is no association request.", ABORT_UNEXPECTED_PDU)
        request = _decode_request(upper_layer.read(header.length))
        has_place = self._associations.acquire(blocking=False)
        try:
            assoc = self._negotiate(upper_layer, request, peer, not has_place)
            if assoc is not None:
                upper_layer.set_timeout(self.settings.network_timeout_s)
                self._serve_association(assoc)
        finally:
            if has_place:
                self._associations.release()

    def _negotiate(
        self, upper_layer: UpperLayer, request: A_ASSOCIATE, peer: str, too_many: bool
    ) -> Association | None:
        caller = _caller(request, peer)
        admission = self._too_many(caller) if too_many else self.negotiation.admit(caller)
        if admission.rejection is not None:
            upper_layer.send(_encode_rejection(admission.rejection))
            return None
        device = admission.device
        requested = request.presentation_context_definition_list
        supported = self.negotiation.contexts(requested, device)
        roles: Any = {
            item.sop_class_uid: (item.scu_role, item.scp_role)
            for item in request.user_information
            if isinstance(item, SCP_SCU_RoleSelectionNegotiation)
        }
        results, role_items = negotiate_as_acceptor(requested, supported, roles)
        assoc = Association(
            upper_layer,
            accepted={int(context.context_id or 0): context for context in results if context.result == 0},
            calling_ae=caller.calling_ae,
            called_ae=caller.called_ae,
            peer=peer,
            peer_pdu_size_bytes=smaller_pdu(request.maximum_length_received, device),
            device=device,
        )
        self.negotiation.refuse_contexts(caller, requested, results, device)
        items = [*own_user_information(own_pdu_size(self.settings, device)), *role_items]
        upper_layer.send(_encode_acceptance(request, results, items))
        return assoc

    def _too_many(self, caller: Caller) -> Admission:
        reason = f"{self.settings.associations_max} associations are open. If they are needed, raise associations_max."
        self.negotiation.refuse(caller, RefusalKind.LIMIT, reason)
        return Admission(REJECTED_TOO_MANY)

    def _serve_association(self, assoc: Association) -> None:
        self.on_opened(assoc)
        storing = self.storing(assoc)
        try:
            while True:
                received = assoc.receive(storing.open_sink)
                if isinstance(received, Message):
                    self._serve_message(assoc, received)
                else:
                    storing.finish(*received)
        except ReleaseRequested:
            assoc.upper_layer.send_release_response()
        except ConnectionLost as error:
            log.info("association ended: %s", error, extra={"calling_ae": assoc.calling_ae, "peer": assoc.peer})
        except ProtocolError as error:
            log.warning("%s", error, extra={"calling_ae": assoc.calling_ae, "peer": assoc.peer})
            assoc.upper_layer.send_abort(*error.abort)
        finally:
            storing.close()
            self.on_closed(assoc)

    def _serve_message(self, assoc: Association, message: Message) -> None:
        if isinstance(message.primitive, C_CANCEL):
            return  # of a request that was answered meanwhile
        name = message.primitive.msg_type
        service = self.services.get(name)
        if service is None or not message.primitive.is_valid_request:
            raise ProtocolError(f"A {name} message came that this archive does not serve.")
        service(assoc, message)


def _decode_request(content: bytes) -> A_ASSOCIATE:
    pdu = A_ASSOCIATE_RQ()
    try:
        pdu.decode(b"\x01\x00" + len(content).to_bytes(4, "big") + content)
        request = pdu.to_primitive()
        if not request.presentation_context_definition_list:
            raise ValueError("no presentation context")
    except Exception as error:  # pynetdicom raises what it likes for bytes that are none
        raise ProtocolError(f"An association request cannot be read ({type(error).__name__}).") from error
    return request


def _caller(request: A_ASSOCIATE, peer: str) -> Caller:
    wanted = tuple(str(context.abstract_syntax) for context in request.presentation_context_definition_list)
    return Caller(request.calling_ae_title.strip(), request.called_ae_title.strip(), peer, wanted)


def _encode_acceptance(request: A_ASSOCIATE, results: list[Any], items: list[Any]) -> bytes:
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


def _encode_rejection(rejection: tuple[int, int, int]) -> bytes:
    answer = A_ASSOCIATE()
    answer.result, answer.result_source, answer.diagnostic = rejection
    pdu = A_ASSOCIATE_RJ()
    pdu.from_primitive(answer)
    return pdu.encode()
