"""A child of `pacs dev`: one service of the appliance, started, awaited, started again."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field

import typer

from pacs.errors import SettingsError

_PR_SET_PDEATHSIG = 1
_READY_TIMEOUT_S = 60
_RESTART_DELAY_S = 1.0


@dataclass
class Service:
    """One child: a `pacs` command."""

    name: str
    words: list[str]
    environment: dict[str, str]
    listening: socket.socket | None = None
    listening_tls: socket.socket | None = None
    process: subprocess.Popen[bytes] | None = None
    notify: socket.socket | None = None
    not_before: float = field(default=0.0)

    def start(self) -> None:
        """Start it."""
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(f"\0pacs-dev-{os.getpid()}-{self.name}-{time.monotonic_ns()}")
        self.notify.settimeout(0.1)
        environment = {**self.environment, "NOTIFY_SOCKET": "@" + self.notify.getsockname()[1:].decode()}
        words = [sys.executable, "-m", "pacs.cli.main", *self.words]
        fds: tuple[int, ...] = ()
        if self.listening is not None:
            fds = (self.listening.fileno(),)
            words += ["--fd", str(fds[0])]
        if self.listening_tls is not None:
            fds += (self.listening_tls.fileno(),)
            words += ["--tls-fd", str(fds[-1])]
        self.process = subprocess.Popen(words, env=environment, pass_fds=fds, preexec_fn=_die_with_parent)

    def wait_ready(self, stop: threading.Event) -> None:
        """Wait until the service says that it is ready. Raise SettingsError if it ends instead."""
        assert self.process is not None and self.notify is not None
        ends = time.monotonic() + _READY_TIMEOUT_S
        while not stop.is_set():
            try:
                if b"READY=1" in self.notify.recv(1024):
                    return
            except TimeoutError:
                pass
            if self.process.poll() is not None or time.monotonic() > ends:
                raise SettingsError(f"The {self.name} did not start; its message stands above.")

    def restart_if_dead(self) -> None:
        """Start it again if it has ended."""
        if self.process is None or self.process.poll() is None or time.monotonic() < self.not_before:
            return
        typer.echo(f"the {self.name} ended with {self.process.returncode}; it is started again", err=True)
        self.not_before = time.monotonic() + _RESTART_DELAY_S
        if self.notify is not None:
            self.notify.close()
        self.start()

    def ask_to_end(self) -> None:
        """Have it end."""
        if self.process is not None:
            self.process.terminate()

    def end(self) -> None:
        """Wait for its end; make an end of it."""
        if self.process is None:
            return
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.notify is not None:
            self.notify.close()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
