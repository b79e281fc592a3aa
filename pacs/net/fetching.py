"""C-FIND and C-GET as SCU: an archive on this machine asked as a workstation asks, and the digests of what comes.

For the drill: what a restored archive gives is compared with the living one's digests. Nothing is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE

from pacs.errors import PacsError
from pacs.model import part10
from pacs.net.negotiation import MESSAGE_SYNTAXES, STUDY_ROOT_FIND, STUDY_ROOT_GET

#: PS3.8 9.3.2.2: odd numbers up to 255, two of which are those of C-FIND and C-GET.
_PAIRS_MAX = 126
_AT_ONCE = 200
_PENDING = (0xFF00, 0xFF01)
_TIMEOUT_S = 300


@dataclass(frozen=True)
class Asked:
    """An object that is asked for."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str


@dataclass
class Given:
    """What was given: the studies that were found, and the SHA-256 of each object's file as a volume would have it."""

    found: set[str]
    digests: dict[str, bytes]


def fetch(port: int, called_ae: str, objects: Sequence[Asked]) -> Given:
    """Ask the archive at a port of this machine for objects, each study by C-FIND and each object by C-GET.

    What does not come is not among what is given. Raise PacsError if it takes no association, or ends one.
    """
    given = Given(set(), {})
    for some in _batches(objects):
        with _associated(port, called_ae, some, given) as assoc:
            for uid in dict.fromkeys(each.study_instance_uid for each in some):
                if _find(assoc, uid):
                    given.found.add(uid)
            for each in some:
                _get(assoc, each)
    return given


def _batches(objects: Sequence[Asked]) -> Iterator[list[Asked]]:
    """So many objects an association that their contexts have room in it."""
    some: list[Asked] = []
    pairs: set[tuple[str, str]] = set()
    for each in objects:
        pair = (each.sop_class_uid, each.transfer_syntax_uid)
        if len(some) >= _AT_ONCE or (pair not in pairs and len(pairs) >= _PAIRS_MAX):
            yield some
            some, pairs = [], set()
        some.append(each)
        pairs.add(pair)
    if some:
        yield some


@contextmanager
def _associated(port: int, called_ae: str, objects: Iterable[Asked], given: Given) -> Iterator[Association]:
    def on_store(event: evt.Event) -> int:
        request = event.request
        assert isinstance(request, C_STORE)
        if request.DataSet is None:
            return 0xC000
        uid = str(request.AffectedSOPInstanceUID)
        digest = hashlib.sha256(
            part10.encode_file_meta(str(request.AffectedSOPClassUID), uid, str(event.context.transfer_syntax))
        )
        digest.update(request.DataSet.getbuffer())
        given.digests[uid] = digest.digest()
        return 0x0000

    pairs = dict.fromkeys((each.sop_class_uid, each.transfer_syntax_uid) for each in objects)
    ae = AE("DRILL")
    ae.maximum_pdu_size = 0
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = _TIMEOUT_S
    assoc = ae.associate(
        "127.0.0.1", port, ae_title=called_ae,
        contexts=[
            *(build_context(uid, list(MESSAGE_SYNTAXES)) for uid in (STUDY_ROOT_FIND, STUDY_ROOT_GET)),
            *(build_context(sop_class, syntax) for sop_class, syntax in pairs),
        ],
        ext_neg=[build_role(uid, scp_role=True) for uid in dict.fromkeys(sop_class for sop_class, _ in pairs)],
        evt_handlers=[(evt.EVT_C_STORE, on_store)],
    )  # fmt: skip
    if not assoc.is_established:
        raise PacsError("The restored archive takes no association. See the log.")
    try:
        yield assoc
    finally:
        if assoc.is_established:
            assoc.release()


def _find(assoc: Association, study_instance_uid: str) -> bool:
    query = Dataset()
    query.QueryRetrieveLevel, query.StudyInstanceUID = "STUDY", study_instance_uid
    query.PatientID, query.NumberOfStudyRelatedInstances = "", None
    answers = [
        identifier
        for status, identifier in assoc.send_c_find(query, STUDY_ROOT_FIND)
        if status.get("Status") in _PENDING and identifier is not None
    ]
    return len(answers) == 1 and str(answers[0].StudyInstanceUID) == study_instance_uid


def _get(assoc: Association, asked: Asked) -> None:
    query = Dataset()
    query.QueryRetrieveLevel = "IMAGE"
    query.StudyInstanceUID, query.SeriesInstanceUID = asked.study_instance_uid, asked.series_instance_uid
    query.SOPInstanceUID = asked.sop_instance_uid
    for status, _identifier in assoc.send_c_get(query, STUDY_ROOT_GET):
        if "Status" not in status:
            raise PacsError("The restored archive ended an association in the middle of a C-GET. See the log.")
