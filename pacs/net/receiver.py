"""A receiver: the archive's application entity on its sockets, one thread an association."""

from __future__ import annotations

import logging
import socket
import threading

from pynetdicom import _config, evt
from pynetdicom.ae import ApplicationEntity

from pacs import clock
from pacs.archive.retrieve import Retrieve
from pacs.archive.store import Store
from pacs.errors import DatabaseUnavailable, PacsError
from pacs.index import store as rows
from pacs.index.database import Connection, Database
from pacs.model.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pacs.net.association import ArchiveAssociation, ArchiveServer
from pacs.net.finding import find_service
from pacs.net.negotiation import VERIFICATION, Negotiation
from pacs.net.retrieving import get_service, move_service
from pacs.net.storing import store_service
from pacs.settings import Settings

log = logging.getLogger(__name__)

# pynetdicom logs identifiers, which hold patients' names, unless it is told not to.
_config.LOG_HANDLER_LEVEL = "none"
_config.LOG_REQUEST_IDENTIFIERS = False
_config.LOG_RESPONSE_IDENTIFIERS = False
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)


class Receiver:
    """Serves associations on listening sockets until it is stopped."""

    def __init__(self, settings: Settings, database: Database, store: Store, retrieve: Retrieve) -> None:
        self.database = database
        self._session: tuple[Connection, int] | None = None
        self._session_lock = threading.Lock()
        self.ae = ApplicationEntity(settings.ae_title)
        self.ae.maximum_pdu_size = settings.pdu_size_bytes_max
        self.ae.maximum_associations = settings.associations_max
        self.ae.network_timeout = settings.network_timeout_s
        self.ae.dimse_timeout = settings.network_timeout_s
        self.ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        self.ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        self.ae.add_supported_context(VERIFICATION)
        self._negotiation = Negotiation(database, settings)
        self._services = {
            "C-STORE": store_service(store),
            "C-FIND": find_service(database, settings.ae_title),
            "C-GET": get_service(retrieve),
            "C-MOVE": move_service(retrieve, database, self.ae),
        }
        self._servers: list[ArchiveServer] = []

    def serve(self, listening: list[socket.socket]) -> None:
        """Begin to accept associations on sockets that are bound and listening; return at once."""
        self._session_key()
        handlers = [
            (evt.EVT_REQUESTED, self._negotiation.on_requested),
            (evt.EVT_ESTABLISHED, self._on_established),
            (evt.EVT_CONN_CLOSE, self._on_closed),
        ]
        for each in listening:
            server = ArchiveServer(self.ae, each, self._services, list(handlers))
            thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="dicom-listener", daemon=True)
            thread.start()
            self._servers.append(server)
            self.ae._servers.append(server)

    def stop(self, patience_s: float = 10) -> None:
        """Accept no more, let open associations end for patience_s, then abort what is left."""
        for server in list(self._servers):
            server.shutdown()
        ends = clock.monotonic_s() + patience_s
        while self.ae.active_associations and clock.monotonic_s() < ends:
            threading.Event().wait(0.05)
        for assoc in self.ae.active_associations:
            assoc.abort()

    def _session_key(self) -> int:
        """This receiver's session, opened again when the database had gone away: its lock says that we live."""
        with self._session_lock:
            if self._session is not None and not self._session[0].closed:
                try:
                    self._session[0].execute("SELECT")
                    return self._session[1]
                except Exception:  # any fault of the old connection: a new one decides
                    self._session[0].close()
            connection = self.database.autocommit_connection()
            self._session = (connection, rows.open_session(connection))
            return self._session[1]

    def _on_established(self, event: evt.Event) -> None:
        assoc = event.assoc
        if not isinstance(assoc, ArchiveAssociation):
            return
        calling = str(assoc.requestor.ae_title)
        try:
            assoc.association_key = rows.open_association(
                self.database, self._session_key(), calling, str(assoc.requestor.address)
            )
        except DatabaseUnavailable as error:
            log.warning("association without a row: %s", error)  # each object will be answered with 0xA700
        log.info("association opened", extra={"calling_ae": calling, "peer": assoc.requestor.address})

    def _on_closed(self, event: evt.Event) -> None:
        assoc = event.assoc
        if not isinstance(assoc, ArchiveAssociation) or assoc.association_key is None:
            return
        key, assoc.association_key = assoc.association_key, None
        try:
            rows.close_association(self.database, key)
        except PacsError as error:
            log.warning("association's end not noted: %s", error)
