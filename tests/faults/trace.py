"""A receiver's own system calls, recorded and then made to fail or to be its last.

strace injects at the border to the kernel, in a service that runs as it always does: nothing of ours is replaced, and
a step that is added to the store path is found in the record by itself. SIGKILL is delivered on the entry of a call,
so the call before it is done and this one is not.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import pytest

_LINE = re.compile(r"(?P<thread>\d+) +(?P<name>\w+)\((?P<rest>.*)", re.DOTALL)


@dataclass(frozen=True)
class Call:
    """A system call of a thread: its name, which of that name in the thread (from 1), and its words and result."""

    thread: int
    name: str
    ordinal: int
    words: str

    def __str__(self) -> str:
        return f"{self.name}({self.words[:160]}"


class Tracer:
    """strace on a running process and all its threads, from `with` to its end."""

    def __init__(self, pid: int, output: Path, *expressions: str) -> None:
        """expressions are strace's, as `inject=fsync:error=EIO:when=2`; without one all calls are recorded."""
        if shutil.which("strace") is None:
            pytest.skip("strace is not here: apt-get install strace")
        self.output = output
        words = [word for expression in expressions for word in ("-e", expression)]
        self._process = subprocess.Popen(
            ["strace", "-f", "-yy", "-s", "32", "-o", str(output), *words, "-p", str(pid)],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        said = self._process.stderr.readline()
        if "attached" not in said:
            self._process.wait(10)
            pytest.skip(f"strace cannot attach here: {said.strip()}")

    def __enter__(self) -> Tracer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()  # it detaches, and the process goes on
        self._process.wait(30)

    def calls(self) -> list[Call]:
        """What was recorded, in the order of the calls' beginnings."""
        found, counts = [], dict[tuple[int, str], int]()
        for line in self.output.read_text(errors="replace").splitlines():
            match = _LINE.match(line)
            if match is None:  # a resumed call's second half, a signal, an end
                continue
            key = int(match["thread"]), match["name"]
            counts[key] = counts.get(key, 0) + 1
            found.append(Call(*key, counts[key], match["rest"]))
        return found


def of_the_store(calls: list[Call], which: int = 1) -> list[Call]:
    """The calls of the thread that received an object: from its temporary file's making to behind its answer.

    which is the number of the object, from 1: the second of an association takes another way than the first.
    """
    first = [number for number, call in enumerate(calls) if _makes_temporary(call)][which - 1]
    own = [call for call in calls[first:] if call.thread == calls[first].thread]
    answer = next(number for number, call in enumerate(own) if call.name == "sendto" and "<TCP:" in call.words)
    return own[: answer + 2]


def _makes_temporary(call: Call) -> bool:
    return call.name == "openat" and ".part" in call.words and "O_CREAT" in call.words
