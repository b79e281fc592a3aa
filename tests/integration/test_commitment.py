"""Storage commitment: pynetdicom as the modality, real files behind it."""

from __future__ import annotations

import json
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.association import Association

from tests import peer
from tests.fix_instance import Dev
from tests.peer import RawObject
from tests.synthetic import SyntheticObject, ct_study

COMMITMENT, INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
CT, MR, EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.1.2.1"


class Modality:
    """A modality that asks for commitment, and the reports that it gets."""

    def __init__(self, dev: Dev, title: str = "MODALITY") -> None:
        self.dev, self.title = dev, title
        self.reports: list[tuple[int, Dataset, bool]] = []  # event type, information, whether over its own association
        self.came = threading.Event()
        self.status = 0x0000
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = int(sock.getsockname()[1])
        self._server: Any = None

    def listen(self) -> None:
        ae = AE(self.title)
        ae.add_supported_context(COMMITMENT, EXPLICIT, scu_role=True, scp_role=True)
        self._server = ae.start_server(
            ("127.0.0.1", self.port), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._take, [False])]
        )

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()

    def associate(self) -> Association:
        ae = AE(self.title)
        assoc = ae.associate(
            "127.0.0.1", self.dev.dicom_port, contexts=[build_context(COMMITMENT, EXPLICIT)], ae_title="PACS",
            ext_neg=[build_role(COMMITMENT, scu_role=True)],
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._take, [True])],
        )  # fmt: skip
        assert assoc.is_established
        return assoc

    def _take(self, event: evt.Event, is_same: bool) -> tuple[int, None]:
        if self.status == 0:
            self.reports.append((event.request.EventTypeID, event.event_information, is_same))
            self.came.set()
        return self.status, None

    def wait(self, timeout_s: float = 120) -> tuple[int, Dataset, bool]:
        assert self.came.wait(timeout_s), self.dev.log()[-3000:]
        self.came.clear()
        return self.reports[-1]

    def ask(self, assoc: Association, referenced: list[tuple[str, str]], transaction: str | None = None) -> int:
        information = Dataset()
        information.TransactionUID = transaction or generate_uid()
        information.ReferencedSOPSequence = []
        for sop_class, instance in referenced:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, instance
            information.ReferencedSOPSequence.append(item)
        status, _reply = assoc.send_n_action(information, 1, COMMITMENT, INSTANCE)
        return int(status.Status)


def named(study: list[SyntheticObject]) -> list[tuple[str, str]]:
    return [(made.sop_class_uid, made.sop_instance_uid) for made in study]


def outcome(information: Dataset) -> tuple[set[str], dict[str, int]]:
    """What the report says: the UIDs that are committed, and the failed ones with their reasons."""
    return (
        {item.ReferencedSOPInstanceUID for item in information.get("ReferencedSOPSequence", [])},
        {item.ReferencedSOPInstanceUID: item.FailureReason for item in information.get("FailedSOPSequence", [])},
    )


def listed(dev: Dev) -> list[dict[str, Any]]:
    return list(json.loads(dev.pacs("commitment", "list", "--json").stdout))


def wait_for(condition: Callable[[], object], timeout_s: float = 120) -> None:
    ends = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < ends, "it did not come about"
        time.sleep(0.1)


@pytest.fixture
def modality(dev: Dev) -> Iterator[Modality]:
    made = Modality(dev, f"M{uuid.uuid4().hex[:8].upper()}")
    yield made
    made.close()
    dev.pacs("device", "remove", made.title.lower(), check=False)


def make_known(modality: Modality) -> None:
    modality.dev.pacs(
        "device", "add", modality.title.lower(), "--ae-title", modality.title, "--host", "127.0.0.1",
        "--port", str(modality.port),
    )  # fmt: skip


def stored(dev: Dev, seed: int, count: int = 3) -> list[SyntheticObject]:
    study = ct_study(seed, count, 8, 8)
    assert set(peer.store(dev.dicom_port, map(RawObject.of, study))) == {0x0000}
    return study


def file_of(dev: Dev, made: SyntheticObject) -> Path:
    digests = {path: path.read_bytes() for path in (dev.data / "tier1" / "objects").rglob("*.dcm")}
    return next(path for path, content in digests.items() if content.endswith(made.dataset))


def test_a_report_over_the_association_that_asked(dev: Dev, modality: Modality) -> None:
    study = stored(dev, 901)
    assoc = modality.associate()
    transaction = generate_uid()
    assert modality.ask(assoc, named(study), transaction) == 0x0000
    kind, information, is_same = modality.wait()
    assert (kind, is_same, information.TransactionUID) == (1, True, transaction)
    assert outcome(information) == ({made.sop_instance_uid for made in study}, {})
    assert "FailedSOPSequence" not in information
    assoc.release()
    wait_for(lambda: [row["state"] for row in listed(dev) if row["transaction_uid"] == transaction] == ["reported"])


def test_a_report_over_a_new_association_when_the_modality_hung_up(dev: Dev, modality: Modality) -> None:
    study = stored(dev, 902)
    make_known(modality)
    modality.listen()
    assoc = modality.associate()
    assert modality.ask(assoc, [*named(study), (CT, "1.2.3.404"), (MR, study[0].sop_instance_uid)]) == 0x0000
    assoc.abort()
    kind, information, is_same = modality.wait()
    assert (kind, is_same) == (2, False)
    committed, failed = outcome(information)
    assert committed == {made.sop_instance_uid for made in study}
    assert failed == {"1.2.3.404": 0x0112, study[0].sop_instance_uid: 0x0119}
    assert information.RetrieveAETitle == "PACS"
    assert len(modality.reports) == 1


def test_bytes_that_are_not_those_that_were_stored_are_not_committed_to_and_are_healed_by_sending_again(
    dev: Dev, modality: Modality
) -> None:
    study = stored(dev, 903)
    changed, missing = file_of(dev, study[0]), file_of(dev, study[1])
    content = bytearray(changed.read_bytes())
    content[-1] ^= 1
    changed.chmod(0o640)
    changed.write_bytes(content)
    missing.unlink()
    assoc = modality.associate()
    assert modality.ask(assoc, named(study)) == 0x0000
    kind, information, _is_same = modality.wait()
    assert kind == 2
    assert outcome(information)[1] == {study[0].sop_instance_uid: 0x0110, study[1].sop_instance_uid: 0x0110}
    assert dev.pacs("check", check=False).returncode == 2
    assert set(peer.store(dev.dicom_port, map(RawObject.of, study))) == {0x0000}
    assert modality.ask(assoc, named(study)) == 0x0000
    assert modality.wait()[0] == 1
    assoc.release()


def test_the_same_request_again_is_answered_again_and_its_uid_for_others_is_not_taken(
    dev: Dev, modality: Modality
) -> None:
    study, transaction = stored(dev, 904), generate_uid()
    assoc = modality.associate()
    for _ in range(2):
        assert modality.ask(assoc, named(study), transaction) == 0x0000
        assert modality.wait()[0] == 1
    assert modality.ask(assoc, named(study)[:1], transaction) == 0x0000
    kind, information, _is_same = modality.wait()
    assert (kind, outcome(information)) == (2, (set(), {study[0].sop_instance_uid: 0x0131}))
    assoc.release()


def test_stores_go_on_while_a_report_is_made_ready(dev: Dev, modality: Modality) -> None:
    """Over one association: the report comes between two messages."""
    study, more = stored(dev, 905, 20), ct_study(906, 20, 8, 8)
    ae = AE(modality.title)
    assoc = ae.associate(
        "127.0.0.1", dev.dicom_port, contexts=[build_context(COMMITMENT, EXPLICIT), build_context(CT, EXPLICIT)],
        ae_title="PACS", evt_handlers=[(evt.EVT_N_EVENT_REPORT, modality._take, [True])],
    )  # fmt: skip
    assert modality.ask(assoc, named(study)) == 0x0000
    kind, _information, is_same = modality.wait()
    assert (kind, is_same) == (1, True)
    assert peer.store_on(assoc, RawObject.of(more[0])) == 0x0000
    assert assoc.is_established
    assoc.release()


@pytest.mark.parametrize(
    ("action", "instance", "change", "status"),
    [
        (2, INSTANCE, None, 0x0123),
        (1, "1.2.3", None, 0x0112),
        (1, INSTANCE, "TransactionUID", 0x0115),
        (1, INSTANCE, "ReferencedSOPSequence", 0x0115),
    ],
)
def test_a_request_that_is_none_is_refused(
    dev: Dev, modality: Modality, action: int, instance: str, change: str | None, status: int
) -> None:
    information = Dataset()
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT, "1.2.3"
    information.TransactionUID, information.ReferencedSOPSequence = generate_uid(), [item]
    if change:
        delattr(information, change)
        information.RetrieveAETitle = "X"
    assoc = modality.associate()
    answer, _reply = assoc.send_n_action(information, action, COMMITMENT, instance)
    assert answer.Status == status
    assert assoc.is_established
    assoc.release()


def test_a_modality_that_is_away_gets_its_report_when_it_is_back_even_after_a_kill(new_dev: Callable[..., Dev]) -> None:
    dev = new_dev().start()
    modality = Modality(dev)
    make_known(modality)
    study = stored(dev, 907)
    modality.status = 0x0110  # should the report be faster than the kill
    assoc = modality.associate()
    assert modality.ask(assoc, named(study)) == 0x0000
    dev.kill_all()
    modality.status = 0x0000
    dev.start()
    with psycopg.connect(f"host={dev.data / 'run'} dbname=pacs user=pacs", autocommit=True) as connection:
        connection.execute("UPDATE commitment SET next_try_at = now()")  # as if the dead receiver's time had passed
    # It was read, and nobody took the report. One that was faster than the kill was answered with 0x0110.
    wait_for(lambda: "Is it switched on" in (listed(dev)[0]["last_error"] or ""))
    modality.listen()
    try:
        dev.pacs("commitment", "retry", str(listed(dev)[0]["key"]))
        kind, information, is_same = modality.wait(60)
        assert (kind, is_same) == (1, False)
        assert outcome(information)[0] == {made.sop_instance_uid for made in study}
        wait_for(lambda: listed(dev)[0]["state"] == "reported")
    finally:
        modality.close()


def test_who_cannot_be_told_is_told_of(dev: Dev, modality: Modality) -> None:
    study = stored(dev, 908)
    assoc = modality.associate()
    assert modality.ask(assoc, named(study)) == 0x0000
    assoc.abort()
    wait_for(lambda: any(row["last_error"] for row in listed(dev)))
    (row,) = [row for row in listed(dev) if row["last_error"]]
    assert "pacs device add" in row["last_error"]
    dev.pacs("commitment", "drop", str(row["key"]))
    assert row["key"] not in [each["key"] for each in listed(dev)]
