"""Queries about refusals: what was refused, of whom, why and how often. One row a (caller, address, kind, detail).

There are at most GROUPS_MAX rows, of one address at most GROUPS_OF_ADDRESS_MAX: who floods us ages out its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from pacs.errors import NotFound
from pacs.index.database import Connection, Database, Row

GROUPS_MAX = 2000
GROUPS_OF_ADDRESS_MAX = 200


class RefusalKind(StrEnum):
    """What was wrong, in plain words."""

    CALLING_AE = "AE title not known"
    ADDRESS = "called from another address"
    CALLED_AE = "called another AE title"
    TLS = "TLS"
    USER_IDENTITY = "user identity"
    LIMIT = "too many associations"
    NOT_READY = "the archive was not ready"
    PROTOCOL = "no DICOM association"
    ABSTRACT_SYNTAX = "abstract syntax not supported"
    TRANSFER_SYNTAX = "no transfer syntax supported"
    OBJECT = "object refused"


#: What `pacs device accept` can put right.
PENDING_KINDS = (RefusalKind.CALLING_AE, RefusalKind.ADDRESS, RefusalKind.CALLED_AE, RefusalKind.TLS)


#: What is noted and nobody has to do anything about: a watcher of ports, a service that others offer.
QUIET_KINDS = (RefusalKind.PROTOCOL, RefusalKind.ABSTRACT_SYNTAX)


@dataclass(frozen=True)
class Refusal:
    """Something that was refused. Nothing in it may be a patient's."""

    kind: RefusalKind
    calling_ae: str
    address: str
    #: The whole reason as a sentence, with what to do.
    reason: str
    #: What tells it from others of its kind: a UID, a status.
    detail: str = ""
    called_ae: str = ""
    device_name: str = ""
    #: The services that an association was asked for.
    wanted: tuple[str, ...] = ()
    sop_instance_uid: str = ""
    count: int = 1
    at: datetime | None = field(default=None, compare=False)

    @property
    def group(self) -> tuple[str, str, str, str]:
        """Refusals with the same group are counted in one row."""
        return (self.calling_ae, self.address, str(self.kind), self.detail)


def record(database: Database, refusals: Sequence[Refusal]) -> None:
    """Count refusals, at most one a group, in one transaction; age out the oldest above the bounds."""
    with database.transaction() as connection:
        # In one order, so that two receivers never wait for one another's rows.
        for each in sorted(refusals, key=lambda refusal: refusal.group):
            connection.execute(
                "INSERT INTO refusal AS r (calling_ae, address, kind, detail, called_ae, device_name, reason, wanted,"
                " sop_instance_uid, count, first_at, last_at)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, coalesce(%s, now()), coalesce(%s, now()))"
                " ON CONFLICT (tenant_id, calling_ae, address, kind, detail) DO UPDATE SET count = r.count"
                " + excluded.count, last_at = excluded.last_at, called_ae = excluded.called_ae,"
                " device_name = excluded.device_name, reason = excluded.reason, wanted = excluded.wanted,"
                " sop_instance_uid = excluded.sop_instance_uid",
                (
                    each.calling_ae, each.address, str(each.kind), each.detail, each.called_ae, each.device_name,
                    each.reason, list(each.wanted), each.sop_instance_uid, each.count, each.at, each.at,
                ),
            )  # fmt: skip
        _age_out(connection, sorted({each.address for each in refusals}))


def _age_out(connection: Connection, addresses: list[str]) -> None:
    oldest = "SELECT refusal_key FROM refusal {where} ORDER BY last_at DESC, refusal_key DESC OFFSET %s"
    delete = "DELETE FROM refusal WHERE refusal_key IN ({oldest})"
    for address in addresses:
        statement = delete.format(oldest=oldest.format(where="WHERE address = %s"))
        connection.execute(statement.encode(), (address, GROUPS_OF_ADDRESS_MAX))
    connection.execute(delete.format(oldest=oldest.format(where="")).encode(), (GROUPS_MAX,))


def list_refusals(database: Database, with_dismissed: bool = False) -> list[Row]:
    """Every refusal, the newest first."""
    with database.transaction() as connection:
        return connection.execute(
            "SELECT refusal_key, calling_ae, address, kind, detail, called_ae, device_name, reason, wanted,"
            " sop_instance_uid, count, first_at, last_at, dismissed_at FROM refusal"
            " WHERE %s OR dismissed_at IS NULL ORDER BY last_at DESC, refusal_key DESC",
            (with_dismissed,),
        ).fetchall()


def refusal(database: Database, refusal_key: int) -> Row:
    """One refusal. Raise NotFound if there is none of that number, or no longer."""
    for row in list_refusals(database, with_dismissed=True):
        if row["refusal_key"] == refusal_key:
            return row
    raise NotFound(f"There is no refusal {refusal_key}. `pacs refusal list` shows them; the oldest are aged out.")


def dismiss(database: Database, refusal_keys: Sequence[int]) -> None:
    """Take refusals off the lists. They are counted on, and shown no more."""
    with database.transaction() as connection:
        connection.execute(
            "UPDATE refusal SET dismissed_at = now() WHERE refusal_key = ANY (%s)", (list(refusal_keys),)
        )


def forget(database: Database, refusal_keys: Sequence[int]) -> None:
    """Delete refusals whose reason is gone."""
    with database.transaction() as connection:
        connection.execute("DELETE FROM refusal WHERE refusal_key = ANY (%s)", (list(refusal_keys),))
