"""Work that two processes must not do at once: an advisory lock that ends with the process that holds it."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import psycopg

from pacs.errors import TryAgainLater
from pacs.index.database import Connection, Database

#: First key of these locks; the second is the work's.
LOCK_CLASS = 0x7062
#: For whoever was killed a moment ago: the server has to notice first.
_PATIENCE_S = 1
_KEYS = {"scrub": 1, "reconcile": 2, "repair": 3, "ship": 4, "selftest": 5}

Work = Literal["scrub", "reconcile", "repair", "ship", "selftest"]


class AlreadyRunning(TryAgainLater):
    """This runs already. Wait until it ends."""


@contextmanager
def only_one(database: Database, work: Work, part: str = "") -> Iterator[None]:
    """Hold the right to do some work, or a part of it. Raise AlreadyRunning if another process, or thread, has it."""
    connection = database.autocommit_connection()
    try:
        _take(connection, work, part)
        yield
        with contextlib.suppress(psycopg.Error):  # who lost the server has lost the lock as well
            # The server would see only after a while that the connection is closed, and refuse who comes next.
            connection.execute("SELECT pg_advisory_unlock_all()")
    finally:
        connection.close()


def is_running(database: Database, work: Work) -> bool:
    """Whether somebody does some work now."""
    with database.transaction() as connection:
        row = connection.execute(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND objid = %s"
            " AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) AS found",
            (LOCK_CLASS, _KEYS[work]),
        ).fetchone()
    assert row is not None
    return bool(row["found"])


def _key(work: Work, part: str) -> int:
    return _KEYS[work] + (zlib.crc32(part.encode()) & 0x7FFFFF) * 16 if part else _KEYS[work]


def _take(connection: Connection, work: Work, part: str) -> None:
    connection.execute(f"SET lock_timeout = '{_PATIENCE_S}s'".encode())
    try:
        connection.execute("SELECT pg_advisory_lock(%s, %s)", (LOCK_CLASS, _key(work, part)))
    except psycopg.errors.LockNotAvailable:
        raise AlreadyRunning(
            f"A {work} runs already, by the timer or another command. "
            f"Wait for it; `pacs {'scrub status' if work == 'scrub' else 'check'}` shows how far it is."
        ) from None
