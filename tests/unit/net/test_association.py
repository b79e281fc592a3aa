"""What the receive path leans on in pynetdicom. Fails when a new release changes it: then read pacs/net again."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from io import BytesIO

import pynetdicom
import pytest
from pydicom.uid import UID
from pynetdicom import build_context
from pynetdicom.dimse import _RQ_TO_MESSAGE, _RSP_TO_MESSAGE
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import C_CANCEL, C_ECHO, C_FIND, C_STORE
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import negotiate_as_acceptor, negotiate_as_requestor

from pacs.net import association
from pacs.net.association import Aborted, Association, Message, ReleaseRequested, StoreRequest
from pacs.net.upper_layer import ConnectionLost, PduType, ProtocolError, UpperLayer, data_value_header

CT, EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"


def test_the_release_is_one_that_was_read() -> None:
    assert pynetdicom.__version__.startswith("3.0.")


def test_messages_are_made_and_read_by_these_names() -> None:
    assert {C_ECHO, C_FIND, C_STORE} <= set(_RQ_TO_MESSAGE) & set(_RSP_TO_MESSAGE)
    response = C_FIND()
    response.MessageIDBeingRespondedTo, response.AffectedSOPClassUID, response.Status = 7, CT, 0xFF00
    response.Identifier = BytesIO(b"\x08\x00\x52\x00CS\x06\x00STUDY ")
    message = _RSP_TO_MESSAGE[C_FIND]()
    message.primitive_to_message(response)
    values = [value for data in message.encode_msg(3, 16384) for value in data.presentation_data_value_list]
    assert [(context_id, content[0]) for context_id, content in values] == [(3, 3), (3, 2)]
    read, again = DIMSEMessage(), P_DATA()
    again.presentation_data_value_list.extend(values)
    assert read.decode_msg(again)
    primitive = read.message_to_primitive()
    assert (primitive.msg_type, primitive.Status, primitive.is_valid_request) == ("C-FIND", 0xFF00, False)


def test_negotiation_takes_the_first_of_ours_that_was_offered() -> None:
    ours = build_context(CT, ["1.2.840.10008.1.2.5", EXPLICIT])
    theirs = build_context(CT, ["1.2.840.10008.1.2", EXPLICIT, "1.2.840.10008.1.2.5"])
    theirs.context_id = 1
    (result,), _roles = negotiate_as_acceptor([theirs], [ours], {})
    assert (result.result, result.transfer_syntax) == (0, [UID("1.2.840.10008.1.2.5")])
    (ours_again,) = negotiate_as_requestor([theirs], [result])
    assert ours_again.as_scu


def test_association_pdus_are_made_by_these_names() -> None:
    for pdu in (A_ASSOCIATE_RQ, A_ASSOCIATE_AC, A_ASSOCIATE_RJ):
        assert callable(pdu.from_primitive) and callable(pdu.to_primitive) and callable(pdu.decode)


# --- the association itself, against bytes -------------------------------------------------------------------------


@pytest.fixture
def wire() -> Iterator[tuple[socket.socket, Association]]:
    """A peer's end of a connection, and our association on the other."""
    theirs, ours = socket.socketpair()
    connection = _Tcp(ours)
    accepted = {1: build_context(CT, EXPLICIT), 3: build_context("1.2.840.10008.1.1", EXPLICIT)}
    for context_id, context in accepted.items():
        context.context_id = context_id
    assoc = Association(
        UpperLayer(connection, 5),  # type: ignore[arg-type]
        accepted=accepted,
        calling_ae="PEER",
        called_ae="PACS",
        peer="127.0.0.1",
        peer_pdu_size_bytes=16384,
    )
    yield theirs, assoc
    theirs.close()
    ours.close()


class _Tcp:
    """A socket pair's end that takes TCP's options."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        """A socket pair never delays; all else it knows."""
        if level != socket.IPPROTO_TCP:
            self._connection.setsockopt(level, option, value)

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)


class _Collected(bytearray):
    def write(self, piece: memoryview) -> None:
        self.extend(piece)


def _command(number: int, data_set: int = 0x0001) -> bytes:
    elements = [(0x0002, CT.encode() + b"\0"), (0x0100, struct.pack("<H", number)), (0x0110, struct.pack("<H", 9))]
    elements += [(0x0120, struct.pack("<H", 9))] if number == 0x0FFF else []
    elements += [(0x0700, struct.pack("<H", 0)), (0x0800, struct.pack("<H", data_set)), (0x1000, b"1.2.3\0")]
    return b"".join(struct.pack("<HHL", 0, element, len(value)) + value for element, value in elements)


def _value(content: bytes, control: int, context_id: int = 1) -> bytes:
    return struct.pack(">LBB", len(content) + 2, context_id, control) + content


def _pdu(*values: bytes) -> bytes:
    content = b"".join(values)
    return struct.pack(">BxL", PduType.P_DATA_TF, len(content)) + content


def _receive_store(assoc: Association) -> tuple[StoreRequest, bytes]:
    received = assoc.receive(lambda request: _Collected())
    assert not isinstance(received, Message)
    return received[0], bytes(received[1])  # type: ignore[call-overload]


def test_a_store_request_reaches_its_sink_however_it_is_cut(wire: tuple[socket.socket, Association]) -> None:
    theirs, assoc = wire
    command, data = _command(1), bytes(range(256)) * 3
    ways = [
        [_pdu(_value(command, 3)), _pdu(_value(data, 2))],
        [
            _pdu(_value(command[:10], 1)),
            _pdu(_value(command[10:], 3)),
            _pdu(_value(data[:5], 0)),
            _pdu(_value(data[5:], 2)),
        ],
        [_pdu(_value(command, 3), _value(data, 2))],
        [_pdu(_value(command, 3), _value(data[:7], 0)), _pdu(_value(data[7:9], 0), _value(data[9:], 2))],
        [_pdu(_value(command, 3)), _pdu(_value(data, 0)), _pdu(_value(b"", 2))],
    ]
    for way in ways:
        theirs.sendall(b"".join(way))
        request, taken = _receive_store(assoc)
        assert (request.message_id, request.sop_class_uid, request.sop_instance_uid) == (9, CT, "1.2.3")
        assert taken == data


def test_bytes_one_by_one(wire: tuple[socket.socket, Association]) -> None:
    theirs, assoc = wire
    content = _pdu(_value(_command(1), 3)) + _pdu(_value(b"abc", 0)) + _pdu(_value(b"d", 2))

    def drip() -> None:
        for byte in content:
            theirs.send(bytes([byte]))

    sender = threading.Thread(target=drip)
    sender.start()
    assert _receive_store(assoc)[1] == b"abcd"
    sender.join()


@pytest.mark.parametrize(
    "content, error",
    [
        (struct.pack(">BxLL", PduType.RELEASE_RQ, 4, 0), ReleaseRequested),
        (struct.pack(">BxLL", PduType.ABORT, 4, 0), Aborted),
        (struct.pack(">BxL", PduType.ASSOCIATE_RQ, 4), ProtocolError),
        (struct.pack(">BxL", 0x99, 4), ProtocolError),
        (_pdu(_value(b"data", 2)), ProtocolError),
        (_pdu(_value(_command(1), 3, context_id=77)), ProtocolError),
        (_pdu(_value(_command(1, data_set=0x0101), 3)), ProtocolError),
        (_pdu(_value(b"\0" * 70000, 1)), ProtocolError),
        (_pdu(struct.pack(">LBB", 1, 1, 3)), ProtocolError),
        (_pdu(struct.pack(">LBB", 500, 1, 3)), ProtocolError),
        (_pdu(b"\0\0\0"), ProtocolError),
        (_pdu(_value(b"\0" * 30, 3)), ProtocolError),
        (_pdu(_value(_command(1), 3)) + _pdu(_value(_command(1), 3)), ProtocolError),
        (_pdu(_value(_command(1), 3)) + _pdu(_value(b"x", 2, context_id=3)), ProtocolError),
        (_pdu(_value(_command(1), 3))[:-1], ConnectionLost),
    ],
)
def test_what_is_not_allowed_ends_the_association(
    wire: tuple[socket.socket, Association], content: bytes, error: type[Exception]
) -> None:
    theirs, assoc = wire
    theirs.sendall(content)
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(error):
        _receive_store(assoc)


def test_a_stalled_peer_is_left_after_the_timeout(wire: tuple[socket.socket, Association]) -> None:
    theirs, assoc = wire
    assoc.upper_layer.set_timeout(0.05)
    theirs.sendall(_pdu(_value(_command(1), 3)) + struct.pack(">BxL", PduType.P_DATA_TF, 1000))
    with pytest.raises(ConnectionLost):
        _receive_store(assoc)


def test_a_cancel_is_noted_between_answers(wire: tuple[socket.socket, Association]) -> None:
    theirs, assoc = wire
    assert not assoc.is_cancelled(9)
    theirs.sendall(_pdu(_value(_command(0x0FFF, data_set=0x0101), 3)))
    assert assoc.is_cancelled(9) and not assoc.is_cancelled(10)


def test_a_store_response_is_one_that_pynetdicom_reads(wire: tuple[socket.socket, Association]) -> None:
    theirs, assoc = wire
    request = StoreRequest(9, CT, "1.2.3", assoc.accepted[1])
    assoc.send_store_response(
        request, 0xA700, "No room left on the volume of tier 1, and this is longer than 64 letters."
    )
    header = theirs.recv(6, socket.MSG_WAITALL)
    content = theirs.recv(struct.unpack(">BxL", header)[1], socket.MSG_WAITALL)
    message, values = DIMSEMessage(), P_DATA()
    values.presentation_data_value_list.append((content[4], content[5:]))
    assert message.decode_msg(values)
    response = message.message_to_primitive()
    assert isinstance(response, C_STORE) and (response.Status, response.MessageIDBeingRespondedTo) == (0xA700, 9)
    assert response.ErrorComment is not None and len(response.ErrorComment) == 64
    assert response.AffectedSOPInstanceUID == "1.2.3"


def test_the_header_of_a_data_value() -> None:
    assert data_value_header(5, 10, True, True) == b"\x04\x00\x00\x00\x00\x10\x00\x00\x00\x0c\x05\x03"
    assert association.COMMAND_SIZE_BYTES_MAX < 1 << 20


def test_a_cancel_is_a_message_of_pynetdicoms(wire: tuple[socket.socket, Association]) -> None:
    theirs, assoc = wire
    theirs.sendall(_pdu(_value(_command(0x0FFF, data_set=0x0101), 3)))
    message = assoc.receive()
    assert isinstance(message, Message) and isinstance(message.primitive, C_CANCEL)
