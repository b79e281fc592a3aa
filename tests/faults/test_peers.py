"""Peers that abort, stall, flood and lie: no process dies, memory is bounded, the others go on being served."""

from __future__ import annotations

import shutil
import struct
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacs.net.upper_layer import data_value_header
from tests.faults.aftermath import assert_nothing_lost
from tests.faults.process import forget_memory_peak, memory_peak_bytes, receiver_pid
from tests.faults.sender import Account, missing_or_different
from tests.faults.wire import (
    CT,
    DEFLATED,
    EXPLICIT,
    HAS_DATA_SET,
    IMPLICIT,
    NO_DATA_SET,
    STUDY_ROOT_FIND,
    Wire,
    association_request,
    command,
    element,
    item,
    pdu,
    store_command,
)
from tests.fix_instance import Dev
from tests.peer import RawObject
from tests.synthetic import ct_dataset, encode

OBJECT_SIZE_BYTES_MAX = 8 << 20
#: What a receiver may grow by for all that these peers do to it [bytes].
MEMORY_BYTES_MAX = 200 << 20
CONTEXTS = [(CT, EXPLICIT), (CT, IMPLICIT), (CT, DEFLATED), (STUDY_ROOT_FIND, EXPLICIT)]
UNDEFINED = 0xFFFFFFFF
#: What all tests of this module have stored.
STORED = Account()


@pytest.fixture(scope="module")
def attacked(short_folder: Path) -> Iterator[Dev]:
    """A `pacs dev` that takes objects of 8 MiB and gives up on a silent peer after 3 s."""
    environment = {
        "PACS_ORPHAN_AGE_S": "0",
        "PACS_OBJECT_SIZE_BYTES_MAX": str(OBJECT_SIZE_BYTES_MAX),
        "PACS_NETWORK_TIMEOUT_S": "3",
    }
    running = Dev(short_folder / f"dev{uuid.uuid4().hex[:6]}", environment).start()
    yield running
    assert_nothing_lost(running, STORED)
    running.stop()
    shutil.rmtree(running.data, ignore_errors=True)


@pytest.fixture
def served(attacked: Dev) -> Iterator[Dev]:
    """The instance, with an association that stores before and after, and the same receiver, no fatter, at the end."""
    pid, account = receiver_pid(attacked), Account()
    forget_memory_peak(pid)
    with Wire(attacked.dicom_port) as other:
        other.associate(CONTEXTS)
        _store(other, account)
        yield attacked
        # It was silent for as long as the attack took, and may have been given up.
        try:
            _store(other, account)
        except OSError:
            pass
    with Wire(attacked.dicom_port) as again:
        again.associate(CONTEXTS)
        _store(again, account)
    assert receiver_pid(attacked) == pid, "the receiver died"
    assert memory_peak_bytes(pid) < MEMORY_BYTES_MAX
    assert "unforeseen" not in attacked.log()
    STORED.sent.update(account.sent)
    STORED.acknowledged.update(account.acknowledged)


def _store(wire: Wire, account: Account) -> None:
    raw = _raw()
    account.sent[raw.sop_instance_uid] = raw
    account.note(raw, wire.store_raw(raw))
    assert account.statuses[-1] in (0x0000, None)


def _raw() -> RawObject:
    return RawObject.of(encode(ct_dataset(uuid.uuid4().int % (1 << 32))))


def _value(content: bytes, is_command: bool, is_last: bool = True, context_id: int = 1) -> bytes:
    return data_value_header(context_id, len(content), is_command, is_last) + content


RAW = RawObject.of(encode(ct_dataset(900)))
STORE = _value(store_command(RAW.sop_class_uid, RAW.sop_instance_uid), True)
WHOLE = STORE + _value(RAW.dataset, False)


# --- aborts and stalls ---------------------------------------------------------------------------------------------


def test_a_peer_that_goes_away_after_each_byte_of_the_start_and_at_each_pdu(served: Dev) -> None:
    stream = association_request(CONTEXTS) + WHOLE
    ends = [*range(0, 90, 7), *range(90, len(stream), 997), len(stream) - 1]
    for end in ends:
        with Wire(served.dicom_port) as wire:
            wire.connection.sendall(stream[:end])
    for after in (STORE, WHOLE[:-1], WHOLE):
        for last in (pdu(0x07, bytes(4)), pdu(0x05, bytes(4)), b""):  # an abort, a release, nothing
            with Wire(served.dicom_port) as wire:
                wire.associate(CONTEXTS)
                wire.connection.sendall(after + last)


def test_peers_that_stall_hold_up_nobody_and_are_given_up(served: Dev) -> None:
    stalled = [Wire(served.dicom_port) for _ in range(20)]
    for number, wire in enumerate(stalled):
        if number % 2:
            wire.connection.sendall(association_request(CONTEXTS)[:50])
        else:
            wire.associate(CONTEXTS)
            wire.connection.sendall(WHOLE[: len(WHOLE) // 2])
    account = Account()
    with Wire(served.dicom_port) as wire:
        wire.associate(CONTEXTS)
        for _ in range(5):
            _store(wire, account)
    assert account.statuses == [0x0000] * 5
    for wire in stalled[::2]:  # in the middle of a PDU: ended by network_timeout_s
        assert wire.is_over()
    for wire in stalled:
        wire.connection.close()


def test_a_flood_of_connections(served: Dev) -> None:
    """More than may be open: those beyond are closed, and when they have gone there is room again."""
    wires = []
    for _ in range(300):
        try:
            wires.append(Wire(served.dicom_port, timeout_s=5))
        except OSError:
            break
    for wire in wires:
        wire.connection.close()


def test_a_flood_of_requests_whose_answers_are_never_read(served: Dev) -> None:
    """The receiver stops at what the sockets hold, and gives the peer up. Answers are long here: they name the UID."""
    request = _value(store_command(CT, "1." * 30_000), True) + _value(b"", False)
    with Wire(served.dicom_port, timeout_s=20, receive_buffer_bytes=4096) as wire:
        wire.associate(CONTEXTS)
        with pytest.raises(ConnectionError):
            while True:
                wire.connection.sendall(request)


def test_a_c_cancel_that_comes_too_late_is_let_pass(served: Dev) -> None:
    """Its request was answered meanwhile: no peer can know that."""
    account = Account()
    with Wire(served.dicom_port) as wire:
        wire.associate(CONTEXTS)
        _store(wire, account)
        wire.send_value(command(e0100=0xFFF, e0120=1, e0800=NO_DATA_SET), True)
        _store(wire, account)
    assert account.statuses == [0x0000, 0x0000]


# --- PDUs that lie -------------------------------------------------------------------------------------------------

_ECHO = {"e0002": "1.2.840.10008.1.1", "e0100": 0x30, "e0110": 1}
LIES: dict[str, bytes] = {
    "a PDU of 4 GiB": struct.pack(">BxL", 4, UNDEFINED) + bytes(100),
    "a release of 4 GiB": struct.pack(">BxL", 5, UNDEFINED) + bytes(100),
    "an unknown PDU": pdu(0x99, bytes(10)),
    "a second association request": association_request(CONTEXTS),
    "an acceptance": pdu(0x02, bytes(80)),
    "a value of length 0": pdu(4, struct.pack(">LBB", 0, 1, 3)),
    "a value of length 1": pdu(4, struct.pack(">LBB", 1, 1, 3)),
    "a value longer than its PDU": pdu(4, struct.pack(">LBB", 1000, 1, 3) + bytes(10)),
    "a value of 4 GiB": pdu(4, struct.pack(">LBB", UNDEFINED, 1, 3) + bytes(10)),
    "a PDU shorter than its value's head": pdu(4, bytes(3)),
    "a context that is not there": _value(store_command(CT, "1.2.3"), True, context_id=99),
    "an even context": _value(store_command(CT, "1.2.3"), True, context_id=2),
    "a data set in another context": STORE + _value(RAW.dataset, False, context_id=3),
    "a data set without a command": _value(RAW.dataset, False),
    "a command in the middle of a data set": STORE + _value(RAW.dataset[:100], False, False) + STORE,
    "a command of random bytes": _value(bytes(range(256)), True),
    "an empty command": _value(b"", True),
    "a command without an end": _value(bytes(1 << 16), True, False) * 4,
    "an element of 4 GiB in a command": _value(struct.pack("<HHL", 0, 0x0100, UNDEFINED), True),
    "a C-STORE that says that it has no data set": _value(
        command(e0002=CT, e0100=1, e0110=1, e0700=0, e0800=NO_DATA_SET, e1000="1.2.3"), True
    ),
    "a C-ECHO that says that it has a data set": _value(command(**_ECHO, e0800=HAS_DATA_SET), True) + WHOLE,
    "a group length that lies": _value(
        element(0, struct.pack("<L", UNDEFINED)) + store_command(CT, "1.2.3")[12:], True
    ),
    "a response that nobody asked for": _value(command(e0100=0x8001, e0120=1, e0800=NO_DATA_SET, e0900=0), True),
    "an N-DELETE": _value(command(e0003=CT, e0100=0x0150, e0110=1, e0800=NO_DATA_SET, e1001="1.2.3"), True),
    "a C-FIND without a data set": _value(
        command(e0002=STUDY_ROOT_FIND, e0100=0x20, e0110=1, e0700=0, e0800=NO_DATA_SET), True, context_id=7
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_pdu_that_lies(attacked: Dev, lie: str) -> None:
    """It ends in an abort, or in an answer that is no success."""
    pid = receiver_pid(attacked)
    with Wire(attacked.dicom_port, timeout_s=20) as wire:
        wire.associate(CONTEXTS)
        wire.connection.sendall(LIES[lie])
        try:
            status = wire.status()
        except OSError:
            status = None
    assert status != 0x0000
    assert receiver_pid(attacked) == pid
    assert "unforeseen" not in attacked.log()


def test_values_of_no_and_of_one_byte_are_values(served: Dev) -> None:
    """Clumsy, not wrong: presentation data values of length 2 (no byte) and 3 (one byte), PDUs without a value."""
    raw, account = _raw(), Account()
    with Wire(served.dicom_port) as wire:
        wire.associate(CONTEXTS)
        wire.send_value(store_command(raw.sop_class_uid, raw.sop_instance_uid), True)
        single = b"".join(_value(raw.dataset[at : at + 1], False, False) for at in range(len(raw.dataset)))
        wire.connection.sendall(pdu(4, b"") + _value(b"", False, False) + single + _value(b"", False, True))
        account.sent[raw.sop_instance_uid] = raw
        account.note(raw, wire.status())
    assert account.statuses == [0x0000]
    assert missing_or_different(served.dicom_port, account) == []


REQUESTS: dict[str, bytes] = {
    "a request of 4 GiB": struct.pack(">BxL", 1, UNDEFINED) + bytes(100),
    "a request without an item": pdu(1, bytes(68)),
    "a request shorter than its head": pdu(1, bytes(10)),
    "an item longer than the request": pdu(1, bytes(68) + struct.pack(">BxH", 0x10, 0xFFFF) + b"1.2"),
    "a quarter of a million empty items": pdu(1, bytes(68) + item(0x40, b"") * 262_000),
    "a quarter of a million empty contexts": pdu(1, bytes(68) + item(0x20, b"\1\0\0\0") * 131_000),
    "fifteen thousand syntaxes in a context": pdu(
        1, bytes(68) + item(0x20, b"\1\0\0\0" + item(0x30, b"1.2") + item(0x40, b"") * 15_000) * 15
    ),
    "a user information of empty items": pdu(1, bytes(68) + item(0x50, item(0x52, b"") * 16_000) * 15),
}


@pytest.mark.parametrize("request_", REQUESTS)
def test_an_association_request_that_lies(attacked: Dev, request_: str) -> None:
    pid = receiver_pid(attacked)
    forget_memory_peak(pid)
    before = memory_peak_bytes(pid)
    with Wire(attacked.dicom_port, timeout_s=20) as wire:
        wire.connection.sendall(REQUESTS[request_])
        assert wire.is_over()
    assert receiver_pid(attacked) == pid
    assert memory_peak_bytes(pid) - before < 20 << 20
    assert "unforeseen" not in attacked.log()


# --- data sets that lie --------------------------------------------------------------------------------------------


def _explicit(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    size = len(value) if length is None else length
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    return head + (struct.pack("<xxL", size) if vr in (b"SQ", b"OB", b"OW", b"UN") else struct.pack("<H", size)) + value


def _nested(depth: int, is_defined: bool) -> bytes:
    content = b""
    for _ in range(depth):
        if is_defined:
            content = _explicit(0x00081115, b"SQ", struct.pack("<HHL", 0xFFFE, 0xE000, len(content)) + content)
        else:
            begin = _explicit(0x00081115, b"SQ", struct.pack("<HHL", 0xFFFE, 0xE000, UNDEFINED), UNDEFINED)
            content = begin + content + struct.pack("<HHLHHL", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    return content


def _deflated(*parts: bytes) -> bytes:
    stream = zlib.compressobj(9, wbits=-15)
    return b"".join([*(stream.compress(part) for part in parts), stream.flush()])


ITEM_OPEN = _explicit(0x00081115, b"SQ", b"", UNDEFINED)
DATA_SETS: dict[str, tuple[int, list[bytes]]] = {
    "nested 1,000 deep, no lengths": (1, [RAW.dataset[:0] + _nested(1000, False) + RAW.dataset]),
    "nested 100,000 deep, no end": (1, [(ITEM_OPEN + struct.pack("<HHL", 0xFFFE, 0xE000, UNDEFINED)) * 100_000]),
    "a length of 2 GiB": (1, [RAW.dataset, _explicit(0x7FE10010, b"OB", b"abc", 2 << 30)]),
    "a length of 4 GiB less 2": (1, [RAW.dataset, _explicit(0x7FE10010, b"OB", b"abc", 0xFFFFFFFE)]),
    "an undefined length without end": (
        1,
        [RAW.dataset, ITEM_OPEN, *[struct.pack("<HHL", 0xFFFE, 0xE000, 0) * 8000] * 20],
    ),
    "larger than object_size_bytes_max": (
        1,
        [RAW.dataset, _explicit(0x7FE10010, b"OB", b"", 12 << 20), *[bytes(1 << 18)] * 48],
    ),
    "implicit in an explicit context, cut": (1, [struct.pack("<HHL", 8, 0x16, 0x7FFFFFFF)]),
    "nothing at all": (1, []),
    "a deflate bomb of zeros": (5, [_deflated(RAW.dataset, bytes(64 << 20))]),
    "a deflate bomb of small elements": (
        5,
        [_deflated(RAW.dataset, ITEM_OPEN, *[struct.pack("<HHL", 0xFFFE, 0xE000, 0) * (1 << 17)] * 512)],
    ),
}


@pytest.mark.parametrize("lie", DATA_SETS)
def test_a_data_set_that_lies_is_refused(served: Dev, lie: str) -> None:
    context_id, pieces = DATA_SETS[lie]
    with Wire(served.dicom_port, timeout_s=40) as wire:
        wire.associate(CONTEXTS)
        whole = b"".join(pieces)
        parts = [whole[at : at + 262_000] for at in range(0, len(whole), 262_000)]
        status = wire.store(CT, RAW.sop_instance_uid, parts, context_id=context_id)
        assert status is not None and status >> 12 == 0xC
        account = Account()
        _store(wire, account)
        assert account.statuses == [0x0000], "the association goes on"


def test_sequences_of_defined_length_nested_1_000_deep_are_stored(served: Dev) -> None:
    """Nobody looks into them, so they are no danger; they come back as they came."""
    made, account = _raw(), Account()
    raw = RawObject(made.sop_class_uid, made.sop_instance_uid, EXPLICIT, _inserted(made.dataset, _nested(1000, True)))
    with Wire(served.dicom_port) as wire:
        wire.associate(CONTEXTS)
        account.sent[raw.sop_instance_uid] = raw
        account.note(raw, wire.store_raw(raw))
    assert account.statuses == [0x0000]
    assert missing_or_different(served.dicom_port, account) == []


def _inserted(dataset: bytes, elements: bytes) -> bytes:
    """A data set with elements of (0008,1115) where they belong."""
    at = dataset.index(struct.pack("<HH", 0x0010, 0x0010))
    return dataset[:at] + elements + dataset[at:]


def test_a_data_set_that_never_ends_is_ended(served: Dev) -> None:
    with Wire(served.dicom_port, timeout_s=30) as wire:
        wire.associate(CONTEXTS)
        wire.connection.sendall(
            STORE + _value(RAW.dataset + _explicit(0x7FE10010, b"OB", b"", 0xFFFFFFF0), False, False)
        )
        block = _value(bytes(1 << 18), False, False)
        with pytest.raises(ConnectionError):
            while True:
                wire.connection.sendall(block)


def test_an_identifier_that_is_a_bomb(served: Dev) -> None:
    """A query's identifier is decoded whole: nested 1,000 deep, and a million elements."""
    find = _value(command(e0002=STUDY_ROOT_FIND, e0100=0x20, e0110=1, e0700=0, e0800=HAS_DATA_SET), True, context_id=7)
    many = b"".join(_explicit(0x00090000 + (at >> 15 << 17) + (at & 0x7FFF), b"LO", b"") for at in range(1_000_000))
    for identifier in (_nested(1000, False), _nested(1000, True), _nested(20_000, False), many):
        with Wire(served.dicom_port, timeout_s=30) as wire:
            wire.associate(CONTEXTS)
            try:
                wire.connection.sendall(find)
                for at in range(0, len(identifier), 262_000):
                    wire.send_value(identifier[at : at + 262_000], False, False, context_id=7)
                wire.send_value(b"", False, True, context_id=7)
                assert wire.status() != 0x0000
            except OSError:
                pass


def test_a_small_object_that_inflates_to_half_a_gigabyte(served: Dev) -> None:
    """An empty segmentation looks like that, so it is stored, in constant memory. When it comes under the UID of
    another object the two are compared, and for that decoded: within bounds."""
    account, made = Account(), ct_dataset(uuid.uuid4().int % (1 << 32))
    raw = RawObject.of(encode(made))
    bomb = _deflated(raw.dataset, _explicit(0x7FE10010, b"OB", b"", 1 << 29), *[bytes(1 << 20)] * 512)
    with Wire(served.dicom_port) as wire:
        wire.associate(CONTEXTS)
        account.sent[raw.sop_instance_uid] = raw
        account.note(raw, wire.store_raw(raw))
        # Stored beside the first, as a conflict.
        status = wire.store(
            CT, raw.sop_instance_uid, [bomb[at : at + 262_000] for at in range(0, len(bomb), 262_000)], 2, 5
        )
    assert (status, account.statuses) == (0x0000, [0x0000])
