"""What is known of security updates: /var/lib/pacs/updates/state.json, of this system disk's slot and no other.

Written by `pacs machine update` (root), read by `pacs check` (the service's user).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pacs.errors import SettingsError
from pacs.storage import durable

STATE = Path("/var/lib/pacs/updates/state.json")


@dataclass(frozen=True)
class Pending:
    """A package that has a security update. since: when it was first seen; with_upgrade: it comes that way alone."""

    version: str
    since: str
    with_upgrade: bool = False


@dataclass(frozen=True)
class UpdateState:
    """Times in ISO 8601, UTC, empty: never. problem: why the last look or installation failed."""

    window: str = "off"
    looked_at: str = ""
    installed_at: str = ""
    problem: str = ""
    problem_since: str = ""
    #: A program still runs with what was replaced; it waits for an idle moment of a window.
    restart_since: str = ""
    waits_for: str = ""
    pending: dict[str, Pending] = field(default_factory=dict)


def read(path: Path = STATE) -> UpdateState | None:
    """What is known; None if nothing is. Raise SettingsError if it cannot be read."""
    try:
        found = json.loads(path.read_text("utf-8"))
        return UpdateState(**{**found, "pending": {name: Pending(**each) for name, each in found["pending"].items()}})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SettingsError(f"{path} cannot be read ({error}). Remove it: it is made anew.") from error


def write(state: UpdateState, path: Path = STATE) -> None:
    """Keep it, where everybody may read it."""
    durable.make_folders(path.parent)
    durable.replace_file(path, (json.dumps(asdict(state), indent=1) + "\n").encode())
    path.chmod(0o644)  # whatever the umask: `pacs check` reads it as the service's user
    path.parent.chmod(0o755)
