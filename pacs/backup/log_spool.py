"""Where the database's log waits to be shipped: a folder beside the cluster, filled by PostgreSQL's archive_command.

    DATA/pgbackrest-spool/
        wanted          there while there is a repository; else the archive_command keeps nothing
        limit_kib       how much may wait
        unbroken        the archive_command removes it when it has dropped a segment, as too much was waiting
        <segment> …     complete, fsynced, with their holes left out: one that was ended early takes little room

The folder is of PostgreSQL's user and of the service's group: the one puts in, the other takes out.

PostgreSQL's part ends when the segment is here, on the same disk. No repository, dead share or slow network can hold
it up, fill its pg_wal or end it: the archive never stops for its backup. What stands here is nobody's only copy of
anything but the log, so it may be dropped; then a new backup is due.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from pacs.storage import durable

#: Below the data directory. pgBackRest wants its name in the archive_command, so it is in the folder's.
FOLDER = "pgbackrest-spool"
_SEGMENT = re.compile(r"[0-9A-F]{24}(\.partial|\.[0-9A-F]{8}\.backup)?|[0-9A-F]{8}\.history")
_DEFAULT_LIMIT_KIB = 256 << 10


def archive_command(folder: Path) -> str:
    """PostgreSQL's archive_command that keeps a segment in the spool at `folder`. Without single quotes.

    It says that it has done so only when the segment is on the disk; a segment that is there already is replaced by
    itself. When too much waits, or the disk is full, it drops the segment and says that in `unbroken`.
    """
    return (
        f'd="{folder}"; [ -e "$d/wanted" ] || exit 0; '
        'if [ "$(du -sk "$d" | cut -f1)" -lt "$(cat "$d/limit_kib" || echo '
        f'{_DEFAULT_LIMIT_KIB})" ] && cp --sparse=always "%p" "$d/.%f" '
        '&& chmod 640 "$d/.%f" && sync "$d/.%f" && mv "$d/.%f" "$d/%f" && sync "$d"; then exit 0; fi; '
        'rm -f "$d/.%f" "$d/unbroken"'
    )


def is_log_segment(name: str) -> bool:
    """Whether a file of this name carries changes, and is no note beside them (history of timelines, a backup's)."""
    return _SEGMENT.fullmatch(name) is not None and "history" not in name and not name.endswith(".backup")


class LogSpool:
    """The spool of an instance."""

    def __init__(self, data: Path) -> None:
        self.folder = data / FOLDER
        #: What each repository has had (log_shipping.py). Not in the spool, which PostgreSQL's user measures.
        self.state = data / "config" / "pgbackrest"

    def want(self, wanted: bool) -> None:
        """Have segments kept from now on, or no more. What waits then goes."""
        mark = self.folder / "wanted"
        if wanted and not mark.exists():
            self.folder.mkdir(mode=0o770, exist_ok=True)
            self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not (self.folder / "limit_kib").exists():
                self.limit(_DEFAULT_LIMIT_KIB << 10)
            self.mend()
            durable.replace_file(mark, b"")
        elif not wanted and mark.exists():
            mark.unlink()
            for name in self.names():
                self.drop(name)

    def limit(self, size_bytes: int) -> None:
        """Say how much may wait [bytes]. The archive_command asks at each segment."""
        text, path = b"%d\n" % (size_bytes >> 10), self.folder / "limit_kib"
        if path.exists() and path.read_bytes() == text:
            return
        half = path.with_name(".limit_kib")
        half.write_bytes(text)
        half.chmod(0o644)  # PostgreSQL's user reads it, whatever our umask is
        half.rename(path)

    def names(self) -> list[str]:
        """The segments that wait, and notes beside them, in the order of the log."""
        try:
            return sorted(name for name in os.listdir(self.folder) if _SEGMENT.fullmatch(name))  # noqa: PTH208
        except FileNotFoundError:
            return []

    def path(self, name: str) -> Path:
        """The file of a segment."""
        return self.folder / name

    def since_s(self, name: str) -> float | None:
        """When a segment came [seconds since 1970]; None if it is gone."""
        try:
            return self.path(name).stat().st_mtime
        except FileNotFoundError:
            return None

    def size_bytes(self) -> int:
        """The room that all of it takes."""
        total = 0
        for name in self.names():
            with contextlib.suppress(FileNotFoundError):
                total += self.path(name).stat().st_blocks * 512
        return total

    def drop(self, name: str) -> None:
        """Let go of a segment: every repository has it, or it is given up."""
        self.path(name).unlink(missing_ok=True)

    @property
    def is_broken(self) -> bool:
        """Whether the archive_command has dropped a segment since `mend`."""
        return (self.folder / "wanted").exists() and not (self.folder / "unbroken").exists()

    def mend(self) -> None:
        """Note that it is known what was dropped."""
        durable.replace_file(self.folder / "unbroken", b"")
