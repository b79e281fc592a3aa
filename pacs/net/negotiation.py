"""Association negotiation: who may talk to the archive, and which presentation contexts are taken.

pynetdicom negotiates; this decides. At an A-ASSOCIATE request the caller is looked up, and the contexts that we support
for this very request are made, each with its transfer syntaxes in our order of preference: pynetdicom takes the first
that the requestor offers too.
"""

from __future__ import annotations

import logging
import shlex
import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pynetdicom.pdu_primitives import (
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SOPClassExtendedNegotiation,
)
from pynetdicom.presentation import PresentationContext

from pacs import clock
from pacs.archive.hosts import Hosts
from pacs.errors import PacsError
from pacs.index import store
from pacs.index.database import Database
from pacs.index.devices import Device, device_by_ae_title
from pacs.index.refusals import Refusal, RefusalKind
from pacs.index.selftest import AE_TITLE, SELFTEST, is_made
from pacs.model import uids
from pacs.model.addresses import is_loopback
from pacs.model.dataset import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from pacs.model.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pacs.net.refusals import Refusals
from pacs.settings import Settings
from pacs.storage.lineage import LineageFiles

log = logging.getLogger(__name__)

#: The DICOM application context, PS3.7 A.2.1.
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
VERIFICATION = "1.2.840.10008.1.1"
STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"

PATIENT_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.1.1"
PATIENT_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.1.2"
PATIENT_ROOT_GET = "1.2.840.10008.5.1.4.1.2.1.3"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"
PATIENT_ROOTS = frozenset([PATIENT_ROOT_FIND, PATIENT_ROOT_MOVE, PATIENT_ROOT_GET])
QUERY_RETRIEVE = PATIENT_ROOTS | {STUDY_ROOT_FIND, STUDY_ROOT_MOVE, STUDY_ROOT_GET}
#: What is served beside storage: message → the SOP classes that it belongs to.
MESSAGES: dict[str, tuple[str, ...]] = {
    "C-ECHO": (VERIFICATION,),
    "C-FIND": (PATIENT_ROOT_FIND, STUDY_ROOT_FIND),
    "C-MOVE": (PATIENT_ROOT_MOVE, STUDY_ROOT_MOVE),
    "C-GET": (PATIENT_ROOT_GET, STUDY_ROOT_GET),
    "N-ACTION": (STORAGE_COMMITMENT,),
}
#: The transfer syntaxes of their messages, best first.
MESSAGE_SYNTAXES = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
SERVED = frozenset(sop_class for classes in MESSAGES.values() for sop_class in classes)

#: What is done of the service-class-application-information of PS3.4 C.5, byte by byte.
FIND_EXTENDED = {
    "relational queries": True,
    "combined date-time matching": True,
    "fuzzy semantic matching of person names": True,
    "timezone query adjustment": True,
    "enhanced multi-frame image conversion": False,
    "empty value matching": True,
    "multiple value matching": True,
}
RETRIEVE_EXTENDED = {"relational retrieval": True, "enhanced multi-frame image conversion": False}

#: Result, source and reason of an A-ASSOCIATE-RJ, PS3.8 Table 9-21.
Rejection = tuple[int, int, int]
REJECTED_NO_REASON: Rejection = (1, 1, 1)
REJECTED_CALLING_AE: Rejection = (1, 1, 3)
REJECTED_CALLED_AE: Rejection = (1, 1, 7)
REJECTED_CONGESTION: Rejection = (2, 3, 1)
REJECTED_TOO_MANY: Rejection = (2, 3, 2)

_REJECTION_WORDS = {
    (1, 2): "it does not know the application context",
    (1, 3): "it does not know this archive's AE title, or not at this address",
    (1, 7): "it has another AE title than it was called by",
    (2, 2): "it does not speak this version of the protocol",
    (3, 1): "it is busy",
    (3, 2): "it has no room for another association",
}


def rejection_words(_result: int, source: int, reason: int) -> str:
    """What an A-ASSOCIATE-RJ says, in words (PS3.8 Table 9-21)."""
    return _REJECTION_WORDS.get((source, reason), "it gives no reason")


#: Results of a presentation context, PS3.8 Table 9-18.
USER_REJECTION, TRANSFER_SYNTAXES_NOT_SUPPORTED = 1, 4

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


def extended_answers(items: list[Any]) -> list[Any]:
    """The answers to a request's SOP Class Extended Negotiation items: of what is asked for, what is done."""
    answers = []
    for item in items:
        if not isinstance(item, SOPClassExtendedNegotiation) or str(item.sop_class_uid) not in QUERY_RETRIEVE:
            continue
        is_find = item.sop_class_uid in (PATIENT_ROOT_FIND, STUDY_ROOT_FIND)
        done = FIND_EXTENDED if is_find else RETRIEVE_EXTENDED
        answer = SOPClassExtendedNegotiation()
        answer.sop_class_uid = item.sop_class_uid
        answer.service_class_application_information = bytes(
            int(asked == 1 and is_done)
            for asked, is_done in zip(item.service_class_application_information or b"", done.values(), strict=False)
        )
        answers.append(answer)
    return answers


def own_pdu_size(settings: Settings, device: Device | None) -> int:
    """The largest PDU that is asked for [bytes]: the device's quirk before the setting."""
    return (device.pdu_size_bytes_max if device else None) or settings.pdu_size_bytes_max


def smaller_pdu(peers_max: int | None, device: Device | None) -> int:
    """The largest PDU that is sent to a peer [bytes]: what it says it takes, and what its device's quirk allows. 0: any
    (PS3.8 D.1.1)."""
    quirk = device.pdu_size_bytes_max if device else None
    return min([size for size in (peers_max, quirk) if size], default=0)


@dataclass(frozen=True)
class Caller:
    """Who asks for an association: its AE title, the one it calls, its address, and the abstract syntaxes it wants."""

    calling_ae: str
    called_ae: str
    address: str
    wanted: tuple[str, ...] = ()

    @property
    def for_log(self) -> dict[str, str]:
        """What a line of the log says of it."""
        return {"calling_ae": self.calling_ae, "peer": self.address}


@dataclass(frozen=True)
class Admission:
    """Whether an association is taken, and whose it is: None for who is taken without being known."""

    rejection: Rejection | None = None
    device: Device | None = None


class Negotiation:
    """Answers association requests from the device table and the settings, and notes what is refused."""

    def __init__(self, database: Database, settings: Settings, refusals: Refusals) -> None:
        self.database = database
        self.settings = settings
        self.refusals = refusals
        self.hosts = Hosts()
        self._fence = LineageFiles(settings.data)
        self._syntaxes = (*uids.TRANSFER_SYNTAXES, *settings.extra_transfer_syntaxes)
        self._most_stored: dict[str, str] = {}
        self._most_stored_at = float("-inf")
        self._lock = threading.Lock()

    def admit(self, caller: Caller) -> Admission:
        """Whether a caller may have an association. On a fenced node only this machine, where an administrator may read
        what is here, or whoever reads until it was handed over: nothing is stored (archive/store.py)."""
        try:
            if not is_loopback(caller.address):
                self._fence.require_readable()
            elif self._is_selftest(caller) and is_made(self.database):
                return Admission(device=SELFTEST)
            device = self._device(caller)
            problems = self._problems(caller, device)
        except PacsError as error:
            self.refuse(caller, RefusalKind.NOT_READY, str(error))
            return Admission(REJECTED_CONGESTION)
        for kind, reason, detail in problems:
            self.refuse(caller, kind, reason, detail, device)
        if not problems:
            return Admission(device=device)
        wrong_call = any(kind == RefusalKind.CALLED_AE for kind, _reason, _detail in problems)
        return Admission(REJECTED_CALLED_AE if wrong_call else REJECTED_CALLING_AE)

    def refuse(
        self, caller: Caller, kind: RefusalKind, reason: str, detail: str = "", device: Device | None = None
    ) -> None:
        """Log and note that a caller's association was rejected."""
        log.warning("association rejected: %s", reason, extra=caller.for_log)
        wanted = tuple(map(uids.name_of, dict.fromkeys(caller.wanted)))
        name = device.name if device else ""
        self.refusals.note(
            Refusal(kind, caller.calling_ae, caller.address, reason, detail, caller.called_ae, name, wanted)
        )

    def refuse_contexts(
        self,
        caller: Caller,
        requested: list[PresentationContext],
        results: list[PresentationContext],
        device: Device | None,
    ) -> None:
        """Note the presentation contexts that were requested and not accepted."""
        by_id = {context.context_id: context for context in results}
        for context in requested:
            result = by_id[context.context_id].result
            if result == 0:
                continue
            kind, reason, detail = _context_problem(context, result)
            log.info("presentation context rejected: %s", reason, extra=caller.for_log)
            name = device.name if device else ""
            self.refusals.note(Refusal(kind, caller.calling_ae, caller.address, reason, detail, caller.called_ae, name))

    def _device(self, caller: Caller) -> Device | None:
        try:
            return device_by_ae_title(self.database, caller.calling_ae)
        except PacsError:
            if self._is_taken_unknown(caller):
                return None
            raise

    def _is_selftest(self, caller: Caller) -> bool:
        return caller.calling_ae == AE_TITLE and caller.called_ae == self.settings.ae_title

    def _is_taken_unknown(self, caller: Caller) -> bool:
        return self.settings.any_device_from_loopback and is_loopback(caller.address)

    def _problems(self, caller: Caller, device: Device | None) -> list[tuple[RefusalKind, str, str]]:
        """What is wrong with a caller: (kind, reason, detail) of each."""
        found = []
        if caller.called_ae != self.settings.ae_title and (
            device is None or caller.called_ae not in device.called_ae_titles
        ):
            found.append((
                RefusalKind.CALLED_AE,
                f"it called AE title {caller.called_ae!r}, this is {self.settings.ae_title!r}. Correct the device's "
                "settings, or let it: `pacs device pending`.",
                caller.called_ae,
            ))  # fmt: skip
        if self._is_taken_unknown(caller):
            return found
        if device is None:
            found.append((
                RefusalKind.CALLING_AE,
                f"AE title {caller.calling_ae!r} at {caller.address} is not known. If it may store here: "
                f"`pacs device add NAME --ae-title {shlex.quote(caller.calling_ae)} --host {caller.address} "
                "--port PORT`, or `pacs device pending`.",
                "",
            ))  # fmt: skip
        elif not self.hosts.may_call_from(device, caller.address):
            found.append((RefusalKind.ADDRESS, self._address_problem(caller, device), ""))
        return found

    def _address_problem(self, caller: Caller, device: Device) -> str:
        places = ", ".join((device.host, *device.networks))
        reason = (
            f"AE title {caller.calling_ae!r} is device {device.name!r} of {places}, and called from {caller.address}"
        )
        if not self.hosts.addresses(device.host):
            reason += f"; the name {device.host} cannot be resolved: correct it, or the name server"
        return f"{reason}. If it may: `pacs device change {shlex.quote(device.name)} --network {caller.address}`."

    def contexts(self, requested: list[PresentationContext], device: Device | None = None) -> list[PresentationContext]:
        """What is supported of what was requested, each with its transfer syntaxes in our order of preference; in the
        device's own before that."""
        wished = device.transfer_syntaxes if device else ()
        supported: dict[str, PresentationContext] = {}
        for context in requested:
            abstract_syntax = str(context.abstract_syntax)
            if abstract_syntax in supported:
                continue
            if abstract_syntax in SERVED:
                supported[abstract_syntax] = _context(abstract_syntax, MESSAGE_SYNTAXES, as_scu=False)
            elif uids.may_be_storage(abstract_syntax):
                supported[abstract_syntax] = _context(
                    abstract_syntax, self._preferred(abstract_syntax, wished), as_scu=True
                )
        return list(supported.values())

    def _preferred(self, sop_class_uid: str, wished: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Every transfer syntax that is taken: what is wished, the one most stored for the class, then Explicit Little
        Endian, then the others."""
        first = [*wished, self._most_stored_syntaxes().get(sop_class_uid), EXPLICIT_VR_LITTLE_ENDIAN]
        return tuple(dict.fromkeys(uid for uid in (*first, *self._syntaxes) if uid))

    def _most_stored_syntaxes(self) -> dict[str, str]:
        with self._lock:
            if clock.monotonic_s() - self._most_stored_at <= _MOST_STORED_LASTS_S:
                return self._most_stored
            self._most_stored_at = clock.monotonic_s()  # the others go on with what was known
        try:
            self._most_stored = store.most_stored_syntaxes(self.database)
        except PacsError as error:  # it is a preference: no reason to refuse anybody
            log.warning("the most stored transfer syntaxes are not known: %s", error)
        return self._most_stored


def _context_problem(context: PresentationContext, result: int | None) -> tuple[RefusalKind, str, str]:
    """Why a presentation context was not accepted: (kind, reason, detail)."""
    abstract_syntax = str(context.abstract_syntax)
    name = uids.name_of(abstract_syntax)
    if result == USER_REJECTION:
        reason = f"for {name} the device asks for roles that this archive does not take. Correct the device's settings."
        return RefusalKind.ABSTRACT_SYNTAX, reason, f"{abstract_syntax}: roles"
    if result != TRANSFER_SYNTAXES_NOT_SUPPORTED:
        reason = f"{name} ({abstract_syntax}) is no service of this archive. Nothing to do, if others offer it."
        return RefusalKind.ABSTRACT_SYNTAX, reason, abstract_syntax
    offered = ", ".join(map(str, context.transfer_syntax))
    reason = (
        f"for {name} the device offers only transfer syntaxes that are not taken: {offered}. A private one is taken "
        "when extra_transfer_syntaxes has its UID (docs/reference/settings.md)."
    )
    return RefusalKind.TRANSFER_SYNTAX, reason, f"{abstract_syntax}: {offered}"


@lru_cache(maxsize=1024)  # pynetdicom checks each UID: 30 ms for a usual request. Nobody changes what this gives.
def _context(abstract_syntax: str, syntaxes: tuple[str, ...], as_scu: bool) -> PresentationContext:
    context = PresentationContext()
    context.abstract_syntax = abstract_syntax
    context.transfer_syntax = list(syntaxes)
    if as_scu:  # for C-GET the requestor may take the SCP's role (PS3.7 D.3.3.4)
        context.scu_role = context.scp_role = True
    return context
