"""Work that two processes must not do at once: an advisory lock that ends with the process that holds it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from pacs.errors import TryAgainLater
from pacs.index.database import Connection, Database

#: First key of these locks; the second is the work's.
LOCK_CLASS = 0x7062
_KEYS = {"scrub": 1, "reconcile": 2, "repair": 3}

Work = Literal["scrub", "reconcile", "repair"]


class AlreadyRunning(TryAgainLater):
    """This runs already. Wait until it ends."""


@contextmanager
def only_one(database: Database, work: Work) -> Iterator[None]:
    """Hold the right to do some work. Raise AlreadyRunning if another process, or another thread, has it."""
    connection = database.autocommit_connection()
    try:
        if not _try(connection, work):
            raise AlreadyRunning(
                f"A {work} runs already, by the timer or another command. "
                f"Wait for it; `pacs {'scrub status' if work == 'scrub' else 'check'}` shows how far it is."
            )
        yield
    finally:
        connection.close()


def is_running(database: Database, work: Work) -> bool:
    """Whether somebody does some work now."""
    with database.transaction() as connection:
        row = connection.execute(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND objid = %s"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) AS found",
            (LOCK_CLASS, _KEYS[work]),
        ).fetchone()
    assert row is not None
    return bool(row["found"])


def _try(connection: Connection, work: Work) -> bool:
    row = connection.execute("SELECT pg_try_advisory_lock(%s, %s) AS got", (LOCK_CLASS, _KEYS[work])).fetchone()
    assert row is not None
    return bool(row["got"])
