"""A terminal that a program drives as a person would: keys go in, and the screen is read as text. tmux is the terminal.

Its server is this test's own, and so is its size: 80 columns and 25 lines, as a virtual machine's display has.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

COLUMNS, LINES = 80, 25
_LIMIT_S = 60.0


class Terminal:
    """One terminal, with a command running in it. Make it with `terminal()`."""

    def __init__(self, folder: Path) -> None:
        self._socket = str(folder / f"tmux{uuid.uuid4().hex[:6]}")
        self.shots: list[str] = []

    def start(self, command: Sequence[str | Path], term: str = "linux") -> None:
        """Run a command in it. term: what the terminal says it is, which programs draw for."""
        words = ["-x", str(COLUMNS), "-y", str(LINES), *map(str, ("env", f"TERM={term}", "LANG=C.UTF-8", *command))]
        self._tmux("-f", "/dev/null", "new-session", "-d", *words)
        self._tmux("set-option", "-g", "remain-on-exit", "on")

    def screen(self) -> str:
        """What is on it now."""
        return self._tmux("capture-pane", "-p")

    def type(self, *keys: str) -> None:
        """Press keys, as tmux names them (Enter, Down, Tab, Escape), or type a text."""
        for key in keys:
            self._tmux("send-keys", *(() if key in _NAMED else ("-l",)), key)

    def wait(self, *texts: str, gone: str = "") -> str:
        """The screen as soon as all texts stand on it, wherever lines break, and `gone` does not."""
        ends = time.monotonic() + _LIMIT_S
        while True:
            screen = self.screen()
            shown = _words(screen)
            if all(_words(text) in shown for text in texts) and not (gone and gone in shown):
                self.shots.append(screen)
                return screen
            assert time.monotonic() < ends, f"{texts} did not come:\n{screen}"
            time.sleep(0.05)

    def press(self, key: str, *texts: str) -> str:
        """Press a key, again each second, until all texts are there: what draws just then may drop one."""
        for _ in range(int(_LIMIT_S)):
            self.type(key)
            ends = time.monotonic() + 1
            while time.monotonic() < ends:
                shown = _words(self.screen())
                if all(_words(text) in shown for text in texts):
                    return self.wait(*texts)
                time.sleep(0.05)
        return self.wait(*texts)

    def end(self) -> None:
        """End the terminal's server, and what runs in it."""
        subprocess.run(["tmux", "-S", self._socket, "kill-server"], check=False, capture_output=True)

    def _tmux(self, *words: str) -> str:
        done = subprocess.run(["tmux", "-S", self._socket, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"tmux {words}: {done.stderr}"
        return done.stdout


_NAMED = frozenset(("Enter", "Down", "Up", "Tab", "Escape", "BSpace", "C-u", "C-c", "End", "Home"))
_FRAME = str.maketrans(dict.fromkeys("│┌┐└┘├┤─┴┬", " "))


def _words(text: str) -> str:
    """A text in words, without the boxes' frames."""
    return " ".join(text.translate(_FRAME).split())


@contextlib.contextmanager
def terminal(folder: Path) -> Iterator[Terminal]:
    """A terminal; skips where there is no tmux or dialog."""
    if not shutil.which("tmux") or not shutil.which("dialog"):
        pytest.skip("needs tmux and dialog")
    made = Terminal(folder)
    try:
        yield made
    finally:
        made.end()
