"""Objects given back to devices: C-MOVE to DCMTK's storescp, C-GET by getscu, in what the receiver takes."""

from __future__ import annotations

import itertools
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pynetdicom import AE, build_context, evt

from tests import peer
from tests.dcmtk import dcmtk
from tests.fix_instance import Dev
from tests.peer import STUDY_ROOT_GET, RawObject
from tests.synthetic import ct_study
from tests.unit.model.encoding import EXPLICIT, IMPLICIT, element, identity, item

STUDY_ROOT_MOVE, PATIENT_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2", "1.2.840.10008.5.1.4.1.2.1.2"
CT, JPEG_XL, RLE = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.5"
STUDY = ct_study(41, 3, 8, 8)
_ports = itertools.count(11200)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def fragments(uid: str, study: str, syntax: str) -> RawObject:
    """An object with encapsulated pixel data that nobody can decode."""
    pixels = b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + item(b"") + item(b"abcd") + b"\xfe\xff\xdd\xe0\0\0\0\0"
    head = identity(SOPInstanceUID=uid, StudyInstanceUID=study, SeriesInstanceUID=study)
    return RawObject(CT, uid, syntax, head + element(0x00280010, "US", b"\1\0") + pixels)


UNDECODABLE = [fragments(f"1.2.8.{number}", "1.2.8", JPEG_XL) for number in range(2)]
DECODABLE = RawObject(
    CT, "1.2.8.9", EXPLICIT, identity(SOPInstanceUID="1.2.8.9", StudyInstanceUID="1.2.8", SeriesInstanceUID="1.2.8")
)


@pytest.fixture(scope="module")
def archive(dev: Dev) -> Dev:
    """A CT study, a study that is undecodable in part, and compressed files of pydicom's."""
    stored = [RawObject.of(each) for each in STUDY] + UNDECODABLE + [DECODABLE]
    stored += [compressed(name) for name in COMPRESSED]
    assert set(peer.store(dev.dicom_port, stored)) == {0x0000}
    return dev


COMPRESSED = ("MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "image_dfl.dcm", "MR_small_bigendian.dcm")


def compressed(name: str) -> RawObject:
    """One of pydicom's files, in a study of its own."""
    path = Path(get_testdata_file(name, download=False))
    raw = peer.read_raw(path)
    ds = pydicom.dcmread(path)
    # Its own UIDs stand in several files: the data set is kept, but for new UIDs of the same length.
    number = COMPRESSED.index(name)
    old = str(ds.SOPInstanceUID)
    new = old[:-2] + f"{number + 10}"
    if raw.transfer_syntax_uid == "1.2.840.10008.1.2.1.99":
        return raw
    dataset = raw.dataset.replace(old.encode(), new.encode())
    study = str(ds.StudyInstanceUID)
    dataset = dataset.replace(study.encode(), (study[:-2] + f"{number + 10}").encode())
    return RawObject(raw.sop_class_uid, new, raw.transfer_syntax_uid, dataset)


@contextmanager
def storescp(dev: Dev, folder: Path, *options: str) -> Iterator[str]:
    """DCMTK's storescp as a device that the archive knows; yields its AE title."""
    port, number = free_port(), next(_ports)
    title = f"DCMTK{number}"
    process = subprocess.Popen(
        [dcmtk("storescp"), "-od", str(folder), "-aet", title, *options, str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        dev.pacs("device", "add", title.lower(), "--ae-title", title, "--host", "127.0.0.1", "--port", str(port))
        yield title
    finally:
        process.terminate()
        process.wait(10)


def move(
    dev: Dev, destination: str, root: str = STUDY_ROOT_MOVE, **keys: object
) -> list[tuple[Dataset, Dataset | None]]:
    """Every response to a C-MOVE with the identifier's keys."""
    query = Dataset()
    for keyword, value in keys.items():
        setattr(query, keyword, value)
    with peer.associated(dev.dicom_port, [(root, EXPLICIT)]) as assoc:
        return list(assoc.send_c_move(query, destination, root))


def final(responses: list[tuple[Dataset, Dataset | None]]) -> Dataset:
    status = responses[-1][0]
    assert "Status" in status, "the association ended"
    return status


def counts(status: Dataset) -> tuple[int, int, int]:
    return (
        status.NumberOfCompletedSuboperations,
        status.NumberOfFailedSuboperations,
        status.NumberOfWarningSuboperations,
    )


# --- C-MOVE ----------------------------------------------------------------------------------------------------------


def test_dcmtk_moves_to_dcmtk(archive: Dev, tmp_path: Path) -> None:
    with storescp(archive, tmp_path, "+B") as title:
        words = [dcmtk("movescu"), "-S", "-aec", "PACS", "-aem", title, "127.0.0.1", str(archive.dicom_port)]
        words += ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={STUDY[0].study_instance_uid}"]
        subprocess.run(words, check=True, timeout=60)
    received = {path: peer.read_raw(path) for path in tmp_path.iterdir()}
    assert {raw.sop_instance_uid: raw.dataset for raw in received.values()} == {
        made.sop_instance_uid: made.dataset for made in STUDY
    }


@pytest.mark.parametrize(
    ("root", "keys", "count"),
    [
        (STUDY_ROOT_MOVE, {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": STUDY[0].study_instance_uid}, 3),
        (
            STUDY_ROOT_MOVE,
            {
                "QueryRetrieveLevel": "IMAGE",
                "StudyInstanceUID": STUDY[0].study_instance_uid,
                "SOPInstanceUID": [STUDY[0].sop_instance_uid, STUDY[2].sop_instance_uid],
            },
            2,
        ),
        (PATIENT_ROOT_MOVE, {"QueryRetrieveLevel": "PATIENT", "PatientID": "P41"}, 3),
        (STUDY_ROOT_MOVE, {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "9.9.9"}, 0),
    ],
)
def test_a_move_at_each_level(archive: Dev, tmp_path: Path, root: str, keys: dict[str, object], count: int) -> None:
    with storescp(archive, tmp_path) as title:
        responses = move(archive, title, root, **keys)
    assert final(responses).Status == 0x0000
    assert counts(final(responses)) == (count, 0, 0)
    assert len(list(tmp_path.iterdir())) == count
    assert "NumberOfRemainingSuboperations" not in final(responses)
    pending = [status for status, _identifier in responses if status.Status == 0xFF00]
    remaining = [status.NumberOfRemainingSuboperations for status in pending]
    assert remaining[:1] == [count - 1] * (count > 1), "the first object is told at once, others now and then"
    assert remaining == sorted(remaining, reverse=True)


def test_a_move_to_an_unknown_destination(archive: Dev) -> None:
    responses = move(archive, "NOBODY", QueryRetrieveLevel="STUDY", StudyInstanceUID=STUDY[0].study_instance_uid)
    assert final(responses).Status == 0xA801


def test_a_move_to_a_device_that_is_switched_off(archive: Dev) -> None:
    archive.pacs("device", "add", "off", "--ae-title", "OFF", "--host", "127.0.0.1", "--port", str(free_port()))
    responses = move(archive, "OFF", QueryRetrieveLevel="STUDY", StudyInstanceUID=STUDY[0].study_instance_uid)
    assert final(responses).Status == 0xA702
    assert counts(final(responses)) == (0, 3, 0)
    assert list(responses[-1][1].FailedSOPInstanceUIDList) == [made.sop_instance_uid for made in STUDY]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "keys",
    [
        {"QueryRetrieveLevel": "STUDY"},
        {"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": "1.2"},
        {"QueryRetrieveLevel": "NONSENSE", "StudyInstanceUID": "1.2"},
        {"QueryRetrieveLevel": "PATIENT", "PatientID": "P41"},
        {"StudyInstanceUID": "1.2"},
    ],
)
def test_a_move_without_its_levels_unique_key_is_refused(archive: Dev, tmp_path: Path, keys: dict[str, str]) -> None:
    with storescp(archive, tmp_path) as title:
        assert final(move(archive, title, **keys)).Status == 0xA900
    assert not list(tmp_path.iterdir())


def test_a_receiver_that_takes_implicit_little_endian_only(archive: Dev, tmp_path: Path) -> None:
    """RLE, JPEG 2000, deflate and big endian are decoded; the pixels stay what they were."""
    with storescp(archive, tmp_path, "+xi") as title:
        for name in COMPRESSED:
            raw = compressed(name)
            responses = move(archive, title, QueryRetrieveLevel="STUDY", StudyInstanceUID=peer.study_uid_of(raw))
            assert final(responses).Status == 0x0000, name
            assert counts(final(responses))[1:] == (0, 0), name
    received = {ds.SOPInstanceUID: ds for ds in map(pydicom.dcmread, tmp_path.iterdir())}
    assert {str(ds.file_meta.TransferSyntaxUID) for ds in received.values()} == {IMPLICIT}
    for name in COMPRESSED:
        original = pydicom.dcmread(get_testdata_file(name, download=False))
        sent = received[compressed(name).sop_instance_uid]
        assert np.array_equal(sent.pixel_array, original.pixel_array), name
        assert sent.PatientName == original.PatientName


def test_a_receiver_that_takes_all_gets_the_bytes_that_are_stored(archive: Dev, tmp_path: Path) -> None:
    # storescp itself ends an association that brings it a deflated data set with +B.
    names = [name for name in COMPRESSED if name != "image_dfl.dcm"]
    with storescp(archive, tmp_path, "+xa", "+B") as title:
        for name in names:
            uid = peer.study_uid_of(compressed(name))
            status = final(move(archive, title, QueryRetrieveLevel="STUDY", StudyInstanceUID=uid))
            assert status.Status == 0x0000, name
    received = {raw.sop_instance_uid: raw for raw in map(peer.read_raw, tmp_path.iterdir())}
    for name in names:
        raw = compressed(name)
        assert received[raw.sop_instance_uid].transfer_syntax_uid == raw.transfer_syntax_uid
        assert received[raw.sop_instance_uid].dataset == raw.dataset


def test_what_cannot_be_decoded_is_a_failed_sub_operation_with_its_uid(archive: Dev, tmp_path: Path) -> None:
    before = len(archive.log())
    with storescp(archive, tmp_path, "+xi") as title:
        responses = move(archive, title, QueryRetrieveLevel="STUDY", StudyInstanceUID="1.2.8")
    assert final(responses).Status == 0xB000
    assert counts(final(responses)) == (1, 2, 0)
    assert list(responses[-1][1].FailedSOPInstanceUIDList) == ["1.2.8.0", "1.2.8.1"]  # type: ignore[union-attr]
    assert len(list(tmp_path.iterdir())) == 1
    written = archive.log()[before:]
    assert "C-MOVE: 2 objects: Stored in JPEG XL" in written
    assert str(final(responses).ErrorComment).startswith("Stored in JPEG XL")
    assert "Let the receiver accept the stored one" in written
    assert "Doe" not in written


def test_a_receiver_that_refuses_objects_is_reported(archive: Dev) -> None:
    """Each answer counts as what it is: success, warning, failure."""
    answers = iter([0x0000, 0xB000, 0xA700])
    port = free_port()
    ae = AE("PICKY")
    ae.add_supported_context(CT, EXPLICIT)
    handlers = [(evt.EVT_C_STORE, lambda _event: next(answers))]
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    try:
        archive.pacs("device", "add", "picky", "--ae-title", "PICKY", "--host", "127.0.0.1", "--port", str(port))
        responses = move(archive, "PICKY", QueryRetrieveLevel="STUDY", StudyInstanceUID=STUDY[0].study_instance_uid)
    finally:
        server.shutdown()
    assert final(responses).Status == 0xB000
    assert counts(final(responses)) == (1, 1, 1)
    assert responses[-1][1].FailedSOPInstanceUIDList == STUDY[2].sop_instance_uid  # type: ignore[union-attr]


def test_a_receiver_that_goes_away_in_the_middle_is_reported(archive: Dev) -> None:
    port = free_port()
    ae = AE("GOING")
    ae.add_supported_context(CT, EXPLICIT)

    def leave(event: evt.Event) -> int:
        event.assoc.abort()
        return 0x0000

    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, leave)])
    try:
        archive.pacs("device", "add", "going", "--ae-title", "GOING", "--host", "127.0.0.1", "--port", str(port))
        responses = move(archive, "GOING", QueryRetrieveLevel="STUDY", StudyInstanceUID=STUDY[0].study_instance_uid)
    finally:
        server.shutdown()
    assert final(responses).Status == 0xA702
    assert counts(final(responses))[1] == 3


def test_the_mover_is_named_to_the_receiver(archive: Dev) -> None:
    """Move Originator AE title and message id (PS3.7 9.3.1.1)."""
    seen = []
    port = free_port()
    ae = AE("ASKS")
    ae.add_supported_context(CT, EXPLICIT)

    def take(event: evt.Event) -> int:
        request = event.request
        seen.append((str(request.MoveOriginatorApplicationEntityTitle).strip(), request.MoveOriginatorMessageID))
        return 0x0000

    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, take)])
    try:
        archive.pacs("device", "add", "asks", "--ae-title", "ASKS", "--host", "127.0.0.1", "--port", str(port))
        move(archive, "ASKS", QueryRetrieveLevel="STUDY", StudyInstanceUID=STUDY[0].study_instance_uid)
    finally:
        server.shutdown()
    assert seen == [("TESTER", 1)] * 3


# --- C-GET -----------------------------------------------------------------------------------------------------------


def test_dcmtk_gets_the_bytes_that_were_sent(archive: Dev, tmp_path: Path) -> None:
    words = [dcmtk("getscu"), "-S", "+B", "-od", str(tmp_path), "-aec", "PACS", "127.0.0.1", str(archive.dicom_port)]
    words += ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={STUDY[0].study_instance_uid}"]
    subprocess.run(words, check=True, capture_output=True, timeout=60)
    received = {raw.sop_instance_uid: raw.dataset for raw in map(peer.read_raw, tmp_path.iterdir())}
    assert received == {made.sop_instance_uid: made.dataset for made in STUDY}


def get(
    dev: Dev, study: str, offered: list[tuple[str, str]], roles: bool = True
) -> tuple[Dataset, Dataset | None, dict[str, RawObject]]:
    taken: dict[str, RawObject] = {}
    query = Dataset()
    query.QueryRetrieveLevel, query.StudyInstanceUID = "STUDY", study
    contexts = [(STUDY_ROOT_GET, EXPLICIT), *offered]
    with peer.associated(dev.dicom_port, contexts, taken=taken if roles else None) as assoc:
        responses = list(assoc.send_c_get(query, STUDY_ROOT_GET))
    return final(responses), responses[-1][1], taken


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_get_in_the_stored_syntax_or_another(archive: Dev, name: str) -> None:
    raw = compressed(name)
    uid = peer.study_uid_of(raw)
    for syntax in (raw.transfer_syntax_uid, EXPLICIT, IMPLICIT):
        status, _failed, taken = get(archive, uid, [(raw.sop_class_uid, syntax)])
        assert (status.Status, *counts(status)) == (0x0000, 1, 0, 0)
        assert taken[raw.sop_instance_uid].transfer_syntax_uid == syntax
        assert (taken[raw.sop_instance_uid].dataset == raw.dataset) == (syntax == raw.transfer_syntax_uid)
    # offered both, the stored one is taken
    _status, _failed, taken = get(archive, uid, [(raw.sop_class_uid, s) for s in (EXPLICIT, raw.transfer_syntax_uid)])
    assert taken[raw.sop_instance_uid].dataset == raw.dataset


def test_a_get_of_what_cannot_be_decoded(archive: Dev) -> None:
    status, failed, taken = get(archive, "1.2.8", [(CT, EXPLICIT)])
    assert (status.Status, *counts(status)) == (0xB000, 1, 2, 0)
    assert list(failed.FailedSOPInstanceUIDList) == ["1.2.8.0", "1.2.8.1"]  # type: ignore[union-attr]
    assert set(taken) == {"1.2.8.9"}
    status, failed, taken = get(archive, "1.2.8", [(CT, JPEG_XL), (CT, EXPLICIT)])
    assert (status.Status, *counts(status)) == (0x0000, 3, 0, 0)
    assert taken["1.2.8.0"].dataset == UNDECODABLE[0].dataset


def test_a_get_without_the_scps_role_sends_nothing(archive: Dev) -> None:
    """Without role selection the requestor takes no C-STORE (PS3.4 C.5.3.1.1)."""
    status, failed, _taken = get(archive, STUDY[0].study_instance_uid, [(CT, EXPLICIT)], roles=False)
    assert (status.Status, *counts(status)) == (0xA702, 0, 3, 0)
    assert len(failed.FailedSOPInstanceUIDList) == 3  # type: ignore[union-attr]


def test_a_get_without_a_context_for_the_class(archive: Dev) -> None:
    status, _failed, taken = get(archive, STUDY[0].study_instance_uid, [("1.2.840.10008.5.1.4.1.1.4", EXPLICIT)])
    assert (status.Status, *counts(status)) == (0xA702, 0, 3, 0)
    assert not taken


def test_a_file_that_is_gone_is_a_failed_sub_operation_and_the_others_come(new_dev: Callable[..., Dev]) -> None:
    running = new_dev().start()
    study = ct_study(77, 3, 8, 8)
    assert set(peer.store(running.dicom_port, map(RawObject.of, study))) == {0x0000}
    files = sorted((running.data / "tier1" / "objects").rglob("*.dcm"))
    files[0].unlink()
    bad = files[1]
    bad.unlink()
    bad.symlink_to("/proc/self/mem")  # EIO when it is read
    status, failed, taken = get(running, study[0].study_instance_uid, [(CT, EXPLICIT)])
    assert (status.Status, *counts(status)) == (0xB000, 1, 2, 0)
    assert len(taken) == 1
    assert len(failed.FailedSOPInstanceUIDList) == 2  # type: ignore[union-attr]
    shutil.rmtree(running.data / "tier1" / "objects")
    assert get(running, study[0].study_instance_uid, [(CT, EXPLICIT)])[0].Status == 0xA702


def test_a_get_can_be_cancelled(archive: Dev) -> None:
    """The second object is never sent when the cancel comes while the first is taken."""
    query = Dataset()
    query.QueryRetrieveLevel, query.StudyInstanceUID = "STUDY", STUDY[0].study_instance_uid
    taken = []

    def take(event: evt.Event) -> int:
        taken.append(event.request.AffectedSOPInstanceUID)
        event.assoc.send_c_cancel(5, query_model=STUDY_ROOT_GET)
        time.sleep(0.3)
        return 0x0000

    from pynetdicom import build_role

    assoc = AE("CANCELS").associate(
        "127.0.0.1", archive.dicom_port, ae_title="PACS", ext_neg=[build_role(CT, scp_role=True)],
        contexts=[build_context(STUDY_ROOT_GET, EXPLICIT), build_context(CT, EXPLICIT)],
        evt_handlers=[(evt.EVT_C_STORE, take)],
    )  # fmt: skip
    responses = list(assoc.send_c_get(query, STUDY_ROOT_GET, msg_id=5))
    assert responses[-1][0].Status == 0xFE00
    assert len(taken) == 1
    assert responses[-1][0].NumberOfRemainingSuboperations == 2
    assert assoc.is_established
    assoc.release()


# --- C-ECHO, C-STORE from DCMTK --------------------------------------------------------------------------------------


def test_dcmtk_verifies_and_stores(archive: Dev, tmp_path: Path) -> None:
    subprocess.run([dcmtk("echoscu"), "-aec", "PACS", "127.0.0.1", str(archive.dicom_port)], check=True, timeout=30)
    for made in ct_study(55, 2, 8, 8):
        made.write(tmp_path)
    subprocess.run(
        [dcmtk("storescu"), "+sd", "-aec", "PACS", "127.0.0.1", str(archive.dicom_port), str(tmp_path)],
        check=True,
        timeout=60,
    )
    status, _failed, taken = get(archive, ct_study(55, 1, 8, 8)[0].study_instance_uid, [(CT, EXPLICIT)])
    assert (status.Status, len(taken)) == (0x0000, 2)
