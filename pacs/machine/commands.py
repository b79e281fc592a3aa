"""Runs the system's programs. What they say goes into the error, with the command that can be tried by hand."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Collection

from pacs.errors import PacsError


class MachineError(PacsError):
    """A program of the system failed. See `journalctl -b -u 'pacs-*'`."""

    exit_code = 11


def run(*command: str, accept: Collection[int] = (0,), given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command with `given` on its standard input; raise MachineError if its exit code is not accepted."""
    try:
        answer = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    except OSError as error:
        raise MachineError(f"`{command[0]}` cannot be run: {error.strerror}. Is its package installed?") from error
    if answer.returncode not in accept:
        said = " ".join((answer.stderr or answer.stdout).split())[-400:]
        raise MachineError(f"`{shlex.join(command)}` ended with {answer.returncode}: {said or 'it said nothing'}")
    return answer


def output(*command: str) -> str:
    """What a command prints, without the white space around it."""
    return run(*command).stdout.strip()
