"""Fuzzed PDUs, commands, identifiers and data sets: only errors of our tree come out, no input takes long, and a
running receiver goes on.

Seeded: a failure prints the seed, and `PACS_FUZZ_SEED` repeats it. `PACS_FUZZ_ROUNDS` says how many in the long form.
"""

from __future__ import annotations

import json
import os
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pynetdicom import build_context
from pynetdicom.dimse_primitives import C_CANCEL

from pacs.cli.instance import Instance
from pacs.errors import DatabaseUnavailable, PacsError
from pacs.index import query
from pacs.model import matching
from pacs.model.attributes import ATTRIBUTES, SCANNED_TAGS, Level
from pacs.model.dataset import Scanner
from pacs.model.record import make_record
from pacs.net.associating import decode_request
from pacs.net.association import Association, Message, ReleaseRequested, StoreRequest
from pacs.net.finding import read_identifier
from pacs.net.upper_layer import UpperLayer
from tests.faults.aftermath import assert_nothing_lost
from tests.faults.process import forget_memory_peak, memory_peak_bytes, receiver_pid
from tests.faults.sender import Account
from tests.faults.wire import (
    CT,
    DEFLATED,
    EXPLICIT,
    HAS_DATA_SET,
    IMPLICIT,
    NO_DATA_SET,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    Wire,
    association_request,
    command,
    store_command,
)
from tests.fix_instance import SHARED_DATA, Dev
from tests.peer import RawObject, read_raw
from tests.synthetic import ct_dataset, encode

SEED = int(os.environ.get("PACS_FUZZ_SEED", "20261122"))
ROUNDS = int(os.environ.get("PACS_FUZZ_ROUNDS", "100000"))
#: An input of some kilobytes that takes longer than this is an attack that works [s of CPU].
TIME_S_MAX = 2.0
SYNTAXES = (EXPLICIT, IMPLICIT, DEFLATED, "1.2.840.10008.1.2.2")
#: Numbers that lengths and counts are at the edge of.
_EDGES = [0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF]


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Bytes with a few faults: flipped, cut, doubled, swapped, zeroed, and numbers at their edges."""
    data = bytearray(content)
    for _ in range(chance.choice([1, 1, 1, 2, 8])):
        if not data:
            return bytes(data)
        at, size = chance.randrange(len(data)), chance.choice([1, 2, 4, 8, 64])
        (kind,) = chance.choices(range(7), [8, 3, 1, 1, 2, 2, 1])
        if kind == 0:
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            data[at : at + size] = chance.randbytes(size)
        elif kind == 2:
            del data[at : at + size]
        elif kind == 3:
            data[at:at] = data[max(0, at - size) : at]
        elif kind == 4:
            edge = chance.choice(_EDGES)
            data[at : at + 4] = edge.to_bytes(4, chance.choice(["little", "big"]))
        elif kind == 5:
            edge = chance.choice(_EDGES) & 0xFFFF
            data[at : at + 2] = edge.to_bytes(2, chance.choice(["little", "big"]))
        else:
            del data[at:]
    return bytes(data)


def each_mutation(name: str, originals: list[bytes], rounds: int, feed: Callable[[bytes, random.Random], None]) -> None:
    """Feed mutations; whatever comes out that is no error of the tree, or takes long, is shown with its seed."""
    for number in range(rounds):
        chance = random.Random(f"{SEED}/{name}/{number}")
        content = mutated(chance.choice(originals), chance)
        began = time.thread_time()
        try:
            feed(content, chance)
        except (PacsError, ReleaseRequested):
            pass
        except Exception as error:
            raise AssertionError(f"{name}: seed {SEED}, round {number}: {error!r}, input {content[:400]!r}") from error
        took = time.thread_time() - began
        assert took < TIME_S_MAX, f"{name}: seed {SEED}, round {number} took {took:.1f} s of CPU"


# --- what is mutated -----------------------------------------------------------------------------------------------


def real_data_sets() -> list[tuple[bytes, str]]:
    """Small real data sets of every kind, with their transfer syntaxes; synthetic ones where there are none."""
    found: list[tuple[bytes, str]] = [(encode(ct_dataset(1, rows=8, columns=8)).dataset, EXPLICIT)]
    found.append((encode(ct_dataset(2, rows=8, columns=8), IMPLICIT).dataset, IMPLICIT))
    if not (SHARED_DATA / "MANIFEST.tsv").exists():
        return found
    for path in sorted(SHARED_DATA.glob("pydicom+pydicom*/**/*.dcm")):
        if path.stat().st_size > 20_000:
            continue
        try:
            raw = read_raw(path)
        except Exception:  # test data of readers, some of it broken on purpose
            continue
        found.append((raw.dataset, raw.transfer_syntax_uid))
    return found


def identifiers() -> list[bytes]:
    """Queries as a device sends them."""
    keys: list[tuple[int, int, bytes, bytes]] = [
        (8, 5, b"CS", b"ISO_IR 192"),
        (8, 0x20, b"DA", b"20260101-20261231"),
        (8, 0x52, b"CS", b"STUDY "),
        (8, 0x61, b"CS", b"CT\\MR "),
        (0x10, 0x10, b"PN", b"M*ller^?eed* "),
        (0x10, 0x20, b"LO", b""),
        (0x20, 0xD, b"UI", b"1.2.3\\1.2.4\0"),
        (0x20, 0x1206, b"IS", b""),
    ]
    whole = b"".join(struct.pack("<HH2sH", group, number, vr, len(value)) + value for group, number, vr, value in keys)
    return [whole, whole.replace(b"STUDY ", b"SERIES"), whole.replace(b"STUDY ", b"IMAGE ")]


def commands() -> list[bytes]:
    """A command of every kind."""
    return [
        store_command(CT, "1.2.3"),
        command(e0002="1.2.840.10008.1.1", e0100=0x30, e0110=1, e0800=NO_DATA_SET),
        command(e0002=STUDY_ROOT_FIND, e0100=0x20, e0110=1, e0700=0, e0800=HAS_DATA_SET),
        command(e0002=STUDY_ROOT_GET, e0100=0x10, e0110=1, e0700=0, e0800=HAS_DATA_SET),
        command(e0002="1.2.840.10008.5.1.4.1.2.2.2", e0100=0x21, e0110=1, e0600="DEST", e0700=0, e0800=HAS_DATA_SET),
        command(e0100=0xFFF, e0120=1, e0800=NO_DATA_SET),
        command(e0002=CT, e0100=0x8001, e0120=1, e0800=NO_DATA_SET, e0900=0, e1000="1.2.3"),
    ]


def _p_data(content: bytes, is_command: bool, context_id: int = 1) -> bytes:
    control = 3 if is_command else 2
    return struct.pack(">BxLLBB", 4, len(content) + 6, len(content) + 2, context_id, control) + content


# --- in this process -----------------------------------------------------------------------------------------------


def scan(content: bytes, chance: random.Random, syntax: str) -> None:
    """As the receiver does: in pieces, then the record, which PostgreSQL's JSON must be able to hold."""
    scanner = Scanner(syntax, SCANNED_TAGS)
    at = 0
    while at < len(content):
        size = chance.choice([1, 7, 100, 4096, 1 << 18])
        scanner.feed(memoryview(content)[at : at + size])
        at += size
    record = make_record(scanner.finish())
    text = json.dumps(record.values, ensure_ascii=False)
    assert "\0" not in text and "\\u0000" not in text and text.encode()


def _scanning(rounds: int) -> None:
    data_sets = real_data_sets()
    by_syntax = {syntax: [data for data, found in data_sets if found == syntax] for _, syntax in data_sets}
    for syntax, originals in by_syntax.items():
        share = max(rounds * len(originals) // len(data_sets), 20)
        each_mutation(f"scan {syntax}", originals, share, lambda data, chance, s=syntax: scan(data, chance, s))  # type: ignore[misc]


def _negotiating(rounds: int) -> None:
    contexts = [(CT, EXPLICIT), (STUDY_ROOT_FIND, IMPLICIT)] * 3
    originals = [association_request(contexts)[6:], association_request(contexts, may_take=True)[6:]]
    each_mutation("association request", originals, rounds, lambda data, _chance: _read_request(data))


def _read_request(data: bytes) -> None:
    request = decode_request(data)
    assert isinstance(request.calling_ae_title, str)


def _commanding(rounds: int) -> None:
    each_mutation("command", [_p_data(each, True) for each in commands()], rounds, lambda data, _chance: receive(data))
    streams = [_p_data(commands()[0], True) + _p_data(bytes(300), False) + _p_data(commands()[1], True)]
    streams.append(_p_data(commands()[2], True) + _p_data(identifiers()[0], False))
    each_mutation("stream of PDUs", streams, rounds, lambda data, _chance: receive(data))


class _Null:
    def write(self, piece: memoryview) -> None:
        pass


def receive(stream: bytes) -> None:
    """What an association makes of bytes that a peer sends and then goes away."""
    ours, theirs = socket.socketpair()
    layer = _layer(ours)
    with layer.connection, theirs:
        accepted = {1: build_context(CT, EXPLICIT)}
        accepted[1].context_id = 1
        assoc = Association(layer, accepted, "PEER", "PACS", "127.0.0.1", 16384)
        theirs.sendall(stream)
        theirs.close()
        while True:
            received = assoc.receive(lambda _request: _Null())
            if isinstance(received, Message):
                kind = received.primitive
                assert isinstance(kind, C_CANCEL) or (kind.msg_type and kind.is_valid_request in (True, False))
            else:
                assert isinstance(received[0], StoreRequest)


class _Pair(socket.socket):
    """A socket pair's end that takes TCP's options."""

    def setsockopt(self, *_words: object) -> None:
        """A socket pair never delays."""


def _layer(connection: socket.socket) -> UpperLayer:
    return UpperLayer(_Pair(fileno=connection.detach()), 5)


class _Request:
    def __init__(self, content: bytes) -> None:
        from io import BytesIO

        self.Identifier = BytesIO(content)


def _identifying(rounds: int) -> None:
    context = build_context(STUDY_ROOT_FIND, EXPLICIT)
    each_mutation(
        "identifier",
        identifiers(),
        rounds,
        lambda data, _chance: (read_identifier(Message(_Request(data), context)), None)[1],
    )


PARTS = {"scanner": _scanning, "negotiation": _negotiating, "commands": _commanding, "identifiers": _identifying}


@pytest.mark.parametrize("part", PARTS)
def test_mutations_in_this_process(part: str) -> None:
    PARTS[part](1500)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", PARTS)
def test_a_hundred_thousand_mutations_in_this_process(part: str) -> None:
    PARTS[part](ROUNDS)


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(ATTRIBUTES), st.text(max_size=80) | st.from_regex(r"[0-9*?\\^=.-]{0,30}", fullmatch=True))
def test_matching_of_any_text(attribute: matching.Attribute, value: str) -> None:
    try:
        matching.parse(attribute, value)
    except PacsError:
        pass


_VRS = st.sampled_from([b"LO", b"PN", b"UI", b"SQ", b"UN", b"OB", b"OW", b"UT", b"IS", b"DA", b"??", b"zz"])
_ELEMENT = st.builds(
    lambda tag, vr, value, lie: struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    + (struct.pack("<xxL", (len(value) + lie) & 0xFFFFFFFF) if vr in (b"SQ", b"OB", b"OW", b"UN", b"UT")
       else struct.pack("<H", (len(value) + lie) & 0xFFFF))
    + value,
    st.sampled_from([*sorted(SCANNED_TAGS), 0x7FE00010, 0x00081115, 0x00091001, 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 2]),
    _VRS,
    st.binary(max_size=40),
    st.sampled_from([0, 0, 0, 1, -1, 0xFFFF, 0xFFFFFFFF]),
)  # fmt: skip


@settings(max_examples=500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(_ELEMENT, max_size=30), st.sampled_from(SYNTAXES), st.integers(0, 1 << 30))
def test_data_sets_of_any_elements(elements: list[bytes], syntax: str, seed: int) -> None:
    try:
        scan(b"".join(elements), random.Random(seed), syntax)
    except PacsError:
        pass


def test_any_query_is_answered_or_refused(instance: Instance) -> None:
    """Whatever text a query holds, PostgreSQL is asked something that it understands."""
    for number in range(300):
        chance, matches = random.Random(f"{SEED}/query/{number}"), {}
        for attribute in chance.sample(ATTRIBUTES, 3):
            text = "".join(
                chance.choice("*?\\\\-%_'\"^=0123456789aZäß\U0001f600\x00\x1b") for _ in range(chance.randrange(12))
            )
            match = matching.parse(attribute, text, fuzzy=chance.random() < 0.2)
            if match is not None:
                matches[attribute.keyword] = match
        wanted = [attribute.keyword for attribute in chance.sample(ATTRIBUTES, 3)]
        try:
            list(query.find(instance.database, query.Question(chance.choice(list(Level)), matches, wanted)))
        except PacsError as error:
            assert not isinstance(error, DatabaseUnavailable), f"seed {SEED}, round {number}: {matches}"


# --- over sockets --------------------------------------------------------------------------------------------------


@pytest.fixture
def fuzzed(new_dev: Callable[..., Dev]) -> Iterator[Dev]:
    """A `pacs dev` with an object in it, that has the same receiver, no fatter, and the object at the end."""
    dev, account = new_dev(PACS_ORPHAN_AGE_S="0", PACS_NETWORK_TIMEOUT_S="2").start(), Account()
    pid = receiver_pid(dev)
    _store(dev, account, 950)
    forget_memory_peak(pid)
    yield dev
    _store(dev, account, 951)
    assert receiver_pid(dev) == pid, f"the receiver died: seed {SEED}"
    assert memory_peak_bytes(pid) < 200 << 20
    log = dev.log()
    at = log.find("unforeseen")
    assert at < 0, f"seed {SEED}: {log[max(0, at - 200) : at + 3000]}"
    assert "Traceback" not in log, f"seed {SEED}: {log[log.find('Traceback') - 300 :][:3000]}"
    assert_nothing_lost(dev, account)


def _store(dev: Dev, account: Account, seed: int) -> None:
    raw = RawObject.of(encode(ct_dataset(seed)))
    with Wire(dev.dicom_port) as wire:
        wire.associate([(CT, EXPLICIT)])
        account.sent[raw.sop_instance_uid] = raw
        account.note(raw, wire.store_raw(raw))
    assert account.statuses[-1] == 0x0000


def _attack(dev: Dev, rounds: int) -> None:
    """Connections whose bytes are mutated from the first, and associations whose PDUs are; some lines each."""
    contexts = [(CT, EXPLICIT), (CT, IMPLICIT), (STUDY_ROOT_FIND, EXPLICIT), (STUDY_ROOT_GET, EXPLICIT)]
    data_sets = [data for data, syntax in real_data_sets() if syntax == EXPLICIT and len(data) < 10_000]
    for number in range(rounds):
        chance = random.Random(f"{SEED}/socket/{number}")
        with Wire(dev.dicom_port, timeout_s=10) as wire:
            try:
                if chance.random() < 0.2:
                    stream = association_request(contexts, may_take=chance.random() < 0.5)
                    wire.connection.sendall(mutated(stream, chance))
                    continue
                wire.associate(contexts)
                for _ in range(5):
                    _send_one(wire, chance, data_sets)
            except OSError:  # it was aborted: the next one
                continue


def _send_one(wire: Wire, chance: random.Random, data_sets: list[bytes]) -> None:
    kind = chance.randrange(4)
    if kind == 0:  # a whole message, its data set mutated
        uid = f"1.2.3.{chance.randrange(1 << 30)}"
        wire.connection.sendall(
            _p_data(store_command(CT, uid), True) + _p_data(mutated(chance.choice(data_sets), chance), False)
        )
    elif kind == 1:
        wire.connection.sendall(
            _p_data(commands()[2], True, 5) + _p_data(mutated(chance.choice(identifiers()), chance), False, 5)
        )
    elif kind == 2:
        wire.connection.sendall(
            _p_data(mutated(chance.choice(commands()), chance), True, chance.choice([1, 3, 5, 7, 9]))
        )
    else:
        wire.connection.sendall(
            mutated(_p_data(commands()[1], True) + _p_data(chance.choice(data_sets), False), chance)
        )


def test_mutations_over_sockets(fuzzed: Dev) -> None:
    _attack(fuzzed, 800)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_mutations_over_sockets(fuzzed: Dev) -> None:
    _attack(fuzzed, ROUNDS // 5)
