"""What arrived, in the audit log: one event an association and study, made from their rows behind the receive path.

The worker looks every few seconds at what has come since the mark, and gathers it by association and study. When an
association is over - closed, or its receiver is dead - its events are written, then the mark moves past what has been
written. So no kill of a receiver, of the worker or of the database loses one: what has rows and no event is above the
mark. An event has an id of its association and study, so that it does not stand there twice.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice

from pacs.index import audit as rows
from pacs.index.database import Database, Row
from pacs.index.receipts import whole_until
from pacs.model.audit import MINOR, SUCCESS, Event, event, identity_of, peer
from pacs.storage.audit import AuditLog

#: After a restore the log may be behind the database's mark: at the start so much is looked at again.
_AGAIN = timedelta(hours=1)
_TURNS_MAX = 10
_LOOKED_BACK_MAX = 50_000


@dataclass
class _Gathered:
    """What an association brought of a study, as far as it was looked at."""

    classes: Counter[str] = field(default_factory=Counter)
    again: int = 0
    #: The first key of each table that is in it.
    first: dict[str, int] = field(default_factory=dict)


class Arrivals:
    """Writes the events of what arrived. For one thread."""

    def __init__(self, database: Database, audit: AuditLog, called_ae: str) -> None:
        self.database, self.audit, self.called_ae = database, audit, called_ae
        self._position: dict[str, int] | None = None
        self._gathered: dict[tuple[int, int], _Gathered] = {}
        self._dead: set[int] = set()
        self._written: set[str] | None = None

    def run(self) -> int:
        """Write what is over; return how many events. Raise VolumeFull, VolumeFailed or DatabaseUnavailable."""
        count = 0
        for _ in range(_TURNS_MAX):
            is_more, until = self._gather()
            if not is_more:
                return count + self._write(until)
        return count

    def _gather(self) -> tuple[bool, datetime]:
        with self.database.transaction() as connection:
            until = whole_until(connection)
        with self.database.transaction() as connection:
            if self._position is None:
                self._position = rows.mark(connection)
                since = self._log_since(until)
                for table, key in self._position.items():
                    self._position[table] = rows.first_since(connection, table, key, since)
            is_more, position = False, dict(self._position)
            for table, after in self._position.items():
                position[table], is_full = rows.seen_until(connection, table, after, until)
                is_more = is_more or is_full
                for row in rows.arrivals(connection, table, after, position[table]):
                    self._add(table, row)
        self._position = position
        return is_more, until

    def _log_since(self, until: datetime) -> datetime:
        lines = islice(self.audit.newest_backwards(), _LOOKED_BACK_MAX)
        newest = next((each for each in lines if each.get("e") == "received"), None)
        return (min(until, datetime.fromisoformat(newest["at"])) if newest else until) - _AGAIN

    def _add(self, table: str, row: Row) -> None:
        found = self._gathered.setdefault((row["association_key"], row["study_key"]), _Gathered())
        found.classes[row["sop_class_uid"]] += row["objects"]
        found.again += row["objects"] if table == "duplicate" else 0
        found.first[table] = min(row["first_key"], found.first.get(table, row["first_key"]))

    def _write(self, until: datetime) -> int:
        keys = {association_key for association_key, _study in self._gathered}
        if not keys:
            self._move_mark()
            return 0
        with self.database.transaction() as connection:
            found = {row["association_key"]: row for row in rows.associations(connection, keys)}
        if self._written is None:
            self._written = self.audit.ids_since(min(row["opened_at"] for row in found.values()))
        over = {key for key, row in found.items() if self._is_over(row, until)}
        ended = {key: each for key, each in self._gathered.items() if key[0] in over}
        studies = rows.studies(self.database, {study for _association, study in ended})
        events = [self._event(each, found[key[0]], studies[key[1]]) for key, each in ended.items()]
        new = [each for each in events if each["id"] not in self._written]
        if new:
            self.audit.append(new)
            self._written |= {each["id"] for each in new}
        for key in ended:
            del self._gathered[key]
        self._dead = {key for key, row in found.items() if not row["is_open"] and row["closed_at"] is None} - over
        self._move_mark()
        return len(new)

    def _is_over(self, row: Row, until: datetime) -> bool:
        """Whether all that it brought was gathered. A dead receiver's is, when a turn passed since it was seen dead."""
        if row["closed_at"] is not None:
            return bool(row["closed_at"] < until)
        return not row["is_open"] and row["association_key"] in self._dead

    def _event(self, gathered: _Gathered, row: Row, study: Row) -> Event:
        was_ended = row["closed_at"] is not None
        return event(
            "received",
            peer(row["calling_ae"], row["peer"], row["user_name"], row["tls_certificate_sha256"]),
            SUCCESS if was_ended else MINOR,
            id=identity_of(
                row["opened_at"].isoformat(), row["calling_ae"], row["peer"], study["study_instance_uid"]
            ),
            to={"ae": self.called_ae},
            begun=row["opened_at"].isoformat(timespec="seconds"),
            study=study["study_instance_uid"],
            patient=study["patient_id"],
            issuer=study["issuer_of_patient_id"],
            classes=dict(gathered.classes),
            again=gathered.again,
            text="" if was_ended else "the receiver died before the association ended; these objects are stored",
        )  # fmt: skip

    def _move_mark(self) -> None:
        """Past all that is written: not past the first thing that an association brought which is not over."""
        assert self._position is not None
        passed = {
            table: min([each.first[table] - 1 for each in self._gathered.values() if table in each.first] or [key])
            for table, key in self._position.items()
        }
        with self.database.transaction() as connection:
            if rows.mark(connection) != passed:
                rows.move_mark(connection, passed["object"], passed["duplicate"])
