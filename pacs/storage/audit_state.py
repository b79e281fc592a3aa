"""What is known of the audit log beside it: when it was last looked after, what went where, how far exports are.

    DATA/audit/state.json                 the worker's
    DATA/audit/exported/<receiver>.json   how far an export is: the last line that was taken

Nothing of it is needed to verify the log. What is lost of it is sent once more.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pacs.storage import durable
from pacs.storage.audit import FOLDER


@dataclass
class Sent:
    """How sending the head to one place went: which (a head in words), when (ISO 8601), and what is wrong."""

    head: str = ""
    at: str = ""
    error: str = ""
    failed_since: str = ""


@dataclass
class AuditState:
    """What the worker knows. Times are ISO 8601."""

    #: When what arrived was last written down, and why it is not.
    arrivals_at: str = ""
    arrivals_error: str = ""
    sealed_at: str = ""
    seal_error: str = ""
    #: Place ("repository NAME", "syslog", "mail") → how it went.
    sent: dict[str, Sent] = field(default_factory=dict)
    #: Up to where events went to the audit record repository, and why no further.
    exported: int = 0
    export_error: str = ""
    export_failed_since: str = ""

    @classmethod
    def read(cls, data: Path) -> AuditState:
        """What is known; nothing if it cannot be read."""
        try:
            found = json.loads((data / FOLDER / "state.json").read_bytes())
            sent = {name: Sent(**each) for name, each in found.pop("sent").items()}
            return cls(**found, sent=sent)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return cls()

    def write(self, data: Path) -> None:
        """Write it down."""
        _write(data / FOLDER / "state.json", asdict(self))


@dataclass
class Exported:
    """The last line that a receiver has: its number, check value and time."""

    n: int = 0
    c: str = ""
    at: str = ""

    @classmethod
    def read(cls, data: Path, receiver: str) -> Exported:
        """How far the export to a receiver is."""
        try:
            return cls(**json.loads(_exported(data, receiver).read_bytes()))
        except (OSError, ValueError, TypeError):
            return cls()

    def write(self, data: Path, receiver: str) -> None:
        """Write it down."""
        path = _exported(data, receiver)
        durable.make_folders(path.parent)
        _write(path, asdict(self))


def _exported(data: Path, receiver: str) -> Path:
    return data / FOLDER / "exported" / f"{re.sub('[^A-Za-z0-9.-]', '_', receiver)}.json"


def _write(path: Path, values: dict[str, Any]) -> None:
    try:
        durable.replace_file(path, (json.dumps(values, indent=1) + "\n").encode())
    except OSError as error:
        raise durable.as_volume_error(error, path.parent) from error
