"""The mark of a restore that was begun: while it is in the data directory nothing else starts there.

It says which restore that is and how far it is, so that one that was killed goes on where it was.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pacs.errors import RestoreError
from pacs.storage import durable
from pacs.storage.holding import holding

#: Relative to the data directory, in a folder that is the service's.
MARK = Path("config", "restore-unfinished")


@dataclass(frozen=True)
class Begun:
    """A restore that was begun: where from, up to where, and which of its steps are done."""

    #: The repository's place and options, as pacs/backup/repositories.py has them; no secrets.
    repository: Mapping[str, Any]
    #: Name of the recovery point; empty: to a time, or to the end of the log.
    point: str
    #: Up to when (ISO 8601).
    restored_to: str
    to_the_end: bool = False
    restore_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    #: Beside the archive that goes on, which hears nothing of it.
    is_trial: bool = False
    done: tuple[str, ...] = ()


def begun(data: Path) -> Begun | None:
    """The restore that was begun in a data directory; None if none was. Raise RestoreError if that cannot be read."""
    try:
        found = json.loads((data / MARK).read_text("utf-8"))
        return Begun(**{**found, "done": tuple(found["done"])})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RestoreError(
            f"{data / MARK} cannot be read ({error}). Begin the restore again: `pacs restore --repository ...`."
        ) from error


def put(data: Path, restore: Begun) -> None:
    """Mark that a restore was begun."""
    durable.make_folders((data / MARK).parent)
    durable.replace_file(data / MARK, (json.dumps(asdict(restore), indent=1) + "\n").encode())


def note_done(data: Path, restore: Begun, step: str) -> Begun:
    """Note that a step is done; return the mark as it is now."""
    noted = replace(restore, done=(*restore.done, step))
    put(data, noted)
    return noted


def remove(data: Path) -> None:
    """Take the mark away: services may start."""
    (data / MARK).unlink(missing_ok=True)
    durable.fsync_folder((data / MARK).parent)


@contextmanager
def alone(data: Path) -> Iterator[None]:
    """Hold the data directory against a second restore or a rebuild. Raise RestoreError if there is one."""
    durable.make_folders((data / MARK).parent)
    busy = RestoreError("Another restore, or a rebuild of the index, is at work here. Wait for it.")
    with holding((data / MARK).parent, busy):
        yield
