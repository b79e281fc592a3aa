"""A DICOM peer that sends and takes data sets as the bytes they are, through pynetdicom. It decodes nothing."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import _read_file_meta_info, read_preamble
from pynetdicom import AE, _config, build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu import A_ASSOCIATE_RJ

from pacs.model.record import read_record
from tests.synthetic import SyntheticObject

_config.LOG_HANDLER_LEVEL = "none"
STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"
VERIFICATION = "1.2.840.10008.1.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@dataclass(frozen=True)
class RawObject:
    """An encoded data set and what its message says of it."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    dataset: bytes

    @classmethod
    def of(cls, made: SyntheticObject) -> RawObject:
        """A synthetic object as a sender has it."""
        return cls(made.sop_class_uid, made.sop_instance_uid, made.transfer_syntax_uid, made.dataset)


def read_raw(path: Path) -> RawObject:
    """A Part 10 file's data set as raw bytes, named as a sender names it: by the data set's own UIDs where it has any.

    Raise ValueError if its meta information says no transfer syntax.
    """
    file = DicomBytesIO(path.read_bytes())
    read_preamble(file, force=False)
    meta = _read_file_meta_info(file)
    if "TransferSyntaxUID" not in meta:
        raise ValueError("no transfer syntax")
    dataset = file.read()
    try:
        ds = pydicom.dcmread(path, specific_tags=["SOPClassUID", "SOPInstanceUID"])
    except Exception:  # a broken one: its meta information has to do
        ds = Dataset()
    return RawObject(
        str(ds.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or SECONDARY_CAPTURE),
        str(ds.get("SOPInstanceUID") or meta.get("MediaStorageSOPInstanceUID") or "1.2.3.4"),
        str(meta.TransferSyntaxUID),
        dataset,
    )


def noted(received: list[Any]) -> list[Any]:
    """pynetdicom's event handlers that note each PDU that comes in `received`."""
    return [(evt.EVT_PDU_RECV, lambda event: received.append(event.pdu))]


def rejection_in(received: Iterable[Any]) -> tuple[int, int, int]:
    """Result, source and reason of the A-ASSOCIATE-RJ among PDUs that came.

    pynetdicom itself calls a rejection an abort when it has closed its socket before it looks whether it is connected.
    """
    (answer,) = [pdu for pdu in received if isinstance(pdu, A_ASSOCIATE_RJ)]
    return answer.result, answer.source, answer.reason_diagnostic


@contextmanager
def associated(
    port: int,
    contexts: Iterable[tuple[str, str]],
    calling: str = "TESTER",
    taken: dict[str, RawObject] | None = None,
    host: str = "127.0.0.1",
    patience_s: float = 10,
) -> Iterator[Association]:
    """An association with (abstract syntax, transfer syntax) contexts. Objects that come by C-GET go into `taken`."""

    def on_store(event: evt.Event) -> int:
        assert taken is not None and event.request.DataSet is not None
        taken[str(event.request.AffectedSOPInstanceUID)] = RawObject(
            str(event.request.AffectedSOPClassUID),
            str(event.request.AffectedSOPInstanceUID),
            str(event.context.transfer_syntax),
            event.request.DataSet.getvalue(),
        )
        return 0x0000

    ae = AE(calling)
    ae.maximum_pdu_size = 0
    ae.dimse_timeout = patience_s  # an aborted association answers nothing
    if host != "127.0.0.1":
        ae.connection_timeout = ae.acse_timeout = patience_s  # a machine without power neither
    requested = [build_context(abstract, syntax) for abstract, syntax in contexts]
    roles = (
        [] if taken is None else [build_role(uid, scp_role=True) for uid in {str(c.abstract_syntax) for c in requested}]
    )
    assoc = ae.associate(
        host, port, contexts=requested, ae_title="PACS", ext_neg=roles,
        evt_handlers=[(evt.EVT_C_STORE, on_store)] if taken is not None else [],
    )  # fmt: skip
    try:
        yield assoc
    finally:
        if assoc.is_established:
            assoc.release()


def hold(assoc: Association) -> None:
    """Keep pynetdicom's own thread from taking the answer that we wait for, until its checkpoint is set again.

    pynetdicom's flag says "paused" before the thread is: under load it then took an answer in a thousand. That it
    waits is certain when it is among the event's waiters.
    """
    assoc._reactor_checkpoint.clear()
    while not assoc._reactor_checkpoint._cond._waiters and assoc.is_established:  # type: ignore[attr-defined]
        time.sleep(0.0005)


def store_on(assoc: Association, raw: RawObject, message_id: int = 1) -> int | None:
    """Send one object in the context that is its own; return the answer's status, None if none came."""
    context = next(
        (
            each
            for each in assoc.accepted_contexts
            if each.abstract_syntax == raw.sop_class_uid and each.transfer_syntax[0] == raw.transfer_syntax_uid
        ),
        None,
    )
    if context is None:
        return None
    request = C_STORE()
    request.MessageID, request.Priority = message_id, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = raw.sop_class_uid, raw.sop_instance_uid
    request.DataSet = BytesIO(raw.dataset)
    hold(assoc)
    try:
        if not assoc.is_established:
            return None
        assoc.dimse.send_msg(request, context.context_id)
        _id, response = assoc.dimse.get_msg(block=True)
    except (OSError, struct.error):
        return None
    finally:
        assoc._reactor_checkpoint.set()
    return None if response is None else response.Status


def store(port: int, objects: Iterable[RawObject], calling: str = "TESTER") -> list[int | None]:
    """Send objects over one association; return the status of each."""
    objects = list(objects)
    contexts = dict.fromkeys((raw.sop_class_uid, raw.transfer_syntax_uid) for raw in objects)
    with associated(port, contexts, calling) as assoc:
        return [store_on(assoc, raw, number % 65535 + 1) for number, raw in enumerate(objects)]


def get(
    port: int,
    study_instance_uids: Iterable[str],
    offered: Iterable[tuple[str, str]],
    calling: str = "TESTER",
    host: str = "127.0.0.1",
    patience_s: float = 10,
) -> dict[str, RawObject]:
    """C-GET studies, offering these (SOP class, transfer syntax) pairs; return what came, by SOP Instance UID."""
    taken: dict[str, RawObject] = {}
    contexts = [(STUDY_ROOT_GET, "1.2.840.10008.1.2.1"), *dict.fromkeys(offered)]
    with associated(port, contexts, calling, taken, host, patience_s) as assoc:
        for uid in study_instance_uids:
            query = Dataset()
            query.QueryRetrieveLevel, query.StudyInstanceUID = "STUDY", uid
            for status, _identifier in assoc.send_c_get(query, STUDY_ROOT_GET):
                assert "Status" in status, "the association ended in the middle of a C-GET"
            said = f"0x{int(status.Status):04X} {status.get('ErrorComment', '')}"
            assert taken or int(status.Status) >> 12 not in (0xA, 0xC), f"a C-GET brought nothing: {said}"
    return taken


def study_uid_of(raw: RawObject) -> str:
    """The StudyInstanceUID of an intact object; its own UID where it has none (a color palette)."""
    return read_record(raw.dataset, raw.transfer_syntax_uid).study_instance_uid
