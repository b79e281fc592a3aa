"""A DICOM requestor made of bytes: it sends what a test says, right or wrong, and holds no object whole in memory."""

from __future__ import annotations

import hashlib
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pacs.net.upper_layer import data_value_header
from tests.peer import RawObject

STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT, IMPLICIT, DEFLATED = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99"
HAS_DATA_SET, NO_DATA_SET = 0x0000, 0x0101
ABORT = 0x07


def item(kind: int, content: bytes) -> bytes:
    """An item of an association PDU (PS3.8 9.3.2)."""
    return struct.pack(">BxH", kind, len(content)) + content


def pdu(kind: int, content: bytes) -> bytes:
    """A PDU."""
    return struct.pack(">BxL", kind, len(content)) + content


def association_request(
    contexts: list[tuple[str, str]],
    calling: str = "WIRE",
    called: str = "PACS",
    pdu_size_bytes: int = 1 << 18,
    may_take: bool = False,
) -> bytes:
    """An A-ASSOCIATE-RQ with (abstract syntax, transfer syntax) contexts 1, 3, 5...; may_take: the SCP role of each."""
    items = [item(0x10, b"1.2.840.10008.3.1.1.1")]
    for number, (abstract, syntax) in enumerate(contexts):
        sub_items = item(0x30, abstract.encode()) + item(0x40, syntax.encode())
        items.append(item(0x20, bytes([2 * number + 1, 0, 0, 0]) + sub_items))
    user = [item(0x51, struct.pack(">L", pdu_size_bytes)), item(0x52, b"1.2.3.4")]
    if may_take:
        for abstract in dict.fromkeys(abstract for abstract, _ in contexts):
            user.append(item(0x54, struct.pack(">H", len(abstract)) + abstract.encode() + b"\x01\x01"))
    items.append(item(0x50, b"".join(user)))
    titles = called.encode().ljust(16) + calling.encode().ljust(16)
    return pdu(0x01, struct.pack(">H2x", 1) + titles + bytes(32) + b"".join(items))


def element(number: int, value: bytes) -> bytes:
    """An element of a command set (PS3.7 6.3.1)."""
    return struct.pack("<HHL", 0, number, len(value)) + value


def command(**elements: int | str) -> bytes:
    """A command set from its elements: `e0100=1, e0002="1.2"`; its group length is right unless e0000 is given."""
    parts = []
    for name, value in sorted(elements.items()):
        raw = struct.pack("<H", value) if isinstance(value, int) else value.encode() + b"\0" * (len(value) % 2)
        parts.append(element(int(name[1:], 16), raw))
    joined = b"".join(parts)
    return joined if "e0000" in elements else element(0, struct.pack("<L", len(joined))) + joined


def store_command(sop_class: str, sop_instance: str, message_id: int = 1) -> bytes:
    """A C-STORE request's command."""
    return command(e0002=sop_class, e0100=1, e0110=message_id, e0700=0, e0800=HAS_DATA_SET, e1000=sop_instance)


class Wire:
    """One connection."""

    def __init__(self, port: int, timeout_s: float = 60, receive_buffer_bytes: int | None = None) -> None:
        self.connection = socket.socket()
        self.connection.settimeout(timeout_s)
        if receive_buffer_bytes is not None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.connection.connect(("127.0.0.1", port))
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *exc: object) -> None:
        self.connection.close()

    def associate(self, contexts: list[tuple[str, str]], calling: str = "WIRE", may_take: bool = False) -> set[int]:
        """Ask for an association; the ids of the contexts that were accepted."""
        self.connection.sendall(association_request(contexts, calling, may_take=may_take))
        kind, content = self.read_pdu()
        assert kind == 0x02, f"a PDU of type {kind} answered the association request"
        accepted, at = set(), 68
        while at < len(content):
            size = struct.unpack_from(">H", content, at + 2)[0]
            if content[at] == 0x21 and content[at + 6] == 0:
                accepted.add(content[at + 4])
            at += 4 + size
        return accepted

    def read_exactly(self, size: int) -> bytes:
        """Bytes of the peer. Raise ConnectionError if it closes before."""
        content = bytearray()
        while len(content) < size:
            piece = self.connection.recv(size - len(content))
            if not piece:
                raise ConnectionError("closed")
            content += piece
        return bytes(content)

    def read_pdu(self) -> tuple[int, bytes]:
        """The next PDU: type and content."""
        kind, size = struct.unpack(">BxL", self.read_exactly(6))
        return kind, self.read_exactly(size)

    def send_value(self, content: bytes, is_command: bool, is_last: bool = True, context_id: int = 1) -> None:
        """Send one presentation data value in a PDU of its own."""
        self.connection.sendall(data_value_header(context_id, len(content), is_command, is_last) + content)

    def store(
        self, sop_class: str, sop_instance: str, pieces: Iterable[bytes], message_id: int = 1, context_id: int = 1
    ) -> int | None:
        """Send an object whose data set comes in pieces, each a PDU; the status that answers, None if none does."""
        self.send_value(store_command(sop_class, sop_instance, message_id), True, True, context_id)
        for piece in pieces:
            self.send_value(piece, False, False, context_id)
        self.send_value(b"", False, True, context_id)
        return self.status()

    def store_raw(self, raw: RawObject, message_id: int = 1, context_id: int = 1) -> int | None:
        """Send an object that is whole in memory."""
        pieces = (raw.dataset[at : at + 65536] for at in range(0, len(raw.dataset), 65536))
        return self.store(raw.sop_class_uid, raw.sop_instance_uid, pieces, message_id, context_id)

    def status(self) -> int | None:
        """The status of the next response; None if the association is over."""
        try:
            kind, content = self.read_pdu()
        except (ConnectionError, TimeoutError):
            return None
        return status_of(content[6:]) if kind == 0x04 else None

    def is_over(self) -> bool:
        """Wait for the peer to end the association: an abort, or a closed connection. False if it says something."""
        try:
            return self.read_pdu()[0] == ABORT
        except ConnectionError:
            return True

    def get(self, study_instance_uid: str, context_id: int = 1) -> dict[str, Taken]:
        """C-GET a study (the association proposed Study Root GET as its first context): what came, by UID."""
        self.send_value(
            command(e0002=STUDY_ROOT_GET, e0100=0x0010, e0110=7, e0700=0, e0800=HAS_DATA_SET), True, True, context_id
        )
        uid = study_instance_uid.encode() + b"\0" * (len(study_instance_uid) % 2)
        identifier = b"\x08\x00\x52\x00CS\x06\x00STUDY " + struct.pack("<HH2sH", 0x20, 0x0D, b"UI", len(uid)) + uid
        self.send_value(identifier, False, True, context_id)
        taken: dict[str, Taken] = {}
        coming: Taken | None = None
        for context, control, value in self._values():
            if control & 1:
                if uint(value, 0x0100) == 0x8010:
                    if status_of(value) != 0xFF00:
                        return taken
                    continue
                coming = Taken(context, text(value, 0x0002), text(value, 0x1000), uint(value, 0x0110))
                continue
            if coming is None:  # a response's identifier
                continue
            coming.digest.update(value)
            coming.size_bytes += len(value)
            if control & 2:
                taken[coming.sop_instance_uid] = coming
                answer = command(
                    e0002=coming.sop_class_uid, e0100=0x8001, e0120=coming.message_id, e0800=NO_DATA_SET, e0900=0,
                    e1000=coming.sop_instance_uid,
                )  # fmt: skip
                self.send_value(answer, True, True, coming.context_id)
                coming = None
        raise ConnectionError("the association ended in the middle of a C-GET")

    def _values(self) -> Iterator[tuple[int, int, memoryview]]:
        """Pieces of presentation data values as they come: context id, control header, bytes. A long value comes in
        several pieces, of which only the end of the last bears the value's "last" bit."""
        buffer = memoryview(bytearray(1 << 18))
        while True:
            kind, left = struct.unpack(">BxL", self.read_exactly(6))
            if kind != 0x04:
                return
            while left:
                size, context_id, control = struct.unpack(">LBB", self.read_exactly(6))
                left -= 4 + size
                size -= 2
                if control & 1:  # a command is taken whole
                    yield context_id, control, memoryview(self.read_exactly(size))
                    continue
                while True:
                    got = self.connection.recv_into(buffer[: min(size, len(buffer))]) if size else 0
                    size -= got
                    yield context_id, control if not size else control & ~2, buffer[:got]
                    if not size:
                        break


@dataclass
class Taken:
    """An object that came by C-GET: its digest and size, not its bytes."""

    context_id: int
    sop_class_uid: str
    sop_instance_uid: str
    message_id: int
    size_bytes: int = 0

    def __post_init__(self) -> None:
        self.digest = hashlib.sha256()


def value_of(command_set: bytes | memoryview, wanted: int) -> bytes:
    """The value of an element of a command set; empty if it has none."""
    at = 0
    while at + 8 <= len(command_set):
        _group, number, length = struct.unpack_from("<HHL", command_set, at)
        if number == wanted:
            return bytes(command_set[at + 8 : at + 8 + length])
        at += 8 + length
    return b""


def uint(command_set: bytes | memoryview, wanted: int) -> int:
    """A number of a command set."""
    return int.from_bytes(value_of(command_set, wanted), "little")


def text(command_set: bytes | memoryview, wanted: int) -> str:
    """A UID of a command set."""
    return value_of(command_set, wanted).rstrip(b" \0").decode()


def status_of(command_set: bytes | memoryview) -> int:
    """The status of a response's command set."""
    return uint(command_set, 0x0900)
