"""Which transfer syntax a presentation context gets, by what the archive holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pacs.index import database as index
from pacs.index import store as rows
from pacs.index.database import Database
from pacs.model.dataset import EXPLICIT_VR_LITTLE_ENDIAN
from pacs.net.negotiation import Negotiation
from pacs.net.refusals import Refusals
from pacs.settings import Settings
from tests.unit.index.rows import new_volume, record

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
JPEG_LOSSLESS, J2K, IMPLICIT = "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2"


@pytest.fixture
def database(conninfo: str) -> Iterator[Database]:
    opened = Database(conninfo)
    index.migrate(opened)
    yield opened
    opened.close()


def keep(database: Database, sop_class: str, syntax: str, count: int) -> None:
    volume = new_volume(database)
    for _ in range(count):
        made = record(sop_class_uid=sop_class)
        file = rows.StoredFile(volume, made.sop_instance_uid, made.sop_instance_uid.encode().ljust(32), 1)
        with database.transaction() as connection:
            rows.store(connection, made, syntax, file, None)


def test_most_stored_then_explicit_then_all(database: Database) -> None:
    keep(database, CT, JPEG_LOSSLESS, 3)
    keep(database, CT, J2K, 2)
    keep(database, MR, J2K, 1)
    negotiation = Negotiation(
        database, Settings(data=Path("/x"), extra_transfer_syntaxes=("1.2.3.4",)), Refusals(database)
    )
    assert negotiation._preferred(CT)[:2] == (JPEG_LOSSLESS, EXPLICIT_VR_LITTLE_ENDIAN)
    assert negotiation._preferred(MR)[:2] == (J2K, EXPLICIT_VR_LITTLE_ENDIAN)
    for uid in ("1.2.840.10008.5.1.4.1.1.7", CT):
        preferred = negotiation._preferred(uid)
        assert len(set(preferred)) == len(preferred)
        assert {IMPLICIT, JPEG_LOSSLESS, "1.2.3.4", "1.2.840.10008.1.2.2"} <= set(preferred)
    assert negotiation._preferred("1.2.3")[0] == EXPLICIT_VR_LITTLE_ENDIAN
