"""A folder held by one process: a lock that ends with whoever holds it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pacs.errors import PacsError


@contextmanager
def holding(folder: Path, otherwise: PacsError) -> Iterator[None]:
    """Hold a folder against others that hold it. Raise `otherwise` if somebody does."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise otherwise from None
    finally:
        os.close(fd)
