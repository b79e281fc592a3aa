"""One key, if a person presses one in time: for pages that go on by themselves meanwhile."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from types import TracebackType


class Keyboard:
    """The terminal, giving keys as they are pressed, for as long as this is entered."""

    def __enter__(self) -> Keyboard:
        self._fd = sys.stdin.fileno()
        self._before = termios.tcgetattr(self._fd)
        tty.setcbreak(self._fd)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)

    def key(self, wait_s: float) -> str:
        """The key that was pressed, in small letters; empty after so long without one, or at the terminal's end."""
        if not select.select([self._fd], [], [], wait_s)[0]:
            return ""
        return os.read(self._fd, 32).decode("utf-8", "replace").lower() or "\x1b"
