"""The power cut itself: without this, a test that nothing is lost would prove nothing."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import IO

from tests.image.power import DiskServer

_MIB = 1 << 20


def _do(commands: IO[str], answers: IO[str], command: str) -> None:
    """Have qemu-io do something and wait until it has."""
    # A line at a time: of two that come at once it leaves the second lying until there is more. And it says nothing
    # to a flush, so a read follows.
    for line in (command, "read 0 512"):
        commands.write(line + "\n")
        commands.flush()
        time.sleep(0.5)
    while not (answer := answers.readline()).endswith("read 512/512 bytes at offset 0\n"):
        assert answer, f"qemu-io ended at {command!r}"


def test_a_power_cut_loses_what_was_not_flushed_and_nothing_else(tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(4 * _MIB)
    server = DiskServer(disk, tmp_path / "disk.sock")
    # stdbuf: else its answers would stay in its buffer until it ends.
    guest = subprocess.Popen(
        ["stdbuf", "-oL", "qemu-io", "-t", "writeback", "-f", "raw", f"nbd+unix:///?socket={server.socket}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert guest.stdin
    assert guest.stdout
    for command in ("write -P 0x41 0 4k", "flush", "write -P 0x42 1M 4k"):
        _do(guest.stdin, guest.stdout, command)
    server.cut()
    guest.kill()
    guest.communicate()
    content = disk.read_bytes()
    assert content[:4096] == b"A" * 4096
    assert content[_MIB : _MIB + 4096] == bytes(4096)
