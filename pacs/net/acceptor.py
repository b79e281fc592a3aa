"""Accepting associations: negotiation, and the loop that serves requests, on the connection's own thread.

An association's thread reads, serves and answers; a peer that stalls stalls its own thread only, until its timeout.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pynetdicom.dimse_primitives import C_CANCEL
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import negotiate_as_acceptor

from pacs import clock
from pacs.index.devices import Device
from pacs.index.refusals import Refusal, RefusalKind
from pacs.model.addresses import normalised
from pacs.net.admission import Doorkeeper, LetIn, Problem
from pacs.net.associating import decode_request, encode_acceptance, encode_rejection
from pacs.net.association import Association, Message, ReleaseRequested
from pacs.net.listener import Opened
from pacs.net.negotiation import (
    REJECTED_TOO_MANY,
    Admission,
    Caller,
    Negotiation,
    extended_answers,
    own_pdu_size,
    own_user_information,
    smaller_pdu,
)
from pacs.net.storing import Storing
from pacs.net.tls import Tls, TlsFailed, TlsUnavailable
from pacs.net.upper_layer import (
    ABORT_BY_USER,
    ABORT_UNEXPECTED_PDU,
    ConnectionLost,
    PduType,
    ProtocolError,
    TimedOut,
    UpperLayer,
)
from pacs.settings import Settings

log = logging.getLogger(__name__)

#: How long a peer may take to close the connection of an association that is over [s].
CLOSE_PATIENCE_S = 2.0

#: Serves a request other than C-STORE: (association, message).
Service = Callable[[Association, Message], None]


@dataclass(frozen=True)
class Serving:
    """What serves one association."""

    storing: Storing
    #: By message and abstract syntax, such as ("C-ECHO", "1.2.840.10008.1.1").
    services: Mapping[tuple[str, str], Service]
    #: Called when it is over.
    on_closed: Callable[[], None]


class Acceptor:
    """Serves associations on connections that were taken."""

    def __init__(
        self,
        settings: Settings,
        negotiation: Negotiation,
        doorkeeper: Doorkeeper,
        tls: Tls,
        begin: Callable[[Association], Serving],
    ) -> None:
        """begin gives what serves an association that was accepted."""
        self.settings = settings
        self.negotiation, self.doorkeeper, self.tls = negotiation, doorkeeper, tls
        self.begin = begin

    def refuse_connections(self, address: str, reason: str) -> None:
        """Log and note that an address has too many connections."""
        log.warning("%s", reason, extra={"peer": address})
        self.negotiation.refusals.note(Refusal(RefusalKind.LIMIT, "", normalised(address), reason, "connections"))

    def serve(self, opened: Opened) -> None:
        """Serve a connection to its end."""
        peer, began_s = normalised(opened.address), clock.monotonic_s()
        try:
            connection = opened.connection
            if opened.is_tls:
                connection = self.tls.accept(connection, self.settings.artim_s)
        except (TlsFailed, TlsUnavailable) as error:
            log.warning("no association: %s", error, extra={"peer": peer})
            self.negotiation.refusals.note(Refusal(RefusalKind.TLS, "", peer, str(error), str(error)))
            return
        left_s = max(1.0, self.settings.artim_s - (clock.monotonic_s() - began_s))  # of the ARTIM timer, PS3.8 9.1.5
        upper_layer = UpperLayer(connection, left_s)
        opened.cut_off = upper_layer.cut_off
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

    def _serve_request(self, upper_layer: UpperLayer, peer: str) -> None:
        # A connection holds an association's place only once it asks for one: watchers that look whether the port is
        # open hold none.
        header = upper_layer.read_header()
        if header.type != PduType.ASSOCIATE_RQ:
            raise ProtocolError("The first PDU is no association request.", ABORT_UNEXPECTED_PDU)
        request = decode_request(upper_layer.read(header.length))
        place = self.doorkeeper.take_place()
        try:
            self._admit(upper_layer, request, _caller(request, peer), place is None)
        finally:
            self.doorkeeper.leave(place)

    def _admit(self, upper_layer: UpperLayer, request: A_ASSOCIATE, caller: Caller, too_many: bool) -> None:
        """Serve a caller's association, if it may have one."""
        admission = self._too_many(caller) if too_many else self.negotiation.admit(caller)
        if admission.rejection is not None:
            upper_layer.send(encode_rejection(admission.rejection))
            return
        device = admission.device
        let_in = self.doorkeeper.judge(device, upper_layer.connection, request.user_information)
        if isinstance(let_in, Problem):
            self._reject(upper_layer, caller, device, let_in)
            return
        place = self.doorkeeper.enter(device)
        if isinstance(place, Problem):
            self._reject(upper_layer, caller, device, place)
            return
        try:
            assoc = self._negotiate(upper_layer, request, caller, device, let_in)
            upper_layer.set_timeout(self.settings.network_timeout_s)
            self._serve_association(assoc)
        finally:
            self.doorkeeper.leave(place)

    def _reject(self, upper_layer: UpperLayer, caller: Caller, device: Device | None, problem: Problem) -> None:
        self.negotiation.refuse(caller, problem.kind, problem.reason, problem.detail, device)
        upper_layer.send(encode_rejection(problem.rejection))

    def _negotiate(
        self, upper_layer: UpperLayer, request: A_ASSOCIATE, caller: Caller, device: Device | None, let_in: LetIn
    ) -> Association:
        requested = request.presentation_context_definition_list
        supported = self.negotiation.contexts(requested, device)
        roles: Any = {
            item.sop_class_uid: (item.scu_role, item.scp_role)
            for item in request.user_information
            if isinstance(item, SCP_SCU_RoleSelectionNegotiation)
        }
        results, role_items = negotiate_as_acceptor(requested, supported, roles)
        extended = extended_answers(request.user_information)
        assoc = Association(
            upper_layer,
            accepted={int(context.context_id or 0): context for context in results if context.result == 0},
            calling_ae=caller.calling_ae,
            called_ae=caller.called_ae,
            peer=caller.address,
            # One that is too large is read to its end, so that it can be answered with its reason; but some have none.
            data_set_size_bytes_max=2 * self.settings.object_size_bytes_max,
            peer_pdu_size_bytes=smaller_pdu(request.maximum_length_received, device),
            device=device,
            user_name=let_in.user_name,
            certificate_sha256=let_in.certificate_sha256,
            extended={str(item.sop_class_uid): item.service_class_application_information for item in extended},
        )
        self.negotiation.refuse_contexts(caller, requested, results, device)
        items = [*own_user_information(own_pdu_size(self.settings, device)), *role_items, *extended, *let_in.responses]
        upper_layer.send(encode_acceptance(request, results, items))
        return assoc

    def _too_many(self, caller: Caller) -> Admission:
        reason = f"{self.settings.associations_max} associations are open. If they are needed, raise associations_max."
        self.negotiation.refuse(caller, RefusalKind.LIMIT, reason)
        return Admission(REJECTED_TOO_MANY)

    def _serve_association(self, assoc: Association) -> None:
        serving = self.begin(assoc)
        storing = serving.storing
        try:
            while True:
                self._wait(assoc)
                received = assoc.receive(storing.open_sink)
                if isinstance(received, Message):
                    self._serve_message(assoc, received, serving.services)
                else:
                    storing.finish(*received)
        except ReleaseRequested:
            assoc.upper_layer.send_release_response()
        except TimedOut as error:
            log.warning("association aborted: %s", error, extra={"calling_ae": assoc.calling_ae, "peer": assoc.peer})
            assoc.upper_layer.send_abort(*ABORT_BY_USER)
        except ConnectionLost as error:
            log.info("association ended: %s", error, extra={"calling_ae": assoc.calling_ae, "peer": assoc.peer})
        except ProtocolError as error:
            log.warning("%s", error, extra={"calling_ae": assoc.calling_ae, "peer": assoc.peer})
            assoc.upper_layer.send_abort(*error.abort)
        finally:
            storing.close()
            if assoc.outbox is not None:
                assoc.outbox.close()
            serving.on_closed()

    def _wait(self, assoc: Association) -> None:
        """Wait for the peer's next message; meanwhile send what there is to send of our own."""
        outbox = assoc.outbox
        if outbox is None:
            assoc.upper_layer.wait_input(self.settings.idle_s)
            return
        while True:
            outgoing = outbox.take()
            if outgoing is not None:
                assoc.send(outgoing.primitive, outgoing.context_id)
            # While a report is made ready the peer waits for us, and is not idle.
            idle_s = None if outbox.is_awaited else self.settings.idle_s
            if assoc.upper_layer.wait_input(idle_s, outbox.fd):
                return

    def _serve_message(self, assoc: Association, message: Message, services: Mapping[tuple[str, str], Service]) -> None:
        request = message.primitive
        if isinstance(request, C_CANCEL):  # it has no msg_type
            return  # of a request that was answered meanwhile
        name = request.msg_type
        if request.MessageIDBeingRespondedTo is not None:
            _take_answer(assoc, message)
            return
        service = services.get((name, str(message.context.abstract_syntax)))
        if service is None or not request.is_valid_request:
            raise ProtocolError(f"A {name} message came that this archive does not serve.")
        service(assoc, message)


def _take_answer(assoc: Association, message: Message) -> None:
    answer = message.primitive
    if assoc.outbox is None or answer.Status is None:
        raise ProtocolError(f"An answer to {answer.msg_type} came, which was not sent.")
    # One that is not awaited any more came late; its request is answered otherwise by now.
    assoc.outbox.answered(int(answer.MessageIDBeingRespondedTo), int(answer.Status))


def _caller(request: A_ASSOCIATE, peer: str) -> Caller:
    wanted = tuple(str(context.abstract_syntax) for context in request.presentation_context_definition_list)
    return Caller(request.calling_ae_title.strip(), request.called_ae_title.strip(), peer, wanted)
