"""Association negotiation: who may talk to the archive, and which presentation contexts are taken.

pynetdicom negotiates; this decides. At an A-ASSOCIATE request the caller is looked up, and the contexts that we support
for this very request are made, each with its transfer syntaxes in our order of preference: pynetdicom takes the first
that the requestor offers too.
"""

from __future__ import annotations

import ipaddress
import logging
import shlex
import threading
from functools import lru_cache
from typing import Any

from pynetdicom.pdu_primitives import (
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import PresentationContext

from pacs import clock
from pacs.errors import PacsError
from pacs.index import store
from pacs.index.database import Database
from pacs.index.devices import device_by_ae_title
from pacs.model import uids
from pacs.model.dataset import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from pacs.model.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pacs.settings import Settings

log = logging.getLogger(__name__)

#: The DICOM application context, PS3.7 A.2.1.
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
VERIFICATION = "1.2.840.10008.1.1"

PATIENT_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.1.1"
PATIENT_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.1.2"
PATIENT_ROOT_GET = "1.2.840.10008.5.1.4.1.2.1.3"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"
PATIENT_ROOTS = frozenset([PATIENT_ROOT_FIND, PATIENT_ROOT_MOVE, PATIENT_ROOT_GET])
QUERY_RETRIEVE = PATIENT_ROOTS | {STUDY_ROOT_FIND, STUDY_ROOT_MOVE, STUDY_ROOT_GET}

#: Result, source and reason of an A-ASSOCIATE-RJ, PS3.8 Table 9-21.
Rejection = tuple[int, int, int]
REJECTED_CALLING_AE: Rejection = (1, 1, 3)
REJECTED_CALLED_AE: Rejection = (1, 1, 7)
REJECTED_CONGESTION: Rejection = (2, 3, 1)
REJECTED_TOO_MANY: Rejection = (2, 3, 2)

_MOST_STORED_LASTS_S = 60.0


def own_user_information(pdu_size_bytes_max: int) -> list[Any]:
    """What we say of ourselves in a request or an answer (PS3.7 D.3.3): the largest PDU we take, and who made us."""
    maximum = MaximumLengthNotification()
    maximum.maximum_length_received = pdu_size_bytes_max
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    return [maximum, implementation, version]


class Negotiation:
    """Answers association requests from the device table and the settings."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database = database
        self.settings = settings
        self._syntaxes = (*uids.TRANSFER_SYNTAXES, *settings.extra_transfer_syntaxes)
        self._most_stored: dict[str, str] = {}
        self._most_stored_at = float("-inf")
        self._lock = threading.Lock()

    def rejection(self, calling: str, called: str, address: str) -> Rejection | None:
        """Why an association is rejected; None if it is not."""
        try:
            return self._rejection(calling, called, address)
        except PacsError as error:
            log.error("association refused: %s", error, extra={"calling_ae": calling})
            return REJECTED_CONGESTION

    def _rejection(self, calling: str, called: str, address: str) -> Rejection | None:
        if called != self.settings.ae_title:
            log.warning(
                "association rejected: it called AE title %r, this is %r. Correct the device's settings.",
                called,
                self.settings.ae_title,
                extra={"calling_ae": calling, "peer": address},
            )
            return REJECTED_CALLED_AE
        if self.settings.any_device_from_loopback and ipaddress.ip_address(address.split("%")[0]).is_loopback:
            return None
        if device_by_ae_title(self.database, calling) is None:
            log.warning(
                "association rejected: AE title %r at %s is not known. If it may store here: "
                "`pacs device add NAME --ae-title %s --host %s --port PORT`.",
                calling,
                address,
                shlex.quote(calling),
                address,
                extra={"calling_ae": calling, "peer": address},
            )
            return REJECTED_CALLING_AE
        return None

    def contexts(self, requested: list[PresentationContext]) -> list[PresentationContext]:
        """What is supported of what was requested, each with its transfer syntaxes in our order of preference."""
        supported: dict[str, PresentationContext] = {}
        for context in requested:
            abstract_syntax = str(context.abstract_syntax)
            if abstract_syntax in supported:
                continue
            if abstract_syntax == VERIFICATION or abstract_syntax in QUERY_RETRIEVE:
                supported[abstract_syntax] = _context(
                    abstract_syntax, (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN), as_scu=False
                )
            elif uids.may_be_storage(abstract_syntax):
                supported[abstract_syntax] = _context(abstract_syntax, self._preferred(abstract_syntax), as_scu=True)
        return list(supported.values())

    def _preferred(self, sop_class_uid: str) -> tuple[str, ...]:
        """Every transfer syntax that is taken, the one most stored for the class first, then Explicit Little Endian."""
        first = [self._most_stored_syntaxes().get(sop_class_uid), EXPLICIT_VR_LITTLE_ENDIAN]
        return tuple(dict.fromkeys(uid for uid in (*first, *self._syntaxes) if uid))

    def _most_stored_syntaxes(self) -> dict[str, str]:
        with self._lock:
            if clock.monotonic_s() - self._most_stored_at > _MOST_STORED_LASTS_S:
                self._most_stored = store.most_stored_syntaxes(self.database)
                self._most_stored_at = clock.monotonic_s()
            return self._most_stored


@lru_cache(maxsize=1024)  # pynetdicom checks each UID: 30 ms for a usual request. Nobody changes what this gives.
def _context(abstract_syntax: str, syntaxes: tuple[str, ...], as_scu: bool) -> PresentationContext:
    context = PresentationContext()
    context.abstract_syntax = abstract_syntax
    context.transfer_syntax = list(syntaxes)
    if as_scu:  # for C-GET the requestor may take the SCP's role (PS3.7 D.3.3.4)
        context.scu_role = context.scp_role = True
    return context
