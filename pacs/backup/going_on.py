"""Whether pgBackRest can go on with the folder of a restored cluster, after a kill or from night to night."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path


def may_go_on_in(target: Path) -> bool:
    """Whether a cluster's folder is one that pgBackRest can go on with. What it cannot take for one goes."""
    _end_what_is_left(target)
    if any((target / name).exists() for name in ("PG_VERSION", "backup.manifest")):
        return True
    shutil.rmtree(target, ignore_errors=True)
    return False


def _end_what_is_left(target: Path) -> None:
    """End the pgBackRest of a restore that was killed: two at once would write the same files."""
    word = f"--pg1-path={target}".encode()
    while left := [each for each in Path("/proc").glob("[0-9]*") if word in _words_of(each)]:
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process.name), signal.SIGKILL)
        time.sleep(0.05)


def _words_of(process: Path) -> list[bytes]:
    try:
        return (process / "cmdline").read_bytes().split(b"\0")
    except OSError:  # it has ended
        return []
