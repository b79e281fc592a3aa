"""Which objects the index knows, by the digests of their files: what two nodes are compared by."""

from __future__ import annotations

from collections.abc import Iterator

from pacs.index.database import Database


def digests(database: Database) -> Iterator[tuple[str, int]]:
    """SHA-256 in hex and size [bytes] of every object's file, in the order of the digests, each once. Reads only, so
    that a standby's database gives them too."""
    with database.transaction() as connection, connection.cursor() as cursor:
        select = "SELECT encode(sha256, 'hex'), max(size_bytes) FROM object GROUP BY sha256 ORDER BY sha256"
        with cursor.copy(f"COPY ({select}) TO STDOUT".encode()) as copy:
            for digest, size_bytes in copy.rows():
                yield str(digest), int(size_bytes)
