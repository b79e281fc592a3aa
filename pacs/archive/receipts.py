"""Receipts of what has arrived, written behind the receive path's back: it is neither asked nor slowed.

The worker looks every minute at what has come since. What it sees is written at once; the mark, before which there is
a receipt of everything, only passes what nobody can be storing still. So a line may be written twice, and none is
left out. Until then an object has its file alone: a rebuild takes its file's time, and does not know who sent it.
"""

from __future__ import annotations

from datetime import datetime

from pacs.index import receipts as rows
from pacs.index.database import Database, Row
from pacs.storage.receipts import Line, Receipts

_TURNS_MAX = 10


class ReceiptWriter:
    """Writes receipts of what came since the last turn."""

    def __init__(self, database: Database, receipts: Receipts) -> None:
        self.database, self.receipts = database, receipts
        self._written: dict[str, set[int]] = {"objects": set(), "duplicates": set()}  # keys above the mark
        self._open: set[int] | None = None  # associations whose end is not written; None: not looked at yet

    def run(self) -> int:
        """Write what has come; return how many objects and repetitions. Raise VolumeFull or VolumeFailed.

        After a restore that is all there is: a part of it at each call, so that the worker comes to its other work.
        """
        count = 0
        for _ in range(_TURNS_MAX):
            done, is_more = self._turn()
            count += done
            if not is_more:
                break
        return count

    def _turn(self) -> tuple[int, bool]:
        with self.database.transaction() as connection:
            until = rows.whole_until(connection)
        with self.database.transaction() as connection:
            marks = rows.marks(connection)
            objects = rows.objects_after(connection, marks["object_key"])
            duplicates = rows.duplicates_after(connection, marks["duplicate_key"])
            if self._open is None:
                self._open = rows.open_associations(connection)
            ended = [row for row in rows.associations(connection, self._open) if row["closed_at"] is not None]
        new = [row for row in objects if row["key"] not in self._written["objects"]]
        again = [row for row in duplicates if row["key"] not in self._written["duplicates"]]
        self.receipts.append([*lines(new, again), *({"from": sender(row)} for row in ended)])
        self._note(new, again, ended)
        object_mark = self._pass("objects", objects, marks["object_key"], until)
        duplicate_mark = self._pass("duplicates", duplicates, marks["duplicate_key"], until)
        moved = (object_mark, duplicate_mark) != (marks["object_key"], marks["duplicate_key"])
        if moved:
            with self.database.transaction() as connection:
                rows.move_marks(connection, object_mark, duplicate_mark)
        is_full = rows.OBJECTS_MAX in (len(objects), len(duplicates))
        return len(new) + len(again), is_full and moved

    def _note(self, new: list[Row], again: list[Row], ended: list[Row]) -> None:
        self._written["objects"] |= {row["key"] for row in new}
        self._written["duplicates"] |= {row["key"] for row in again}
        assert self._open is not None
        for row in (*new, *again):
            if row["association_key"] is not None and row["closed_at"] is None:
                self._open.add(row["association_key"])
        self._open -= {row["association_key"] for row in ended}

    def _pass(self, what: str, seen: list[Row], mark: int, until: datetime) -> int:
        """The key up to which everything is written: of what surely nobody stores something before."""
        late = [row["key"] for row in seen if row["arrived_at"] >= until]
        passed = [row["key"] for row in seen if row["arrived_at"] < until and (not late or row["key"] < late[0])]
        mark = passed[-1] if passed else mark
        self._written[what] = {key for key in self._written[what] if key > mark}
        return mark


def lines(objects: list[Row], again: list[Row]) -> list[Line]:
    """The receipts of objects and of what came again: a line for each association and study."""
    found: dict[tuple[int | None, str], Line] = {}
    for row in objects:
        _line(found, row).setdefault("stored", []).append(_what(row))
    for row in again:
        _line(found, row).setdefault("again", []).append([*_what(row), row["kind"]])
    return list(found.values())


def _line(found: dict[tuple[int | None, str], Line], row: Row) -> Line:
    key = (row["association_key"], row["study_instance_uid"])
    if key not in found:
        found[key] = {"study": row["study_instance_uid"], "from": sender(row)}
    return found[key]


def _what(row: Row) -> list[str]:
    return [bytes(row["sha256"]).hex(), row["sop_instance_uid"], row["arrived_at"].isoformat()]


def sender(row: Row) -> Line | None:
    """Who sent it, as receipts say it; None for what no association brought."""
    if row["association_key"] is None:
        return None
    return {
        "ae": row["calling_ae"],
        "peer": row["peer"],
        "user": row["user_name"],
        "opened": row["opened_at"].isoformat(),
        "closed": row["closed_at"].isoformat() if row["closed_at"] else None,
        "character_set": row["default_character_set"],
    }
