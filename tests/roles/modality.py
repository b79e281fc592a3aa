"""A modality in a network that the tests themselves are not in: run there as `python -m tests.roles.modality`.

    send LOG SEED HOST …     store one new object after the other until it is ended, at the first host that takes it
    compare LOG SEED HOST    fetch what was acknowledged; print what is missing or different

LOG has a line of JSON for each object: number, host, status, and when the answer came [s, monotonic].
"""

from __future__ import annotations

import itertools
import json
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tests import peer
from tests.peer import RawObject
from tests.synthetic import ct_dataset, encode

PORT = 104
_PATIENCE_S = 3.0
_SIZE = 128
#: Between two objects.
_PAUSE_S = 0.03


def made(seed: int, number: int) -> RawObject:
    """The object with that number, of the seed's study."""
    return RawObject.of(encode(ct_dataset(seed, number, _SIZE, _SIZE)))


def name_of(seed: int) -> str:
    """The AE title of the modality that sends the seed's study."""
    return f"MODALITY{seed}"


def read_log(log: Path) -> list[dict[str, Any]]:
    """What was answered so far."""
    text = log.read_text() if log.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def send(log: Path, seed: int, hosts: list[str]) -> None:
    """Send until SIGTERM. What is refused, or not answered, is sent again: as a modality does."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stop.set())
    number = max((each["number"] for each in read_log(log)), default=0) + 1
    raw = made(seed, number)
    context = (raw.sop_class_uid, raw.transfer_syntax_uid)
    with log.open("a") as file:
        for host in itertools.cycle(hosts):
            if stop.is_set():
                return
            with peer.associated(PORT, [context], name_of(seed), host=host, patience_s=_PATIENCE_S) as assoc:
                while assoc.is_established and not stop.is_set():
                    status = peer.store_on(assoc, raw, number % 65535)
                    line = {"number": number, "host": host, "status": status, "at_s": time.monotonic()}
                    file.write(json.dumps(line) + "\n")
                    file.flush()
                    if status != 0x0000:
                        assoc.abort()
                        break
                    number += 1
                    stop.wait(_PAUSE_S)
                    raw = made(seed, number)
            stop.wait(0.2)


def compare(log: Path, seed: int, host: str) -> dict[str, Any]:
    """Fetch the study by C-GET and compare it with what was acknowledged, wherever that was."""
    numbers = sorted({each["number"] for each in read_log(log) if each["status"] == 0x0000})
    sent = {raw.sop_instance_uid: raw for raw in (made(seed, number) for number in numbers)}
    first = made(seed, 1)
    context = (first.sop_class_uid, first.transfer_syntax_uid)
    back = peer.get(PORT, [peer.study_uid_of(first)], [context], name_of(seed), host, 30)
    return {
        "acknowledged": len(sent), "back": len(back), "missing": sorted(sent.keys() - back.keys()),
        "different": [uid for uid, raw in back.items() if uid in sent and sent[uid] != raw],
    }  # fmt: skip


if __name__ == "__main__":
    verb, log_path, seed_given, *hosts_given = sys.argv[1:]
    if verb == "send":
        send(Path(log_path), int(seed_given), hosts_given)
    else:
        print(json.dumps(compare(Path(log_path), int(seed_given), hosts_given[0])))
