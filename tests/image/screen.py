"""The text on the virtual machine's display, read from the terminal itself and not from the file that it came from."""

from __future__ import annotations

import time
from typing import Any

_LIMIT_S = 150.0  # its timer, and what the checks take on an emulated machine


def read_screen(host: Any) -> str:
    """What stands on the first virtual terminal, in lines. `host`: testinfra's, as root."""
    columns = int(host.check_output("stty --file=/dev/tty1 size").split()[1])
    text = host.check_output("cat /dev/vcs1")
    return "\n".join(text[start : start + columns].rstrip() for start in range(0, len(text), columns))


def wait_for_screen(host: Any, *texts: str) -> str:
    """The screen as soon as all texts stand on it, or as it is when the time is up. A text may be broken by lines."""
    deadline = time.monotonic() + _LIMIT_S
    while True:
        screen = read_screen(host)
        if all(shows(screen, text) for text in texts) or time.monotonic() > deadline:
            return screen
        time.sleep(3)


def shows(screen: str, text: str) -> bool:
    """Whether the text stands on the screen, wherever its lines break."""
    return " ".join(text.split()) in " ".join(screen.split())
