"""A folder's files in the order of their paths' bytes, a folder's names in memory at a time."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from pacs.storage.kinds import FileStatus


def walk_in_order(root: Path, top: str) -> Iterator[FileStatus]:
    """Every file below root/top, as paths relative to root; what comes or goes meanwhile may be among them or not.

    Links, pipes and the like count as files: they are nobody's. Raise OSError for a folder that cannot be listed.
    """
    try:
        with os.scandir(root / top) as entries:
            # A folder's name counts with the "/" behind it, as in the paths of what is in it.
            found = sorted(
                (os.fsencode(entry.name) + (b"/" if is_folder else b""), is_folder, entry)
                for entry in entries
                for is_folder in (entry.is_dir(follow_symlinks=False),)
            )
    except (FileNotFoundError, NotADirectoryError):
        return
    for _key, is_folder, entry in found:
        path = f"{top}/{entry.name}"
        if is_folder:
            yield from walk_in_order(root, path)
            continue
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        yield FileStatus(
            path, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC), stat.S_ISREG(status.st_mode)
        )
