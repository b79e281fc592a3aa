"""Senders under load, and the account of what was acknowledged."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from tests import peer
from tests.peer import RawObject
from tests.synthetic import ct_dataset, encode


@dataclass
class Account:
    """What was sent, and what of it was answered with 0x0000."""

    sent: dict[str, RawObject] = field(default_factory=dict)
    acknowledged: dict[str, RawObject] = field(default_factory=dict)
    statuses: list[int | None] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, raw: RawObject, status: int | None) -> None:
        """Note an answer."""
        with self.lock:
            self.statuses.append(status)
            if status == 0x0000:
                self.acknowledged[raw.sop_instance_uid] = raw


class Senders:
    """Several associations that store one new object after the other until they are stopped."""

    def __init__(self, port: int, account: Account, seeds: list[int], rows: int = 128) -> None:
        self.stop = threading.Event()
        self.threads = [
            threading.Thread(target=self._send, args=(port, account, seed, rows), daemon=True) for seed in seeds
        ]

    def __enter__(self) -> Senders:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join(60)

    def _send(self, port: int, account: Account, seed: int, rows: int) -> None:
        number = 0
        context = (str(encode(ct_dataset(seed)).sop_class_uid), "1.2.840.10008.1.2.1")
        while not self.stop.is_set():
            with peer.associated(port, [context], calling=f"SENDER{seed}"[:16]) as assoc:
                while assoc.is_established and not self.stop.is_set() and number < 5000:
                    number += 1
                    raw = RawObject.of(encode(ct_dataset(seed, number, rows, rows)))
                    with account.lock:
                        account.sent[raw.sop_instance_uid] = raw
                    status = peer.store_on(assoc, raw, number % 65535)
                    account.note(raw, status)
                    if status is None:
                        assoc.abort()
                        break
            time.sleep(0.2)


def fetch(port: int, account: Account) -> dict[str, RawObject]:
    """Everything of the account's studies, by C-GET."""
    sent = list(account.sent.values())
    studies = dict.fromkeys(peer.study_uid_of(raw) for raw in sent)
    return peer.get(port, studies, {(raw.sop_class_uid, raw.transfer_syntax_uid) for raw in sent})


def missing_or_different(port: int, account: Account) -> list[str]:
    """UIDs of acknowledged objects that do not come back with the same bytes."""
    back = fetch(port, account)
    return [uid for uid, raw in account.acknowledged.items() if back.get(uid) != raw]
