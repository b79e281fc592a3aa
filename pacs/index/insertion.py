"""Inserting an object into a series that is there already, while its file is made safe.

    BEGIN and INSERT are sent ─▶ the server works
    the file is fsynced, named, its folder fsynced       meanwhile
    COMMIT is sent, its answer awaited

One round trip to the database, whose work costs the sender no time of its own. This speaks to libpq itself, in
pipeline mode: what psycopg does in Python for each statement would cost more than the statement.
"""

from __future__ import annotations

import select
from dataclasses import dataclass
from weakref import WeakSet

from psycopg import OperationalError, pq

from pacs import clock
from pacs.index.database import Connection
from pacs.index.store import DEFAULT_TENANT, StoredFile
from pacs.model.record import IndexRecord

#: No row where the series is gone, or the UID is taken.
_INSERT = b"""
WITH made AS (
    INSERT INTO object (tenant_id, series_key, sop_instance_uid, sop_class_uid, transfer_syntax_uid, instance_number,
                        content_date, content_time, number_of_frames, sha256, size_bytes, association_key, is_current)
    SELECT tenant_id, series_key, $3::text, $4::text, $5::text, $6::integer, $7::text, $8::text, $9::integer,
           $10::bytea, $11::bigint, $12::bigint, true
      FROM series WHERE tenant_id = $1::smallint AND series_key = $2::bigint
        ON CONFLICT DO NOTHING RETURNING object_key
)
INSERT INTO copy (tenant_id, object_key, volume_id, path)
SELECT $1::smallint, object_key, $13::uuid, $14::text FROM made RETURNING object_key
"""
_STATEMENTS = {b"pacs_begin": b"BEGIN", b"pacs_insert": _INSERT, b"pacs_commit": b"COMMIT", b"pacs_undo": b"ROLLBACK"}
#: The connections that know them.
_PREPARED: WeakSet[Connection] = WeakSet()


@dataclass(frozen=True)
class _Answer:
    status: int
    command: bytes
    value: bytes | None
    message: str


class Insertion:
    """An insert that is under way. Ends with `commit` or `abandon`; nobody else may use the connection until then.

    Raise OperationalError where the connection is lost, or the server silent for too long.
    """

    def __init__(
        self,
        connection: Connection,
        series_key: int,
        record: IndexRecord,
        transfer_syntax_uid: str,
        file: StoredFile,
        association_key: int | None,
    ) -> None:
        self._pgconn = connection.pgconn
        if connection not in _PREPARED:
            _prepare(connection)
            _PREPARED.add(connection)
        self._silence_s_max: float | None = getattr(connection, "silence_s_max", None)
        values = record.values
        parameters = (
            DEFAULT_TENANT, series_key, record.sop_instance_uid, record.sop_class_uid, transfer_syntax_uid,
            values["instance_number"], values["content_date"], values["content_time"], values["number_of_frames"],
            "\\x" + file.sha256.hex(), file.size_bytes, association_key, file.volume_id, file.path,
        )  # fmt: skip
        self._pgconn.enter_pipeline_mode()
        self._send(b"pacs_begin")
        self._send(b"pacs_insert", [None if each is None else str(each).encode() for each in parameters])
        self._pgconn.flush()

    def commit(self) -> int | None:
        """Make it durable; return the object's key, or None if nothing was inserted: series gone, or UID taken."""
        _began, inserted, committed = self._finish(b"pacs_commit")
        if inserted.status != pq.ExecStatus.TUPLES_OK or committed.command != b"COMMIT":
            raise OperationalError(inserted.message or committed.message or "the insert was not committed")
        return int(inserted.value) if inserted.value is not None else None

    def abandon(self) -> None:
        """Undo it."""
        try:
            self._finish(b"pacs_undo")
        except OperationalError:
            self._pgconn.finish()  # then the server undoes it

    def _send(self, name: bytes, parameters: list[bytes | None] | None = None) -> None:
        self._pgconn.send_query_prepared(name, parameters or [])

    def _finish(self, ending: bytes) -> list[_Answer]:
        self._send(ending)
        self._pgconn.pipeline_sync()
        answers = self._answers()
        self._pgconn.exit_pipeline_mode()
        if any(each.status == pq.ExecStatus.FATAL_ERROR for each in answers):
            # The rest of the pipeline was left out, its end too: the transaction is still open.
            self._pgconn.exec_(b"ROLLBACK")
        return answers

    def _answers(self) -> list[_Answer]:
        """What came of each statement, up to the pipeline's end."""
        answers: list[_Answer] = []
        while True:
            self._wait_for_result()
            result = self._pgconn.get_result()
            if result is None:
                continue
            if result.status == pq.ExecStatus.PIPELINE_SYNC:
                return answers
            value = result.get_value(0, 0) if result.ntuples else None
            answers.append(_Answer(result.status, result.command_status or b"", value, result.get_error_message()))

    def _wait_for_result(self) -> None:
        poll = select.poll()
        ends = clock.monotonic_s() + (self._silence_s_max or float("inf"))
        while True:
            unsent = self._pgconn.flush()
            if not unsent and not self._pgconn.is_busy():
                return
            poll.register(self._pgconn.socket, select.POLLIN | (select.POLLOUT if unsent else 0))
            left = ends - clock.monotonic_s()
            if left <= 0 or not poll.poll(None if left == float("inf") else left * 1000):
                self._pgconn.finish()
                raise OperationalError("the server has been silent for too long")
            self._pgconn.consume_input()


def _prepare(connection: Connection) -> None:
    for name, statement in _STATEMENTS.items():
        result = connection.pgconn.prepare(name, statement)
        if result.status != pq.ExecStatus.COMMAND_OK:
            raise OperationalError(result.get_error_message())
