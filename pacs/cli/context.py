"""What the commands share: which instance is meant, and who acts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from pacs.errors import UsageError


def data_of(context: typer.Context) -> Path:
    """The data directory that a command was given. Raise UsageError if it was not."""
    found = context.find_root().obj
    if found is None:
        raise UsageError("Which instance? Give `pacs --data DIR …` or set PACS_DATA.")
    return Path(found)


@contextmanager
def acting_as_owner(folder: Path) -> Iterator[None]:
    """As root, act as the owner of a folder, so that new files are theirs and the database knows us; else nothing."""
    status = folder.stat()
    if os.geteuid() != 0 or status.st_uid == 0:
        yield
        return
    os.setegid(status.st_gid)
    os.seteuid(status.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
