"""A receiver: the archive's application entity on its sockets, one thread an association."""

from __future__ import annotations

import logging
import socket

from pynetdicom import _config
from pynetdicom.dimse_primitives import C_ECHO

from pacs.archive.commit import Verifier
from pacs.archive.outgoing import Transcoding
from pacs.archive.receiving_session import ReceivingSession
from pacs.archive.retrieve import Retrieve
from pacs.archive.store import Store
from pacs.archive.users import Users
from pacs.errors import DatabaseUnavailable, PacsError
from pacs.index import store as rows
from pacs.index.database import Database
from pacs.index.selftest import SELFTEST
from pacs.model.audit import event
from pacs.net.acceptor import Acceptor, Service, Serving
from pacs.net.admission import Doorkeeper
from pacs.net.association import Association, Message
from pacs.net.commitment import commitment_service
from pacs.net.finding import find_service
from pacs.net.listener import Listener
from pacs.net.negotiation import MESSAGES, Negotiation
from pacs.net.receive_times import ReceiveTimes
from pacs.net.refusals import Refusals
from pacs.net.reporting import Reporting
from pacs.net.retrieving import get_service, move_service
from pacs.net.selftest import SelftestServing, note_sockets
from pacs.net.storing import Storing
from pacs.net.tls import Tls
from pacs.net.trail import RefusedCallers, Trail
from pacs.net.turnstile import Turnstile
from pacs.settings import Settings
from pacs.storage.acting import actor
from pacs.storage.audit_writer import AuditWriter

log = logging.getLogger(__name__)

# pynetdicom logs identifiers, which hold patients' names, unless it is told not to.
_config.LOG_HANDLER_LEVEL = "none"
_config.LOG_REQUEST_IDENTIFIERS = False
_config.LOG_RESPONSE_IDENTIFIERS = False
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
# A traceback for each frame that a codec refuses, and more; what comes of it is logged where it counts.
for _name in ("pydicom", "openjpeg"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


#: Objects that are taken in at once: more than processors, as each waits for the disk, too.
_AT_ONCE = 4


class Receiver:
    """Serves associations on listening sockets until it is stopped."""

    def __init__(
        self, settings: Settings, database: Database, store: Store, retrieve: Retrieve, verifier: Verifier
    ) -> None:
        self.settings, self.database, self.store = settings, database, store
        self._session = ReceivingSession(database)
        self._audit = AuditWriter(settings.data)
        self._refusals = Refusals(database, RefusedCallers(self._audit).note)
        self._turnstile = Turnstile(_AT_ONCE)
        self._times = ReceiveTimes(settings.runtime_folder)
        self._reporting = Reporting(settings, database, verifier)
        self._transcoding = Transcoding(settings.transcode_size_bytes_max, settings.transcode_at_once)
        self._services = services(settings, database, retrieve, self._transcoding, self._reporting)
        self._acceptor = Acceptor(
            settings,
            Negotiation(database, settings, self._refusals),
            Doorkeeper(settings, database, Users(settings.data)),
            Tls(settings.tls_folder, settings.tls_client_certificate),
            self._begin,
        )
        self._listener = Listener(settings, self._acceptor.serve, self._acceptor.refuse_connections)

    def serve(self, plain: list[socket.socket], tls: list[socket.socket]) -> None:
        """Begin to accept associations on sockets that are bound and listening; return at once."""
        self._session.key()
        note_sockets(self.settings, plain, tls)
        self._reporting.start()
        self._times.start()
        self._audit.note(event("started", actor(), text="DICOM receiver"), event("attached", actor()))
        self._listener.start(plain, tls)

    def stop(self, patience_s: float = 10) -> None:
        """Accept no more, let open associations end for patience_s, then cut off what is left."""
        self._listener.stop(patience_s)
        self._reporting.stop(patience_s / 2)
        self._refusals.stop()
        self._times.stop()
        self._audit.note(event("detached", actor()), event("stopped", actor(), text="DICOM receiver"))
        self._audit.stop()

    def _begin(self, assoc: Association) -> Serving:
        if assoc.device is SELFTEST:
            return self._begin_selftest(assoc)
        self._on_opened(assoc)
        assoc.trail = Trail(self._audit, self.database, assoc.calling_ae, assoc.peer, assoc.user_name,
                            assoc.certificate_sha256, self.settings.ae_title)  # fmt: skip
        storing = Storing(self.store, assoc, self._refusals, self._turnstile, lambda: self._note(assoc), self._times)
        return Serving(storing, self._services, lambda: self._on_closed(assoc))

    def _begin_selftest(self, assoc: Association) -> Serving:
        own = SelftestServing(
            self.settings, self.database, self.store.volumes, self.store.room, assoc, self._session.key()
        )
        found = services(own.settings, own.database, own.retrieve, self._transcoding, own.reporting, own.as_itself)
        return Serving(Storing(own.store, assoc, self._refusals, self._turnstile), found, own.close)

    def _on_opened(self, assoc: Association) -> None:
        self._note(assoc)
        log.info(
            "association opened%s", f" for user {assoc.user_name!r}" if assoc.user_name else "",
            extra={"calling_ae": assoc.calling_ae, "peer": assoc.peer},
        )  # fmt: skip

    def _note(self, assoc: Association) -> None:
        try:
            character_set = assoc.device.default_character_set if assoc.device else ""
            assoc.key = rows.open_association(
                self.database, self._session.key(), assoc.calling_ae, assoc.peer, assoc.user_name, character_set,
                assoc.certificate_sha256,
            )  # fmt: skip
        except DatabaseUnavailable as error:
            log.warning("association without a row: %s", error)  # each object will be answered with 0xA700

    def _on_closed(self, assoc: Association) -> None:
        if assoc.trail is not None:
            assoc.trail.close()
        if assoc.key is None:
            return
        try:
            rows.close_association(self.database, assoc.key)
        except PacsError as error:
            log.warning("association's end not noted: %s", error)


def services(
    settings: Settings,
    database: Database,
    retrieve: Retrieve,
    transcoding: Transcoding,
    reporting: Reporting,
    calling: Settings | None = None,
) -> dict[tuple[str, str], Service]:
    """What is served beside C-STORE, by message and SOP class. calling: what a C-MOVE calls with, if not as we do."""
    serve: dict[str, Service] = {
        "C-ECHO": echo_service,
        "C-FIND": find_service(database, settings.ae_title),
        "C-MOVE": move_service(retrieve, transcoding, database, calling or settings),
        "C-GET": get_service(retrieve, transcoding, settings),
        "N-ACTION": commitment_service(reporting.accept),
    }
    return {(message, sop_class): serve[message] for message, classes in MESSAGES.items() for sop_class in classes}


def echo_service(assoc: Association, message: Message) -> None:
    """C-ECHO as SCP (PS3.7 9.1.5)."""
    response = C_ECHO()
    response.MessageIDBeingRespondedTo = message.primitive.MessageID
    response.AffectedSOPClassUID = message.primitive.AffectedSOPClassUID
    response.Status = 0x0000
    assoc.send(response, int(message.context.context_id or 0))
