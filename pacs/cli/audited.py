"""Commands that a person calls, in the audit log: who, from where, and the words; before they do anything.

Services' commands are not in it, nor those that tell nothing of a patient and change nothing. What a command changes
stands there again, by the journal (pacs/storage/journal.py), so that also who is killed in the middle has left word.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pacs.errors import PacsError
from pacs.model.audit import MINOR, Event, event
from pacs.storage.acting import actor, is_service
from pacs.storage.audit import AuditLog

log = logging.getLogger(__name__)

#: Noun → what kind of an alert its commands are (CID 403). All others: use of a restricted function.
_KINDS = {
    "device": "network", "tls": "security", "dicom-user": "security", "refusal": "security", "upgrade": "software",
    "volume": "hardware", "machine": "hardware", "raid": "hardware",
}  # fmt: skip
#: What tells nothing of a patient and changes nothing, or is a service; and what tells of itself.
_QUIET = frozenset(["version", "check", "dev", "receiver", "worker", "web", "audit", "fleet", "capacity", "selftest"])
_SECRET = re.compile(r"^(--[a-z0-9-]*(?:pass|secret|key|sheet|token)[a-z0-9-]*)(?:=.*)?$")


@contextmanager
def audited(words: Sequence[str]) -> Iterator[None]:
    """Have the command that runs in the block in the audit log of its instance; once more if it fails."""
    data, command = split(words, os.environ)
    if data is None or not is_told(command) or not (data / "volume.json").exists() or is_service():
        yield
        return
    _append(data, of_command(command))
    try:
        yield
    except SystemExit as ended:
        if ended.code not in (None, 0):
            _append(data, of_command(command, f"ended with {ended.code}"))
        raise
    except BaseException as error:
        _append(data, of_command(command, f"ended with {type(error).__name__}"))
        raise


def split(words: Sequence[str], environment: dict[str, str] | os._Environ[str]) -> tuple[Path | None, list[str]]:
    """The data directory that a command is about, and the command's words."""
    data, left = environment.get("PACS_DATA", ""), list(words)
    while left and left[0].startswith("-"):
        word = left.pop(0)
        if word == "--data" and left:
            data = left.pop(0)
        elif word.startswith("--data="):
            data = word.removeprefix("--data=")
    return (Path(data).absolute() if data else None), left


def is_told(command: Sequence[str]) -> bool:
    """Whether a command's words are for the audit log."""
    return bool(command) and command[0] not in _QUIET and "--help" not in command


def of_command(command: Sequence[str], failed: str = "") -> Event:
    """The event that a command is."""
    text = f"pacs {' '.join(without_secrets(command))}"
    kind = _KINDS.get(command[0], "restricted")
    return event("alert", actor(), MINOR if failed else 0, kind=kind, text=f"{text} {failed}".strip()[:500])


def without_secrets(words: Sequence[str]) -> list[str]:
    """A command's words, without the values of options that are secrets."""
    found: list[str] = []
    hidden = False
    for word in words:
        secret = _SECRET.match(word)
        found.append("***" if hidden else f"{secret[1]}=***" if secret and "=" in word else word)
        hidden = not hidden and secret is not None and "=" not in word
    return found


def _append(data: Path, each: Event) -> None:
    try:
        AuditLog(data).append([each])
    except PacsError as error:
        log.error("this command is not in the audit log: %s", error)
