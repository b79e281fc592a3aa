"""A small record in a JSON file: read by one way everywhere. Writing is `durable.replace_file`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pacs.errors import VolumeError


def read_record(path: Path, page: str = "") -> dict[str, Any] | None:
    """What a file holds; None if there is none. page: of docs/operate, which tells what to do then.

    Raise VolumeError if it cannot be read, or holds no object.
    """
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise unreadable(path, error, page) from error
    if not isinstance(found, dict):
        raise unreadable(path, TypeError("no object"), page)
    return found


def unreadable(path: Path, error: Exception, page: str = "") -> VolumeError:
    """The error of a record that cannot be read, or lacks something."""
    more = f"; then see docs/operate/{page}" if page else ""
    return VolumeError(f"{path} cannot be read ({error!r}). Look at its disk{more}.")
