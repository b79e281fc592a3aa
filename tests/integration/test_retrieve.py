"""C-MOVE and C-GET when something goes wrong or several go on: the requestor gets the truth, nothing is left."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pynetdicom import evt

from pacs.archive.retrieve import Retrieve
from pacs.archive.store import Arrival
from pacs.cli.instance import Instance
from pacs.model import codec
from pacs.model.recode import Element
from pacs.model.tier_rules import Rule
from tests import peer
from tests.dcmtk import dcmtk
from tests.peer import STUDY_ROOT_GET, RawObject
from tests.serving import CT, destination, serving, stored_bytes
from tests.synthetic import SyntheticObject, ct_dataset, ct_study, encode
from tests.tiers import follow, mover
from tests.unit.model.encoding import DEFLATED, EXPLICIT, IMPLICIT
from tests.unit.model.test_recode import again, read

MOVE, FIND = "1.2.840.10008.5.1.4.1.2.2.2", "1.2.840.10008.5.1.4.1.2.2.1"
STUDY = ct_study(61, 6)
UIDS = [made.sop_instance_uid for made in STUDY]
JPEG_LS, JPEG_2000, RLE = codec.LOSSLESS_TARGETS


@pytest.fixture
def archive(instance: Instance) -> Iterator[Instance]:
    """An instance with one CT study. After the test no thread of an association may be left."""
    _store(instance, STUDY)
    yield instance
    wait_for(lambda: not [thread for thread in threading.enumerate() if thread.name == "association"])


def _store(instance: Instance, objects: list[SyntheticObject], syntax: str = EXPLICIT) -> None:
    for made in objects:
        dataset = made.dataset if syntax == EXPLICIT else again(made.dataset, EXPLICIT, syntax)
        arrival = Arrival(dataset, made.sop_class_uid, made.sop_instance_uid, syntax, None)
        assert instance.store().store(arrival) == "stored"


def wait_for(condition: Callable[[], object], timeout_s: float = 20) -> None:
    ends = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < ends, "it did not come about"
        time.sleep(0.02)


def study_query(study: str | list[str] = STUDY[0].study_instance_uid, **more: object) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel, query.StudyInstanceUID = "STUDY", study
    for keyword, value in more.items():
        setattr(query, keyword, value)
    return query


def move(port: int, title: str, query: Dataset | None = None) -> list[tuple[Dataset, Dataset | None]]:
    with peer.associated(port, [(MOVE, EXPLICIT)]) as assoc:
        return list(assoc.send_c_move(query or study_query(), title, MOVE))


def end(responses: list[tuple[Dataset, Dataset | None]]) -> tuple[int, int, int, int]:
    """Status, completed, failed, warning of the last response."""
    status = responses[-1][0]
    return (
        status.Status,
        status.NumberOfCompletedSuboperations,
        status.NumberOfFailedSuboperations,
        status.NumberOfWarningSuboperations,
    )


def failed(responses: list[tuple[Dataset, Dataset | None]]) -> list[str]:
    identifier = responses[-1][1]
    assert identifier is not None
    found = identifier.FailedSOPInstanceUIDList
    return [found] if isinstance(found, str) else list(found or [])


# --- cancelled -------------------------------------------------------------------------------------------------------


def test_a_move_is_cancelled_between_objects(archive: Instance) -> None:
    taken, cancelled = list[str](), threading.Event()

    def take(event: evt.Event) -> int:
        taken.append(event.request.AffectedSOPInstanceUID)
        if len(taken) == 3:
            assert cancelled.wait(10)
        return 0xA700 if len(taken) == 2 else 0x0000

    with serving(archive, retrieve_progress_s=0) as port, destination(archive, "SLOW", take):  # noqa: SIM117
        with peer.associated(port, [(MOVE, EXPLICIT)]) as assoc:
            responses = []
            for response in assoc.send_c_move(study_query(), "SLOW", MOVE, msg_id=7):
                responses.append(response)
                if response[0].Status == 0xFF00 and response[0].NumberOfRemainingSuboperations == 4:
                    assoc.send_c_cancel(7, query_model=MOVE)
                    time.sleep(0.2)  # for it to arrive: if it came later, the counts below would tell
                    cancelled.set()
            assert assoc.is_established
            # the same message id once more is not cancelled by what was said of the first
            (final,) = assoc.send_c_move(study_query(study="9.9"), "SLOW", MOVE, msg_id=7)
            assert final[0].Status == 0x0000
    status, completed, bad, _warning = end(responses)
    assert (status, completed + bad) == (0xFE00, 3)
    assert responses[-1][0].NumberOfRemainingSuboperations == 3
    assert failed(responses) == [UIDS[1]]
    assert taken == UIDS[:3]


def test_a_move_to_a_device_that_stalls_is_cancelled_at_once(archive: Instance) -> None:
    """Nothing waits for the device's timeout, and its association does not stay open."""
    stalled, over = threading.Event(), threading.Event()

    def stall(event: evt.Event) -> int:
        stalled.set()
        over.wait(30)
        return 0x0000

    with serving(archive) as port, destination(archive, "STALLS", stall) as server:
        with peer.associated(port, [(MOVE, EXPLICIT)]) as assoc:
            asked = assoc.send_c_move(study_query(), "STALLS", MOVE, msg_id=7)
            first = next(asked)
            assert first[0].Status == 0xFF00, "it is told that something is going on"
            assert stalled.wait(10)
            assoc.send_c_cancel(7, query_model=MOVE)
            responses = list(asked)
        assert end(responses) == (0xFE00, 0, 0, 0)
        assert responses[-1][0].NumberOfRemainingSuboperations == 6
        over.set()
        wait_for(lambda: not server.active_associations)


def test_movescu_cancels_after_its_first_response(archive: Instance) -> None:
    taken = []

    def take(event: evt.Event) -> int:
        taken.append(event.request.AffectedSOPInstanceUID)
        time.sleep(0.1)
        return 0x0000

    with serving(archive, retrieve_progress_s=0) as port, destination(archive, "DEST", take):
        words = [dcmtk("movescu"), "-v", "-S", "--cancel", "1", "-aec", "PACS", "-aem", "DEST", "127.0.0.1", str(port)]
        words += ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={STUDY[0].study_instance_uid}"]
        found = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert "Cancel" in found.stdout + found.stderr
    assert 1 <= len(taken) < 6


def test_a_cancel_that_comes_too_late_is_no_matter(archive: Instance) -> None:
    with (
        serving(archive) as port,
        destination(archive, "FAST", lambda _event: 0x0000),
        peer.associated(port, [(MOVE, EXPLICIT), (FIND, EXPLICIT)]) as assoc,
    ):
        for _ in range(2):
            assert end(list(assoc.send_c_move(study_query(), "FAST", MOVE, msg_id=7))) == (0x0000, 6, 0, 0)
            assoc.send_c_cancel(7, query_model=MOVE)
        assert [status.Status for status, _found in assoc.send_c_find(study_query(), FIND)] == [0xFF00, 0x0000]


# --- destinations that fail ------------------------------------------------------------------------------------------


def test_a_device_that_aborts_over_one_object_gets_the_others(archive: Instance) -> None:
    taken = []

    def take(event: evt.Event) -> int:
        uid = event.request.AffectedSOPInstanceUID
        if uid == UIDS[2]:
            event.assoc.abort()
        taken.append(uid)
        return 0x0000

    with serving(archive) as port, destination(archive, "TOUCHY", take):
        responses = move(port, "TOUCHY")
    assert end(responses) == (0xB000, 5, 1, 0)
    assert failed(responses) == [UIDS[2]]
    assert sorted(taken) == sorted(UIDS)
    assert "association with the move destination was lost" in responses[-1][0].ErrorComment


def test_a_device_that_loses_every_association_is_given_up(archive: Instance) -> None:
    asked = []

    def leave(event: evt.Event) -> int:
        asked.append(1)
        event.assoc.abort()
        return 0x0000

    with serving(archive) as port, destination(archive, "GONE", leave):
        responses = move(port, "GONE")
    assert end(responses) == (0xA702, 0, 6, 0)
    assert failed(responses) == UIDS
    assert len(asked) == 3, "no more than three tries without an answer"


def test_a_device_that_releases_early_is_given_the_rest_anew(archive: Instance) -> None:
    taken = []

    def take(event: evt.Event) -> int:
        taken.append(event.request.AffectedSOPInstanceUID)
        if len(taken) == 2:
            threading.Timer(0, event.assoc.release).start()
            wait_for(lambda: not event.assoc.is_established)
        return 0x0000

    with serving(archive, network_timeout_s=5) as port, destination(archive, "EARLY", take):
        responses = move(port, "EARLY")
    status, completed, bad, warning = end(responses)
    assert (status, completed + bad, warning) == (0xB000, 6, 0)
    assert bad == 1 and failed(responses) == [UIDS[1]], "nobody said that it was taken"


def test_a_device_that_stalls_holds_up_nobody_else(archive: Instance) -> None:
    over = threading.Event()

    def stall(event: evt.Event) -> int:
        over.wait(30)
        return 0x0000

    results: dict[str, tuple[int, int, int, int]] = {}
    with (
        serving(archive, network_timeout_s=2) as port,
        destination(archive, "STALLS", stall),
        destination(archive, "WELL", lambda _event: 0x0000),
        destination(archive, "ALSO", lambda _event: 0x0000),
    ):

        def run(name: str, title: str) -> None:
            results[name] = end(move(port, title))

        threads = [
            threading.Thread(target=run, args=(f"{title} {number}", title))
            for title in ("STALLS", "WELL", "ALSO")
            for number in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        over.set()
    assert {name: result for name, result in results.items() if "STALLS" in name} == {
        f"STALLS {number}": (0xA702, 0, 6, 0) for number in range(3)
    }
    others = [result for name, result in results.items() if "STALLS" not in name]
    assert others == [(0x0000, 6, 0, 0)] * 6


def test_a_requestor_that_vanishes_ends_its_move(archive: Instance) -> None:
    taken, gone = [], threading.Event()

    def take(event: evt.Event) -> int:
        taken.append(event.request.AffectedSOPInstanceUID)
        gone.wait(10)
        return 0x0000

    with serving(archive) as port, destination(archive, "DEST", take) as server:
        with peer.associated(port, [(MOVE, EXPLICIT)]) as assoc:
            next(assoc.send_c_move(study_query(), "DEST", MOVE))
            assoc.abort()
        wait_for(lambda: not [thread for thread in threading.enumerate() if thread.name == "association"])
        gone.set()
        wait_for(lambda: not server.active_associations)
    assert len(taken) <= 2


# --- what they take --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [JPEG_LS, JPEG_2000, RLE, DEFLATED])
def test_a_device_that_takes_only_what_is_compressed(archive: Instance, syntax: str) -> None:
    taken = {}

    def take(event: evt.Event) -> int:
        ds = event.dataset
        ds.file_meta = event.file_meta
        taken[str(ds.SOPInstanceUID)] = ds
        return 0x0000

    with serving(archive) as port, destination(archive, "DENSE", take, [(CT, [syntax])]):
        responses = move(port, "DENSE")
    assert end(responses) == (0x0000, 6, 0, 0)
    for made in STUDY:
        original = read(made.dataset, EXPLICIT)
        received = taken[made.sop_instance_uid]
        if syntax == DEFLATED:
            assert received.PixelData == original.PixelData
        else:
            assert str(received.file_meta.TransferSyntaxUID) == syntax
            assert np.array_equal(received.pixel_array, original.pixel_array)


@pytest.mark.parametrize("preferred", [(JPEG_LS, RLE), (IMPLICIT,), ("1.2.840.10008.1.2.4.50",), ()])
def test_what_a_device_prefers_comes_before_what_is_stored(archive: Instance, preferred: tuple[str, ...]) -> None:
    """If that is to be had without loss."""
    syntaxes = set()

    def take(event: evt.Event) -> int:
        syntaxes.add(str(event.context.transfer_syntax))
        return 0x0000

    accepted = (EXPLICIT, IMPLICIT, RLE, JPEG_LS)
    with serving(archive) as port, destination(archive, "WISH", take, [(CT, accepted)], preferred):
        assert end(move(port, "WISH")) == (0x0000, 6, 0, 0)
    assert syntaxes == {preferred[0] if preferred and preferred[0] in accepted else EXPLICIT}


def test_dcmtk_reads_what_was_compressed(archive: Instance, tmp_path: Path) -> None:
    """Another maker's decoder finds the same pixels: JPEG-LS by CharLS, RLE by DCMTK itself."""
    with serving(archive) as port:
        for syntax, tool in ((JPEG_LS, "dcmdjpls"), (RLE, "dcmdrle")):
            taken = peer.get(port, [STUDY[0].study_instance_uid], [(CT, syntax)])
            assert len(taken) == 6
            for made in STUDY[:2]:
                raw, path = taken[made.sop_instance_uid], tmp_path / f"{tool}.dcm"
                assert raw.transfer_syntax_uid == syntax
                ds = read(raw.dataset, syntax)
                ds.save_as(path, enforce_file_format=True)
                subprocess.run([dcmtk(tool), str(path), str(tmp_path / "out.dcm")], check=True, capture_output=True)
                assert pydicom.dcmread(tmp_path / "out.dcm").PixelData == read(made.dataset, EXPLICIT).PixelData


def test_a_codec_that_fails_is_a_failed_sub_operation(archive: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong pixels never leave: what was compressed is decoded again before it is sent."""
    real = Dataset.compress
    calls = iter(range(100))

    def wrong(ds: Dataset, *words: object, **named: object) -> None:
        if next(calls) == 0:
            ds.PixelData = bytes(len(ds.PixelData))
        real(ds, *words, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Dataset, "compress", wrong)
    with serving(archive) as port:
        taken: dict[str, RawObject] = {}
        with peer.associated(port, [(STUDY_ROOT_GET, EXPLICIT), (CT, JPEG_LS)], taken=taken) as assoc:
            responses = list(assoc.send_c_get(study_query(), STUDY_ROOT_GET))
    assert end(responses) == (0xB000, 5, 1, 0)
    assert failed(responses) == UIDS[:1] and set(taken) == set(UIDS[1:])
    assert "codec" in responses[-1][0].ErrorComment


def test_objects_of_many_kinds_go_over_several_associations(archive: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pacs.net.proposing.batches.__defaults__", ((), 6))
    classes = [f"1.2.840.10008.5.1.4.1.1.{number}" for number in (2, 4, 20, 7)]
    studies = [STUDY[0].study_instance_uid]
    for number, sop_class in enumerate(classes[1:]):
        ds = ct_dataset(200 + number, 1, 8, 8)
        ds.SOPClassUID = sop_class
        _store(archive, [encode(ds)])
        studies.append(ds.StudyInstanceUID)
    taken, opened = [], set()

    def take(event: evt.Event) -> int:
        taken.append(str(event.request.AffectedSOPInstanceUID))
        opened.add(event.assoc)
        return 0x0000

    with serving(archive) as port, destination(archive, "ALL", take, [(each, (EXPLICIT,)) for each in classes]):
        responses = move(port, "ALL", study_query(study=studies))
    assert end(responses) == (0x0000, 9, 0, 0)
    assert len(taken) == 9 and len(opened) == 2


# --- copies ----------------------------------------------------------------------------------------------------------


def test_a_missing_copy_is_left_for_another_and_noted(archive: Instance) -> None:
    _to_both_tiers(archive)
    files = sorted((archive.volumes.tier(1)[0].root / "objects").rglob("*.dcm"))
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:-2])
    damaged = bytearray(files[2].read_bytes())
    damaged[140:160] = bytes(20)
    files[2].write_bytes(damaged)
    with serving(archive) as port:
        taken = peer.get(port, [STUDY[0].study_instance_uid], [(CT, EXPLICIT)])
    assert {uid: raw.dataset for uid, raw in taken.items()} == {made.sop_instance_uid: made.dataset for made in STUDY}
    assert _states(archive) == {"good": 9, "missing": 1, "bad": 2}


def test_a_copy_that_breaks_in_the_middle_goes_on_from_another(archive: Instance) -> None:
    made = ct_study(62, 1, 1024, 1024)[0]
    _store(archive, [made])
    _to_both_tiers(archive)
    retrieve = archive.retrieve()
    (wanted,) = retrieve.wanted({"SOPInstanceUID": [made.sop_instance_uid]})
    stored = retrieve.open(wanted)
    pieces = stored.pieces()
    begun = bytes(next(pieces))
    first = archive.volumes.tier(1)[0].root / wanted.copies[0].path
    with open(first, "r+b") as file:
        file.truncate(len(begun))
    assert begun + b"".join(map(bytes, pieces)) == made.dataset
    stored.close()
    assert _states(archive)["bad"] == 1


def test_an_object_that_moves_while_it_is_asked_for_is_found_again(archive: Instance) -> None:
    retrieve = archive.retrieve()
    objects = retrieve.wanted({"StudyInstanceUID": [STUDY[0].study_instance_uid]})
    reading = retrieve.open(objects[0])
    assert follow(archive, Rule("down", 1, 2)).objects == 6
    with mover(archive) as moving:
        assert moving.remove_left(grace_s=0) == 6
    assert b"".join(map(bytes, reading.pieces())) == STUDY[0].dataset, "it was open"
    reading.close()
    for wanted, made in zip(objects, STUDY, strict=True):
        assert wanted.copies[0].volume_id == archive.volumes.tier(1)[0].volume_id
        assert stored_bytes(retrieve, wanted) == made.dataset
    assert _states(archive) == {"good": 6}


def test_a_volume_that_is_away_does_not_make_its_copies_missing(archive: Instance) -> None:
    _to_both_tiers(archive)
    root = archive.volumes.tier(1)[0].root
    root.rename(root.with_name("away"))
    with serving(archive) as port:
        assert len(peer.get(port, [STUDY[0].study_instance_uid], [(CT, EXPLICIT)])) == 6
    root.with_name("away").rename(root)
    assert _states(archive) == {"good": 12}


def _to_both_tiers(instance: Instance) -> None:
    follow(instance, Rule("copy", 1, 2, keep=True))


def _states(instance: Instance) -> dict[str, int]:
    with instance.database.transaction() as connection:
        rows = connection.execute("SELECT state, count(*) AS n FROM copy GROUP BY 1").fetchall()
    return {row["state"]: row["n"] for row in rows}


# --- corrected headers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [EXPLICIT, IMPLICIT, DEFLATED])
@pytest.mark.parametrize("asked", [EXPLICIT, IMPLICIT, DEFLATED, JPEG_LS])
def test_a_corrected_header_goes_before_the_stored_pixels(instance: Instance, stored: str, asked: str) -> None:
    _store(instance, STUDY[:2], stored)
    changes = {0x00100010: Element("PN", b"Roe^Jane"), 0x00101010: Element("AS", b"041Y"), 0x00080050: None}

    def give(objects: object) -> dict[int, dict[int, Element | None]]:
        return {wanted.object_key: changes for wanted in objects if wanted.sop_instance_uid == UIDS[0]}  # type: ignore[attr-defined]

    retrieve = Retrieve(instance.database, instance.volumes, give)
    with serving(instance, retrieve) as port:
        taken = peer.get(port, [STUDY[0].study_instance_uid], [(CT, asked)])
    corrected, other = (read(taken[uid].dataset, asked) for uid in UIDS[:2])
    original = read(STUDY[0].dataset, EXPLICIT)
    assert (corrected.PatientName, corrected.PatientAge) == ("Roe^Jane", "041Y")
    assert "AccessionNumber" not in corrected
    assert corrected.StudyDescription == original.StudyDescription
    if asked == JPEG_LS:
        assert np.array_equal(corrected.pixel_array, original.pixel_array)
    else:
        assert corrected.PixelData == original.PixelData
    assert other.PatientName == original.PatientName
    if asked == stored:
        expected = STUDY[1].dataset if stored == EXPLICIT else again(STUDY[1].dataset, EXPLICIT, stored)
        assert taken[UIDS[1]].dataset == expected
