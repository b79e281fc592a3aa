"""A modality as a process of its own, which may be in a network that the tests themselves are not in.

    python -m tests.modality send LOG SEED HOST …     store one new object after the other until it is ended, at the
                                                      first host that takes it
    python -m tests.modality compare LOG SEED HOST    fetch what was acknowledged; print what is missing or different

A host may have a port, else it is 104. LOG has a line of JSON for each object: number, host, status, when the answer
came [s, monotonic].
"""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import peer
from tests.faults.process import wait_for
from tests.peer import RawObject
from tests.synthetic import ct_dataset, encode

_REPOSITORY = Path(__file__).parents[1]
_PORT = 104
#: How long a host may take to answer; and to give the next object.
_PATIENCE_S, _FETCH_S = 3.0, 30.0
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


def split(host: str) -> tuple[str, int]:
    """A host's name and port."""
    name, _colon, port = host.partition(":")
    return name, int(port or _PORT)


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
            name, port = split(host)
            with peer.associated(port, [context], name_of(seed), host=name, patience_s=_PATIENCE_S) as assoc:
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
    name, port = split(host)
    back = peer.get(port, [peer.study_uid_of(first)], [context], name_of(seed), name, _FETCH_S)
    return {
        "acknowledged": len(sent), "back": len(back), "missing": sorted(sent.keys() - back.keys()),
        "different": [uid for uid, raw in back.items() if uid in sent and sent[uid] != raw],
    }  # fmt: skip


@dataclass
class Modality:
    """Sends one object after the other, to whichever of the hosts takes them, in the order given."""

    log: Path
    seed: int
    #: The words of a command that runs where the modality is.
    inside: Callable[..., list[str]] = lambda *words: [str(each) for each in words]
    process: subprocess.Popen[bytes] | None = None

    def begin(self, *hosts: str) -> None:
        """Send from now on, in a process of its own."""
        words = self.inside(sys.executable, "-m", "tests.modality", "send", self.log, self.seed, *hosts)
        self.process = subprocess.Popen(words, cwd=_REPOSITORY, stdin=subprocess.DEVNULL)

    def end(self) -> None:
        """Stop sending."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)
            self.process = None

    def taken_by(self, host: str) -> list[dict[str, Any]]:
        """What a host has acknowledged."""
        return [each for each in read_log(self.log) if each["status"] == 0 and each["host"] == host]

    def statuses_of(self, host: str) -> set[int | None]:
        """What a host has answered with."""
        return {each["status"] for each in read_log(self.log) if each["host"] == host}

    def compared(self, host: str) -> dict[str, Any]:
        """What came back from a host, against all that was acknowledged."""
        words = self.inside(sys.executable, "-m", "tests.modality", "compare", self.log, self.seed, host)
        done = subprocess.run(words, cwd=_REPOSITORY, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def wait_for_more(self, host: str, count: int = 5, limit_s: float = 120) -> None:
        """Wait until a host has acknowledged some more."""
        before = len(self.taken_by(host))
        wait_for(lambda: len(self.taken_by(host)) >= before + count, f"{host} takes nothing", limit_s)


if __name__ == "__main__":
    verb, log_path, seed_given, *hosts_given = sys.argv[1:]
    if verb == "send":
        send(Path(log_path), int(seed_given), hosts_given)
    else:
        print(json.dumps(compare(Path(log_path), int(seed_given), hosts_given[0])))
