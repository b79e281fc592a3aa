"""A receiver in the test's own process, and devices that it sends to: for what must be looked at from inside."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from pynetdicom import AE, evt

from pacs.archive.retrieve import Retrieve, Wanted
from pacs.cli.instance import Instance
from pacs.index.devices import Device, add_device
from pacs.net.receiver import Receiver
from tests.unit.model.encoding import EXPLICIT

CT = "1.2.840.10008.5.1.4.1.1.2"


def stored_bytes(retrieve: Retrieve, wanted: Wanted) -> bytes:
    """A stored object's data set."""
    with closing(retrieve.open(wanted)) as stored:
        return b"".join(map(bytes, stored.pieces()))


@contextmanager
def serving(instance: Instance, retrieve: Retrieve | None = None, **settings: object) -> Iterator[int]:
    """A receiver of an instance, with some settings of its own; yields its port."""
    own = instance.settings.model_copy(update={"any_device_from_loopback": True, **settings})
    receiver = Receiver(own, instance.database, instance.store(), retrieve or instance.retrieve(), instance.verifier())
    with socket.create_server(("127.0.0.1", 0)) as listening:
        receiver.serve([listening], [])
        try:
            yield int(listening.getsockname()[1])
        finally:
            receiver.stop(patience_s=5)


@contextmanager
def destination(
    instance: Instance,
    title: str,
    on_store: Callable[[evt.Event], int],
    contexts: Sequence[tuple[str, Sequence[str]]] = ((CT, (EXPLICIT,)),),
    preferred: tuple[str, ...] = (),
) -> Iterator[Any]:
    """A device that takes objects, and that the instance knows; yields pynetdicom's server."""
    ae = AE(title)
    for abstract_syntax, syntaxes in contexts:
        ae.add_supported_context(abstract_syntax, list(syntaxes))
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, on_store)])
    try:
        port = int(server.socket.getsockname()[1])
        add_device(instance.database, Device(title.lower(), title, "127.0.0.1", port, transfer_syntaxes=preferred))
        yield server
    finally:
        server.shutdown()
