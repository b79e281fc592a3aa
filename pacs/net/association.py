"""pynetdicom's association and server, with our services in the place of its own.

What this leans on in pynetdicom 3.0: `Association._serve_request` is called with each DIMSE request on the
association's own thread, `_accepted_cx` maps context ids to contexts, `RequestHandler._create_association` makes the
acceptor, and `run_reactor` is its thread's body, which takes its first primitive from `dul.to_user_queue`.
`tests/unit/net/test_association.py` fails when a new release changes that.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from copy import deepcopy
from typing import Any, cast

from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from pacs import clock

log = logging.getLogger(__name__)

_AWAITING_CLOSE = "Sta13"  # PS3.8 Table 9-10
_ABORT_READ_S = 1.0
_REQUEST_S = 30.0

#: Serves one DIMSE request: (association, request primitive, its presentation context).
Service = Callable[["ArchiveAssociation", Any, PresentationContext], None]


class ArchiveAssociation(Association):
    """An association that the archive has accepted."""

    services: dict[str, Service]
    association_key: int | None = None

    def run_reactor(self) -> None:
        """As pynetdicom's, but a connection that ends or sends rubbish before it asks for an association is over.

        pynetdicom would wait for its request until the ACSE timeout, and count it as an association meanwhile: a
        monitor that only looks whether the port is open would take all of them.
        """
        self.dul.start()
        self._started_dul = True
        self._dul_ready.wait()
        if self._is_requested():
            super().run_reactor()
            return
        if self.dul.socket is not None:
            self.dul.socket.close()
        self.kill()

    def _is_requested(self) -> bool:
        """Wait for the first primitive from the peer; False if there will be none."""
        started = clock.monotonic_s()
        aborted_at: float | None = None
        while self.dul.to_user_queue.empty():
            now = clock.monotonic_s()
            if self.dul.state_machine.current_state == _AWAITING_CLOSE:
                aborted_at = aborted_at or now  # its peer has a moment to read why
            is_closed = self.dul.socket is None or self.dul.socket.socket is None
            is_over = aborted_at is not None and now - aborted_at > _ABORT_READ_S
            if is_closed or is_over or not self.dul.is_alive() or now - started > (self.acse_timeout or _REQUEST_S):
                return False
            time.sleep(0.002 if now - started < 0.1 else 0.05)
        return True

    def _serve_request(self, msg: Any, context_id: int) -> None:
        service = self.services.get(msg.msg_type)
        context = self._accepted_cx.get(context_id)
        if service is None or context is None or not msg.is_valid_request:
            super()._serve_request(msg, context_id)
            return
        self.dimse.cancel_req = {}
        self._is_paused = True  # the service reads what the peer sends meanwhile
        try:
            service(self, msg, context)
        except Exception:
            log.exception("a request failed unforeseen; the association is aborted", extra={"request": msg.msg_type})
            self.abort()
        finally:
            self._is_paused = False
            self.dimse.cancel_req = {}


class ArchiveRequestHandler(RequestHandler):
    """Makes an ArchiveAssociation of each connection."""

    def _create_association(self) -> Association:
        server = cast("ArchiveServer", self.server)
        assoc = ArchiveAssociation(self.ae, "acceptor")
        assoc.services = server.services
        assoc._server = server
        assoc.name = f"AcceptorThread@{clock.now():%Y%m%d%H%M%S}"  # pynetdicom counts its acceptors by this name
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assoc.set_socket(AssociationSocket(assoc, client_socket=self.request))
        assoc.acceptor.maximum_length = self.ae.maximum_pdu_size
        assoc.acceptor.ae_title = server.ae_title
        assoc.acceptor.address_info = self.local
        assoc.acceptor.implementation_class_uid = self.ae.implementation_class_uid
        assoc.acceptor.implementation_version_name = self.ae.implementation_version_name
        assoc.acceptor.supported_contexts = deepcopy(server.contexts)
        assoc.requestor.address_info = self.remote
        for event, bound in server._handlers.items():
            if event.is_intervention:
                if bound:
                    assoc.bind(event, *bound)
            else:
                for handler in bound:
                    assoc.bind(event, *cast("tuple[Any, Any]", handler))
        return assoc


class ArchiveServer(ThreadedAssociationServer):
    """Listens on a socket that is bound already: systemd's, or `pacs dev`'s own."""

    request_queue_size = 128
    daemon_threads = True

    def __init__(
        self,
        ae: ApplicationEntity,
        listening: socket.socket,
        services: dict[str, Service],
        evt_handlers: list[Any],
    ) -> None:
        self.services = services
        self._listening = listening
        # The contexts are set at each request (negotiation.py); the server must have one to start with.
        contexts = ae.supported_contexts
        address = listening.getsockname()
        super().__init__(
            ae, address, ae.ae_title, contexts, evt_handlers=evt_handlers, request_handler=ArchiveRequestHandler
        )

    def server_bind(self) -> None:
        """Take the bound socket in the place of the one that TCPServer has made."""
        if self.socket is not None:
            self.socket.close()
        self.socket = self._listening
        self.socket.settimeout(self.ae.network_timeout)
        self.server_address = self.socket.getsockname()

    def server_close(self) -> None:
        """Give up this process's hold of the listening socket; systemd and other receivers keep theirs."""
        if self.socket is not None:
            self.socket.close()
