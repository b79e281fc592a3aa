"""What a service says to systemd and gets from it: sockets (sd_listen_fds(3)) and readiness (sd_notify(3))."""

from __future__ import annotations

import os
import signal
import socket
import threading
from typing import Annotated

import typer

_FIRST_FD = 3

#: The option of a service that is given its socket by `pacs dev`.
Fd = Annotated[int | None, typer.Option(help="A listening socket's file descriptor; else systemd's.")]


def listening_sockets() -> list[tuple[str, socket.socket]]:
    """The listening sockets that systemd has passed to this process, each with its name (FileDescriptorName=).

    None if it was started otherwise.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    count = int(os.environ.get("LISTEN_FDS", "0"))
    names += [""] * (count - len(names))
    return [(names[index], socket.socket(fileno=_FIRST_FD + index)) for index in range(count)]


def notify(state: str) -> None:
    """Tell systemd a state such as READY=1; nothing where nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect("\0" + address[1:] if address.startswith("@") else address)
        sender.send(state.encode())


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    return stop
