"""Peers that stall, on real sockets: a PDU has a deadline as a whole, read or sent. What TLS has buffered is input."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacs.net.tls import Tls, TlsFailed, TlsUnavailable, peer_sha256
from pacs.net.upper_layer import ConnectionLost, TimedOut, UpperLayer
from tests.certificates import Certificate, make_certificate

TIMEOUT_S = 0.6
HEADER = b"\x04\0\0\0\0\x64"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, UpperLayer]]:
    """A peer's end of a TCP connection, and our upper layer on the other."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(1)
        theirs = socket.create_connection(listening.getsockname())
        ours, _address = listening.accept()
    yield theirs, UpperLayer(ours, TIMEOUT_S)
    theirs.close()
    ours.close()


def trickle(sock: socket.socket, content: bytes) -> threading.Thread:
    def send() -> None:
        try:
            for byte in content:
                sock.sendall(bytes([byte]))
                time.sleep(TIMEOUT_S / 4)
        except OSError:
            pass

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


def test_a_header_that_trickles_ends(pair: tuple[socket.socket, UpperLayer]) -> None:
    theirs, ours = pair
    thread = trickle(theirs, HEADER)
    with pytest.raises(TimedOut, match="to send a PDU"):
        ours.read_header()
    thread.join(10)


def test_content_that_trickles_ends(pair: tuple[socket.socket, UpperLayer]) -> None:
    theirs, ours = pair
    theirs.sendall(HEADER)
    assert ours.read_header().length == 100
    thread = trickle(theirs, bytes(10))
    with pytest.raises(TimedOut):
        ours.read(100)
    theirs.close()
    thread.join(10)


def test_our_own_time_does_not_count(pair: tuple[socket.socket, UpperLayer]) -> None:
    theirs, ours = pair
    theirs.sendall(HEADER + bytes(100))
    ours.read_header()
    for _ in range(4):
        time.sleep(TIMEOUT_S / 2)  # our disk is slow
        ours.read(25)


def test_a_watcher_is_asked_while_a_peer_is_silent(pair: tuple[socket.socket, UpperLayer]) -> None:
    _theirs, ours = pair
    asked: list[int] = []
    ours.watch(lambda: asked.append(1))
    with pytest.raises(TimedOut):
        ours.read_header()
    assert asked
    ours.set_timeout(TIMEOUT_S)


def test_a_peer_that_does_not_read_ends_what_we_send(pair: tuple[socket.socket, UpperLayer]) -> None:
    _theirs, ours = pair
    with pytest.raises(TimedOut):
        for _ in range(100):
            ours.send(HEADER, bytes(1 << 20))


def test_a_peer_that_reads_a_little_now_and_then_ends_it_too(pair: tuple[socket.socket, UpperLayer]) -> None:
    theirs, ours = pair
    done = threading.Event()

    def sip() -> None:
        while not done.wait(TIMEOUT_S / 4):
            theirs.recv(1 << 16)

    thread = threading.Thread(target=sip)
    thread.start()
    with pytest.raises(TimedOut):
        ours.send(HEADER, bytes(64 << 20))
    done.set()
    thread.join(10)


def test_waiting_ends_by_input_by_a_wake_and_by_silence(pair: tuple[socket.socket, UpperLayer]) -> None:
    theirs, ours = pair
    with pytest.raises(TimedOut):
        ours.wait_input(0.05)
    wake = os.eventfd(0)
    os.eventfd_write(wake, 1)
    assert not ours.wait_input(5, wake)
    assert not ours.has_input()
    theirs.sendall(b"x")
    assert ours.wait_input(5, wake)
    assert ours.has_input()
    os.close(wake)


def test_cut_off_ends_a_thread_that_reads(pair: tuple[socket.socket, UpperLayer]) -> None:
    theirs, ours = pair
    ours.set_timeout(60)
    found: list[Exception] = []

    def read() -> None:
        try:
            ours.read_header()
        except ConnectionLost as error:
            found.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    ours.cut_off()
    thread.join(10)
    assert len(found) == 1
    assert theirs.recv(100)[:1] == b"\x07"


# --- TLS -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """The archive's certificate."""
    return make_certificate(tmp_path_factory.mktemp("tls"), "ours")


@pytest.fixture
def folder(ours: Certificate, tmp_path: Path) -> Path:
    """The folder of key, certificate and trusted ones."""
    (tmp_path / "key.pem").write_bytes(ours.key.read_bytes())
    (tmp_path / "certificate.pem").write_bytes(ours.certificate.read_bytes())
    return tmp_path


def shake(pair: tuple[socket.socket, UpperLayer], folder: Path) -> tuple[ssl.SSLSocket, UpperLayer]:
    theirs, plain = pair
    found: list[ssl.SSLSocket] = []
    thread = threading.Thread(target=lambda: found.append(Tls(folder, "none").accept(plain.connection, 10)))
    thread.start()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    wrapped = context.wrap_socket(theirs)
    thread.join(10)
    return wrapped, UpperLayer(found[0], TIMEOUT_S)


def test_what_tls_has_decrypted_already_is_input(pair: tuple[socket.socket, UpperLayer], folder: Path) -> None:
    theirs, ours = shake(pair, folder)
    assert not ours.has_input()
    theirs.sendall(HEADER + bytes(100))  # one record: after the header the socket itself has no more
    assert ours.wait_input(10)
    assert ours.read_header().length == 100
    assert ours.has_input()
    assert ours.wait_input(0)
    assert ours.read(100) == bytes(100)
    assert not ours.has_input()
    theirs.sendall(HEADER)
    assert ours.wait_input(10)
    assert ours.has_input() and ours.has_input(), "looking takes nothing away"
    assert ours.read_header().length == 100
    theirs.close()


def test_parts_are_sent_over_tls_in_their_order(pair: tuple[socket.socket, UpperLayer], folder: Path) -> None:
    theirs, ours = shake(pair, folder)
    content = os.urandom(300_000)
    thread = threading.Thread(target=lambda: ours.send(HEADER, memoryview(content), b"end"))
    thread.start()
    received = b""
    while not received.endswith(b"end") or len(received) < 300_009:
        received += theirs.recv(65536)
    thread.join(10)
    assert received == HEADER + content + b"end"
    theirs.close()


def test_a_client_pins_its_servers_certificate(
    pair: tuple[socket.socket, UpperLayer], folder: Path, ours: Certificate
) -> None:
    theirs, plain = pair
    thread = threading.Thread(target=lambda: Tls(folder, "none").accept(plain.connection, 10), daemon=True)
    thread.start()
    wrapped = Tls(folder, "none").connect(theirs, ours.sha256)
    assert peer_sha256(wrapped) == ours.sha256
    thread.join(10)
    wrapped.close()


def test_another_certificate_than_the_pinned_is_refused(pair: tuple[socket.socket, UpperLayer], folder: Path) -> None:
    theirs, plain = pair
    thread = threading.Thread(target=lambda: Tls(folder, "none").accept(plain.connection, 10), daemon=True)
    thread.start()
    with pytest.raises(TlsFailed, match="another certificate"):
        Tls(folder, "none").connect(theirs, "0" * 64)
    thread.join(10)


def test_a_folder_without_a_key_serves_nobody(pair: tuple[socket.socket, UpperLayer], tmp_path: Path) -> None:
    with pytest.raises(TlsUnavailable):
        Tls(tmp_path / "nothing", "optional").accept(pair[1].connection, 10)
