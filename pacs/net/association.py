"""An association: DIMSE messages over the upper layer, on one thread, without a queue or a poll.

pynetdicom encodes and decodes the commands and knows the messages; reading, sending and the order of things are
ours. The object that a C-STORE request brings goes straight from the socket to whoever takes it (`Sink`), in pieces
of at most one buffer, whatever its size.

What this leans on in pynetdicom 3.0: `DIMSEMessage.decode_msg`, `message_to_primitive`, `primitive_to_message` and
`encode_msg`. `tests/unit/net/test_association.py` fails when a new release changes that.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from pynetdicom.dimse import _RQ_TO_MESSAGE, _RSP_TO_MESSAGE
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import C_CANCEL
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import PresentationContext

from pacs.index.devices import Device
from pacs.net.outbox import Outbox
from pacs.net.trail import Trail
from pacs.net.upper_layer import (
    ABORT_UNEXPECTED_PDU,
    ConnectionLost,
    PduHeader,
    PduType,
    ProtocolError,
    UpperLayer,
    data_value_header,
)

#: The longest command set, and the longest identifier of a query, that is taken [bytes].
COMMAND_SIZE_BYTES_MAX = 64 << 10
IDENTIFIER_SIZE_BYTES_MAX = 4 << 20
_BUFFER_SIZE_BYTES = 256 << 10
#: Buffers of data sets that have arrived, for the next ones: the last used first, as the processor has it at hand.
_BUFFERS: list[bytearray] = []
_BUFFERS_MAX = 16
_NO_DATA_SET = 0x0101
_C_STORE_RQ, _C_STORE_RSP, _C_CANCEL_RQ = 0x0001, 0x8001, 0x0FFF
_C_FIND_RSP, _HAS_DATA_SET = 0x8020, 0x0001


class Sink(Protocol):
    """Takes a data set that arrives in pieces. `write` must not raise for what is wrong with the object: its turn to
    say so is the answer."""

    def write(self, piece: memoryview) -> None:
        """Take the next bytes; they are overwritten when this returns."""


@dataclass(frozen=True)
class StoreRequest:
    """What the command of a C-STORE request says (PS3.7 9.3.1)."""

    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    context: PresentationContext


@dataclass
class Message:
    """A whole DIMSE message other than a C-STORE request: pynetdicom's primitive, and its context."""

    primitive: Any
    context: PresentationContext


class ReleaseRequested(Exception):
    """The peer asks for the association's release."""


class Aborted(ConnectionLost):
    """The peer aborted the association."""


#: Called with a C-STORE request's command; gives the sink for its data set.
OpenSink = Callable[[StoreRequest], Sink]


@dataclass
class Association:
    """An established association, as acceptor or requestor."""

    upper_layer: UpperLayer
    accepted: dict[int, PresentationContext]
    calling_ae: str
    called_ae: str
    peer: str
    peer_pdu_size_bytes: int
    key: int | None = None
    #: A C-STORE's data set that is still coming after so many bytes will never end [bytes].
    data_set_size_bytes_max: int = 1 << 62
    device: Device | None = None
    user_name: str = ""
    #: The certificate that it showed, SHA-256 in hexadecimal; empty if it showed none.
    certificate_sha256: str = ""
    #: What the audit log is told of it; None if it is told nothing.
    trail: Trail | None = None
    outbox: Outbox | None = None
    extended: dict[str, bytes] = field(default_factory=dict)
    _cancelled: set[int] = field(default_factory=set)
    _head: bytearray = field(default_factory=lambda: bytearray(6))
    _pending_bytes: int = 0  # of a PDU whose command was read and whose data set was not

    # Receiving

    def receive(self, open_sink: OpenSink | None = None) -> Message | tuple[StoreRequest, Sink]:
        """Wait for the next message; a C-STORE request's data set has gone into its sink when this returns.

        Raise ReleaseRequested, Aborted, ConnectionLost or ProtocolError.
        """
        command, context = self._receive_command()
        if _us(command, 0x0100) == _C_STORE_RQ and open_sink is not None:
            request = StoreRequest(_us(command, 0x0110), _ui(command, 0x0002), _ui(command, 0x1000), context)
            if _us(command, 0x0800) == _NO_DATA_SET:
                raise ProtocolError("A C-STORE request came without a data set.")
            sink = open_sink(request)
            self._receive_data_set(int(context.context_id or 0), sink.write)
            return request, sink
        self._cancelled.discard(_us(command, 0x0110, 0))  # an id that is used again; pynetdicom's is always 1
        identifier = bytearray()
        if _us(command, 0x0800) != _NO_DATA_SET:
            self._receive_data_set(int(context.context_id or 0), _bounded(identifier))
        elif self._pending_bytes:
            raise ProtocolError("Two messages came in one PDU.")
        primitive = _primitive(command, bytes(identifier), int(context.context_id or 0))
        if not isinstance(primitive, C_CANCEL):
            self._cancelled.discard(int(primitive.MessageID or 0))  # of an earlier request with this number
        return Message(primitive, context)

    def is_cancelled(self, message_id: int) -> bool:
        """Whether the peer has sent a C-CANCEL for a request of its own. Looks, but does not wait.

        Raise what `receive` does, if something else came.
        """
        while self.upper_layer.has_input():
            message = self.receive()
            if not isinstance(message, Message) or not isinstance(message.primitive, C_CANCEL):
                raise ProtocolError("A request came before the one before it was answered.", ABORT_UNEXPECTED_PDU)
            self.cancel(int(message.primitive.MessageIDBeingRespondedTo or 0))
        return message_id in self._cancelled

    def cancel(self, message_id: int) -> None:
        """Note a C-CANCEL of the peer for a request of its own."""
        self._cancelled.add(message_id)

    def receive_store_status(self, message_id: int) -> int:
        """Wait for the answer to a C-STORE request of ours; return its status. A C-CANCEL on the way is noted.

        Raise what `receive` does.
        """
        while True:
            command, _context = self._receive_command()
            if self._pending_bytes or _us(command, 0x0800) != _NO_DATA_SET:
                raise ProtocolError("An answer came with a data set.", ABORT_UNEXPECTED_PDU)
            kind, answered = _us(command, 0x0100), _us(command, 0x0120)
            if kind == _C_CANCEL_RQ:
                self.cancel(answered)
            elif kind == _C_STORE_RSP and answered == message_id:
                return _us(command, 0x0900)
            else:
                raise ProtocolError("Something else than what was sent was answered.", ABORT_UNEXPECTED_PDU)

    def _receive_command(self) -> tuple[bytes, PresentationContext]:
        command, context_id = bytearray(), 0
        write = _bounded(command, COMMAND_SIZE_BYTES_MAX)
        while True:
            header = self._next_data_pdu()
            left = header.length
            while left:
                size, context_id, control = self._data_value(left)
                left -= size + 6
                if not control & 1:
                    raise ProtocolError("A data set came without a command.", ABORT_UNEXPECTED_PDU)
                self._read_value(size, write, memoryview(bytearray(min(size, COMMAND_SIZE_BYTES_MAX))))
                if control & 2:
                    if left:
                        self._pending_bytes = left
                    return bytes(command), self._context(context_id)

    def _receive_data_set(self, context_id: int, write: Callable[[memoryview], None]) -> None:
        try:
            buffer = _BUFFERS.pop()
        except IndexError:
            buffer = bytearray(_BUFFER_SIZE_BYTES)
        try:
            self._gather_data_set(context_id, write, memoryview(buffer))
        finally:
            if len(_BUFFERS) < _BUFFERS_MAX:
                _BUFFERS.append(buffer)

    def _gather_data_set(self, context_id: int, write: Callable[[memoryview], None], buffer: memoryview) -> None:
        """Give the values of a data set to write, as many at once as the buffer holds: less of the time is spent on
        handing Python's lock from one association to another."""
        left, self._pending_bytes = self._pending_bytes, 0
        room = self.data_set_size_bytes_max
        filled, is_last = 0, False
        while not is_last:
            if not left:
                left = self._next_data_pdu().length
                room -= left
                if room < 0:
                    raise ProtocolError("A data set has no end.")
            while left:
                size, found, control = self._data_value(left)
                left -= size + 6
                if control & 1 or found != context_id:
                    raise ProtocolError("A data set was interrupted by something else.", ABORT_UNEXPECTED_PDU)
                is_last = bool(control & 2)
                if is_last and left:
                    raise ProtocolError("Two messages came in one PDU.")
                if filled + size > len(buffer):
                    write(buffer[:filled])
                    filled = 0
                if size > len(buffer):
                    self._read_value(size, write, buffer)
                    continue
                self.upper_layer.read_into(buffer[filled : filled + size])
                filled += size
        if filled:
            write(buffer[:filled])

    def _next_data_pdu(self) -> PduHeader:
        header = self.upper_layer.read_header()
        if header.type == PduType.P_DATA_TF:
            return header
        if header.type == PduType.RELEASE_RQ:
            self.upper_layer.read(header.length)
            raise ReleaseRequested
        if header.type == PduType.ABORT:
            raise Aborted("The peer aborted the association.")
        raise ProtocolError(f"A PDU of type {header.type} came in an established association.", ABORT_UNEXPECTED_PDU)

    def _data_value(self, left: int) -> tuple[int, int, int]:
        """Size of the value [bytes], context id and control header of the next presentation data value."""
        if left < 6:
            raise ProtocolError("A presentation data value is cut short.")
        head = memoryview(self._head)
        self.upper_layer.read_into(head)
        length, context_id, control = struct.unpack(">LBB", head)
        if length < 2 or length + 4 > left:
            raise ProtocolError("A presentation data value is longer than its PDU.")
        return length - 2, context_id, control

    def _read_value(self, size: int, write: Callable[[memoryview], None], buffer: memoryview) -> None:
        while size:
            piece = buffer[: min(size, len(buffer))]
            self.upper_layer.read_into(piece)
            write(piece)
            size -= len(piece)

    def _context(self, context_id: int) -> PresentationContext:
        try:
            return self.accepted[context_id]
        except KeyError:
            raise ProtocolError(
                f"A message came in presentation context {context_id}, which is not accepted."
            ) from None

    # Sending

    def send(self, primitive: Any, context_id: int) -> None:
        """Send a message whose data set, if any, is in memory."""
        kind = _RQ_TO_MESSAGE if primitive.MessageIDBeingRespondedTo is None else _RSP_TO_MESSAGE
        message = kind[type(primitive)]()
        message.primitive_to_message(primitive)
        parts: list[bytes] = []
        for value in message.encode_msg(context_id, min(self.peer_pdu_size_bytes or 65536, 65536)):
            for found, content in value.presentation_data_value_list:
                parts += [struct.pack(">BxLLB", PduType.P_DATA_TF, len(content) + 5, len(content) + 1, found), content]
        self.upper_layer.send(b"".join(parts))

    def send_find_response(self, request: Any, context: PresentationContext, status: int, identifier: bytes) -> None:
        """Send a pending C-FIND response (PS3.7 9.3.2.2) with its encoded identifier, in one write."""
        command = encode_command(
            [
                element(0x0002, str(request.AffectedSOPClassUID).encode(), b"\0"),
                element(0x0100, struct.pack("<H", _C_FIND_RSP)),
                element(0x0120, struct.pack("<H", request.MessageID)),
                element(0x0800, struct.pack("<H", _HAS_DATA_SET)),
                element(0x0900, struct.pack("<H", status)),
            ]
        )
        context_id = int(context.context_id or 0)
        parts = [data_value_header(context_id, len(command), True, True), command]
        room = max(min(self.peer_pdu_size_bytes or 65536, 65536) - 6, 2)
        for at in range(0, len(identifier), room):
            part = identifier[at : at + room]
            parts += [data_value_header(context_id, len(part), False, at + room >= len(identifier)), part]
        self.upper_layer.send(*parts)

    def send_store_response(self, request: StoreRequest, status: int, comment: str = "") -> None:
        """Answer a C-STORE request (PS3.7 9.3.1.2)."""
        elements = [
            element(0x0002, request.sop_class_uid.encode("ascii", "replace"), b"\0"),
            element(0x0100, struct.pack("<H", 0x8001)),
            element(0x0120, struct.pack("<H", request.message_id)),
            element(0x0800, struct.pack("<H", _NO_DATA_SET)),
            element(0x0900, struct.pack("<H", status)),
        ]
        if comment:
            elements.append(element(0x0902, comment.encode("ascii", "replace")[:64], b" "))
        elements.append(element(0x1000, request.sop_instance_uid.encode("ascii", "replace"), b"\0"))
        command = encode_command(elements)
        self.upper_layer.send(
            data_value_header(int(request.context.context_id or 0), len(command), True, True) + command
        )

    @property
    def contexts(self) -> list[PresentationContext]:
        """The accepted presentation contexts."""
        return [self.accepted[key] for key in sorted(self.accepted)]


def _bounded(target: bytearray, size_bytes_max: int = IDENTIFIER_SIZE_BYTES_MAX) -> Callable[[memoryview], None]:
    def write(piece: memoryview) -> None:
        if len(target) + len(piece) > size_bytes_max:
            raise ProtocolError("A command or identifier is longer than this archive takes.")
        target.extend(piece)

    return write


def element(number: int, value: bytes, padding: bytes = b"") -> bytes:
    """An element of group 0000, implicit VR little endian (PS3.7 6.3.1)."""
    value += padding * (len(value) % 2)
    return struct.pack("<HHL", 0, number, len(value)) + value


def encode_command(elements: list[bytes]) -> bytes:
    """A command set with its group length."""
    command = b"".join(elements)
    return element(0x0000, struct.pack("<L", len(command))) + command


def _value(command: bytes, wanted: int) -> bytes:
    at = 0
    while at + 8 <= len(command):
        group, element, length = struct.unpack_from("<HHL", command, at)
        at += 8
        if group == 0 and element == wanted:
            return command[at : at + length]
        at += length
    return b""


def _us(command: bytes, element: int, default: int | None = None) -> int:
    value = _value(command, element)
    if not value and default is not None:
        return default
    if len(value) != 2:
        raise ProtocolError(f"A command has no (0000,{element:04X}).")
    return int(struct.unpack("<H", value)[0])


def _ui(command: bytes, element: int) -> str:
    return _value(command, element).rstrip(b" \0").decode("ascii", "replace")


def _primitive(command: bytes, identifier: bytes, context_id: int) -> Any:
    message, values = DIMSEMessage(), P_DATA()
    values.presentation_data_value_list.append((context_id, b"\x03" + command))
    if identifier:
        values.presentation_data_value_list.append((context_id, b"\x02" + identifier))
    try:
        message.decode_msg(values)
        return message.message_to_primitive()
    except Exception as error:  # pynetdicom raises what it likes for a command that is none
        raise ProtocolError(f"A command cannot be read ({type(error).__name__}).") from error
