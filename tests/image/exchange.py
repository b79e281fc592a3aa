"""Sends studies to the appliance as a modality does, keeps account of what was acknowledged, and fetches it back.

Data sets are sent as the bytes they are, and come back as the bytes they are: nothing here decodes them. What counts
as acknowledged is a C-STORE response with status 0x0000 that reached us, and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, _config, build_role, evt
from pynetdicom.association import Association

from tests.synthetic import ct_study

# Without this pynetdicom decodes a file and encodes it again, and the comparison would be with its own encoding.
_config.STORE_SEND_CHUNKED_DATASET = True

CALLED, CALLING = "PACS", "TESTER"
_ECHO_TIMEOUT_S = 20.0
_SENDER_LIMIT_S = 120.0
_VERIFICATION = UID("1.2.840.10008.1.1")
_STUDY_ROOT_GET = UID("1.2.840.10008.5.1.4.1.2.2.3")


class ExchangeError(Exception):
    """The appliance did not take or give what it should."""


class AssociationRefusedError(ExchangeError):
    """The appliance answered with A-ASSOCIATE-RJ."""


@dataclass(frozen=True)
class Instance:
    """A file to send, its identity and the SHA-256 of its data set's bytes."""

    file: Path
    study_instance_uid: str
    sop_instance_uid: str
    sha256: str


@dataclass
class Account:
    """What was sent, and of that what was acknowledged, by SOP Instance UID."""

    sent: dict[str, Instance] = field(default_factory=dict)
    acknowledged: dict[str, Instance] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note_sent(self, instance: Instance) -> None:
        """To be called before instance goes out: it may be stored without our hearing of it."""
        with self._lock:
            self.sent[instance.sop_instance_uid] = instance

    def note_acknowledged(self, instance: Instance) -> None:
        """To be called when 0x0000 came for instance."""
        with self._lock:
            self.acknowledged[instance.sop_instance_uid] = instance


@dataclass(frozen=True)
class Comparison:
    """What the appliance gave back against the account.

    UIDs of what is missing and of what is not the same bytes; statuses of retrieves that did not end well.
    """

    compared: int
    missing: tuple[str, ...]
    different: tuple[str, ...]
    refused: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.compared} came back; {len(self.missing)} missing {self.missing[:3]}, {len(self.different)} "
            f"different {self.different[:3]}, retrieves refused: {self.refused}"
        )

    @property
    def is_clean(self) -> bool:
        """Whether every acknowledged instance came back, and every instance that came back is what was sent."""
        return not (self.missing or self.different or self.refused)


def make_study(folder: Path, seed: int, instances: int, size: int) -> list[Instance]:
    """Write a CT study of that many instances, size by size pixels each, to folder. The seed makes its UIDs."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        Instance(
            file=made.write(folder),
            study_instance_uid=made.study_instance_uid,
            sop_instance_uid=made.sop_instance_uid,
            sha256=hashlib.sha256(made.dataset).hexdigest(),
        )
        for made in ct_study(seed, instances, size, size)
    ]


@contextlib.contextmanager
def _associate(port: int, ae: AE, *handlers: tuple[Any, Any]) -> Iterator[Association]:
    """An association with the appliance at port of loopback, released at the end. Raise ExchangeError if refused.

    With a handler, the peer may send CT images to it.
    """
    roles = [build_role(CTImageStorage, scp_role=True)] if handlers else None
    assoc = ae.associate("127.0.0.1", port, ae_title=CALLED, ext_neg=roles, evt_handlers=list(handlers))  # type: ignore[arg-type]
    if assoc.is_rejected:
        raise AssociationRefusedError(f"the association with port {port} was rejected")
    if not assoc.is_established:
        raise ExchangeError(f"no association with port {port}")
    try:
        yield assoc
    finally:
        if assoc.is_established:
            assoc.release()


def echo(port: int) -> int:
    """Send a C-ECHO and return its status."""
    ae = AE(CALLING)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = _ECHO_TIMEOUT_S
    ae.add_requested_context(_VERIFICATION)
    with _associate(port, ae) as assoc:
        return int(assoc.send_c_echo().Status)


def send(port: int, instances: list[Instance], account: Account) -> None:
    """Send instances in one association; end silently when the peer goes away, raise ExchangeError on a refusal."""
    ae = AE(CALLING)
    ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    ae.dimse_timeout = ae.network_timeout = 60
    with _associate(port, ae) as assoc:
        for instance in instances:
            account.note_sent(instance)
            try:
                status = assoc.send_c_store(instance.file)
            except RuntimeError:  # the association went away between two instances
                return
            if "Status" not in status:
                return
            if status.Status != 0x0000:
                raise ExchangeError(f"C-STORE was answered with 0x{status.Status:04X}")
            account.note_acknowledged(instance)


@contextlib.contextmanager
def sending(port: int, batches: list[list[Instance]], account: Account, enough: int, limit_s: float) -> Iterator[None]:
    """Send each batch in an association of its own, all at once, in the background.

    The block runs while they are still sending, as soon as `enough` more instances were acknowledged; it is to end
    the machine, and so the senders. Raise ExchangeError if it takes longer than limit_s seconds.
    """
    before = len(account.acknowledged)
    senders = [threading.Thread(target=_send_quietly, args=(port, batch, account), daemon=True) for batch in batches]
    for sender in senders:
        sender.start()
    deadline = time.monotonic() + limit_s
    while len(account.acknowledged) - before < enough:
        if time.monotonic() > deadline or not any(sender.is_alive() for sender in senders):
            got = len(account.acknowledged) - before
            raise ExchangeError(f"only {got} of {enough} instances were acknowledged in {limit_s:.0f} s")
        time.sleep(0.01)
    yield
    for sender in senders:  # the last answers may be on their way from our own socket
        sender.join(_SENDER_LIMIT_S)
        if sender.is_alive():
            raise ExchangeError("a sender goes on although the machine is gone")


def _send_quietly(port: int, batch: list[Instance], account: Account) -> None:
    with contextlib.suppress(ExchangeError):
        send(port, batch, account)


def fetch(port: int, study_instance_uid: str) -> tuple[dict[str, str], str]:
    """Fetch a study by C-GET.

    Return the SHA-256 of each data set's bytes by SOP Instance UID, and the final status, "0000" if all went well.
    """
    received: dict[str, str] = {}

    def take(event: Any) -> int:  # pynetdicom types a request as any of all kinds
        content = event.request.DataSet.getvalue()
        received[str(event.request.AffectedSOPInstanceUID)] = hashlib.sha256(content).hexdigest()
        return 0x0000

    ae = AE(CALLING)
    ae.add_requested_context(_STUDY_ROOT_GET)
    ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    query = Dataset()
    query.QueryRetrieveLevel = "STUDY"
    query.StudyInstanceUID = study_instance_uid
    with _associate(port, ae, (evt.EVT_C_STORE, take)) as assoc:
        statuses = [status for status, _ in assoc.send_c_get(query, _STUDY_ROOT_GET)]
    final = statuses[-1].get("Status") if statuses else None
    return received, "no answer" if final is None else f"{final:04X}"


def compare(port: int, account: Account, studies: set[str] | None = None) -> Comparison:
    """Fetch these studies, or every one something was acknowledged of, and compare all that comes back.

    What was sent but never acknowledged need not be there; if it is, it must be whole.
    """
    wanted = {
        uid: instance
        for uid, instance in account.acknowledged.items()
        if studies is None or instance.study_instance_uid in studies
    }
    received: dict[str, str] = {}
    refused: list[str] = []
    for study in sorted({instance.study_instance_uid for instance in wanted.values()}):
        parts, status = fetch(port, study)
        received |= parts
        if status != "0000":
            refused.append(status)
    missing = sorted(wanted.keys() - received.keys())
    different = sorted(
        uid for uid, sha256 in received.items() if uid not in account.sent or account.sent[uid].sha256 != sha256
    )
    return Comparison(len(received), tuple(missing), tuple(different), tuple(refused))
