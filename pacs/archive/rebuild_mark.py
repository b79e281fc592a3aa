"""The mark of a rebuild that was begun: while it is in the data directory nothing else is started there."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pacs.errors import RebuildError
from pacs.storage import durable
from pacs.storage.holding import holding

#: Relative to the data directory, in a folder that is the service's.
MARK = Path("config", "rebuild-unfinished")


@dataclass(frozen=True)
class Begun:
    """A rebuild that was begun: its id, and what it was told."""

    rebuild: str = field(default_factory=lambda: str(uuid.uuid4()))
    trust_names: bool = False
    without: tuple[str, ...] = ()


def require_no_rebuild(data: Path) -> None:
    """Raise RebuildError if a rebuild is under way in a data directory, or was begun and not finished."""
    if (data / MARK).exists():
        raise RebuildError(
            "The index is being rebuilt, or a rebuild was begun here and did not finish. `pacs index rebuild` goes on "
            "with it; `pacs index rebuild --abandon` gives it up and keeps the index that was there."
        )


def begun(data: Path) -> Begun | None:
    """The rebuild that was begun in a data directory; None if none was. Raise RebuildError if that cannot be read."""
    try:
        found = json.loads((data / MARK).read_text("utf-8"))
        return Begun(found["rebuild"], found["trust_names"], tuple(found["without"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RebuildError(f"{data / MARK} cannot be read ({error}). Run `pacs index rebuild --abandon`.") from error


def put(data: Path, rebuild: Begun) -> None:
    """Mark that a rebuild was begun."""
    durable.replace_file(data / MARK, json.dumps(asdict(rebuild)).encode())


def remove(data: Path) -> None:
    """Take the mark away: services may start."""
    (data / MARK).unlink(missing_ok=True)
    durable.fsync_folder((data / MARK).parent)


@contextmanager
def alone(data: Path) -> Iterator[None]:
    """Hold the data directory against a second rebuild. Raise RebuildError if there is one."""
    busy = RebuildError("Another `pacs index rebuild` is at work here. Wait for it, or end it.")
    with holding(data / MARK.parent, busy):
        yield
