"""Many senders at once, and an object larger than memory: nothing is refused that the limits allow, and memory stays.

`PACS_LOAD_S` says how long the long form sends [s]. Throughput is printed; a figure counts on a quiet machine only:
`pytest -m long -s tests/faults/test_load.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import psycopg
import pytest

from tests import peer
from tests.faults.aftermath import files_without_row, rows_without_bytes
from tests.faults.process import forget_memory_peak, memory_peak_bytes, receiver_pid
from tests.faults.wire import CT, EXPLICIT, STUDY_ROOT_GET, Wire
from tests.fix_instance import Dev
from tests.peer import RawObject
from tests.synthetic import ct_dataset, encode

LOAD_S = float(os.environ.get("PACS_LOAD_S", "600"))
#: What a receiver may have at its peak while it takes or gives one object of whatever size [bytes].
ONE_OBJECT_BYTES_MAX = 200 << 20
#: ... and with 64 associations: a buffer, a thread and a connection to the database each.
MANY_BYTES_MAX = 400 << 20


@dataclass
class Load:
    """Senders that store one new object after the other, and what became of it."""

    port: int
    acknowledged: set[str] = field(default_factory=set)
    answers: Counter[int | None] = field(default_factory=Counter)
    refusals: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, senders: int, duration_s: float) -> float:
        """Send for so long; return objects a second."""
        before, began = len(self.acknowledged), time.monotonic()
        threads = [threading.Thread(target=self._send, args=(number, began + duration_s)) for number in range(senders)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return (len(self.acknowledged) - before) / (time.monotonic() - began)

    def _send(self, sender: int, ends: float) -> None:
        template = object_of(sender, 0)
        try:
            with Wire(self.port) as wire:
                wire.associate([(CT, EXPLICIT)], calling=f"SENDER{sender}")
                number = 0
                while time.monotonic() < ends:
                    number += 1
                    uid = uid_of(sender, time.time_ns())
                    dataset = template.dataset.replace(template.sop_instance_uid.encode(), uid.encode())
                    status = wire.store(CT, uid, [dataset], number % 65535)
                    with self.lock:
                        self.answers[status] += 1
                        if status == 0x0000:
                            self.acknowledged.add(uid)
        except (AssertionError, OSError) as error:
            self.refusals.append(f"sender {sender}: {error}")


def uid_of(sender: int, number: int) -> str:
    """A UID that is always as long as the others."""
    return f"2.25.1{sender:04d}{number:020d}"


def object_of(sender: int, number: int) -> RawObject:
    """A CT image of 33 kB; each sender has a study of its own."""
    ds = ct_dataset(960 + sender, 1, 128, 128)
    ds.SOPInstanceUID = uid_of(sender, number)
    return RawObject.of(encode(ds))


def _soak(dev: Dev, senders: int, duration_s: float) -> tuple[float, float]:
    """Objects a second with 4 senders, and with so many; everything is there afterwards."""
    load, pid = Load(dev.dicom_port), receiver_pid(dev)
    few = load.run(4, duration_s / 5)
    forget_memory_peak(pid)
    many = load.run(senders, duration_s)
    print(
        f"\n{few:.0f} objects a second with 4 senders, {many:.0f} with {senders}; "
        f"the receiver had {memory_peak_bytes(pid) >> 20} MiB at most"
    )
    assert load.refusals == []
    assert set(load.answers) == {0x0000}
    assert memory_peak_bytes(pid) < MANY_BYTES_MAX
    assert receiver_pid(dev) == pid
    with psycopg.connect(f"host={dev.data / 'run'} dbname=pacs user=pacs") as connection:
        stored = {
            row[0] for row in connection.execute("SELECT sop_instance_uid FROM object WHERE is_current").fetchall()
        }
    assert load.acknowledged <= stored
    assert rows_without_bytes(dev) == []
    assert files_without_row(dev) == []
    _one_comes_back(dev, load)
    return few, many


def _one_comes_back(dev: Dev, load: Load) -> None:
    back = peer.get(dev.dicom_port, [peer.study_uid_of(object_of(0, 0))], [(CT, EXPLICIT)])
    mine = {uid for uid in load.acknowledged if uid.startswith("2.25.10000")}
    assert mine and mine == set(back)
    for uid in sorted(mine)[:100]:
        assert back[uid] == object_of(0, int(uid[-20:]))


def test_sixteen_senders(new_dev: Callable[..., Dev]) -> None:
    _soak(new_dev(PACS_ORPHAN_AGE_S="0").start(), 16, 5)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_sixty_four_senders(new_dev: Callable[..., Dev]) -> None:
    few, many = _soak(new_dev(PACS_ORPHAN_AGE_S="0").start(), 64, LOAD_S)
    # One client process sends for all, so the client's own cost of 64 threads is in it: a tolerance, not the goal.
    assert many > 0.7 * few, f"{many:.0f} objects a second with 64 senders, {few:.0f} with 4"


# --- an object larger than memory ----------------------------------------------------------------------------------


def _pieces(seed: int, pixel_size_bytes: int) -> tuple[RawObject, Iterator[bytes]]:
    """A multi-frame image: its head as an object, and its data set in pieces, that are never together in memory."""
    ds = ct_dataset(seed, 1, 2, 2)
    ds.NumberOfFrames = pixel_size_bytes // 8
    made = RawObject.of(encode(ds))
    head = made.dataset[: -(12 + 8)] + struct.pack("<HH2sxxL", 0x7FE0, 0x0010, b"OW", pixel_size_bytes)

    def generate() -> Iterator[bytes]:
        yield head
        left, number, filling = pixel_size_bytes, 0, bytes((1 << 17) - 8)
        while left:
            number += 1
            piece = (number.to_bytes(8, "little") + filling)[:left]
            left -= len(piece)
            yield piece

    return made, generate()


def _goes_in_and_comes_back(dev: Dev, pixel_size_bytes: int) -> None:
    raw, pieces = _pieces(970, pixel_size_bytes)
    digest, pid = hashlib.sha256(), receiver_pid(dev)

    def hashed() -> Iterator[bytes]:
        for piece in pieces:
            digest.update(piece)
            yield piece

    forget_memory_peak(pid)
    with Wire(dev.dicom_port, timeout_s=600) as wire:
        wire.associate([(CT, EXPLICIT)])
        assert wire.store(raw.sop_class_uid, raw.sop_instance_uid, hashed()) == 0x0000
    assert memory_peak_bytes(pid) < ONE_OBJECT_BYTES_MAX
    forget_memory_peak(pid)
    with Wire(dev.dicom_port, timeout_s=600) as wire:
        assert wire.associate([(STUDY_ROOT_GET, EXPLICIT), (CT, EXPLICIT)], may_take=True) == {1, 3}
        back = wire.get(str(ct_dataset(970).StudyInstanceUID))
    assert memory_peak_bytes(pid) < ONE_OBJECT_BYTES_MAX
    assert receiver_pid(dev) == pid
    assert [taken.digest.hexdigest() for taken in back.values()] == [digest.hexdigest()]
    assert rows_without_bytes(dev) == []


def test_an_object_of_300_mb_in_constant_memory(new_dev: Callable[..., Dev]) -> None:
    _goes_in_and_comes_back(new_dev().start(), 300 << 20)


def test_an_object_without_a_row_is_indexed_in_constant_memory(new_dev: Callable[..., Dev]) -> None:
    """As after a kill between rename and commit."""
    dev = new_dev(PACS_ORPHAN_AGE_S="0").start()
    raw, pieces = _pieces(971, 300 << 20)
    with Wire(dev.dicom_port, timeout_s=600) as wire:
        wire.associate([(CT, EXPLICIT)])
        assert wire.store(raw.sop_class_uid, raw.sop_instance_uid, pieces) == 0x0000
    with psycopg.connect(f"host={dev.data / 'run'} dbname=pacs user=pacs") as connection:
        connection.execute("DELETE FROM copy")
        connection.execute("DELETE FROM object")
    assert len(files_without_row(dev)) == 1
    words = [sys.executable, "-m", "pacs.cli.main", "--data", str(dev.data), "reconcile", "run"]
    process = subprocess.Popen(words, env={**os.environ, **dev.environment}, stdout=subprocess.DEVNULL)
    peak_bytes = 0
    while process.poll() is None:  # a child's rusage begins with the size of who started it
        with contextlib.suppress(AssertionError):  # it may end meanwhile
            peak_bytes = max(peak_bytes, memory_peak_bytes(process.pid))
        time.sleep(0.02)
    assert (process.returncode, files_without_row(dev), rows_without_bytes(dev)) == (0, [], [])
    assert 0 < peak_bytes < ONE_OBJECT_BYTES_MAX


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_an_object_of_4_gib_in_constant_memory(new_dev: Callable[..., Dev]) -> None:
    """Native pixel data as long as their length can say (PS3.5 7.1): with the rest it is more than 4 GiB."""
    _goes_in_and_comes_back(new_dev().start(), 0xFFFFFFFE)
