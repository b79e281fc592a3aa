"""Peers that stall, and too many of them: they hold up nobody, and their places are given back."""

from __future__ import annotations

import json
import shutil
import socket
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pynetdicom import AE, build_context
from pynetdicom.association import Association

from tests.fix_instance import Dev
from tests.integration.test_negotiation import _request
from tests.peer import associated

VERIFICATION, IMPLICIT = "1.2.840.10008.1.1", "1.2.840.10008.1.2"
#: Longer than a busy machine takes for an association more.
TIMEOUT_S = 4.0


@pytest.fixture(scope="module")
def impatient(short_folder: Path) -> Iterator[Dev]:
    """A running `pacs dev` that waits four seconds for anything, and has two places."""
    running = Dev(
        short_folder / f"dev{uuid.uuid4().hex[:6]}",
        {
            "PACS_RECEIVERS": "1",  # connections are counted by each
            "PACS_ANY_DEVICE_FROM_LOOPBACK": "0",
            "PACS_NETWORK_TIMEOUT_S": str(TIMEOUT_S),
            "PACS_ARTIM_S": str(TIMEOUT_S),
            "PACS_ASSOCIATIONS_MAX": "2",
            "PACS_CONNECTIONS_PER_ADDRESS_MAX": "12",
        },
    ).start()
    running.pacs("device", "add", "tester", "--ae-title", "TESTER", "--host", "127.0.0.1", "--port", "11119")
    running.pacs("device", "add", "single", "--ae-title", "SINGLE", "--host", "127.0.0.1", "--port", "11119",
                 "--associations-max", "1")  # fmt: skip
    yield running
    running.stop()
    shutil.rmtree(running.data, ignore_errors=True)


def opened(dev: Dev) -> socket.socket:
    """A connection with an association. The place of one that was just cut off may be given back a moment later."""
    ends = time.monotonic() + 20
    while True:
        sock = socket.create_connection(("127.0.0.1", dev.dicom_port), timeout=30)
        sock.sendall(_request(b"TESTER"))
        header = sock.recv(6, socket.MSG_WAITALL) or b"\3\0\0\0\0\0"
        content = sock.recv(struct.unpack(">L", header[2:])[0], socket.MSG_WAITALL)
        if header[0] == 2:
            return sock
        sock.close()
        assert (header[0], content[1:]) in ((3, b"\x02\x03\x02"), (3, b"")), (
            "rejected for another reason than its place"
        )
        assert time.monotonic() < ends, "no place was given back"
        time.sleep(0.1)


def drip(sock: socket.socket, content: bytes) -> threading.Thread:
    """Send a byte every 0.3 s, until it is taken no more: never silent for long."""

    def send() -> None:
        try:
            for byte in content:
                sock.sendall(bytes([byte]))
                time.sleep(0.3)
        except OSError:
            pass

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


def is_cut_off(sock: socket.socket) -> bytes:
    """Wait for the end; return what came before."""
    sock.settimeout(30)
    found = b""
    try:
        while piece := sock.recv(4096):
            found += piece
    except ConnectionError:
        pass
    return found


DATA_PDU = b"\x04\0" + (200).to_bytes(4, "big") + (196).to_bytes(4, "big") + b"\x01\x03" + bytes(194)


@pytest.mark.parametrize("start", [b"", b"\x01\0\0", b"\x01\0\0\0\1\0" + bytes(20)])
def test_a_connection_that_asks_for_nothing_is_closed(impatient: Dev, start: bytes) -> None:
    with socket.create_connection(("127.0.0.1", impatient.dicom_port)) as sock:
        sock.sendall(start)
        assert is_cut_off(sock) == b""


def test_an_association_request_a_byte_at_a_time_is_not_waited_for(impatient: Dev) -> None:
    with socket.create_connection(("127.0.0.1", impatient.dicom_port)) as sock:
        thread = drip(sock, _request(b"TESTER"))
        assert is_cut_off(sock) == b""
        thread.join(30)


@pytest.mark.parametrize("start", [b"", b"\x04\0\0", DATA_PDU[:6], DATA_PDU[:100]])
def test_an_association_that_stalls_is_aborted_and_its_place_is_given_back(impatient: Dev, start: bytes) -> None:
    with opened(impatient) as first, opened(impatient) as second:
        for sock in (first, second):
            sock.sendall(start)
        assert rejection(impatient, "TESTER") == (2, 3, 2)
        for sock in (first, second):
            assert is_cut_off(sock)[:1] == b"\x07"
    wait_until_open(impatient)


def test_a_pdu_a_byte_at_a_time_is_aborted(impatient: Dev) -> None:
    with opened(impatient) as sock:
        thread = drip(sock, DATA_PDU)
        assert is_cut_off(sock)[:1] == b"\x07"
        thread.join(30)


def ask(dev: Dev, calling: str) -> Association:
    return AE(calling).associate(
        "127.0.0.1", dev.dicom_port, contexts=[build_context(VERIFICATION, IMPLICIT)], ae_title="PACS"
    )


def rejection(dev: Dev, calling: str) -> tuple[int, int, int] | None:
    assoc = ask(dev, calling)
    if assoc.is_established:
        assoc.release()
        return None
    answer = assoc.acceptor.primitive
    if answer is None:  # closed unheard
        return 0, 0, 0
    return answer.result, answer.result_source, answer.diagnostic


def wait_until_open(dev: Dev, calling: str = "TESTER") -> None:
    ends = time.monotonic() + 20
    while rejection(dev, calling) is not None:
        assert time.monotonic() < ends, "its place was not given back"
        time.sleep(0.1)


def refusals(dev: Dev) -> list[dict[str, str]]:
    return list(json.loads(dev.pacs("refusal", "list", "--json").stdout))


def wait_for(condition: Callable[[], object]) -> None:
    ends = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < ends, "it did not come about"
        time.sleep(0.2)


def test_a_device_has_no_more_associations_than_it_may(impatient: Dev) -> None:
    with associated(impatient.dicom_port, [(VERIFICATION, IMPLICIT)], calling="SINGLE") as first:
        assert first.is_established
        assert rejection(impatient, "SINGLE") == (2, 3, 2)
        assert rejection(impatient, "TESTER") is None
    wait_until_open(impatient, "SINGLE")
    wait_for(lambda: any(row["detail"] == "of the device" for row in refusals(impatient)))


def test_an_address_has_no_more_connections_than_it_may(impatient: Dev) -> None:
    with ExitStack() as stack:
        for _ in range(12):
            stack.enter_context(socket.create_connection(("127.0.0.1", impatient.dicom_port)))
        with socket.create_connection(("127.0.0.1", impatient.dicom_port)) as one_more:
            one_more.settimeout(1)
            assert is_cut_off(one_more) == b""
        with socket.create_connection(("127.0.0.1", impatient.dicom_port), source_address=("127.0.0.2", 0)) as other:
            other.sendall(_request(b"NOBODY"))
            assert is_cut_off(other)[:1] == b"\x03"  # it is heard
    wait_until_open(impatient)
    wait_for(lambda: any(row["detail"] == "connections" for row in refusals(impatient)))


def test_those_that_stall_do_not_hold_up_the_end(new_dev: Callable[..., Dev]) -> None:
    dev = new_dev().start()
    with opened(dev) as stalled:
        stalled.sendall(DATA_PDU[:100])
        began = time.monotonic()
        dev.stop()
        assert is_cut_off(stalled)[:1] == b"\x07"
        assert time.monotonic() - began < 60
