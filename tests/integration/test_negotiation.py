"""Who may associate, and which presentation contexts are taken: a `pacs dev` as strict as the appliance."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE, build_context, build_role
from pynetdicom.association import Association

from tests.dcmtk import dcmtk
from tests.fix_instance import Dev
from tests.peer import RawObject, associated, noted, rejection_in, store_on
from tests.unit.model.encoding import identity

CT, VERIFICATION = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.1"
IMPLICIT, EXPLICIT, JPEG_LOSSLESS = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.70"
PRIVATE = "1.2.392.200036.9116.7.8.1.1.1"
ASSOCIATIONS_MAX = 3


@pytest.fixture(scope="module")
def strict(short_folder: Path) -> Iterator[Dev]:
    """A running `pacs dev` that takes associations of known devices only, three at once."""
    running = Dev(
        short_folder / f"dev{uuid.uuid4().hex[:6]}",
        {"PACS_ANY_DEVICE_FROM_LOOPBACK": "0", "PACS_ASSOCIATIONS_MAX": str(ASSOCIATIONS_MAX)},
    ).start()
    running.pacs("device", "add", "tester", "--ae-title", "TESTER", "--host", "127.0.0.1", "--port", "11119")
    yield running
    running.stop()
    shutil.rmtree(running.data, ignore_errors=True)


def associate(
    dev: Dev, contexts: list[tuple[str, str | list[str]]], calling: str = "TESTER", called: str = "PACS"
) -> Association:
    ae = AE(calling)
    requested = [build_context(abstract, syntaxes) for abstract, syntaxes in contexts]
    received: list[Any] = []
    assoc = ae.associate(
        "127.0.0.1",
        dev.dicom_port,
        contexts=requested,
        ae_title=called,
        evt_handlers=noted(received),
    )
    assoc.received_pdus = received
    return assoc


def rejection(assoc: Association) -> tuple[int, int, int]:
    """Result, source and reason of the A-ASSOCIATE-RJ that came."""
    assert not assoc.is_established
    return rejection_in(assoc.received_pdus)


def accepted(dev: Dev, contexts: list[tuple[str, str | list[str]]]) -> list[tuple[str, str]]:
    """(abstract syntax, transfer syntax) of each context that was accepted."""
    assoc = associate(dev, contexts)
    assert assoc.is_established
    found = [(str(each.abstract_syntax), str(each.transfer_syntax[0])) for each in assoc.accepted_contexts]
    assoc.release()
    return found


def wait_for(condition: Callable[[], object], timeout_s: float = 10) -> None:
    ends = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < ends, "it did not come about"
        time.sleep(0.05)


def is_open_to(dev: Dev, calling: str = "TESTER") -> bool:
    """Whether an association is taken; it is released again."""
    assoc = associate(dev, [(VERIFICATION, IMPLICIT)], calling=calling)
    try:
        return bool(assoc.is_established)
    finally:
        if assoc.is_established:
            assoc.release()


# --- who -------------------------------------------------------------------------------------------------------------


def test_a_known_device_is_taken(strict: Dev) -> None:
    assert accepted(strict, [(VERIFICATION, IMPLICIT)]) == [(VERIFICATION, IMPLICIT)]


def test_an_unknown_calling_ae_is_rejected(strict: Dev) -> None:
    assert rejection(associate(strict, [(VERIFICATION, IMPLICIT)], calling="STRANGER")) == (1, 1, 3)
    assert "AE title 'STRANGER' at 127.0.0.1 is not known" in strict.log()


def test_ae_titles_are_case_sensitive(strict: Dev) -> None:
    assert rejection(associate(strict, [(VERIFICATION, IMPLICIT)], calling="tester")) == (1, 1, 3)
    assert rejection(associate(strict, [(VERIFICATION, IMPLICIT)], called="pacs")) == (1, 1, 7)


def test_another_called_ae_is_rejected(strict: Dev) -> None:
    assert rejection(associate(strict, [(VERIFICATION, IMPLICIT)], called="ELSEWHERE")) == (1, 1, 7)
    assert rejection(associate(strict, [(VERIFICATION, IMPLICIT)], called="ELSEWHERE", calling="STRANGER")) == (1, 1, 7)


def test_dcmtk_says_why_it_was_rejected(strict: Dev) -> None:
    words = [dcmtk("echoscu"), "-v", "-aet", "STRANGER", "-aec", "PACS", "127.0.0.1", str(strict.dicom_port)]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    assert found.returncode != 0
    assert "Calling AE Title Not Recognized" in found.stderr + found.stdout


def test_one_association_too_many_is_rejected_and_room_is_made_again(strict: Dev) -> None:
    with ExitStack() as stack:
        for _ in range(ASSOCIATIONS_MAX):
            assert stack.enter_context(associated(strict.dicom_port, [(VERIFICATION, IMPLICIT)])).is_established
        assert rejection(associate(strict, [(VERIFICATION, IMPLICIT)])) == (2, 3, 2)
    wait_for(lambda: is_open_to(strict))


def test_a_rejected_device_is_taken_as_soon_as_it_is_known_and_no_longer_than_it_is(strict: Dev) -> None:
    assert rejection(associate(strict, [(VERIFICATION, IMPLICIT)], calling="LATER")) == (1, 1, 3)
    strict.pacs("device", "add", "later", "--ae-title", "LATER", "--host", "127.0.0.1", "--port", "104")
    assoc = associate(strict, [(VERIFICATION, IMPLICIT)], calling="LATER")
    assert assoc.is_established
    assert assoc.send_c_echo().Status == 0x0000
    assoc.release()
    strict.pacs("device", "remove", "later")
    assert rejection(associate(strict, [(VERIFICATION, IMPLICIT)], calling="LATER")) == (1, 1, 3)


def _request(calling: bytes, called: bytes = b"PACS") -> bytes:
    """An A-ASSOCIATE-RQ with any bytes for AE titles (PS3.8 9.3.2)."""

    def sub(kind: int, content: bytes) -> bytes:
        return bytes([kind, 0]) + len(content).to_bytes(2, "big") + content

    context = sub(0x20, b"\x01\0\0\0" + sub(0x30, VERIFICATION.encode()) + sub(0x40, IMPLICIT.encode()))
    user = sub(0x50, sub(0x51, (16384).to_bytes(4, "big")) + sub(0x52, b"1.2.3"))
    content = b"\0\x01\0\0" + called.ljust(16) + calling.ljust(16) + bytes(32)
    content += sub(0x10, b"1.2.840.10008.3.1.1.1") + context + user
    return b"\x01\0" + len(content).to_bytes(4, "big") + content


@pytest.mark.parametrize(
    "calling",
    [
        b"A\nerror: FORGED",
        b"A\rB",
        b"\x1b[2Jclear",
        b"\0" * 16,
        b" " * 16,
        b"\xff\xfe",
        b"a\\b",
        b"`id>/tmp/x`",
        b"$(id)",
    ],
)
def test_a_hostile_ae_title_forges_no_line_and_takes_nothing_down(strict: Dev, calling: bytes) -> None:
    before = len(strict.log())
    with socket.create_connection(("127.0.0.1", strict.dicom_port), timeout=10) as sock:
        sock.sendall(_request(calling))
        answer = sock.recv(100)
    assert not answer.startswith(b"\x02"), "it was accepted"
    assert accepted(strict, [(VERIFICATION, IMPLICIT)])
    written = strict.log()[before:]
    assert "\nerror: FORGED" not in written
    assert not any(ord(character) < 32 and character != "\n" for character in written)
    assert "Traceback" not in written
    # An operator copies the command that the line suggests: it must be one for a shell.
    assert "--ae-title `" not in written
    assert "--ae-title $(" not in written


def test_a_hostile_called_ae_title_forges_no_line(strict: Dev) -> None:
    before = len(strict.log())
    with socket.create_connection(("127.0.0.1", strict.dicom_port), timeout=10) as sock:
        sock.sendall(_request(b"TESTER", b"X\nerror: FORGED"))
        sock.recv(100)
    time.sleep(0.2)
    assert "\nerror: FORGED" not in strict.log()[before:]


@pytest.mark.parametrize(
    "rubbish", [b"GET / HTTP/1.1\r\n\r\n", b"\x01\0\xff\xff\xff\xff" + bytes(70000), bytes(1000), b""]
)
def test_rubbish_takes_nothing_down(strict: Dev, rubbish: bytes) -> None:
    with socket.create_connection(("127.0.0.1", strict.dicom_port), timeout=10) as sock:
        try:
            sock.sendall(rubbish)
            sock.shutdown(socket.SHUT_WR)
            sock.settimeout(5)
            sock.recv(100)
        except OSError:
            pass
    wait_for(lambda: is_open_to(strict))


# --- what ------------------------------------------------------------------------------------------------------------


def test_a_private_class_is_taken_and_a_registered_one_that_is_no_storage_is_not(strict: Dev) -> None:
    offered: list[tuple[str, str | list[str]]] = [
        (PRIVATE, EXPLICIT),
        ("1.2.840.10008.5.1.1.9", EXPLICIT),  # Basic Grayscale Print Management
        ("1.2.840.10008.3.1.2.3.3", EXPLICIT),  # Modality Performed Procedure Step
        ("1.2.840.10008.5.1.4.31", EXPLICIT),  # Modality Worklist
        ("1.2.840.10008.1.20.2", EXPLICIT),  # Storage Commitment, pull model (retired)
        (CT, EXPLICIT),
    ]
    assert accepted(strict, offered) == [(PRIVATE, EXPLICIT), (CT, EXPLICIT)]


def test_every_storage_class_of_the_dictionary_is_taken(strict: Dev) -> None:
    from pynetdicom import AllStoragePresentationContexts

    classes = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
    found = []
    for start in range(0, len(classes), 128):
        part = classes[start : start + 128]
        found += [abstract for abstract, _syntax in accepted(strict, [(uid, EXPLICIT) for uid in part])]
    assert set(found) == set(classes)


@pytest.mark.parametrize(
    "syntax", ["1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.53"]
)
def test_old_and_new_transfer_syntaxes_are_taken(strict: Dev, syntax: str) -> None:
    assert accepted(strict, [(CT, syntax)]) == [(CT, syntax)]


def test_an_unknown_transfer_syntax_is_refused_in_its_context_only(strict: Dev) -> None:
    assert accepted(strict, [(CT, "1.2.3.4"), (CT, EXPLICIT)]) == [(CT, EXPLICIT)]


def test_of_several_transfer_syntaxes_explicit_little_endian_is_taken_first(strict: Dev) -> None:
    for offered in ([IMPLICIT, EXPLICIT], [JPEG_LOSSLESS, IMPLICIT, EXPLICIT], [EXPLICIT, IMPLICIT]):
        assert accepted(strict, [("1.2.840.10008.5.1.4.1.1.4", list(offered))])[0][1] == EXPLICIT
    assert accepted(strict, [(VERIFICATION, [IMPLICIT, EXPLICIT])]) == [(VERIFICATION, EXPLICIT)]


def test_several_contexts_of_one_class_are_each_answered(strict: Dev) -> None:
    offered: list[tuple[str, str | list[str]]] = [(CT, EXPLICIT), (CT, IMPLICIT), (CT, JPEG_LOSSLESS)]
    assert accepted(strict, offered) == offered


def test_roles_are_agreed_for_c_get(strict: Dev) -> None:
    """The requestor may take the SCP's role for storage (PS3.7 D.3.3.4), and not for queries."""
    find = "1.2.840.10008.5.1.4.1.2.2.1"
    assoc = AE("TESTER").associate(
        "127.0.0.1", strict.dicom_port, contexts=[build_context(CT, EXPLICIT), build_context(find, EXPLICIT)],
        ae_title="PACS", ext_neg=[build_role(CT, scp_role=True), build_role(find, scp_role=True, scu_role=True)],
    )  # fmt: skip
    roles = {str(each.abstract_syntax): (each.as_scu, each.as_scp) for each in assoc.accepted_contexts}
    assoc.release()
    assert roles[CT] == (False, True)
    assert roles[find] == (True, False)


# --- what is refused says so, and nothing of a patient ------------------------------------------------------------


def test_the_log_of_a_refused_object_has_no_patients_data(strict: Dev) -> None:
    before = len(strict.log())
    good = identity(PatientName="Secret^Patient", PatientID="SECRET-ID")
    cases = {
        "cut": (good[:-5], "1.2.3.4", 0xC000),
        "another": (good, "9.9.9", 0xA900),
        "uid": (identity(PatientName="Secret^Patient", StudyInstanceUID="Secret^Patient"), "1.2.3.4", 0xC000),
    }
    with associated(strict.dicom_port, [(CT, EXPLICIT)]) as assoc:
        for dataset, uid, status in cases.values():
            assert store_on(assoc, RawObject(CT, uid, EXPLICIT, dataset)) == status
    written = strict.log()[before:]
    assert "refused with 0xC000" in written
    assert "refused with 0xA900" in written
    assert "calling_ae=TESTER" in written
    assert "ecret" not in written
    assert "SECRET" not in written
    assert not [path for path in (strict.data / "tier1").rglob("*") if path.suffix in (".dcm", ".part")]


def test_the_error_comment_fits_its_value_representation(strict: Dev) -> None:
    """(0000,0902) is an LO: 64 characters, no backslash (PS3.7 Annex C)."""
    from pynetdicom.dimse_primitives import C_STORE

    answers: list[C_STORE] = []
    with associated(strict.dicom_port, [(CT, EXPLICIT)]) as assoc:
        real = assoc.dimse.get_msg
        assoc.dimse.get_msg = lambda block=False: (  # type: ignore[method-assign]
            (found := real(block)),
            answers.append(found[1]),
        )[0]
        assert store_on(assoc, RawObject(CT, "9.9.9", EXPLICIT, identity())) == 0xA900
    assert 0 < len(str(answers[0].ErrorComment)) <= 64
