"""PostgreSQL's archive_command as a shell runs it, and what waits."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pacs.backup.log_spool import FOLDER, LogSpool, archive_command, is_log_segment

SEGMENT = "000000010000000000000007"
ROLE = Path(__file__).parents[3] / "roles/postgresql/tree/etc/postgresql/17/main/postgresql.conf.j2"


@pytest.fixture
def spool(tmp_path: Path) -> LogSpool:
    return LogSpool(tmp_path)


def archive(spool: LogSpool, content: bytes = b"log" + bytes(1 << 20), name: str = SEGMENT) -> int:
    """Run the command as PostgreSQL does; return its exit code."""
    source = spool.folder.parent / "pg_wal" / name
    source.parent.mkdir(exist_ok=True)
    source.write_bytes(content)
    command = archive_command(spool.folder).replace("%p", f"pg_wal/{name}").replace("%f", name)
    return subprocess.run(["sh", "-c", command], cwd=spool.folder.parent, check=False).returncode


def test_without_a_repository_nothing_is_kept(spool: LogSpool) -> None:
    assert archive(spool) == 0
    assert spool.names() == []
    spool.want(True)
    assert archive(spool) == 0
    spool.want(False)
    assert spool.names() == [] and archive(spool) == 0 and spool.names() == []


def test_a_segment_is_kept_whole_and_takes_little_room(spool: LogSpool) -> None:
    spool.want(True)
    content = b"log" + bytes(16 << 20)
    assert archive(spool, content) == 0
    assert spool.names() == [SEGMENT]
    assert spool.path(SEGMENT).read_bytes() == content
    assert spool.size_bytes() < 1 << 20, "it was ended early: the rest is a hole"
    assert spool.path(SEGMENT).stat().st_mode & 0o777 == 0o640
    assert archive(spool, content) == 0, "PostgreSQL may ask again after a crash"
    assert not spool.is_broken


def test_too_much_is_dropped_and_said(spool: LogSpool) -> None:
    spool.want(True)
    spool.limit(64 << 10)
    assert archive(spool, os.urandom(1 << 17)) == 0
    assert not spool.is_broken
    assert archive(spool, b"x", "000000010000000000000008") == 0, "PostgreSQL goes on"
    assert spool.names() == [SEGMENT]
    assert spool.is_broken
    spool.mend()
    assert not spool.is_broken


def test_what_cannot_be_written_down_is_kept_by_postgresql(spool: LogSpool) -> None:
    spool.want(True)
    (spool.folder / "unbroken").unlink()
    (spool.folder / "unbroken" / "x").mkdir(parents=True)  # rm fails
    spool.limit(0)
    assert archive(spool) != 0


@pytest.mark.parametrize(
    ("name", "is_segment"),
    [(SEGMENT, True), (f"{SEGMENT}.partial", True), (f"{SEGMENT}.00000028.backup", False), ("00000002.history", False),
     ("state", False), (f".{SEGMENT}", False)],
)  # fmt: skip
def test_what_a_segment_is(name: str, is_segment: bool) -> None:
    assert is_log_segment(name) is is_segment


def test_the_appliance_has_the_same_command() -> None:
    command = archive_command(Path("/srv/pacs/state") / FOLDER)
    assert f"archive_command = '{command}'\n" in ROLE.read_text()
    assert "'" not in command and "\\" not in command
