"""What a person sees of a build: named and timed stages, a heartbeat in long ones, and where the full log is.

Everything a command prints goes into a log file below `build/logs/`; the terminal gets one line a stage, plus one line
every half a minute of a long command with the last thing it said.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from packer.errors import BuildError

HEARTBEAT_S = 30.0
_POLL_S = 0.2
# Packer puts time and builder before every line, Ansible a row of stars behind the name of a task.
_PACKER_FRAME = re.compile(r"^\d{4}-\d\d-\S+Z:\s+(==> )?qemu\.\w+:\s*|\s*\*{3,}$")
_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


class Progress:
    """Counts the stages of one build and says how long each took."""

    def __init__(self, stages: int, logs: Path) -> None:
        self.stages = stages
        self.logs = logs
        self.done: list[tuple[str, float]] = []
        self._started = time.monotonic()
        logs.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """One stage; its line stands when it begins, another when it ends."""
        label = f"[{len(self.done) + 1}/{self.stages}] {name}"
        say(f"{label} …")
        started = time.monotonic()
        yield
        seconds = time.monotonic() - started
        self.done.append((name, seconds))
        say(f"{label} … {spoken(seconds)}")

    @property
    def elapsed_s(self) -> float:
        """Seconds since the build began."""
        return time.monotonic() - self._started

    def log(self, name: str) -> Path:
        """The log file of that name."""
        return self.logs / f"{name}.log"


def say(text: str) -> None:
    """One line for the person at the terminal."""
    print(text, flush=True)


def spoken(seconds: float) -> str:
    """A duration as a person says it: `41 s`, `3 min 05 s`."""
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02d} s"


def run_logged(
    command: Sequence[str | Path],
    log: Path,
    *,
    remedy: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> None:
    """Run `command` with all its output in `log`; on failure BuildError names the log, its last lines and `remedy`.

    The command runs in a process group of its own, and the whole group is ended when the build is interrupted:
    Packer would otherwise leave its QEMU behind.
    """
    words = [str(word) for word in command]
    with log.open("ab") as stream:
        stream.write(f"$ {' '.join(words)}\n".encode())
        stream.flush()
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=None if env is None else {**os.environ, **env},
            cwd=cwd,
            start_new_session=True,
        )
        try:
            code = _wait(process, log)
        except BaseException:
            end_group(process)
            raise
    if code != 0:
        tail = "\n".join(f"    {line}" for line in last_lines(log, 12))
        raise BuildError(f"{words[0]} failed with {code}. Its last lines ({log}):\n{tail}\n", remedy)


def _wait(process: subprocess.Popen[bytes], log: Path) -> int:
    started = beat = time.monotonic()
    while (code := process.poll()) is None:
        time.sleep(_POLL_S)
        now = time.monotonic()
        if now - beat >= HEARTBEAT_S:
            beat = now
            said = [words for line in last_lines(log, 5) if (words := _PACKER_FRAME.sub("", line))]
            say(f"      {spoken(now - started)}: {said[-1][:100] if said else 'working'}")
    return code


def end_group(process: subprocess.Popen[bytes], grace_s: float = 20.0) -> None:
    """End a process started in a session of its own, and its children: asked first, killed after `grace_s`."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace_s)
            if number == signal.SIGKILL:
                return


def last_lines(log: Path, count: int) -> list[str]:
    """The last `count` non-empty lines of a log, without terminal codes."""
    with log.open("rb") as stream:
        stream.seek(0, os.SEEK_END)
        stream.seek(max(0, stream.tell() - 16384))
        text = stream.read().decode("utf-8", "replace")
    lines = [_TERMINAL_CODES.sub("", line).strip() for line in text.replace("\r", "\n").splitlines()]
    return [line for line in lines if line][-count:]


def fail(error: BuildError, log_folder: Path) -> int:
    """Tell a failed build to the person at the terminal; the exit code."""
    print(f"\nmake appliance: {error.what}\nWhat to do: {error.remedy}\nFull logs: {log_folder}", file=sys.stderr)
    return 1
