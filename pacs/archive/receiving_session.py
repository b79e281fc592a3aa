"""A service that receives, among others: its session's lock says that it lives, so what it takes counts as open."""

from __future__ import annotations

import threading

from pacs.index import store as rows
from pacs.index.database import Connection, Database


class ReceivingSession:
    """A session, opened when it is first asked for, and again when the database had gone away."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._lock = threading.Lock()
        self._session: tuple[Connection, int] | None = None

    def key(self) -> int:
        """The session's key; a new one when the database had gone away."""
        with self._lock:
            if self._session is not None and not self._session[0].closed:
                try:
                    self._session[0].execute("SELECT")
                    return self._session[1]
                except Exception:  # any fault of the old connection: a new one decides
                    self._session[0].close()
            connection = self.database.autocommit_connection()
            self._session = (connection, rows.open_session(connection))
            return self._session[1]

    def close(self) -> None:
        """Give it up."""
        with self._lock:
            if self._session is not None:
                self._session[0].close()
                self._session = None
