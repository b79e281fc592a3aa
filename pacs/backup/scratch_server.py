"""The server of a drill's scratch cluster: on a socket of its own, and it archives no log.

It runs as whoever runs the drill. What is written to it is thrown away with the next restore into its folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pacs.backup.cluster import binaries_of
from pacs.backup.pgbackrest import as_user
from pacs.errors import RestoreError

_SERVER = """\
listen_addresses = ''
unix_socket_directories = '{work}'
unix_socket_permissions = 0777
hba_file = '{work}/pg_hba.conf'
ident_file = '{work}/pg_ident.conf'
shared_buffers = 64MB
max_connections = 40
archive_mode = off
fsync = off
autovacuum = off
log_min_error_statement = panic
log_parameter_max_length = 0
log_parameter_max_length_on_error = 0
log_error_verbosity = terse
"""


@contextmanager
def scratch_server(cluster: Path, work: Path, user: str | None) -> Iterator[str]:
    """Run the server of a restored cluster while the block runs; give its connection string.

    work: a folder that nobody but us can reach. user: whose the cluster is, if we are root. Raise RestoreError.
    """
    end_server(cluster, user)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(mode=0o700, parents=True)
    for name, text in (
        ("postgresql.conf", _SERVER.format(work=work)), ("pg_hba.conf", "local all all trust\n"), ("pg_ident.conf", ""),
    ):  # fmt: skip
        (work / name).write_text(text)
    if user and os.geteuid() == 0:
        for path in (work, *work.iterdir()):
            shutil.chown(path, user)
    log = work / "server.log"
    words: list[str | Path] = ["-l", log, "start", "-o", f"-c config_file={work}/postgresql.conf"]
    if _control(cluster, user, "-t", "600", *words) != 0:
        raise RestoreError(f"The restored database does not start: {_last_words(log)}")
    try:
        yield f"host={work} dbname=pacs user=pacs"
    finally:
        end_server(cluster, user)


def end_server(cluster: Path, user: str | None) -> None:
    """End the server of a cluster, if there is one: of a drill that was killed."""
    if (cluster / "postmaster.pid").exists():
        _control(cluster, user, "-t", "60", "-m", "immediate", "stop")
        (cluster / "postmaster.pid").unlink(missing_ok=True)


def _control(cluster: Path, user: str | None, *words: str | Path) -> int:
    return subprocess.run(
        [binaries_of(cluster) / "pg_ctl", "-D", cluster, "-s", "-w", *words], stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=cluster.parent, check=False, start_new_session=True,
        **as_user(user, cluster.parent),
    ).returncode  # fmt: skip


def _last_words(log: Path) -> str:
    try:
        return " ".join(log.read_text("utf-8", "replace").splitlines()[-2:])[-300:]
    except OSError:
        return "it left no log"
