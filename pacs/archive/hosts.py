"""Where a device calls from: its host's address, looked up where the host is a name, and its networks.

A look-up can take as long as a name server is silent. It runs in a thread of its own, is waited for a few seconds, and
kept for a minute; while a name server is silent, what it said last still counts. Only callers that need the same name
wait for it.
"""

from __future__ import annotations

import logging
import socket
import threading
from dataclasses import dataclass, field

from pacs import clock
from pacs.index.devices import Device
from pacs.model.addresses import is_address, is_in, normalised

log = logging.getLogger(__name__)

KEPT_S = 60.0
#: How long a name that was not found is not asked for again [s].
FAILURE_KEPT_S = 10.0
WAIT_S = 5.0


@dataclass
class _Entry:
    """What is known of a name. `done` is set while no look-up runs."""

    addresses: frozenset[str] = frozenset()
    known_until_s: float = float("-inf")
    done: threading.Event = field(default_factory=threading.Event)
    is_running: bool = False


class Hosts:
    """Looks up hosts' names. For use by many threads."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._lock = threading.Lock()

    def may_call_from(self, device: Device, address: str) -> bool:
        """Whether an address is the device's host or in one of its networks."""
        if is_in(address, device.networks):
            return True
        return normalised(address) in self.addresses(device.host)

    def addresses(self, host: str) -> frozenset[str]:
        """The addresses of a host; none if its name cannot be resolved now."""
        if is_address(host):
            return frozenset([normalised(host)])
        with self._lock:
            entry = self._entries.setdefault(host, _Entry())
            if clock.monotonic_s() < entry.known_until_s:
                return entry.addresses
            if not entry.is_running:
                entry.is_running = True
                entry.done.clear()
                threading.Thread(target=self._look_up, args=(host, entry), name="resolver", daemon=True).start()
        entry.done.wait(WAIT_S)
        return entry.addresses

    def _look_up(self, host: str, entry: _Entry) -> None:
        try:
            found = frozenset(normalised(str(row[4][0])) for row in socket.getaddrinfo(host, None))
            entry.addresses, kept_s = found, KEPT_S
        except (OSError, UnicodeError) as error:
            log.warning("the host name %r of a device cannot be resolved: %s", host, error)
            # That a name does not exist is an answer; that nobody answers is none.
            if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
                kept_s = FAILURE_KEPT_S
            else:
                entry.addresses, kept_s = frozenset(), FAILURE_KEPT_S
        with self._lock:
            entry.known_until_s = clock.monotonic_s() + kept_s
            entry.is_running = False
        entry.done.set()
