"""Who may use the menu on the display: a setting. Over SSH it is root's, who came in by a key.

Whoever stands before the display and starts the machine anew has a way in, whatever the setting says: `pacs.setup` on
the kernel's command line. They could as well start another system there, or take the disks out.
"""

from __future__ import annotations

from pathlib import Path

from pacs.errors import UsageError
from pacs.machine.changing import Machine

WORD = "pacs.setup"
_COMMAND_LINE = Path("/proc/cmdline")


def is_open(machine: Machine, command_line: Path = _COMMAND_LINE) -> bool:
    """Whether anybody at the display may use the menu."""
    if WORD in command_line.read_text().split():
        return True
    who = machine.values()["display_menu"]
    return who == "always" or (who == "until-set-up" and not machine.values()["administrator_keys"])


def require_open(machine: Machine, command_line: Path = _COMMAND_LINE) -> None:
    """Raise UsageError, with what to do, if nobody may use it at the display."""
    if not is_open(machine, command_line):
        raise UsageError(
            "The menu is closed on this display: sign in by SSH as admin and run `sudo pacs machine setup`. "
            "If the last key is lost: docs/operate/lost-key.md."
        )
