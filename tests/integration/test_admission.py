"""Who may talk to us, seen from both sides: peers on 127.0.0.1 and 127.0.0.2, and what an operator is told."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE, build_context
from pynetdicom.association import Association

from pacs.archive.devices import Pending, pending
from pacs.index.database import Database, Row
from pacs.index.refusals import list_refusals
from pacs.settings import load
from tests.dcmtk import dcmtk
from tests.fix_instance import Dev
from tests.peer import RawObject, noted, rejection_in, store, store_on
from tests.synthetic import ct_dataset, encode
from tests.unit.model.encoding import identity

CT, VERIFICATION, PRINT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.1", "1.2.840.10008.5.1.1.9"
IMPLICIT, EXPLICIT, JPEG_LOSSLESS = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.70"


@pytest.fixture(scope="module")
def strict(short_folder: Path) -> Iterator[Dev]:
    """A running `pacs dev` that takes associations of known devices only."""
    running = Dev(short_folder / f"dev{uuid.uuid4().hex[:6]}", {"PACS_ANY_DEVICE_FROM_LOOPBACK": "0"}).start()
    yield running
    running.stop()
    shutil.rmtree(running.data, ignore_errors=True)


def add(dev: Dev, title: str, *options: str, host: str = "127.0.0.1", port: int = 11119) -> None:
    """Make a device known under its AE title in small letters."""
    words = ["--ae-title", title, "--host", host, "--port", str(port), *options]
    dev.pacs("device", "add", title.lower(), *words)


@contextmanager
def asking(
    dev: Dev, title: str, contexts: list[tuple[str, str]], called: str = "PACS", address: str = "127.0.0.1"
) -> Iterator[Association]:
    """An association asked for from one of loopback's addresses."""
    received: list[Any] = []
    assoc = AE(title).associate(
        "127.0.0.1", dev.dicom_port, contexts=[build_context(*each) for each in contexts], ae_title=called,
        bind_address=(address, 0), evt_handlers=noted(received),
    )  # fmt: skip
    assoc.received_pdus = received
    try:
        yield assoc
    finally:
        if assoc.is_established:
            assoc.release()


def answer(dev: Dev, title: str, called: str = "PACS", address: str = "127.0.0.1") -> tuple[int, ...] | None:
    """None if an association is taken; else result, source and reason of its rejection."""
    with asking(dev, title, [(VERIFICATION, IMPLICIT)], called, address) as assoc:
        if assoc.is_established:
            return None
        return rejection_in(assoc.received_pdus)


def echoscu(dev: Dev, title: str) -> subprocess.CompletedProcess[str]:
    words = [dcmtk("echoscu"), "-aet", title, "-aec", "PACS", "127.0.0.1", str(dev.dicom_port)]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)


def listed(dev: Dev, *words: str) -> Any:
    return json.loads(dev.pacs(*words, "--json").stdout)


@contextmanager
def index_of(dev: Dev) -> Iterator[Database]:
    """The index of a running instance, for what is asked often: a command takes a second to start."""
    database = Database(load(dev.data).conninfo)
    try:
        yield database
    finally:
        database.close()


def soon(find: Callable[[], list[Any]], timeout_s: float = 10) -> list[Any]:
    """What is found, once there is something: refusals are written within a second or two."""
    ends = time.monotonic() + timeout_s
    while not (found := find()):
        assert time.monotonic() < ends, "nothing was recorded"
        time.sleep(0.1)
    return found


def waiting(dev: Dev, title: str) -> Pending:
    """How a caller waits to be accepted."""
    with index_of(dev) as index:
        return soon(lambda: [each for each in pending(index) if each.calling_ae == title])[0]


def refused(dev: Dev, title: str, kind: str, detail: str = "") -> Row:
    """A refusal of a caller."""
    with index_of(dev) as index:
        return soon(
            lambda: [
                row
                for row in list_refusals(index)
                if (row["calling_ae"], row["kind"]) == (title, kind) and row["detail"].startswith(detail)
            ]
        )[0]


def test_a_stranger_is_refused_recorded_and_accepted_by_one_command(strict: Dev) -> None:
    said = echoscu(strict, "STRANGER")
    assert said.returncode != 0
    assert "Calling AE Title Not Recognized" in said.stderr
    found = waiting(strict, "STRANGER")
    assert (found.address, found.count, found.problems) == ("127.0.0.1", 1, ("AE title not known",))
    assert found.wanted == ("Verification SOP Class",)
    assert "AE title 'STRANGER' at 127.0.0.1 is not known" in found.reasons[0]
    shown = strict.pacs("device", "pending").stdout
    assert "STRANGER" in shown
    assert "AE title not known" in shown
    strict.pacs("device", "accept", str(found.number), "--name", "ct 7", "--port", "11113")
    assert echoscu(strict, "STRANGER").returncode == 0
    assert "STRANGER" not in strict.pacs("device", "pending").stdout
    known = {each["name"]: each for each in listed(strict, "device", "list")}["ct 7"]
    assert (known["ae_title"], known["host"], known["port"]) == ("STRANGER", "127.0.0.1", 11113)


def test_a_known_title_from_another_address_is_refused_until_it_is_accepted(strict: Dev, tmp_path: Path) -> None:
    add(strict, "ELSEWHERE", host="127.0.0.2")
    path = encode(ct_dataset(901)).write(tmp_path)
    words = [dcmtk("storescu"), "-aet", "ELSEWHERE", "-aec", "PACS", "127.0.0.1", str(strict.dicom_port), str(path)]
    before = sorted((strict.data / "tier1").rglob("*.dcm"))
    assert "Calling AE Title Not Recognized" in subprocess.run(words, capture_output=True, text=True).stderr
    assert sorted((strict.data / "tier1").rglob("*.dcm")) == before, "nothing of a stranger's is stored"
    found = waiting(strict, "ELSEWHERE")
    assert found.problems == ("called from another address",)
    assert "is device 'elsewhere' of 127.0.0.2, and called from 127.0.0.1" in found.reasons[0]
    assert "CT Image Storage" in found.wanted
    assert answer(strict, "ELSEWHERE", address="127.0.0.2") is None
    strict.pacs("device", "accept", str(found.number))
    assert subprocess.run(words, check=False).returncode == 0
    assert answer(strict, "ELSEWHERE", address="127.0.0.3") == (1, 1, 3)


def test_networks_host_names_and_aliases(strict: Dev) -> None:
    add(strict, "MANY", "--network", "127.0.1.0/24", "--network", "127.0.2.5", "--alias", "MANY_2")
    add(strict, "BYNAME", host="localhost")
    for address, is_taken in (("127.0.0.1", True), ("127.0.1.77", True), ("127.0.2.5", True), ("127.0.2.6", False)):
        assert (answer(strict, "MANY", address=address) is None) == is_taken, address
        assert (answer(strict, "MANY_2", address=address) is None) == is_taken, address
    assert answer(strict, "MANY_3") == (1, 1, 3)
    assert answer(strict, "BYNAME") is None
    assert answer(strict, "BYNAME", address="127.0.0.9") == (1, 1, 3)
    strict.pacs("device", "change", "many", "--network", "", "--alias", "MANY_3")
    assert answer(strict, "MANY", address="127.0.1.77") == (1, 1, 3)
    assert answer(strict, "MANY_3") is None
    assert answer(strict, "MANY_2") == (1, 1, 3)


def test_a_host_name_that_is_none_is_said_so(strict: Dev) -> None:
    add(strict, "NONAME", host="no-such-host.invalid")
    assert answer(strict, "NONAME") == (1, 1, 3)
    assert "the name no-such-host.invalid cannot be resolved" in waiting(strict, "NONAME").reasons[0]


def test_who_calls_another_ae_title_can_be_let(strict: Dev) -> None:
    add(strict, "OLDFRIEND")
    assert answer(strict, "OLDFRIEND", called="OLDPACS") == (1, 1, 7)
    found = waiting(strict, "OLDFRIEND")
    assert found.problems == ("called another AE title",)
    strict.pacs("device", "accept", str(found.number))
    assert answer(strict, "OLDFRIEND", called="OLDPACS") is None
    assert answer(strict, "OLDFRIEND") is None
    assert answer(strict, "OLDFRIEND", called="OTHER") == (1, 1, 7)


def test_a_dismissed_stranger_stays_refused_and_off_the_list(strict: Dev) -> None:
    assert answer(strict, "PEST") == (1, 1, 3)
    strict.pacs("device", "dismiss", str(waiting(strict, "PEST").number))
    assert answer(strict, "PEST") == (1, 1, 3)
    assert "PEST" not in strict.pacs("device", "pending").stdout
    assert "PEST" in strict.pacs("device", "pending", "--all").stdout


def test_contexts_that_were_not_taken_are_recorded(strict: Dev) -> None:
    add(strict, "PRINTER")
    for _ in range(2):
        with asking(strict, "PRINTER", [(PRINT, EXPLICIT), (CT, "1.2.3.4"), (CT, EXPLICIT)]) as assoc:
            assert [str(each.abstract_syntax) for each in assoc.accepted_contexts] == [CT]
    row = refused(strict, "PRINTER", "abstract syntax not supported")
    assert (row["detail"], row["device_name"]) == (PRINT, "printer")
    row = refused(strict, "PRINTER", "no transfer syntax supported")
    assert "CT Image Storage" in row["reason"]
    assert "1.2.3.4" in row["reason"]
    assert "extra_transfer_syntaxes" in row["reason"]


def test_refused_objects_are_recorded_without_a_patients_data(strict: Dev) -> None:
    add(strict, "BROKEN")
    good = identity(PatientName="Secret^Patient", PatientID="SECRET-ID")
    with asking(strict, "BROKEN", [(CT, EXPLICIT)]) as assoc:
        assert store_on(assoc, RawObject(CT, "1.2.3.4", EXPLICIT, good[:-5])) == 0xC000
        assert store_on(assoc, RawObject(CT, "1.2.3.5", EXPLICIT, good[:-5])) == 0xC000
        assert store_on(assoc, RawObject(CT, "9.9.9", EXPLICIT, good)) == 0xA900
    row = refused(strict, "BROKEN", "object refused", "0xA900")
    assert row["sop_instance_uid"] == "9.9.9"
    broken = refused(strict, "BROKEN", "object refused", "0xC000")
    assert (broken["count"], broken["sop_instance_uid"]) == (2, "1.2.3.5")
    shown = strict.pacs("refusal", "list").stdout
    assert "0xA900" in shown
    assert "ecret" not in shown + json.dumps(listed(strict, "refusal", "list"))
    (check,) = [
        each for each in json.loads(strict.pacs("check", "--json", check=False).stdout) if each["name"] == "devices"
    ]
    assert check["severity"] == "warning"
    assert "2 kinds of refused objects" in check["message"]
    assert "pacs refusal list" in check["hint"]
    strict.pacs("refusal", "dismiss", str(row["refusal_key"]))
    assert "0xA900" not in strict.pacs("refusal", "list").stdout


def test_what_is_no_dicom_is_recorded(strict: Dev) -> None:
    with socket.create_connection(("127.0.0.1", strict.dicom_port), timeout=10) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        sock.recv(100)
    assert refused(strict, "", "no DICOM association")["address"] == "127.0.0.1"


def test_the_quirks_of_a_device(strict: Dev) -> None:
    """Its PDU size, the transfer syntaxes it likes best, the character set it does not name."""
    add(strict, "QUIRKY", "--pdu-size", "8192", "--transfer-syntax", JPEG_LOSSLESS, "--transfer-syntax", IMPLICIT,
        "--character-set", "ISO_IR 144")  # fmt: skip
    add(strict, "PLAIN")
    mr, offered = "1.2.840.10008.5.1.4.1.1.4", [EXPLICIT, IMPLICIT]
    found = {}
    for title in ("QUIRKY", "PLAIN"):
        with asking(strict, title, [(mr, offered)]) as assoc:  # type: ignore[list-item]
            found[title] = (str(assoc.accepted_contexts[0].transfer_syntax[0]), assoc.acceptor.maximum_length)
    assert found == {"QUIRKY": (IMPLICIT, 8192), "PLAIN": (EXPLICIT, 262144)}

    name = "Люкceмбypг"
    dataset = identity(PatientID="RU1", StudyInstanceUID="1.2.77").replace(
        b"\x10\x00\x20\x00LO", b"\x10\x00\x10\x00PN" + len(name).to_bytes(2, "little") + name.encode("iso8859_5")
        + b"\x10\x00\x20\x00LO",
    )  # fmt: skip
    assert store(strict.dicom_port, [RawObject(CT, "1.2.3.4", EXPLICIT, dataset)], "QUIRKY") == [0x0000]
    (study,) = [each for each in listed(strict, "study", "list") if each["patient_id"] == "RU1"]
    assert study["patient_name"] == name
    stored = [path.read_bytes() for path in (strict.data / "tier1" / "objects").rglob("*.dcm")]
    assert sum(each.endswith(dataset) for each in stored) == 1, "the bytes are as they came"


def test_echo_to_a_device(strict: Dev, tmp_path: Path) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = int(sock.getsockname()[1])
    add(strict, "LISTENER", port=port)
    said = strict.pacs("device", "echo", "listener", check=False)
    assert said.returncode == 4
    assert f"listener cannot be reached at 127.0.0.1:{port}" in said.stderr
    process = subprocess.Popen([dcmtk("storescp"), "-od", str(tmp_path), "-aet", "LISTENER", str(port)])
    try:
        ends = time.monotonic() + 10
        while (said := strict.pacs("device", "echo", "listener", check=False)).returncode != 0:
            assert time.monotonic() < ends, said.stderr
    finally:
        process.terminate()
        process.wait(10)
    assert said.stdout.startswith(f"listener answers as LISTENER at 127.0.0.1:{port}, in ")
    add(strict, "OURSELVES", port=strict.dicom_port)
    said = strict.pacs("device", "echo", "ourselves", check=False)
    assert said.returncode == 4
    assert "rejects the association: it has another AE title than it was called by" in said.stderr
