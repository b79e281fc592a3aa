"""A new timeline for the database's log, after its disk went back in time: begun before PostgreSQL starts.

What it will write has numbers that its log has had before, with other content, and some of that may be in a repository.
On a timeline of its own the two cannot be taken for one another. PostgreSQL begins one at the end of a recovery from an
archive; so it is told to recover from one that has nothing but histories of timelines, of which it takes the next that
was not used yet.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import subprocess
from collections.abc import Iterable
from pathlib import Path

from pacs.errors import DatabaseUnavailable
from pacs.storage import durable
from pacs.storage.lineage import LineageFiles, Reverted

log = logging.getLogger(__name__)

_TIMELINE = re.compile(r"^(?:Latest checkpoint's TimeLineID|Min recovery ending loc's timeline): +(\d+)$", re.MULTILINE)
_BEGIN, _END = "# pacs: a new timeline", "# pacs: end"


def begin_if_needed(data: Path, notice: Reverted | None, cluster: Path, programs: Path) -> bool:
    """Have the next start of the stopped cluster begin a new timeline, if its disk went back in time. Whether it will.

    programs: PostgreSQL's. Whoever is ended in between does it again at the next start.
    """
    if notice is None or not notice.is_state or notice.timeline is not None or not (cluster / "PG_VERSION").exists():
        return False
    files, now = LineageFiles(data), timeline_of(cluster, programs)
    if notice.timeline_before is None:
        notice.timeline_before = now
        files.put_reverted(notice)
    if now > notice.timeline_before:
        notice.timeline = now
        files.put_reverted(notice)
        return False
    log.warning("the database's disk went back in time: its log goes on on a new timeline after %d", now)
    _begin(cluster, data / "config" / "pgbackrest.conf", range(now + 1, notice.timeline_elsewhere + 1))
    return True


def timeline_of(cluster: Path, programs: Path) -> int:
    """The timeline that a stopped cluster is on. Raise DatabaseUnavailable if it does not say."""
    result = subprocess.run(
        [str(programs / "pg_controldata"), "-D", str(cluster)],
        capture_output=True, text=True, check=False, env={"LC_ALL": "C", "PATH": os.environ.get("PATH", "")},
    )  # fmt: skip
    found = _TIMELINE.findall(result.stdout)
    if result.returncode != 0 or not found:
        raise DatabaseUnavailable(f"The cluster in {cluster} does not say its timeline: {result.stderr.strip()[-200:]}")
    return max(map(int, found))


def _begin(cluster: Path, pgbackrest: Path, elsewhere: Iterable[int]) -> None:
    settings = cluster / "postgresql.auto.conf"
    kept = re.sub(f"{_BEGIN}.*?{_END}\n", "", settings.read_text() if settings.exists() else "", flags=re.DOTALL)
    command = _histories_only(pgbackrest).replace("'", "''")
    lines = [_BEGIN, f"restore_command = '{command}'", "recovery_target_timeline = 'current'", _END]
    for number in elsewhere:  # a history that is there is passed over, whatever it says
        history = cluster / "pg_wal" / f"{number:08X}.history"
        if not history.exists():
            _write(history, "# pacs: a timeline that went on elsewhere\n")
    _write(settings, kept + "\n".join(lines) + "\n")
    _write(cluster / "recovery.signal", "")


def _write(path: Path, content: str) -> None:
    """Write a file of the cluster, as its owner's."""
    durable.replace_file(path, content.encode(), 0o600)
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)
    durable.fsync_folder(path.parent)


def _histories_only(pgbackrest: Path) -> str:
    """A restore_command: %f is the file's name, %p where it goes. Ends with 1 for what is not there, whatever went
    wrong: a number above 125 would keep PostgreSQL from starting."""
    fetch = f'pgbackrest --config={shlex.quote(str(pgbackrest))} --stanza=pacs archive-get %f "%p" || exit 1'
    return f"case %f in *.history) test -e {shlex.quote(str(pgbackrest))} || exit 1; {fetch};; *) exit 1;; esac"
