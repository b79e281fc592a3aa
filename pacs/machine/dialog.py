"""Boxes on a terminal, drawn by Debian's dialog(1): on a display of 80 columns and 25 lines, and over SSH.

dialog draws on the terminal that we have, and gives what a person said through a pipe. Escape and Cancel are one:
None. A text may have any characters; a box that has no room for it is scrolled.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pacs.machine.commands import MachineError

_HEIGHT, _WIDTH = 21, 76
_OK = 0
#: Frames are drawn in Unicode: PuTTY and the like show letters for the older way.
_LINES = {"NCURSES_NO_UTF8_ACS": "1"}
_ERROR = 254


class Dialog:
    """dialog(1) on this process's terminal. title: what stands above every box."""

    def __init__(self, title: str) -> None:
        self._title = title

    def menu(
        self, title: str, text: str, items: Sequence[tuple[str, str]], at: str = "", back: str = "Back"
    ) -> str | None:
        """One of the items, of which each is (name, what stands beside it); None: back."""
        room = max(4, _HEIGHT - 8 - text.count("\n"))
        listed = [word for item in items for word in item]
        words = ["--cancel-label", back, "--default-item", at, "--menu", text or " "]
        return self._ask(title, *words, str(_HEIGHT), str(_WIDTH), str(room), *listed)

    def line(self, title: str, text: str, before: str = "") -> str | None:
        """A line that a person types, beginning with what was there before."""
        return self._ask(title, "--inputbox", text, "12", str(_WIDTH), before)

    def password(self, title: str, text: str) -> str | None:
        """A line that nobody sees, a star each character."""
        return self._ask(title, "--insecure", "--passwordbox", text, "12", str(_WIDTH))

    def text(self, title: str, before: str) -> str | None:
        """Several lines that a person types or pastes."""
        with tempfile.NamedTemporaryFile("w", prefix="pacs-text-") as file:
            file.write(before if before.endswith("\n") or not before else f"{before}\n")
            file.flush()
            return self._ask(title, "--no-collapse", "--editbox", file.name, str(_HEIGHT), str(_WIDTH))

    def agrees(self, title: str, text: str, yes: str = "Yes", no: str = "No") -> bool:
        """Whether a person agrees."""
        words = ("--yes-label", yes, "--no-label", no, "--yesno", text, str(_rows(text)), str(_WIDTH))
        return self._ask(title, *words) is not None

    def say(self, title: str, text: str) -> None:
        """Tell something, and wait for Enter."""
        self._ask(title, "--no-collapse", "--cr-wrap", "--msgbox", text, str(_rows(text)), str(_WIDTH))

    def show(self, title: str, text: str) -> None:
        """Tell something, and go on: it stays on the screen until the next box."""
        self._ask(title, "--no-collapse", "--cr-wrap", "--infobox", text, str(_rows(text)), str(_WIDTH))

    def _ask(self, title: str, *words: str) -> str | None:
        reading, writing = os.pipe()
        command = [
            "dialog", "--backtitle", self._title, "--title", f" {title} ", "--output-fd", str(writing), *words,
        ]  # fmt: skip
        try:
            answer = subprocess.run(
                command, pass_fds=[writing], stderr=subprocess.PIPE, text=True, check=False,
                env={"LANG": "C.UTF-8", **os.environ, **_LINES},
            )  # fmt: skip
        except OSError as error:
            raise MachineError(f"`dialog` cannot be run: {error.strerror}. Is its package installed?") from error
        finally:
            os.close(writing)
        with os.fdopen(reading, encoding="utf-8", errors="replace") as stream:
            said = stream.read()
        if answer.returncode == _ERROR or answer.stderr.strip():
            raise MachineError(
                f"The menu cannot be drawn here: {answer.stderr.strip()[-300:]}. Set TERM, or take 80x24."
            )
        return said if answer.returncode == _OK else None


def _rows(text: str) -> int:
    """How high a box must be for a text: its lines as they are wrapped, and the frame."""
    lines = sum(1 + len(line) // (_WIDTH - 4) for line in text.splitlines())
    return max(7, min(lines + 5, _HEIGHT + 1))


def in_terminal(*command: str | Path, environment: dict[str, str] | None = None) -> int:
    """Leave the boxes, run a command on the plain terminal, wait for Enter; return its exit code."""
    print("\x1b[H\x1b[2J", end="", flush=True)  # noqa: T201
    try:
        code = subprocess.run(command, check=False, env={**os.environ, **(environment or {})}).returncode
    except KeyboardInterrupt:  # given up by Ctrl-C, which is the command's, not the menu's
        code = 130
    except OSError as error:
        print(f"{command[0]} cannot be run: {error.strerror}.")  # noqa: T201
        code = 127
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        input("\nPress Enter to go on. ")
    return code
