"""The steps of a selftest, from the outside: a requestor of pynetdicom's own, so that both ends are not ours.

Each step is one message's service on the node's own socket, and says in a line what it saw. The study is synthetic, two
small images; what comes back is compared byte by byte with what was sent.
"""

from __future__ import annotations

import hashlib
import queue
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.dsutils import encode
from pynetdicom.dul import DULServiceProvider

from pacs import clock
from pacs.errors import SelftestFailed
from pacs.index.selftest import AE_TITLE
from pacs.net.commitment import COMMITTED_ALL, REQUEST_STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
from pacs.net.negotiation import STORAGE_COMMITMENT, STUDY_ROOT_FIND, STUDY_ROOT_GET, STUDY_ROOT_MOVE, VERIFICATION
from pacs.net.selftest import ListeningSocket
from pacs.net.tls import own_client_context, own_sha256
from pacs.settings import Settings

_SERVED = (VERIFICATION, STUDY_ROOT_FIND, STUDY_ROOT_MOVE, STUDY_ROOT_GET, STORAGE_COMMITMENT)
_SIDE = 64  # pixels
#: How long an answer may take, and how long a busy archive is asked again for an association [s].
ANSWER_S, BUSY_S = 60.0, 60.0
_AGAIN_S = 2.0


def synthetic_study(objects: int = 2) -> list[Dataset]:
    """A study that is nobody's: Secondary Capture images of 8 kB."""
    study, series, made = generate_uid(prefix=None), generate_uid(prefix=None), []
    now = clock.now()
    for number in range(1, objects + 1):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.SOPClassUID, ds.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid(prefix=None)
        ds.StudyInstanceUID, ds.SeriesInstanceUID = study, series
        ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Selftest^Pacs", "SELFTEST", "", ""
        ds.StudyDate, ds.StudyTime, ds.AccessionNumber = f"{now:%Y%m%d}", f"{now:%H%M%S}", ""
        ds.ReferringPhysicianName, ds.StudyID, ds.Modality, ds.ConversionType = "", "SELFTEST", "OT", "SYN"
        ds.SeriesNumber, ds.InstanceNumber = "1", str(number)
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.Rows, ds.Columns = 1, "MONOCHROME2", _SIDE, 2 * _SIDE
        ds.BitsAllocated = ds.BitsStored = 8
        ds.HighBit, ds.PixelRepresentation = 7, 0
        noise = hashlib.shake_256(str(ds.SOPInstanceUID).encode()).digest(2 * _SIDE * _SIDE)
        ds.PixelData = noise
        made.append(ds)
    return made


def encoded(ds: Dataset) -> bytes:
    """A data set as it goes over the wire."""
    found = encode(ds, False, True)
    assert found is not None
    return found


class Peer:
    """One association with the node, and what the steps on it saw."""

    def __init__(
        self, assoc: Association, settings: Settings, came: dict[str, bytes], reports: queue.Queue[Any]
    ) -> None:
        self.assoc, self.settings = assoc, settings
        self._came, self._reports = came, reports

    def echo(self) -> str:
        """C-ECHO."""
        _require("C-ECHO", self.assoc.send_c_echo())
        return "answered"

    def store(self, study: list[Dataset]) -> str:
        """C-STORE."""
        for ds in study:
            _require("C-STORE", self.assoc.send_c_store(ds))
        return f"{len(study)} objects stored"

    def find(self, study: list[Dataset]) -> str:
        """C-FIND, at the study level."""
        query = Dataset()
        query.QueryRetrieveLevel, query.StudyInstanceUID = "STUDY", study[0].StudyInstanceUID
        query.PatientID, query.NumberOfStudyRelatedInstances = "", ""
        found = []
        for status, answer in self.assoc.send_c_find(query, STUDY_ROOT_FIND):
            if _require("C-FIND", status, pending=True) in (0xFF00, 0xFF01):
                found.append(answer)
        counts = [int(each.NumberOfStudyRelatedInstances) for each in found if each is not None]
        if counts != [len(study)]:
            raise SelftestFailed(f"C-FIND found {counts} objects, not the {len(study)} that were stored.")
        return "the study is found, with all its objects"

    def move(self, study: list[Dataset]) -> str:
        """C-MOVE to the node itself."""
        last = 0
        for status, _answer in self.assoc.send_c_move(_of_study(study), self.settings.ae_title, STUDY_ROOT_MOVE):
            if _require("C-MOVE", status, pending=True) == 0:
                last = int(status.NumberOfCompletedSuboperations)
        if last != len(study):
            raise SelftestFailed(f"C-MOVE brought {last} of {len(study)} objects.")
        return f"{last} objects sent to itself"

    def get(self, study: list[Dataset]) -> str:
        """C-GET: each object byte by byte as it was sent."""
        self._came.clear()
        for status, _answer in self.assoc.send_c_get(_of_study(study), STUDY_ROOT_GET):
            _require("C-GET", status, pending=True)
        if self._came != {str(ds.SOPInstanceUID): encoded(ds) for ds in study}:
            raise SelftestFailed(
                f"C-GET brought {len(self._came)} objects, and not the {len(study)} as they were sent."
            )
        return f"{len(study)} objects came back as they were sent"

    def commit(self, study: list[Dataset]) -> str:
        """Storage Commitment: asked for, and reported over the same association."""
        request = Dataset()
        request.TransactionUID, items = generate_uid(prefix=None), []
        for ds in study:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
            items.append(item)
        request.ReferencedSOPSequence = items
        status, _answer = self.assoc.send_n_action(
            request, REQUEST_STORAGE_COMMITMENT, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
        )
        _require("N-ACTION", status)
        try:
            event_type, report = self._reports.get(timeout=ANSWER_S)
        except queue.Empty:
            raise SelftestFailed("No report of the storage commitment came.") from None
        committed = len(report.get("ReferencedSOPSequence") or ())
        if (event_type, report.TransactionUID, committed) != (COMMITTED_ALL, request.TransactionUID, len(study)):
            raise SelftestFailed(f"The storage commitment's report says {committed} of {len(study)} objects.")
        return f"{committed} objects committed"


@contextmanager
def associated(settings: Settings, listening: ListeningSocket) -> Iterator[Peer]:
    """An association with the node on one of its ports. Raise SelftestFailed."""
    came: dict[str, bytes] = {}
    reports: queue.Queue[Any] = queue.Queue()

    def on_store(event: evt.Event) -> int:
        request: Any = event.request
        came[str(request.AffectedSOPInstanceUID)] = request.DataSet.getvalue()
        return 0x0000

    def on_report(event: evt.Event) -> tuple[int, None]:
        reports.put((event.event_type, event.event_information))
        return 0x0000, None

    assoc = _ask(settings, listening, [(evt.EVT_C_STORE, on_store), (evt.EVT_N_EVENT_REPORT, on_report)])
    try:
        yield Peer(assoc, settings, came, reports)
    finally:
        if assoc.is_established:
            assoc.release()


def end_associations() -> None:
    """End what is left of associations that did not come about or whose step was given up.

    Their threads are no daemons: one that nobody ends would keep the command from ever ending.
    """
    for thread in threading.enumerate():
        if isinstance(thread, DULServiceProvider):
            thread.kill_dul()


def _ask(settings: Settings, listening: ListeningSocket, handlers: list[Any]) -> Association:
    """An association; a node that has no room for one more at the moment is asked again for a while."""
    ae = AE(AE_TITLE)
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ANSWER_S
    contexts = [build_context(uid, ExplicitVRLittleEndian) for uid in (*_SERVED, SecondaryCaptureImageStorage)]
    role = build_role(SecondaryCaptureImageStorage, scu_role=True, scp_role=True)
    address = "::1" if listening.address == "::1" else "127.0.0.1"
    ends_s = clock.monotonic_s() + BUSY_S
    while True:
        # pynetdicom wraps the socket itself, so the context cannot be used twice.
        tls = (own_client_context(settings.tls_folder), address) if listening.tls else None
        assoc = ae.associate(
            address, listening.port, contexts=contexts, ae_title=settings.ae_title, ext_neg=[role],
            evt_handlers=handlers, tls_args=tls,
        )  # fmt: skip
        if assoc.is_established:
            _require_own(settings, listening, assoc)
            return assoc
        if not assoc.is_rejected or clock.monotonic_s() > ends_s:
            why = "it rejects the association" if assoc.is_rejected else "no association came about"
            raise SelftestFailed(f"Port {listening.port}: {why}. See the receivers' log.")
        time.sleep(_AGAIN_S)


def _require_own(settings: Settings, listening: ListeningSocket, assoc: Association) -> None:
    """Raise SelftestFailed unless the port shows our certificate, and takes all that was asked for."""
    connection = assoc.dul.socket.socket if assoc.dul.socket else None
    if listening.tls:
        shown = connection.getpeercert(binary_form=True) if isinstance(connection, ssl.SSLSocket) else None
        if shown is None or hashlib.sha256(shown).hexdigest() != own_sha256(settings.tls_folder):
            assoc.abort()
            raise SelftestFailed(f"Port {listening.port} shows another certificate than this node's: `pacs tls show`.")
    if assoc.rejected_contexts:
        assoc.abort()
        names = ", ".join(str(context.abstract_syntax) for context in assoc.rejected_contexts)
        raise SelftestFailed(f"Port {listening.port} does not take {names}.")


def _of_study(study: list[Dataset]) -> Dataset:
    wanted = Dataset()
    wanted.QueryRetrieveLevel, wanted.StudyInstanceUID = "STUDY", study[0].StudyInstanceUID
    return wanted


def _require(what: str, status: Dataset, pending: bool = False) -> int:
    """The status of an answer. Raise SelftestFailed unless it is success, or pending where that may be."""
    if "Status" not in status:
        raise SelftestFailed(f"{what}: no answer came. See the receivers' log.")
    found = int(status.Status)
    if found != 0 and not (pending and found in (0xFF00, 0xFF01)):
        raise SelftestFailed(f"{what} was answered with 0x{found:04X}. {status.get('ErrorComment', '')}".strip())
    return found
