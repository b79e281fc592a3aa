"""C-STORE as SCU: objects sent over an association, as they are stored wherever the peer takes that.

Used by C-GET over the requestor's own association and by C-MOVE over a new one. Of an object the command and all PDUs
go to the kernel in one write; while the peer answers, the next object is read.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydicom.uid import UID
from pynetdicom.presentation import PresentationContext

from pacs.archive.outgoing import AHEAD_SIZE_BYTES, Outgoing, Transcoding, open_outgoing
from pacs.archive.retrieve import Retrieve, Wanted
from pacs.errors import CannotUnderstand, PacsError
from pacs.model import codec
from pacs.model.recode import Changes
from pacs.net.association import Association, ReleaseRequested, element, encode_command
from pacs.net.upper_layer import ABORT_BY_USER, ConnectionLost, ProtocolError, data_value_header

_PDU_SIZE_BYTES_MAX = 1 << 20
_PDU_SIZE_BYTES_MIN = 128
_C_STORE_RQ = 0x0001
_HAS_DATA_SET = 0x0001


class NotTaken(CannotUnderstand):
    """The receiver did not accept a presentation context that the object could be sent in."""


def candidates(
    contexts: Sequence[PresentationContext], wanted: Wanted, preferred: Sequence[str] = ()
) -> list[PresentationContext]:
    """The accepted contexts that an object may be sent in, the best first.

    What the peer prefers comes first, then what is stored; then what is uncompressed, then what compresses without
    loss. Raise NotTaken if there is none.
    """
    by_syntax = {
        str(context.transfer_syntax[0]): context
        for context in reversed(contexts)
        if context.abstract_syntax == wanted.sop_class_uid and context.as_scu
    }
    if not by_syntax:
        raise NotTaken("The receiver takes no objects of this SOP class.")
    stored = wanted.transfer_syntax_uid
    order = dict.fromkeys((*preferred, stored, *codec.NATIVE, *codec.LOSSLESS_TARGETS))
    found = [by_syntax[uid] for uid in order if uid in by_syntax and codec.may_become(stored, uid)]
    if not found:
        raise NotTaken(
            f"Stored in {UID(stored).name}: the receiver takes neither that nor what it can be changed to. "
            "Let the receiver accept the stored one."
        )
    return found


@dataclass
class Prepared:
    """An object that is open, and where it is to go; or why it can't."""

    wanted: Wanted
    context: PresentationContext | None = None
    outgoing: Outgoing | None = None
    error: PacsError | None = None

    def close(self) -> None:
        """Close its file."""
        if self.outgoing is not None:
            self.outgoing.close()


class Sender:
    """Sends objects over one association, one after the other."""

    def __init__(
        self,
        assoc: Association,
        retrieve: Retrieve,
        transcoding: Transcoding,
        changes: Mapping[int, Changes],
        originator: tuple[str, int] | None = None,
        preferred: Sequence[str] = (),
        while_waiting: Callable[[], None] = lambda: None,
        while_preparing: Callable[[], None] | None = None,
    ) -> None:
        """`originator`: AE title and message id of the C-MOVE that this is part of. `while_waiting` is called now and
        then in what takes long, `while_preparing` instead of it before an object's first byte was sent; what they
        raise ends it."""
        self.assoc = assoc
        self._retrieve, self._transcoding, self._changes = retrieve, transcoding, changes
        self._originator, self._preferred, self._while_waiting = originator, preferred, while_waiting
        self._while_preparing = while_preparing or while_waiting
        self._contexts: dict[tuple[str, str], list[PresentationContext]] = {}
        # Two, taken in turn: one object is on its way while the next is read.
        self._buffers = [bytearray(), bytearray()]
        room = max(min(assoc.peer_pdu_size_bytes or _PDU_SIZE_BYTES_MAX, _PDU_SIZE_BYTES_MAX), _PDU_SIZE_BYTES_MIN)
        self._value_size_bytes = room - 6

    def prepare(self, wanted: Wanted, is_due: bool = True) -> Prepared | None:
        """Open an object in the best context that it can be sent in. None if that takes long and it is not yet due."""
        prepared = Prepared(wanted)
        try:
            for context in self._candidates(wanted):
                target = str(context.transfer_syntax[0])
                if not is_due and target != wanted.transfer_syntax_uid:
                    return None
                try:
                    prepared.outgoing = open_outgoing(
                        self._retrieve, wanted, target, self._transcoding, self._changes.get(wanted.object_key),
                        self._next_buffer(wanted), self._while_preparing,
                    )  # fmt: skip
                except CannotUnderstand as error:  # as this; the next context may do
                    prepared.error = prepared.error or error
                    continue
                prepared.context, prepared.error = context, None
                break
        except PacsError as error:
            prepared.error = error
        return prepared

    def send(self, prepared: Prepared, message_id: int) -> None:
        """Send an object. Raise ConnectionLost if the association is over: also when the object's bytes could not be
        read to the end, as nothing else can be said in the middle of them."""
        assert prepared.context is not None and prepared.outgoing is not None
        try:
            prepared.outgoing.stored.while_waiting = self._while_waiting
            before = self._command(prepared.wanted, prepared.context, message_id)
            for pdus in self._pdus(int(prepared.context.context_id or 0), prepared.outgoing):
                if not before:  # a large object, somewhere in the middle
                    self._while_waiting()
                self.assoc.upper_layer.send(*before, *pdus)
                before = []
        except ConnectionLost:
            raise
        except PacsError as error:
            self.assoc.upper_layer.send_abort(*ABORT_BY_USER)
            raise ConnectionLost(f"An object could not be sent to its end: {error}") from error

    def receive_status(self, message_id: int) -> int:
        """The status that the peer answers with. Raise ConnectionLost if it does not."""
        self.assoc.upper_layer.acknowledge_at_once()
        try:
            return self.assoc.receive_store_status(message_id)
        except ReleaseRequested:
            self.assoc.upper_layer.send_release_response()
            raise ConnectionLost("The receiver released the association before all was sent.") from None
        except ProtocolError as error:
            self.assoc.upper_layer.send_abort(*error.abort)
            raise ConnectionLost(str(error)) from error

    def _candidates(self, wanted: Wanted) -> list[PresentationContext]:
        key = (wanted.sop_class_uid, wanted.transfer_syntax_uid)
        if key not in self._contexts:
            self._contexts[key] = candidates(self.assoc.contexts, wanted, self._preferred)
        return self._contexts[key]

    def _next_buffer(self, wanted: Wanted) -> memoryview:
        self._buffers.reverse()
        size = min(wanted.size_bytes, AHEAD_SIZE_BYTES)
        if len(self._buffers[0]) < size:
            self._buffers[0] = bytearray(size)
        return memoryview(self._buffers[0])

    def _command(self, wanted: Wanted, context: PresentationContext, message_id: int) -> list[bytes]:
        """A C-STORE request (PS3.7 9.3.1.1)."""
        elements = [
            element(0x0002, wanted.sop_class_uid.encode(), b"\0"),
            element(0x0100, struct.pack("<H", _C_STORE_RQ)),
            element(0x0110, struct.pack("<H", message_id)),
            element(0x0700, struct.pack("<H", 0)),
            element(0x0800, struct.pack("<H", _HAS_DATA_SET)),
            element(0x1000, wanted.sop_instance_uid.encode(), b"\0"),
        ]
        if self._originator is not None:
            elements.append(element(0x1030, self._originator[0].encode(), b" "))
            elements.append(element(0x1031, struct.pack("<H", self._originator[1])))
        command = encode_command(elements)
        return [data_value_header(int(context.context_id or 0), len(command), True, True), command]

    def _pdus(self, context_id: int, outgoing: Outgoing) -> Iterator[list[bytes | memoryview]]:
        """The data set's PDUs, a piece at a time: headers of ours between the bytes as they are."""
        room, left = self._value_size_bytes, outgoing.size_bytes
        full = data_value_header(context_id, room, False, False)
        for piece in outgoing.pieces:
            view, parts = memoryview(piece), list[bytes | memoryview]()
            for at in range(0, len(view), room):
                part = view[at : at + room]
                left -= len(part)
                is_full = len(part) == room and left
                parts += [full if is_full else data_value_header(context_id, len(part), False, left == 0), part]
            yield parts
        if left:
            raise CannotUnderstand("A stored data set is not as long as its row says. Run `pacs reconcile run`.")
